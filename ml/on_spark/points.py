"""Prediction points on Spark: read, divided by time, and encoded where they lie.

Only counts come to the driver: points per day, students per part, categories.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from ml.boosting import SEED
from ml.dataset import (
    FEATURES,
    FOLDS,
    KEY,
    KNOWN_PARTS,
    TARGET_COLUMNS,
    TARGETS,
    Sizes,
    check_order,
    default_test_from,
    describe_problem,
    kinds_of,
    newest_fifth,
)
from ml.features import CATEGORY, FeatureContract, encode
from ml.on_spark.tables import require_tables
from ml.settings import UserError
from ml.training import Count

BOOLEANS = (
    "is_training_point",
    "is_scoring_point",
    "is_first_sitting",
    "contacted_before_due",
)
# What is kept beside the encoded features of the points that a model is trained on.
TRAINING_COLUMNS = ("point", "student", "fold", "at_risk", "course_id", "lead_days")
# Of so many ways to divide students into folds the first that serves is taken.
WAYS = 20
FRAMES = Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]


@dataclass(frozen=True)
class SparkPoints:
    """Prediction points with their features, one row each.

    Feature columns are numbered (`f0`, `f1`, …), because a feature may have the name
    of a target column; `kinds` has their names in this order. `point` and `student`
    are hashes of the key and the student: eight bytes instead of a text.
    """

    frame: DataFrame
    kinds: dict[str, str]

    @property
    def matured(self) -> DataFrame:
        """Training points whose label is known."""
        return self.frame.where("is_training_point and label_status = 'matured'")

    @property
    def scoring(self) -> DataFrame:
        """The points of the day that is scored."""
        return self.frame.where("is_scoring_point")


@dataclass(frozen=True)
class SparkSplit:
    """The matured points with the column `part`, and how many are where.

    `replay_part` is the same division one step earlier, among the points known before
    the test period: the calibration period is its test. `counts` has a row per part.
    """

    points: DataFrame
    kinds: dict[str, str]
    counts: pd.DataFrame
    test_from: date
    calibration_from: date
    has_replay: bool

    def part(self, *names: str) -> DataFrame:
        """The points of some parts."""
        return self.points.where(F.col("part").isin(*names))

    @cached_property
    def known(self) -> DataFrame:
        """What the final model is trained on."""
        return self.part(*KNOWN_PARTS)

    def count(self, *names: str) -> Count:
        """Points of some parts, and failing ones among them."""
        rows = self.counts.reindex(names).fillna(0)[["points", "failing"]].sum()
        return Count(int(rows["points"]), int(rows["failing"]))

    @property
    def sizes(self) -> Sizes:
        """How many points serve for what."""
        return Sizes(
            test_from=self.test_from,
            calibration_from=self.calibration_from,
            known=self.count(*KNOWN_PARTS).rows,
            calibration=self.count("calibration").rows,
            test=self.count("test").rows,
            left_out=self.count("left_out").rows,
        )


def feature_columns(kinds: dict[str, str]) -> list[str]:
    """The numbered columns of the features."""
    return [f"f{number}" for number in range(len(kinds))]


# ---------------------------------------------------------------- reading


def feature_kinds(spark: SparkSession) -> dict[str, str]:
    """Number, boolean or category for each feature column, in the table's order."""
    fields = spark.table(f"main.{FEATURES}").schema.fields
    return kinds_of(
        {
            field.name: field.dataType.simpleString()
            for field in fields
            if field.name not in KEY
        }
    )


def read_points(spark: SparkSession) -> SparkPoints:
    """Matured training points and all scoring points with their features.

    They are joined once and kept on the executors' disks.

    Raises
    ------
    UserError
        A table is missing, a feature has a type that the model cannot take, or a
        point has no row of features.
    """
    return _read(
        spark,
        "targets.is_scoring_point or"
        " (targets.is_training_point and targets.label_status = 'matured')",
    )


def read_scoring_points(spark: SparkSession) -> SparkPoints:
    """The scoring points alone, in the same way."""
    return _read(spark, "targets.is_scoring_point")


def _read(spark: SparkSession, which: str) -> SparkPoints:
    require_tables(spark, [TARGETS, FEATURES])
    kinds = feature_kinds(spark)
    frame = spark.sql(_points_query(kinds, which))
    frame = frame.withColumns(
        {name: F.coalesce(F.col(name), F.lit(False)) for name in BOOLEANS}
        | {
            "point": F.xxhash64(F.lit(SEED), *KEY),
            "student": F.xxhash64(F.lit(SEED), "student_id"),
        }
    )
    frame = frame.persist(StorageLevel.DISK_ONLY)
    lost = frame.where(~F.col("has_features")).count()
    if lost:
        raise UserError(
            f"{lost} points of {TARGETS} have no row in {FEATURES}: one of the two "
            "tables is older than the other. Run `dbt build --target spark`."
        )
    return SparkPoints(frame, kinds)


