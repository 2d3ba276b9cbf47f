"""Scoring beside XGBoost's bare prediction, in a process of its own.

    python -m tests.bench.scoring_task enlarge WAREHOUSE FOLDER ROWS
    python -m tests.bench.scoring_task measure WAREHOUSE MODELS

The first copies into FOLDER what scoring reads of a warehouse, with ROWS scoring
points; the second scores them and prints, as JSON, what that took.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import xgboost as xgb

from ml.boosting import contributions, margins, plain_matrix
from ml.dataset import KEY, feature_column, feature_kinds, scoring_points_query
from ml.features import encode
from ml.registry import Artifact, load_artifact
from ml.score import run_score
from ml.settings import Settings
from ml.warehouse import open_warehouse, read_pipeline_settings
from tests.bench.search_task import peak_memory

# Taken over as they are; without rows of earlier scores.
SETTLED = ("main.pipeline_settings", "ml.model_runs")


def enlarge(warehouse: Path, folder: Path, rows: int) -> Path:
    """Points of other days under new names of students, as points of the day."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "warehouse.duckdb"
    key = ", ".join(KEY)
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"attach '{warehouse}' as small (read_only)")
        connection.execute("create schema ml")
        for table in SETTLED:
            connection.execute(f"create table {table} as from small.{table}")
        connection.execute(
            f"create temp table points as select *, row_number() over (order by {key})"
            f" - 1 as place from (select {key} from small.main.student_features_14d)"
        )
        connection.execute(
            "create temp table drawn as select points.* exclude place,"
            " left(md5(cast(number as varchar)), 6) || '-' || number as new_id"
            f" from range({rows}) as numbers (number) inner join points on"
            " points.place = number % (select count(*) from points)"
        )
        day = "(select as_of_date from main.pipeline_settings) as as_of_date"
        renamed = f"drawn.new_id as student_id, {day}"
        flags = ", true as is_scoring_point, false as is_training_point"
        for table, replaced in (
            ("student_features_14d", renamed),
            ("student_targets", renamed + flags),
        ):
            connection.execute(
                f"create table main.{table} as select rows.* replace ({replaced})"
                f" from drawn inner join small.main.{table} as rows using ({key})"
            )
    return path


def measure(warehouse: Path, models: Path) -> dict[str, Any]:
    """Seconds of scoring, from open to written, and of the bare prediction.

    `peak` is above what the imports took. Each is measured twice, in turns, and the
    rows of the first scoring are gone before the second.
    """
    settings = _settings_of(warehouse, models)
    imported = peak_memory()
    runs = [_timed(lambda: run_score(settings, None))]
    peak = peak_memory()
    artifact = load_artifact(models, _champion(warehouse))
    matrix = _matrix(warehouse, artifact)
    bare = [_timed(lambda: _predict(artifact, matrix))]
    with open_warehouse(warehouse) as connection:
        connection.execute("delete from ml.student_scores")
        connection.execute("delete from ml.score_reasons")
    runs.append(_timed(lambda: run_score(settings, None)))
    bare.append(_timed(lambda: _predict(artifact, matrix)))
    seconds, bare_seconds = (sum(one["seconds"] for one in n) / 2 for n in (runs, bare))
    return {
        "rows": matrix.num_row(),
        "features": matrix.num_col(),
        "trees": artifact.parameters["n_estimators"],
        "depth": artifact.parameters["max_depth"],
        "seconds": seconds,
        "bare_seconds": bare_seconds,
        "ratio": seconds / bare_seconds,
        "cpu_ratio": sum(r["cpu"] for r in runs) / sum(b["cpu"] for b in bare),
        "peak": None if peak is None or imported is None else peak - imported,
        "runs": runs,
        "bare": bare,
    }


def _timed(work: Any) -> dict[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
    }


def _predict(artifact: Artifact, matrix: xgb.DMatrix) -> None:
    margins(artifact.model, matrix)
    contributions(artifact.model, matrix)


def _matrix(warehouse: Path, artifact: Artifact) -> xgb.DMatrix:
    """The matrix of all scoring points at once."""
    names = artifact.contract.names
    with open_warehouse(warehouse, read_only=True) as connection:
        query = scoring_points_query(KEY, feature_kinds(connection))
        points: pa.Table = connection.execute(query).to_arrow_table()
    features = points.select([feature_column(name) for name in names])
    rows = encode(features.rename_columns(names).to_pandas(), artifact.contract)
    return plain_matrix(rows, artifact.contract)


def _champion(warehouse: Path) -> str:
    with open_warehouse(warehouse, read_only=True) as connection:
        ((run_id,),) = connection.execute(
            "select run_id from ml.model_runs where status = 'champion'"
        ).fetchall()
    return str(run_id)


def _settings_of(warehouse: Path, models: Path) -> Settings:
    """Settings under which the warehouse was built, whatever the environment says."""
    with open_warehouse(warehouse, read_only=True) as connection:
        built = read_pipeline_settings(connection)
    leads = tuple(int(lead) for lead in built.prediction_leads.split(","))
    return Settings(
        _env_file=None,
        warehouse_path=warehouse,
        models_path=models,
        source_system=built.source_system,
        data_raw_path=built.data_raw_path,
        target_definition=built.target_definition,
        observation_window_days=built.observation_window_days,
        prediction_leads=leads,
        include_attributes=built.include_attributes,
        as_of_date=built.as_of_date,
    )


if __name__ == "__main__":
    task, place, other, *number = sys.argv[1:]
    if task == "enlarge":
        print(enlarge(Path(place), Path(other), int(number[0])))
    else:
        print(json.dumps(measure(Path(place), Path(other))))
