"""From raw margins to probabilities, risk bands and confidence.

Calibration is monotone and kept as plain numbers:

- none: `1 / (1 + exp(-margin))`, less what scale_pos_weight adds to the margin. A
  model that is trained on log loss is calibrated on the period it was trained on.
- sigmoid: `1 / (1 + exp(-(slope * margin + intercept)))` (Platt 1999)
- isotonic: steps, joined by lines, with a thousandth of the sigmoid mixed in, so
  that two students with different margins never share a probability.

A map that is fitted on one period takes that period's own rate of failing for the
rule and can do harm in the next. So each shape is judged on a later time than it was
fitted on, and a shape replaces a simpler one only if its Brier score is better by
more than two standard errors. (Breiman et al. 1984, CART, 3.4.3, take one; but the
points of a period share that period's luck, which no standard error over students
sees.)
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import GroupKFold

NONE = "none"
SIGMOID = "sigmoid"
ISOTONIC = "isotonic"
# From simple to supple.
METHODS = (NONE, SIGMOID, ISOTONIC)
# Keeps the order of the margins also where calibration finds no signal at all.
SMALLEST_SLOPE = 1e-3
SIGMOID_SHARE = 1e-3
STANDARD_ERRORS = 2
CROSS_FITS = 5
HIGH_SHARE = 0.1


@dataclass(frozen=True)
class Calibration:
    """A monotone map from margin to probability."""

    method: str
    slope: float
    intercept: float
    steps_margin: list[float]
    steps_probability: list[float]
    held_out_brier: dict[str, float]

    def apply(self, margins: np.ndarray) -> np.ndarray:
        """Return probabilities strictly between 0 and 1, rising with the margin."""
        sigmoid = expit(self.slope * margins + self.intercept)
        if self.method != ISOTONIC:
            return sigmoid
        steps = np.interp(margins, self.steps_margin, self.steps_probability)
        return (1 - SIGMOID_SHARE) * steps + SIGMOID_SHARE * sigmoid

    def to_json(self) -> dict[str, Any]:
        """The map as the artifact keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class Bands:
    """Scores from which a risk is called high, or medium.

    high: what the tenth of the calibration period with the highest risk reaches;
    medium: the threshold with the best F1 there, never above high.
    """

    high: float
    medium: float
    best_f1_threshold: float

    def name(self, scores: np.ndarray) -> np.ndarray:
        """`high`, `medium` or `low` for each score."""
        return np.select(
            [scores >= self.high, scores >= self.medium], ["high", "medium"], "low"
        )

    def to_json(self) -> dict[str, float]:
        """The cuts as the artifact keeps them."""
        return asdict(self)


@dataclass(frozen=True)
class Scored:
    """Points with the margins of a model that was not trained on them."""

    margins: np.ndarray
    labels: np.ndarray
    students: np.ndarray


def fit_calibration(
    later: Scored, replay: tuple[Scored, Scored] | None, weight: float = 1.0
) -> Calibration:
    """Choose the shape and fit it on `later`.

    Parameters
    ----------
    later
        The calibration period.
    replay
        An earlier period, and the calibration period, with the margins of a model
        older than both: shapes are fitted on the first and judged on the second.
        None: judged by cross-fitting over students on `later`.
    weight
        scale_pos_weight of the model.
    """
    judged_on = replay[1] if replay else later

    def predict(method: str) -> np.ndarray:
        if replay:
            return fit_map(method, replay[0], weight).apply(judged_on.margins)
        return _cross_fitted(method, later, weight)

    errors = {method: (predict(method) - judged_on.labels) ** 2 for method in METHODS}
    chosen = choose_method(errors, judged_on.students)
    brier = {method: float(np.mean(error)) for method, error in errors.items()}
    return replace(fit_map(chosen, later, weight), held_out_brier=brier)


