"""The evaluation: segments, paired intervals, and the verdict."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from ml.evaluate import (
    POOLED,
    PROBABILITIES,
    _begin_at_zero,
    calibration_curve,
    evaluate,
    judge,
    segments,
    summary,
    wilson_interval,
)

COURSES = ["c1", "c2"]


def _predictions(rows: int = 600, seed: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    chance = random.random(rows)
    return pd.DataFrame(
        {
            "student_id": [f"s{n % 150}" for n in range(rows)],
            "course_id": random.choice(COURSES, rows),
            "lead_days": random.choice([14, 7], rows),
            "is_first_sitting": random.random(rows) < 0.3,
            "run_began_in_test": random.random(rows) < 0.5,
            "contacted_before_due": random.random(rows) < 0.1,
            "at_risk": (random.random(rows) < chance).astype(int),
            "risk_score": chance,
            "baseline_random": random.random(rows),
            "baseline_rule": np.round(chance * 2),
            "baseline_course_rate": 0.5,
            "baseline_logistic": np.clip(chance + random.normal(0, 0.3, rows), 0, 1),
        }
    )


PREDICTIONS = _predictions()
METRICS = evaluate(PREDICTIONS, resamples=100)


def _value(lead: int, segment: str, scorer: str, metric: str) -> pd.Series:
    found = METRICS[
        (METRICS["lead_days"] == lead)
        & (METRICS["segment"] == segment)
        & (METRICS["scorer"] == scorer)
        & (METRICS["metric"] == metric)
    ]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("segment", list(segments(PREDICTIONS)))
@pytest.mark.parametrize("lead", [POOLED, 14, 7])
def test_figures_are_those_of_the_segments_rows(lead: int, segment: str) -> None:
    part = PREDICTIONS[segments(PREDICTIONS)[segment]]
    part = part if lead == POOLED else part[part["lead_days"] == lead]
    row = _value(lead, segment, "rule", "pr_auc")
    expected = average_precision_score(part["at_risk"], part["baseline_rule"])
    assert row["value"] == pytest.approx(expected)
    assert row["rows"] == len(part)
    assert row["positives"] == part["at_risk"].sum()


def test_within_course_is_the_mean_over_the_courses() -> None:
    parts = [_value(14, f"course={name}", "model", "pr_auc") for name in COURSES]
    mean = np.mean([part["value"] for part in parts])
    row = _value(14, "all", "model", "pr_auc_within_course")
    assert row["value"] == pytest.approx(mean)


def test_contacted_students_are_in_no_other_segment() -> None:
    found = segments(PREDICTIONS)
    contacted = found.pop("contacted")
    assert contacted.any()
    for name, rows in found.items():
        assert not (rows & contacted).any(), name


def test_every_key_is_there_once_and_intervals_hold_the_figure() -> None:
    key = ["split", "lead_days", "segment", "scorer", "metric"]
    assert not METRICS.duplicated(key).any()
    ranked = METRICS[METRICS["metric"].isin(["pr_auc", "roc_auc", "brier"])]
    inside = (ranked["ci_low"] <= ranked["value"]) & (
        ranked["value"] <= ranked["ci_high"]
    )
    assert inside.mean() > 0.98
    rule = METRICS[METRICS["scorer"] == "rule"]
    assert "brier" not in set(rule["metric"])


def _measured_on(chance: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    """Figures of the model where `chance` is the truth and `score` what it says."""
    rows = len(chance)
    random = np.random.default_rng(3)
    points = _predictions(rows).assign(
        student_id=[f"s{n}" for n in range(rows)],
        lead_days=14,
        course_id="c1",
        contacted_before_due=False,
        at_risk=(random.random(rows) < chance).astype(int),
        risk_score=score,
    )
    metrics = evaluate(points, resamples=100)
    at = (metrics["lead_days"] == 14) & (metrics["segment"] == "all")
    return metrics[at & (metrics["scorer"] == "model")].set_index("metric")


def test_a_calibration_error_that_chance_explains_may_be_none() -> None:
    chance = np.random.default_rng(2).uniform(0.05, 0.95, 1000)
    right = _measured_on(chance, chance)
    assert right.loc["ece", "value"] > 0
    assert right.loc["ece", "ci_low"] == 0
    assert right.loc["brier_reliability", "ci_low"] == 0
    assert right.loc["ece", "ci_high"] >= right.loc["ece", "value"]
    wrong = _measured_on(chance, chance**2)
    floor = wrong.loc["ece_if_calibrated"]
    assert wrong.loc["ece", "ci_low"] > floor["ci_high"] > floor["value"] > 0
    # The truth: the mean of chance - chance ** 2, within bins all of one sign.
    truth = float(np.mean(chance - chance**2))
    assert wrong.loc["ece", "ci_low"] < truth < wrong.loc["ece", "ci_high"]


@pytest.mark.parametrize(("noise", "low"), [(0.03, 0.0), (0.02, 0.01)])
def test_an_interval_begins_at_zero_where_noise_reaches_the_figure(
    noise: float, low: float
) -> None:
    rows = [
        {"scorer": scorer, "metric": metric, "value": 0.03, "ci_low": 0.01}
        | {"ci_high": noise}
        for scorer in PROBABILITIES
        for metric in ("ece", "ece_if_calibrated", "brier_reliability", "brier")
    ]
    _begin_at_zero(rows)
    found = {row["metric"]: row["ci_low"] for row in rows}
    assert found["ece"] == found["brier_reliability"] == low
    assert found["brier"] == 0.01


@pytest.mark.parametrize(("metric", "low"), [("ece", 0.405), ("brier", 0.505)])
def test_what_noise_can_only_raise_has_a_mirrored_interval(
    metric: str, low: float
) -> None:
    values = np.append(0.55, np.linspace(0.5, 0.7, 1001))
    assert summary("model", metric, values)["ci_low"] == pytest.approx(low)


def test_figures_of_calibration_are_there_by_course() -> None:
    for metric in ("ece", "brier_resolution", "calibration_slope"):
        for segment in ("all", "course=c1", "course=c2"):
            row = _value(14, segment, "model", metric)
            assert row["ci_low"] <= row["value"] <= row["ci_high"]


def test_differences_are_paired() -> None:
    """A model against its own copy differs by nothing, in every resample."""
    copy = PREDICTIONS.assign(baseline_logistic=PREDICTIONS["risk_score"])
    metrics = evaluate(copy, resamples=50)
    row = metrics[metrics["metric"] == "pr_auc_minus_logistic"]
    assert (row[["value", "ci_low", "ci_high"]] == 0).all(axis=None)


def test_the_same_inputs_give_the_same_figures() -> None:
    pd.testing.assert_frame_equal(METRICS, evaluate(PREDICTIONS, resamples=100))


def test_students_are_resampled_not_rows() -> None:
    """Copies of a student's rows add rows but no knowledge."""
    copies = pd.concat([PREDICTIONS] * 4, ignore_index=True)
    metrics = evaluate(copies, resamples=100)
    key = ["lead_days", "segment", "scorer", "metric"]
    both = METRICS.merge(metrics, on=key, suffixes=("", "_copied"))
    both = both[(both["metric"] == "base_rate") & (both["segment"] == "all")]
    width = both["ci_high"] - both["ci_low"]
    copied = both["ci_high_copied"] - both["ci_low_copied"]
    np.testing.assert_allclose(width, copied)


