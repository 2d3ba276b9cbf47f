"""XGBoost over Spark's executors, and what becomes of it when one of them dies.

Each fit is one barrier job: all workers run at the same time and add up their
histograms. Spark does not repeat such a job when an executor is lost; here it is begun
again, on the same rows in the same order, so that the same model comes of it.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.metrics import average_precision_score
from xgboost.collective import Config
from xgboost.spark import SparkXGBClassifier

from ml.boosting import BINS, SEARCH_BINS, SEED, plain_matrix
from ml.dataset import FOLDS
from ml.features import FeatureContract
from ml.on_spark.points import FRAMES, feature_columns, matrix_of
from ml.search import Fit, SearchResult, choose_best, sample_candidates
from ml.settings import UserError

ATTEMPTS = 4
# How long to wait for executors that come back, or for those that never came.
SLOT_WAIT_SECONDS = 120.0
# Seconds in which a worker has to answer the others; a dead one is noticed at once.
COLLECTIVE_TIMEOUT = 300
# Scores are compared in so many steps of probability: enough to tell two candidates
# apart, and few enough to be counted on the driver whatever the number of points.
SCORE_STEPS = 2**16

log = logging.getLogger(__name__)
# They tell every parameter of every fit, and every connection.
for name in ("XGBoost-PySpark", "py4j"):
    logging.getLogger(name).setLevel(logging.WARNING)


class TrainingFailed(UserError):
    """Spark could not finish a fit; no table was changed."""


# ---------------------------------------------------------------- fitting


def fit(
    rows: DataFrame,
    contract: FeatureContract,
    parameters: dict[str, Any],
    workers: int,
    bins: int = BINS,
) -> xgb.Booster:
    """Train one model on rows of `encode_training`, on `workers` tasks at a time.

    Raises
    ------
    TrainingFailed
        Executors were lost again and again, or there are too few of them.
    """
    spark = rows.sparkSession
    for attempt in range(1, ATTEMPTS + 1):
        wait_for_slots(spark, workers)
        try:
            return _fit_once(rows, contract, parameters, workers, bins)
        except (Py4JError, PySparkException) as error:
            if attempt == ATTEMPTS or not is_alive(spark):
                raise TrainingFailed(_describe_failure(error, attempt)) from error
            log.warning(
                "A fit failed, most likely because a worker was lost; it is begun "
                "again (%s of %s): %s",
                attempt + 1,
                ATTEMPTS,
                first_line(error),
            )
    raise AssertionError("unreachable")


def _fit_once(
    rows: DataFrame,
    contract: FeatureContract,
    parameters: dict[str, Any],
    workers: int,
    bins: int,
) -> xgb.Booster:
    # What FIXED of ml.boosting says: the objective is a classifier's own, the threads
    # of a task are spark.task.cpus.
    estimator: Any = SparkXGBClassifier
    model = estimator(
        features_col=feature_columns(contract.kinds),
        label_col="at_risk",
        num_workers=workers,
        feature_names=contract.names,
        feature_types=contract.xgboost_types,
        random_state=SEED,
        max_bin=bins,
        # Nobody looks at the loss of each round.
        disable_default_eval_metric=True,
        # A new one for each attempt, beside the first worker.
        launch_tracker_on_driver=False,
        coll_cfg=Config(timeout=COLLECTIVE_TIMEOUT),
        tree_method="hist",
        verbosity=0,
        **parameters,
    ).fit(rows)
    # As an artifact holds it: without what the estimator keeps beside it.
    return xgb.Booster(model_file=model.get_booster().save_raw("ubj"))


def slots(spark: SparkSession) -> int:
    """Tasks that Spark can run at the same time, now."""
    context = spark.sparkContext._jsc.sc()
    profile = context.resourceProfileManager().resourceProfileFromId(0)
    return int(context.maxNumConcurrentTasks(profile))


def wait_for_slots(
    spark: SparkSession, workers: int, seconds: float = SLOT_WAIT_SECONDS
) -> None:
    """Wait until all workers can run at the same time.

    Raises
    ------
    TrainingFailed
        They could not within `seconds`.
    """
    # In local mode nobody joins later.
    deadline = time.monotonic() + (0 if is_local(spark) else seconds)
    while (found := slots(spark)) < workers:
        if time.monotonic() >= deadline:
            raise TrainingFailed(
                f"Training with {workers} workers needs as many free task slots, and "
                f"Spark has {found}. Give it more cores or executors (SPARK_MASTER), "
                "or run again with fewer --workers. No table was changed."
            )
        time.sleep(1)


def is_local(spark: SparkSession) -> bool:
    """Whether driver and executor are one process."""
    return bool(spark.sparkContext._jsc.sc().isLocal())


def is_alive(spark: SparkSession) -> bool:
    """Whether Spark's driver still runs jobs."""
    try:
        return not spark.sparkContext._jsc.sc().isStopped()
    except (Py4JError, OSError):
        return False


