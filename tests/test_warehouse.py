"""The warehouse: opened with clear words, written whole or not at all."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import yaml
from dbt.adapters.duckdb.credentials import DuckDBCredentials
from dbt.adapters.duckdb.environments import Environment
from dbt_common.exceptions import DbtRuntimeError

from ml.settings import PROJECT_ROOT, Settings
from ml.warehouse import (
    HANDBACK_DDL,
    SettingsMismatch,
    WarehouseLocked,
    WarehouseMissing,
    WriteBackError,
    check_pipeline_settings,
    create_handback_tables,
    handback_tables,
    open_warehouse,
    read_rows,
    replace_rows,
    transaction,
)

HOLD = """
import duckdb, sys, time
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""
CURVE = "ml.calibration_curve"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty warehouse."""
    path = tmp_path / "warehouse.duckdb"
    duckdb.connect(str(path)).close()
    return path


@pytest.fixture
def connection(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An open warehouse with the hand-back tables."""
    with open_warehouse(path) as connection:
        create_handback_tables(connection, "ml")
        yield connection


def _curve(run_id: str = "r1", bins: int = 2, rate: float = 0.5) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "bin": range(1, bins + 1),
            "observed_rate": rate,
            "run_id": run_id,
            "split": "test",
            "lead_days": 14,
            "segment": "all",
            "mean_predicted": 0.4,
            "ci_low": 0.1,
            "ci_high": None,
            "rows": 10,
        }
    )


def _hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


