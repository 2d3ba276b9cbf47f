"""The published tables in PostgreSQL: `python -m ml.publish --target postgres`.

What readers open are views with the names of the warehouse (`main.flagged_students`),
each of a table in schema `student_success_data`. A publication is one transaction: it
fills new tables beside those in use, counts them, keeps readers out for a moment,
points every view at its new table and drops the old ones. So a reader sees one
publication or the next, also in a transaction of several queries, and whatever stops a
publication leaves nothing behind. docs/serving.md has the reasons.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from ml.serving.connection import Connection, connect, lock_out_publishers
from ml.serving.tables import (
    MANIFEST,
    Stored,
    copy_all,
    store,
    tables_of,
    write_manifest,
)
from ml.serving.views import (
    held_tables,
    make_schemas,
    refuse_what_is_in_the_way,
    show,
    shown_tables,
)
from ml.warehouse import open_warehouse

log = logging.getLogger(__name__)

# How long readers that keep the views in use are waited for.
PATIENCE_SECONDS = 600.0

Conditions = Callable[[Iterable[tuple[str, str, str]]], dict[str, str]]


@dataclass(frozen=True)
class Published:
    """What readers see: number of the snapshot, rows by `schema.table`, and where."""

    snapshot: int
    rows: dict[str, int]
    place: str


def publish(warehouse: Path, url: str, patience: float = PATIENCE_SECONDS) -> Published:
    """Copy the published tables of the warehouse, and show them to readers at once.

    Parameters
    ----------
    warehouse
        The DuckDB file of the pipeline; nobody may be writing to it.
    url
        Where to, as PUBLISH_POSTGRES_URL.
    patience
        Seconds to wait for readers that keep the views in use.

    Raises
    ------
    NotPublished
        Readers see what they saw before.
    """
    with _publication(url) as (connection, number):
        make_schemas(connection)
        with open_warehouse(warehouse, read_only=True) as source:
            tables = tables_of(source)
            refuse_what_is_in_the_way(connection, tables)
            stored, rows = copy_all(connection, source, tables, number)
        stored.append(write_manifest(connection, number, rows))
        show(connection, stored, set(), patience)
        info = connection.info
        place = f"{info.dbname} on {info.host}:{info.port}"
    return Published(number, rows, place)


def withdraw(
    url: str,
    conditions: Conditions,
    values: dict[str, Any],
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Write tables anew without some rows; the bytes of the old ones are gone then.

    Parameters
    ----------
    conditions
        Gives, for schema, table and column of all columns, the SQL condition of the
        rows to leave out by table, as `"schema"."table"`.
    values
        Parameters of the conditions, which write them as `$name`.
    """
    with _publication(url) as (connection, number), connect(url) as reader:
        shown = shown_tables(connection)
        affected = _matching(connection, shown, conditions, values)
        rows = _published_rows(connection, shown)
        stored = []
        for index, (old, condition) in enumerate(affected):
            left = _rows_left(reader, old, condition, values)
            new = Stored.of(old.table, number, index)
            rows[old.table.full_name] = store(connection, new, left, "binary")
            stored.append(new)
        reader.rollback()
        if stored:
            stored.append(write_manifest(connection, number, rows))
            changed = {new.table.full_name for new in stored}
            kept = {old.held_in for name, old in shown.items() if name not in changed}
            show(connection, stored, kept, patience)
    _forget_statistics(url)


def _forget_statistics(url: str) -> None:
    """What the planner knew of dropped tables, most frequent values among it.

    Always: a run that was cut off may have left it.
    """
    refused: list[object] = []
    with connect(url, autocommit=True) as connection:
        connection.add_notice_handler(refused.append)
        connection.execute("vacuum full pg_statistic")
    if refused:
        log.warning(
            "PostgreSQL may keep values of deleted rows in its statistics until they "
            "are cleaned: have the owner of the database run `vacuum full "
            "pg_statistic` there."
        )


def rows_about(
    url: str, conditions: Conditions, values: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Published rows that meet a condition, by `schema.table`; as in `withdraw`."""
    with connect(url) as connection:
        affected = _matching(connection, shown_tables(connection), conditions, values)
        found = {}
        for stored, condition in affected:
            query = sql.SQL("select * from {} where {}").format(
                stored.table.view, condition
            )
            with connection.cursor(row_factory=dict_row) as cursor:
                found[stored.table.full_name] = cursor.execute(query, values).fetchall()
        return found


@contextmanager
def _publication(url: str) -> Iterator[tuple[Connection, int]]:
    """A transaction of the only publisher, and the number of its snapshot."""
    with connect(url) as connection:
        lock_out_publishers(connection)
        numbers = [int(name.split("_")[0]) for name in held_tables(connection)]
        yield connection, 1 + max(numbers, default=0)


def _matching(
    connection: Connection,
    shown: dict[str, Stored],
    conditions: Conditions,
    values: dict[str, Any],
) -> list[tuple[Stored, sql.SQL]]:
    """The tables that have rows which meet their condition, and the condition."""
    columns = [
        (stored.table.schema, stored.table.name, column)
        for stored in shown.values()
        for column in stored.table.columns
    ]
    found = []
    wanted = conditions(columns)
    for stored in shown.values():
        condition = wanted.get(stored.table.quoted)
        if condition is None:
            continue
        clause = sql.SQL(re.sub(r"\$([a-z]+)", r"%(\1)s", condition.replace("%", "%%")))
        query = sql.SQL("select 1 from {} where {} limit 1").format(
            stored.table.view, clause
        )
        if connection.execute(query, values).fetchone():
            found.append((stored, clause))
    return found


def _published_rows(connection: Connection, shown: dict[str, Stored]) -> dict[str, int]:
    if MANIFEST.full_name not in shown:
        return {}
    query = sql.SQL("select table_schema || '.' || table_name, row_count from {}")
    return dict(connection.execute(query.format(MANIFEST.view)).fetchall())


def _rows_left(
    reader: Connection, old: Stored, condition: sql.SQL, values: dict[str, Any]
) -> Iterator[bytes]:
    """The rows of a table that do not meet the condition."""
    names = sql.SQL(", ").join(map(sql.Identifier, old.table.columns))
    query = sql.SQL(
        "copy (select {} from {} where ({}) is not true) to stdout (format binary)"
    ).format(names, old.rows_at, condition)
    with reader.cursor() as cursor, cursor.copy(query, values) as copy:
        for chunk in copy:
            yield bytes(chunk)
