"""Scoring on Spark: the rows of DuckDB, and nothing lost when something fails."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F

from ml.dataset import KEY
from ml.on_spark.points import read_scoring_points
from ml.on_spark.score import run_score_on_spark
from ml.on_spark.scoring import STEPS, _ranked, peer_medians, score_on_spark
from ml.on_spark.tables import (
    VERSIONS,
    create_handback_tables,
    read_staged,
    replace_rows,
    select_rows,
    stage_rows,
)
from ml.registry import load_artifact
from ml.score import NoChampion, Summary, run_score
from ml.settings import UserError
from ml.train import run_train
from ml.warehouse import WriteBackError
from tests.ml.synthetic import AS_OF_DATE, Project, make_project
from tests.spark.spark_project import (
    SparkProject,
    executors,
    kill_an_executor,
    make_spark_project,
    write_table,
)

SCORES = ("ml.student_scores", ["run_id", *KEY])
REASONS = ("ml.score_reasons", ["run_id", *KEY, "reason_rank"])


@pytest.fixture(scope="module")
def on_duckdb(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A champion that has scored points of which some values are not known."""
    project = make_project(tmp_path_factory.mktemp("duckdb"))
    run_train(project.settings)
    project.run(
        "update student_features_14d set window_active_days = null,"
        " opened_anything = null, weekday_habit = null where student_id like '%1'"
    )
    run_score(project.settings, None)
    return project


@pytest.fixture(scope="module")
def on_spark(
    on_duckdb: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SparkProject]:
    """The same tables and the same champion on Spark, before anything is scored."""
    folder = tmp_path_factory.mktemp("spark") / "somebody's tables, 50%20 #1 ü"
    with make_spark_project(folder) as project:
        features = on_duckdb.rows("from student_features_14d")
        write_table(project.spark, "student_features_14d", features)
        create_handback_tables(project.spark)
        runs = on_duckdb.rows("from ml.model_runs")
        replace_rows(project.spark, "ml.model_runs", runs, {})
        changed = {"models_path": on_duckdb.settings.models_path}
        settings = project.settings.model_copy(update=changed)
        yield SparkProject(project.spark, settings, project.tables)


@pytest.fixture(scope="module")
def summary(on_spark: SparkProject) -> Summary:
    """What scoring had to tell."""
    return run_score_on_spark(on_spark.settings, None)


def _rows(
    project: Project | SparkProject, table: tuple[str, list[str]]
) -> pd.DataFrame:
    name, key = table
    rows = project.rows(f"select * from {name}")
    rows["as_of_date"] = pd.to_datetime(rows["as_of_date"])
    return rows.sort_values(key, ignore_index=True)[sorted(rows.columns)]


@contextmanager
def _unchanged(on_spark: SparkProject) -> Iterator[list[pd.DataFrame]]:
    """Scores and reasons are the same afterwards; yields what they are."""
    before = [_rows(on_spark, table) for table in (SCORES, REASONS)]
    yield before
    for table, rows in zip((SCORES, REASONS), before, strict=True):
        pd.testing.assert_frame_equal(_rows(on_spark, table), rows)


