"""A person's rights: everything exported, everything forgotten, and it stays so."""

import json
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from mailbox import Maildir
from pathlib import Path

import duckdb
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from intervene.delivery.channels import FileChannel, Letter
from intervene.delivery.outbox import NotClaimed, claim
from intervene.drafting.ledger import model_requests
from intervene.rights import InSendersHand, find_everything, forget, retain
from intervene.store import Message, Store, messages, metadata, open_store
from ml.forgotten import STUDENT_COLUMNS, Forgotten, ForgottenUnusable
from ml.publish import publish, snapshots_of
from ml.serving import postgres
from ml.settings import PROJECT_ROOT, Settings, UserError
from ml.warehouse import handback_tables, open_warehouse
from tests.leakage_data import write_platform
from tests.pipeline import environment
from tests.pipeline import run as run_dbt

ID, NAME = "zq-student-0017", "Zebulonia"
EMAIL, PHONE = "zq.zebulonia@example.org", "+4799887766"
TRACES = [text.encode() for text in (ID, NAME, EMAIL, PHONE)]
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
# Tables of the store in which no row is about a student.
ABOUT_NOBODY = {"campaigns", "pseudonym_keys"}

BUILT = (
    "--select", "+quarantine_summary", "+int_daily_activity", "+contacts",
    "+student_targets", "pipeline_settings",
)  # fmt: skip


def draft(student: str = ID, **changes: object) -> Message:
    values = {
        "source_system": "platform", "student_id": student, "course_id": "c1",
        "course_run_id": "r1", "assessment_id": "a1",
        "due_at": datetime(2026, 3, 14, 12), "as_of_date": date(2026, 3, 4),
        "campaign": "early-alert", "step": 1, "channel": "email",
        "tone": "supportive", "locale": "en", "drafter": "template",
        "drafter_version": "1", "subject": "Exam",
        "body": f"Hello {{first_name}}, this text is about {student}.",
    }  # fmt: skip
    return Message(**(values | changes))


def fill_store(store: Store, message: Message) -> None:
    """A row about the message, or its student, in every table that can have one."""
    store.add([message], NOW)
    store.record(message.message_id, "approved", "ada", NOW)
    with store.writing() as connection:
        for table in metadata.sorted_tables:
            if table.name in ("messages", "message_events", "pseudonym_keys"):
                continue
            row = {column.name: value_for(column, message) for column in table.c}
            if (
                table.name in ABOUT_NOBODY
                and connection.execute(sa.select(table).limit(1)).first()
            ):
                continue
            connection.execute(sa.insert(table), row)


def value_for(column: sa.Column, message: Message) -> object:
    known = {
        "message_id": message.message_id,
        "student_id": message.student_id,
        "source_system": message.source_system,
        "campaign": message.campaign,
        "due_at": message.due_at,
        "outcome": "accepted",
        "request_id": message.message_id,
        "snapshot_id": message.message_id,
    }
    if column.name in known:
        return known[column.name]
    return {
        sa.DateTime: NOW.replace(tzinfo=None), sa.Date: NOW.date(), sa.Integer: 1,
        sa.Double: 0.5, sa.Boolean: False, sa.JSON: [],
    }.get(type(column.type), "a text")  # fmt: skip


def students_in(store: Store) -> dict[str, set[str]]:
    """Students by table of the store, through their messages where need be."""
    student_of = {row["message_id"]: row["student_id"] for row in store.messages()}
    found = {}
    for table in metadata.sorted_tables:
        if table.name not in ABOUT_NOBODY:
            found[table.name] = {
                row.get("student_id") or student_of.get(row["message_id"], "nobody")
                for row in store.rows(sa.select(table))
            }
    return found