# ---------------------------------------------------------------- verdict


def _metrics(**differences: tuple[float, float, float]) -> pd.DataFrame:
    """Differences to baselines as (value, lower end, upper end)."""
    usual = {
        "random": (0.3, 0.2, 0.4),
        "rule": (0.1, 0.05, 0.2),
        "course_rate": (0.2, 0.1, 0.3),
        "logistic": (0.01, -0.02, 0.04),
    }
    rows = [
        (f"pr_auc_minus_{name}", *figures)
        for name, figures in (usual | differences).items()
    ]
    table = pd.DataFrame(
        [("pr_auc", 0.6, 0.5, 0.7), *rows],
        columns=["metric", "value", "ci_low", "ci_high"],
    )
    return table.assign(lead_days=14, segment="all", scorer="model", split="test")


@pytest.mark.parametrize(
    ("differences", "refused"),
    [
        ({}, False),
        ({"rule": (0.1, 0.0, 0.2)}, True),
        ({"rule": (0.1, -0.01, 0.2)}, True),
        ({"random": (0.1, float("nan"), float("nan"))}, True),
        ({"course_rate": (-0.1, -0.2, 0.1)}, True),
        # Within the margin, however sure; beyond it, but perhaps by chance; both.
        ({"logistic": (-0.005, -0.006, -0.004)}, False),
        ({"logistic": (-0.03, -0.08, 0.0)}, False),
        ({"logistic": (-0.0051, -0.009, -0.001)}, True),
        ({"logistic": (float("nan"), float("nan"), float("nan"))}, True),
    ],
)
def test_a_model_is_refused_unless_it_beats_what_needs_no_model(
    differences: dict[str, tuple[float, float, float]], refused: bool
) -> None:
    verdict = judge(_metrics(**differences), headline=14)
    assert verdict.refused is refused
    for name in differences:
        told = "logistic regression" if name == "logistic" else name
        assert (f"{told} (" in verdict.reason) is refused


def test_every_baseline_that_was_not_beaten_is_named() -> None:
    verdict = judge(_metrics(rule=(0, -1, 1), course_rate=(0, -1, 1)), headline=14)
    assert "rule (" in verdict.reason
    assert "course_rate (" in verdict.reason


# ---------------------------------------------------------------- curves


def test_bins_hold_equal_counts_and_their_own_rates() -> None:
    points = pd.DataFrame(
        {
            "at_risk": np.tile([0, 1], 50),
            "risk_score": np.linspace(0, 1, 100),
            "lead_days": 14,
            "course_id": np.repeat(["c1", "c2"], [75, 25]),
        }
    )
    curve = calibration_curve(points, "test")
    assert set(curve["lead_days"]) == {POOLED, 14}
    assert set(curve["segment"]) == {"all", "course=c1", "course=c2"}
    at_lead = curve[curve["lead_days"] == 14].set_index("segment")
    overall = at_lead.loc["all"]
    assert overall["bin"].tolist() == list(range(1, 11))
    assert (overall["rows"] == 10).all()
    assert (overall["observed_rate"] == 0.5).all()
    assert ((overall["ci_low"] < 0.5) & (overall["ci_high"] > 0.5)).all()
    # Few points make few bins; the highest scores are the second course's.
    small = at_lead.loc["course=c2"]
    assert small["rows"].tolist() == [13, 12]
    assert small["mean_predicted"].min() > 0.75


def test_wilson_intervals_are_honest_at_the_ends() -> None:
    low, high = wilson_interval(np.array([0.0, 1.0, 0.5]), np.array([10, 10, 100]))
    assert low[0] == 0
    assert high[0] == pytest.approx(0.2775, abs=1e-3)
    assert low[1] == pytest.approx(0.7225, abs=1e-3)
    assert low[2] == pytest.approx(0.4038, abs=1e-3)
