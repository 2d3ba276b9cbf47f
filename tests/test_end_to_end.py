"""The README's commands in a fresh clone, and what they leave behind."""

import json
import re
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
import pytest

from ml.publish import SCHEMAS
from ml.settings import PROJECT_ROOT
from tests.conftest import shell
from tests.leakage_data import write_oulad, write_platform
from tests.test_documentation import documented
from tests.test_publish_postgres import assert_same_tables

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    """Lines of the README's shell blocks, without their comments."""
    lines = "\n".join(blocks("sh")).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def tables(clone: Path) -> dict[str, pa.Table]:
    """Every published table as it is in the warehouse now, in a fixed order."""
    with duckdb.connect(str(clone / "data/warehouse.duckdb"), read_only=True) as db:
        names = db.execute(
            "select table_schema, table_name from information_schema.tables"
            " where table_schema in ('main', 'ml', 'intervene', 'quarantine')"
        ).fetchall()
        return {
            f"{schema}.{name}": db.execute(f"from {schema}.{name} order by all")
            .arrow()
            .read_all()
            for schema, name in names
        }


def query(clone: Path, sql: str) -> list[tuple]:
    path = clone / "data/published/student_success.duckdb"
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_make_run_ends_with_a_summary(clone: Path, made: str) -> None:
    summary = made[made.index("[7/7]") :]
    for part in (
        r"[\d,]+ prediction points, [\d,]+ with a label \(base rate 0\.1",
        r"model +PR-AUC 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)",
        r"rule +PR-AUC",
        r"course_rate +PR-AUC",
        r"random +PR-AUC",
        r"Flagged: +\d+ students",
        r"Messages: +\d+ checked",
        r"Report: +\S+report\.html",
        r"Snapshot: +\S+student_success\.duckdb",
    ):
        assert re.search(part, summary), (part, summary)
    assert len(re.findall(r"^  \w+: .+ in \d+ days, risk 0\.\d\d\. \w", summary, re.M))
    assert (clone / "data/report.html").stat().st_size > 10_000


def test_the_model_of_the_sample_is_accepted(clone: Path, made: str) -> None:
    assert query(clone, "select status from ml.model_runs") == [("champion",)]


def test_drift_is_measured_against_all_that_the_model_was_trained_on(
    clone: Path, made: str
) -> None:
    compared = query(
        clone,
        "select distinct drift.points_then = runs.train_rows"
        " from feature_drift as drift inner join ml.model_runs as runs using (run_id)",
    )
    assert compared == [(True,)]


def test_every_flagged_student_has_a_message_or_has_opted_out(
    clone: Path, made: str
) -> None:
    with duckdb.connect(str(clone / "data/warehouse.duckdb"), read_only=True) as db:
        without = db.execute(
            """
            select count(*) from flagged_students as flags
            left join intervene.messages as messages using (student_id, assessment_id)
            left join personal.student_contacts as contacts using (student_id)
            where messages.message_id is null and contacts.opted_out_at is null
            """
        ).fetchone()
        twice = db.execute(
            "select count(*) - count(distinct idempotency_key) from intervene.messages"
        ).fetchone()
    assert (without, twice) == ((0,), (0,))


def test_no_contact_leaves_its_schema(clone: Path, made: str) -> None:
    """No email or phone in a published file, the report, the store or a log."""
    with duckdb.connect(str(clone / "data/warehouse.duckdb"), read_only=True) as db:
        secrets = [
            value.encode()
            for row in db.execute(
                "select email, phone from personal.student_contacts"
            ).fetchall()
            for value in row
            if value
        ]
    assert len(secrets) > 500
    places = [clone / "data/report.html", *(clone / "data").glob("intervene*")]
    places += [
        path
        for folder in ("data/published", "logs", "data/models")
        for path in (clone / folder).rglob("*")
        if path.is_file()
    ]
    found = []
    for path in places:
        content = path.read_bytes()
        found += [path.name for secret in secrets if secret in content]
    assert found == []


@pytest.mark.parametrize("number", range(len(blocks("sql"))))
def test_the_queries_of_the_readme_give_rows(
    number: int, clone: Path, made: str
) -> None:
    assert query(clone, blocks("sql")[number])


def test_the_same_tables_are_published_to_postgresql(
    clone: Path, made: str, postgresql_database: str
) -> None:
    """Every row of every table; the queries of the README find theirs there too."""
    printed = shell(
        clone, "make publish TARGET=postgres", PUBLISH_POSTGRES_URL=postgresql_database
    )
    manifest = json.loads((clone / "data/published/manifest.json").read_text())
    number = assert_same_tables(clone / "data/warehouse.duckdb", postgresql_database)
    assert number == len(manifest["rows"])
    rows = sum(manifest["rows"].values())
    assert f"Published {number} tables with {rows:,} rows to " in printed
    with psycopg.connect(postgresql_database) as connection:
        connection.execute("set search_path = main")
        for question in blocks("sql"):
            assert connection.execute(question).fetchall(), question
        undescribed = connection.execute(
            "select table_name from information_schema.views"
            " where table_schema = any(%s) and obj_description("
            "format('%%I.%%I', table_schema, table_name)::regclass) is null",
            [list(SCHEMAS)],
        ).fetchall()
    assert undescribed == []