def files_with_traces(folder: Path) -> set[str]:
    """Names of the files that hold a byte of the student, but the list of hashes."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(trace in path.read_bytes() for trace in TRACES)
    }


def is_traced(name: str, files: set[str]) -> bool:
    return any(name in file for file in files)


# ---------------------------------------------------------------- the store


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment(tmp_path / "data", SOURCE_SYSTEM="platform").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORGOTTEN_PATH", raising=False)
    return Settings(_env_file=None)


@pytest.fixture
def store(store_url: str, settings: Settings) -> Iterator[Store]:
    with open_store(store_url, Forgotten.from_settings(settings)) as opened:
        yield opened


def test_store_forgets_one_student_and_nobody_else(store, settings):
    for student in (ID, "other"):
        fill_store(store, draft(student))
    elsewhere = draft(ID, source_system="oulad")
    store.add([elsewhere], NOW)
    everything = find_everything(store, settings, f" {ID} ")
    tables = {table for place, table, _ in everything.counts() if place == "store"}
    assert tables == set(metadata.tables) - ABOUT_NOBODY
    assert forget(store, settings, everything)

    assert {frozenset(found) for found in students_in(store).values()} == {
        frozenset({"other"}),
        frozenset({"other", ID}),
    }
    left = [row for row in store.messages() if row["student_id"] == ID]
    assert [row["source_system"] for row in left] == ["oulad"], "another student"
    for table in ("message_events", "message_edits", "campaign_assignments"):
        with pytest.raises(DBAPIError, match="append-only"), store.writing() as db:
            db.exec_driver_sql(f"delete from {table}")
    again = find_everything(store, settings, ID)
    assert list(again.counts()) == []
    assert not forget(store, settings, again)


def test_no_byte_stays_in_the_log_of_an_open_store(tmp_path, settings):
    """A program that has the file open keeps SQLite's log alive."""
    path = tmp_path / "store.sqlite"
    with open_store(f"sqlite:///{path}") as store:
        fill_store(store, draft())
        with closing(sqlite3.connect(path)) as other:
            other.execute("select count(*) from messages").fetchall()
            assert files_with_traces(tmp_path), "or the test cannot fail"
            forget(store, settings, find_everything(store, settings, ID))
            assert files_with_traces(tmp_path) == set()


def test_forgotten_student_is_neither_drafted_nor_sent(store, settings):
    store.add([draft(), draft("other")], NOW)
    for message in (draft(), draft("other")):
        store.record(message.message_id, "approved", "ada", NOW)
    Forgotten.from_settings(settings).remember("platform", ID)
    with pytest.raises(NotClaimed, match="forgotten"):
        claim(store, draft().message_id, "worker", NOW, None)
    claim(store, draft("other").message_id, "worker", NOW, None)
    assert store.add([draft(step=2), draft("other", step=2)], NOW) == [
        draft("other", step=2)
    ]


def test_forget_waits_for_the_sender(store, settings):
    store.add([draft()], NOW)
    store.record(draft().message_id, "approved", "ada", NOW)
    claim(store, draft().message_id, "worker", NOW, None)
    everything = find_everything(store, settings, ID)
    with pytest.raises(InSendersHand, match="send --unknown"):
        forget(store, settings, everything)
    assert len(store.messages()) == 1
    assert not Forgotten.from_settings(settings).holds("platform", ID)


def test_forget_reaches_the_copy_in_postgresql(
    settings, store, tmp_path, postgresql_database, monkeypatch
):
    """Rows and bytes; what others have, and a view upon it, stays as it was."""
    monkeypatch.setenv("PUBLISH_POSTGRES_URL", postgresql_database)
    settings = Settings(_env_file=None)
    store.add([draft(), draft("other")], NOW)
    ids = [draft(student).message_id for student in (ID, "other")]
    with duckdb.connect(str(settings.warehouse_path)) as warehouse:
        for statement in (
            "create schema ml", "create schema intervene", "create schema quarantine",
            f"create table student_targets as select unnest(['{ID} ', 'other']) as"
            " student_id, 0.5 as risk",
            f"create table intervene.message_events as select unnest({ids}) as"
            " message_id, 'sent' as event",
            f"create table quarantine.quarantine as select unnest(['student_id={ID}',"
            " 'student_id=other', 'student_id=another, lesson_id=7']) as record_key",
        ):  # fmt: skip
            warehouse.execute(statement)
    postgres.publish(settings.warehouse_path, postgresql_database)
    with psycopg.connect(postgresql_database, autocommit=True) as reader:
        reader.execute("create schema reports")
        reader.execute(
            "create view reports.risks as select * from main.student_targets"
        )
        files = database_files(reader)
        assert files_with_traces(files), "or the test cannot fail"

        everything = find_everything(store, settings, ID)
        found = everything.places["PostgreSQL"]
        assert {table: len(rows) for table, rows in found.items()} == {
            "main.student_targets": 1,
            "intervene.message_events": 1,
            "quarantine.quarantine": 1,
        }
        forget(store, settings, everything)

        again = find_everything(store, settings, ID)
        assert list(again.counts()) == []
        assert reader.execute("select student_id from reports.risks").fetchall() == [
            ("other",)
        ]
        kept = reader.execute("select record_key from quarantine.quarantine").fetchall()
        assert len(kept) == 2
        assert files_with_traces(database_files(reader)) == set()


