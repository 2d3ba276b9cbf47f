"""Raw data for the leakage proof, and twins of it changed from a day on.

Everything that became known at or after CUT is changed, removed or joined by
new facts; nothing that was known before is touched.
"""

import csv
import random
import subprocess
import sys
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import duckdb

from ml.settings import PROJECT_ROOT

CUT = {"platform": "2024-05-10", "oulad": "2014-01-20"}

# ---------------------------------------------------------------- platform


def write_platform(folder: Path, students: int = 250) -> None:
    """The native contract as Parquet, dirt included."""
    generator = PROJECT_ROOT / "seeds" / "generate.py"
    arguments = ["--students", str(students), "--format", "parquet", "--seed", "7"]
    subprocess.run(
        [sys.executable, generator, *arguments, "--out", folder],
        check=True,
        capture_output=True,
    )


# One query a table: `raw` is the table before, the result the table after.
# {cut} is the first instant that nobody knew anything of.
PLATFORM_CHANGES = {
    "students": """
        select * from raw
        union all by name
        -- The same ids again, later and with other attributes.
        select * replace (
            {cut} + interval 3 day as registered_at, 'Nowhere' as region
        ) from raw where hash(student_id) % 5 = 0
        union all by name
        select * replace (
            'new-' || student_id as student_id, {cut} + interval 1 day as registered_at
        ) from raw
    """,
    "student_contacts": """
        select * replace ({cut} + interval 1 day as opted_out_at) from raw
    """,
    "courses": """
        select * from raw
        union all by name
        (select * replace ('course-new' as course_id) from raw limit 1)
    """,
    "lessons": """
        select * from raw
        union all by name
        (select * replace ('lesson-new' as lesson_id, 'course-new' as course_id)
        from raw limit 1)
    """,
    "assessments": """
        select * from raw
        union all by name
        (select * replace (
            'assessment-new' as assessment_id, 'course-new' as course_id,
            {cut} + interval 20 day as due_at
        ) from raw where due_at is not null limit 1)
    """,
    "assessment_bookings": """
        select * from raw where booked_at < {cut} or booked_at is null
        union all by name
        select * replace (scheduled_at + interval 10 day as scheduled_at)
        from raw where booked_at >= {cut}
        union all by name
        -- Everybody books again, some at the very first instant.
        select * replace (
            {cut} + interval (hash(student_id) % 4) day as booked_at,
            {cut} + interval (6 + hash(student_id) % 30) day as scheduled_at
        ) from raw
        union all by name
        select distinct
            results.student_id, results.assessment_id,
            {cut} + interval 25 day as scheduled_at, {cut} as booked_at
        from results
    """,
    "subscriptions": """
        select * replace (
            case
                when withdrawn_at < {cut} then withdrawn_at
                when hash(subscription_id) % 3 = 0 then null
                else {cut} + interval (hash(subscription_id) % 9) day
            end as withdrawn_at
        ) from raw where created_at < {cut} or created_at is null
        union all by name
        select * replace (valid_to + interval 40 day as valid_to)
        from raw where created_at >= {cut} and hash(subscription_id) % 2 = 0
        union all by name
        -- Bought from then on, also backdated and under a known id.
        select * replace (
            'new-' || subscription_id as subscription_id,
            {cut} + interval (hash(subscription_id) % 7) day as created_at,
            {cut} - interval 20 day as valid_from,
            {cut} + interval 150 day as valid_to,
            cast(null as timestamp) as withdrawn_at
        ) from raw where created_at < {cut}
        union all by name
        select * replace (
            {cut} + interval 2 day as created_at, {cut} + interval 2 day as valid_from,
            {cut} + interval 90 day as valid_to
        ) from raw where created_at < {cut} and hash(subscription_id) % 4 = 0
    """,
    "lesson_progresses": """
        select * from raw where created_at < {cut} or created_at is null
        union all by name
        select * replace (least(progress + 30, 100) as progress)
        from raw where created_at >= {cut} and hash(student_id) % 2 = 0
        union all by name
        select * replace (
            100 as progress, {cut} + interval (hash(lesson_id) % 3) hour as created_at,
            {cut} + interval 3 hour as updated_at
        ) from raw where created_at < {cut}
    """,
    "quiz_question_answers": """
        select * from raw where created_at < {cut} or created_at is null
        union all by name
        select * replace ({cut} as created_at)
        from raw where created_at < {cut}
    """,
    "assessment_results": """
        select * replace (
            case
                when coalesce(graded_at, submitted_at + interval 14 day) >= {cut}
                    then 100 - score
                else score
            end as score,
            case
                when coalesce(graded_at, submitted_at + interval 14 day) >= {cut}
                    then not passed
                else passed
            end as passed
        ) from raw where submitted_at < {cut} or submitted_at is null
        union all by name
        select * replace (score / 2 as score)
        from raw where submitted_at >= {cut} and hash(result_id) % 2 = 0
        union all by name
        -- Further attempts, and everybody hands everything in, late.
        select * replace (
            'new-' || result_id as result_id, {cut} as submitted_at,
            {cut} + interval 1 day as graded_at, 1 as score, false as passed
        ) from raw
        union all by name
        select * replace (
            {cut} + interval 1 hour as submitted_at, 2 as score
        ) from raw where submitted_at < {cut} and hash(result_id) % 3 = 0
    """,
    "signed_in_events": """
        select * from raw where created_at < {cut} or created_at is null
        union all by name
        select * replace ({cut} as created_at) from raw
    """,
    "activity_events": """
        select * from raw where occurred_at < {cut} or occurred_at is null
        union all by name
        select * replace (
            'new-' || event_id as event_id, {cut} as occurred_at,
            cast(null as timestamp) as loaded_at
        ) from raw
        union all by name
        -- Happened before, but nobody knew until then.
        select * replace (
            'late-' || event_id as event_id,
            {cut} - interval (1 + hash(event_id) % 20) day as occurred_at,
            {cut} + interval 1 hour as loaded_at
        ) from raw
        union all by name
        select * replace (
            {cut} + interval 1 day as occurred_at, cast(null as timestamp) as loaded_at
        ) from raw where occurred_at < {cut} and hash(event_id) % 4 = 0
    """,
}


