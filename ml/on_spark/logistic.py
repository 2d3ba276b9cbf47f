"""The logistic regression of the baselines, fitted by Spark's own library.

Prepared as in `ml.baselines`: medians for missing numbers and a column that says so,
signed logarithms, standard deviations of 1, a column per frequent category. The
medians are Spark's approximate ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark import StorageLevel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy.special import expit

from ml.baselines import MIN_FREQUENCY, PENALTY, UNKNOWN, signed_log
from ml.features import CATEGORY
from ml.on_spark.points import FRAMES, feature_columns, named_features

ITERATIONS = 500
MEDIAN_ACCURACY = 10_000


@dataclass(frozen=True)
class Preparation:
    """What was learned of the columns, by feature name.

    `frequent` has the categories with a column of their own, `rare` those met in
    training that share one.
    """

    medians: dict[str, float]
    means: dict[str, float]
    deviations: dict[str, float]
    missing_shares: dict[str, float]
    frequent: dict[str, list[str]]
    rare: dict[str, list[str]]

    def matrix(self, features: pd.DataFrame) -> np.ndarray:
        """Numbers, what is missing, categories: one row per row of `features`."""
        columns: list[np.ndarray] = []
        for name, median in self.medians.items():
            values = features[name].to_numpy(dtype=float, na_value=np.nan)
            missing = ~np.isfinite(values)
            filled = signed_log(np.where(missing, median, values))
            columns.append((filled - self.means[name]) / self.deviations[name])
            share = self.missing_shares[name]
            if share > 0:
                spread = np.sqrt(share * (1 - share)) or 1.0
                columns.append((missing.astype(float) - share) / spread)
        for name, frequent in self.frequent.items():
            text = features[name].astype("object").fillna(UNKNOWN).astype(str)
            for group in ([value] for value in frequent):
                columns.append(text.isin(group).to_numpy(dtype=float))
            if self.rare[name]:
                columns.append(text.isin(self.rare[name]).to_numpy(dtype=float))
        return np.column_stack(columns)


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic regression."""

    preparation: Preparation
    weights: np.ndarray
    intercept: float

    def scores(self, features: pd.DataFrame) -> np.ndarray:
        """Probabilities of failing."""
        matrix = self.preparation.matrix(features)
        return expit(matrix @ self.weights + self.intercept)


def fit_logistic(known: DataFrame, kinds: dict[str, str], workers: int) -> Logistic:
    """Fit it on points with their features as they are."""
    preparation = prepare(known, kinds)
    placed = (
        known.select("at_risk", "point", *feature_columns(kinds))
        # Sums of floats depend on which rows lie together, and in which order.
        .repartition(workers, "point")
        .sortWithinPartitions("point")
    )
    rows = placed.mapInPandas(
        _preparer(preparation, kinds), "at_risk double, features array<double>"
    )
    rows = rows.select("at_risk", array_to_vector(F.col("features")).alias("features"))
    rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        # scikit-learn weighs the sum of the losses, Spark their mean.
        model = LogisticRegression(
            labelCol="at_risk",
            regParam=1 / (PENALTY * rows.count()),
            standardization=False,
            maxIter=ITERATIONS,
        ).fit(rows)
        weights = np.asarray(model.coefficients.toArray())
        return Logistic(preparation, weights, float(model.intercept))
    finally:
        rows.unpersist()


def prepare(known: DataFrame, kinds: dict[str, str]) -> Preparation:
    """Learn of the columns what `Preparation` holds, by three aggregations."""
    columns = dict(zip(kinds, feature_columns(kinds), strict=True))
    numbers = {n: c for n, c in columns.items() if kinds[n] != CATEGORY}
    known = known.withColumns({c: _finite(c) for c in numbers.values()})
    first = _one_row(
        known,
        {
            f"{c}_median": F.percentile_approx(c, 0.5, MEDIAN_ACCURACY)
            for c in numbers.values()
        }
        | {
            f"{c}_missing": F.avg(F.col(c).isNull().cast("int"))
            for c in numbers.values()
        },
    )
    medians = {n: float(first[f"{c}_median"] or 0.0) for n, c in numbers.items()}
    logs = {c: _filled_log(c, medians[n]) for n, c in numbers.items()}
    second = _one_row(
        known,
        {f"{c}_mean": F.avg(value) for c, value in logs.items()}
        | {f"{c}_deviation": F.stddev_pop(value) for c, value in logs.items()},
    )
    frequent, rare = {}, {}
    for name, kind in kinds.items():
        if kind == CATEGORY:
            frequent[name], rare[name] = _categories(known, columns[name])
    return Preparation(
        medians=medians,
        means={n: float(second[f"{c}_mean"]) for n, c in numbers.items()},
        # A column that never changes is left as it is.
        deviations={n: second[f"{c}_deviation"] or 1.0 for n, c in numbers.items()},
        missing_shares={n: float(first[f"{c}_missing"]) for n, c in numbers.items()},
        frequent=frequent,
        rare=rare,
    )


def _finite(column: str) -> Column:
    value = F.col(column)
    infinite = (F.abs(value) == float("inf")) | F.isnan(value)
    return F.when(~infinite, value)


def _filled_log(column: str, median: float) -> Column:
    value = F.coalesce(F.col(column), F.lit(median))
    return F.signum(value) * F.log1p(F.abs(value))


def _one_row(frame: DataFrame, values: dict[str, Column]) -> dict[str, float]:
    row = frame.agg(*(value.alias(name) for name, value in values.items())).first()
    return row.asDict() if row else {}


def _categories(known: DataFrame, column: str) -> tuple[list[str], list[str]]:
    """Values with a column of their own, and those that share one."""
    text = F.coalesce(F.col(column), F.lit(UNKNOWN)).alias("text")
    counts = known.groupBy(text).count().toPandas()
    is_frequent = counts["count"] >= MIN_FREQUENCY
    return sorted(counts["text"][is_frequent]), sorted(counts["text"][~is_frequent])


def _preparer(preparation: Preparation, kinds: dict[str, str]) -> FRAMES:
    def prepare_batches(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            matrix = preparation.matrix(named_features(batch, kinds))
            labels = batch["at_risk"].to_numpy(dtype=float)
            yield pd.DataFrame({"at_risk": labels, "features": list(matrix)})

    return prepare_batches
