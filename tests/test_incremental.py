"""A daily run ends where a full refresh would, and says when it has to read all.

Two deliveries of the same platform are made: what was known on a day, and all of it
with events that arrive late and events that arrive twice. A warehouse that was built
from the first and built again from the second must hold what one built from the
second alone holds: every row of every table.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dbt.tracking
import duckdb
import pytest
from dbt.cli.main import dbtRunner

from ml.settings import PROJECT_ROOT
from ml.warehouse import sql_text
from tests.leakage_data import write_oulad, write_platform
from tests.pipeline import environment

FIRST_UNTIL = "2025-12-19"  # the first delivery ends before this day
DAILY_NAME = "int_daily_activity"
DAILY = f"intermediate.{DAILY_NAME}"
POINTS_TO_BUILD = "intermediate.int_points_to_build"
REBUILD_FROM = "select cast(rebuild_from as varchar) from intermediate.int_rebuild_from"
READ_FROM = "select cast(read_from as varchar) from intermediate.int_read_from"
EVERYTHING = "1900-01-01"
RECORD = "main.pipeline_settings"
BUILD = ("build", "--exclude-resource-type", "unit_test", "test")

# What of each table the first delivery has. What happens later to a row that is there
# already (a withdrawal, a grade) is not in it yet.
FIRST_DELIVERY = {
    "students": "select * from raw",
    "student_contacts": "select * from raw",
    "courses": "select * from raw",
    "lessons": "select * from raw",
    "assessments": "select * from raw",
    "assessment_bookings": "select * from raw where booked_at < {until}",
    "subscriptions": """
        select * replace (
            case when withdrawn_at < {until} then withdrawn_at end as withdrawn_at
        ) from raw where created_at < {until} or created_at is null
    """,
    "lesson_progresses": "select * from raw where created_at < {until}",
    "quiz_question_answers": "select * from raw where created_at < {until}",
    "assessment_results": """
        select * replace (
            case when graded_at < {until} then graded_at end as graded_at,
            case when {graded_at} < {until} then score end as score,
            case when {graded_at} < {until} then passed end as passed
        ) from raw where submitted_at < {until}
    """,
    "signed_in_events": "select * from raw where created_at < {until}",
    "activity_events": """
        select * from raw
        where
            greatest(occurred_at, coalesce(loaded_at, occurred_at)) < {until}
            or occurred_at is null
    """,
}
# What the second delivery has beside them: events of months ago that a phone held
# back, and events that are there already, sent once more.
LATE_EVENTS = """
    select * replace (
        'late-' || row_number() over (order by event_id) as event_id,
        {until} + interval 2 day as loaded_at
    ) from raw
    where occurred_at < {until} - interval 60 day and hash(event_id) % 10 = 0
"""
REPEATED_EVENTS = """
    select * replace ({until} + interval 1 day as loaded_at) from raw
    where occurred_at < {until} and hash(event_id) % 10 = 0
