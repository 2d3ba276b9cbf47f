"""Scoring beside XGBoost's bare prediction: how long, and how much memory.

Only ratios are asserted: seconds belong to a machine. Each measurement is a process of
its own. The model is the one that the sample's training finds; its shallow trees are
quick to explain, so that everything else weighs more than it would with most models.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml.settings import PROJECT_ROOT
from tests.bench.scoring_task import enlarge
from tests.pipeline import run

ROWS = int(os.environ.get("BENCH_ROWS", "200000"))
# Whole against bare.
SLOWER = 2.0
# Memory with five times the points: DuckDB may keep what it has read up to its limit,
# which is not reached with few of them.
MORE_MEMORY = 256 * 2**20

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sample that was built and trained on."""
    folder = tmp_path_factory.mktemp("sample")
    run(folder, "dbt", "build", "--exclude-resource-type", "unit_test")
    run(folder, "python", "-m", "ml.train", "--no-studies")
    return folder


def _measure(sample: Path, rows: int) -> dict[str, Any]:
    warehouse = enlarge(sample / "warehouse.duckdb", sample / str(rows), rows)
    command = ["-m", "tests.bench.scoring_task", "measure"]
    done = subprocess.run(
        [sys.executable, *command, str(warehouse), str(sample / "models")],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    warehouse.unlink()
    return dict(json.loads(done.stdout))


def test_scoring_is_at_most_twice_the_bare_prediction_in_bounded_memory(
    sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [_measure(sample, rows) for rows in (ROWS, 5 * ROWS)]
    lines = [
        f"{one['rows']:>10,} points x {one['features']} features,"
        f" {one['trees']} trees of depth {one['depth']}:"
        f" {one['seconds']:6.1f} s, bare {one['bare_seconds']:6.1f} s,"
        f" ratio {one['ratio']:.2f} (CPU {one['cpu_ratio']:.2f}),"
        f" peak {(one['peak'] or 0) / 2**20:,.0f} MiB above the imports"
        for one in found
    ]
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert max(one["ratio"] for one in found) <= SLOWER, lines
    small, large = (one["peak"] for one in found)
    if small is None:
        pytest.skip("peak memory is read from Linux's /proc")
    assert large <= small + MORE_MEMORY, lines
