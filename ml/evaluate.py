"""The evaluation, once, on the test period: figures, intervals, and the verdict."""

from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml.baselines import BASELINES
from ml.boosting import CORES, SEED
from ml.metrics import (
    Resamples,
    average_precision,
    base_rate,
    draw_resamples,
    equal_count_bins,
    percentile_interval,
    probability_metrics,
    ranking_metrics,
    reflected_interval,
)

POOLED = -1
RESAMPLES = 200
# Brier score and its kin mean nothing for scores that are no probabilities.
PROBABILITIES = ("model", "course_rate", "logistic")
# Sums of squares or absolute values, which noise can only raise.
NOISE_RAISES = ("ece", "brier_reliability", "brier_resolution")
ZERO_IF_RIGHT = ("ece", "brier_reliability")
SCORERS = ("model", *BASELINES)
COLUMN_OF = {"model": "risk_score", **{name: f"baseline_{name}" for name in BASELINES}}
# The model has to beat these beyond the interval, and may be this much worse in
# PR-AUC than the logistic regression.
TO_BEAT = ("random", "rule", "course_rate")
LOGISTIC_MARGIN = 0.005
CALIBRATION_BINS = 10
# Of fewer points a share says nothing; a small course has fewer bins instead.
SMALLEST_BIN = 10


@dataclass(frozen=True)
class Verdict:
    """Whether the model may be used, and why."""

    refused: bool
    reason: str


# ---------------------------------------------------------------- figures