"""


def deliver(raw: Path, into: Path, queries: dict[str, list[str]]) -> None:
    """Write what each query selects from the table of its name."""
    into.mkdir(exist_ok=True)
    words = {
        "until": f"timestamp '{FIRST_UNTIL}'",
        # Where the source does not say, as var grading_delay_days has it.
        "graded_at": "coalesce(graded_at, submitted_at + interval 14 day)",
    }
    with duckdb.connect() as connection:
        for table, selects in queries.items():
            source = f"(select * from read_parquet('{raw / table}.parquet'))"
            union = " union all by name ".join(
                "("
                + select.format(**words).replace("from raw", f"from {source} as raw")
                + ")"
                for select in selects
            )
            file = into / f"{table}.parquet"
            connection.execute(
                f"copy (select * from ({union}) order by all) to '{file}.new'"
                " (format parquet)"
            )
            Path(f"{file}.new").replace(file)


class Builds:
    """Builds of one project, which is parsed once; every warehouse reads `raw`."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, **settings: str
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.raw = folder / "raw  tables"  # a path keeps both of its blanks
        self.patch = patch
        patch.chdir(PROJECT_ROOT)
        for name, value in self.environment("parse").items():
            patch.setenv(name, value)
        parsed = dbtRunner().invoke(["--quiet", "parse"])
        assert parsed.success, parsed.exception
        self.manifest = parsed.result

    def environment(self, warehouse: str) -> dict[str, str]:
        settings = {"SOURCE_SYSTEM": "platform"} | self.settings
        folder = self.folder / warehouse
        return environment(folder, DATA_RAW_PATH=str(self.raw), **settings)

    def run(self, warehouse: str, delivery: Path, *command: str) -> str:
        """What dbt says when it runs a command on a delivery."""
        self.raw.unlink(missing_ok=True)
        self.raw.symlink_to(delivery)
        for name, value in self.environment(warehouse).items():
            self.patch.setenv(name, value)
        said: list[str] = []
        runner = dbtRunner(
            manifest=self.manifest,
            callbacks=[lambda event: said.append(event.info.msg)],
        )
        done = runner.invoke(["--quiet", *command])
        assert done.success, "\n".join(said)
        return "\n".join(said)

    def file(self, warehouse: str) -> Path:
        return self.folder / warehouse / "warehouse.duckdb"

    def copy(self, warehouse: str, to: str) -> None:
        self.environment(to)
        shutil.copy2(self.file(warehouse), self.file(to))

    def value(self, warehouse: str, query: str) -> Any:
        with duckdb.connect(str(self.file(warehouse)), read_only=True) as connection:
            return connection.execute(query).fetchone()[0]

    def differing_tables(self, left: str, right: str, fewest: int = 50) -> list[str]:
        """Tables that differ, with the number of rows that only one side has."""
        with duckdb.connect() as connection:
            for name, warehouse in {"l": left, "r": right}.items():
                file = self.file(warehouse)
                connection.execute(f"attach '{file}' as {name} (read_only)")
            tables = connection.execute(
                "select schema_name, table_name from duckdb_tables()"
                " where database_name = 'r' order by all"
            ).fetchall()
            assert len(tables) > fewest
            return [
                f"{schema}.{table}: {differing}"
                for schema, table in tables
                if table not in OF_ONE_RUN
                and (differing := differing_rows(connection, schema, table))
            ]


# They say how a table was built, or what was computed in order to add it; what is
# kept is in other tables.
OF_ONE_RUN = {
    "pipeline_settings",
    "stg_platform__event_files",
    "int_read_from",
    "int_rebuild_from",
    "int_points_to_build",
    "int_observations",
    "int_observed_activity",
    "int_next_observed",
    "int_observed_sums",
    "int_features_window",
    "int_features_velocity",
    "int_features_to_date",
    "int_features_habits",
    "int_features_record",
    "int_features_relative",
    "int_features_context",
}


def differing_rows(
    connection: duckdb.DuckDBPyConnection, schema: str, table: str
) -> int:
    left, right = (f"select * from {side}.{schema}.{table}" for side in "lr")
    return connection.execute(
        f"select count(*) from (({left} except all {right})"
        f" union all ({right} except all {left}))"
    ).fetchone()[0]


def deliver_more(raw: Path, into: Path, more: dict[str, str]) -> None:
    """Write all tables again, some of them with more rows."""
    queries = {name: ["select * from raw"] for name in FIRST_DELIVERY}
    for table, select in more.items():
        queries[table].append(select)
    deliver(raw, into, queries)


