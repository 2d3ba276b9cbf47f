"""The scores of a day on Spark, computed where the points lie."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

import pandas as pd
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from ml.boosting import plain_matrix
from ml.calibrate import confidence
from ml.dataset import KEY
from ml.features import encode
from ml.on_spark.points import FRAMES, SparkPoints, feature_columns, named_features
from ml.on_spark.tables import Staged, select_rows, stage_rows
from ml.registry import Artifact
from ml.score import SCORES, all_probabilities, check_contract

GIVEN = (*KEY, "course_run_id", "due_at", "lead_days")
MISSED = "record_assessments_missed"


def score_on_spark(
    spark: SparkSession, artifact: Artifact, points: SparkPoints, as_of_date: date
) -> list[Staged]:
    """Score the scoring points of a day; the rows wait to be published.

    Raises
    ------
    ContractMismatch
        The features are not those of the model.
    """
    check_contract(artifact, points.kinds)
    where = {"run_id": artifact.run_id, "as_of_date": as_of_date}
    scores = _score(artifact, points).withColumn("run_id", F.lit(artifact.run_id))
    before = select_rows(spark, SCORES, where)
    return [stage_rows(spark, SCORES, _keep_times(scores, before), where)]


def _score(artifact: Artifact, points: SparkPoints) -> DataFrame:
    """Rows of `student_scores` without run_id and scored_at."""
    scored = points.scoring.select(*GIVEN, *feature_columns(points.kinds)).mapInPandas(
        _scorer(artifact),
        "student_id string, course_id string, assessment_id string, as_of_date date,"
        " course_run_id string, due_at timestamp, lead_days int, risk_score double,"
        " confidence double, risk_band string, missed double",
    )
    # Of equal risks the longer record of misses first, then the key.
    order = [F.desc("risk_score"), F.desc_nulls_last("missed"), *map(F.col, KEY)]
    rank = F.row_number().over(Window.orderBy(*order))
    return scored.withColumn("risk_rank", rank).drop("missed")


def _scorer(artifact: Artifact) -> FRAMES:
    contract = artifact.contract

    def score(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            features = named_features(batch, contract.kinds)
            matrix = plain_matrix(encode(features, contract), contract)
            probabilities = all_probabilities(artifact, matrix)
            risk = probabilities[:, 0]
            yield batch[list(GIVEN)].assign(
                risk_score=risk,
                confidence=confidence(probabilities),
                risk_band=artifact.bands.name(risk),
                missed=features[MISSED].astype(float) if MISSED in features else 0.0,
            )

    return score


def _keep_times(scores: DataFrame, before: DataFrame) -> DataFrame:
    """A score that has not changed keeps its `scored_at`."""
    same = ["run_id", *GIVEN, "risk_score", "risk_rank", "risk_band", "confidence"]
    now = datetime.now(UTC).replace(tzinfo=None)
    old, new = before.alias("old"), scores.alias("new")
    matches = [F.col(f"old.{n}").eqNullSafe(F.col(f"new.{n}")) for n in same]
    first = F.coalesce("old.scored_at", F.expr(f"timestamp'{now}'"))
    return new.join(old, matches, "left").select("new.*", first.alias("scored_at"))
