"""The metrics, for many weightings of the same points at once.

A bootstrap by student is a weighting: a student drawn twice counts twice. Points
are sorted once, and every resample is a row of weights. All functions return one
value per row; NaN where a metric is not defined (one class only).

Ties are treated as scikit-learn does: points with one score are taken together.
"""

from collections.abc import Sequence
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
# The ranking is gone through in pieces that a processor keeps at hand, and adds them
# up in strides.
CACHED = 100_000
STRIDE = 16


@dataclass(frozen=True)
class Resamples:
    """How often each student counts in each resample.

    `weights` has one row per resample and one column per student; `student` is the
    column of each point. The first row is the data as it is.
    """

    weights: np.ndarray
    student: np.ndarray

    def take(self, rows: np.ndarray) -> "Resamples":
        """The same draws for some of the points, without the students of the others."""
        student = self.student[rows]
        is_there = np.bincount(student, minlength=self.weights.shape[1]) > 0
        place = np.cumsum(is_there) - 1
        return Resamples(np.asfortranarray(self.weights[:, is_there]), place[student])

    @cached_property
    def count(self) -> np.ndarray:
        """Points drawn in each resample."""
        return self.totals(np.ones(len(self.student)))

    def totals(self, values: np.ndarray) -> np.ndarray:
        """Weighted sum of a value per point, for each resample."""
        return self.totals_of(values)[0]

    def totals_of(self, *values: np.ndarray) -> list[np.ndarray]:
        """The same of several values, for the price of little more than one."""
        everybody = np.zeros(len(self.student), dtype=np.int64)
        return [sums[:, 0] for sums in self.totals_by_group(values, everybody, 1)]

    def totals_by_group(
        self, values: Sequence[np.ndarray], group: np.ndarray, groups: int
    ) -> list[np.ndarray]:
        """The same for each group of points: one row per resample, one column each."""
        students = self.weights.shape[1]
        cell = self.student * groups + group
        by_student = [
            np.bincount(cell, weights=each, minlength=students * groups)
            for each in values
        ]
        together = np.hstack([sums.reshape(students, groups) for sums in by_student])
        return np.split(self._exact_weights @ together, len(values), axis=1)

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
    # The draws of a student are read together.
    return Resamples(np.asfortranarray(weights), student)


@dataclass(frozen=True)
class _Ranking:
    """Points by falling score: cells of one score and one student, ties of one score.

    A student's points of one score count together, so that a score with few values
    has few cells.
    """

    student: np.ndarray  # column of the weights, by cell
    points: np.ndarray  # points in each cell
    failing: np.ndarray  # failing ones among them
    start: np.ndarray  # first cell of each tie, and the number of cells as the last


