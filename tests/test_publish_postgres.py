"""Published to PostgreSQL: equal to the warehouse, and whole for readers."""

import json
import logging
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import psycopg
import pytest
from psycopg import sql

from ml.publish import SCHEMAS
from ml.serving.connection import PUBLISHING_LOCK, NotPublished
from ml.serving.postgres import publish, rows_about, withdraw
from ml.serving.tables import HELD_IN, MANIFEST
from ml.settings import PROJECT_ROOT, SettingsError, UserError, load_settings
from tests.pipeline import environment, run

PUBLICATIONS = 5
MANY = 600_000  # rows; long enough on their way to be caught there

EVERY_TYPE = """
create table ml.every_type as
select
    i as row_number,
    i % 2 = 0 as a_boolean,
    cast(i % 100 as tinyint) as a_tinyint,
    cast(-i as smallint) as a_smallint,
    cast(i as integer) as an_integer,
    cast(i as bigint) * 4000000000 as a_bigint,
    cast(i % 200 as utinyint) as a_utinyint,
    cast(i as usmallint) as a_usmallint,
    cast(4294967295 as uinteger) as a_uinteger,
    cast(18446744073709551615 as ubigint) as a_ubigint,
    cast(-170141183460469231731687303715884105727 as hugeint) as a_hugeint,
    cast(i as decimal(12, 3)) / 8 as a_quotient,
    cast(i as decimal(38, 10)) as a_decimal,
    cast(random() as float) as a_float,
    [random(), 1e300 * i, 'nan', 'inf', '-inf', -0.0, 5e-324][1 + i % 7] as a_double,
    ['', null, 'text', 'quote " and ''', e'line\nbreak', e'carriage\rreturn', '\\.',
        e'lines\n\\.\nlines', e'tab\t', '\\N', 'back\\slash', 'a,b', '"', 'æøå 日本 😀',
        ' blank ', 'null'][1 + i % 16] as a_varchar,
    cast(['x', 'y'][1 + i % 2] as enum('x', 'y')) as an_enum,
    cast('{"a": [1, 2]}' as json) as a_json,
    uuid() as a_uuid,
    from_hex('00ff5c27' || lpad(hex(i), 8, '0')) as a_blob,
    date '1900-01-01' + cast(i * 20 as integer) as a_date,
    cast('12:34:56.789' as time) as a_time,
    timestamp '1969-12-31 23:59:59.999999' + to_seconds(i) as a_timestamp,
    cast('2024-02-29 12:00:00+05:30' as timestamptz) + to_seconds(i) as a_timestamptz,
    cast(timestamp '2024-01-01 00:00:01' as timestamp_s) as a_timestamp_s,
    to_days(cast(i as integer)) as an_interval
from range(3000) as numbers (i)
"""

# Reads several tables again and again, each way of reading in a transaction of its own
# kind. Every table of a version holds its number, as often as its number.
ONE_STATEMENT = """
select
    (select min(version) from main.student_targets),
    (select count(*) from main.student_targets),
    (select min(version) from ml.big),
    (select count(*) / 1000 from ml.big),
    (select max(snapshot) from main.published_tables)
"""


def write_version(warehouse: Path, version: int) -> None:
    """A warehouse in which every table says which version it is of."""
    with duckdb.connect(str(warehouse)) as connection:
        for schema in (*SCHEMAS, "personal", "staging", "intermediate", "raw"):
            connection.execute(f"create schema if not exists {schema}")
        rows = f"select {version} as version from range({version})"
        connection.execute(f"create or replace table student_targets as {rows}")
        rows = f"select {version} as version from range({1000 * version})"
        connection.execute(f"create or replace table ml.big as {rows}")
        for schema in ("personal", "staging", "intermediate", "raw"):
            connection.execute(
                f"create or replace table {schema}.private as select 'Ada' as name"
            )


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    path = tmp_path / "warehouse.duckdb"
    write_version(path, 1)
    return path


@pytest.fixture
def url(postgresql_database: str) -> str:
    return postgresql_database


