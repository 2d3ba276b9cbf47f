"""A person's rights: everything held about one student, exported or forgotten.

Places are found in catalogs, not in lists: every table of the warehouse, of each
published snapshot, of the copy in PostgreSQL and of the store that has a column for a
student's id or a message's, every dropped file and every mail in MAIL_FOLDER.
docs/privacy.md says what is where, and what is kept.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import getaddresses
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa

from intervene.delivery.inbox import open_mailbox
from intervene.delivery.outbox import WAITING
from intervene.handover import copy_to_warehouse
from intervene.store import (
    Store,
    current,
    delivery_attempts,
    flag_snapshots,
    guards_lifted,
    message_edits,
    message_events,
    messages,
    naive_utc,
)
from ml.forgotten import STUDENT_COLUMNS, Forgotten
from ml.publish import DATABASE, remove_older, snapshots_of, withdraw
from ml.settings import PROJECT_ROOT, Settings, UserError
from ml.warehouse import (
    open_warehouse,
    read_pipeline_settings,
    rewrite_warehouse,
    table_exists,
    transaction,
)

ADDRESS_HEADERS = ("From", "To", "Cc", "Reply-To")
# What makes a row one about the student, by the name of a column. A rejected row is
# told by its ids: `student_id=7, lesson_id=?`. DuckDB and PostgreSQL read them alike.
CONDITIONS = dict.fromkeys(STUDENT_COLUMNS, "trim(cast({} as varchar)) = $student")
CONDITIONS["message_id"] = "{} = any($messages)"
CONDITIONS["record_key"] = " or ".join(
    f"strpos(', ' || {{}} || ', ', ', {name}=' || $student || ', ') > 0"
    for name in STUDENT_COLUMNS
)
Rows = list[dict[str, Any]]


class InSendersHand(UserError):
    """A message to the student may be on its way: nothing can be deleted yet."""


@dataclass(frozen=True)
class Person:
    """A student, and what else tells that something is about this student."""

    source_system: str
    student_id: str
    messages: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Everything:
    """All that is held about one student.

    Attributes
    ----------
    places
        Rows by table, or content by file, by place (`store`, `warehouse`, …).
    raw_files
        Number of rows by file; they are the platform's and stay as they are.
    """

    person: Person
    places: dict[str, dict[str, Rows]]
    raw_files: dict[str, int]

    def counts(self) -> Iterator[tuple[str, str, int]]:
        """Place, table or file, and number of rows, where there are any."""
        for place, tables in self.places.items():
            for table, rows in tables.items():
                yield place, table, len(rows)

    def as_json(self) -> str:
        """One object, indented; times are ISO, UTC."""
        document = {
            "source_system": self.person.source_system,
            "student_id": self.person.student_id,
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.places,
            "raw_files": self.raw_files,
        }
        return json.dumps(document, ensure_ascii=False, indent=2, default=str)


# ---------------------------------------------------------------- finding


def find_everything(store: Store, settings: Settings, student_id: str) -> Everything:
    """Everything that is held about the student with this id.

    Raises
    ------
    UserError
        The id is empty, or the warehouse is of another source than the settings.
    """
    person = _find_person(store, settings, student_id)
    places = {"store": _rows_of_store(store, person)}
    if settings.warehouse_path.exists():
        with open_warehouse(settings.warehouse_path, read_only=True) as connection:
            places["warehouse"] = _rows_of_database(connection, person)
    for snapshot in snapshots_of(settings.data_processed_path):
        with duckdb.connect(str(snapshot / DATABASE), read_only=True) as connection:
            rows = _rows_of_database(connection, person)
            places[f"published snapshot {snapshot.name}"] = rows
    if settings.publish_postgres_url.get_secret_value():
        places["PostgreSQL"] = _rows_of_postgres(settings, person)
    places["files"] = {
        str(path): [json.loads(path.read_text(encoding="utf-8"))]
        for path in _dropped_files(settings, person)
    }
    mails = _mails(settings, person)
    places["mail"] = {str(key): [{"mail": text}] for key, text in mails.items()}
    return Everything(person, places, _raw_files(settings, person))


def _find_person(store: Store, settings: Settings, student_id: str) -> Person:
    # As staging cleans an id: blanks around it do not count, its case does.
    student_id = student_id.strip(" ")
    if not student_id:
        raise UserError("STUDENT_ID is empty. Give the id as student_contacts has it.")
    person = Person(settings.source_system, student_id)
    found = {row["message_id"] for row in store.rows(_of_student(messages, person))}
    rows: Rows = []
    if settings.warehouse_path.exists():
        with open_warehouse(settings.warehouse_path, read_only=True) as connection:
            _refuse_other_source(connection, settings)
            rows += chain(*_rows_of_database(connection, person).values())
    # Where a run was cut off, only these may still tell which messages there were.
    for snapshot in snapshots_of(settings.data_processed_path):
        with duckdb.connect(str(snapshot / DATABASE), read_only=True) as connection:
            rows += chain(*_rows_of_database(connection, person).values())
    if settings.publish_postgres_url.get_secret_value():
        rows += chain(*_rows_of_postgres(settings, person).values())
    found.update(row["message_id"] for row in rows if row.get("message_id"))
    addresses = {row["email"].lower() for row in rows if row.get("email")}
    return Person(
        person.source_system, student_id, tuple(sorted(found)), tuple(sorted(addresses))
    )


def _refuse_other_source(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> None:
    if not table_exists(connection, "pipeline_settings"):
        return
    built = read_pipeline_settings(connection).source_system
    if built != settings.source_system:
        raise UserError(
            f"The warehouse is of SOURCE_SYSTEM={built}, this command runs under "
            f"{settings.source_system}: the same id is another student there. Run it "
            f"with SOURCE_SYSTEM={built}."
        )


def _of_student(table: sa.Table, person: Person) -> sa.Select[Any]:
    """Rows of a table of the store that has the column of a student or a message."""
    columns = table.c
    if "student_id" not in columns:
        return sa.select(table).where(columns.message_id.in_(person.messages))
    query = sa.select(table).where(columns.student_id == person.student_id)
    if "source_system" in columns:
        query = query.where(columns.source_system == person.source_system)
    return query


def store_tables(connection: sa.Connection) -> list[sa.Table]:
    """Tables of the store with rows about students, those referred to last."""
    found = sa.MetaData()
    found.reflect(connection)
    return [
        table
        for table in reversed(found.sorted_tables)
        if {"student_id", "message_id"} & set(table.c.keys())
    ]


def _rows_of_store(store: Store, person: Person) -> dict[str, Rows]:
    with store.reading() as connection:
        found = {
            table.name: [
                dict(row)
                for row in connection.execute(_of_student(table, person)).mappings()
            ]
            for table in store_tables(connection)
        }
    return {name: rows for name, rows in found.items() if rows}


def student_conditions(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """By table, the SQL condition under which a row is about the student.

    Its parameters are `$student`, an id, and `$messages`, a list of ids.
    """
    columns = connection.execute(
        "select schema_name, table_name, column_name from duckdb_columns()"
        " inner join duckdb_tables() using (database_oid, schema_oid, table_oid,"
        " schema_name, table_name)"
        " where duckdb_tables.database_name = current_database()"
        " and not duckdb_tables.internal order by all"
    ).fetchall()
    return _conditions(columns)


def _conditions(columns: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """The same for schema, table and column of all columns there are."""
    found: dict[str, list[str]] = {}
    for schema, table, column in columns:
        condition = CONDITIONS.get(column.strip().lower())
        if condition:
            found.setdefault(f"{_quoted(schema)}.{_quoted(table)}", []).append(
                condition.replace("{}", _quoted(column))
            )
    return {table: " or ".join(parts) for table, parts in found.items()}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _values(condition: str, person: Person) -> dict[str, Any]:
    """The parameters that a condition has: DuckDB refuses others."""
    values = _all_values(person)
    return {name: value for name, value in values.items() if f"${name}" in condition}


def _all_values(person: Person) -> dict[str, Any]:
    return {"student": person.student_id, "messages": list(person.messages)}


def _rows_of_postgres(settings: Settings, person: Person) -> dict[str, Rows]:
    # Imported here: its driver is an extra.
    from ml.serving import postgres

    url = settings.publish_postgres_url.get_secret_value()
    return postgres.rows_about(url, _conditions, _all_values(person))


def _rows_of_database(
    connection: duckdb.DuckDBPyConnection, person: Person
) -> dict[str, Rows]:
    found = {}
    for table, condition in student_conditions(connection).items():
        cursor = connection.execute(
            f"select * from {table} where {condition}", _values(condition, person)
        )
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        if rows:
            found[table.replace('"', "")] = rows
    return found


def _dropped_files(settings: Settings, person: Person) -> list[Path]:
    """Files of DROP_FOLDER, whole or half written, with a message to the student."""
    if not settings.drop_folder:
        return []
    folder = PROJECT_ROOT / Path(settings.drop_folder).expanduser()
    return [
        path
        for path in sorted(folder.glob("*"))
        if path.name.strip(".").split(".")[0] in person.messages
        or (path.suffix == ".json" and _is_dropped_for(path, person))
    ]


def _is_dropped_for(path: Path, person: Person) -> bool:
    try:
        letter = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(letter, dict) and letter.get("student_id") == person.student_id


def _mails(settings: Settings, person: Person) -> dict[Any, str]:
    """Mails of MAIL_FOLDER about a message, or from or to an address, by their key."""
    if not (settings.mail_folder and settings.mail_from):
        return {}
    box = open_mailbox(settings)
    with closing(box):
        found = [(key, mail) for key, mail in box.items() if _is_about(mail, person)]
        return {key: mail.as_string() for key, mail in found}


def _is_about(mail: Any, person: Person) -> bool:
    values = [mail.get_all(name, []) for name in ADDRESS_HEADERS]
    headers = [str(value) for found in values for value in found]
    people = {address.lower() for _, address in getaddresses(headers)}
    named = set(re.findall(r"[0-9a-f]{32}", mail.as_string()))
    return bool(people & set(person.addresses) or named & set(person.messages))


def _raw_files(settings: Settings, person: Person) -> dict[str, int]:
    """Rows about the student by file of DATA_RAW_PATH, in which nothing is changed."""
    if not settings.data_raw_path or settings.source_system == "sample":
        return {}
    folder = PROJECT_ROOT / Path(settings.data_raw_path).expanduser()
    files = [*folder.glob("*.*"), *folder.glob("*/*.*")]
    with duckdb.connect() as connection:
        found = {
            str(file): _count_raw(connection, file, person)
            for file in sorted(files)
            if file.suffix.lower() in (".csv", ".parquet")
        }
    return {file: rows for file, rows in found.items() if rows}


def _count_raw(
    connection: duckdb.DuckDBPyConnection, file: Path, person: Person
) -> int:
    # A folder named student_id=7 is no column, as in dbt's reading.
    options = "hive_partitioning = false"
    reader = f"read_parquet($file, {options})"
    if file.suffix.lower() == ".csv":
        reader = f"read_csv($file, header = true, all_varchar = true, {options})"
    try:
        columns = connection.execute(
            f"describe select * from {reader}", {"file": str(file)}
        ).fetchall()
        for name in (column[0] for column in columns):
            if name.strip().lower() in STUDENT_COLUMNS:
                condition = CONDITIONS[STUDENT_COLUMNS[0]].format(_quoted(name))
                row = connection.execute(
                    f"select count(*) from {reader} where {condition}",
                    {"file": str(file), "student": person.student_id},
                ).fetchone()
                return int(row[0]) if row else 0
    except duckdb.Error as error:
        raise UserError(
            f"{file} cannot be read: {str(error).splitlines()[0]}. `python -m "
            "ml.preflight` says what is wrong with the raw files."
        ) from None
    return 0


# ---------------------------------------------------------------- export


def describe_everything(everything: Everything) -> str:
    """How much there is in each place; says nothing of the student."""
    lines = [f"  {place}, {table}: {n:,}" for place, table, n in everything.counts()]
    raw = [
        f"  {path}: {rows:,} rows, which are the platform's and stay; builds leave "
        "out a student who was forgotten"
        for path, rows in everything.raw_files.items()
    ]
    head = (
        "Held about this student:" if lines else "Nothing is held about this student."
    )
    return "\n".join([head, *lines, *(["In raw files:", *raw] if raw else [])])


def write_export(everything: Everything, path: Path) -> None:
    """Write the export for its owner alone; a file that is there is not replaced."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(everything.as_json() + "\n")
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None