def deliver_other(raw: Path, into: Path, other: dict[str, str]) -> None:
    """Write all tables again, some of them with other rows."""
    queries = {name: ["select * from raw"] for name in FIRST_DELIVERY}
    deliver(raw, into, queries | {table: [query] for table, query in other.items()})


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the first delivery and of the second, which repeats it."""
    folder = tmp_path_factory.mktemp("deliveries")
    raw = folder / "raw"
    write_platform(raw, students=120)
    first, second = folder / "first", folder / "second"
    deliver(raw, first, {table: [query] for table, query in FIRST_DELIVERY.items()})
    whole = {table: ["select * from raw"] for table in FIRST_DELIVERY}
    whole["activity_events"] += [LATE_EVENTS, REPEATED_EVENTS]
    deliver(raw, second, whole)
    return first, second


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builds]:
    with pytest.MonkeyPatch.context() as patch:
        yield Builds(tmp_path_factory.mktemp("builds"), patch)


@pytest.fixture(scope="module")
def said(builds: Builds, deliveries: tuple[Path, Path]) -> str:
    """Build the first delivery, then the second; and the second alone. What dbt said
    of the second."""
    first, second = deliveries
    builds.run("daily", first, *BUILD)
    said = builds.run("daily", second, *BUILD)
    builds.run("full", second, *BUILD)
    return said


@pytest.fixture
def again(builds: Builds, said: str) -> str:
    """A copy of the warehouse of every day, to be built again."""
    builds.copy("daily", "again")
    return "again"


def test_a_daily_run_ends_where_a_full_refresh_does(builds: Builds, said: str):
    assert builds.differing_tables("daily", "full") == []


def test_a_daily_run_computes_the_new_points_only(builds: Builds, said: str):
    """Otherwise the comparison above would prove nothing."""
    assert "built anew" not in said
    points = builds.value("daily", "select count(*) from main.student_features_14d")
    computed = builds.value("daily", f"select count(*) from {POINTS_TO_BUILD}")
    assert 0 < computed < points / 5
    assert builds.value("full", f"select count(*) from {POINTS_TO_BUILD}") == points


def test_late_and_repeated_events_were_among_the_new(builds: Builds, said: str):
    late = f"select count(*) from {DAILY} where known_date - activity_date > 50"
    assert builds.value("daily", late) > 10
    repeated = "select count(*) from quarantine.quarantine where reason = '{}'"
    assert builds.value("daily", repeated.format("event_id is repeated")) > 10


def test_a_result_of_months_ago_changes_the_record_since(
    builds: Builds, again: str, deliveries: tuple[Path, Path], tmp_path: Path
):
    extra = (
        "select * replace ('0' || result_id as result_id, 99 as score) from raw"
        " where graded_at < {until} - interval 90 day and hash(result_id) % 10 = 0"
    )
    deliver_more(deliveries[1], tmp_path, {"assessment_results": extra})
    assert "is read again" not in builds.run(again, tmp_path, *BUILD)
    assert builds.value(again, REBUILD_FROM) == EVERYTHING
    builds.run("with_results", tmp_path, *BUILD)
    assert builds.differing_tables(again, "with_results") == []


UNTOLD_EVENT = """
    select * from raw union all by name
    (select * replace ('x' as event_id, null as loaded_at) from raw
    where occurred_at < {until} - interval 90 day order by event_id limit 1)
