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
from scipy.special import expit, logit

TOP_SHARE = 0.1
ECE_BINS = 10
# Nearer to 0 and 1 a probability has no log-odds to work with.
CLIP = 1e-7
NEWTON_STEPS = 50
NEWTON_TOLERANCE = 1e-9
WORST_CONDITION = 1e12
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

    def totals_by_group(
        self, values: np.ndarray, group: np.ndarray, groups: int
    ) -> np.ndarray:
        """The same for each group of points: one row per resample, one column each."""
        students = self.weights.shape[1]
        sums = np.bincount(
            self.student * groups + group, weights=values, minlength=students * groups
        )
        return self._exact_weights @ sums.reshape(students, groups)

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
    """How right probabilities are.

    Returns
    -------
    dict
        `brier`, `log_loss`; `ece`, the expected calibration error over ten
        equal-count bins, and `ece_if_calibrated`; the parts of `brier_parts`; and
        `calibration_slope` and `calibration_intercept` of `recalibration`.
    """
    count = resamples.totals(np.ones(len(labels)))
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    losses = -(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped))
    bins = _bin_totals(labels, scores, resamples)
    slope, intercept = recalibration(labels, scores, resamples)
    return {
        "brier": _ratio(resamples.totals((scores - labels) ** 2), count),
        "log_loss": _ratio(resamples.totals(losses), count),
        **calibration_errors(bins),
        **brier_parts(bins),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
    }


@dataclass(frozen=True)
class BinTotals:
    """Weighted sums over the points of each bin: one row per resample, one column
    per bin. `score_score` and `score_label` are sums of products."""

    count: np.ndarray
    score: np.ndarray
    label: np.ndarray
    score_score: np.ndarray
    score_label: np.ndarray


def _bin_totals(
    labels: np.ndarray, scores: np.ndarray, resamples: Resamples
) -> BinTotals:
    bins = equal_count_bins(scores, ECE_BINS)
    return BinTotals(
        *(
            resamples.totals_by_group(values, bins, ECE_BINS)
            for values in (
                np.ones(len(labels)),
                scores,
                labels.astype(float),
                scores**2,
                scores * labels,
            )
        )
    )


def calibration_errors(bins: BinTotals) -> dict[str, np.ndarray]:
    """Expected calibration error, and what it would be without any miscalibration.

    `ece` takes the absolute value of ten differences, each with noise in it, so that
    even perfect probabilities have an ECE above 0 (Roelofs et al. 2022).
    `ece_if_calibrated` is that floor: how far the resamples' differences stray from
    the measured ones, which is the noise alone, clustered by student as the data is.
    Its value is the mean over the resamples.
    """
    total = bins.count.sum(axis=1, keepdims=True)
    gaps = _ratio(bins.score - bins.label, np.broadcast_to(total, bins.score.shape))
    noise = np.abs(gaps - gaps[0]).sum(axis=1)
    noise[0] = noise[1:].mean() if len(noise) > 1 else np.nan
    return {"ece": np.abs(gaps).sum(axis=1), "ece_if_calibrated": noise}


def brier_parts(bins: BinTotals) -> dict[str, np.ndarray]:
    """The Brier score taken apart over the bins of `ece`.

    Reliability, resolution and uncertainty are Murphy's (1973). Scores differ within
    a bin, so the two within-bin terms of Stephenson et al. (2008) make the sum exact:
    brier = reliability - resolution + uncertainty + within-bin variance
    - within-bin covariance.
    """
    count = bins.count
    total = count.sum(axis=1)
    score, label = _ratio(bins.score, count, 0.0), _ratio(bins.label, count, 0.0)
    rate = _ratio(bins.label.sum(axis=1), total)

    def mean(sums: np.ndarray) -> np.ndarray:
        return _ratio(sums.sum(axis=1), total)

    return {
        "brier_reliability": mean(count * (score - label) ** 2),
        "brier_resolution": mean(count * (label - rate[:, None]) ** 2),
        "brier_uncertainty": rate * (1 - rate),
        "brier_within_bin_variance": mean(bins.score_score - count * score**2),
        "brier_within_bin_covariance": 2
        * mean(bins.score_label - count * score * label),
    }


