"""The search beside scikit-learn's: how long, how much memory, how good a choice.

Only ratios are asserted: seconds belong to a machine. Each search runs in a process
of its own, alone, ours before and after scikit-learn's.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ml.boosting import CORES
from ml.settings import PROJECT_ROOT
from tests.bench.search_task import make_task, save_task

ROWS = int(os.environ.get("BENCH_ROWS", "200000"))
FASTER = 1.5
WORSE = 0.002
MEMORY = 3.0

pytestmark = pytest.mark.bench


@dataclass(frozen=True)
class Bench:
    """What each run measured, and the bytes of the feature matrix."""

    ours: list[dict[str, Any]]
    by_processes: dict[str, Any]
    by_threads: dict[str, Any]
    matrix: int

    @property
    def best(self) -> float:
        """Seconds of scikit-learn's faster arrangement."""
        return min(self.by_processes["seconds"], self.by_threads["seconds"])

    def table(self) -> str:
        """All runs, in the order in which they ran."""
        runs = [
            ("ml.search, before", self.ours[0]),
            (f"scikit-learn, n_jobs={CORES}, 1 thread each", self.by_processes),
            (f"scikit-learn, n_jobs=1, {CORES} threads", self.by_threads),
            ("ml.search, after", self.ours[1]),
        ]
        lines = [
            f"{name:40} {run['seconds']:7.1f} s {self.best / run['seconds']:6.2f} x"
            f" {_share(run['peak'], self.matrix):>8} {max(run['scores']):.4f}"
            for name, run in runs
        ]
        head = f"{'search':40} {'time':>9} {'faster':>8} {'memory':>8} PR-AUC"
        return "\n".join(["", head, *lines])


def _share(peak: int | None, matrix: int) -> str:
    return "?" if peak is None else f"{peak / matrix:.2f} x"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("search")
    task = make_task(ROWS)
    save_task(task, folder)

    def run(search: str, jobs: int, threads: int) -> dict[str, Any]:
        return _run(folder, search, jobs, threads)

    before = run("ours", CORES, 1)
    by_processes = run("scikit", CORES, 1)
    by_threads = run("scikit", 1, CORES)
    after = run("ours", CORES, 1)
    return Bench([before, after], by_processes, by_threads, task.rows.nbytes)


def _run(folder: Path, search: str, jobs: int, threads: int) -> dict[str, Any]:
    command = ["-m", "tests.bench.search_task", str(folder), search]
    done = subprocess.run(
        [sys.executable, *command, str(jobs), str(threads)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_search_is_faster_than_the_best_arrangement(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(bench.table())
    seconds = sum(run["seconds"] for run in bench.ours) / len(bench.ours)
    assert bench.best / seconds >= FASTER, bench.table()


def test_its_choice_is_as_good_at_full_resolution(bench: Bench) -> None:
    """scikit-learn has every candidate at full resolution, on the same folds."""
    full, coarse = bench.by_processes["scores"], bench.ours[0]["scores"]
    chosen = full[coarse.index(max(coarse))]
    assert chosen >= max(full) - WORSE, (chosen, max(full))
    assert coarse == bench.ours[1]["scores"]


def test_it_needs_less_than_three_times_the_matrix(bench: Bench) -> None:
    """Above the imports, the matrix itself included."""
    peaks = [run["peak"] for run in bench.ours]
    if None in peaks:
        pytest.skip("peak memory is read from Linux's /proc")
    assert max(peaks) < MEMORY * bench.matrix, [peak / bench.matrix for peak in peaks]
