"""Training on Spark, with two executors that are processes of their own."""

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import Window
from pyspark.sql import functions as F
from sklearn.metrics import average_precision_score

from ml import registry
from ml.baselines import logistic_scores, rule_scores
from ml.boosting import plain_matrix
from ml.dataset import KEY, Points, read_points
from ml.dataset import split_points as split_in_memory
from ml.features import encode
from ml.on_spark.boosting import (
    TrainingFailed,
    average_precisions,
    fit,
    wait_for_slots,
)
from ml.on_spark.points import (
    SparkSplit,
    collect_columns,
    encode_training,
    fingerprint_points,
    learn_contract,
    matrix_of,
    split_points,
)
from ml.on_spark.points import read_points as read_points_on_spark
from ml.on_spark.tables import read_rows, replace_rows, stage_rows
from ml.on_spark.train import CODE, run_train_on_spark
from ml.on_spark.training import DRIVER_POINTS, collect_predictions, some_students
from ml.promote import promote
from ml.runs import Report
from ml.score import copy_points, run_score, score_day
from ml.scorer import all_probabilities
from ml.settings import PROJECT_ROOT, UserError
from ml.train import RUN_TABLES
from ml.warehouse import WriteBackError, open_warehouse
from tests.ml.synthetic import AS_OF_DATE, TEST_FROM, write_warehouse
from tests.pipeline import run
from tests.spark.spark_project import (
    SparkProject,
    kill_an_executor,
    make_spark_project,
    write_tables,
)

CANDIDATES = 1
TABLES = (*RUN_TABLES, "ml.model_runs", "ml.student_scores")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkProject]:
    """A warehouse on two executors, before anything was trained."""
    with make_spark_project(tmp_path_factory.mktemp("spark")) as made:
        # A time that pandas has no room for in nanoseconds.
        targets = made.tables.targets
        began = targets["run_started_at"].astype("datetime64[us]")
        is_newest = targets["as_of_date"] == targets["as_of_date"].max()
        targets["run_started_at"] = began.mask(is_newest, pd.Timestamp(1600, 1, 1))
        write_tables(made.spark, made.tables)
        yield made


@pytest.fixture(scope="module")
def report(project: SparkProject) -> Report:
    """What the training of that project had to tell."""
    return run_train_on_spark(project.settings, candidates=CANDIDATES)


@pytest.fixture(scope="module")
def trained(project: SparkProject, report: Report) -> SparkProject:
    """The same warehouse, trained."""
    return project


@pytest.fixture(scope="module")
def split(project: SparkProject) -> SparkSplit:
    """The points of that project, divided."""
    return _split(project)


def _split(project: SparkProject) -> SparkSplit:
    points = read_points_on_spark(project.spark)
    return split_points(points, TEST_FROM, AS_OF_DATE, 14)


def _all_tables(project: SparkProject) -> dict[str, pd.DataFrame]:
    return {
        name: project.rows(f"select * from {name}").pipe(
            lambda rows: rows.sort_values(list(rows.columns), ignore_index=True)
        )
        for name in TABLES
    }


def _in_memory(project: SparkProject) -> Points:
    """The same tables as DuckDB has them."""
    path = project.settings.warehouse_path
    if not path.exists():
        write_warehouse(path, project.tables)
    with open_warehouse(path, read_only=True) as connection:
        return read_points(connection)


def _artifact(project: SparkProject) -> registry.Artifact:
    run_id = project.rows("select run_id from ml.model_runs")["run_id"][0]
    return registry.load_artifact(project.settings.models_path, run_id)


# ---------------------------------------------------------------- dividing


def test_points_are_divided_as_duckdb_divides_them(
    project: SparkProject, split: SparkSplit
) -> None:
    expected = split_in_memory(_in_memory(project), TEST_FROM, AS_OF_DATE, 14)
    assert split.sizes == expected.sizes
    parts = split.points.groupBy("part").count().toPandas()
    counted = dict(zip(parts["part"], parts["count"], strict=True))
    assert counted == pd.Series(expected.part).value_counts().to_dict()
    assert split.has_replay