def recalibration(
    labels: np.ndarray, scores: np.ndarray, resamples: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of the outcome's log-odds on the score's (Cox 1958).

    Right probabilities have slope 1 and intercept 0; a slope below 1 says that they
    are too extreme. The fit is exact for the data as it is; each resample takes one
    Newton step from there, the one-step bootstrap (Moulton and Zeger 1991), because
    hundreds of fits would take longer than the rest of the evaluation. NaN where
    one class is missing or the scores are all the same.
    """
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    design = np.column_stack([np.log(clipped / (1 - clipped)), np.ones(len(scores))])
    nothing = np.full((len(resamples.weights), 2), np.nan)
    if not 0 < labels.sum() < len(labels):
        return nothing[:, 0], nothing[:, 1]
    found = _fit_logistic(design, labels)
    if found is None:
        return nothing[:, 0], nothing[:, 1]
    chance = expit(design @ found)
    slopes = [resamples.totals(column * (labels - chance)) for column in design.T]
    weight = chance * (1 - chance)
    curvature = [
        resamples.totals(weight * first * second)
        for first, second in (
            (design[:, 0], design[:, 0]),
            (design[:, 0], design[:, 1]),
            (design[:, 1], design[:, 1]),
        )
    ]
    steps = _solve_pairs(slopes, curvature)
    steps[0] = 0.0
    failing = resamples.totals(labels.astype(float))
    one_class = (failing <= 0) | (failing >= resamples.totals(np.ones(len(labels))))
    steps[one_class] = np.nan
    return found[0] + steps[:, 0], found[1] + steps[:, 1]


def _fit_logistic(design: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Newton's method; None where it does not settle: one score, or a score that
    separates the classes."""
    # From the base rate: from slope 1, risks far too low or too high overshoot.
    found = np.array([0.0, logit(labels.mean())])
    for _ in range(NEWTON_STEPS):
        chance = expit(design @ found)
        weight = chance * (1 - chance)
        curvature = (design * weight[:, None]).T @ design
        if np.linalg.cond(curvature) > WORST_CONDITION:
            return None
        step = np.linalg.solve(curvature, design.T @ (labels - chance))
        found = found + step
        if np.abs(step).max() < NEWTON_TOLERANCE:
            return found
    return None


def _solve_pairs(right: list[np.ndarray], curvature: list[np.ndarray]) -> np.ndarray:
    """Solutions of many symmetric two-by-two systems, one per row."""
    first, across, second = curvature
    determinant = first * second - across**2
    return np.column_stack(
        [
            _ratio(second * right[0] - across * right[1], determinant),
            _ratio(first * right[1] - across * right[0], determinant),
        ]
    )


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """2.5th and 97.5th percentile over the resamples (all rows but the first); NaN
    where the figure, or half of the resamples, is not defined."""
    drawn = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or len(drawn) <= len(values) / 2:
        return float("nan"), float("nan")
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def reflected_interval(values: np.ndarray) -> tuple[float, float]:
    """Interval of a figure that noise can only raise: the percentiles, mirrored.

    Drawing anew adds noise a second time, so percentiles lie too high by what the
    figure itself already is. Mirroring them around the figure (the basic bootstrap
    interval, Davison and Hinkley 1997, section 5.2) takes it off twice. It ends at 0
    below, and holds the figure.
    """
    low, high = percentile_interval(values)
    value = float(values[0])
    if np.isnan(low):
        return low, high
    return max(0.0, 2 * value - high), max(value, 2 * value - low)


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


def _ratio(
    over: np.ndarray, under: np.ndarray, empty: float = float("nan")
) -> np.ndarray:
    return np.divide(over, under, out=np.full(over.shape, empty), where=under > 0)