def test_the_tables_of_the_readme_exist(clone: Path, made: str) -> None:
    named = re.findall(r"^\| (`.+?`(?:, `.+?`)*) \|", README, re.M)
    names = {
        name if "." in name else f"main.{name}"
        for cell in named
        for name in re.findall(r"`([\w.]+)`", cell)
        if name not in ("sample", "platform", "oulad")
    }
    manifest = json.loads((clone / "data/published/manifest.json").read_text())
    assert len(names) >= 10
    assert names <= set(manifest["rows"])


def test_the_columns_of_a_built_sample_are_those_documented(
    clone: Path, made: str
) -> None:
    """The other way round: no table has a column that no YAML file names."""
    manifest = json.loads((clone / "target" / "manifest.json").read_text())
    with duckdb.connect(str(clone / "data/warehouse.duckdb"), read_only=True) as db:
        found = db.execute(
            "select table_schema, table_name, list(column_name)"
            " from information_schema.columns group by all"
        ).fetchall()
    columns = {(schema, name): set(names) for schema, name, names in found}
    wrong = {}
    for node in documented(manifest, "model"):
        actual = columns.get((node["schema"], node["alias"] or node["name"]))
        if actual is not None and actual != set(node["columns"]):
            wrong[node["name"]] = sorted(actual ^ set(node["columns"]))
    assert wrong == {}


def test_the_sql_is_clean(clone: Path, made: str) -> None:
    """sqlfluff compiles with dbt, so it needs the tables of a build."""
    shell(clone, "sqlfluff lint dbt_project --processes 1")


def test_the_unit_tests_of_the_models_pass(clone: Path, made: str) -> None:
    """`make run` leaves them out; they ask the warehouse for the types of columns."""
    printed = shell(clone, "dbt --no-use-colors test --select test_type:unit")
    done = re.search(r"PASS=(\d+) WARN=0 ERROR=0 SKIP=0", printed)
    assert done and int(done[1]) > 70


def test_running_the_steps_again_changes_no_table(clone: Path, made: str) -> None:
    before = tables(clone)
    for command in (
        # Tests change no table; they have been run above.
        "dbt build --quiet --exclude resource_type:unit_test resource_type:test",
        "python -m ml.train",
        "python -m ml.score",
        "dbt run --quiet --select source:ml+",
        "python -m intervene draft",
        "dbt run --quiet --select marts.interventions",
    ):
        shell(clone, command)
    after = tables(clone)
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []


def test_any_day_can_be_scored(clone: Path, made: str) -> None:
    command = next(line for line in commands() if "--as-of" in line)
    day = command.split()[-1]
    shell(clone, command)
    with duckdb.connect(str(clone / "data/warehouse.duckdb"), read_only=True) as db:
        scored = db.execute(
            "select count(*), min(lead_days), max(lead_days), count(distinct lead_days)"
            " from ml.student_scores where as_of_date = ?",
            [day],
        ).fetchone()
        due = db.execute(
            "select count(*) from student_targets"
            " where is_scoring_point and as_of_date = ?",
            [day],
        ).fetchone()
    assert scored is not None and due is not None
    assert scored[0] == due[0] > 0
    assert scored[1] >= 0 and scored[2] <= 28 and scored[3] > 1
    # The flags are then of that day, although a later one was scored before.
    shell(clone, "dbt run --quiet --select source:ml+")
    with duckdb.connect(str(clone / "data/warehouse.duckdb"), read_only=True) as db:
        flagged = db.execute(
            "select distinct cast(as_of_date as varchar), assessment_kind,"
            " engagement_zone is null from flagged_students"
        ).fetchall()
    assert {found for found, *_ in flagged} == {day}
    assert {(kind, unknown) for _, kind, unknown in flagged} == {("exam", False)}


def test_your_own_data_goes_all_the_way(clone: Path, made: str, tmp_path: Path) -> None:
    """Every other command of the README, with real folders for its placeholders."""
    write_platform(tmp_path / "tables", students=400)
    write_oulad(tmp_path / "oulad")
    others = [
        line
        for line in commands()
        if "/path/to" in line or line.split()[0] not in ("make", ".")
    ]
    run_elsewhere = [line for line in others if "/path/to" in line]
    assert len(run_elsewhere) == 2
    for line in run_elsewhere:
        source = re.findall(r"SOURCE_SYSTEM=(\w+)", line)[0]
        folder = tmp_path / ("oulad" if source == "oulad" else "tables")
        line = re.sub(r"/path/to/\w+", str(folder), line)
        # Small trees: how good the model is on made-up data is not asked here.
        settings = {"INCLUDE_ATTRIBUTES": str(source == "oulad")}
        printed = shell(clone, line, **settings, MODEL_N_ESTIMATORS="50")
        assert f"Source {source}, target" in printed
    attributes = [
        name
        for name, *_ in query(clone, "describe student_features_14d")
        if name.startswith("attribute_")
    ]
    assert "attribute_gender" in attributes
    for line in others:
        if "generate.py" in line:
            shell(clone, line)
            assert len(list((clone / "data/bigger").iterdir())) == 12
    tested_above = (
        "generate.py",
        "--as-of",
        "dbt build",
        "ml.train",
        "ml.score",
        "draft",
        "report",
        "review",  # in tests/intervene/test_review_page.py, with a browser
    )
    assert [
        line
        for line in others
        if "/path/to" not in line and not any(part in line for part in tested_above)
    ] == []