def change(warehouse: Path, *statements: str) -> None:
    with duckdb.connect(str(warehouse)) as connection:
        for statement in statements:
            connection.execute(statement)


def query(url: str, statement: str, *values: object) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def versions(url: str) -> tuple:
    """What a reader sees, and fails where it is not one whole version."""
    (seen,) = query(url, ONE_STATEMENT)
    assert len(set(seen[:4])) == 1, seen
    return seen


def held(url: str) -> list[str]:
    names = query(url, "select tablename from pg_tables where schemaname = %s", HELD_IN)
    return sorted(name for (name,) in names)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[list[BaseException | None]]:
    """Runs beside the test; what it raised is the list's one item at the end."""
    ended: list[BaseException | None] = []

    def call() -> None:
        try:
            work()
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield ended
    finally:
        thread.join()


# ---------------------------------------------------------------- what arrives


def comparable(value: object) -> object:
    """Equal for the same bits: NaN is itself, and -0.0 is not 0.0."""
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    return struct.pack("d", value) if isinstance(value, float) else value


def rows_of(cursor: duckdb.DuckDBPyConnection | psycopg.Cursor) -> list[tuple]:
    return [tuple(map(comparable, row)) for row in cursor.fetchall()]


def assert_same_tables(warehouse: Path, url: str) -> int:
    """Row by row; returns the number of tables."""
    with duckdb.connect(str(warehouse), read_only=True) as db:
        db.execute("set TimeZone = 'UTC'")
        names = db.execute(
            "select table_schema, table_name from information_schema.tables"
            " where list_contains(?, table_schema)",
            [list(SCHEMAS)],
        ).fetchall()
        with psycopg.connect(url, options="-c TimeZone=UTC") as connection:
            for schema, name in names:
                columns = [
                    column
                    for column, *_ in db.execute(f"describe {schema}.{name}").fetchall()
                ]
                theirs = connection.cursor(binary=True).execute(
                    sql.SQL("select {} from {}").format(
                        sql.SQL(", ").join(map(sql.Identifier, columns)),
                        sql.Identifier(schema, name),
                    )
                )
                ours = db.execute(f'from {schema}."{name}"')
                assert sorted(map(repr, rows_of(ours))) == sorted(
                    map(repr, rows_of(theirs))
                ), name
    shown = query(
        url,
        "select table_schema, table_name from information_schema.views"
        " where table_schema = any(%s)",
        list(SCHEMAS),
    )
    manifest = (MANIFEST.schema, MANIFEST.name)
    assert sorted(shown) == sorted([*names, manifest])
    return len(names)


def test_every_value_of_every_type_arrives(warehouse: Path, url: str) -> None:
    change(warehouse, EVERY_TYPE, "create view ml.a_view as select 1 as one")
    done = publish(warehouse, url)
    with duckdb.connect(str(warehouse), read_only=True) as db:
        kinds = [
            kind for _, kind, *_ in db.execute("describe ml.every_type").fetchall()
        ]
    assert len(set(kinds)) > 20, kinds
    # The drivers return other Python types for these, with the same value.
    change(
        warehouse,
        "alter table ml.every_type alter a_ubigint type decimal(38, 0)",
        "alter table ml.every_type alter a_hugeint type varchar",
        "alter table ml.every_type alter a_float type double",
        "alter table ml.every_type drop a_json",
    )
    texts = query(
        url, "select distinct a_hugeint::text, a_json::text from ml.every_type"
    )
    assert texts == [("-170141183460469231731687303715884105727", '{"a": [1, 2]}')]
    change(warehouse, "alter table ml.every_type drop a_hugeint")
    assert assert_same_tables(warehouse, url) == 4
    assert done.rows["ml.every_type"] == 3000


def test_infinite_times_stay_infinite(warehouse: Path, url: str) -> None:
    change(
        warehouse,
        "create table ml.ends as select 'infinity'::timestamp as at,"
        " '-infinity'::date as on_day, date '9999-12-31' as late",
    )
    publish(warehouse, url)
    found = query(url, "select at::text, on_day::text, late::text from ml.ends")
    assert found == [("infinity", "-infinity", "9999-12-31")]


