"""The generator: same bytes, the designed rates, dirt of each kind, a true truth."""

import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "seeds"
END = "2026-01-01"
# Students of the larger world: more than one chunk of the generator.
MANY = 20_500

TABLES = {
    "students": "student_id registered_at age_band gender region",
    "student_contacts": "student_id first_name email phone locale timezone "
    "preferred_channel opted_out_at",
    "courses": "course_id title category duration_minutes",
    "lessons": "lesson_id course_id topic",
    "assessments": "assessment_id course_id title kind due_at weight pass_mark",
    "assessment_bookings": "student_id assessment_id scheduled_at booked_at",
    "subscriptions": "subscription_id student_id course_id tier amount_cents "
    "created_at valid_from valid_to withdrawn_at",
    "lesson_progresses": "student_id lesson_id progress created_at updated_at",
    "quiz_question_answers": "student_id course_id lesson_id quiz_question_id "
    "attempt verdict created_at",
    "assessment_results": "result_id student_id assessment_id submitted_at "
    "graded_at score passed",
    "signed_in_events": "student_id created_at",
    "activity_events": "event_id student_id course_id event_type item_id quantity "
    "occurred_at loaded_at",
}
EVENTS = [
    "lesson_progresses",
    "quiz_question_answers",
    "signed_in_events",
    "activity_events",
]