# ---------------------------------------------------------------- forgetting


def refuse_in_senders_hand(connection: sa.Connection, ids: Iterable[str]) -> None:
    """Raise InSendersHand where an attempt at one of these messages is open."""
    columns = delivery_attempts.c
    held: Iterable[str] = connection.execute(
        sa.select(columns.message_id)
        .where(columns.message_id.in_(list(ids)))
        .where(sa.or_(columns.outcome.is_(None), columns.outcome == "unknown"))
        .order_by(columns.message_id)
    ).scalars()
    names = ", ".join(held)
    if names:
        raise InSendersHand(
            f"The sender has {names} in hand, or it is unknown whether it "
            "went out. Wait until it has finished; if it stays so, `python -m "
            "intervene send --unknown` says what to do. Then run this again."
        )


def forget(store: Store, settings: Settings, everything: Everything) -> bool:
    """Delete everything that was found, and see to it that it does not come back.

    The hash is remembered first: whatever stops this half-way, nothing is drafted,
    sent or built for the student any more, and running it again finishes it.

    Returns
    -------
    bool
        False where the student had been remembered before.

    Raises
    ------
    InSendersHand
        Before anything is deleted.
    """
    person = everything.person
    with store.reading() as connection:
        refuse_in_senders_hand(connection, person.messages)
    is_new = Forgotten.from_settings(settings).remember(
        person.source_system, person.student_id
    )
    try:
        _delete_everywhere(store, settings, person)
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}. The student is remembered, but not "
            "everything is deleted. Put that right and run this again."
        ) from None
    return is_new


