"""The metrics agree with scikit-learn, also under weights and ties."""

import numpy as np
import pytest
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


def test_blocks_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, students = _case(True)
    draws = draw_resamples(students, 20, seed=1)
    whole = ranking_metrics(labels, scores, draws)
    monkeypatch.setattr("ml.metrics.BLOCK", 1000)
    for name, values in ranking_metrics(labels, scores, draws).items():
        np.testing.assert_array_equal(values, whole[name])


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


def test_one_class_only_is_not_defined() -> None:
    everybody = Resamples(np.ones((1, 3), dtype=np.float32), np.arange(3))
    none = ranking_metrics(np.zeros(3, dtype=int), np.array([0.1, 0.2, 0.3]), everybody)
    assert np.isnan(none["pr_auc"][0])
    assert np.isnan(none["roc_auc"][0])
    assert none["precision_at_10pct"][0] == 0
