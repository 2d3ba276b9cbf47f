"""The search: grouped folds, fixed parameters, the same winner every time."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ml import boosting
from ml.boosting import (
    SEARCH_BINS,
    fit,
    search_margins,
    stand_ins,
    without_missing,
)
from ml.dataset import FOLDS
from ml.features import FeatureContract
from ml.search import (
    CANDIDATES,
    PARAMETERS,
    bin_fold,
    fit_folds,
    make_folds,
    run_search,
    sample_candidates,
)
from ml.settings import Settings
from tests.bench.search_task import make_task, plain_search

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
    drawn = sample_candidates({"max_depth": 2, "scale_pos_weight": 9.0})
    assert len(drawn) == CANDIDATES
    assert {c["max_depth"] for c in drawn} == {2}
    assert {c["scale_pos_weight"] for c in drawn} == {9.0}
    assert len({c["learning_rate"] for c in drawn}) == CANDIDATES
    assert drawn == sample_candidates({"max_depth": 2, "scale_pos_weight": 9.0})


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
    models = fit_folds(*data, CONTRACT, found.parameters)
    assert len(models) == FOLDS


def test_the_same_inputs_give_the_same_bits_on_any_number_of_threads(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    runs = [
        run_search(*data, CONTRACT, {"n_estimators": 10}, threads=threads)
        for threads in (1, 5)
    ]
    first, second = (
        run.table.drop(columns=[name for name in run.table if name.endswith("_time")])
        for run in runs
    )
    assert first.equals(second)


def test_among_equals_the_first_drawn_wins(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    rows, labels, students = data
    found = run_search(
        np.zeros_like(rows), labels, students, CONTRACT, {"n_estimators": 5}
    )
    assert set(found.table["rank_test_score"]) == {1}
    first = sample_candidates({"n_estimators": 5})[0]
    assert found.parameters == first


def test_binning_gives_the_same_bits_on_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over several batches: their summaries are merged."""
    task = make_task(5000)
    monkeypatch.setattr(boosting, "BATCH_ROWS", 700)
    models = []
    for cores in (1, 4):
        monkeypatch.setattr(boosting, "CORES", cores)
        fold = bin_fold(task.rows, task.labels, np.arange(2000), task.contract)
        models.append(fit(fold.train, {"n_estimators": 5}, SEARCH_BINS))
        models.extend(
            fit_folds(
                task.rows,
                task.labels,
                task.students,
                task.contract,
                {"n_estimators": 5},
            )
        )
    half = len(models) // 2
    for one, other in zip(models[:half], models[half:], strict=True):
        assert one.save_raw() == other.save_raw()


def test_the_table_is_that_of_scikit_learn() -> None:
    """The same keys, and on the same bins and rows the same scores and ranks."""
    task = make_task(3000)
    instead = stand_ins(task.rows, np.arange(len(task.rows)), task.contract)
    task = replace(task, rows=without_missing(task.rows, instead))
    found = run_search(
        task.rows, task.labels, task.students, task.contract, {"n_estimators": 20}
    ).table
    expected = plain_search(task, sample_candidates({"n_estimators": 20}), SEARCH_BINS)
    unset = {"param_scale_pos_weight"}
    assert set(found.columns) - {"candidate"} - unset == set(expected)
    for name in expected:
        if name == "params":
            assert [json.loads(text) for text in found[name]] == expected[name]
        elif name.startswith(("param_", "rank_")):
            assert found[name].tolist() == list(expected[name]), name
        elif name.endswith("_score"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
        else:
            assert (found[name] >= 0).all(), name
    assert found["param_scale_pos_weight"].isna().all()
    assert found["rank_test_score"].nunique() > 1


def test_every_parameter_that_can_be_set_has_its_column() -> None:
    settable = {
        name.removeprefix("model_")
        for name in Settings.model_fields
        if name.startswith("model_")
    }
    drawn = {name for candidate in sample_candidates({}) for name in candidate}
    assert set(PARAMETERS) == settable | drawn


def test_the_search_sees_no_missing_value() -> None:
    """A number's is the median of the rows it learns from, a category's one more."""
    task = make_task(3000)
    learned, held_out = np.arange(2000), np.arange(2000, 3000)
    rows = task.rows.copy()
    rows[held_out, :58] += 100
    rows[::7, 59] = np.nan
    instead = stand_ins(rows, learned, task.contract)
    np.testing.assert_array_equal(instead[:58], np.nanmedian(rows[:2000, :58], axis=0))
    assert instead[58:].tolist() == [6, 12]
    missing = np.isnan(rows)
    filled = without_missing(rows, instead)
    np.testing.assert_array_equal(filled[~missing], rows[~missing])
    fits = []
    for seen in (rows, filled):
        fold = bin_fold(seen, task.labels, held_out, task.contract)
        model = fit(fold.train, {"n_estimators": 5}, SEARCH_BINS)
        scores = search_margins(model, fold.rows, fold.held_out, fold.instead)
        fits.append((model.save_raw(), scores.tolist()))
    assert fits[0] == fits[1]