def generate(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the generator as a user does."""
    command = [sys.executable, "seeds/generate.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ)
    )


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def opened(folder: Path, file_format: str) -> duckdb.DuckDBPyConnection:
    """The tables of a folder as views; CSV as text."""
    connection = duckdb.connect()
    for name in TABLES:
        path = folder / f"{name}.{file_format}"
        reader = "read_parquet('{}')"
        if file_format == "csv":
            reader = "read_csv('{}', header = true, all_varchar = true)"
        connection.execute(f"create view {name} as select * from {reader.format(path)}")
    return connection


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample, made again with its truth."""
    folder = tmp_path_factory.mktemp("sample")
    done = generate("--out", folder / "t", "--truth", folder / "truth.csv")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def clean_sample(tmp_path_factory):
    """The sample without dirt."""
    folder = tmp_path_factory.mktemp("clean_sample")
    assert generate("--out", folder, "--no-dirt").returncode == 0
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A larger clean world in Parquet with its truth."""
    folder = tmp_path_factory.mktemp("world")
    done = generate(
        "--students",
        MANY,
        "--format",
        "parquet",
        "--no-dirt",
        "--out",
        folder / "t",
        "--truth",
        folder / "truth.parquet",
    )
    assert done.returncode == 0, done.stderr
    connection = opened(folder / "t", "parquet")
    truth = folder / "truth.parquet"
    connection.execute(f"create view truth as select * from read_parquet('{truth}')")
    return connection


# ---------- the same bytes


def test_committed_seeds_are_what_the_generator_writes(sample):
    made = contents(sample / "t")
    assert set(made) == {f"{name}.csv" for name in TABLES}
    # Parquet and Arrow may change the bytes of Parquet files, not those of CSV.
    stale = [name for name in made if (SEEDS / name).read_bytes() != made[name]]
    assert not stale, f"Run python seeds/generate.py and commit {stale}."
    assert sum(map(len, made.values())) < 3_000_000


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_same_seed_same_bytes(tmp_path, file_format):
    for folder, seed in (("one", 7), ("two", 7), ("other", 8)):
        generate(
            "--students",
            300,
            "--seed",
            seed,
            "--format",
            file_format,
            "--out",
            tmp_path / folder,
        )
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


def test_formats_hold_the_same_rows(tmp_path, clean_sample):
    students = count_lines(SEEDS / "students.csv", tmp_path)
    out = tmp_path / "parquet"
    generate("--students", students, "--format", "parquet", "--no-dirt", "--out", out)
    text, typed = opened(clean_sample, "csv"), opened(out, "parquet")
    for name, columns in TABLES.items():
        kinds = dict(zip(columns.split(), typed.table(name).types, strict=True))
        casts = ", ".join(f"cast({c} as {kind}) as {c}" for c, kind in kinds.items())
        left = text.sql(f"select {casts} from {name}").df()
        pd.testing.assert_frame_equal(
            left, typed.table(name).df(), check_dtype=False, obj=name
        )


def count_lines(path: Path, folder: Path) -> int:
    """Students of the sample: the good rows, whose ids are all different."""
    ids = pd.read_csv(path, dtype=str).student_id.dropna()
    return int(ids[ids.str.fullmatch(r"s\d+")].nunique())


# ---------- the contract


def test_columns_and_types(sample, world):
    for name, columns in TABLES.items():
        header = (sample / "t" / f"{name}.csv").read_text().split("\n", 1)[0]
        assert header.split(",") == columns.split(), name
        for column, kind in zip(columns.split(), world.table(name).types, strict=True):
            assert str(kind) == expected_type(column), f"{name}.{column}"


def expected_type(column: str) -> str:
    if column.endswith("_at") or column in ("valid_from", "valid_to"):
        return "TIMESTAMP"
    if column in ("attempt", "amount_cents", "duration_minutes"):
        return "BIGINT"
    if column in ("progress", "score", "weight", "pass_mark", "quantity"):
        return "DOUBLE"
    return "BOOLEAN" if column == "passed" else "VARCHAR"


def test_times_are_stored_in_microseconds(tmp_path):
    generate("--students", 5, "--format", "parquet", "--out", tmp_path)
    kind = pq.read_schema(tmp_path / "subscriptions.parquet").field("created_at").type
    assert str(kind) == "timestamp[us]"


def test_ids_are_unique_and_known_across_chunks(world):
    for name, key in (
        ("students", "student_id"),
        ("subscriptions", "subscription_id"),
        ("assessment_results", "result_id"),
        ("activity_events", "event_id"),
    ):
        rows, ids = world.sql(
            f"select count(*), count(distinct {key}) from {name}"
        ).fetchone()
        assert rows == ids > 0, name
    for name, columns in TABLES.items():
        for parent, key in (
            ("students", "student_id"),
            ("courses", "course_id"),
            ("lessons", "lesson_id"),
            ("assessments", "assessment_id"),
        ):
            if key in columns.split():
                orphans = world.sql(
                    f"select count(*) from {name} where {key} is not null "
                    f"and {key} not in (select {key} from {parent})"
                ).fetchone()[0]
                assert orphans == 0, f"{name}.{key}"


def test_contacts_are_invented(world):
    real = world.sql(
        r"""
        select count(*) from student_contacts
        where not regexp_matches(email, '^s\d+@example\.(com|org)$')
            or not regexp_matches(coalesce(phone, '+447700900000'),
                '^\+447700900\d{3}$')
        """
    ).fetchone()[0]
    assert real == 0


# ---------- the process


def test_nothing_has_happened_after_the_end(world):
    for name, column in (
        ("subscriptions", "created_at"),
        ("subscriptions", "withdrawn_at"),
        ("assessment_results", "submitted_at"),
        ("assessment_results", "graded_at"),
        ("assessment_bookings", "booked_at"),
        ("activity_events", "loaded_at"),
        *((name, "created_at") for name in EVENTS[:3]),
    ):
        newest = world.sql(f"select max({column}) from {name}").fetchone()[0]
        assert newest < pd.Timestamp(END), f"{name}.{column}"


def test_nobody_studies_before_buying_or_after_withdrawing(world):
    early = world.sql(
        """
        select count(*) from quiz_question_answers as answers
        where not exists (
            select 1 from subscriptions
            where subscriptions.student_id = answers.student_id
                and coalesce(subscriptions.course_id, answers.course_id)
                    = answers.course_id
                and subscriptions.created_at < answers.created_at
                and coalesce(subscriptions.withdrawn_at, timestamp '2100-01-01')
                    > answers.created_at
        )
        """
    ).fetchone()[0]
    assert early == 0


def test_progress_is_a_growing_log(world):
    shrinks, rows, lessons = world.sql(
        """
        select
            count(*) filter (progress <= before),
            count(*),
            count(distinct (student_id, lesson_id))
        from (
            select *, lag(progress) over (
                partition by student_id, lesson_id order by created_at
            ) as before
            from lesson_progresses
        )
        """
    ).fetchone()
    assert shrinks == 0
    assert rows > 1.3 * lessons


def test_exams_come_in_every_shape(world):
    due, open_exams = world.sql(
        """
        select max(terms), count(*) filter (terms = 0) from (
            select assessment_id, count(due_at) as terms
            from assessments where kind = 'exam' group by assessment_id
        )
        """
    ).fetchone()
    assert due >= 10
    assert open_exams == 1
    shapes = world.sql(
        """
        select
            (select count(*) from assessment_bookings) as bookings,
            (select count(distinct student_id) from assessment_bookings) as bookers,
            (select count(*) from subscriptions where course_id is null) as shared,
            (select count(withdrawn_at) from subscriptions) as withdrawals,
            (select count(*) - count(graded_at) from assessment_results) as ungraded,
            (select count(*) from assessment_results
                where score is not null and passed is null) as undecided
        """
    ).df()
    assert (shapes > 0).all(axis=None), shapes
    assert shapes.bookings[0] > shapes.bookers[0]


def matured(truth: pd.DataFrame) -> pd.DataFrame:
    """First attempts bought for one course, 90 days after their exams."""
    due = pd.to_datetime(truth.exam_at) + pd.Timedelta(days=90)
    one_course = ~truth.all_courses.astype(bool)
    return truth[(truth.attempt_number == 1) & one_course & (due < END)]


def test_base_rate(sample, world):
    for truth in (pd.read_csv(sample / "truth.csv"), world.table("truth").df()):
        first = matured(truth)
        assert len(first) > 1_500
        assert 0.10 < first.repurchased.mean() < 0.14
        assert 0.03 < first.postpones.mean() < 0.07
        bought_again = first[first.repurchased == 1]
        assert bought_again.failed.mean() > 0.93


def test_told_repurchases_are_the_ones_in_the_tables(world):
    wrong = world.sql(
        f"""
        select count(*) from (
            select
                truth.repurchased,
                max(case when subscriptions.created_at > truth.exam_at
                    and subscriptions.created_at < truth.exam_at + interval 90 day
                    then 1 else 0 end) as bought
            from truth
            inner join subscriptions using (student_id)
            where truth.exam_at + interval 90 day < timestamp '{END}'
                and coalesce(subscriptions.course_id, '') = truth.course_id
                or subscriptions.subscription_id = truth.subscription_id
                and truth.exam_at + interval 90 day < timestamp '{END}'
            group by truth.subscription_id, truth.course_id, truth.repurchased
        )
        where repurchased <> bought
        """
    ).fetchone()[0]
    assert wrong == 0


@pytest.mark.parametrize("outcome", ["repurchased", "failed"])
def test_truth_is_calibrated(world, outcome):
    first = matured(world.table("truth").df())
    chance = first["p_repurchase" if outcome == "repurchased" else "p_fail"]
    tenth = pd.qcut(chance.rank(method="first"), 10, labels=False)
    for _, rows in first.groupby(tenth):
        expected = chance[rows.index]
        spread = (expected * (1 - expected)).sum() ** 0.5
        assert abs(rows[outcome].sum() - expected.sum()) < 4.5 * spread + 1


def test_truth_ranks_as_well_as_designed(world):
    first = matured(world.table("truth").df())
    first = first[~first.postpones]
    best = average_precision_score(first.repurchased, first.p_repurchase)
    assert 0.48 < best < 0.62
    shuffled = first.p_repurchase.sample(frac=1, random_state=0)
    assert average_precision_score(first.repurchased, shuffled) < 0.2


def test_truth_stays_out_of_the_seeds():
    done = generate("--truth", SEEDS / "truth.csv")
    assert done.returncode == 2
    assert "outside" in done.stderr
    assert not (SEEDS / "truth.csv").exists()


# ---------- dirt

KNOWN = "(select {0} from {1} where {0} is not null)"
UNPARSABLE = "{0} is not null and try_cast({0} as timestamp) is null"
DIRT = {
    "unparsable time": [
        (table, UNPARSABLE.format(column))
        for table, column in (
            ("students", "registered_at"),
            ("subscriptions", "created_at"),
            ("lesson_progresses", "created_at"),
            ("quiz_question_answers", "created_at"),
            ("assessment_results", "submitted_at"),
            ("signed_in_events", "created_at"),
            ("activity_events", "occurred_at"),
            ("assessment_bookings", "scheduled_at"),
        )
    ],
    "orphan": [
        (table, f"{key} not in " + KNOWN.format(key, parent))
        for table, key, parent in (
            ("subscriptions", "student_id", "students"),
            ("activity_events", "student_id", "students"),
            ("quiz_question_answers", "course_id", "courses"),
            ("lesson_progresses", "lesson_id", "lessons"),
            ("assessment_results", "assessment_id", "assessments"),
        )
    ],
    "no time": [(table, "created_at is null") for table in EVENTS[:3]],
    "far future": [
        (table, "try_cast(created_at as timestamp) > timestamp '2100-01-01'")
        for table in ("subscriptions", *EVENTS[:3])
    ],
    "progress beyond 0 to 100": [
        ("lesson_progresses", "cast(progress as double) > 100"),
        ("lesson_progresses", "cast(progress as double) < 0"),
    ],
    "negative quantity": [("activity_events", "cast(quantity as double) < 0")],
    "end before start": [
        (
            "subscriptions",
            "try_cast(valid_to as timestamp) < try_cast(valid_from as timestamp)",
        ),
        (
            "assessment_results",
            "try_cast(graded_at as timestamp) < try_cast(submitted_at as timestamp)",
        ),
    ],
    "empty": [
        (table, "trim(coalesce(student_id, '')) = ''")
        for table in ("students", "subscriptions", "signed_in_events")
    ],
}


@pytest.mark.parametrize("kind", DIRT)
def test_dirt_of_each_kind_is_there_and_rare(sample, clean_sample, kind):
    dirty, clean = opened(sample / "t", "csv"), opened(clean_sample, "csv")
    for table, broken in DIRT[kind]:
        query = f"select count(*) filter ({broken}), count(*) from {table}"
        found, rows = dirty.sql(query).fetchone()
        assert 0 < found < 0.01 * rows, f"{table}: {broken}"
        assert clean.sql(query).fetchone()[0] == 0, f"{table}: {broken}"


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("students", "student_id"),
        ("subscriptions", "subscription_id"),
        ("assessment_results", "result_id"),
        ("activity_events", "event_id"),
    ],
)
def test_ids_come_twice_with_and_without_conflict(sample, clean_sample, table, key):
    def doubles(folder: Path) -> tuple[int, int]:
        return (
            opened(folder, "csv")
            .sql(
                f"""
                select
                    count(*) filter (different = 1),
                    count(*) filter (different > 1)
                from (
                    select {key}, count(distinct {table}) as different
                    from {table} where {key} is not null
                    group by {key} having count(*) > 1
                )
                """
            )
            .fetchone()
        )

    identical, conflicting = doubles(sample / "t")
    assert identical > 0
    assert conflicting > 0
    assert doubles(clean_sample) == (0, 0)


def test_dirt_stays_below_the_quarantine_threshold(sample, clean_sample):
    dirty, clean = opened(sample / "t", "csv"), opened(clean_sample, "csv")
    for name in TABLES:
        rows = len(dirty.table(name))
        added = rows - len(clean.table(name))
        # Conflicting rows may take their good twin along.
        assert 2 * added < 0.05 * rows, name
        # The good rows are all still there.
        lost = clean.sql(f"select * from {name}").df()
        kept = dirty.sql(f"select * from {name}").df().head(len(lost))
        pd.testing.assert_frame_equal(lost, kept, obj=name)


def test_typed_files_have_dirt_too(tmp_path):
    generate("--students", 1_500, "--format", "parquet", "--out", tmp_path)
    found = (
        opened(tmp_path, "parquet")
        .sql(
            """
            select
                count(*) filter (created_at is null) as no_time,
                count(*) filter (created_at > timestamp '2100-01-01') as future,
                count(*) filter (progress > 100) as beyond,
                count(*) filter (student_id = 'unknown') as orphans
            from lesson_progresses
            """
        )
        .df()
    )
    assert (found > 0).all(axis=None), found


# ---------- size


def test_detail_adds_events_and_nothing_else(tmp_path):
    rows = {}
    for detail in (1, 10):
        out = tmp_path / str(detail)
        generate("--students", 800, "--no-dirt", "--detail", detail, "--out", out)
        tables = opened(out, "csv")
        rows[detail] = {name: len(tables.table(name)) for name in EVENTS}
    grown = {name: rows[10][name] / rows[1][name] for name in EVENTS}
    assert 8 < grown.pop("activity_events") < 12
    assert all(0.9 < factor < 1.1 for factor in grown.values()), grown


def test_diligence_adds_days_of_study_and_not_more_to_each(tmp_path):
    found = {}
    for diligence in (1, 4):
        out = tmp_path / str(diligence)
        generate("--students", 800, "--no-dirt", "--diligence", diligence, "--out", out)
        found[diligence] = (
            opened(out, "csv")
            .sql(
                """
                select
                    count(distinct (student_id, created_at[:10])) as study_days,
                    count(*) / count(distinct (student_id, created_at[:10]))
                        as answers_a_day,
                    (select count(*) from subscriptions) as subscriptions
                from quiz_question_answers
                """
            )
            .df()
            .iloc[0]
        )
    grown = found[4] / found[1]
    assert 2.5 < grown["study_days"] < 4, grown
    assert 0.9 < grown["answers_a_day"] < 1.1, grown
    assert 0.8 < grown["subscriptions"] < 1.1, grown


@pytest.mark.bench
def test_time_grows_no_faster_than_the_events(tmp_path):
    rates = []
    for students in (20_000, 100_000):
        out = tmp_path / str(students)
        began = time.perf_counter()
        generate("--students", students, "--format", "parquet", "--out", out)
        seconds = time.perf_counter() - began
        tables = opened(out, "parquet")
        events = sum(len(tables.table(name)) for name in EVENTS)
        rates.append(events / seconds)
    print(f"{rates[-1]:,.0f} events a second")
    assert rates[1] > 0.6 * rates[0]