def change_platform_after(before: Path, after: Path) -> None:
    """Write the twin of `before` in which only CUT and later differ."""
    after.mkdir(parents=True)
    cut = f"timestamp '{CUT['platform']}'"
    with duckdb.connect() as connection:
        results = before / "assessment_results.parquet"
        connection.execute(f"create view results as from '{results}'")
        for table, query in PLATFORM_CHANGES.items():
            connection.execute(
                f"create or replace view raw as from '{before / table}.parquet'"
            )
            connection.execute(
                f"copy ({query.format(cut=cut)}) to '{after / table}.parquet'"
            )


# ---------------------------------------------------------------- oulad

RUNS = {
    ("AAA", "2013B"): (date(2013, 2, 1), 240),
    ("AAA", "2013J"): (date(2013, 10, 1), 260),
    ("BBB", "2013J"): (date(2013, 10, 1), 250),
}
STUDENTS_PER_RUN = 60
TMA_DAYS = (20, 55, 90, 115, 150, 200)


def write_oulad(folder: Path) -> None:
    """A made-up data set in the layout of the official download."""
    chance = random.Random(11)
    folder.mkdir(parents=True)
    runs = [(*run, length) for run, (_, length) in RUNS.items()]
    names = ["code_module", "code_presentation"]
    _write(folder / "courses.csv", [*names, "module_presentation_length"], runs)
    assessments = [
        (module, presentation, f"{number}{day}", "TMA", day, 10 + day // 10)
        for number, (module, presentation) in enumerate(RUNS, 1)
        for day in TMA_DAYS
    ]
    head = [*names, "id_assessment", "assessment_type", "date", "weight"]
    _write(folder / "assessments.csv", head, assessments)
    sites = [
        (f"{number}{site}", *run, "quiz" if site % 2 else "resource", "", "")
        for number, run in enumerate(RUNS, 1)
        for site in range(10, 40)
    ]
    head = ["id_site", *names, "activity_type", "week_from", "week_to"]
    _write(folder / "vle.csv", head, sites)
    students = [
        (run, f"{900 + number}")
        for run in RUNS
        for number in chance.sample(range(120), STUDENTS_PER_RUN)
    ]
    _write_students(folder, students, chance)
    _write_results(folder, students, assessments, chance)
    _write_clicks(folder, students, sites, chance)


def _write_students(folder: Path, students: list, chance: random.Random) -> None:
    head = (
        "code_module,code_presentation,id_student,gender,region,highest_education,"
        "imd_band,age_band,num_of_prev_attempts,studied_credits,disability,final_result"
    ).split(",")
    facts = ["M", "Here", "HE", "10-20", "0-35", "0", "60", "N"]
    rows = [(*run, student, *facts, "Pass") for run, student in students]
    _write(folder / "studentInfo.csv", head, rows)
    rows = [
        (*run, student, -chance.randint(1, 90), chance.choice(["", "", 130, 30]))
        for run, student in students
    ]
    head = [*head[:3], "date_registration", "date_unregistration"]
    _write(folder / "studentRegistration.csv", head, rows)


def _write_results(
    folder: Path, students: list, assessments: list, chance: random.Random
) -> None:
    rows = [
        (row[2], student, row[4] + chance.randint(-12, 6), 0, chance.randint(20, 100))
        for run, student in students
        for row in assessments
        if row[:2] == run and chance.random() < 0.75
    ]
    head = ["id_assessment", "id_student", "date_submitted", "is_banked", "score"]
    _write(folder / "studentAssessment.csv", head, rows)


def _write_clicks(
    folder: Path, students: list, sites: list, chance: random.Random
) -> None:
    of_run = {run: [site[0] for site in sites if site[1:3] == run] for run in RUNS}
    rows = [
        (*run, student, chance.choice(of_run[run]), chance.randint(-5, 220), 2)
        for run, student in students
        for _ in range(60)
        if run != ("BBB", "2013J") or chance.random() < 0.3
    ]
    head = "code_module,code_presentation,id_student,id_site,date,sum_click".split(",")
    _write(folder / "studentVle.csv", head, rows)


def change_oulad_after(before: Path, after: Path) -> None:
    """Write the twin of `before` in which only CUT and later differ."""
    after.mkdir(parents=True)
    for name in ("courses.csv", "assessments.csv", "vle.csv"):
        (after / name).write_bytes((before / name).read_bytes())
    runs = {run: _cut_day(start) for run, (start, _) in RUNS.items()}
    cuts = {
        row["id_assessment"]: runs[row["code_module"], row["code_presentation"]]
        for row in _read(before / "assessments.csv")
    }

    # The outcome of the run is not known before it ends.
    info = _read(before / "studentInfo.csv")
    _rewrite(after, "studentInfo.csv", [row | {"final_result": "X"} for row in info])

    registrations = []
    for row in _read(before / "studentRegistration.csv"):
        cut = runs[row["code_module"], row["code_presentation"]]
        left = row["date_unregistration"]
        if not left or int(left) >= cut:
            row["date_unregistration"] = str(cut + int(row["id_student"]) % 5)
        registrations.append(row)
    _rewrite(after, "studentRegistration.csv", registrations)

    results = []
    for row in _read(before / "studentAssessment.csv"):
        cut, day = cuts[row["id_assessment"]], int(row["date_submitted"])
        if day >= cut:
            row["date_submitted"] = str(day + 9)
        if day + 14 >= cut:
            row["score"] = str(100 - int(row["score"]))
        results.append(row)
    handed_in = {(row["id_assessment"], row["id_student"]) for row in results}
    for row in info:
        for assessment, cut in cuts.items():
            key = (assessment, row["id_student"])
            if key not in handed_in:
                handed_in.add(key)
                values = [*key, str(cut), "0", "1"]
                results.append(dict(zip(results[0], values, strict=True)))
    _rewrite(after, "studentAssessment.csv", results)

    clicks = []
    for row in _read(before / "studentVle.csv"):
        cut = runs[row["code_module"], row["code_presentation"]]
        clicks.append(row if int(row["date"]) < cut else row | {"sum_click": "99"})
        clicks.append(row | {"date": str(cut), "sum_click": "7"})
    _rewrite(after, "studentVle.csv", clicks)


def _cut_day(start: date) -> int:
    return (date.fromisoformat(CUT["oulad"]) - start) // timedelta(days=1)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _rewrite(folder: Path, name: str, rows: list[dict[str, str]]) -> None:
    _write(folder / name, list(rows[0]), [row.values() for row in rows])


def _write(path: Path, head: list[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(head)
        writer.writerows(rows)
