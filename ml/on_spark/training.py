"""One training on Spark: the steps of `ml.training`, with the points left in place.

What comes to the driver: models, counts, and of each point that is calibrated or
tested on what its figures are made of (label, scores, who, when), never a feature.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ml.baselines import check_columns, course_rate_scores, rule_scores
from ml.boosting import SEED, margins, plain_matrix
from ml.calibrate import Scored, choose_bands, confidence, fit_calibration
from ml.cli import progress
from ml.dataset import FOLDS, KEY, Points
from ml.dependence import FEATURES as DEPENDENCE_FEATURES
from ml.dependence import partial_dependence
from ml.evaluate import evaluate, judge
from ml.features import FeatureContract, encode
from ml.on_spark.boosting import fit, fit_folds, run_search
from ml.on_spark.logistic import Logistic, fit_logistic
from ml.on_spark.points import (
    FRAMES,
    SparkSplit,
    collect_columns,
    encode_training,
    feature_columns,
    learn_contract,
    matrix_of,
    named_features,
)
from ml.on_spark.tables import Staged, read_staged, stage_rows
from ml.registry import Artifact, RunInputs
from ml.scorer import all_probabilities
from ml.search import SearchResult
from ml.training import (
    IMPORTANCE_ROWS,
    Trained,
    calibration_curves,
    measure_importance,
    other_metrics,
)

# Figures and calibration are made on the driver, of at most about so many points; of
# more, those of some students are taken, all points of each.
DRIVER_POINTS = 2_000_000
PREDICTIONS = "ml.evaluation_predictions"
# Columns of evaluation_predictions that come from the target table as they are.
GIVEN = (
    *KEY,
    "course_run_id",
    "lead_days",
    "is_first_sitting",
    "run_began_in_test",
    "contacted_before_due",
    "at_risk",
)
COMPUTED = (
    "risk_score",
    "confidence",
    "baseline_random",
    "baseline_rule",
    "baseline_course_rate",
    "baseline_logistic",
)
SHARES = 2**32
IMPORTANCE_SCHEMA = (
    "feature string, mean_abs_contribution double, gain double, importance_rank int"
)
DEPENDENCE_SCHEMA = (
    "feature string, place int, value double, category string, mean_risk double,"
    " rows int"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedOnSpark:
    """A model with what its training found.

    `predictions` are rows of evaluation_predictions that wait to be published; the
    other tables are small.
    """

    trained: Trained
    predictions: Staged
    judged: pd.DataFrame


@dataclass(frozen=True)
class _Calibrating:
    """A model that has not seen the calibration period, and its margins there."""

    scored: Scored
    points: pd.DataFrame
    replay: tuple[Scored, Scored] | None


def train_on_spark(
    split: SparkSplit,
    inputs: RunInputs,
    fixed: dict[str, float],
    headline: int,
    candidates: int,
    workers: int,
) -> TrainedOnSpark:
    """Search, fit, calibrate, and evaluate once."""
    check_columns(split.kinds)
    contract = learn_contract(split.known, split.kinds)
    known = encode_training(split.known, contract, workers)
    try:
        found = _search(known, contract, fixed, candidates, workers)
        artifact, calibrating = _fit_winner(
            split, known, contract, found, inputs, workers
        )
    finally:
        known.unpersist()
    logistic = fit_logistic(split.known, split.kinds, workers)
    log.info("Evaluating on %s points of the test period.", split.sizes.test)
    staged = _stage_predictions(artifact, logistic, split)
    spark = split.points.sparkSession
    predictions = collect_predictions(read_staged(spark, staged), split.sizes.test)
    metrics = evaluate(predictions)
    others = other_metrics(
        artifact, found, split.count("search"), split.count("calibration")
    )
    importance, dependence = _look_inside(artifact, split)
    held_out = calibrating.points.assign(
        risk_score=artifact.calibration.apply(calibrating.scored.margins)
    )
    tables = {
        "ml.model_metrics": pd.concat([metrics, others], ignore_index=True),
        "ml.feature_importance": importance,
        "ml.partial_dependence": dependence,
        "ml.calibration_curve": calibration_curves(artifact, held_out, predictions),
        "ml.search_results": found.table,
    }
    run_id = artifact.run_id
    return TrainedOnSpark(
        Trained(
            artifact,
            judge(metrics, headline),
            {name: table.assign(run_id=run_id) for name, table in tables.items()},
        ),
        staged,
        predictions,
    )


def _search(
    known: DataFrame,
    contract: FeatureContract,
    fixed: dict[str, float],
    candidates: int,
    workers: int,
) -> SearchResult:
    rows = known.where("part = 'search'")
    log.info("Searching with %s workers.", workers)
    with progress("Search", candidates * FOLDS) as on_fit:
        return run_search(rows, contract, fixed, candidates, workers, on_fit)


def _fit_winner(
    split: SparkSplit,
    known: DataFrame,
    contract: FeatureContract,
    found: SearchResult,
    inputs: RunInputs,
    workers: int,
) -> tuple[Artifact, _Calibrating]:
    """Calibrate the search period's model, then train on all that was known."""
    search = known.where("part = 'search'")
    parameters = found.parameters
    calibrating = _calibrate(split, known, contract, parameters, workers)
    later = calibrating.scored
    weight = float(parameters.get("scale_pos_weight", 1))
    calibration = fit_calibration(later, calibrating.replay, weight)
    log.info(
        "Fitting on %s points, calibration: %s.", split.sizes.known, calibration.method
    )
    artifact = Artifact(
        run_id=inputs.run_id,
        model=fit(known, contract, parameters, workers),
        fold_models=fit_folds(search, contract, parameters, workers),
        contract=contract,
        calibration=calibration,
        bands=choose_bands(calibration.apply(later.margins), later.labels),
        parameters=parameters,
        inputs=inputs,
    )
    return artifact, calibrating