def choose_method(errors: dict[str, np.ndarray], students: np.ndarray) -> str:
    """The simplest shape that none beats by more than two standard errors.

    Parameters
    ----------
    errors
        Squared error of each point, for each of `METHODS`.
    students
        Whose points these are: the error of a difference is clustered by student.
    """
    chosen = NONE
    for name in METHODS[1:]:
        gain = errors[chosen] - errors[name]
        if gain.mean() > STANDARD_ERRORS * _standard_error(gain, students):
            chosen = name
    return chosen


def _standard_error(values: np.ndarray, students: np.ndarray) -> float:
    """Of the mean, where the points of one student are not independent."""
    student, names = pd.factorize(students)
    if len(names) < 2:
        return float("inf")
    by_student = np.bincount(student, weights=values - values.mean())
    share = len(names) / (len(names) - 1)
    return float(np.sqrt(share * np.sum(by_student**2)) / len(values))


def _cross_fitted(method: str, points: Scored, weight: float) -> np.ndarray:
    """Probabilities of each student's points from a map fitted without them."""
    folds = min(CROSS_FITS, len(set(points.students)))
    if folds < 2:
        return fit_map(NONE, points, weight).apply(points.margins)
    predicted = np.zeros(len(points.labels))
    for kept, held_out in GroupKFold(folds).split(
        points.margins, points.labels, points.students
    ):
        part = Scored(points.margins[kept], points.labels[kept], points.students[kept])
        fitted = fit_map(method, part, weight)
        predicted[held_out] = fitted.apply(points.margins[held_out])
    return predicted


def fit_map(method: str, points: Scored, weight: float = 1.0) -> Calibration:
    """Fit one shape; `none` needs no points."""
    if method == NONE:
        return Calibration(NONE, 1.0, -float(np.log(weight)), [], [], {})
    slope, intercept = _fit_sigmoid(points.margins, points.labels)
    steps_margin: list[float] = []
    steps_probability: list[float] = []
    if method == ISOTONIC:
        steps = IsotonicRegression(y_min=0, y_max=1).fit(points.margins, points.labels)
        steps_margin = [float(value) for value in steps.X_thresholds_]
        steps_probability = [float(value) for value in steps.y_thresholds_]
    return Calibration(method, slope, intercept, steps_margin, steps_probability, {})


def _fit_sigmoid(margins: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Platt's fit, with his smoothed targets, by Newton-like steps."""
    positives, negatives = labels.sum(), (1 - labels).sum()
    smoothed = np.where(
        labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2)
    )

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        line = weights[0] * margins + weights[1]
        value = np.mean(np.logaddexp(0, line) - smoothed * line)
        error = expit(line) - smoothed
        return float(value), np.array([np.mean(error * margins), np.mean(error)])

    found = minimize(
        loss,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(SMALLEST_SLOPE, None), (None, None)],
    )
    return float(found.x[0]), float(found.x[1])


def choose_bands(scores: np.ndarray, labels: np.ndarray) -> Bands:
    """Find the cuts on the calibration period."""
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    total = precision + recall
    f1 = np.divide(
        2 * precision * recall, total, out=np.zeros_like(total), where=total > 0
    )
    best = float(thresholds[int(np.argmax(f1[:-1]))])
    high = float(np.quantile(scores, 1 - HIGH_SHARE))
    return Bands(high=high, medium=min(best, high), best_f1_threshold=best)


def confidence(probabilities: np.ndarray) -> np.ndarray:
    """How much the models agree: 1 is full agreement, 0 the worst possible.

    The standard deviation of the models' probabilities is compared with the largest
    that numbers between 0 and 1 can have around the same mean,
    `sqrt(mean * (1 - mean))`. So a spread of 0.04 weighs more around 0.05 than
    around 0.5.

    Parameters
    ----------
    probabilities
        One row per point, one column per model (the final one and the folds').
    """
    mean = probabilities.mean(axis=1)
    largest = np.sqrt(mean * (1 - mean))
    spread = probabilities.std(axis=1)
    share = np.divide(spread, largest, out=np.zeros_like(spread), where=largest > 0)
    return np.clip(1 - share, 0.0, 1.0)
