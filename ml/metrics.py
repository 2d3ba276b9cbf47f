"""The metrics, for many weightings of the same points at once.

A bootstrap by student is a weighting: a student drawn twice counts twice. Points
are sorted once, and every resample is a row of weights. All functions return one
value per row; NaN where a metric is not defined (one class only).

Ties are treated as scikit-learn does: points with one score are taken together.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

TOP_SHARE = 0.1
ECE_BINS = 10
# Weights are handled in blocks of about this many numbers.
BLOCK = 2_000_000


@dataclass(frozen=True)
class Resamples:
    """How often each student counts in each resample.

    `weights` has one row per resample and one column per student; `student` is the
    column of each point. The first row is the data as it is.
    """

    weights: np.ndarray
    student: np.ndarray

    def take(self, rows: np.ndarray) -> "Resamples":
        """The same draws for some of the points."""
        return Resamples(self.weights, self.student[rows])

    def totals(self, values: np.ndarray) -> np.ndarray:
        """Weighted sum of a value per point, for each resample."""
        by_student = np.bincount(
            self.student, weights=values, minlength=self.weights.shape[1]
        )
        return self._exact_weights @ by_student

    @cached_property
    def _exact_weights(self) -> np.ndarray:
        return self.weights.astype(np.float64)


def draw_resamples(students: np.ndarray, resamples: int, seed: int) -> Resamples:
    """Draw students with replacement; the first row is everybody once."""
    student, names = pd.factorize(students, sort=True)
    count = len(names)
    random = np.random.default_rng(seed)
    weights = np.ones((resamples + 1, count), dtype=np.float32)
    for row in weights[1:]:
        row[:] = np.bincount(random.integers(0, count, count), minlength=count)
    return Resamples(weights, student)


@dataclass(frozen=True)
class _Ranking:
    """Points by falling score, and the ties among them.

    Only ties that hold a failing point move a curve, so the rest is passed over.
    """

    student: np.ndarray  # column of the weights, by position
    tie: np.ndarray  # number of the tie, by position
    start: np.ndarray  # first position of each tie
    end: np.ndarray  # position after the last of each tie
    failing: np.ndarray  # positions of the failing points
    failing_tie: np.ndarray  # ties that hold failing points
    failing_first: np.ndarray  # where each of these begins in `failing`


def _rank(labels: np.ndarray, scores: np.ndarray, student: np.ndarray) -> _Ranking:
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    start = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    end = np.append(start[1:], len(order))
    tie = np.repeat(np.arange(len(start)), end - start)
    failing = np.flatnonzero(labels[order] == 1)
    failing_tie, failing_first = np.unique(tie[failing], return_index=True)
    return _Ranking(
        student[order], tie, start, end, failing, failing_tie, failing_first
    )


def ranking_metrics(
    labels: np.ndarray, scores: np.ndarray, resamples: Resamples
) -> dict[str, np.ndarray]:
    """PR-AUC (average precision), ROC-AUC, precision and recall in the top tenth."""
    names = ("pr_auc", "roc_auc", "precision_at_10pct", "recall_at_10pct")
    rows = len(resamples.weights)
    if not labels.any():
        values = {name: np.full(rows, np.nan) for name in names}
        return values | {"precision_at_10pct": np.zeros(rows)}
    ranking = _rank(labels, scores, resamples.student)
    step = max(1, BLOCK // len(labels))
    blocks = [
        _ranking_block(ranking, resamples.weights[start : start + step])
        for start in range(0, rows, step)
    ]
    return {name: np.concatenate([b[name] for b in blocks]) for name in names}


def average_precision(
    labels: np.ndarray, scores: np.ndarray, resamples: Resamples
) -> np.ndarray:
    """PR-AUC alone."""
    return ranking_metrics(labels, scores, resamples)["pr_auc"]


def _ranking_block(ranking: _Ranking, weights: np.ndarray) -> dict[str, np.ndarray]:
    drawn = np.take(weights, ranking.student, axis=1)
    # Whole numbers far below 2^24: float32 adds them exactly.
    before = np.zeros((len(drawn), drawn.shape[1] + 1), dtype=np.float32)
    np.cumsum(drawn, axis=1, out=before[:, 1:])
    gained = np.add.reduceat(
        drawn[:, ranking.failing], ranking.failing_first, axis=1, dtype=np.float64
    )
    hits = np.cumsum(gained, axis=1)
    total = before[:, ranking.end[ranking.failing_tie]].astype(np.float64)
    passed_over = before[:, ranking.start[ranking.failing_tie]].astype(np.float64)
    positives = hits[:, -1]
    everybody = before[:, -1].astype(np.float64)
    negatives = everybody - positives
    below = negatives[:, None] - (total - hits)
    beside = total - passed_over - gained
    top, size = _top_hits(ranking, before, hits, gained)
    return {
        "pr_auc": _ratio(np.sum(gained * _ratio(hits, total, 0.0), axis=1), positives),
        "roc_auc": _ratio(
            np.sum(gained * (below + beside / 2), axis=1), positives * negatives
        ),
        "precision_at_10pct": _ratio(top, size),
        "recall_at_10pct": _ratio(top, positives),
    }


def _top_hits(
    ranking: _Ranking, before: np.ndarray, hits: np.ndarray, gained: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Failing points in the top tenth; of a tie that lies across it, its share."""
    size = TOP_SHARE * before[:, -1].astype(np.float64)
    rows = np.arange(len(before))
    last = [
        int(np.searchsorted(row[1:], k)) for row, k in zip(before, size, strict=True)
    ]
    tie = ranking.tie[np.minimum(last, len(ranking.tie) - 1)]
    above = before[rows, ranking.start[tie]]
    share = _ratio(size - above, before[rows, ranking.end[tie]] - above, 0.0)
    found = np.searchsorted(ranking.failing_tie, tie)
    hits_above = np.where(found > 0, hits[rows, np.maximum(found - 1, 0)], 0.0)
    at = np.minimum(found, len(ranking.failing_tie) - 1)
    inside = np.where(ranking.failing_tie[at] == tie, gained[rows, at], 0.0)
    return hits_above + share * inside, size


def probability_metrics(
    labels: np.ndarray, scores: np.ndarray, resamples: Resamples
) -> dict[str, np.ndarray]:
    """Brier score, log loss and expected calibration error (ten equal-count bins)."""
    count = resamples.totals(np.ones(len(labels)))
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    losses = -(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped))
    return {
        "brier": _ratio(resamples.totals((scores - labels) ** 2), count),
        "log_loss": _ratio(resamples.totals(losses), count),
        "ece": _ratio(_calibration_gap(labels, scores, resamples), count),
    }


def base_rate(labels: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Share that fails."""
    return _ratio(
        resamples.totals(labels.astype(float)), resamples.totals(np.ones(len(labels)))
    )


def equal_count_bins(scores: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each point from 0, by rank; equal scores may fall into two bins."""
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return ranks * bins // max(1, len(scores))


def _calibration_gap(
    labels: np.ndarray, scores: np.ndarray, resamples: Resamples
) -> np.ndarray:
    bins = equal_count_bins(scores, ECE_BINS)
    gaps = [
        np.abs(resamples.totals((scores - labels) * (bins == number)))
        for number in range(ECE_BINS)
    ]
    return np.sum(gaps, axis=0)


def _ratio(
    over: np.ndarray, under: np.ndarray, empty: float = float("nan")
) -> np.ndarray:
    return np.divide(over, under, out=np.full(over.shape, empty), where=under > 0)
