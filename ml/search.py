"""The search: 15 candidates, by default, on 3 folds grouped by student, by PR-AUC."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb
from scipy.stats import loguniform, randint, uniform
from sklearn.metrics import average_precision_score
from sklearn.model_selection import ParameterSampler, StratifiedGroupKFold

from ml.boosting import (
    CORES,
    SEARCH_BINS,
    SEED,
    fit,
    give_back_memory,
    search_margins,
    search_matrix,
    stand_ins,
    training_matrix,
)
from ml.dataset import FOLDS
from ml.features import FeatureContract

CANDIDATES = 15
# What a candidate may set: the columns `param_…` of the table.
PARAMETERS = [
    "colsample_bytree",
    "learning_rate",
    "max_depth",
    "min_child_weight",
    "n_estimators",
    "reg_lambda",
    "scale_pos_weight",
    "subsample",
]


@dataclass(frozen=True)
class SearchResult:
    """The winner's parameters and score, and the whole table."""

    parameters: dict[str, Any]
    best_score: float
    table: pd.DataFrame


@dataclass(frozen=True)
class Fold:
    """One fold: the other rows, binned once for all candidates, and which are its own.

    `rows` and `labels` are those of the whole search, not copies; `instead` is what
    stands for a missing value of each column.
    """

    train: xgb.QuantileDMatrix
    rows: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray
    instead: np.ndarray


@dataclass(frozen=True)
class Fit:
    """One candidate on one fold."""

    score: float
    fit_seconds: float
    score_seconds: float


def sample_candidates(
    fixed: dict[str, float], candidates: int = CANDIDATES
) -> list[dict[str, Any]]:
    """Draw the candidates; what a MODEL_ variable fixes is the same in all.

    scale_pos_weight is 1 unless it is fixed: it distorts the probabilities and does
    not help the ranking, which the imbalance table of every run shows.
    """
    space = {
        "n_estimators": randint(100, 501),
        "max_depth": randint(3, 7),
        "learning_rate": loguniform(0.02, 0.15),
        "subsample": uniform(0.5, 0.5),
        "colsample_bytree": uniform(0.3, 0.7),
        "min_child_weight": loguniform(1, 100),
        "reg_lambda": loguniform(1, 50),
    }
    drawn = ParameterSampler(space, n_iter=candidates, random_state=SEED)
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
    # The splitter sorts its groups: numbers in the same order cost it far less.
    groups, _ = pd.factorize(students, sort=True)
    return [held_out for _, held_out in splitter.split(groups, labels, groups)]


def run_search(
    rows: np.ndarray,
    labels: np.ndarray,
    students: np.ndarray,
    contract: FeatureContract,
    fixed: dict[str, float],
    on_fit: Callable[[], None] = lambda: None,
    threads: int = CORES,
    candidates: int = CANDIDATES,
) -> SearchResult:
    """Fit every candidate on every fold and keep the best.

    Parameters
    ----------
    rows, labels, students
        Matrix of `ml.features.encode`, 0 or 1, and the group of each row.
    fixed
        Parameters that are not searched.
    on_fit
        Called after each fit, for a progress bar.
    threads
        Fits at the same time, on one core each; changes no result.
    candidates
        How many are drawn.
    """
    give_back_memory()
    drawn = sample_candidates(fixed, candidates)
    held_out = make_folds(labels, students)
    folds = (bin_fold(rows, labels, fold, contract) for fold in held_out)
    return choose_best(drawn, _fit_all(drawn, folds, on_fit, threads))


def choose_best(
    candidates: list[dict[str, Any]], fits: list[list[Fit]]
) -> SearchResult:
    """The candidate with the best mean score; `fits` has one list per fold."""
    table = _results_table(candidates, fits)
    # Among equals the first drawn wins.
    best = int(table["mean_test_score"].argmax())
    return SearchResult(
        parameters=candidates[best],
        best_score=float(table["mean_test_score"].iloc[best]),
        table=table,
    )


