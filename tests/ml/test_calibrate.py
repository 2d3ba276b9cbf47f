"""Calibration keeps the order, bands have documented cuts, confidence has ends."""

import json

import numpy as np
import pytest
from scipy.special import expit

from ml.calibrate import Calibration, choose_bands, confidence, fit_calibration


def _sample(chance: np.ndarray, seed: int = 3) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(chance)) < chance).astype(int)


MARGINS = np.random.default_rng(2).normal(0, 2, 4000)
STUDENTS = np.array([f"s{n // 4}" for n in range(4000)], dtype=object)


def test_a_sigmoid_is_found_again() -> None:
    labels = _sample(expit(0.5 * MARGINS - 1))
    found = fit_calibration(MARGINS, labels, STUDENTS)
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert found.intercept == pytest.approx(-1, abs=0.1)


def test_isotonic_is_taken_where_a_sigmoid_cannot_follow() -> None:
    chance = np.where(MARGINS < -1, 0.05, np.where(MARGINS < 2, 0.4, 0.5))
    found = fit_calibration(MARGINS, _sample(chance), STUDENTS)
    assert found.method == "isotonic"
    assert found.held_out_brier["isotonic"] < found.held_out_brier["sigmoid"]
    calibrated = found.apply(MARGINS)
    assert np.mean(np.abs(calibrated - chance)) < 0.03


@pytest.mark.parametrize("noise", [False, True])
def test_the_order_of_the_margins_is_kept_strictly(noise: bool) -> None:
    steps = np.where(MARGINS < 0, 0.2, 0.4)
    chance = np.full(len(MARGINS), 0.3) if noise else steps
    found = fit_calibration(MARGINS, _sample(chance), STUDENTS)
    rising = found.apply(np.linspace(-6, 6, 500))
    assert (np.diff(rising) > 0).all()
    assert 0 < rising[0] < rising[-1] < 1


def test_a_student_does_not_judge_their_own_fit() -> None:
    """Where outcomes hang on the student alone, other points of theirs flatter."""
    margins = np.repeat(np.arange(8.0), 50)
    labels = np.repeat([0, 1, 0, 1, 1, 0, 1, 1], 50)
    students = np.repeat([f"s{n}" for n in range(8)], 50).astype(object)
    everybody_apart = np.arange(400).astype(str)
    honest = fit_calibration(margins, labels, students).held_out_brier
    flattered = fit_calibration(margins, labels, everybody_apart).held_out_brier
    assert honest["isotonic"] > flattered["isotonic"] + 0.02


def test_it_survives_json() -> None:
    labels = _sample(np.where(MARGINS < 0, 0.1, 0.6))
    found = fit_calibration(MARGINS, labels, STUDENTS)
    again = Calibration(**json.loads(json.dumps(found.to_json())))
    np.testing.assert_array_equal(again.apply(MARGINS), found.apply(MARGINS))


def test_high_is_the_top_tenth_and_medium_begins_at_the_best_f1() -> None:
    scores = np.linspace(0.01, 0.99, 1000)
    bands = choose_bands(scores, (scores > 0.6).astype(int))
    assert bands.best_f1_threshold == pytest.approx(0.6, abs=0.01)
    assert bands.high == pytest.approx(np.quantile(scores, 0.9))
    names = bands.name(np.array([0.1, bands.medium, bands.high, 0.99]))
    assert names.tolist() == ["low", "medium", "high", "high"]


def test_medium_never_lies_above_high() -> None:
    scores = np.linspace(0.01, 0.99, 1000)
    bands = choose_bands(scores, (scores > 0.97).astype(int))
    assert bands.medium == bands.high < bands.best_f1_threshold


def test_confidence_is_one_where_all_agree_and_zero_where_they_cannot_more() -> None:
    same = np.full((1, 4), 0.3)
    opposite = np.array([[0.0, 1.0, 0.0, 1.0]])
    certain = np.zeros((1, 4))
    assert confidence(same)[0] == pytest.approx(1)
    assert confidence(opposite)[0] == pytest.approx(0)
    assert confidence(certain)[0] == pytest.approx(1)


def test_confidence_falls_with_spread_and_weighs_it_by_what_is_possible() -> None:
    spread = np.array([[0.5, 0.5 + d, 0.5 - d, 0.5] for d in (0.0, 0.1, 0.2, 0.4)])
    assert (np.diff(confidence(spread)) < 0).all()
    around = np.array([[0.05 - 0.04, 0.05 + 0.04], [0.5 - 0.04, 0.5 + 0.04]])
    rare, even = confidence(around)
    assert rare < even