def _delete_everywhere(store: Store, settings: Settings, person: Person) -> None:
    for path in _dropped_files(settings, person):
        path.unlink(missing_ok=True)
    _delete_mails(settings, person)
    _delete_from_store(store, person)
    if settings.warehouse_path.exists():
        _delete_from_warehouse(settings.warehouse_path, person)
    _delete_from_published(settings.data_processed_path, person)
    _delete_from_postgres(settings, person)


def _delete_mails(settings: Settings, person: Person) -> None:
    keys = list(_mails(settings, person))
    if not keys:
        return
    box = open_mailbox(settings)
    with closing(box):
        box.lock()
        for key in keys:
            box.discard(key)
        box.flush()
        box.unlock()


def _delete_from_store(store: Store, person: Person) -> None:
    """In one transaction, and so that no byte of the rows stays in the file."""
    with store.writing() as connection:
        store.wait_for_writers(connection)
        tables = store_tables(connection)
        # A draft may have come in since the messages were looked up.
        query = _of_student(messages, person).with_for_update()
        ids = {*person.messages, *connection.execute(query).scalars()}
        person = Person(person.source_system, person.student_id, tuple(sorted(ids)))
        refuse_in_senders_hand(connection, ids)
        with guards_lifted(connection, [table.name for table in tables]):
            for table in tables:
                condition = _of_student(table, person).whereclause
                assert condition is not None
                connection.execute(sa.delete(table).where(condition))
    store.vacuum()


