"""XGBoost, called the same way everywhere, so that equal inputs give equal bits."""

from typing import Any

import numpy as np
import xgboost as xgb

from ml.features import FeatureContract

SEED = 42
# Sums of floats depend on how threads share the rows: one thread per fit gives the
# same model on any number of cores.
FIT_THREADS = 1
# Prediction treats each row alone, so threads cannot change it.
PREDICT_THREADS = 2
# Full resolution, at which every model that gives final scores is fitted.
BINS = 256
# The search only has to tell good candidates from bad, and is a third faster so.
SEARCH_BINS = 64
FIXED = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "seed": SEED,
    "nthread": FIT_THREADS,
    "verbosity": 0,
}


def training_matrix(
    rows: np.ndarray, labels: np.ndarray, contract: FeatureContract, bins: int = BINS
) -> xgb.QuantileDMatrix:
    """Bin the rows once; candidates share the result."""
    return xgb.QuantileDMatrix(
        rows,
        labels,
        feature_names=contract.names,
        feature_types=contract.xgboost_types,
        enable_categorical=True,
        max_bin=bins,
        nthread=FIT_THREADS,
    )


def plain_matrix(rows: np.ndarray, contract: FeatureContract) -> xgb.DMatrix:
    """Rows to predict."""
    return xgb.DMatrix(
        rows,
        feature_names=contract.names,
        feature_types=contract.xgboost_types,
        enable_categorical=True,
        nthread=FIT_THREADS,
    )


def fit(
    matrix: xgb.QuantileDMatrix, parameters: dict[str, Any], bins: int = BINS
) -> xgb.Booster:
    """Train one model; `n_estimators` is the number of trees, `bins` the matrix's."""
    rest = dict(parameters)
    rounds = int(rest.pop("n_estimators"))
    fixed = {**FIXED, "max_bin": bins}
    return xgb.train({**fixed, **rest}, matrix, num_boost_round=rounds)


def margins(booster: xgb.Booster, matrix: xgb.DMatrix) -> np.ndarray:
    """Raw log-odds, one per row, before calibration."""
    return booster.predict(matrix, output_margin=True).astype(np.float64)


def contributions(booster: xgb.Booster, matrix: xgb.DMatrix) -> np.ndarray:
    """Exact TreeSHAP: one column per feature, and the bias as the last.

    A row sums up to its margin.
    """
    booster.set_param({"nthread": PREDICT_THREADS})
    return booster.predict(matrix, pred_contribs=True).astype(np.float64)


def total_gains(booster: xgb.Booster) -> dict[str, float]:
    """XGBoost's total gain of each feature that is used at all."""
    found = booster.get_score(importance_type="total_gain")
    return {name: float(np.sum(gain)) for name, gain in found.items()}