def test_a_nul_character_is_replaced_and_told(
    warehouse: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(warehouse, "create table ml.texts as select 'secret' || chr(0) || 'x' as t")
    with caplog.at_level(logging.WARNING):
        publish(warehouse, url)
    assert query(url, "select t from ml.texts") == [("secret\ufffdx",)]
    assert "ml.texts: 1 rows have a NUL character" in caplog.text
    assert "secret" not in caplog.text


def test_what_has_no_counterpart_is_named_all_at_once(
    warehouse: Path, url: str
) -> None:
    publish(warehouse, url)
    change(
        warehouse,
        "create table ml.lists as select [1] as numbers, {'a': 1} as pair",
        f"create table ml.{'n' * 64} as select 1 as one",
    )
    with pytest.raises(NotPublished) as error:
        publish(warehouse, url)
    for part in ("ml.lists.numbers: INTEGER[]", "ml.lists.pair: STRUCT", "63 bytes"):
        assert part in str(error.value)
    assert versions(url)[-1] == 1


def test_nothing_personal_or_unfinished_is_published(warehouse: Path, url: str) -> None:
    publish(warehouse, url)
    tables = query(
        url,
        "select table_schema, table_name from information_schema.tables"
        " where table_schema not in ('pg_catalog', 'information_schema')",
    )
    assert {schema for schema, _ in tables} == {"main", "ml", HELD_IN}
    assert (
        query(url, "select nspname from pg_namespace where nspname = 'personal'") == []
    )
    with psycopg.connect(url) as connection:
        for schema, name in tables:
            rows = connection.execute(
                sql.SQL("select * from {}").format(sql.Identifier(schema, name))
            ).fetchall()
            assert "Ada" not in repr(rows), name


def test_the_manifest_says_what_is_there(warehouse: Path, url: str) -> None:
    for number in (1, 2):
        done = publish(warehouse, url)
        assert done.snapshot == number
        found = query(
            url,
            "select snapshot, table_schema || '.' || table_name, row_count,"
            " now() - published_at between interval '0' and interval '1 minute'"
            " from main.published_tables",
        )
        assert sorted(found) == [
            (number, "main.student_targets", 1, True),
            (number, "ml.big", 1000, True),
        ]
        assert done.rows == {name: rows for _, name, rows, _ in found}


def test_publishing_again_changes_nothing_but_the_number(
    warehouse: Path, url: str
) -> None:
    for _ in range(2):
        publish(warehouse, url)
        assert_same_tables(warehouse, url)
    assert held(url) == [
        "2_0_main_student_targets",
        "2_1_ml_big",
        "2_2_main_published_tables",
    ]


def test_keys_are_indexed_and_described(
    warehouse: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(
        warehouse,
        "create table ml.student_scores as select 's1' as student_id,"
        " date '2025-01-01' as as_of_date, 0.5 as risk_score",
    )
    column = {"name": "risk_score", "description": "It's a probability."}
    node = {
        "schema": "ml", "identifier": "student_scores", "name": "student_scores",
        "description": "One row per score.", "columns": {"risk_score": column},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(
        json.dumps({"nodes": {}, "sources": {"a": node}})
    )
    monkeypatch.setenv("DBT_TARGET_PATH", str(tmp_path))
    for _ in range(2):
        publish(warehouse, url)
        assert query(
            url,
            "select obj_description('ml.student_scores'::regclass),"
            " col_description('ml.student_scores'::regclass, 3)",
        ) == [("One row per score.", "It's a probability.")]
    indexes = query(
        url, "select indexdef from pg_indexes where tablename like '%student_scores'"
    )
    assert sorted(re.findall(r"\((\w+)\)", str(indexes))) == [
        "as_of_date",
        "student_id",
    ]


# ---------------------------------------------------------------- readers


Reader = Callable[[psycopg.Connection], tuple]
PARTS = [line.strip().rstrip(",") for line in ONE_STATEMENT.splitlines()[2:]]


def in_one_statement(connection: psycopg.Connection) -> tuple:
    (seen,) = connection.execute(ONE_STATEMENT).fetchall()
    connection.commit()
    return seen


def in_transactions(level: psycopg.IsolationLevel, order: int) -> Reader:
    """Several queries in one transaction; as it is written, or backwards (-1)."""

    def read(connection: psycopg.Connection) -> tuple:
        connection.isolation_level = level
        seen = [connection.execute(part).fetchone()[0] for part in PARTS[::order]]
        connection.commit()
        return tuple(seen)

    return read


READING = {
    "one statement": in_one_statement,
    "read committed": in_transactions(psycopg.IsolationLevel.READ_COMMITTED, 1),
    "backwards": in_transactions(psycopg.IsolationLevel.READ_COMMITTED, -1),
    "repeatable read": in_transactions(psycopg.IsolationLevel.REPEATABLE_READ, 1),
}


def test_readers_never_see_a_mixture_nor_an_error(warehouse: Path, url: str) -> None:
    """Publications under readers that open one table after the other."""
    publish(warehouse, url)
    stop = threading.Event()
    seen: dict[str, list[tuple]] = {way: [] for way in READING}
    slowest: dict[str, float] = {}

    def read(way: str) -> None:
        with psycopg.connect(url) as connection:
            while not stop.is_set():
                began = time.monotonic()
                seen[way].append(READING[way](connection))
                slowest[way] = max(slowest.get(way, 0), time.monotonic() - began)

    with ExitStack() as stack:
        ended = [
            stack.enter_context(in_background(lambda way=way: read(way)))
            for way in READING
        ]
        try:
            for version in range(2, PUBLICATIONS + 2):
                write_version(warehouse, version)
                publish(warehouse, url)
        finally:
            stop.set()
    assert ended == [[None]] * len(READING)
    for way, reads in seen.items():
        assert all(len(set(found)) == 1 for found in reads), (way, reads)
        numbers = [found[0] for found in reads]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 2, (way, len(reads))
    assert max(slowest.values()) < 2, slowest


def test_a_transaction_that_has_read_keeps_its_snapshot(
    warehouse: Path, url: str
) -> None:
    """The publisher waits for it, without keeping other readers out, and says whom."""
    publish(warehouse, url)
    write_version(warehouse, 2)
    with psycopg.connect(url, application_name="a dashboard") as reader:
        first = reader.execute("select version from main.student_targets").fetchone()
        with pytest.raises(NotPublished, match=r"PID \d+ \(postgres, a dashboard"):
            publish(warehouse, url, patience=0.5)
        with in_background(lambda: publish(warehouse, url)) as ended:
            for _ in range(10):
                began = time.monotonic()
                assert versions(url)[0] == 1
                assert time.monotonic() - began < 1.5
            assert reader.execute("select count(*) from ml.big").fetchone() == (1000,)
            assert not ended
            reader.commit()
        assert ended == [None]
    assert first == (1,)
    assert versions(url)[0] == 2


def test_an_older_transaction_sees_the_rows_of_a_newer_table(
    warehouse: Path, url: str
) -> None:
    """Catalogs are always current: without care a repeatable read would find none."""
    publish(warehouse, url)
    with psycopg.connect(url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select count(*) from pg_class")
        write_version(warehouse, 2)
        publish(warehouse, url)
        (seen,) = reader.execute(ONE_STATEMENT).fetchall()
    assert seen == (2, 2, 2, 2, 2)


# ---------------------------------------------------------------- failing


PUBLISHER = """
import sys
from pathlib import Path
from ml.serving.postgres import publish
publish(Path(sys.argv[1]), sys.argv[2])
"""


@contextmanager
def caught_on_its_way(
    warehouse: Path, url: str
) -> Iterator[tuple[subprocess.Popen, int]]:
    """A publisher in the middle of copying many rows, and its process in the server."""
    change(
        warehouse,
        f"create table ml.many as select 2 as version, i, 'row ' || i as words"
        f" from range({MANY}) as numbers (i)",
    )
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(warehouse), url],
        cwd=PROJECT_ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as publisher:
        copying = (
            "select pid from pg_stat_progress_copy where tuples_processed > 1000"
            " and datname = current_database()"
        )
        until(lambda: query(url, copying) or publisher.poll() is not None)
        ((pid,),) = query(url, copying)
        yield publisher, pid


def assert_old_stays_and_next_is_clean(warehouse: Path, url: str) -> None:
    assert versions(url)[0] == 1
    assert all(name.startswith("1_") for name in held(url)), "nothing is left"
    change(warehouse, "create or replace table ml.many as select 1 as one")
    publish(warehouse, url)
    assert versions(url)[0] == 2
    assert all(name.startswith("2_") for name in held(url))


def test_a_publisher_that_is_killed_leaves_the_old_snapshot(
    warehouse: Path, url: str
) -> None:
    publish(warehouse, url)
    write_version(warehouse, 2)
    with caught_on_its_way(warehouse, url) as (publisher, pid):
        publisher.send_signal(signal.SIGKILL)
    until(lambda: not query(url, "select 1 from pg_stat_activity where pid = %s", pid))
    assert_old_stays_and_next_is_clean(warehouse, url)


def test_a_connection_that_is_cut_leaves_the_old_snapshot(
    warehouse: Path, url: str
) -> None:
    publish(warehouse, url)
    write_version(warehouse, 2)
    with caught_on_its_way(warehouse, url) as (publisher, pid):
        query(url, "select pg_terminate_backend(%s)", pid)
        _, errors = publisher.communicate(timeout=30)
    assert publisher.returncode == 1
    assert "NotPublished: ml.many: PostgreSQL: " in errors
    assert_old_stays_and_next_is_clean(warehouse, url)


def test_a_full_disk_leaves_the_old_snapshot(warehouse: Path, url: str) -> None:
    """The server's own limit stands in for the disk: sorting an index hits it."""
    publish(warehouse, url)
    write_version(warehouse, 2)
    change(
        warehouse,
        "create table ml.many as select md5(i::varchar) as student_id"
        " from range(50000) as numbers (i)",
    )
    limits = "-c%20temp_file_limit%3D64%20-c%20maintenance_work_mem%3D1024"
    with pytest.raises(
        NotPublished, match=r"ml\.many: PostgreSQL: temporary file size"
    ):
        publish(warehouse, f"{url}?options={limits}")
    assert_old_stays_and_next_is_clean(warehouse, url)


def test_a_value_that_is_refused_is_named_by_its_column_alone(
    warehouse: Path, url: str
) -> None:
    publish(warehouse, url)
    write_version(warehouse, 2)
    change(
        warehouse,
        "create table ml.many as select date '5881580-07-10' as far_away",
    )
    with pytest.raises(NotPublished) as error:
        publish(warehouse, url)
    assert "ml.many: PostgreSQL: it does not take a value in column far_away" in str(
        error.value
    )
    assert "5881580" not in str(error.value)
    assert_old_stays_and_next_is_clean(warehouse, url)


def test_a_second_publisher_waits_for_the_first(
    warehouse: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(warehouse, url)
    write_version(warehouse, 2)
    waiting = "select 1 from pg_locks where locktype = 'advisory' and not granted"
    with psycopg.connect(url) as first:
        first.execute("select pg_advisory_xact_lock(%s)", [PUBLISHING_LOCK])
        with in_background(lambda: publish(warehouse, url)) as ended:
            until(lambda: query(url, waiting))
            # What was built while it waited is what it publishes.
            write_version(warehouse, 3)
            assert (versions(url)[0], ended) == (1, [])
            first.rollback()
    assert ended == [None]
    assert "Another publication is at work" in caplog.text
    assert versions(url)[0] == 3


def test_publishers_at_once_all_succeed_one_after_the_other(
    warehouse: Path, url: str
) -> None:
    with (
        in_background(lambda: publish(warehouse, url)) as first,
        in_background(lambda: publish(warehouse, url)) as second,
    ):
        publish(warehouse, url)
    assert [*first, *second] == [None, None]
    assert versions(url)[-1] == 3
    assert all(name.startswith("3_") for name in held(url))


def test_what_somebody_else_made_is_not_replaced(warehouse: Path, url: str) -> None:
    query(url, "create schema ml")
    query(url, "create table ml.big as select 'mine' as words")
    with pytest.raises(NotPublished, match=r"ml\.big: in the way there"):
        publish(warehouse, url)
    assert query(url, "select * from ml.big") == [("mine",)]
    query(url, "alter table ml.big rename to mine")
    for _ in range(2):
        publish(warehouse, url)
    assert query(url, "select * from ml.mine") == [("mine",)]


def test_an_unbuilt_warehouse_says_what_to_do(tmp_path: Path, url: str) -> None:
    path = tmp_path / "warehouse.duckdb"
    duckdb.connect(str(path)).close()
    with pytest.raises(UserError, match="Run `dbt build`"):
        publish(path, url)


# ---------------------------------------------------------------- grants and views


@pytest.fixture
def analyst(url: str) -> Iterator[str]:
    """The URL of a role that may read what is published, and nothing else."""
    query(url, "create role analyst login")
    yield url.replace("postgres@", "analyst@")
    query(url, "drop owned by analyst cascade")
    query(url, "drop role analyst")


def test_grants_and_views_survive(warehouse: Path, url: str, analyst: str) -> None:
    change(warehouse, "alter table student_targets add column second integer")
    change(warehouse, "alter table ml.big add column other integer")
    publish(warehouse, url)
    for statement in (
        "grant usage on schema main, ml to analyst",
        "grant select on main.student_targets to analyst",
        "grant select (version) on ml.big to analyst with grant option",
        "create schema reports",
        "create view reports.both as select t.version, count(*) as rows"
        " from main.student_targets as t inner join ml.big as b using (version)"
        " group by 1",
        "grant usage on schema reports to analyst",
        "grant select on reports.both to analyst",
    ):
        query(url, statement)
    write_version(warehouse, 2)
    # A new column, and before the others.
    change(
        warehouse,
        "create or replace table student_targets as"
        " select 'new' as first, version, 1::integer as second from student_targets",
        "alter table ml.big add column other integer",
    )
    publish(warehouse, url)
    assert query(analyst, "select * from main.student_targets") == [(2, 1, "new")] * 2
    assert query(analyst, "select * from reports.both") == [(2, 4000)]
    assert query(analyst, "select max(version) from ml.big") == [(2,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(analyst, "select other from ml.big")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(analyst, f'select * from {HELD_IN}."2_1_ml_big"')


def test_the_grants_of_the_documentation_are_enough(warehouse: Path, url: str) -> None:
    page = (PROJECT_ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    setup, grants = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    try:
        query(url, setup)
        publish(warehouse, url.replace("postgres@", "publisher@"))
        query(url, grants)
        query(url, "create role ada login in role analysts")
        change(warehouse, "create table ml.new as select 'a table to come' as words")
        publish(warehouse, url.replace("postgres@", "publisher@"))
        ada = url.replace("postgres@", "ada@")
        assert versions(ada)[0] == 1
        assert query(ada, "select words from ml.new") == [("a table to come",)]
    finally:
        query(url, "drop owned by publisher cascade")
        query(url, "drop owned by analysts cascade")
        query(url, "drop role if exists ada, publisher, analysts")


def acl(url: str, view: str) -> set[tuple]:
    return set(
        query(
            url,
            "select '', aclexplode(relacl)::text from pg_class"
            " where oid = %s::regclass union all"
            " select attname, aclexplode(attacl)::text from pg_attribute"
            " where attrelid = %s::regclass",
            view,
            view,
        )
    )


def test_a_column_of_another_type_keeps_the_grants(
    warehouse: Path, url: str, analyst: str
) -> None:
    """The view has to be made anew, and gets what it had: no less, and no more."""
    change(warehouse, "alter table ml.big add column gone integer")
    publish(warehouse, url)
    for statement in (
        "grant usage on schema main, ml to analyst",
        "alter default privileges in schema ml grant all on tables to analyst, public",
        "grant select, references on ml.big to analyst with grant option",
        "grant select (version), select (gone) on ml.big to analyst",
        "grant select on ml.big to public",
    ):
        query(url, statement)
    before = acl(url, "ml.big")
    write_version(warehouse, 2)
    change(
        warehouse,
        "alter table ml.big alter version type varchar",
    )
    publish(warehouse, url)
    assert query(analyst, "select distinct version from ml.big") == [("2",)]
    kept = {row for row in before if row[0] != "gone"}
    assert len(kept) == len(before) - 1 > 3
    assert acl(url, "ml.big") == kept


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "alter table ml.big alter version type varchar",
            r"version \(integer, now text\)",
        ),
        (
            "alter table ml.big rename version to number",
            r"version \(integer, now gone\)",
        ),
        ("drop table ml.big", r"ml\.big is not published any more"),
    ],
)
def test_a_view_that_would_break_is_named_and_never_dropped(
    warehouse: Path, url: str, statement: str, told: str
) -> None:
    publish(warehouse, url)
    query(url, "create schema reports")
    query(url, "create view reports.one as select max(version) as m from ml.big")
    query(url, "create view reports.two as select version from ml.big")
    change(warehouse, statement)
    with pytest.raises(NotPublished, match=told) as error:
        publish(warehouse, url)
    for name in ("reports.one", "reports.two"):
        assert f"view {name} depends on view ml.big" in str(error.value)
    assert query(url, "select m from reports.one") == [(1,)]
    assert versions(url)[-1] == 1
    query(url, "drop view reports.one, reports.two")
    assert publish(warehouse, url).snapshot == 2


def test_a_table_that_is_not_published_any_more_is_gone(
    warehouse: Path, url: str
) -> None:
    change(warehouse, "create table ml.brief as select 1 as one")
    publish(warehouse, url)
    change(warehouse, "drop table ml.brief")
    publish(warehouse, url)
    assert query(url, "select to_regclass('ml.brief')") == [(None,)]
    assert not any("brief" in name for name in held(url))


def test_a_role_without_rights_is_told(
    warehouse: Path, url: str, analyst: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NotPublished, match="permission denied for database"):
        publish(warehouse, analyst)
    # Where nothing was published there is nothing to leave out.
    withdraw(analyst, of_student, {"student": "s7"})
    for schema in (*SCHEMAS, HELD_IN):
        query(url, f"create schema {schema} authorization analyst")
    publish(warehouse, analyst)
    assert versions(analyst)[0] == 1
    withdraw(analyst, of_student, {"student": "s7"})
    assert "have the owner of the database run `vacuum full" in caplog.text


# ---------------------------------------------------------------- leaving out


def of_student(columns: object) -> dict[str, str]:
    return {'"ml"."scores"': "student_id = $student"}


def test_rows_are_withdrawn_and_the_rest_stays(warehouse: Path, url: str) -> None:
    change(
        warehouse,
        "create table ml.scores as select 's' || i as student_id, random() as score"
        " from range(100) as numbers (i)",
    )
    publish(warehouse, url)
    query(url, "create schema reports")
    query(url, "create view reports.scores as select * from ml.scores")
    before = query(url, "select * from ml.scores where student_id <> 's7'")
    values = {"student": "s7"}
    assert len(rows_about(url, of_student, values)["ml.scores"]) == 1
    withdraw(url, of_student, values)
    assert rows_about(url, of_student, values) == {}
    assert query(url, "select * from reports.scores") == before
    assert query(
        url,
        "select snapshot, row_count from main.published_tables"
        " where table_name in ('scores', 'big') order by row_count",
    ) == [(2, 99), (2, 1000)]
    assert held(url) == [
        "1_0_main_student_targets", "1_1_ml_big", "2_0_ml_scores",
        "2_3_main_published_tables",
    ]  # fmt: skip
    assert (
        len(query(url, "select 1 from pg_indexes where tablename ~ 'ml_scores'")) == 1
    )
    withdraw(url, of_student, values)
    assert query(url, "select max(snapshot) from main.published_tables") == [(2,)]
    publish(warehouse, url)
    assert versions(url)[-1] == 3


# ---------------------------------------------------------------- secrets


PASSWORDS = ("hunter2-very-secret", "p%40ss%2Fsecret")


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "where",
    [
        "@127.0.0.1:1/nowhere",
        "@no-such-host.invalid/x",
        "@/x?host=%2Fnowhere",
    ],
)
def test_a_password_is_never_told(warehouse: Path, password: str, where: str) -> None:
    assert_untold(warehouse, f"postgresql://somebody:{password}{where}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:very-secret@very-secret.invalid/x",
        "postgresql://u:p%40ss%2Fsecret@%2Fp%40ss%2Fsecret/x",
        "postgresql://u@very-secret.invalid/x?password=very-secret",
    ],
)
def test_a_password_is_cut_from_what_the_library_says(
    warehouse: Path, url: str
) -> None:
    assert "***" in assert_untold(warehouse, url)


def assert_untold(warehouse: Path, url: str) -> str:
    with pytest.raises(NotPublished) as error:
        publish(warehouse, url)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None and error.value.__suppress_context__
    return str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:sec@ret@host/db",
        "postgresql://u:sec/ret@host/db",
        "postgresql://u:sec?ret@host/db",
        "postgresql://u:sec#ret@host/db",
        "postgresql://u:sec:ret@host/db",
        "postgresql://u:sec%ret@host/db",
        "postgresql://u:sec ret@host/db",
        "mysql://u:secret@host/db",
        "host=h password=secret",
        "secret",
    ],
)
def test_a_url_that_would_be_misread_is_refused_unseen(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PUBLISH_POSTGRES_URL", url)
    with pytest.raises(
        SettingsError, match="PUBLISH_POSTGRES_URL='\\*\\*\\*'"
    ) as error:
        load_settings(None)
    assert "sec" not in str(error.value) and "ret@" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://localhost",
        "postgres://u@host:5432/db",
        "postgresql://u:p%40ss@one:1,two:2/db?sslmode=require&target_session_attrs=any",
        "postgresql://u:p@[::1]:5432/db",
        "postgresql:///db?host=%2Fvar%2Frun%2Fpostgresql",
        "postgresql://u:p!$&'()*+,;~x@host/db".replace("&", "%26"),
    ],
)
def test_usual_urls_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PUBLISH_POSTGRES_URL", url)
    settings = load_settings(None)
    assert settings.publish_postgres_url.get_secret_value() == url
    assert url not in repr(settings)
    assert psycopg.conninfo.conninfo_to_dict(url)