def first_line(error: Exception) -> str:
    """What an error of Spark begins with, and the kind of Python's error inside.

    Not what that says: it may hold a student's value.
    """
    java = getattr(error, "java_exception", None)
    text = str(java.getMessage() if java is not None else error)
    first = next((line for line in text.splitlines() if line.strip()), "")
    kinds = re.findall(
        r"^((?:\w+\.)+[A-Z]\w+|\w+(?:Error|Exception|Interrupt)):", text, re.M
    )
    return f"{first} ({kinds[-1]})" if kinds else first


def _describe_failure(error: Exception, attempts: int) -> str:
    return (
        f"Spark could not finish a fit in {attempts} attempts: {first_line(error)}\n"
        "No table was changed. See to the executors (their logs say why they ended; "
        "often memory), and run the command again."
    )


# ---------------------------------------------------------------- searching


def run_search(
    rows: DataFrame,
    contract: FeatureContract,
    fixed: dict[str, float],
    candidates: int,
    workers: int,
    on_fit: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Fit every candidate on every fold and keep the best.

    As in `ml.search`, at coarse resolution; missing values stay missing. Where Spark
    has slots for several fits they run side by side.
    """
    drawn = sample_candidates(fixed, candidates)
    with ThreadPoolExecutor(max(1, slots(rows.sparkSession) // workers)) as pool:
        fits = [
            _search_fold(rows, contract, drawn, number, workers, on_fit, pool)
            for number in range(FOLDS)
        ]
    return choose_best(drawn, fits)


def _search_fold(
    rows: DataFrame,
    contract: FeatureContract,
    drawn: list[dict[str, Any]],
    fold: int,
    workers: int,
    on_fit: Callable[[], None],
    pool: ThreadPoolExecutor,
) -> list[Fit]:
    others = rows.where(F.col("fold") != fold)

    def fit_one(candidate: dict[str, Any]) -> tuple[xgb.Booster, float]:
        started = time.perf_counter()
        model = fit(others, contract, candidate, workers, SEARCH_BINS)
        on_fit()
        return model, time.perf_counter() - started

    fitted = list(pool.map(fit_one, drawn))
    started = time.perf_counter()
    held_out = rows.where(F.col("fold") == fold)
    scores = average_precisions(held_out, contract, [model for model, _ in fitted])
    seconds = (time.perf_counter() - started) / len(drawn)
    return [
        Fit(float(score), fit_seconds, seconds)
        for score, (_, fit_seconds) in zip(scores, fitted, strict=True)
    ]


def fit_folds(
    rows: DataFrame,
    contract: FeatureContract,
    parameters: dict[str, Any],
    workers: int,
) -> list[xgb.Booster]:
    """The models of the folds for the chosen parameters, at full resolution."""
    return [
        fit(rows.where(F.col("fold") != fold), contract, parameters, workers)
        for fold in range(FOLDS)
    ]


def average_precisions(
    rows: DataFrame, contract: FeatureContract, models: list[xgb.Booster]
) -> np.ndarray:
    """PR-AUC of several models on the same rows, from counts per step of the score."""
    counted = (
        rows.mapInPandas(
            _tally(contract, models), "model int, step int, failing int, points long"
        )
        .groupBy("model", "step", "failing")
        .agg(F.sum("points").alias("points"))
        .toPandas()
    )
    found = np.full(len(models), np.nan)
    for model in range(len(models)):
        part = counted[counted["model"] == model]
        if part["failing"].any():
            found[model] = average_precision_score(
                part["failing"], part["step"], sample_weight=part["points"]
            )
    return found


def _tally(contract: FeatureContract, models: list[xgb.Booster]) -> FRAMES:
    def tally(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            matrix = plain_matrix(matrix_of(batch, contract), contract)
            failing = batch["at_risk"].to_numpy(dtype=np.int64)
            for number, model in enumerate(models):
                step = np.floor(model.predict(matrix) * SCORE_STEPS).astype(np.int64)
                counts = np.bincount(2 * step + failing)
                cell = np.flatnonzero(counts)
                yield pd.DataFrame(
                    {
                        "model": np.full(len(cell), number, dtype=np.int32),
                        "step": (cell // 2).astype(np.int32),
                        "failing": (cell % 2).astype(np.int32),
                        "points": counts[cell],
                    }
                )

    return tally
