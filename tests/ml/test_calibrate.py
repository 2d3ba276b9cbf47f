"""Calibration keeps the order, bands have documented cuts, confidence has ends."""

import json

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from ml.boosting import fit, margins, plain_matrix, training_matrix
from ml.calibrate import (
    METHODS,
    Calibration,
    Scored,
    choose_bands,
    confidence,
    fit_calibration,
    fit_map,
)
from ml.features import FeatureContract


def _sample(chance: np.ndarray, seed: int = 3) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(chance)) < chance).astype(int)


MARGINS = np.random.default_rng(2).normal(0, 2, 4000)
STUDENTS = np.array([f"s{n // 4}" for n in range(4000)], dtype=object)


def _scored(labels: np.ndarray, margins: np.ndarray = MARGINS) -> Scored:
    return Scored(margins, labels, STUDENTS)


def test_a_sigmoid_is_found_again() -> None:
    found = fit_calibration(_scored(_sample(expit(0.5 * MARGINS - 1))), None)
    assert found.method == "sigmoid"
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert found.intercept == pytest.approx(-1, abs=0.1)


def test_isotonic_is_taken_where_a_sigmoid_cannot_follow() -> None:
    chance = np.where(MARGINS < -1, 0.05, np.where(MARGINS < 2, 0.4, 0.5))
    found = fit_calibration(_scored(_sample(chance)), None)
    assert found.method == "isotonic"
    assert found.held_out_brier["isotonic"] < found.held_out_brier["sigmoid"]
    calibrated = found.apply(MARGINS)
    assert np.mean(np.abs(calibrated - chance)) < 0.03


def test_what_is_calibrated_stays_as_it_is() -> None:
    """A map that only follows chance would move the probabilities."""
    for seed in range(5):
        found = fit_calibration(_scored(_sample(expit(MARGINS), seed)), None)
        assert found.method == "none", seed
        np.testing.assert_allclose(found.apply(MARGINS), expit(MARGINS))


def test_a_shift_that_does_not_last_is_not_learned() -> None:
    """One period failed less often than the model says, the next did not."""
    unusual, usual = _sample(expit(MARGINS - 1), 5), _sample(expit(MARGINS), 6)
    replay = (_scored(unusual), _scored(usual))
    assert fit_calibration(_scored(unusual), None).method == "sigmoid"
    assert fit_calibration(_scored(usual), replay).method == "none"


def test_a_shift_that_lasts_is_learned_from_the_newest_period() -> None:
    lasting = [_scored(_sample(expit(MARGINS - 1), seed)) for seed in (5, 6)]
    found = fit_calibration(lasting[1], (lasting[0], lasting[1]))
    assert found.method == "sigmoid"
    newest = fit_map("sigmoid", lasting[1])
    assert (found.slope, found.intercept) == (newest.slope, newest.intercept)


def test_the_weight_of_failing_points_is_taken_out_again() -> None:
    """Weighting them nine times adds log(9) to the margin of the truth."""
    labels = _sample(expit(MARGINS - np.log(9)))
    found = fit_calibration(_scored(labels), None, weight=9.0)
    assert found.method == "none"
    assert found.apply(MARGINS).mean() == pytest.approx(labels.mean(), abs=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("noise", [False, True])
def test_the_order_of_the_margins_is_kept_strictly(noise: bool, method: str) -> None:
    steps = np.where(MARGINS < 0, 0.2, 0.4)
    chance = np.full(len(MARGINS), 0.3) if noise else steps
    found = fit_map(method, _scored(_sample(chance)))
    rising = found.apply(np.linspace(-6, 6, 500))
    assert (np.diff(rising) > 0).all()
    assert 0 < rising[0] < rising[-1] < 1


def test_a_student_does_not_judge_their_own_fit() -> None:
    """Where outcomes hang on the student alone, other points of theirs flatter."""
    margins = np.repeat(np.arange(8.0), 50)
    labels = np.repeat([0, 1, 0, 1, 1, 0, 1, 1], 50)
    students = np.repeat([f"s{n}" for n in range(8)], 50).astype(object)
    everybody_apart = np.arange(400).astype(str)
    honest = fit_calibration(Scored(margins, labels, students), None)
    flattered = fit_calibration(Scored(margins, labels, everybody_apart), None)
    gained = flattered.held_out_brier["isotonic"]
    assert honest.held_out_brier["isotonic"] > gained + 0.02


def test_it_survives_json() -> None:
    labels = _sample(np.where(MARGINS < 0, 0.1, 0.6))
    found = fit_calibration(_scored(labels), None)
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


def test_confidence_foretells_how_far_other_data_would_move_the_score() -> None:
    """It is no second risk score: it falls where training data is thin."""
    random = np.random.default_rng(8)
    # Most students look alike (first column near 0); few are at its ends.
    rows = np.column_stack([random.normal(0, 1, 4000), random.normal(0, 1, 4000)])
    labels = _sample(expit(np.sin(2 * rows[:, 0]) + rows[:, 1]), seed=9)
    contract = FeatureContract({"a": "number", "b": "number"}, {})
    parameters = {"n_estimators": 40, "max_depth": 4, "learning_rate": 0.2}
    seen = np.column_stack([random.uniform(-4, 4, 1500), random.normal(0, 1, 1500)])
    matrix = plain_matrix(seen, contract)

    def risk(part: slice) -> np.ndarray:
        model = fit(training_matrix(rows[part], labels[part], contract), parameters)
        return expit(margins(model, matrix))

    models = [risk(slice(n, n + 800)) for n in (0, 800, 1600, 2400)]
    sure = confidence(np.column_stack(models))
    moved = np.abs(risk(slice(3200, 4000)) - models[0])
    most, least = sure >= np.quantile(sure, 0.8), sure <= np.quantile(sure, 0.2)
    assert moved[least].mean() > 1.5 * moved[most].mean()
    assert abs(spearmanr(sure, models[0]).statistic) < 0.9
    thin = np.abs(seen[:, 0]) > 2.5
    assert sure[thin].mean() < sure[~thin].mean()