def _delete_from_warehouse(path: Path, person: Person) -> None:
    with open_warehouse(path) as connection, transaction(connection):
        for table, condition in student_conditions(connection).items():
            connection.execute(
                f"delete from {table} where {condition}", _values(condition, person)
            )
    # Always: what a run that was cut off deleted still lies in the file.
    rewrite_warehouse(path)


def _delete_from_published(folder: Path, person: Person) -> None:
    for snapshot in snapshots_of(folder):
        with duckdb.connect(str(snapshot / DATABASE), read_only=True) as connection:
            if not _rows_of_database(connection, person):
                continue
            conditions = student_conditions(connection)
        withdraw(folder, conditions, _all_values(person))
        return


def _delete_from_postgres(settings: Settings, person: Person) -> None:
    url = settings.publish_postgres_url.get_secret_value()
    if url:
        # Imported here: its driver is an extra.
        from ml.serving import postgres

        postgres.withdraw(url, _conditions, _all_values(person))


# ---------------------------------------------------------------- retention


def retain(store: Store, settings: Settings, now: datetime) -> dict[str, int]:
    """Remove what is older than RETENTION_DAYS; return how much, by what it was.

    A message counts from the day its sitting was due, or was drafted for where it
    has none. What is waiting to go out, or may be on its way, is left alone. That
    there was a message, and what became of it, stays; its text goes, and with it
    what a model was asked, what the sender tried and why the student was flagged.

    Raises
    ------
    UserError
        RETENTION_DAYS is empty.
    """
    if settings.retention_days is None:
        raise UserError(
            "RETENTION_DAYS is empty: everything is kept. Set it to a number of days."
        )
    before = now - timedelta(days=settings.retention_days)
    removed = _retain_in_store(store, naive_utc(before))
    if settings.warehouse_path.exists():
        with open_warehouse(settings.warehouse_path) as connection:
            source = read_pipeline_settings(connection).source_system
            copy_to_warehouse(connection, store, source)
        rewrite_warehouse(settings.warehouse_path)
    removed["published snapshots"] = remove_older(settings.data_processed_path, before)
    return removed


