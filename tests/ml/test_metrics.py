"""The metrics agree with scikit-learn, also under weights and ties."""

import numpy as np
import pytest
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)

from ml.metrics import (
    Resamples,
    base_rate,
    draw_resamples,
    probability_metrics,
    ranking_metrics,
    recalibration,
    reflected_interval,
)


def _case(ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    scores = random.random(400)
    labels = (random.random(400) < scores).astype(int)
    students = np.array([f"s{n % 60}" for n in range(400)])
    return labels, np.round(scores, 1) if ties else scores, students


@pytest.mark.parametrize("ties", [False, True])
def test_every_resample_is_what_scikit_learn_says_of_it(ties: bool) -> None:
    labels, scores, students = _case(ties)
    draws = draw_resamples(students, 5, seed=1)
    ranking = ranking_metrics(labels, scores, draws)
    probability = probability_metrics(labels, scores, draws)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    for number, by_student in enumerate(draws.weights):
        w = by_student[draws.student]
        expected = {
            "pr_auc": average_precision_score(labels, scores, sample_weight=w),
            "roc_auc": roc_auc_score(labels, scores, sample_weight=w),
            "brier": brier_score_loss(labels, scores, sample_weight=w),
            "log_loss": log_loss(labels, clipped, sample_weight=w),
        }
        for name, value in expected.items():
            found = (ranking | probability)[name][number]
            assert found == pytest.approx(value, abs=1e-6), name
        assert base_rate(labels, draws)[number] == pytest.approx(
            np.average(labels, weights=w)
        )


def test_the_first_row_is_the_data_as_it_is_and_students_are_drawn_whole() -> None:
    _, _, students = _case(False)
    draws = draw_resamples(students, 50, seed=1)
    assert (draws.weights[0] == 1).all()
    assert (draws.weights.sum(axis=1) == 60).all()
    assert draws.weights[1:].max() > 1
    for name in ("s0", "s7"):
        assert len(set(draws.student[students == name])) == 1


@pytest.mark.parametrize("ties", [False, True])
def test_blocks_do_not_change_anything(
    ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, scores, students = _case(ties)
    draws = draw_resamples(students, 20, seed=1)
    whole = ranking_metrics(labels, scores, draws)
    monkeypatch.setattr("ml.metrics.CACHED", 1000)
    for name, values in ranking_metrics(labels, scores, draws).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-14)


def test_draws_of_some_points_are_the_draws_of_their_students() -> None:
    _, _, students = _case(True)
    draws = draw_resamples(students, 20, seed=1)
    rows = draws.student % 2 == 1
    some = draws.take(rows)
    expected = draws.weights[:, draws.student[rows]]
    np.testing.assert_array_equal(some.weights[:, some.student], expected)
    assert some.weights.shape[1] == len(set(students[rows])) < 60
    np.testing.assert_array_equal(some.count, expected.sum(axis=1))


def test_the_top_tenth_takes_its_share_of_a_tie() -> None:
    labels = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 0] * 2)
    scores = np.where(labels == 1, 0.9, 0.1)
    scores[:2] = 0.9
    one_each = draw_resamples(np.arange(20), 1, seed=1)
    found = ranking_metrics(labels, scores, one_each)
    # Five points share the highest score, four of them fail; two make a tenth.
    assert found["precision_at_10pct"][0] == pytest.approx(4 / 5)
    assert found["recall_at_10pct"][0] == pytest.approx(2 * (4 / 5) / 4)


def test_calibration_error_of_known_gaps() -> None:
    labels = np.repeat([0, 1], 50)
    scores = np.repeat([0.2, 0.9], 50)
    one_each = draw_resamples(np.arange(100), 1, seed=1)
    found = probability_metrics(labels, scores, one_each)
    assert found["ece"][0] == pytest.approx(0.5 * 0.2 + 0.5 * 0.1)


PARTS = {
    "brier_reliability": 1,
    "brier_resolution": -1,
    "brier_uncertainty": 1,
    "brier_within_bin_variance": 1,
    "brier_within_bin_covariance": -1,
}


def test_parts_of_the_brier_score_by_hand() -> None:
    """Two bins' worth of scores, five points in each of ten bins."""
    scores = np.repeat([0.2, 0.6], 25)
    labels = np.concatenate([np.repeat([1, 0], [10, 15]), np.repeat([1, 0], [20, 5])])
    # Mixed within each score, so that every bin of five has its score's own rate.
    order = np.concatenate([np.arange(25).reshape(5, 5).T.ravel() + n for n in (0, 25)])
    one_each = draw_resamples(np.arange(50), 1, seed=1)
    found = probability_metrics(labels[order], scores, one_each)
    assert found["brier_reliability"][0] == pytest.approx(0.5 * 0.2**2 + 0.5 * 0.2**2)
    assert found["brier_resolution"][0] == pytest.approx(0.2**2)
    assert found["brier_uncertainty"][0] == pytest.approx(0.6 * 0.4)
    assert found["brier_within_bin_variance"][0] == pytest.approx(0)
    assert found["brier_within_bin_covariance"][0] == pytest.approx(0)


@pytest.mark.parametrize("ties", [False, True])
def test_parts_add_up_to_the_brier_score_in_every_resample(ties: bool) -> None:
    labels, scores, students = _case(ties)
    found = probability_metrics(labels, scores, draw_resamples(students, 20, seed=1))
    total = sum(sign * found[name] for name, sign in PARTS.items())
    np.testing.assert_allclose(total, found["brier"], atol=1e-12)
    assert ties or found["brier_within_bin_variance"][0] > 1e-4