# ---------------------------------------------------------------- the command


def test_the_command_publishes_where_it_is_told(
    warehouse: Path, url: str, tmp_path: Path
) -> None:
    ask = ("python", "-m", "ml.publish", "--target", "postgres")
    without = run(tmp_path, *ask, check=False)
    assert without.returncode == 1
    assert "PUBLISH_POSTGRES_URL is empty" in without.stderr
    printed = run(tmp_path, *ask, PUBLISH_POSTGRES_URL=url).stdout
    assert re.fullmatch(
        r"Published 2 tables with 1,001 rows to emptied on 127\.0\.0\.1:\d+"
        r" \(snapshot 1\)\n",
        printed,
    )
    assert versions(url)[0] == 1


def test_make_publishes_to_either_target(warehouse: Path) -> None:
    def commands(*arguments: str) -> str:
        return subprocess.run(
            ["make", "-n", "--old-file", ".venv/installed", "publish", *arguments],
            cwd=PROJECT_ROOT,
            # Whatever `make` runs this test.
            env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    assert commands().endswith("-m ml.publish")
    assert commands("TARGET=postgres").endswith("-m ml.publish --target postgres")


def test_a_missing_driver_is_told(warehouse: Path, tmp_path: Path) -> None:
    blocked = (
        "import sys; sys.modules['psycopg'] = None; sys.argv[1:] = ['--target',"
        " 'postgres']; from ml.publish import app; app()"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocked],
        cwd=PROJECT_ROOT,
        env=environment(tmp_path, PUBLISH_POSTGRES_URL="postgresql://localhost"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install '.[postgres]'" in done.stderr
    assert "Traceback" not in done.stderr