def _retain_in_store(store: Store, before: datetime) -> dict[str, int]:
    removed = {}
    with store.writing() as connection:
        tables = store_tables(connection)
        ids = _expired(connection, before)
        with guards_lifted(connection, [table.name for table in tables]):
            for table in tables:
                statement = _retaining(table, ids, before)
                if statement is not None:
                    removed[table.name] = connection.execute(statement).rowcount
    store.vacuum()
    return removed


def _expired(connection: sa.Connection, before: datetime) -> list[str]:
    columns, attempts = current.c, delivery_attempts.c
    open_ones = sa.select(attempts.message_id).where(
        sa.or_(attempts.outcome.is_(None), attempts.outcome == "unknown")
    )
    query = (
        sa.select(columns.message_id)
        .where(sa.func.coalesce(columns.due_at, columns.created_at) < before)
        .where(columns.state.not_in(WAITING))
        .where(columns.message_id.not_in(open_ones))
    )
    return list(connection.execute(query).scalars())


def _retaining(
    table: sa.Table, ids: list[str], before: datetime
) -> sa.Update | sa.Delete | None:
    """What removes from a table what is too old; None where it keeps its rows."""
    columns = table.c
    if table.name in (messages.name, message_edits.name):
        old = sa.and_(columns.message_id.in_(ids), columns.body != "")
        return sa.update(table).where(old).values(subject=None, body="")
    if table.name == flag_snapshots.name:
        return sa.delete(table).where(
            sa.func.coalesce(columns.due_at, columns.as_of_date) < before
        )
    if "message_id" in columns and table.name != message_events.name:
        return sa.delete(table).where(columns.message_id.in_(ids))
    return None