def _assert_equal(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """To the last bit; only how pandas calls the types may differ."""
    pd.testing.assert_frame_equal(
        one.drop(columns="scored_at", errors="ignore"),
        other.drop(columns="scored_at", errors="ignore"),
        check_dtype=False,
        check_exact=True,
    )


def test_without_a_champion_it_says_so(on_spark: SparkProject) -> None:
    other = {"target_definition": "assessment_missed"}
    built = on_spark.spark.table("main.pipeline_settings").drop("target_definition")
    kept = on_spark.spark.table("main.pipeline_settings").collect()
    changed = built.withColumn("target_definition", F.lit("assessment_missed"))
    changed.localCheckpoint().write.mode("overwrite").saveAsTable(
        "main.pipeline_settings"
    )
    with pytest.raises(NoChampion, match=r"python -m ml\.train"):
        run_score_on_spark(on_spark.settings.model_copy(update=other), None)
    on_spark.spark.createDataFrame(kept).write.mode("overwrite").saveAsTable(
        "main.pipeline_settings"
    )


def test_scores_and_reasons_are_those_of_duckdb(
    on_duckdb: Project, on_spark: SparkProject, summary: Summary
) -> None:
    for table in (SCORES, REASONS):
        expected = _rows(on_duckdb, table)
        assert len(expected) > 30
        _assert_equal(_rows(on_spark, table), expected)
    bands = _rows(on_duckdb, SCORES)["risk_band"].value_counts()
    assert summary.bands == bands.to_dict()
    assert str(summary).startswith(f"{bands.sum()} scores as of {AS_OF_DATE} by ")


def test_scoring_again_changes_nothing_and_keeps_the_times(
    on_spark: SparkProject, summary: Summary
) -> None:
    with _unchanged(on_spark):
        run_score_on_spark(on_spark.settings, AS_OF_DATE)


def test_rows_of_other_runs_and_days_stay(
    on_spark: SparkProject, summary: Summary
) -> None:
    scores = on_spark.spark.table("ml.student_scores").limit(3)
    day = F.lit("2023-12-01").cast("date")
    where = {"run_id": "another", "as_of_date": pd.Timestamp("2023-12-01").date()}
    others = scores.withColumns({"run_id": F.lit("another"), "as_of_date": day})
    replace_rows(on_spark.spark, "ml.student_scores", others, where)
    run_score_on_spark(on_spark.settings, None)
    runs = on_spark.rows(
        "select run_id, count(*) as n from ml.student_scores group by 1"
    )
    assert dict(zip(runs["run_id"], runs["n"], strict=True))["another"] == 3


def test_what_is_not_published_is_seen_by_nobody(
    on_spark: SparkProject, summary: Summary
) -> None:
    """A command that is killed has at most come so far."""
    with _unchanged(on_spark):
        artifact = load_artifact(on_spark.settings.models_path, summary.run_id)
        points = read_scoring_points(on_spark.spark)
        half = replace(points, frame=points.frame.where("student_id like '%1'"))
        staged = score_on_spark(on_spark.spark, artifact, half, AS_OF_DATE, 14)
        waiting = read_staged(on_spark.spark, staged[1]).count()
        assert 0 < waiting < sum(summary.bands.values())


def test_a_lost_executor_changes_nothing(
    on_spark: SparkProject, summary: Summary
) -> None:
    with _unchanged(on_spark):
        there = set(executors(on_spark.spark))
        killer = threading.Timer(1.0, kill_an_executor, [on_spark.spark])
        killer.start()
        run_score_on_spark(on_spark.settings, None)
        assert not killer.is_alive()
        assert there - set(executors(on_spark.spark))


def test_a_scoring_that_fails_leaves_the_old_rows(
    on_spark: SparkProject, summary: Summary
) -> None:
    with _unchanged(on_spark):
        features = on_spark.spark.table("main.student_features_14d").toPandas()
        write_table(on_spark.spark, "student_features_14d", features.iloc[:-2000])
        try:
            with pytest.raises(
                UserError, match=r"points of student_targets have no row"
            ):
                run_score_on_spark(on_spark.settings, None)
        finally:
            write_table(on_spark.spark, "student_features_14d", features)


def test_rows_of_another_day_are_refused(
    on_spark: SparkProject, summary: Summary
) -> None:
    """A build that was ended has features of one day and settings of another."""
    with _unchanged(on_spark) as before:
        artifact = load_artifact(on_spark.settings.models_path, summary.run_id)
        points = read_scoring_points(on_spark.spark)
        day = pd.Timestamp("2024-01-14").date()
        rows = rf"{len(before[1])} rows lie outside .*as_of_date = 2024-01-14"
        with pytest.raises(WriteBackError, match=rows):
            score_on_spark(on_spark.spark, artifact, points, day, 14)


def test_a_point_that_is_there_twice_is_refused(
    on_spark: SparkProject, summary: Summary
) -> None:
    spark, name = on_spark.spark, "ml.student_scores"
    where = {"run_id": summary.run_id, "as_of_date": AS_OF_DATE}
    scores = select_rows(spark, name, where)
    with pytest.raises(WriteBackError, match=r"3 rows repeat a key \(run_id, .*\)"):
        stage_rows(spark, name, scores.unionByName(scores.limit(3)), where)
    without = scores.withColumn("student_id", F.lit(None).cast("string"))
    with pytest.raises(WriteBackError, match="rows have no key"):
        stage_rows(spark, name, without, where)


def test_every_table_lies_in_the_folder_of_the_warehouse(
    on_spark: SparkProject, summary: Summary
) -> None:
    """Whatever characters its name has."""
    folder = Path(on_spark.settings.spark_warehouse_path)
    assert [path.name for path in folder.parent.parent.iterdir()] == [
        folder.parent.name
    ]
    for name in ("model_runs", "student_scores", "score_reasons"):
        assert list((folder / "tables" / "ml.db" / VERSIONS / name).rglob("*.parquet"))


def test_ranks_run_through_all_ranges_and_ties_are_broken(
    on_spark: SparkProject,
) -> None:
    random = np.random.default_rng(5)
    rows = pd.DataFrame(
        {
            "risk_score": np.round(random.random(500), 2),
            "missed": random.integers(-1, 3, 500).astype(float),
            **dict.fromkeys(KEY, "x"),
            "student_id": [f"s{n:03}" for n in random.permutation(500)],
        }
    )
    rows.loc[:20, "risk_score"] = rows.loc[:20, "risk_score"] + 0.1 / STEPS
    order = ["risk_score", "missed", "student_id"]
    expected = rows.sort_values(order, ascending=[False, False, True])["student_id"]
    ranked = _ranked(on_spark.spark.createDataFrame(rows)).toPandas()
    found = ranked.sort_values("risk_rank")
    assert found["risk_rank"].tolist() == list(range(1, 501))
    assert found["student_id"].tolist() == expected.tolist()


def test_the_middle_value_is_that_of_pandas(on_spark: SparkProject) -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "feature_odd": random.normal(size=101).round(1),
            "feature_even": [*random.normal(size=100), np.nan],
            "feature_unknown": [np.nan] * 101,
        }
    )
    rows = on_spark.spark.createDataFrame(frame)
    rows = rows.select(*(F.nanvl(n, F.lit(None)).alias(n) for n in frame.columns))
    kinds = dict.fromkeys(("odd", "even", "unknown"), "number") | {"text": "category"}
    found = peer_medians(rows, kinds)
    assert found["odd"] == frame["feature_odd"].median()
    assert found["even"] == frame["feature_even"].median()
    assert math.isnan(found["unknown"]) and math.isnan(found["text"])