def test_without_test_from_the_newest_fifth_is_tested(project: SparkProject) -> None:
    points = read_points_on_spark(project.spark)
    expected = split_in_memory(_in_memory(project), None, AS_OF_DATE, 14)
    assert split_points(points, None, AS_OF_DATE, 14).sizes == expected.sizes


def test_a_period_without_a_class_is_refused(project: SparkProject) -> None:
    points = read_points_on_spark(project.spark)
    first = min(project.tables.targets["as_of_date"])
    with pytest.raises(UserError, match="the search period has no point"):
        split_points(points, first, AS_OF_DATE, 14)


# ---------------------------------------------------------------- fingerprint


def test_the_fingerprint_knows_rows_not_their_order(
    project: SparkProject, split: SparkSplit
) -> None:
    shuffled = replace(split, points=split.points.repartition(3).orderBy("student"))
    assert fingerprint_points(shuffled) == fingerprint_points(split)


@pytest.mark.parametrize("change", ["f0 + 1", "f1", "cast(null as double)"])
def test_the_fingerprint_knows_every_value(split: SparkSplit, change: str) -> None:
    one = split.points.agg(F.min("point")).first()[0]
    changed = F.when(F.col("point") == one, F.expr(change)).otherwise(F.col("f0"))
    other = replace(split, points=split.points.withColumn("f0", changed))
    assert fingerprint_points(other) != fingerprint_points(split)


def test_the_fingerprint_knows_which_column_is_null(split: SparkSplit) -> None:
    """Spark's own hash leaves nulls out, so that (null, 1) looks like (1, null)."""
    one, none = F.lit(1.0), F.lit(None).cast("double")
    first = replace(split, points=split.points.withColumns({"f0": one, "f1": none}))
    second = replace(split, points=split.points.withColumns({"f0": none, "f1": one}))
    assert fingerprint_points(first) != fingerprint_points(second)


def test_the_code_of_a_run_is_all_that_makes_a_model_here() -> None:
    modules = {path.stem for path in (PROJECT_ROOT / "ml" / "on_spark").glob("*.py")}
    assert set(CODE) == modules - {"__init__", "score", "tables", "train"}


# ---------------------------------------------------------------- the model


def test_the_model_beats_what_it_has_to_beat(report: Report) -> None:
    assert report.run["status"] == registry.CHAMPION
    assert "beats random, the rule and the course rate" in report.run["status_reason"]
    assert set(report.metrics["split"]) == {"search", "calibration", "test"}


def test_both_engines_score_alike_with_the_artifact(trained: SparkProject) -> None:
    """The same rows: by the executors, and by DuckDB's path on this machine."""
    _in_memory(trained)
    path = trained.settings.warehouse_path
    with open_warehouse(path, read_only=True) as connection:
        points = copy_points(connection, path.parent)
    scored = score_day(_artifact(trained), points, AS_OF_DATE, 14)
    there = trained.rows("select * from ml.student_scores")
    both = (
        scored.scores.read().read_pandas().merge(there, on=KEY, suffixes=("", "_there"))
    )
    assert len(both) == len(there) == scored.scores.rows > 20
    for name in ("risk_score", "confidence"):
        np.testing.assert_allclose(both[name], both[f"{name}_there"], atol=1e-6)
    for name in ("risk_band", "lead_days", "course_run_id", "due_at"):
        assert both[name].tolist() == both[f"{name}_there"].tolist()


