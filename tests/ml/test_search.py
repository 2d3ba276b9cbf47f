"""The search: grouped folds, fixed parameters, the same winner every time."""

import numpy as np
import pytest

from ml.dataset import FOLDS
from ml.features import FeatureContract
from ml.search import CANDIDATES, make_folds, run_search, sample_candidates

CONTRACT = FeatureContract({f"f{n}": "number" for n in range(4)}, {})


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and students; five rows for each student."""
    random = np.random.default_rng(1)
    rows = random.normal(size=(600, 4)).astype(np.float32)
    labels = (rows[:, 0] + random.normal(size=600) > 0.8).astype(np.int64)
    students = np.array([f"s{n // 5}" for n in range(600)], dtype=object)
    return rows, labels, students


def test_no_student_is_in_two_folds_and_every_row_is_in_one(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    _, labels, students = data
    folds = make_folds(labels, students)
    assert len(folds) == FOLDS
    assert sorted(np.concatenate(folds)) == list(range(600))
    groups = [set(students[fold]) for fold in folds]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    rates = [labels[fold].mean() for fold in folds]
    assert max(rates) - min(rates) < 0.03


def test_fixed_parameters_are_the_same_in_every_candidate() -> None:
    labels = np.array([0, 0, 0, 1])
    drawn = sample_candidates(labels, {"max_depth": 2, "scale_pos_weight": 9.0})
    assert len(drawn) == CANDIDATES
    assert {c["max_depth"] for c in drawn} == {2}
    assert {c["scale_pos_weight"] for c in drawn} == {9.0}
    assert len({c["learning_rate"] for c in drawn}) == CANDIDATES
    assert drawn == sample_candidates(labels, {"max_depth": 2, "scale_pos_weight": 9.0})


def test_the_search_makes_45_fits_and_keeps_the_best(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    fits = []
    found = run_search(
        *data, CONTRACT, {"n_estimators": 10}, on_fit=lambda: fits.append(1)
    )
    assert len(fits) == CANDIDATES * FOLDS == 45
    table = found.table
    folds = table[[f"split{fold}_test_score" for fold in range(FOLDS)]]
    np.testing.assert_allclose(table["mean_test_score"], folds.mean(axis=1))
    assert found.best_score == table["mean_test_score"].max()
    winner = table[table["rank_test_score"] == 1].iloc[0]
    assert f'"learning_rate": {found.parameters["learning_rate"]}' in winner["params"]
    assert len(found.fold_models) == FOLDS


def test_the_same_inputs_give_the_same_bits(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    runs = [run_search(*data, CONTRACT, {"n_estimators": 10}) for _ in range(2)]
    first, second = (run.table.drop(columns="mean_fit_time") for run in runs)
    assert first.equals(second)
    for one, other in zip(runs[0].fold_models, runs[1].fold_models, strict=True):
        assert one.save_raw() == other.save_raw()


def test_among_equals_the_first_drawn_wins(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    rows, labels, students = data
    found = run_search(
        np.zeros_like(rows), labels, students, CONTRACT, {"n_estimators": 5}
    )
    assert set(found.table["rank_test_score"]) == {1}
    first = sample_candidates(labels, {"n_estimators": 5})[0]
    assert found.parameters == first