"""
# Of months ago, and nothing tells of it: each makes all activity be read again.
OLDER_ACTIVITY = {
    "an event comes": {"activity_events": UNTOLD_EVENT},
    "a lesson goes": {
        "lessons": "select * from raw where lesson_id <>"
        " (select min(lesson_id) from raw)"
    },
    "a lesson moves": {
        "lessons": """
            select * replace (case
                when lesson_id = (select min(lesson_id) from raw)
                    then (select max(course_id) from raw)
                else course_id
            end as course_id) from raw
        """
    },
    "a student goes": {
        "students": "select * from raw where student_id not in ('s1', 's2', 's3')"
    },
    "a course goes": {
        "courses": "select * from raw where course_id <>"
        " (select min(course_id) from raw)"
    },
    "a sign-in goes as an event comes": {
        "activity_events": UNTOLD_EVENT,
        "signed_in_events": """
            select * from raw where created_at is distinct from (
                select min(created_at) from raw where student_id = 's4'
            )
        """,
    },
}


@pytest.mark.parametrize("change", OLDER_ACTIVITY)
def test_other_older_activity_makes_all_be_read(
    builds: Builds, again: str, deliveries: tuple[Path, Path], tmp_path: Path, change
):
    deliver_other(deliveries[1], tmp_path, OLDER_ACTIVITY[change])
    said = builds.run(again, tmp_path, "run", "--select", "+int_read_from")
    assert "ACTIVITY FROM BEFORE THE LOOK-BACK CHANGED" in said
    assert builds.value(again, READ_FROM) == EVERYTHING


def test_where_all_is_read_again_the_result_is_that_of_a_full_refresh(
    builds: Builds, again: str, deliveries: tuple[Path, Path], tmp_path: Path
):
    together = {}
    for change in ("an event comes", "a lesson goes", "a student goes"):
        together |= OLDER_ACTIVITY[change]
    deliver_other(deliveries[1], tmp_path, together)
    builds.run(again, tmp_path, *BUILD)
    builds.run("with_other_activity", tmp_path, *BUILD)
    assert builds.differing_tables(again, "with_other_activity") == []
    builds.run(again, tmp_path, "run", "--select", "+int_read_from")
    assert builds.value(again, READ_FROM) != EVERYTHING


def test_who_is_new_makes_nothing_older_be_done_again(
    builds: Builds, again: str, deliveries: tuple[Path, Path], tmp_path: Path
):
    new = {
        "students": "select * replace ('new' as student_id) from raw limit 1",
        "lessons": "select * replace ('new' as lesson_id, 'new' as course_id) from raw"
        " limit 1",
        "courses": "select * replace ('new' as course_id) from raw limit 1",
        "activity_events": "select * replace ('new' as student_id, 'new' as event_id)"
        " from raw where course_id is not null order by occurred_at desc limit 1",
    }
    deliver_more(deliveries[1], tmp_path, new)
    builds.run(again, tmp_path, "run", "--select", "+int_rebuild_from")
    assert builds.value(again, READ_FROM) != EVERYTHING
    assert builds.value(again, REBUILD_FROM) != EVERYTHING


def test_copies_that_are_delivered_and_then_are_not(
    builds: Builds, again: str, deliveries: tuple[Path, Path], tmp_path: Path
):
    """Copies of new and of old events that stay, and both copies of some that go."""
    recent = "occurred_at >= {until} + interval 7 day and student_id is not null"
    pairs = f"""
        select * replace (quantity + 5 as quantity) from raw where {recent}
        union all by name
        select * replace ('pair-' || event_id as event_id) from raw, range(2)
        where {recent}
        union all by name
        select * replace ({{until}} + interval 8 day as loaded_at) from raw
        where occurred_at < {{until}} and hash(event_id) % 10 = 5
    """
    deliver_more(deliveries[1], tmp_path, {"activity_events": pairs})
    held = "select count(*) from staging.stg_platform__repeated_events"
    before = builds.value(again, held)
    builds.run(again, tmp_path, *BUILD)
    assert builds.value(again, held) > before + 10
    assert "is read again" not in builds.run(again, deliveries[1], *BUILD)
    assert builds.value(again, held) == before
    assert builds.differing_tables(again, "full") == []


def test_a_build_that_was_cut_off_vouches_for_nothing(
    builds: Builds, again: str, deliveries: tuple[Path, Path], tmp_path: Path
):
    """It saw half of two tables; the next one sees what the one before it saw."""
    half = {
        "subscriptions": "select * from raw where hash(subscription_id) % 2 = 0",
        "students": "select * from raw where hash(student_id) % 2 = 0",
    }
    deliver_other(deliveries[1], tmp_path, half)
    builds.run(again, tmp_path, "run", "--select", "+student_features_14d")
    assert builds.differing_tables(again, "full")
    for checksum in ("facts_checksum", "activity_checksum"):
        assert builds.value(again, f"select {checksum} from {RECORD}") is None
    assert "THE LAST BUILD WAS NOT WHOLE" in builds.run(again, deliveries[1], *BUILD)
    assert builds.differing_tables(again, "full") == []


def test_a_build_of_some_tables_vouches_for_nothing(
    builds: Builds, again: str, deliveries: tuple[Path, Path]
):
    some = ("run", "--select", "int_calendar+", "--exclude", "int_daily_activity")
    builds.run(again, deliveries[1], *some)
    checksums = f"select coalesce(facts_checksum, activity_checksum) from {RECORD}"
    assert builds.value("daily", checksums)
    assert builds.value(again, checksums) is None


def test_an_attribute_that_is_new_becomes_a_column(
    deliveries: tuple[Path, Path], tmp_path: Path
):
    """Also where others are features already, in a table that is added to."""
    second = deliveries[1]
    fewer = tmp_path / "fewer"
    deliver_other(second, fewer, {"students": "select * exclude (age_band) from raw"})
    features = ("run", "--select", "+student_features_14d", "+pipeline_settings")
    with pytest.MonkeyPatch.context() as patch:
        builds = Builds(tmp_path / "builds", patch, INCLUDE_ATTRIBUTES="true")
        builds.run("daily", fewer, *features)
        builds.run("daily", second, *features)
        known = "select count(attribute_{}) from main.student_features_14d"
        of_all = builds.value("daily", known.format("region"))
        assert builds.value("daily", known.format("age_band")) > 0.9 * of_all > 0


def test_other_settings_make_all_anew(
    builds: Builds, again: str, deliveries: tuple[Path, Path]
):
    command = ("run", "--select", "stg_platform__repeated_events")
    assert "built anew" not in builds.run(again, deliveries[1], *command)
    other = ("--vars", "{observation_window_days: 21}")
    said = builds.run(again, deliveries[1], *command, *other)
    assert "SETTINGS OR MODELS CHANGED" in said
    missing = f"select count(*) from duckdb_tables() where table_name = '{DAILY_NAME}'"
    assert builds.value(again, missing) == 0
    builds.run(again, deliveries[1], "run", "--select", "int_rebuild_from")
    assert builds.value(again, REBUILD_FROM) == EVERYTHING


ALL_PAGES = "select * from vle"
# Of OULAD the first delivery has these pages, and clicks before that day of the newest
# runs; the second has those pages, and all clicks. Is all of it read again?
OULAD_CHANGES = {
    "nothing is new": (ALL_PAGES, 999, ALL_PAGES, False),
    # Where clicks count whole, whenever they happened.
    "clicks are new": (ALL_PAGES, 150, ALL_PAGES, True),
    "pages are new": (f"{ALL_PAGES} where id_site not like '%0'", 999, ALL_PAGES, True),
    # No kind of activity tells that they came.
    "pages without a type are new": (
        None,
        999,
        "select * replace (null as activity_type) from vle",
        True,
    ),
}


def deliver_oulad(raw: Path, into: Path, pages: str | None, until: int) -> None:
    """Write what was known on a day of the newest runs, with these pages."""
    into.mkdir()
    early = f"code_presentation = '2013B' or cast(date as integer) < {until}"
    queries = {
        "courses": "select * from courses",
        "assessments": "select * from assessments",
        "studentInfo": "select * from studentInfo",
        "studentRegistration": "select * from studentRegistration",
        "studentVle": f"select * from studentVle where {early}",
        "studentAssessment": f"select * from studentAssessment where"
        f" cast(date_submitted as integer) < {until}",
    } | ({"vle": pages} if pages else {})
    with duckdb.connect() as connection:
        for table in [*queries, "vle"]:
            connection.execute(
                f"create view if not exists {table} as from"
                f" read_csv('{raw / table}.csv', header = true, all_varchar = true)"
            )
        for table, query in queries.items():
            connection.execute(f"copy ({query}) to '{into / table}.csv' (header)")


@pytest.mark.parametrize("change", OULAD_CHANGES)
def test_a_daily_run_of_oulad_ends_where_a_full_refresh_does(
    tmp_path: Path, change: str
):
    before, until, after, is_read_again = OULAD_CHANGES[change]
    write_oulad(tmp_path / "raw")
    deliver_oulad(tmp_path / "raw", tmp_path / "first", before, until)
    deliver_oulad(tmp_path / "raw", tmp_path / "second", after, 999)
    models = ("run", "--select", "+student_features_14d", "+pipeline_settings")
    with pytest.MonkeyPatch.context() as patch:
        builds = Builds(tmp_path / "builds", patch, SOURCE_SYSTEM="oulad")
        builds.run("daily", tmp_path / "first", *models)
        said = builds.run("daily", tmp_path / "second", *models)
        builds.run("full", tmp_path / "second", *models)
        assert ("is read again" in said) is is_read_again
        assert "built anew" not in said
        # Only what the features need was built.
        assert builds.differing_tables("daily", "full", fewest=30) == []


# ---------- files of events that are as they were

FILE_TIME = 1_600_000_000  # seconds since 1970, long before any build
HELD = (
    "select coalesce(string_agg(source_file, ' ' order by source_file), '')"
    " from staging.stg_platform__event_files where not is_new"
)
OLD_FILES = "part 1.parquet part-0's.parquet"
# What arrives, as selections from all events; `known` is when one could be known.
ARRIVALS = {
    "new": "select * from events where known >= {until}",
    "late": LATE_EVENTS,
    "repeated": REPEATED_EVENTS,
    "repeated, without a time": """
        select * replace (null as occurred_at, null as loaded_at) from events
        where hash(event_id) % 20 = 0
    """,
    "without a time": """
        select * replace (
            'untimed-' || event_id as event_id, null as occurred_at,
            null as loaded_at
        ) from events where hash(event_id) % 20 = 1
    """,
    "of the future": """
        select * replace (
            'future-' || event_id as event_id, timestamp '2199-01-01' as occurred_at
        ) from events where hash(event_id) % 20 = 2
    """,
    "of nobody": """
        select * replace ('odd-' || event_id as event_id, 'nobody' as student_id)
        from events where hash(event_id) % 20 = 3 and known >= {until}
    """,
    "of nobody, without a time": """
        select * replace (
            'odder-' || event_id as event_id, 'nobody' as student_id,
            null as occurred_at, null as loaded_at
        ) from events where hash(event_id) % 20 = 4
    """,
    "of the day after tomorrow": """
        select * replace (
            'soon-' || event_id as event_id,
            current_date::timestamp + interval 2 day as occurred_at
        ) from events where hash(event_id) % 20 = 5
    """,
    "of two futures": """
        select * replace (
            'futures-' || event_id as event_id, timestamp '2199-01-01' as loaded_at,
            current_date::timestamp + interval 2 day as occurred_at
        ) from events where hash(event_id) % 20 = 6
    """,
    "of another kind": """
        select * replace ('other-' || event_id as event_id, 'other' as event_type)
        from events where hash(event_id) % 20 = 7 and known >= {until}
    """,
}
OF_LONG_AGO = "select * replace ('old-' || event_id as event_id) from events limit 9"
OTHER_TYPES = """
    select * replace (cast(quantity as varchar) as quantity) from events
    where known >= {until}