def _points_query(kinds: dict[str, str], which: str) -> str:
    targets = ", ".join(f"targets.{name}" for name in TARGET_COLUMNS)
    features = ", ".join(
        f"cast(features.`{name}` as {'string' if kind == CATEGORY else 'double'})"
        f" as {column}"
        for column, (name, kind) in zip(
            feature_columns(kinds), kinds.items(), strict=True
        )
    )
    same_key = " and ".join(f"targets.{name} = features.{name}" for name in KEY)
    return (
        f"select {targets}, features.student_id is not null as has_features,"
        f" {features}"
        f" from main.{TARGETS} as targets"
        f" left join main.{FEATURES} as features on {same_key}"
        f" where {which}"
    )


# ---------------------------------------------------------------- splitting


def split_points(
    points: SparkPoints, test_from: date | None, as_of_date: date, headline: int
) -> SparkSplit:
    """Divide the matured training points by time, as `ml.dataset.split_points` does.

    Raises
    ------
    UserError
        A part is empty or holds one class only.
    """
    matured = points.matured
    days = _points_per_day(matured)
    if days.empty:
        raise UserError(
            f"{TARGETS} has no training point with a matured label, so there is "
            "nothing to learn from yet."
        )
    chosen = test_from or default_test_from(days.index, as_of_date)
    check_order(chosen, as_of_date)
    calibration_from = _calibration_start(matured, chosen)
    part = _part(chosen, calibration_from)
    known = matured.where(part.isin(*KNOWN_PARTS))
    earlier = _part(calibration_from, _calibration_start(known, calibration_from))
    is_known = part.isin(*KNOWN_PARTS)
    divided = matured.withColumns(
        {"part": part, "replay_part": F.when(is_known, earlier)}
    )
    split = SparkSplit(
        points=divided,
        kinds=points.kinds,
        counts=_count_parts(divided, "part"),
        test_from=chosen,
        calibration_from=calibration_from,
        has_replay=not _replay_problems(divided),
    )
    problems = _problems(split, headline)
    if problems:
        raise UserError(
            f"With TEST_FROM {chosen} the data cannot be divided: "
            f"{'; '.join(problems)}. Matured training points stand between "
            f"{min(days.index)} and {max(days.index)}; choose another TEST_FROM."
        )
    return split


def _points_per_day(points: DataFrame) -> pd.Series:
    found = points.groupBy("as_of_date").count().toPandas()
    return found.set_index("as_of_date")["count"]


def _calibration_start(matured: DataFrame, test_from: date) -> date:
    """The first day of the newest fifth of what was known before the test period."""
    counts = _points_per_day(matured.where(_is_early(test_from)))
    if counts.empty:
        return test_from
    counts.index = pd.to_datetime(counts.index)
    return newest_fifth(counts).date()


def _midnight(day: date) -> Column:
    return F.expr(f"timestamp'{day} 00:00:00'")


def _is_early(test_from: date) -> Column:
    asked_before = F.col("as_of_date") < F.lit(test_from)
    return asked_before & (F.col("label_known_at") < _midnight(test_from))


def _part(test_from: date, calibration_from: date) -> Column:
    """Search, calibration, test, between or left_out for each matured point."""
    early = _is_early(test_from)
    known_then = F.col("label_known_at") < _midnight(calibration_from)
    return (
        F.when(early & known_then, "search")
        .when(early & (F.col("as_of_date") >= F.lit(calibration_from)), "calibration")
        .when(F.col("as_of_date") >= F.lit(test_from), "test")
        .when(early, "between")
        .otherwise("left_out")
    )


def _count_parts(points: DataFrame, column: str) -> pd.DataFrame:
    """Points, failing points and students of each kind, by part."""
    fails = F.col("at_risk") == 1
    found = points.groupBy(column).agg(
        F.count("*").alias("points"),
        F.count(F.when(fails, 1)).alias("failing"),
        F.countDistinct(F.when(fails, F.col("student"))).alias("failing_students"),
        F.countDistinct(F.when(~fails, F.col("student"))).alias("passing_students"),
    )
    return found.toPandas().set_index(column)


def _problem(counts: pd.DataFrame, part: str, name: str, needed: int) -> str:
    row = counts.reindex([part]).fillna(0).iloc[0]
    failing, passing = int(row["failing_students"]), int(row["passing_students"])
    return describe_problem(name, failing, passing, needed)


def _problems(split: SparkSplit, headline: int) -> list[str]:
    judged = split.part("test").where(
        (F.col("lead_days") == headline) & ~F.col("contacted_before_due")
    )
    calibration = f"the calibration period (from {split.calibration_from})"
    found = [
        _problem(split.counts, "search", "the search period", FOLDS),
        _problem(split.counts, "calibration", calibration, 1),
        _problem(
            _count_parts(judged, "part"),
            "test",
            f"the test period at lead {headline}",
            1,
        ),
    ]
    return [problem for problem in found if problem]


def _replay_problems(points: DataFrame) -> list[str]:
    counts = _count_parts(points.where("replay_part is not null"), "replay_part")
    parts = ("search", "calibration", "test")
    found = [_problem(counts, part, part, FOLDS) for part in parts]
    return [problem for problem in found if problem]


