"""`python -m ml.score --engine spark`: score a day on Spark's tables.

Nothing is published before all is computed, so that a command that is killed leaves
the rows of before.
"""

from datetime import date

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from ml.dataset import TARGETS
from ml.on_spark.points import read_scoring_points
from ml.on_spark.scoring import score_on_spark
from ml.on_spark.tables import (
    check_pipeline_settings,
    create_handback_tables,
    publish,
    read_pipeline_settings,
    read_rows,
    read_staged,
)
from ml.on_spark.train import RUNS, open_for_training, runs_like
from ml.score import (
    SCORES,
    Summary,
    build_day,
    champion_artifact,
    refuse_other_build,
    warn_nothing_to_score,
)
from ml.settings import Settings


def run_score_on_spark(settings: Settings, as_of_date: date | None) -> Summary:
    """Score a day with the champion and write the rows.

    Parameters
    ----------
    as_of_date
        Where it differs from the day of the tables, dbt builds that day first.
    """
    if as_of_date:
        settings = settings.model_copy(update={"as_of_date": as_of_date})
        with open_for_training(settings) as spark:
            built_day = read_pipeline_settings(spark).as_of_date
            # Without a champion the day would be built for nothing.
            champion_artifact(settings, _runs(settings, spark))
        # Outside, because dbt opens the same tables.
        if built_day != as_of_date:
            build_day(settings, as_of_date, "spark")
    with open_for_training(settings) as spark:
        return _score(settings, spark)


def _runs(settings: Settings, spark: SparkSession) -> pd.DataFrame:
    return runs_like(settings, read_rows(spark, RUNS, {}))


def _score(settings: Settings, spark: SparkSession) -> Summary:
    built = check_pipeline_settings(spark, settings)
    create_handback_tables(spark)
    artifact = champion_artifact(settings, _runs(settings, spark))
    points = read_scoring_points(spark)
    day, window = built.as_of_date, settings.observation_window_days
    staged = score_on_spark(spark, artifact, points, day, window)
    refuse_other_build(built, read_pipeline_settings(spark))
    bands: dict[str, int] = {}
    for each in staged:
        if each.table == SCORES:
            counted = read_staged(spark, each).groupBy("risk_band").count().collect()
            bands = {row["risk_band"]: row["count"] for row in counted}
        publish(spark, each)
    points.frame.unpersist()
    if not bands:
        training = spark.table(f"main.{TARGETS}").where("is_training_point")
        newest = training.agg(F.max("as_of_date")).first()
        warn_nothing_to_score(day, newest[0] if newest else None)
    return Summary(artifact.run_id, day, bands)
