"""A small data set in OULAD's shape, with dirt, through dbt's staging models."""

import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from tests.pipeline import run

STAGING = "path:dbt_project/models/staging/oulad"

FILES = {
    "courses.csv": """
        code_module,code_presentation,module_presentation_length
        XXA,2013J,268
        XXB,2014B,240
        XXB,2014B,240
        XXC,2014S,240
        XXD,2014B,long
        """,
    "Assessments.CSV": """
        CODE_MODULE,code_presentation,id_assessment,assessment_type,date,weight
        XXA,2013J,3,TMA,54,20
        XXA,2013J,10,TMA,19,0
        XXA,2013J,1,TMA,19,10.0
        XXA,2013J,2,CMA,19,5
        XXA,2013J,4,Exam,,100
        XXB,2014B,5,TMA,12,
        XXB,2014B,5,TMA,40,50
        XXC,2014S,6,TMA,12,50
        XXB,2014B,7,Essay,12,50
        XXB,2014B,8,TMA,soon,50
        XXB,2014B,9,TMA,12,101
        XXB,2014B,,TMA,12,50
        """,
    "studentInfo.csv": """
        code_module,code_presentation,id_student,gender,region,highest_education,imd_band,age_band,num_of_prev_attempts,studied_credits,disability,final_result
        XXA,2013J,s1,M,Somewhere,HE,90-100%,55<=,0,240,N,Pass
        XXA,2013J,s2,F,Elsewhere,HE,,0-35,2,60,Y,Fail
        XXB,2014B,s1,M,Somewhere,HE,90-100%,55<=,1,60,N,Withdrawn
        XXB,2014B,s3,F,Somewhere,HE,10-20,0-35,0,60,N,Pass
        XXB,2014B,s3,F,Somewhere,HE,10-20,0-35,0,60,N,Pass
        XXB,2014B,s5,F,Somewhere,HE,10-20,0-35,0,60,N,Pass
        XXB,2014B,s6,F,Somewhere,HE,10-20,0-35,0,60,N,Pass
        XXC,2014S,s1,M,Somewhere,HE,90-100%,55<=,0,60,N,Pass
        XXA,2013J,s4,M,Somewhere,HE,90-100%,55<=,many,60,N,Pass
        """,
    "studentRegistration.csv": """
        code_module,code_presentation,id_student,date_registration,date_unregistration
        XXA,2013J,s1,-159,
        XXA,2013J,s2,-53,12
        XXB,2014B,s1,0,
        XXB,2014B,s1,5,
        XXB,2014B,s3,,
        XXB,2014B,s5,-5,later
        XXB,2014B,s6,99999,
        XXA,2013J,s4,-5,
        XXC,2014S,s1,-5,
        """,
    "studentAssessment.csv": """
        id_assessment,id_student,date_submitted,is_banked,score
        1,s1,18,0,78
        1,s2,22,0,
        3,s1,-1,1,60.5
        3,s2,,0,50
        2,s1,18,0,good
        2,s2,18,2,70
        1,s1,20,0,80
        77,s1,18,0,70
        5,s2,18,0,70
        4,s1,200,0,100.5
        """,
    "vle.csv": """
        id_site,code_module,code_presentation,activity_type,week_from,week_to
        100,XXA,2013J,homepage,,
        101,XXA,2013J,quiz,1,2
        200,XXB,2014B,forumng,,
        200,XXB,2014B,quiz,,
        300,XXC,2014S,quiz,,
        """,
    # A folder of files is one table; the second one has a column more.
    "studentVle/part-1.csv": """
        code_module,code_presentation,id_student,id_site,date,sum_click
        XXA,2013J,s1,100,-10,4
        XXA,2013J,s1,100,-10,4
        XXA,2013J,s1,100,-10,1
        XXA,2013J,s1,100,3,2
        XXA,2013J,s1,101,3,5
        XXA,2013J,s2,100,x,9
        XXA,2013J,s2,100,30,9
        """,
    "studentVle/part-2.csv": """
        extra,code_module,code_presentation,id_student,id_site,date,sum_click
        1,XXB,2014B,s1,200,0,1
        1,XXB,2014B,s3,200,0,1
        1,XXA,2013J,s1,999,0,1
        1,XXA,2013J,s1,101,4,
        1,XXA,2013J,s1,101,4,-1
        1,XXA,2013J,,101,4,1
        """,
}