def fit_folds(
    rows: np.ndarray,
    labels: np.ndarray,
    students: np.ndarray,
    contract: FeatureContract,
    parameters: dict[str, Any],
) -> list[xgb.Booster]:
    """The models of the folds for the chosen parameters, at full resolution."""

    def fit_fold(held_out: np.ndarray) -> xgb.Booster:
        others = _others(held_out, len(labels))
        matrix = training_matrix(rows[others], labels[others], contract)
        return fit(matrix, parameters)

    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(fit_fold, make_folds(labels, students)))


def bin_fold(
    rows: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    contract: FeatureContract,
) -> Fold:
    """Bin the rows that are not held out; every candidate uses the same bins."""
    others = _others(held_out, len(labels))
    instead = stand_ins(rows, others, contract)
    train = search_matrix(rows, labels, others, contract, instead)
    return Fold(train, rows, labels, held_out, instead)


def _others(held_out: np.ndarray, rows: int) -> np.ndarray:
    """Positions of the rows that are not held out."""
    return np.setdiff1d(np.arange(rows), held_out, assume_unique=True)


def _fit_all(
    candidates: list[dict[str, Any]],
    folds: Iterator[Fold],
    on_fit: Callable[[], None],
    threads: int,
) -> list[list[Fit]]:
    """Fit every candidate on every fold: one list per fold, in their order.

    The next fold is binned when a core has nothing left to do on this one, so that no
    core waits for another and no more than two folds are binned at a time.
    """
    # The longest last would leave the other cores idle at the end.
    order = sorted(range(len(candidates)), key=lambda n: -_cost(candidates[n]))
    submitted: list[dict[int, Future[Fit]]] = []
    with ThreadPoolExecutor(threads) as pool:
        for fold in folds:
            fits = {n: pool.submit(_fit_one, candidates[n], fold) for n in order}
            submitted.append(fits)
            for one in fits.values():
                one.add_done_callback(lambda _: on_fit())
            _wait_for_an_idle_core(list(fits.values()), threads)
    return [[fits[n].result() for n in sorted(fits)] for fits in submitted]


def _wait_for_an_idle_core(fits: list[Future[Fit]], threads: int) -> None:
    while len(running := [one for one in fits if not one.done()]) >= threads:
        wait(running, return_when=FIRST_COMPLETED)


def _cost(candidate: dict[str, Any]) -> float:
    """Roughly how long a fit takes, for the order only."""
    return float(candidate["n_estimators"]) * float(candidate["max_depth"])


def _fit_one(candidate: dict[str, Any], fold: Fold) -> Fit:
    started = time.perf_counter()
    model = fit(fold.train, candidate, SEARCH_BINS)
    fitted = time.perf_counter()
    scores = search_margins(model, fold.rows, fold.held_out, fold.instead)
    score = average_precision_score(fold.labels[fold.held_out], scores)
    scored = time.perf_counter()
    return Fit(float(score), fitted - started, scored - fitted)


def _results_table(
    candidates: list[dict[str, Any]], fits: list[list[Fit]]
) -> pd.DataFrame:
    """scikit-learn's `cv_results_`, with the number of each candidate.

    `params` is JSON. A parameter that no candidate sets is null in its column.
    """
    scores, fit_times, score_times = (
        np.array([[getattr(one, name) for one in fold] for fold in fits]).T
        for name in ("score", "fit_seconds", "score_seconds")
    )
    means = scores.mean(axis=1)
    return pd.DataFrame(
        {
            "candidate": range(len(candidates)),
            "mean_fit_time": fit_times.mean(axis=1),
            "std_fit_time": fit_times.std(axis=1),
            "mean_score_time": score_times.mean(axis=1),
            "std_score_time": score_times.std(axis=1),
            **{f"param_{p}": [c.get(p) for c in candidates] for p in PARAMETERS},
            "params": [json.dumps(c, sort_keys=True) for c in candidates],
            **{f"split{fold}_test_score": scores[:, fold] for fold in range(FOLDS)},
            "mean_test_score": means,
            "std_test_score": scores.std(axis=1),
            "rank_test_score": pd.Series(-means).rank(method="min").astype(int),
        }
    )