"""


class EventFiles:
    """A delivery of which the events are a folder of files."""

    def __init__(self, raw: Path, folder: Path) -> None:
        self.raw, self.folder = raw, folder

    def write(self, name: str, queries: list[str], time: int = FILE_TIME) -> None:
        """Write one file of events, as if it had been there for long."""
        file = self.folder / "activity_events" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        known = "greatest(occurred_at, coalesce(loaded_at, occurred_at))"
        with duckdb.connect() as connection:
            connection.execute(
                f"create view events as select *, {known} as known"
                f" from '{self.raw / 'activity_events.parquet'}'"
            )
            # Within the look-back of a build that had all but what comes then.
            connection.execute(
                "set variable until = (select max(known)::date - 3 from events"
                " where known < current_date)"
            )
            until = "getvariable('until')::timestamp"
            selects = [
                f"({query.format(until=until).replace('from raw', 'from events')})"
                for query in queries
            ]
            connection.execute(
                "copy (select * exclude (known) from"
                f" ({' union all by name '.join(selects)}) order by all)"
                f" to {sql_text(file)} (format parquet, compression uncompressed)"
            )
        os.utime(file, (time, time))

    def write_old(self) -> None:
        """Write two files with what is known before the day on which more comes."""
        early = [
            "select * from events where known < {until} and hash(event_id) % 2 = ",
            ARRIVALS["without a time"] + " and hash(event_id) % 40 = 1 and 0 = ",
            ARRIVALS["of the future"] + " and hash(event_id) % 40 = 2 and 0 = ",
            ARRIVALS["of nobody, without a time"] + " and 0 = ",
            ARRIVALS["of the day after tomorrow"] + " and 0 = ",
            ARRIVALS["of two futures"] + " and 0 = ",
        ]
        self.write("part-0's", [query + "0" for query in early])
        self.write("part 1", [query + "1" for query in early])

    def copy(self, into: Path) -> "EventFiles":
        """The same delivery elsewhere, with the same times of its files."""
        shutil.copytree(self.folder, into)
        return EventFiles(self.raw, into)

    def file(self, name: str) -> Path:
        return self.folder / "activity_events" / f"{name}.parquet"


def arrive(files: EventFiles, *kinds: str) -> None:
    files.write("part 2", [ARRIVALS[kind] for kind in kinds or ARRIVALS])


def change_a_file(files: EventFiles) -> None:
    query = "select * from events where known < {until} and hash(event_id) % 3 = 0"
    files.write("part 1", [query], FILE_TIME + 1)


def rename_a_file(files: EventFiles) -> None:
    files.file("part 1").rename(files.file("part 3"))


def let_nobody_be_known(files: EventFiles) -> None:
    students = files.folder / "students.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"create table students as from '{students}'")
        connection.execute(
            "insert into students by name"
            " select * replace ('nobody' as student_id) from students limit 1"
        )
        connection.execute(f"copy students to '{students}' (format parquet)")


# What happens before the next build; which files it then holds, and whether it reads
# all activity again.
CHANGES_OF_FILES: dict[str, tuple[Callable[[EventFiles], None], str, bool]] = {
    "events of all kinds are new": (arrive, OLD_FILES, False),
    "events of long ago are new": (
        lambda files: files.write("part 2", [OF_LONG_AGO]),
        OLD_FILES,
        True,
    ),
    "a file has changed": (change_a_file, "", True),
    "a file is gone": (lambda files: files.file("part 1").unlink(), "", True),
    "a file has another name": (rename_a_file, "", False),
    "a column has another type": (
        lambda files: files.write("part 2", [OTHER_TYPES]),
        "",
        False,
    ),
    "a student is known now": (let_nobody_be_known, "", False),
}


@pytest.fixture(scope="module")
def event_files(tmp_path_factory: pytest.TempPathFactory) -> EventFiles:
    folder = tmp_path_factory.mktemp("event files")
    write_platform(folder / "raw", students=40)
    files = EventFiles(folder / "raw", folder / "first")
    files.write_old()
    for file in files.raw.glob("*.parquet"):
        if file.stem != "activity_events":
            shutil.copy2(file, files.folder)
    return files


@pytest.fixture(scope="module")
def file_builds(
    tmp_path_factory: pytest.TempPathFactory, event_files: EventFiles
) -> Iterator[Builds]:
    """Builds that have made the warehouse `daily` of the old files."""
    with pytest.MonkeyPatch.context() as patch:
        builds = Builds(tmp_path_factory.mktemp("file builds"), patch)
        builds.run("daily", event_files.folder, *WHOLE)
        assert builds.value("daily", HELD) == ""
        yield builds


# Enough for a record, and of it what comes from events.
WHOLE = ("run", "--select", "+student_features_14d", "+pipeline_settings")
FROM_EVENTS = ("run", "--select", "+stg_platform__rejected_events", f"+{DAILY_NAME}")


def check_daily_run(builds: Builds, folder: Path, held: str, reads_all: bool) -> None:
    """The next build holds these files, and ends where one from nothing does."""
    builds.run("again", folder, *WHOLE)
    builds.file("full").unlink(missing_ok=True)
    builds.run("full", folder, *FROM_EVENTS)
    assert builds.value("again", HELD) == held
    assert (builds.value("again", READ_FROM) == EVERYTHING) is reads_all
    assert builds.differing_tables("again", "full", fewest=5) == []
    files = (
        "select list(file order by file) from"
        " (select * exclude (is_new) from staging.stg_platform__event_files) as file"
    )
    assert builds.value("again", files) == builds.value("full", files)


@pytest.mark.parametrize("change", CHANGES_OF_FILES)
def test_a_daily_run_holds_files_that_are_as_they_were(
    file_builds: Builds, event_files: EventFiles, tmp_path: Path, change: str
):
    alter, held, reads_all = CHANGES_OF_FILES[change]
    files = event_files.copy(tmp_path / "second")
    alter(files)
    file_builds.copy("daily", "again")
    check_daily_run(file_builds, files.folder, held, reads_all)


# The second makes every table, and not the view of all events.
@pytest.mark.parametrize(
    "some, held",
    [
        ("+stg_platform__rejected_events", ""),
        ("stg_platform__students+,+pipeline_settings", OLD_FILES),
    ],
)
def test_files_that_a_build_of_some_tables_has_not_read_are_not_held(
    file_builds: Builds,
    event_files: EventFiles,
    tmp_path: Path,
    some: str,
    held: str,
):
    files = event_files.copy(tmp_path / "second")
    arrive(files)
    file_builds.copy("daily", "again")
    file_builds.run("again", files.folder, "run", "--select", some)
    check_daily_run(file_builds, files.folder, held, False)


def test_one_table_can_be_built_again(
    file_builds: Builds, event_files: EventFiles, tmp_path: Path
):
    files = event_files.copy(tmp_path / "second")
    arrive(files)
    file_builds.copy("daily", "again")
    file_builds.run("again", files.folder, *WHOLE)
    for table in ("stg_platform__rejected_events", "stg_platform__repeated_events"):
        file_builds.run("again", files.folder, "run", "--select", table)
    file_builds.run("full", files.folder, *FROM_EVENTS, "--full-refresh")
    assert file_builds.differing_tables("again", "full", fewest=5) == []


def test_files_that_are_held_are_read_when_their_future_has_come(
    file_builds: Builds, event_files: EventFiles, monkeypatch: pytest.MonkeyPatch
):
    begin = dbt.tracking.User.__init__

    def begin_in_two_days(user: Any, *arguments: Any) -> None:
        begin(user, *arguments)
        user.run_started_at += timedelta(days=2)

    file_builds.copy("daily", "again")
    monkeypatch.setattr(dbt.tracking.User, "__init__", begin_in_two_days)
    check_daily_run(file_builds, event_files.folder, OLD_FILES, False)
    soon = f"select sum(events) from {DAILY} where activity_date > current_date + 1"
    assert file_builds.value("daily", soon) is None
    assert file_builds.value("again", soon) > 0


def test_events_in_files_that_are_held_are_not_read(
    file_builds: Builds, event_files: EventFiles, tmp_path: Path
):
    """A file that pretends to be as it was: only ids are looked at."""
    files = event_files.copy(tmp_path / "second")
    arrive(files, "new")
    file = files.file("part 1")
    was = now = file.read_bytes()
    with duckdb.connect() as connection:
        values = connection.execute(
            f"select min(item_id), min(event_type) from '{file}'"
        ).fetchone()
    for value in values:
        assert value.encode() in now
        now = now.replace(value.encode(), value[::-1].encode())
    file.write_bytes(now)
    os.utime(file, (FILE_TIME, FILE_TIME))
    file_builds.copy("daily", "again")
    file_builds.run("again", files.folder, *WHOLE)
    assert file_builds.value("again", HELD) == OLD_FILES
    file.write_bytes(was)
    file_builds.run("full", files.folder, *FROM_EVENTS)
    assert file_builds.differing_tables("again", "full", fewest=5) == []


def test_the_project_is_where_the_fingerprint_looks_for_macros():
    assert list(PROJECT_ROOT.glob("dbt_project/macros/*.sql"))