# ---------------------------------------------------------------- opening


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with (
        pytest.raises(WarehouseMissing, match="dbt build"),
        open_warehouse(tmp_path / "nothing.duckdb"),
    ):
        pass
    assert not (tmp_path / "nothing.duckdb").exists()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_lock_tells_who_holds_it_and_what_to_do(path: Path, read_only: bool) -> None:
    process = _hold(path, 60)
    try:
        with (
            pytest.raises(WarehouseLocked) as error,
            open_warehouse(path, read_only=read_only, wait_seconds=0),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    message = str(error.value)
    assert f"process {process.pid}" in message
    assert str(path) in message
    assert "run this command again" in message
    if sys.platform == "linux":
        assert Path(sys.executable).name in message


def test_a_short_lock_is_waited_for(path: Path) -> None:
    process = _hold(path, 1)
    with open_warehouse(path, wait_seconds=30) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    process.wait()


def test_the_file_is_closed_after_an_error(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_warehouse(path):
        raise ZeroDivisionError
    process = _hold(path, 0)
    assert process.wait() == 0


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int, str]:
    """Limits in the environment, as DuckDB tells them."""
    monkeypatch.setenv("WAREHOUSE_MEMORY_LIMIT", "1GiB")
    monkeypatch.setenv("WAREHOUSE_THREADS", "1")
    monkeypatch.setenv("WAREHOUSE_TEMP_PATH", str(tmp_path / "spilled"))
    return ("1.0 GiB", 1, str(tmp_path / "spilled"))


LIMITS = (
    "select current_setting('memory_limit'), current_setting('threads'),"
    " current_setting('temp_directory')"
)


def test_python_opens_it_within_the_limits(
    path: Path, limits: tuple[str, int, str]
) -> None:
    with open_warehouse(path) as connection:
        assert connection.execute(LIMITS).fetchone() == limits


def test_dbt_opens_it_within_the_limits(
    path: Path, limits: tuple[str, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = yaml.safe_load((PROJECT_ROOT / "profiles.yml").read_text())
    profile = output["student_success"]["outputs"]["dev"] | {"path": str(path)}
    profile = {k: v for k, v in profile.items() if k not in ("type", "threads")}
    credentials = DuckDBCredentials.from_dict(profile)
    plugins = Environment.initialize_plugins(credentials)
    with Environment.initialize_db(credentials, plugins) as connection:
        assert connection.execute(LIMITS).fetchone() == limits
    monkeypatch.setenv("WAREHOUSE_THREADS", "many")
    with pytest.raises(DbtRuntimeError, match="WAREHOUSE_THREADS='many'"):
        Environment.initialize_db(credentials, plugins)


# ---------------------------------------------------------------- writing


def test_the_ddl_makes_every_table_with_types_and_key(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    create_handback_tables(connection, "intervene")
    for source in ("ml", "intervene"):
        for table in handback_tables(source).values():
            made = connection.execute(f"describe {table.full_name}").fetchall()
            found = {row[0]: row[1].lower() for row in made}
            assert found == table.columns
            assert set(table.key) <= set(table.columns)
            assert table.arrow_schema.names == list(table.columns)


def test_the_ddl_states_every_column_once() -> None:
    document = yaml.safe_load(HANDBACK_DDL.read_text(encoding="utf-8"))
    for source in document["sources"]:
        for table in source["tables"]:
            names = [column["name"] for column in table["columns"]]
            assert len(names) == len(set(names)), table["name"]


def test_rows_are_replaced_where_they_match_and_nowhere_else(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    replace_rows(connection, CURVE, _curve("r1", 3), {"run_id": "r1"})
    replace_rows(connection, CURVE, _curve("r2"), {"run_id": "r2"})
    replace_rows(connection, CURVE, _curve("r1", 2, 0.9), {"run_id": "r1"})
    first = read_rows(connection, CURVE, {"run_id": "r1"})
    assert first["observed_rate"].tolist() == [0.9, 0.9]
    assert first["bin"].tolist() == [1, 2]
    assert first["ci_high"].isna().all()
    assert len(read_rows(connection, CURVE, {"run_id": "r2"})) == 2


def test_writing_twice_gives_the_same_rows(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    for _ in range(2):
        replace_rows(connection, CURVE, _curve(), {"run_id": "r1"})
    assert len(read_rows(connection, CURVE, {})) == 2


@pytest.mark.parametrize(
    ("frame", "where", "message"),
    [
        (pd.concat([_curve(), _curve()]), {"run_id": "r1"}, "2 rows repeat a key"),
        (
            _curve().drop(columns="rows"),
            {"run_id": "r1"},
            r"missing columns \['rows'\]",
        ),
        (_curve().assign(extra=1), {"run_id": "r1"}, r"unknown columns \['extra'\]"),
        (_curve().assign(rows="ten"), {"run_id": "r1"}, "wrong type"),
        (_curve().assign(rows=1.5), {"run_id": "r1"}, "wrong type"),
        (_curve().assign(run_id=1), {"run_id": 1}, "wrong type"),
        (_curve().assign(bin=[1, None]), {"run_id": "r1"}, "hold nulls"),
        (_curve("r2"), {"run_id": "r1"}, "2 rows lie outside run_id = r1"),
        (_curve(), {"colour": "red"}, "no column colour"),
    ],
)
def test_a_frame_that_does_not_fit_deletes_nothing(
    connection: duckdb.DuckDBPyConnection,
    frame: pd.DataFrame,
    where: dict[str, object],
    message: str,
) -> None:
    replace_rows(connection, CURVE, _curve(), {"run_id": "r1"})
    with pytest.raises(WriteBackError, match=message):
        replace_rows(connection, CURVE, frame, where)
    assert len(read_rows(connection, CURVE, {})) == 2


def test_a_key_that_other_rows_have_is_refused(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    replace_rows(connection, CURVE, _curve(), {"rows": 10})
    clash = _curve().assign(rows=11)
    with pytest.raises(WriteBackError, match="would be there twice"):
        replace_rows(connection, CURVE, clash, {"rows": 11})


def test_a_transaction_happens_whole_or_not_at_all(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    with pytest.raises(WriteBackError), transaction(connection):
        replace_rows(connection, CURVE, _curve("r1"), {"run_id": "r1"})
        replace_rows(connection, CURVE, _curve("r2"), {"run_id": "r1"})
    assert read_rows(connection, CURVE, {}).empty
    with transaction(connection):
        replace_rows(connection, CURVE, _curve("r1"), {"run_id": "r1"})
    assert len(read_rows(connection, CURVE, {})) == 2


def test_a_reader_in_this_process_does_not_stop_a_second_one(path: Path) -> None:
    seen = []

    def read() -> None:
        with open_warehouse(path, read_only=True) as connection:
            seen.append(connection.execute("select 1").fetchone())
            time.sleep(0.2)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(1,), (1,)]


# ---------------------------------------------------------------- settings


BUILT = (
    "create table main.pipeline_settings as select 'sample' as source_system,"
    " '' as data_raw_path, 'course_repurchased' as target_definition,"
    " 14 as observation_window_days, '28,21,14,7' as prediction_leads,"
    " false as include_attributes, date '2024-01-15' as as_of_date,"
    " date '2024-01-14' as data_until"
)


def _settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)


def test_settings_that_agree_pass(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(BUILT)
    built = check_pipeline_settings(connection, _settings())
    assert built.as_of_date == date(2024, 1, 15)
    check_pipeline_settings(connection, _settings(as_of_date="2024-01-15"))


def test_every_difference_is_named(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(BUILT)
    changes: dict[str, object] = {
        "source_system": "platform",
        "data_raw_path": "raw",
        "target_definition": "assessment_missed",
        "observation_window_days": 7,
        "prediction_leads": "14",
        "include_attributes": "true",
        "as_of_date": "2024-02-01",
    }
    with pytest.raises(SettingsMismatch) as error:
        check_pipeline_settings(connection, _settings(**changes))
    for name in changes:
        assert name.upper() in str(error.value)
    assert "dbt build" in str(error.value)


def test_a_warehouse_without_a_build_says_what_to_run(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    with pytest.raises(WarehouseMissing, match="pipeline_settings"):
        check_pipeline_settings(connection, _settings())
