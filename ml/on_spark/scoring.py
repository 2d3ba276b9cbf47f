"""The scores of a day on Spark, computed where the points lie."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from ml.dataset import KEY, feature_column
from ml.explain import read_feature_docs
from ml.features import CATEGORY
from ml.on_spark.points import SparkPoints, feature_columns
from ml.on_spark.tables import SPARK_TYPES, Staged, select_rows, stage_rows
from ml.registry import Artifact
from ml.score import check_contract
from ml.scorer import POINT_COLUMNS, RANK, REASONS, SCORES, Scorer
from ml.warehouse import find_handback_table

if TYPE_CHECKING:
    from pyspark import Broadcast

# Ranges of the risk in which ranks are counted side by side.
STEPS = 4096
BATCHES = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def score_on_spark(
    spark: SparkSession,
    artifact: Artifact,
    points: SparkPoints,
    as_of_date: date,
    window_days: int,
) -> list[Staged]:
    """Score the scoring points of a day and say why; the rows wait to be published.

    Raises
    ------
    ContractMismatch
        The features are not those of the model.
    """
    check_contract(artifact, points.kinds)
    rows = _named(points)
    medians = peer_medians(rows, points.kinds)
    scorer = Scorer(artifact, read_feature_docs(), medians, window_days, threads=1)
    shared = spark.sparkContext.broadcast(scorer)
    scored = rows.mapInArrow(_score_with(shared), _scored_type(scorer))
    # Both tables come from it, and what is lost is computed again.
    scored = scored.persist(StorageLevel.DISK_ONLY)
    where = {"run_id": artifact.run_id, "as_of_date": as_of_date}
    before = select_rows(spark, SCORES, where)
    scores = _keep_times(_ranked(scored.drop("reasons")), before)
    reason = F.explode("reasons").alias("reason")
    reasons = scored.select("run_id", *KEY, reason).select("run_id", *KEY, "reason.*")
    try:
        # The reasons first: a score without its reason would be worse.
        return [
            stage_rows(spark, REASONS, reasons, where),
            stage_rows(spark, SCORES, scores, where),
        ]
    finally:
        scored.unpersist()
        shared.unpersist()


def _named(points: SparkPoints) -> DataFrame:
    """The scoring points as the scorer takes them; what is not a number is unknown."""
    features = [
        (column if kind == CATEGORY else F.nanvl(column, F.lit(None))).alias(
            feature_column(name)
        )
        for column, (name, kind) in zip(
            map(F.col, feature_columns(points.kinds)),
            points.kinds.items(),
            strict=True,
        )
    ]
    return points.scoring.select(*POINT_COLUMNS, *features)


def peer_medians(rows: DataFrame, kinds: dict[str, str]) -> dict[str, float]:
    """Middle value of each number or boolean among all points; NaN for text.

    Of two middle values the number between them, as on DuckDB. Values are counted,
    each feature by itself, so that no task has to hold them all.
    """
    names = [name for name, kind in kinds.items() if kind != CATEGORY]
    values = F.array(*map(feature_column, names))
    counted = (
        rows.select(F.posexplode(values).alias("feature", "value"))
        .where("value is not null")
        .groupBy("feature", "value")
        .agg(F.count("*").alias("points"))
    )
    of_feature = Window.partitionBy("feature")
    rising = of_feature.orderBy("value").rowsBetween(Window.unboundedPreceding, 0)
    placed = counted.select(
        "feature",
        "value",
        F.sum("points").over(rising).alias("upto"),
        F.sum("points").over(of_feature).alias("total"),
    )
    middle = placed.groupBy("feature").agg(
        F.min(F.expr("if(2 * upto >= total, value, null)")).alias("low"),
        F.min(F.expr("if(2 * upto > total, value, null)")).alias("high"),
    )
    medians = dict.fromkeys(kinds, float("nan"))
    for row in middle.collect():
        medians[names[row.feature]] = (row.low + row.high) / 2
    return medians


def _score_with(shared: "Broadcast[Scorer]") -> BATCHES:
    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                # Each Python worker unpacks it once.
                scorer = shared.value
                predicted = scorer.predict(batch)
                scores = scorer.scores(predicted)
                told = scorer.told(predicted)
                reasons = _nested(told, len(scores), scorer.reason_schema)
                rows = scores.append_column("reasons", reasons)
                yield from rows.combine_chunks().to_batches()

    return score


def _nested(told: pa.Table, scores: int, schema: pa.Schema) -> pa.ListArray:
    """The reasons of each score of a batch; they come in the order of the scores."""
    starts = np.searchsorted(told["point"].to_numpy(), np.arange(scores + 1))
    fields = _beside_the_key(schema)
    columns = [told[each.name].combine_chunks().cast(each.type) for each in fields]
    reasons = pa.StructArray.from_arrays(columns, [each.name for each in fields])
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), reasons)


def _beside_the_key(schema: pa.Schema) -> list[pa.Field]:
    """What a reason has that its score has not."""
    return [each for each in schema if each.name not in ("run_id", *KEY)]


def _scored_type(scorer: Scorer) -> str:
    """Columns of what `_score_with` gives back, as Spark writes them."""
    reason = find_handback_table(REASONS).columns
    names = [each.name for each in _beside_the_key(scorer.reason_schema)]
    told = ", ".join(f"{name}: {_spark_type(reason[name])}" for name in names)
    score = find_handback_table(SCORES).columns | {"missed": "double"}
    columns = [f"{n} {_spark_type(score[n])}" for n in scorer.score_schema.names]
    return ", ".join([*columns, f"reasons array<struct<{told}>>"])


def _spark_type(kind: str) -> str:
    # Arrow's times have no zone here; all of them are UTC.
    return "timestamp_ntz" if kind == "timestamp" else SPARK_TYPES.get(kind, kind)


def _ranked(scores: DataFrame) -> DataFrame:
    """With `risk_rank` in place of `missed`.

    Ranks are counted within narrow ranges of the risk, side by side, and begin in each
    after all points of the ranges above.
    """
    step = F.floor(F.col("risk_score") * STEPS)
    stepped = scores.withColumn("step", step)
    above = (
        Window.partitionBy(F.lit(0))
        .orderBy(F.desc("step"))
        .rowsBetween(Window.unboundedPreceding, -1)
    )
    before = stepped.groupBy("step").agg(F.count("*").alias("points"))
    before = before.select(
        "step", F.coalesce(F.sum("points").over(above), F.lit(0)).alias("before")
    )
    within = F.expr(f"row_number() over (partition by step order by {RANK})")
    return (
        stepped.withColumn("within", within)
        .join(F.broadcast(before), "step")
        .withColumn("risk_rank", (F.col("before") + F.col("within")).cast("int"))
        .drop("step", "before", "within", "missed")
    )


def _keep_times(scores: DataFrame, before: DataFrame) -> DataFrame:
    """A score that has not changed keeps its `scored_at`."""
    same = set(find_handback_table(SCORES).columns) - {"scored_at"}
    now = datetime.now(UTC).replace(tzinfo=None)
    old, new = before.alias("old"), scores.alias("new")
    matches = [F.col(f"old.{n}").eqNullSafe(F.col(f"new.{n}")) for n in sorted(same)]
    first = F.coalesce("old.scored_at", F.expr(f"timestamp'{now}'"))
    return new.join(old, matches, "left").select("new.*", first.alias("scored_at"))
