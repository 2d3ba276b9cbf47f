"""The search: 15 candidates on 3 folds grouped by student, by PR-AUC."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb
from scipy.stats import loguniform, randint, uniform
from sklearn.metrics import average_precision_score
from sklearn.model_selection import ParameterSampler, StratifiedGroupKFold

from ml.boosting import SEARCH_BINS, SEED, fit, margins, plain_matrix, training_matrix
from ml.dataset import FOLDS
from ml.features import FeatureContract

CANDIDATES = 15
# Two Python threads with one XGBoost thread each keep two cores busy.
SEARCH_THREADS = 2


@dataclass(frozen=True)
class SearchResult:
    """The winner's parameters, the models of its folds, and the whole table."""

    parameters: dict[str, Any]
    fold_models: list[xgb.Booster]
    best_score: float
    table: pd.DataFrame


@dataclass(frozen=True)
class Fold:
    """One fold, binned once: to train on, and to be scored on."""

    train: xgb.QuantileDMatrix
    held_out: xgb.DMatrix
    held_out_labels: np.ndarray


def sample_candidates(
    labels: np.ndarray, fixed: dict[str, float]
) -> list[dict[str, Any]]:
    """Draw the candidates; what a MODEL_ variable fixes is the same in all."""
    ratio = float((labels == 0).sum() / max(1, (labels == 1).sum()))
    space = {
        "n_estimators": randint(100, 601),
        "max_depth": randint(3, 8),
        "learning_rate": loguniform(0.02, 0.2),
        "subsample": uniform(0.6, 0.4),
        "colsample_bytree": uniform(0.4, 0.6),
        "min_child_weight": loguniform(1, 50),
        "reg_lambda": loguniform(0.3, 30),
        "scale_pos_weight": [1.0, ratio**0.5, ratio],
    }
    drawn = ParameterSampler(space, n_iter=CANDIDATES, random_state=SEED)
    return [{**_plain(candidate), **fixed} for candidate in drawn]


def _plain(candidate: dict[str, Any]) -> dict[str, Any]:
    """Python numbers, rounded so that JSON holds exactly what was used."""
    return {
        name: int(value)
        if isinstance(value, (int, np.integer))
        else round(float(value), 6)
        for name, value in sorted(candidate.items())
    }


def make_folds(labels: np.ndarray, students: np.ndarray) -> list[np.ndarray]:
    """Rows held out in each fold: stratified, and no student in two folds."""
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    rows = np.zeros((len(labels), 1))
    return [held_out for _, held_out in splitter.split(rows, labels, students)]


def run_search(
    rows: np.ndarray,
    labels: np.ndarray,
    students: np.ndarray,
    contract: FeatureContract,
    fixed: dict[str, float],
    on_fit: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Fit every candidate on every fold and keep the best.

    Parameters
    ----------
    rows, labels, students
        Matrix of `ml.features.encode`, 0 or 1, and the group of each row.
    fixed
        Parameters that are not searched.
    on_fit
        Called after each of the 45 fits, for a progress bar.
    """
    candidates = sample_candidates(labels, fixed)
    folds = bin_folds(rows, labels, students, contract)
    # The longest last would leave one core idle at the end.
    order = sorted(
        range(len(candidates)), key=lambda number: -_cost(candidates[number])
    )

    def fit_one(task: tuple[int, int]) -> tuple[xgb.Booster, float, float]:
        candidate, fold = task
        return _fit_and_score(candidates[candidate], folds[fold])

    scores = np.zeros((len(candidates), FOLDS))
    times = np.zeros((len(candidates), FOLDS))
    best, best_score = -1, -1.0
    best_models: list[xgb.Booster] = []
    tasks = [(candidate, fold) for candidate in order for fold in range(FOLDS)]
    with ThreadPoolExecutor(SEARCH_THREADS) as threads:
        models: list[xgb.Booster] = []
        # map() gives results in order of the tasks and lets go of each.
        for (candidate, fold), result in zip(
            tasks, threads.map(fit_one, tasks), strict=True
        ):
            model, scores[candidate, fold], times[candidate, fold] = result
            models.append(model)
            on_fit()
            if fold < FOLDS - 1:
                continue
            mean = float(scores[candidate].mean())
            # Among equals the first drawn wins, whatever the order of fitting.
            if mean > best_score or (mean == best_score and candidate < best):
                best, best_score, best_models = candidate, mean, models
            models = []
    return SearchResult(
        parameters=candidates[best],
        fold_models=best_models,
        best_score=best_score,
        table=_results_table(candidates, scores, times),
    )


def bin_folds(
    rows: np.ndarray,
    labels: np.ndarray,
    students: np.ndarray,
    contract: FeatureContract,
) -> list[Fold]:
    """Bin each fold once; every candidate uses the same bins."""
    folds = []
    for held_out in make_folds(labels, students):
        kept = np.ones(len(labels), dtype=bool)
        kept[held_out] = False
        folds.append(
            Fold(
                train=training_matrix(rows[kept], labels[kept], contract, SEARCH_BINS),
                held_out=plain_matrix(rows[held_out], contract),
                held_out_labels=labels[held_out],
            )
        )
    return folds


def _cost(candidate: dict[str, Any]) -> float:
    """Roughly how long a fit takes, for the order only."""
    return float(candidate["n_estimators"]) * 1.5 ** float(candidate["max_depth"])


def _fit_and_score(
    candidate: dict[str, Any], fold: Fold
) -> tuple[xgb.Booster, float, float]:
    started = time.perf_counter()
    model = fit(fold.train, candidate, SEARCH_BINS)
    seconds = time.perf_counter() - started
    score = average_precision_score(fold.held_out_labels, margins(model, fold.held_out))
    return model, float(score), seconds


def _results_table(
    candidates: list[dict[str, Any]], scores: np.ndarray, times: np.ndarray
) -> pd.DataFrame:
    """The columns of scikit-learn's cv_results_ that users look at."""
    means = scores.mean(axis=1)
    return pd.DataFrame(
        {
            "candidate": range(len(candidates)),
            "params": [json.dumps(c, sort_keys=True) for c in candidates],
            **{f"split{fold}_test_score": scores[:, fold] for fold in range(FOLDS)},
            "mean_test_score": means,
            "std_test_score": scores.std(axis=1),
            "rank_test_score": pd.Series(-means).rank(method="min").astype(int),
            "mean_fit_time": times.mean(axis=1),
        }
    )