def test_recalibration_is_a_logistic_regression_on_the_log_odds() -> None:
    labels, scores, students = _case(ties=False)
    draws = draw_resamples(students, 40, seed=1)
    slope, intercept = recalibration(labels, scores**2, draws)
    line = logit(scores**2)[:, None]
    refits = []
    for by_student in draws.weights:
        model = LogisticRegression(C=np.inf, tol=1e-8)
        model.fit(line, labels, sample_weight=by_student[draws.student])
        refits.append((model.coef_[0, 0], model.intercept_[0]))
    exact = np.array(refits)
    assert slope[0] == pytest.approx(exact[0, 0], abs=1e-3)
    assert intercept[0] == pytest.approx(exact[0, 1], abs=1e-3)
    # One Newton step is close to each refit, beside how far the refits vary.
    for steps, full in ((slope, exact[:, 0]), (intercept, exact[:, 1])):
        assert np.abs(steps - full).mean() < 0.2 * full.std()
        assert steps[1:].std() == pytest.approx(full[1:].std(), rel=0.15)


def test_recalibration_finds_what_was_done_to_the_scores() -> None:
    random = np.random.default_rng(4)
    line = random.normal(0, 1.5, 40_000)
    labels = (random.random(40_000) < 1 / (1 + np.exp(-(0.5 * line - 1)))).astype(int)
    draws = draw_resamples(np.arange(40_000), 1, seed=1)
    slope, intercept = recalibration(labels, 1 / (1 + np.exp(-line)), draws)
    assert slope[0] == pytest.approx(0.5, abs=0.03)
    assert intercept[0] == pytest.approx(-1, abs=0.04)


@pytest.mark.parametrize("base", [0.002, 0.998])
def test_recalibration_settles_at_extreme_base_rates(base: float) -> None:
    """Twenty of ten thousand fail, or pass; and risks that are far too low or high."""
    random = np.random.default_rng(8)
    line = logit(base) + random.normal(0, 1, 10_000)
    labels = (random.random(10_000) < 1 / (1 + np.exp(-line))).astype(int)
    assert 0 < min(labels.sum(), 10_000 - labels.sum()) < 100
    draws = draw_resamples(np.arange(10_000), 20, seed=1)
    for shift in (0.0, -np.sign(logit(base)) * 6, np.sign(logit(base)) * 6):
        scores = 1 / (1 + np.exp(-(line + shift)))
        exact = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
        exact.fit(logit(scores)[:, None], labels)
        slope, intercept = recalibration(labels, scores, draws)
        assert slope[0] == pytest.approx(exact.coef_[0, 0], abs=1e-3)
        assert intercept[0] == pytest.approx(exact.intercept_[0], abs=1e-2)
        assert np.isfinite(slope).all() and slope.min() < slope[0] < slope.max()


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([1, 0, 1, 0], [0.3, 0.3, 0.3, 0.3]),
        ([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4]),
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]),
    ],
    ids=["one score", "one class", "separated"],
)
def test_recalibration_is_not_defined(labels: list[int], scores: list[float]) -> None:
    draws = draw_resamples(np.arange(4), 3, seed=1)
    slope, intercept = recalibration(np.array(labels), np.array(scores), draws)
    assert np.isnan(slope).all() and np.isnan(intercept).all()


def test_the_floor_of_the_calibration_error_is_what_chance_shows() -> None:
    """The mean ECE over fresh outcomes of perfect probabilities; more where a
    student's points share one outcome."""
    random = np.random.default_rng(6)
    chance = np.sort(random.uniform(0.05, 0.95, 600))
    errors, floors = [], []
    for _ in range(40):
        labels = (random.random(600) < chance).astype(int)
        draws = draw_resamples(np.arange(600), 60, seed=1)
        found = probability_metrics(labels, chance, draws)
        errors.append(found["ece"][0])
        floors.append(found["ece_if_calibrated"][0])
    assert np.mean(floors) == pytest.approx(np.mean(errors), rel=0.1)
    four_each = draw_resamples(np.repeat(np.arange(150), 4), 60, seed=1)
    shared = np.repeat((random.random(150) < chance[1::4]).astype(int), 4)
    clustered = probability_metrics(shared, chance, four_each)["ece_if_calibrated"][0]
    assert clustered > 1.5 * np.mean(floors)


def test_a_mirrored_interval_takes_the_noise_off_and_holds_the_figure() -> None:
    drawn = np.linspace(0.5, 0.7, 1001)
    low, high = reflected_interval(np.append(0.55, drawn))
    assert low == pytest.approx(2 * 0.55 - 0.695)
    assert high == pytest.approx(2 * 0.55 - 0.505)
    assert reflected_interval(np.append(0.3, drawn)) == (0.0, pytest.approx(0.3))
    assert np.isnan(reflected_interval(np.full(10, np.nan))).all()


def test_one_class_only_is_not_defined() -> None:
    everybody = Resamples(np.ones((1, 3), dtype=np.float32), np.arange(3))
    none = ranking_metrics(np.zeros(3, dtype=int), np.array([0.1, 0.2, 0.3]), everybody)
    assert np.isnan(none["pr_auc"][0])
    assert np.isnan(none["roc_auc"][0])
    assert none["precision_at_10pct"][0] == 0
