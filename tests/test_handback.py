"""What happens to tables at the start of a dbt run, before anything is built."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import yaml
from dbt.cli.main import dbtRunner, dbtRunnerResult

from ml.settings import PROJECT_ROOT

DDL = PROJECT_ROOT / "dbt_project" / "models" / "marts" / "_handback__sources.yml"
INCREMENTAL = "intermediate.int_daily_activity"
Run = Callable[[str], dbtRunnerResult]


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory):
    """The project, parsed once."""
    scratch = tmp_path_factory.mktemp("parse")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT_ROOT)
        patch.setenv("SOURCE_SYSTEM", "oulad")
        patch.setenv("DATA_RAW_PATH", "here")
        patch.setenv("WAREHOUSE_PATH", str(scratch / "warehouse.duckdb"))
        places = ["--target-path", str(scratch), "--log-path", str(scratch)]
        result = dbtRunner().invoke(["--quiet", "parse", *places])
    assert result.success, result.exception
    return result.result


@pytest.fixture
def run(manifest, warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one macro on the scratch warehouse, as SOURCE_SYSTEM=oulad from `here`."""
    monkeypatch.chdir(PROJECT_ROOT)
    monkeypatch.setenv("SOURCE_SYSTEM", "oulad")
    monkeypatch.setenv("DATA_RAW_PATH", "here")
    monkeypatch.setenv("WAREHOUSE_PATH", str(warehouse))
    folder = str(warehouse.parent)
    places = ["--target-path", folder, "--log-path", folder]

    def run_macro(macro: str) -> dbtRunnerResult:
        command = ["--quiet", "run-operation", macro, *places]
        return dbtRunner(manifest=manifest).invoke(command)

    return run_macro


def execute(warehouse: Path, *statements: str) -> list[tuple]:
    with duckdb.connect(str(warehouse)) as connection:
        for statement in statements[:-1]:
            connection.execute(statement)
        return connection.execute(statements[-1]).fetchall()


def declared() -> dict[str, dict[str, str]]:
    document = yaml.safe_load(DDL.read_text(encoding="utf-8"))
    return {
        f"{source['schema']}.{table['name']}": {
            column["name"]: column["data_type"].upper() for column in table["columns"]
        }
        for source in document["sources"]
        for table in source["tables"]
    }


# ---------------------------------------------------------------- hand-back tables


def test_tables_are_created_empty_and_once(run: Run, warehouse: Path):
    assert run("create_handback_tables").success
    execute(warehouse, "insert into ml.model_runs (run_id) values ('kept')")
    assert run("create_handback_tables").success

    found: dict[str, dict[str, str]] = {}
    for table, column, kind in execute(
        warehouse,
        "select table_schema || '.' || table_name, column_name, data_type"
        " from information_schema.columns order by ordinal_position",
    ):
        found.setdefault(table, {})[column] = kind
    assert found == declared()
    assert execute(warehouse, "select run_id from ml.model_runs") == [("kept",)]


def test_an_older_table_gets_the_columns_it_lacks(run: Run, warehouse: Path):
    execute(
        warehouse,
        "create schema ml",
        "create table ml.feature_importance as select 'kept' as run_id",
        # The last one of all: nothing after it commits by chance.
        "create schema intervene",
        "create table intervene.message_events as select 'kept' as message_id",
    )

    assert run("create_handback_tables").success

    assert execute(
        warehouse,
        "select run_id, gain from ml.feature_importance union all"
        " select message_id, sequence from intervene.message_events",
    ) == [("kept", None), ("kept", None)]


def test_columns_of_another_type_are_told_all_at_once(run: Run, warehouse: Path):
    execute(
        warehouse,
        "create schema ml",
        "create table ml.feature_importance as select 1 as run_id, 'high' as gain",
    )

    result = run("create_handback_tables")

    assert not result.success
    told = (warehouse.parent / "dbt.log").read_text(encoding="utf-8")
    assert '"feature_importance".run_id is integer, expected varchar' in told
    assert '"feature_importance".gain is varchar, expected double' in told
    assert "drop the table" in told


# ---------------------------------------------------------------- another source


def prepare(warehouse: Path, record: str | None) -> None:
    execute(
        warehouse,
        "create schema intermediate",
        f"create table {INCREMENTAL} as select 1 as from_the_last_build",
    )
    if record:
        execute(warehouse, f"create table pipeline_settings as {record}")


def tables_left(warehouse: Path) -> set[str]:
    return {
        name
        for (name,) in execute(
            warehouse, "select table_name from information_schema.tables"
        )
    }


@pytest.mark.parametrize(
    "record",
    [
        "select 'platform' as source_system, 'here' as data_raw_path",
        "select 'oulad' as source_system, 'there' as data_raw_path",
        "select 'oulad' as source_system, cast(null as varchar) as data_raw_path",
        # A build that was cut off leaves no record: it may have been any source's.
        None,
    ],
)
def test_rows_of_another_source_are_forgotten(run: Run, warehouse: Path, record):
    prepare(warehouse, record)

    assert run("drop_outdated_tables").success

    assert tables_left(warehouse) == set()


def test_a_record_that_says_too_little_makes_all_anew(run: Run, warehouse: Path):
    """Of an older version. That rows are kept otherwise is in test_incremental.py."""
    prepare(
        warehouse, "select 'oulad' as source_system, 'here' as data_raw_path, 14 as w"
    )

    assert run("drop_outdated_tables").success

    assert tables_left(warehouse) == set()
