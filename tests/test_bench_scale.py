"""The bench's own parts, small: data, other ways, measuring, and the page."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from ml.settings import PROJECT_ROOT
from tests.bench.scale import make_data, pandas_way, tables
from tests.bench.scale.__main__ import note_day
from tests.bench.scale.page import render
from tests.bench.scale.processes import CommandFailed, Limits, Measured, measure
from tests.bench.scale.targets import (
    TARGETS,
    Target,
    increment_range,
    increment_share,
)
from tests.pipeline import environment, run

DOCS = PROJECT_ROOT / "docs"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw tables of 200 students with dirt and duplicates, increment included."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_data, "DILIGENCE", 3)
        patch.setattr(make_data, "DETAIL", 2)
        patch.setattr(make_data, "EVENTS_PER_FILE", 2_000)
        make_data.make(200 * make_data.EVENTS_PER_STUDENT, folder)
    return folder


@pytest.fixture(scope="module")
def built(data: Path) -> Path:
    """A warehouse with the features of all of them."""
    for path in data.glob("increment/*/*.parquet"):
        path.rename(data / "raw" / path.parent.name / path.name)
    run(
        data,
        *("dbt", "run", "--select", "+student_features_14d"),
        SOURCE_SYSTEM="platform",
        DATA_RAW_PATH=str(data / "raw"),
    )
    return data / "warehouse.duckdb"


@pytest.fixture(scope="module")
def points(built: Path) -> pd.DataFrame:
    """Its prediction points."""
    path = built.with_name("points.parquet")
    tables.points(built, path)
    return pd.read_parquet(path)


def test_events_lie_in_the_order_of_loading(data: Path) -> None:
    files = sorted(data.rglob("activity_events/part-*.parquet"))
    assert len(files) > 2
    times = pd.concat(pd.read_parquet(path) for path in files)
    loaded = times["loaded_at"].fillna(times["occurred_at"]).dropna()
    assert loaded[loaded < "2100"].is_monotonic_increasing
    about = json.loads((data / "about.json").read_text())
    assert 0.005 < about["increment_events"] / about["events"] < 0.02
    assert about["increment_late"] and about["increment_again"]


@pytest.mark.parametrize("careful", [False, True])
def test_pandas_makes_the_same_features_as_the_warehouse(
    built: Path, points: pd.DataFrame, careful: bool
) -> None:
    """Two implementations of the same rules, on data with every kind of dirt."""
    made = pandas_way.make_features(built.parent / "raw", points, careful)
    path = built.with_name("made.parquet")
    made.to_parquet(path)
    assert tables.compare(built, path) == {
        "rows": len(points),
        "unmatched": 0,
        "features": len(pandas_way.FEATURES),
        "different": {},
    }
    assert (made[pandas_way.FEATURES].fillna(0) > 0).any().all()
    with duckdb.connect(str(built), read_only=True) as connection:
        rejected = connection.execute(
            "select distinct rejected_because"
            " from staging.stg_platform__activity_events"
        ).fetchall()
    assert len(rejected) > 5


def test_a_difference_is_found(built: Path, points: pd.DataFrame) -> None:
    made = pandas_way.make_features(built.parent / "raw", points)
    made.loc[3, "window_events"] += 1
    made.loc[4, "to_date_quantity"] = None
    path = built.with_name("wrong.parquet")
    made.to_parquet(path)
    different = tables.compare(built, path)["different"]
    assert different == {"window_events": 1, "to_date_quantity": 1}


# ---------- measuring

# Two processes hold 150 MB each for a second, and one of them computes for half of it.
BUSY = """
import os, time
held = bytearray(150_000_000)
child = os.fork()
if not child:
    held[::4096] = bytes(len(held[::4096]))
    until = time.process_time() + 0.5
    while time.process_time() < until:
        pass
time.sleep(1)
if child:
    os.wait()
    print("done")