def database_files(connection: psycopg.Connection) -> Path:
    """The folder of a database's tables, as they are on disk now."""
    connection.execute("checkpoint")
    row = connection.execute(
        "select current_setting('data_directory') || '/base/' || oid from pg_database"
        " where datname = current_database()"
    ).fetchone()
    return Path(row[0])


def test_a_copy_that_cannot_be_reached_stops_before_anything_is_deleted(
    settings, store, monkeypatch
):
    store.add([draft()], NOW)
    monkeypatch.setenv("PUBLISH_POSTGRES_URL", "postgresql://u:secret@127.0.0.1:1/x")
    settings = Settings(_env_file=None)
    with pytest.raises(UserError, match="Connection refused") as error:
        find_everything(store, settings, ID)
    assert "secret" not in str(error.value)
    assert len(store.messages()) == 1


def test_retention_takes_the_text_and_leaves_what_became_of_it(store, settings):
    old, recent = draft(), draft("other", due_at=datetime(2026, 9, 1))
    for message in (old, recent):
        fill_store(store, message)
        store.record(message.message_id, "rejected", "ada", NOW, "not now")
    later = datetime(2026, 8, 1, tzinfo=UTC)
    with pytest.raises(UserError, match="RETENTION_DAYS is empty"):
        retain(store, settings, later)
    settings = settings.model_copy(update={"retention_days": 30})
    removed = retain(store, settings, later)
    assert {name for name, count in removed.items() if count} == {
        "messages", "message_edits", "model_requests", "delivery_attempts",
        "flag_snapshots",
    }  # fmt: skip
    texts = {row["student_id"]: row["body"] for row in store.messages()}
    assert texts == {ID: "", "other": "a text"}
    assert {row["state"] for row in store.messages()} == {"rejected"}
    assert len(store.rows(sa.select(model_requests))) == 1
    assert sum(retain(store, settings, later).values()) == 0, "nothing is left"


def test_retention_leaves_what_waits(store, settings):
    store.add([draft()], NOW)
    store.record(draft().message_id, "approved", "ada", NOW)
    settings = settings.model_copy(update={"retention_days": 1})
    retain(store, settings, NOW + timedelta(days=100))
    assert store.rows(sa.select(messages))[0]["body"] == draft().body


# ---------------------------------------------------------------- the hashes


def test_hashes_cannot_be_read_without_the_key(tmp_path):
    forgotten = Forgotten(tmp_path / "forgotten")
    assert not forgotten.holds("platform", ID)
    assert not forgotten.folder.exists(), "asking makes nothing"
    assert forgotten.remember("platform", ID)
    assert not forgotten.remember("platform", f" {ID} "), "blanks do not count"
    assert forgotten.holds("platform", ID)
    assert not forgotten.holds("oulad", ID), "the same id is another student there"
    assert not forgotten.holds("platform", ID.upper()), "as staging takes it"
    for file in forgotten.folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (forgotten.folder / "key").unlink()
    with pytest.raises(ForgottenUnusable, match="Restore it"):
        forgotten.holds("platform", ID)
    with pytest.raises(ForgottenUnusable, match="Restore it"):
        forgotten.prepare()


def test_every_raw_row_is_read_where_the_forgotten_are_left_out():
    """Whatever source is added: nothing but raw_table() reads raw data."""
    project = PROJECT_ROOT / "dbt_project"
    seeds = {path.stem for path in (PROJECT_ROOT / "seeds").glob("*.csv")}
    for model in (project / "models").rglob("*.sql"):
        text = model.read_text(encoding="utf-8")
        for source in ("platform", "oulad"):
            assert f"source('{source}'" not in text, model
        for seed in seeds:
            assert f"ref('{seed}')" not in text, model
    macro = (project / "macros" / "forgotten.sql").read_text(encoding="utf-8")
    assert f"return({list(STUDENT_COLUMNS)!r})" in macro, "dbt and Python agree"


# ---------------------------------------------------------------- end to end