def evaluate(predictions: pd.DataFrame, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Measure the model and every baseline, per lead and segment.

    Intervals are the 2.5th and 97.5th percentile over resamples of students;
    differences between model and baseline use the same resamples for both.

    Parameters
    ----------
    predictions
        Rows of `evaluation_predictions` (without run_id), in key order.

    Returns
    -------
    pandas.DataFrame
        Rows of `model_metrics` without run_id, of split `test`.
    """
    parts = list(_parts(predictions))
    with ThreadPoolExecutor(CORES) as threads:
        tables = threads.map(lambda part: _measure(part, resamples), parts)
        return pd.concat(tables, ignore_index=True)


def _parts(predictions: pd.DataFrame) -> Iterator[tuple[int, str, pd.DataFrame]]:
    for lead, at_lead in by_lead(predictions):
        for segment, rows in segments(at_lead).items():
            if rows.any():
                yield lead, segment, at_lead[rows]


def segments(predictions: pd.DataFrame) -> dict[str, pd.Series]:
    """Rows of each segment; students who were written to are in `contacted` only."""
    contacted = predictions["contacted_before_due"]
    usual = ~contacted
    first = predictions["is_first_sitting"]
    new = predictions["run_began_in_test"]
    found = {
        "all": usual,
        "first": usual & first,
        "later": usual & ~first,
        "new_runs:all": usual & new,
        "new_runs:first": usual & new & first,
        "new_runs:later": usual & new & ~first,
        "contacted": contacted,
    }
    for course in sorted(predictions["course_id"].unique()):
        found[f"course={course}"] = usual & (predictions["course_id"] == course)
    return found


def _measure(of: tuple[int, str, pd.DataFrame], resamples: int) -> pd.DataFrame:
    lead, segment, part = of
    labels = part["at_risk"].to_numpy(dtype=np.int64)
    draws = draw_resamples(part["student_id"].to_numpy(), resamples, SEED)
    inside = None if segment.startswith("course=") else courses_of(part, draws)
    values: dict[tuple[str, str], np.ndarray] = {
        ("model", "base_rate"): base_rate(labels, draws)
    }
    for scorer in SCORERS:
        scores = part[COLUMN_OF[scorer]].to_numpy(dtype=float)
        found = ranking_metrics(labels, scores, draws)
        if inside is not None:
            found["pr_auc_within_course"] = within_course(
                labels, scores, inside, len(draws.weights)
            )
        if scorer in PROBABILITIES:
            found |= probability_metrics(labels, scores, draws)
        values |= {(scorer, metric): value for metric, value in found.items()}
    values |= _differences(values)
    rows = [summary(*name, value) for name, value in values.items()]
    _begin_at_zero(rows)
    return pd.DataFrame(rows).assign(
        split="test",
        lead_days=lead,
        segment=segment,
        rows=len(labels),
        positives=int(labels.sum()),
    )


def courses_of(
    part: pd.DataFrame, draws: Resamples
) -> list[tuple[np.ndarray, Resamples]]:
    """Rows of each course with both classes, and the draws of its students."""
    courses, labels = part["course_id"].to_numpy(), part["at_risk"].to_numpy()
    rows_of = (courses == course for course in np.unique(courses))
    return [
        (rows, draws.take(rows))
        for rows in rows_of
        if 0 < labels[rows].sum() < rows.sum()
    ]


def within_course(
    labels: np.ndarray,
    scores: np.ndarray,
    inside: list[tuple[np.ndarray, Resamples]],
    resamples: int,
) -> np.ndarray:
    """Mean over courses of the PR-AUC inside each; NaN where there is none."""
    found = [
        average_precision(labels[rows], scores[rows], draws) for rows, draws in inside
    ]
    stacked = np.array(found).reshape(-1, resamples)
    known = ~np.isnan(stacked)
    sums = np.where(known, stacked, 0).sum(axis=0)
    counts = known.sum(axis=0)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _differences(
    values: dict[tuple[str, str], np.ndarray],
) -> dict[tuple[str, str], np.ndarray]:
    """Model minus baseline, resample by resample."""
    return {
        ("model", f"{metric}_minus_{baseline}"): values["model", metric]
        - values[baseline, metric]
        for metric in ("pr_auc", "pr_auc_within_course")
        for baseline in BASELINES
        if ("model", metric) in values
    }


def summary(scorer: str, metric: str, values: np.ndarray) -> dict[str, Any]:
    """The figure, and its interval where most resamples have one."""
    interval = reflected_interval if metric in NOISE_RAISES else percentile_interval
    low, high = interval(values)
    return {
        "scorer": scorer,
        "metric": metric,
        "value": float(values[0]),
        "ci_low": low,
        "ci_high": high,
    }


def _begin_at_zero(rows: list[dict[str, Any]]) -> None:
    """Where noise alone could make this ECE, its interval begins at 0."""
    found = {(row["scorer"], row["metric"]): row for row in rows}
    for scorer in PROBABILITIES:
        noise = found[scorer, "ece_if_calibrated"]["ci_high"]
        if found[scorer, "ece"]["value"] <= noise:
            for metric in ZERO_IF_RIGHT:
                found[scorer, metric]["ci_low"] = 0.0


# ---------------------------------------------------------------- verdict


def judge(metrics: pd.DataFrame, headline: int) -> Verdict:
    """Refuse a model that is no better than what needs no model.

    At the headline lead its PR-AUC has to beat random, the rule and the course rate
    beyond the paired interval (lower end above 0). The logistic regression must not
    be ahead by more than the margin, unless that may be chance (the interval of the
    difference holds 0): on a small test period a model that is as good would
    otherwise be refused nearly every other time.
    """
    at_headline = metrics[
        (metrics["lead_days"] == headline)
        & (metrics["segment"] == "all")
        & (metrics["scorer"] == "model")
        & (metrics["split"] == "test")
    ]
    rows = {row["metric"]: row for row in at_headline.to_dict("records")}
    behind = []
    for baseline in TO_BEAT:
        row = rows[f"pr_auc_minus_{baseline}"]
        if not row["ci_low"] > 0:
            behind.append(f"{baseline} ({_interval(row)})")
    row = rows["pr_auc_minus_logistic"]
    if not (row["value"] >= -LOGISTIC_MARGIN or row["ci_high"] >= 0):
        behind.append(f"logistic regression ({_interval(row)})")
    model = rows["pr_auc"]
    start = f"PR-AUC {model['value']:.3f} at lead {headline}"
    if behind:
        return Verdict(True, f"{start} is not better than {', '.join(behind)}.")
    return Verdict(
        False,
        f"{start} beats random, the rule and the course rate; against logistic "
        f"regression: {_interval(row)}.",
    )


def _interval(row: dict[Hashable, Any]) -> str:
    return (
        f"difference {row['value']:+.3f}, 95 % interval "
        f"{row['ci_low']:+.3f} to {row['ci_high']:+.3f}"
    )


# ---------------------------------------------------------------- curves


def calibration_curve(points: pd.DataFrame, split: str) -> pd.DataFrame:
    """Predicted against observed risk in equal-count bins: overall and by course,
    each per lead and pooled.

    Parameters
    ----------
    points
        Columns at_risk, risk_score, lead_days and course_id; one row per point.
    """
    tables = [
        _calibration_bins(
            part["at_risk"].to_numpy(dtype=int), part["risk_score"].to_numpy()
        ).assign(split=split, lead_days=lead, segment=segment)
        for lead, at_lead in by_lead(points)
        for segment, part in _all_and_courses(at_lead)
    ]
    return pd.concat(tables, ignore_index=True)


def _all_and_courses(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "all", points
    for course, part in points.groupby("course_id"):
        yield f"course={course}", part


def _calibration_bins(labels: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    wanted = min(CALIBRATION_BINS, max(1, len(scores) // SMALLEST_BIN))
    frame = pd.DataFrame(
        {
            "bin": equal_count_bins(scores, wanted) + 1,
            "score": scores,
            "label": labels,
        }
    )
    bins = frame.groupby("bin").agg(
        mean_predicted=("score", "mean"),
        observed_rate=("label", "mean"),
        rows=("label", "size"),
    )
    low, high = wilson_interval(
        bins["observed_rate"].to_numpy(), bins["rows"].to_numpy()
    )
    return bins.assign(ci_low=low, ci_high=high).reset_index()


def wilson_interval(
    share: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a share; honest for small counts and near 0 and 1."""
    z = 1.959963984540054
    under = 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / under
    half = z / under * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def by_lead(points: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """All points as lead -1, then those of each lead, the longest first."""
    yield POOLED, points
    for lead in sorted(points["lead_days"].unique(), reverse=True):
        yield int(lead), points[points["lead_days"] == lead]