def _rank(labels: np.ndarray, scores: np.ndarray, student: np.ndarray) -> _Ranking:
    order = np.argsort(-scores, kind="stable")
    scores, student = scores[order], student[order]
    new_score = np.append(True, scores[1:] != scores[:-1])
    new_cell = new_score | np.append(True, student[1:] != student[:-1])
    first = np.flatnonzero(new_cell)
    return _Ranking(
        student[first],
        np.diff(np.append(first, len(order))),
        np.add.reduceat(labels[order], first),
        np.append(np.flatnonzero(new_score[first]), len(first)),
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
    top = TOP_SHARE * resamples.count
    found = _walk_down(_rank(labels, scores, resamples.student), resamples, top)
    return {
        "pr_auc": _ratio(found.precision, found.hits),
        "roc_auc": _ratio(found.pairs, found.hits * (found.points - found.hits)),
        "precision_at_10pct": _ratio(found.top_hits, top),
        "recall_at_10pct": _ratio(found.top_hits, found.hits),
    }


def average_precision(
    labels: np.ndarray, scores: np.ndarray, resamples: Resamples
) -> np.ndarray:
    """PR-AUC alone."""
    return ranking_metrics(labels, scores, resamples)["pr_auc"]


@dataclass
class _Walk:
    """What has been met from the highest score down to a tie, in each resample.

    `precision` adds up the precision at each failing point, `places` the place of each
    failing point (of a tie its middle), `top_hits` the failing points within the first
    `top` (of a tie across the end, its share).
    """

    top: np.ndarray
    points: np.ndarray
    hits: np.ndarray
    precision: np.ndarray
    places: np.ndarray
    top_hits: np.ndarray

    @property
    def pairs(self) -> np.ndarray:
        """Pairs of a failing and a passing point in the right order, by the rank sum
        (Mann and Whitney 1947); a pair of one score counts half."""
        return self.hits * self.points - self.hits**2 / 2 - self.places

    def step(self, points: np.ndarray, hits: np.ndarray, failing: np.ndarray) -> None:
        """Meet the next ties.

        Parameters
        ----------
        points
            Points drawn in each tie: one row per tie, one column per resample.
        hits
            Failing ones among them, for the ties that have any.
        failing
            Rows of these ties.
        """
        in_top = (self.points < self.top).any()
        met = _running_sums(points)
        above, self.points = self.points, self.points + met[-1]
        if not len(failing):
            return
        tied, met = points[failing], met[failing] + above
        found = _running_sums(hits) + self.hits
        self.hits = found[-1].copy()
        if in_top:
            share = np.clip((self.top - met + tied) / np.maximum(tied, 1), 0, 1)
            self.top_hits += np.einsum("tr,tr->r", hits, share)
        found /= np.maximum(met, 1)
        self.precision += np.einsum("tr,tr->r", hits, found)
        met -= tied / 2
        self.places += np.einsum("tr,tr->r", hits, met)


def _running_sums(rows: np.ndarray) -> np.ndarray:
    """Sums from the first row to each; numpy's cumsum down columns takes three times
    as long."""
    sums = rows.copy()
    whole = len(sums) // STRIDE * STRIDE
    strides = sums[:whole].reshape(-1, STRIDE, sums.shape[1])
    for place in range(1, STRIDE):
        strides[:, place] += strides[:, place - 1]
    ends = np.cumsum(strides[:, -1], axis=0)
    strides[1:] += ends[:-1, None]
    rest = sums[whole:]
    np.cumsum(rest, axis=0, out=rest)
    if whole:
        rest += ends[-1]
    return sums


def _walk_down(ranking: _Ranking, resamples: Resamples, top: np.ndarray) -> _Walk:
    """Go through the ties by falling score, as many at a time as a cache holds."""
    # A row per student: what is read together lies together.
    weights = resamples.weights.T
    at_once = max(1, CACHED // weights.shape[1])
    walk = _Walk(top, *np.zeros((5, len(top))))
    start, begin = ranking.start, 0
    while begin < len(start) - 1:
        last = int(np.searchsorted(start, start[begin] + at_once, side="right")) - 1
        end = max(begin + 1, last)
        cells = slice(start[begin], start[end])
        drawn = np.take(weights, ranking.student[cells], axis=0)
        tie = np.repeat(np.arange(end - begin), np.diff(start[begin : end + 1]))
        failing = np.flatnonzero(ranking.failing[cells])
        walk.step(
            _by_tie(drawn, ranking.points[cells], tie),
            _by_tie(drawn[failing], ranking.failing[cells][failing], tie[failing]),
            tie[failing][_first_of_each(tie[failing])],
        )
        begin = end
    return walk


def _by_tie(drawn: np.ndarray, points: np.ndarray, tie: np.ndarray) -> np.ndarray:
    """Points drawn in each tie, from how often each cell's student was."""
    if (points != 1).any():
        drawn = drawn * points[:, None].astype(np.float32)
    first = _first_of_each(tie)
    if len(first) == len(tie):
        return drawn
    return np.add.reduceat(drawn, first, axis=0)


def _first_of_each(tie: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.append(True, tie[1:] != tie[:-1])[: len(tie)])


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
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    losses = -(labels * np.log(clipped) + (1 - labels) * np.log(1 - clipped))
    squared, lost = resamples.totals_of((scores - labels) ** 2, losses)
    bins = _bin_totals(labels, scores, resamples)
    slope, intercept = recalibration(labels, scores, resamples)
    return {
        "brier": _ratio(squared, resamples.count),
        "log_loss": _ratio(lost, resamples.count),
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
    values = (np.ones(len(labels)), scores, labels, scores**2, scores * labels)
    return BinTotals(*resamples.totals_by_group(values, bins, ECE_BINS))


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
    line, residual = design[:, 0], labels - chance
    weight = chance * (1 - chance)
    *sums, failing = resamples.totals_of(
        line * residual,
        residual,
        weight * line * line,
        weight * line,
        weight,
        labels,
    )
    steps = _solve_pairs(sums[:2], sums[2:])
    steps[0] = 0.0
    one_class = (failing <= 0) | (failing >= resamples.count)
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
    return _ratio(resamples.totals(labels), resamples.count)


def equal_count_bins(scores: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each point from 0, by rank; equal scores may fall into two bins."""
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return ranks * bins // max(1, len(scores))


def _ratio(
    over: np.ndarray, under: np.ndarray, empty: float = float("nan")
) -> np.ndarray:
    return np.divide(over, under, out=np.full(over.shape, empty), where=under > 0)
