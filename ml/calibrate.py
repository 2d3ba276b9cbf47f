"""From raw margins to probabilities, risk bands and confidence.

Calibration is monotone and kept as plain numbers. Two shapes are tried on the
calibration period, each point predicted from the other students' points, and the
one with the lower Brier score is taken:

- sigmoid: `1 / (1 + exp(-(slope * margin + intercept)))`
- isotonic: steps, joined by lines, with a thousandth of the sigmoid mixed in, so
  that two students with different margins never share a probability.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import GroupKFold

SIGMOID = "sigmoid"
ISOTONIC = "isotonic"
# Keeps the order of the margins also where calibration finds no signal at all.
SMALLEST_SLOPE = 1e-3
SIGMOID_SHARE = 1e-3
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
        if self.method == SIGMOID:
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


def fit_calibration(
    margins: np.ndarray, labels: np.ndarray, students: np.ndarray
) -> Calibration:
    """Choose and fit the map; a student's points never judge their own fit."""
    held_out = {
        method: _held_out_brier(method, margins, labels, students)
        for method in (SIGMOID, ISOTONIC)
    }
    # Equal: the sigmoid, which has two numbers to get wrong instead of many.
    better = held_out[ISOTONIC] < held_out[SIGMOID]
    return _fit(ISOTONIC if better else SIGMOID, margins, labels, held_out)


def _held_out_brier(
    method: str, margins: np.ndarray, labels: np.ndarray, students: np.ndarray
) -> float:
    folds = min(CROSS_FITS, len(set(students)))
    if folds < 2:
        return float("inf")
    predicted = np.zeros(len(labels))
    for kept, held_out in GroupKFold(folds).split(margins, labels, students):
        fitted = _fit(method, margins[kept], labels[kept], {})
        predicted[held_out] = fitted.apply(margins[held_out])
    return float(np.mean((predicted - labels) ** 2))


def _fit(
    method: str,
    margins: np.ndarray,
    labels: np.ndarray,
    held_out: dict[str, float],
) -> Calibration:
    slope, intercept = _fit_sigmoid(margins, labels)
    steps_margin: list[float] = []
    steps_probability: list[float] = []
    if method == ISOTONIC:
        steps = IsotonicRegression(y_min=0, y_max=1).fit(margins, labels)
        steps_margin = [float(value) for value in steps.X_thresholds_]
        steps_probability = [float(value) for value in steps.y_thresholds_]
    return Calibration(
        method, slope, intercept, steps_margin, steps_probability, held_out
    )


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