def _calibrate(
    split: SparkSplit,
    known: DataFrame,
    contract: FeatureContract,
    parameters: dict[str, Any],
    workers: int,
) -> _Calibrating:
    model = fit(known.where("part = 'search'"), contract, parameters, workers)
    points = _score(
        known.where("part = 'calibration'"),
        split.count("calibration").rows,
        model,
        contract,
    )
    replay = None
    if split.has_replay:
        rows = known.where("replay_part = 'search'")
        older = fit(rows, contract, parameters, workers)
        earlier, later = (
            _scored(
                _score(
                    known.where(F.col("replay_part") == part),
                    split.sizes.known,
                    older,
                    contract,
                )
            )
            for part in ("calibration", "test")
        )
        replay = earlier, later
    return _Calibrating(_scored(points), points, replay)


def _score(
    rows: DataFrame, count: int, model: xgb.Booster, contract: FeatureContract
) -> pd.DataFrame:
    """Label, margin and whose it is, of encoded points, on the driver."""

    def score(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        kept = ["point", "student", "course_id", "lead_days", "at_risk"]
        for batch in batches:
            matrix = plain_matrix(matrix_of(batch, contract), contract)
            yield batch[kept].assign(margin=margins(model, matrix))

    scored = some_students(rows, count).mapInPandas(
        score,
        "point long, student long, course_id string, lead_days int, at_risk int,"
        " margin double",
    )
    return collect_columns(scored, "point")


def _scored(points: pd.DataFrame) -> Scored:
    return Scored(
        points["margin"].to_numpy(dtype=float),
        points["at_risk"].to_numpy(dtype=np.int64),
        points["student"].to_numpy(),
    )


def some_students(points: DataFrame, count: int) -> DataFrame:
    """All points, or those of as many students as the driver can take.

    Which students is decided by a hash: the same every time. `points` has the column
    `student`.
    """
    if count <= DRIVER_POINTS:
        return points
    share = DRIVER_POINTS / count
    log.info(
        "Of %s points those of %.1f %% of the students are measured.",
        count,
        100 * share,
    )
    place = F.pmod(F.xxhash64(F.lit(SEED + 2), "student"), F.lit(SHARES))
    return points.where(place < F.lit(int(share * SHARES)))


# ---------------------------------------------------------------- the test period


def _stage_predictions(
    artifact: Artifact, logistic: Logistic, split: SparkSplit
) -> Staged:
    """Score the test period where it lies: the one look at it."""
    base = split.count("search", "between", "calibration").base_rate
    test = _test_points(split)
    computed = ", ".join(f"{name} double" for name in COMPUTED)
    given = ", ".join(f"{n} {dict(test.dtypes)[n]}" for n in GIVEN)
    # Times that pandas does not have stay where they are.
    needed = test.select(*GIVEN, "baseline_random", *feature_columns(split.kinds))
    predicted = needed.mapInPandas(
        _predictor(artifact, logistic, base), f"{given}, {computed}"
    )
    return stage_rows(
        test.sparkSession,
        PREDICTIONS,
        predicted.withColumn("run_id", F.lit(artifact.run_id)),
        {"run_id": artifact.run_id},
    )


def _test_points(split: SparkSplit) -> DataFrame:
    """The test points, with a random number that depends on the point alone."""
    began = F.col("run_started_at") >= F.expr(f"timestamp'{split.test_from} 00:00:00'")
    random = F.pmod(F.xxhash64(F.lit(SEED + 3), "point"), F.lit(SHARES)) / SHARES
    return split.part("test").withColumns(
        {
            "run_began_in_test": F.coalesce(began, F.lit(False)),
            "baseline_random": random,
        }
    )


def _predictor(artifact: Artifact, logistic: Logistic, base_rate: float) -> FRAMES:
    contract = artifact.contract

    def predict(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            features = named_features(batch, contract.kinds)
            matrix = plain_matrix(encode(features, contract), contract)
            probabilities = all_probabilities(artifact, matrix)
            yield batch[[*GIVEN, "baseline_random"]].assign(
                risk_score=probabilities[:, 0],
                confidence=confidence(probabilities),
                baseline_rule=rule_scores(features),
                baseline_course_rate=course_rate_scores(features, base_rate),
                baseline_logistic=logistic.scores(features),
            )[[*GIVEN, *COMPUTED]]

    return predict


def collect_predictions(predictions: DataFrame, count: int) -> pd.DataFrame:
    """What figures are made of, on the driver: rows of `evaluation_predictions`.

    Texts that repeat are kept once, so that a point takes about a hundred bytes.
    """
    student = F.xxhash64(F.lit(SEED), "student_id")
    chosen = some_students(predictions.withColumn("student", student), count)
    table = chosen.select(*GIVEN, *COMPUTED).toArrow()
    for name in ("course_id", "assessment_id", "course_run_id"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].dictionary_encode())
    frame = table.to_pandas(date_as_object=False)
    # In the order of the texts, not of where they were met first.
    for name in frame.columns[frame.dtypes == "category"]:
        met = frame[name].cat
        frame[name] = met.reorder_categories(sorted(met.categories))
    return frame.sort_values(KEY, ignore_index=True)


def _look_inside(
    artifact: Artifact, split: SparkSplit
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Importance and dependence over a sample of the test period, in one task each."""
    sample = (
        split.part("test")
        .select("point", *KEY, *feature_columns(split.kinds))
        .orderBy("point")
        .limit(IMPORTANCE_ROWS)
    )

    def importance(points: Points) -> pd.DataFrame:
        return measure_importance(artifact, points)

    table = _of_sample(sample, importance, IMPORTANCE_SCHEMA, split.kinds)
    names = table["feature"].head(DEPENDENCE_FEATURES).tolist()

    def dependence(points: Points) -> pd.DataFrame:
        return partial_dependence(artifact, points, names)

    return table, _of_sample(sample, dependence, DEPENDENCE_SCHEMA, split.kinds)


def _of_sample(
    sample: DataFrame,
    measure: Callable[[Points], pd.DataFrame],
    schema: str,
    kinds: dict[str, str],
) -> pd.DataFrame:
    """What a function of points says of a sample, which one task holds."""

    def measure_all(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        parts = list(batches)
        if parts:
            rows = pd.concat(parts).sort_values("point", ignore_index=True)
            found = measure(Points(rows[KEY], named_features(rows, kinds), kinds))
            # Arrow's own texts may lie in pieces, which Spark does not take.
            texts = found.columns[found.dtypes == "str"]
            yield found.assign(**{n: found[n].astype(object) for n in texts})

    return sample.mapInPandas(measure_all, schema).toPandas()