# ---------------------------------------------------------------- fingerprint


def fingerprint_points(split: SparkSplit) -> str:
    """Hash of the points that are trained and tested on, in whatever order.

    Each row is hashed where it lies; sums and exclusive ors of the hashes are the same
    in any order.
    """
    names = [
        name
        for name in split.points.columns
        # Whether a point is also scored says nothing about the training.
        if name not in ("is_scoring_point", "has_features", "part", "replay_part")
    ]
    # Spark's hash leaves nulls out: which columns are null is hashed too.
    nulls = F.concat(
        *(F.when(F.col(name).isNull(), "1").otherwise("0") for name in names)
    )
    row = F.xxhash64(*names, nulls)
    is_test = (F.col("part") == "test").alias("is_test")
    found = (
        split.part("test", *KNOWN_PARTS)
        .groupBy(is_test)
        .agg(
            F.count("*"),
            F.sum(row.cast("decimal(20,0)")).cast("string"),
            F.bit_xor(row),
        )
        .orderBy("is_test")
        .collect()
    )
    text = repr([split.kinds, names, [tuple(each) for each in found]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---------------------------------------------------------------- encoding


def learn_contract(known: DataFrame, kinds: dict[str, str]) -> FeatureContract:
    """Names, kinds and the categories met in training, in sorted order."""
    text = {
        column: name
        for column, (name, kind) in zip(
            feature_columns(kinds), kinds.items(), strict=True
        )
        if kind == CATEGORY
    }
    if not text:
        return FeatureContract(dict(kinds), {})
    sets = known.agg(*(F.collect_set(column).alias(column) for column in text)).first()
    found = sets.asDict() if sets else {}
    categories = {name: sorted(found[column]) for column, name in text.items()}
    return FeatureContract(dict(kinds), categories)


def named_features(batch: pd.DataFrame, kinds: dict[str, str]) -> pd.DataFrame:
    """The features of a batch under their names."""
    features = batch[feature_columns(kinds)]
    features.columns = pd.Index(list(kinds))
    return features


def encode_training(
    points: DataFrame, contract: FeatureContract, workers: int
) -> DataFrame:
    """The matrix that XGBoost sees, spread over the workers and kept there.

    Which worker has which rows, and in which order, depends on the points alone, so
    that a worker that is lost and replaced gets the same: the same model comes of it.

    Raises
    ------
    UserError
        There are too few failing students to divide them into folds.
    """
    columns = feature_columns(contract.kinds)
    kept = [*TRAINING_COLUMNS, "part", "replay_part"]
    placed = (
        points.withColumn("fold", _folds(points).cast("int"))
        .select(*kept, *columns)
        .repartition(workers, "point")
        .sortWithinPartitions("point")
    )
    schema = ", ".join(
        f"{name} {kind}"
        for name, kind in [
            *((name, dict(placed.dtypes)[name]) for name in kept),
            *((name, "float") for name in columns),
        ]
    )
    encoded = placed.mapInPandas(_encoder(contract, kept), schema)
    return encoded.persist(StorageLevel.MEMORY_AND_DISK)


def _folds(points: DataFrame) -> Column:
    """Each student's fold of the search, by a hash under which every fold has a
    failing student."""
    ways = [
        F.pmod(F.xxhash64(F.lit(SEED + 1 + way), "student_id"), F.lit(FOLDS))
        for way in range(WAYS)
    ]
    failing = points.where("part = 'search' and at_risk = 1")
    met = failing.agg(*(F.size(F.collect_set(way)) for way in ways)).first()
    for way, folds in zip(ways, met or (), strict=False):
        if folds == FOLDS:
            return way
    raise UserError(
        f"The search period has too few failing students to have some in each of "
        f"{FOLDS} folds. Choose a later TEST_FROM, or train without --engine spark."
    )


def _encoder(contract: FeatureContract, kept: list[str]) -> FRAMES:
    columns = feature_columns(contract.kinds)

    def encode_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            matrix = encode(named_features(batch, contract.kinds), contract)
            rows = pd.DataFrame(matrix, columns=columns)
            yield pd.concat([batch[kept].reset_index(drop=True), rows], axis=1)

    return encode_batches


def matrix_of(batch: pd.DataFrame, contract: FeatureContract) -> np.ndarray:
    """The encoded features of a batch of `encode_training`."""
    columns = feature_columns(contract.kinds)
    return batch[columns].to_numpy(dtype=np.float32, na_value=np.nan)


def collect_columns(frame: DataFrame, order: str) -> pd.DataFrame:
    """Bring a few columns to the driver, in an order that is always the same.

    Raises
    ------
    ValueError
        A feature is among them.
    """
    features = [
        name for name in frame.columns if name[:1] == "f" and name[1:].isdigit()
    ]
    if features:
        raise ValueError(f"Features stay where they are: {features[:3]}.")
    return _sorted(frame.toPandas(), order)


def _sorted(frame: pd.DataFrame, order: str) -> Any:
    return frame.sort_values(order, ignore_index=True)