@dataclass
class World:
    """Everything a pipeline leaves behind, with traces of the student everywhere."""

    folder: Path
    raw: Path
    data: Path
    environment: dict[str, str]

    @property
    def warehouse(self) -> Path:
        return self.data / "warehouse.duckdb"

    def dbt(self, *arguments: str) -> None:
        run_dbt(self.folder, "dbt", *arguments, **self.environment)

    def query(self, sql: str, *values: object) -> list[tuple]:
        with duckdb.connect(str(self.warehouse)) as connection:
            return connection.execute(sql, values).fetchall()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    written, data = folder / "raw", folder / "data"
    write_platform(written, students=60)
    plant_student(written)
    # Somebody's way to name folders, from which DuckDB would make a column.
    raw = written.rename(folder / "student_id=all")
    data.mkdir()
    made = World(folder, raw, data, {
        "SOURCE_SYSTEM": "platform", "DATA_RAW_PATH": str(raw),
        "WAREHOUSE_PATH": str(data / "warehouse.duckdb"),
        "DATA_PROCESSED_PATH": str(data / "published"),
        "INTERVENE_STORE": f"sqlite:///{data / 'intervene.sqlite'}",
        "DROP_FOLDER": str(data / "drop"), "MAIL_FOLDER": str(data / "mail"),
        "MAIL_FROM": "advice@example.com",
    })  # fmt: skip
    made.dbt("run", *BUILT)
    fill_handback_tables(made)
    for _ in range(2):
        publish(made.warehouse, data / "published")
    with open_store(made.environment["INTERVENE_STORE"]) as store:
        fill_store(store, draft())
    drop_and_mail(data)
    return made


def plant_student(raw: Path) -> None:
    """Give one of the raw students an id and contacts that are found again."""
    with duckdb.connect() as db:
        (victim,) = db.execute(
            f"select student_id from '{raw}/student_contacts.parquet'"
            f" inner join '{raw}/assessment_results.parquet' using (student_id)"
            f" inner join '{raw}/activity_events.parquet' using (student_id)"
            " group by all order by count(*) desc, student_id limit 1"
        ).fetchone()
        for file in raw.glob("*.parquet"):
            rows = db.execute(f"from '{file}'").to_arrow_table()
            if "student_id" not in rows.column_names:
                continue
            changed = f"if(student_id = '{victim}', '{ID} ', student_id) as student_id"
            if file.stem == "student_contacts":
                for column, value in (
                    ("first_name", NAME), ("email", EMAIL), ("phone", PHONE),
                ):  # fmt: skip
                    changed += f", if(student_id = '{victim}', '{value}', {column})"
                    changed += f" as {column}"
            sql = f"select * replace ({changed}) from rows"
            if file.stem in ("assessment_results", "activity_events", "subscriptions"):
                time = "valid_from" if file.stem == "subscriptions" else "submitted_at"
                time = "occurred_at" if file.stem == "activity_events" else time
                # One that is rejected: quarantine tells it by its ids.
                sql = f"with r as ({sql}) from r union all by name (select * replace"
                sql += f" (null as {time}) from r where student_id = '{ID} ' limit 1)"
            db.execute(f"copy ({sql}) to '{file}.new' (format parquet)")
            Path(f"{file}.new").replace(file)


def fill_handback_tables(world: World) -> None:
    """As if scores, messages and experiments had come back about the student."""
    with open_warehouse(world.warehouse) as connection:
        for source in ("ml", "intervene"):
            for table in handback_tables(source).values():
                row = {"student_id": ID, "message_id": draft().message_id}
                names = [name for name in row if name in table.columns]
                if names:
                    marks = ", ".join("?" for _ in names)
                    connection.execute(
                        f"insert into {table.full_name} ({', '.join(names)})"
                        f" values ({marks})",
                        [row[name] for name in names],
                    )


def drop_and_mail(data: Path) -> None:
    channel = FileChannel(data / "drop")
    channel.prepare()
    letter = Letter(draft().message_id, ID, "email", EMAIL, "Exam", f"Hello {NAME}")
    assert channel.send(letter).kind == "accepted"
    box = Maildir(data / "mail")
    for sender, text in (
        (EMAIL, f"I am {NAME}"),
        ("daemon@example.com", f"<{draft().message_id}@example.com> to {EMAIL} failed"),
        ("colleague@example.com", "Lunch?"),
    ):
        mail = EmailMessage()
        mail["From"], mail["To"] = sender, "advice@example.com"
        mail.set_content(text)
        box.add(mail)