def test_duckdb_takes_over_a_model_of_spark(trained: SparkProject) -> None:
    """`python -m ml.promote RUN_ID` and `python -m ml.score` on the other engine."""
    _in_memory(trained)
    settings = trained.settings
    run_id = _artifact(trained).run_id
    assert promote(settings, run_id).champion == run_id
    run_score(settings, None)
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        ours = connection.execute("from ml.student_scores order by risk_rank").df()
        (reason,) = connection.execute(
            "select status_reason from ml.model_runs"
        ).fetchone()
    there = trained.rows("select * from ml.student_scores order by risk_rank")
    np.testing.assert_allclose(ours["risk_score"], there["risk_score"], atol=1e-6)
    assert [ours[name].tolist() for name in KEY[:3]] == [
        there[name].tolist() for name in KEY[:3]
    ]
    assert reason == "Promoted."


def test_the_evaluation_is_of_the_test_period_by_the_same_model(
    trained: SparkProject,
) -> None:
    artifact = _artifact(trained)
    test = split_in_memory(_in_memory(trained), TEST_FROM, AS_OF_DATE, 14).test
    matrix = plain_matrix(encode(test.features, artifact.contract), artifact.contract)
    expected = test.targets[KEY].assign(
        as_of_date=test.targets["as_of_date"].dt.date,
        risk=all_probabilities(artifact, matrix)[:, 0],
        rule=rule_scores(test.features),
        label=test.labels,
    )
    there = trained.rows("select * from ml.evaluation_predictions")
    both = expected.merge(there, on=KEY)
    assert len(both) == len(there) == len(test)
    np.testing.assert_allclose(both["risk"], both["risk_score"], atol=1e-6)
    assert both["rule"].tolist() == both["baseline_rule"].tolist()
    assert both["label"].tolist() == both["at_risk"].tolist()
    assert both["baseline_random"].nunique() > 0.99 * len(both)


def test_the_logistic_regression_is_the_one_of_duckdb(trained: SparkProject) -> None:
    split = split_in_memory(_in_memory(trained), TEST_FROM, AS_OF_DATE, 14)
    expected = split.test.targets[KEY].assign(
        as_of_date=split.test.targets["as_of_date"].dt.date,
        expected=logistic_scores(split.known, split.test),
    )
    there = trained.rows("select * from ml.evaluation_predictions")
    both = expected.merge(there, on=KEY)
    # Medians are approximate, and the solvers stop at different places.
    assert (both["expected"] - both["baseline_logistic"]).abs().max() < 0.02


def test_the_figures_can_be_recomputed_from_the_predictions(
    trained: SparkProject, report: Report
) -> None:
    rows = trained.rows(
        "select at_risk, risk_score from ml.evaluation_predictions where lead_days = 14"
    )
    expected = average_precision_score(rows["at_risk"], rows["risk_score"])
    metrics = report.metrics
    told = metrics[
        (metrics["metric"] == "pr_auc")
        & (metrics["scorer"] == "model")
        & (metrics["segment"] == "all")
        & (metrics["lead_days"] == 14)
    ]
    assert told["value"].item() == pytest.approx(expected, abs=1e-9)


def test_the_search_compares_by_pr_auc(split: SparkSplit) -> None:
    contract = learn_contract(split.known, split.kinds)
    rows = encode_training(split.known, contract, 2)
    model = fit(rows, contract, {"n_estimators": 5, "max_depth": 2}, 2)
    local = rows.toPandas()
    matrix = plain_matrix(matrix_of(local, contract), contract)
    expected = average_precision_score(local["at_risk"], model.predict(matrix))
    found = average_precisions(rows, contract, [model])
    assert found.tolist() == pytest.approx([expected], abs=1e-4)
    rows.unpersist()