def dbt(
    scratch: Path, *arguments: str, data_raw_path: Path | str = ""
) -> subprocess.CompletedProcess[str]:
    """Run dbt on the project with everything it writes in a scratch folder."""
    return run(
        scratch,
        "dbt",
        "--no-use-colors",
        *arguments,
        check=False,
        SOURCE_SYSTEM="oulad",
        DATA_RAW_PATH=str(data_raw_path),
    )


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [line.strip() for line in text.strip().splitlines()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oulad")


@pytest.fixture(scope="module")
def built(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    folder = scratch / "somebody's raw [data]"
    write_files(folder, FILES)
    # Cautious: without the tests that need models built after staging.
    build = ("build", "--indirect-selection", "cautious", "--select", STAGING)
    result = dbt(scratch, *build, data_raw_path=folder)
    assert result.returncode == 0, result.stdout
    with duckdb.connect(str(scratch / "warehouse.duckdb")) as connection:
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple]:
    return connection.execute(query).fetchall()


# ---------------------------------------------------------------- what is accepted


def test_enrollments(built):
    found = rows(
        built,
        "select student_id, course_id, course_run_id, peer_group_id,"
        " activity_scope_id, run_started_at, began_at, valid_to, withdrawn_at,"
        " earlier_attempts from staging.oulad__enrollments order by all",
    )
    october, february = datetime(2013, 10, 1), datetime(2014, 2, 1)
    run_a, run_b = ("XXA_2013J",) * 3, ("XXB_2014B",) * 3
    end_a, end_b = datetime(2014, 6, 26), datetime(2014, 9, 29)

    assert found == [
        ("s1", "XXA", *run_a, october, datetime(2013, 4, 25), end_a, None, 0),
        ("s1", "XXB", *run_b, february, february, end_b, None, 1),
        (
            *("s2", "XXA", *run_a, october, datetime(2013, 8, 9), end_a),
            *(datetime(2013, 10, 13), 2),
        ),
    ]


def test_purchases_and_students(built):
    assert rows(
        built,
        "select purchase_id, purchased_at from staging.oulad__purchases order by 1",
    ) == [
        ("s1_XXA_2013J", datetime(2013, 4, 25)),
        ("s1_XXB_2014B", datetime(2014, 2, 1)),
        ("s2_XXA_2013J", datetime(2013, 8, 9)),
    ]
    # Students without an accepted registration are known, but not since when.
    assert rows(built, "from staging.oulad__students order by student_id") == [
        ("s1", datetime(2013, 4, 25)),
        ("s2", datetime(2013, 8, 9)),
        ("s3", None),
        ("s5", None),
        ("s6", None),
    ]


def test_assessments(built):
    assert rows(
        built,
        "select assessment_id, course_run_id, title, kind, due_at, weight, pass_mark"
        " from staging.oulad__assessments order by assessment_id",
    ) == [
        ("1", "XXA_2013J", "TMA 1", "assignment", datetime(2013, 10, 20), 10, 40),
        ("10", "XXA_2013J", "TMA 2", "assignment", datetime(2013, 10, 20), 0, 40),
        ("2", "XXA_2013J", "CMA 1", "quiz", datetime(2013, 10, 20), 5, 40),
        ("3", "XXA_2013J", "TMA 3", "assignment", datetime(2013, 11, 24), 20, 40),
        ("4", "XXA_2013J", "Exam 1", "exam", datetime(2014, 6, 26), 100, 40),
        ("5", "XXB_2014B", "TMA 1", "assignment", datetime(2014, 2, 13), None, 40),
    ]


def test_results(built):
    assert rows(
        built,
        "select result_id, submitted_at, score, passed, score_known_at,"
        " is_carried_over from staging.oulad__results order by result_id",
    ) == [
        ("1_s1", datetime(2013, 10, 19), 78, None, None, False),
        ("1_s2", datetime(2013, 10, 23), None, None, None, False),
        ("3_s1", datetime(2013, 9, 30), 60.5, None, None, True),
    ]


def test_activity_keeps_equal_rows_and_starts_each_lesson_once(built):
    found = rows(
        built,
        "select student_id, item_id, event_type, occurred_at, quantity,"
        " is_lesson_start from staging.oulad__activity order by all",
    )
    early, third = datetime(2013, 9, 21), datetime(2013, 10, 4)

    assert [row[:5] for row in found] == [
        ("s1", "100", "homepage", early, 1),
        ("s1", "100", "homepage", early, 4),
        ("s1", "100", "homepage", early, 4),
        ("s1", "100", "homepage", third, 2),
        ("s1", "101", "quiz", third, 5),
        ("s1", "200", "forumng", datetime(2014, 2, 1), 1),
        ("s2", "100", "homepage", datetime(2013, 10, 31), 9),
    ]
    assert [row[5] for row in found] == [1, 0, 0, 0, 1, 1, 1]
    assert rows(
        built,
        "select distinct activity_type, is_lesson_start = is_lesson_finish,"
        " progress_gained = 100 * is_lesson_start, known_at = occurred_at, minutes,"
        " is_correct from staging.oulad__activity",
    ) == [("event", True, True, True, None, None)]


def test_attributes_and_no_outcome_among_them(built):
    found = rows(
        built,
        "select attribute, value from staging.oulad__student_attributes"
        " where student_id = 's2' order by attribute",
    )
    columns = rows(built, "select lower(column_name) from information_schema.columns")

    assert found == [
        ("age_band", "0-35"),
        ("disability", "Y"),
        ("gender", "F"),
        ("highest_education", "HE"),
        ("imd_band", None),
        ("region", "Elsewhere"),
        ("studied_credits", "60"),
    ]
    assert ("final_result",) not in columns


def test_lessons_and_courses(built):
    assert rows(built, "from staging.oulad__lessons order by lesson_id") == [
        ("100", "XXA", "XXA_2013J", "homepage"),
        ("101", "XXA", "XXA_2013J", "quiz"),
        ("200", "XXB", "XXB_2014B", "forumng"),
    ]
    assert rows(built, "from staging.oulad__courses order by course_id") == [
        ("XXA", "XXA", None, None),
        ("XXB", "XXB", None, None),
    ]


@pytest.mark.parametrize(
    "table", ["personal.oulad__student_contacts", "staging.oulad__bookings"]
)
def test_what_the_data_set_does_not_have_is_empty(built, table):
    assert rows(built, f"from {table}") == []


# ---------------------------------------------------------------- what is rejected


def test_every_rejected_row_has_its_reason(built):
    found = rows(
        built,
        "select source_table, record_key, reason from staging.oulad__quarantined",
    )
    run = "code_module={}, code_presentation={}"
    b, c = run.format("XXB", "2014B"), run.format("XXC", "2014S")
    a = run.format("XXA", "2013J")
    no_run = "no such presentation in courses"
    unregistered = "no registration of the student in the presentation"

    assert sorted(found) == sorted(
        [
            ("courses", b, "code_module and code_presentation are repeated"),
            ("courses", c, "code_presentation is not a year and B or J"),
            (
                "courses",
                run.format("XXD", "2014B"),
                "module_presentation_length is not a number",
            ),
            ("assessments", f"{b}, id_assessment=5", "id_assessment is repeated"),
            ("assessments", f"{c}, id_assessment=6", no_run),
            (
                "assessments",
                f"{b}, id_assessment=7",
                "assessment_type is not TMA, CMA or Exam",
            ),
            ("assessments", f"{b}, id_assessment=8", "due_day is not a number"),
            ("assessments", f"{b}, id_assessment=9", "weight is outside 0 to 100"),
            ("assessments", f"{b}, id_assessment=?", "id_assessment is missing"),
            (
                "studentInfo",
                f"{b}, id_student=s3",
                "id_student is repeated in the presentation",
            ),
            ("studentInfo", f"{c}, id_student=s1", no_run),
            (
                "studentInfo",
                f"{a}, id_student=s4",
                "num_of_prev_attempts is not a number",
            ),
            (
                "studentRegistration",
                f"{b}, id_student=s1",
                "id_student is repeated in the presentation",
            ),
            (
                "studentRegistration",
                f"{b}, id_student=s3",
                "date_registration is missing",
            ),
            (
                "studentRegistration",
                f"{b}, id_student=s5",
                "date_unregistration is not a number",
            ),
            (
                "studentRegistration",
                f"{b}, id_student=s6",
                "date_registration is outside -3650 to 3650",
            ),
            (
                "studentRegistration",
                f"{a}, id_student=s4",
                "no such student in studentInfo",
            ),
            ("studentRegistration", f"{c}, id_student=s1", no_run),
            (
                "studentAssessment",
                "id_assessment=3, id_student=s2",
                "date_submitted is missing",
            ),
            (
                "studentAssessment",
                "id_assessment=2, id_student=s1",
                "score is not a number",
            ),
            (
                "studentAssessment",
                "id_assessment=2, id_student=s2",
                "is_banked is neither 0 nor 1",
            ),
            (
                "studentAssessment",
                "id_assessment=1, id_student=s1",
                "id_assessment and id_student are repeated",
            ),
            (
                "studentAssessment",
                "id_assessment=77, id_student=s1",
                "no such assessment in assessments",
            ),
            ("studentAssessment", "id_assessment=5, id_student=s2", unregistered),
            (
                "studentAssessment",
                "id_assessment=4, id_student=s1",
                "score is outside 0 to 100",
            ),
            ("vle", f"{b}, id_site=200", "id_site is repeated"),
            ("vle", f"{c}, id_site=300", no_run),
            (
                "studentVle",
                f"{a}, id_student=s2, id_site=100",
                "click_day is not a number",
            ),
            ("studentVle", f"{b}, id_student=s3, id_site=200", unregistered),
            ("studentVle", f"{a}, id_student=s1, id_site=999", "no such page in vle"),
            ("studentVle", f"{a}, id_student=s1, id_site=101", "sum_click is missing"),
            (
                "studentVle",
                f"{a}, id_student=s1, id_site=101",
                "sum_click is outside 0 to 1000000",
            ),
            ("studentVle", f"{a}, id_student=?, id_site=101", "id_student is missing"),
        ]
    )


def test_raw_rows_are_counted_in_the_files(built):
    expected = {name.split("/")[0].split(".")[0].lower(): 0 for name in FILES}
    for name, text in FILES.items():
        table = name.split("/")[0].split(".")[0].lower()
        expected[table] += len(text.strip().splitlines()) - 1

    found = rows(
        built, "select lower(source_table), raw_rows from staging.oulad__row_counts"
    )

    assert dict(found) == expected


# ------------------------------------------- tables in the warehouse, and damage


def test_tables_in_the_warehouse_with_native_types_and_without_clicks(tmp_path):
    files = tmp_path / "files"
    write_files(files, {name.lower(): text for name, text in FILES.items()})
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("create schema raw")
        for name in ("courses", "assessments", "studentInfo", "studentRegistration"):
            connection.execute(
                f'create table raw."{name}" as'
                f" from read_csv('{files}/{name.lower()}.csv', ignore_errors = true)"
            )
        connection.execute(
            'create table raw."studentAssessment" as select 1 as id_assessment,'
            " 's1' as id_student, 18 as date_submitted, false as is_banked,"
            " 78::decimal(5, 2) as score"
        )

    result = dbt(tmp_path, "run", "--select", STAGING)

    assert result.returncode == 0, result.stdout
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        assert rows(connection, "from staging.oulad__activity") == []
        assert rows(connection, "from staging.oulad__lessons") == []
        assert rows(
            connection, "select result_id, score from staging.oulad__results"
        ) == [("1_s1", 78)]


def test_clicks_without_pages_are_events_of_no_lesson(tmp_path):
    names = [name for name in FILES if not name.startswith("vle")]
    write_files(tmp_path / "raw", {name: FILES[name] for name in names})

    result = dbt(
        tmp_path, "run", "--select", "+oulad__activity", data_raw_path=tmp_path / "raw"
    )

    assert result.returncode == 0, result.stdout
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        assert rows(
            connection,
            "select event_type, is_lesson_start, progress_gained, count(*)"
            " from staging.oulad__activity group by all",
        ) == [("unknown", None, None, 8)]


def test_damaged_files_stop_the_build_before_anything_is_built(tmp_path):
    damaged = dict(FILES)
    del damaged["courses.csv"]
    damaged["vle.csv"] = damaged["vle.csv"].replace("activity_type", "kind")
    damaged["studentAssessment.csv"] = damaged["studentAssessment.csv"].replace(
        "1,s1,18,0,78", "1,s1,18,0,78,1"
    )
    write_files(tmp_path / "raw", damaged)

    result = dbt(tmp_path, "build", data_raw_path=tmp_path / "raw")

    assert result.returncode != 0
    assert "has 3 problems" in result.stdout
    assert "courses: the table is missing" in result.stdout
    assert "vle.activity_type: the column is missing in vle.csv" in result.stdout
    assert "studentAssessment.csv has 6 values in line 2" in result.stdout
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        assert rows(connection, "select count(*) from information_schema.tables") == [
            (0,)
        ]