@pytest.fixture
def command(world, run, monkeypatch):
    for name, value in environment(world.folder, **world.environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORGOTTEN_PATH", raising=False)
    return run


def test_forget_leaves_no_byte_and_the_next_build_brings_nothing_back(world, command):
    """One story, because a build is dear: export, forget, forget again, build."""
    places = ["warehouse.duckdb", "intervene.sqlite", "published", "drop", "mail"]
    traced = files_with_traces(world.data)
    assert all(is_traced(place, traced) for place in places), traced
    rejected = world.query(
        "select count(*) from quarantine.quarantine"
        " where contains(record_key, 'student_id=' || ?)", ID
    )[0][0]  # fmt: skip
    assert rejected >= 3
    before = dict(
        world.query("select source_table, raw_rows from quarantine.quarantine_summary")
    )

    # ---------- export
    file = world.folder / "export.json"
    exported = command("export", ID, "--to", str(file))
    assert exported.code == 0, exported.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not any(trace.decode() in exported.out + exported.err for trace in TRACES)
    document = json.loads(file.read_text())
    assert document["store"]["messages"][0]["body"] == draft().body
    assert document["warehouse"]["personal.student_contacts"][0]["email"] == EMAIL
    assert len(document["warehouse"]["quarantine.quarantine"]) == rejected
    assert len(document["mail"]) == 2
    assert len([name for name in document if name.startswith("published")]) == 2
    handed_back = {
        table.full_name
        for source in ("ml", "intervene")
        for table in handback_tables(source).values()
        if {"student_id", "message_id"} & set(table.columns)
    }
    assert handed_back <= set(document["warehouse"])
    assert any("student_contacts.parquet" in name for name in document["raw_files"])

    # ---------- forget, stopped half-way by something in the way of publishing
    obstacle = world.data / "published" / ".snapshots" / "draft"
    obstacle.touch()
    stopped = command("forget", ID, "--yes")
    assert stopped.code == 1
    assert "run this again" in stopped.err
    assert Forgotten(world.data / "forgotten").holds("platform", ID)
    obstacle.unlink()
    finished = command("forget", ID, "--yes")
    assert finished.code == 0, finished.err
    assert "remembered before" in finished.out
    assert not any(trace.decode() in finished.out + finished.err for trace in TRACES)
    assert files_with_traces(world.data) == set()
    assert len(snapshots_of(world.data / "published")) == 1
    with duckdb.connect(
        str(world.data / "published" / "student_success.duckdb"), read_only=True
    ) as published:
        assert published.execute("from student_targets limit 1").fetchall()
        assert published.execute("from intervene.message_events").fetchall() == []
    assert [mail["From"] for mail in Maildir(world.data / "mail")] == [
        "colleague@example.com"
    ]
    again = command("forget", ID, "--yes")
    assert "nothing found" in again.out
    assert file.exists(), "the export is the student's"

    # ---------- a view over the raw files leaves the student out at once
    view = "select count(*) from personal.stg_platform__student_contacts"
    assert world.query(f"{view} where student_id = ?", ID) == [(0,)]
    assert world.query(view)[0][0] > 20

    # ---------- a table that outlives builds loses what came in before the wish
    (someone,) = world.query(
        "select student_id from intermediate.int_daily_activity"
        " group by all order by count(*) desc, student_id limit 1"
    )[0]
    Forgotten(world.data / "forgotten").remember("platform", someone)
    world.dbt("run", "--select", "int_daily_activity")
    daily = "select count(*) from intermediate.int_daily_activity"
    assert world.query(f"{daily} where student_id = ?", someone) == [(0,)]
    assert world.query(daily)[0][0] > 0

    # ---------- a warehouse made anew from the same raw files
    world.warehouse.unlink()
    world.dbt("run", *BUILT)
    assert files_with_traces(world.data) == set()
    held = world.query(
        "select source_table, raw_rows, forgotten_rows"
        " from quarantine.quarantine_summary"
    )
    assert {table: rows for table, rows, _ in held} == before
    left_out = {table: rows for table, _, rows in held if rows}
    assert {"students", "student_contacts", "subscriptions"} <= set(left_out)
    assert left_out["students"] >= 2
    for table, rows, forgotten in held:
        schema = "personal" if table == "student_contacts" else "staging"
        (kept,) = world.query(f"select count(*) from {schema}.stg_platform__{table}")
        assert rows == kept[0] + forgotten, f"{table}: no row is lost in silence"
    key = (world.data / "forgotten" / "key").read_bytes()
    for folder in ("target", "logs", "data"):
        for path in (world.folder / folder).rglob("*"):
            if path.is_file() and path.name != "key":
                assert key not in path.read_bytes(), path
    shutil.rmtree(world.folder / "target")
