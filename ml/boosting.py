"""XGBoost, called the same way everywhere, so that equal inputs give equal bits."""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import xgboost as xgb

from ml.features import FeatureContract

SEED = 42
# Sums of floats depend on how threads share the rows: one thread per fit gives the
# same model on any number of cores.
FIT_THREADS = 1
# The cores this process may use: affinity and container limits count. Only what no
# number of threads can change uses them all: fits side by side, binning (a column
# belongs to one thread) and prediction (each row alone).
CORES = joblib.cpu_count()
# Full resolution, at which every model that gives final scores is fitted.
BINS = 256
# The search only has to tell good candidates from bad. It looks at coarser bins, and
# at no missing value: XGBoost is half as fast again where every row has every value.
SEARCH_BINS = 64
# Rows from which the search takes what stands for a missing value.
STAND_IN_ROWS = 16_384
# Rows that the search copies at a time.
BATCH_ROWS = 8_192
# glibc's number for the size from which a block goes back to the system when freed.
M_MMAP_THRESHOLD = -3
FIXED = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "seed": SEED,
    "nthread": FIT_THREADS,
    "verbosity": 0,
}


def training_matrix(
    rows: np.ndarray,
    labels: np.ndarray,
    contract: FeatureContract,
    bins: int = BINS,
) -> xgb.QuantileDMatrix:
    """Bin the rows once."""
    return xgb.QuantileDMatrix(
        rows,
        labels,
        feature_names=contract.names,
        feature_types=contract.xgboost_types,
        enable_categorical=True,
        max_bin=bins,
        nthread=CORES,
    )


def give_back_memory() -> None:
    """Have blocks of 1 MB and more returned to the system as soon as they are freed.

    Left alone, glibc raises that limit to 32 MB as it goes and keeps, for each
    thread, what was freed below it. Where there is no such setting nothing happens.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, 2**20)


class _Batches(xgb.DataIter):
    """Some of the rows, a batch at a time, so that they are never copied at once."""

    def __init__(
        self,
        rows: np.ndarray,
        labels: np.ndarray,
        chosen: np.ndarray,
        contract: FeatureContract,
        instead: np.ndarray,
    ) -> None:
        super().__init__()
        self._rows, self._labels, self._chosen = rows, labels, chosen
        self._contract, self._instead = contract, instead
        self._next = 0

    def reset(self) -> None:
        """Begin again."""
        self._next = 0

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over a batch; False when there is none left."""
        batch = self._chosen[self._next : self._next + BATCH_ROWS]
        self._next += BATCH_ROWS
        if len(batch):
            input_data(
                data=without_missing(self._rows[batch], self._instead),
                label=self._labels[batch],
                feature_names=self._contract.names,
                feature_types=self._contract.xgboost_types,
            )
        return len(batch) > 0


def stand_ins(
    rows: np.ndarray, chosen: np.ndarray, contract: FeatureContract
) -> np.ndarray:
    """What stands for a missing value of each column in the search.

    The median of a number, over evenly spaced rows of the chosen ones; one more
    category of a category.
    """
    step = max(1, -(-len(chosen) // STAND_IN_ROWS))
    some = rows[chosen[::step]]
    return np.array(
        [
            len(contract.categories[name])
            if name in contract.categories
            else _median(some[:, column])
            for column, name in enumerate(contract.names)
        ],
        dtype=np.float32,
    )


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else 0.0


def without_missing(rows: np.ndarray, instead: np.ndarray) -> np.ndarray:
    """A copy of the rows with what `stand_ins` found where a value is missing."""
    return np.where(np.isnan(rows), instead, rows)


def search_matrix(
    rows: np.ndarray,
    labels: np.ndarray,
    chosen: np.ndarray,
    contract: FeatureContract,
    instead: np.ndarray,
) -> xgb.QuantileDMatrix:
    """Bin the chosen rows once, coarsely and by batches, for all candidates."""
    return xgb.QuantileDMatrix(
        _Batches(rows, labels, chosen, contract, instead),
        enable_categorical=True,
        max_bin=SEARCH_BINS,
        nthread=CORES,
    )


def search_margins(
    booster: xgb.Booster, rows: np.ndarray, chosen: np.ndarray, instead: np.ndarray
) -> np.ndarray:
    """Raw log-odds of the chosen rows by a model of a `search_matrix`."""
    batches = np.array_split(chosen, -(-len(chosen) // BATCH_ROWS))
    found = [
        booster.inplace_predict(
            without_missing(rows[batch], instead), predict_type="margin"
        )
        for batch in batches
    ]
    return np.concatenate(found).astype(np.float64)


def plain_matrix(
    rows: np.ndarray, contract: FeatureContract, threads: int = CORES
) -> xgb.DMatrix:
    """Rows to predict."""
    return xgb.DMatrix(
        rows,
        feature_names=contract.names,
        feature_types=contract.xgboost_types,
        enable_categorical=True,
        nthread=threads,
    )


def fit(
    matrix: xgb.QuantileDMatrix, parameters: dict[str, Any], bins: int = BINS
) -> xgb.Booster:
    """Train one model; `n_estimators` is the number of trees, `bins` the matrix's."""
    rest = dict(parameters)
    rounds = int(rest.pop("n_estimators"))
    fixed = {**FIXED, "max_bin": bins}
    return xgb.train({**fixed, **rest}, matrix, num_boost_round=rounds)


def margins(
    booster: xgb.Booster, matrix: xgb.DMatrix, threads: int = CORES
) -> np.ndarray:
    """Raw log-odds, one per row, before calibration."""
    booster.set_param({"nthread": threads})
    return booster.predict(matrix, output_margin=True).astype(np.float64)


def contributions(
    booster: xgb.Booster, matrix: xgb.DMatrix, threads: int = CORES
) -> np.ndarray:
    """Exact TreeSHAP: one column per feature, and the bias as the last.

    A row sums up to its margin.
    """
    booster.set_param({"nthread": threads})
    return booster.predict(matrix, pred_contribs=True).astype(np.float64)


def total_gains(booster: xgb.Booster) -> dict[str, float]:
    """XGBoost's total gain of each feature that is used at all."""
    found = booster.get_score(importance_type="total_gain")
    return {name: float(np.sum(gain)) for name, gain in found.items()}