def test_every_fold_has_a_failing_student(split: SparkSplit) -> None:
    """Also where the first hash puts all of them into one."""
    contract = learn_contract(split.known, split.kinds)
    everywhere = encode_training(split.known, contract, 2)
    searched = everywhere.where("part = 'search' and at_risk = 1").toPandas()
    # As they are divided where there are many.
    of_first = searched.loc[searched["fold"] == 0, "student"].unique()[:6]
    failing = F.col("student").isin(of_first.tolist()) & (F.col("at_risk") == 1)
    few = split.known.withColumn("at_risk", failing.cast("int"))
    rows = encode_training(few, contract, 2)
    found = rows.where("part = 'search' and at_risk = 1").toPandas()
    assert set(found["student"]) == set(of_first)
    assert set(found["fold"]) == {0, 1, 2}
    assert (rows.toPandas().groupby("student")["fold"].nunique() == 1).all()
    one = few.where(~failing | (F.col("student") == int(of_first[0])))
    with pytest.raises(UserError, match="too few failing students"):
        encode_training(one, contract, 2)
    everywhere.unpersist()
    rows.unpersist()


# ---------------------------------------------------------------- what comes together


def test_figures_are_made_of_points_in_key_order(trained: SparkProject) -> None:
    """However they lie: courses that come first are not first by name."""
    rows = trained.spark.table("ml.evaluation_predictions").limit(200)
    number = F.row_number().over(Window.orderBy("student_id", "as_of_date"))
    course = F.concat(F.lit("c"), 9 - number % 5)
    student = F.concat(F.lit("s"), number % 7)
    rows = rows.withColumns({"course_id": course, "student_id": student})
    found = collect_predictions(rows, 200)[KEY].astype(str)
    assert found["course_id"].nunique() == 5
    pd.testing.assert_frame_equal(found, found.sort_values(KEY, ignore_index=True))


def test_no_feature_is_collected(project: SparkProject, split: SparkSplit) -> None:
    with pytest.raises(ValueError, match="Features stay where they are"):
        collect_columns(split.points.select("point", "f0"), "point")


def test_of_very_many_points_some_students_are_measured(
    project: SparkProject, split: SparkSplit
) -> None:
    rows = split.part("test")
    some = some_students(rows, 10 * DRIVER_POINTS).toPandas()
    whole = rows.toPandas()
    assert 0 < some["student"].nunique() < 0.3 * whole["student"].nunique()
    points = some.groupby("student").size()
    assert (points == whole.groupby("student").size()[points.index]).all()


# ---------------------------------------------------------------- tables


def test_a_second_training_changes_nothing(trained: SparkProject) -> None:
    before = _all_tables(trained)
    run_train_on_spark(trained.settings, candidates=CANDIDATES)
    for name, rows in _all_tables(trained).items():
        pd.testing.assert_frame_equal(rows, before[name])


def test_what_was_not_published_is_not_there_and_is_cleared_away(
    trained: SparkProject,
) -> None:
    spark, name = trained.spark, "ml.feature_importance"
    where = {"run_id": _artifact(trained).run_id}
    before = read_rows(spark, name, where)
    used = Path(
        spark.table(name).where(F.col("run_id") == where["run_id"]).inputFiles()[0]
    )
    # As if the command had been killed here, twice.
    left = [stage_rows(spark, name, before.head(1), where) for _ in range(2)]
    pd.testing.assert_frame_equal(read_rows(spark, name, where), before)
    replace_rows(spark, name, before.head(2), where)
    assert len(read_rows(spark, name, where)) == 2
    versions = Path(left[0].versions.removeprefix("file:"))
    # What somebody may be reading is there, what nobody ever read is not.
    assert used.parent.name in [path.name for path in versions.iterdir()]
    assert len(list(versions.iterdir())) == 2
    replace_rows(spark, name, before, where)
    pd.testing.assert_frame_equal(read_rows(spark, name, where), before)
    assert len(list(versions.iterdir())) == 2


def test_rows_of_other_runs_stay(trained: SparkProject) -> None:
    spark, name = trained.spark, "ml.feature_importance"
    before = read_rows(spark, name, {})
    other = before.head(3).assign(run_id="another")
    replace_rows(spark, name, other, {"run_id": "another"})
    assert len(read_rows(spark, name, {})) == len(before) + 3
    replace_rows(spark, name, other.head(0), {"run_id": "another"})
    pd.testing.assert_frame_equal(read_rows(spark, name, {}), before)


