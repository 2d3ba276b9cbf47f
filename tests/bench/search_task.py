"""A task for the search, and scikit-learn's search on it, each in its own process.

    python -m tests.bench.search_task FOLDER ours|scikit JOBS THREADS

prints, as JSON, what one search of the task in FOLDER took.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import RandomizedSearchCV
from xgboost import XGBClassifier

from ml.boosting import BINS, SEED
from ml.features import FeatureContract
from ml.search import make_folds, run_search, sample_candidates

CATEGORIES = {"kind": 6, "weekday": 12}
FAILING = 0.12
ROWS_PER_STUDENT = 5


@dataclass(frozen=True)
class Task:
    """What the search is given."""

    rows: np.ndarray
    labels: np.ndarray
    students: np.ndarray
    contract: FeatureContract


def make_task(rows: int, columns: int = 60) -> Task:
    """Numbers with missing values, two categories, and 12 % positives.

    A third of the numbers are skewed counts. The outcome follows from two fifths of
    them, from a few interactions and from the categories, with noise on top.
    """
    random = np.random.default_rng(0)
    numbers = columns - len(CATEGORIES)
    matrix = random.normal(size=(rows, columns)).astype(np.float32)
    matrix[:, : numbers // 3] = np.round(np.exp(matrix[:, : numbers // 3]))
    matrix[:, numbers:] = random.integers(0, list(CATEGORIES.values()), (rows, 2))
    scaled = (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)
    weights = np.where(random.random(numbers) < 0.4, random.normal(size=numbers), 0)
    signal = (
        0.45 * scaled[:, :numbers] @ weights
        + 1.2 * scaled[:, 0] * scaled[:, numbers - 1]
        + 0.9 * np.maximum(scaled[:, 1], 0) * scaled[:, numbers - 2]
        + (np.abs(scaled[:, numbers - 3]) > 1)
    )
    for column, size in enumerate(CATEGORIES.values(), start=numbers):
        signal += 0.6 * random.normal(size=size)[matrix[:, column].astype(int)]
    chance = 2 * signal / signal.std() + random.logistic(size=rows)
    matrix[:, :numbers][
        random.random((rows, numbers)) < 0.3 * random.random(numbers)
    ] = np.nan
    names = [f"number_{column}" for column in range(numbers)]
    return Task(
        rows=matrix,
        labels=(chance > np.quantile(chance, 1 - FAILING)).astype(np.int64),
        students=random.integers(0, rows // ROWS_PER_STUDENT, rows),
        contract=FeatureContract(
            dict.fromkeys(names, "number") | dict.fromkeys(CATEGORIES, "category"),
            {name: [f"{n:02}" for n in range(n)] for name, n in CATEGORIES.items()},
        ),
    )


def plain_search(
    task: Task,
    candidates: list[dict[str, Any]],
    bins: int = BINS,
    jobs: int = 1,
    threads: int = 1,
) -> dict[str, Any]:
    """`cv_results_` of RandomizedSearchCV over XGBClassifier, by candidate.

    The candidates and the folds are those of `ml.search`.
    """
    held_out = make_folds(task.labels, task.students)
    every = np.arange(len(task.labels))
    search = RandomizedSearchCV(
        XGBClassifier(
            tree_method="hist",
            max_bin=bins,
            n_jobs=threads,
            random_state=SEED,
            enable_categorical=True,
            feature_types=task.contract.xgboost_types,
        ),
        # Each a list of one: all of them are drawn, once, in a random order.
        [{name: [value] for name, value in one.items()} for one in candidates],
        n_iter=len(candidates),
        scoring="average_precision",
        cv=[(np.setdiff1d(every, fold), fold) for fold in held_out],
        refit=False,
        n_jobs=jobs,
        random_state=SEED,
        error_score="raise",
    )
    found = search.fit(task.rows, task.labels).cv_results_
    drawn = [found["params"].index(candidate) for candidate in candidates]
    return {name: [values[n] for n in drawn] for name, values in found.items()}


def save_task(task: Task, folder: Path) -> None:
    """Write the arrays of a task."""
    for name in ("rows", "labels", "students"):
        np.save(folder / f"{name}.npy", getattr(task, name))
    (folder / "contract.json").write_text(json.dumps(task.contract.to_json()))


def load_task(folder: Path) -> Task:
    """Read them again, without anything beside them in memory."""
    arrays = [
        np.load(folder / f"{name}.npy") for name in ("rows", "labels", "students")
    ]
    contract = json.loads((folder / "contract.json").read_text())
    return Task(*arrays, FeatureContract(**contract))


def peak_memory() -> int | None:
    """Bytes that this process has held at most; None where Linux is not there.

    `ru_maxrss` would begin with the peak of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure(folder: Path, search: str, jobs: int, threads: int) -> dict[str, Any]:
    """Time and memory of one search, and the scores of its candidates.

    `peak` is above what the imports took and includes the feature matrix.
    """
    imported = peak_memory()
    task = load_task(folder)
    started = time.perf_counter()
    if search == "ours":
        arguments = (task.rows, task.labels, task.students, task.contract)
        found = run_search(*arguments, {}, threads=jobs)
        scores = found.table["mean_test_score"].tolist()
    else:
        candidates = sample_candidates({})
        results = plain_search(task, candidates, jobs=jobs, threads=threads)
        scores = [float(score) for score in results["mean_test_score"]]
    seconds = time.perf_counter() - started
    peak = peak_memory()
    above = None if peak is None or imported is None else peak - imported
    return {"seconds": seconds, "peak": above, "scores": scores}


if __name__ == "__main__":
    place, which, jobs_text, threads_text = sys.argv[1:]
    print(json.dumps(measure(Path(place), which, int(jobs_text), int(threads_text))))