"""


def _measure(tmp_path: Path, limits: Limits) -> Any:
    command = [sys.executable, "-c", BUSY]
    return measure(command, environment(tmp_path), tmp_path / "log", limits)


def test_children_count(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("memory of several processes is read from Linux's /proc")
    # By a process that is small itself: its own peak would be that of the children.
    starter = (
        "import dataclasses, json; from pathlib import Path;"
        " from tests.test_bench_scale import _measure, Limits;"
        f" done = _measure(Path({str(tmp_path)!r}), Limits());"
        " print(json.dumps(dataclasses.asdict(done)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", starter],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    assert not said.returncode, said.stderr
    done = Measured(**json.loads(said.stdout))
    assert done.output == "done\n"
    assert 1 < done.seconds < 20
    assert 0.5 <= done.cpu_seconds < 5
    assert 300e6 < done.peak < 500e6
    assert done.gave_up is None


@pytest.mark.parametrize(
    ("limits", "word"),
    [(Limits(seconds=0.5), "minutes"), (Limits(memory=100_000_000), "GB")],
)
def test_limits_end_a_process(tmp_path: Path, limits: Limits, word: str) -> None:
    done = _measure(tmp_path, limits)
    assert word in str(done.gave_up)
    assert done.output == ""


def test_an_error_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(CommandFailed, match="no such thing"):
        measure(command, environment(tmp_path), tmp_path / "log")


# ---------- the page


@pytest.mark.parametrize(
    ("target", "value", "status"),
    [
        (Target("at most", 4.0, lambda r: r["x"]), 3.9, "met"),
        (Target("at most", 4.0, lambda r: r["x"], held=5.0), 4.1, "missed"),
        (Target("at least", 10.0, lambda r: r["x"], at_least=True), 9.9, "missed"),
        (Target("at least", 10.0, lambda r: r["x"], at_least=True), 10.1, "met"),
        (Target("nothing", 1.0, lambda r: r["x"]), None, "not measured"),
    ],
)
def test_a_target_is_met_or_missed(
    target: Target, value: float | None, status: str
) -> None:
    assert target.status({"x": value}) == status


def test_shares_of_an_increment() -> None:
    """By hand: each command without its start, the runs that lie furthest apart."""
    start = {
        "build": {"seconds": 50.0, "cpu_seconds": 60.0, "runs": [49.0, 50.0, 52.0]},
        "increment": {"seconds": 60.0, "cpu_seconds": 70.0, "runs": [58.0, 60.0, 61.0]},
    }
    found = {
        "build": {"seconds": 90.0, "cpu_seconds": 140.0, "runs": [92.0, 90.0, 89.0]},
        "increment": {"seconds": 64.0, "cpu_seconds": 86.0, "runs": [63.0, 64.0, 67.0]},
    }
    results = {"overhead": start, "sizes": {"10": found}}
    assert increment_share(results, "10") == 4 / 40
    assert increment_share(results, "10", "cpu_seconds") == 16 / 80
    assert increment_range(results, "10") == (2 / 43, 9 / 37)
    assert increment_range(results, "100") is None


def test_a_build_without_work_has_no_share() -> None:
    """As where the start was measured in a slower hour than the build."""
    start = {"seconds": 50.0, "cpu_seconds": 60.0, "runs": [49.0, 50.0, 52.0]}
    build = {"seconds": 40.0, "cpu_seconds": 45.0, "runs": [39.0, 40.0, 51.0]}
    results = {
        "overhead": {"build": start, "increment": start},
        "sizes": {"1": {"build": build, "increment": start}},
    }
    assert increment_share(results, "1") is None
    assert increment_range(results, "1") is None


def test_the_page_names_steps_that_were_measured_on_an_earlier_day() -> None:
    results = json.loads((DOCS / "performance.json").read_text())
    results["days"] = {}
    for size in ("1", "10"):
        note_day(results, "pandas", size, "2026-03-01")
        note_day(results, "floors", size, "2026-03-01")
    assert "Measured on 2026-03-01;" in render(results)
    assert "Measured before that" not in render(results)
    note_day(results, "floors", "10", "2026-03-04")
    page = render(results)
    assert "Measured on 2026-03-04;" in page
    assert "that: pandas at 1, 10 million events (2026-03-01); floors at 1 mil" in page


def test_the_page_is_what_the_results_say() -> None:
    results = json.loads((DOCS / "performance.json").read_text())
    page = (DOCS / "performance.md").read_text()
    assert page == render(results), "Run python -m tests.bench.scale.page."
    for target in TARGETS:
        assert f"| {target.name} |" in page