def test_a_table_without_partitions_is_replaced_as_well(
    trained: SparkProject,
) -> None:
    """As dbt may have made it: rows of the others are written again."""
    spark, name = trained.spark, "ml.partial_dependence"
    before = read_rows(spark, name, {})
    spark.sql(f"drop table {name}")
    columns = "run_id string, feature string, place int, value double"
    spark.sql(
        f"create table {name} ({columns}, category string, mean_risk double, rows int)"
        " using parquet"
    )
    for run_id in ("one", "two", "one"):
        rows = before.assign(run_id=run_id)
        replace_rows(spark, name, rows, {"run_id": run_id})
    assert len(read_rows(spark, name, {})) == 2 * len(before)
    replace_rows(spark, name, before, {})
    pd.testing.assert_frame_equal(read_rows(spark, name, {}), before)


def test_a_partition_left_open_is_refused(trained: SparkProject) -> None:
    with pytest.raises(WriteBackError, match="name each in `where`"):
        stage_rows(trained.spark, "ml.feature_importance", pd.DataFrame(), {})


# ---------------------------------------------------------------- losing a worker


class _Killer(logging.Handler):
    """Kills an executor a moment after each of some messages."""

    def __init__(self, project: SparkProject, after: tuple[str, ...]) -> None:
        super().__init__()
        self.project, self.after = project, after
        self.killed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith(self.after):
            self.killed.append(message)
            threading.Timer(3.0, kill_an_executor, [self.project.spark]).start()


def test_a_training_that_loses_executors_finds_the_same_model(
    trained: SparkProject, caplog: pytest.LogCaptureFixture
) -> None:
    before = _all_tables(trained)
    killer = _Killer(trained, ("Searching", "Fitting on"))
    log = logging.getLogger("ml.on_spark")
    log.addHandler(killer)
    with caplog.at_level(logging.INFO, logger="ml.on_spark"):
        run_train_on_spark(trained.settings, force=True, candidates=CANDIDATES)
    log.removeHandler(killer)
    assert len(killer.killed) == 2
    assert "it is begun again" in caplog.text
    for name, rows in _all_tables(trained).items():
        timed = [column for column in rows.columns if column.endswith("_time")]
        pd.testing.assert_frame_equal(
            rows.drop(columns=timed), before[name].drop(columns=timed)
        )


STUMBLES = """
import pyarrow as pa
from ml.on_spark.train import open_for_training
from ml.settings import UserError, load_settings

def stumble(batches):
    for _ in batches:
        raise pa.ArrowInvalid("in a cell:\\nada@example.org")
    yield

try:
    with open_for_training(load_settings(None)) as spark:
        spark.range(1).mapInPandas(stumble, "a int").collect()
except UserError as error:
    print(error)
"""


def test_what_a_worker_stumbles_over_is_named_and_not_shown(tmp_path: Path) -> None:
    local = {"SPARK_MASTER": "local[1]", "SPARK_DRIVER_MEMORY": "1g"}
    warehouse = {"SPARK_WAREHOUSE_PATH": str(tmp_path / "spark")}
    done = run(tmp_path, "python", "-c", STUMBLES, **local, **warehouse)
    assert "(pyarrow.lib.ArrowInvalid)" in done.stdout
    assert "org.apache.spark.api.python.PythonException" in done.stderr
    assert "ada@" not in done.stdout + done.stderr


def test_too_few_workers_are_told_and_nothing_is_written(
    trained: SparkProject,
) -> None:
    before = _all_tables(trained)
    with pytest.raises(TrainingFailed, match="needs as many free task slots"):
        wait_for_slots(trained.spark, 50, seconds=0)
    pd.testing.assert_frame_equal(
        _all_tables(trained)["ml.model_runs"], before["ml.model_runs"]
    )
