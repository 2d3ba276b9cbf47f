"""Measure the pipeline at several sizes: python -m tests.bench.scale --sizes 1,10,100

Sizes are millions of events. Writes docs/performance.json, and from it
docs/performance.md and its picture. Each measured command is a process of its own and
runs alone. `--steps` repeats some steps and keeps the results of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ml.settings import PROJECT_ROOT
from tests.bench.scale.processes import (
    NO_LIMITS,
    CommandFailed,
    Limits,
    Measured,
    folder_size,
    measure,
)
from tests.pipeline import environment

HERE = Path(__file__).resolve().parent
RESULTS = PROJECT_ROOT / "docs" / "performance.json"
GB = 1_000_000_000
DBT = Path(sys.executable).with_name("dbt")
FEATURES = ["run", "--select", "+student_features_14d"]
SHARED = ["run", "--select", "+int_features_window", "+int_features_to_date"]
BUILD = ["build"]
FEWEST_FOR_TRAINING = 500_000
SCORED_POINTS = "200000"
# Another way may take this long; training at the largest size may take longer.
OTHER_WAYS = 1800
TRAINING = 2 * 3600
SHARE_OF_MACHINE = 0.85
# DuckDB's own share of the limit: Python and what DuckDB does not count need the rest.
DUCKDB_SHARE = 2 / 3
# Below this size a measurement is repeated, and the median is taken.
REPEATED_BELOW = 20_000_000
# featuretools needs older versions than the project.
FEATURETOOLS = ["featuretools==1.31.0", "setuptools<81", "pandas<2.3", "numpy<2.1"]
FEATURETOOLS += ["pyarrow<20"]

Json = dict[str, Any]


@dataclass
class Bench:
    """One run of the bench: where it works, within which limits."""

    scratch: Path
    memory: int
    keep: bool = False
    most_repeats: int = 3
    day: str = field(default_factory=lambda: date.today().isoformat())
    size: str = ""
    about: Json = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Everything of the present size."""
        return self.scratch / f"size_{self.size}"

    @property
    def data(self) -> Path:
        """Its raw tables."""
        return self.folder / "data"

    @property
    def before(self) -> Path:
        """The warehouse of every day as it was before the increment."""
        return self.folder / "before.duckdb"

    @property
    def repeats(self) -> int:
        """How often a measurement is made."""
        return self.most_repeats if self.about["events"] < REPEATED_BELOW else 1

    def warehouse(self, name: str) -> Path:
        """The warehouse of a step."""
        return self.folder / name / "warehouse.duckdb"

    def settings(self, name: str) -> dict[str, str]:
        """The environment of a command that works in the warehouse of a step."""
        return environment(
            self.folder / name,
            SOURCE_SYSTEM="platform",
            DATA_RAW_PATH=str(self.data / "raw"),
            WAREHOUSE_MEMORY_LIMIT=f"{self.memory * DUCKDB_SHARE / GB:.1f}GB",
            WAREHOUSE_TEMP_PATH=str(self.folder / name / "spilled"),
            DBT_SEND_ANONYMOUS_USAGE_STATS="false",
        )

    def run(
        self, name: str, command: Sequence[str | Path], limits: Limits = NO_LIMITS
    ) -> Measured:
        """Measure a command in the folder of a step."""
        settings = self.settings(name)
        spill = self.folder / name / "spilled"
        log = self.folder / name / "log.txt"
        return measure(command, settings, log, limits, spill)

    def script(self, name: str, module: str, *arguments: str | Path) -> Json:
        """Run one of the scripts beside this file; the JSON that it prints."""
        command = [sys.executable, "-m", f"tests.bench.scale.{module}", *arguments]
        done = self.run(name, command)
        return dict(json.loads(done.output))


# ---------- dbt


def dbt(bench: Bench, name: str, arguments: list[str]) -> Json:
    """Measure one dbt command; dbt has parsed the project before, as on every day."""
    bench.run(name, [DBT, "--quiet", "parse"])
    done = bench.run(name, [DBT, "--quiet", *arguments])
    target = bench.folder / name / "target"
    return done.as_json() | read_run_results(target / "run_results.json")


def read_run_results(path: Path) -> Json:
    """What dbt says about its nodes: seconds by kind, and the slowest models."""
    found = json.loads(path.read_text())
    seconds: dict[str, list[float]] = {}
    models = {}
    for node in found["results"]:
        kind, _, name = node["unique_id"].split(".")[:3]
        seconds.setdefault(kind, []).append(node["execution_time"])
        if kind == "model":
            models[name] = round(node["execution_time"], 2)
    slowest = sorted(models, key=lambda name: models[name], reverse=True)[:8]
    return {
        "nodes": {kind: len(times) for kind, times in seconds.items()},
        "node_seconds": {kind: round(sum(times), 2) for kind, times in seconds.items()},
        "slowest": {name: models[name] for name in slowest},
    }


def fresh(bench: Bench, name: str, arguments: list[str]) -> Json:
    """Build a new warehouse as often as the size allows; the run of median length."""
    runs = []
    for _ in range(bench.repeats):
        bench.warehouse(name).unlink(missing_ok=True)
        runs.append(dbt(bench, name, arguments))
    return median_run(runs) | {"disk_bytes": bench.warehouse(name).stat().st_size}


def median_run(runs: list[Json]) -> Json:
    """The run of median length, with the length of each."""
    middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    return middle | {"runs": [run["seconds"] for run in runs]}


# ---------- the steps of one size


def make_data(bench: Bench) -> Json:
    """Generate the raw tables, unless they are there."""
    about = bench.data / "about.json"
    if not about.exists():
        bench.folder.mkdir(parents=True, exist_ok=True)
        events = float(bench.size) * 1e6
        command = [sys.executable, "-m", "tests.bench.scale.make_data", str(events)]
        bench.run("floors", [*command, bench.data])
    found = json.loads(about.read_text())
    return {name: found[name] for name in found if name != "increment_files"}


def run_floors(bench: Bench) -> Json:
    """Reading once, and one plain aggregation; the median of several runs."""
    place_increment(bench, added=True)
    runs = 2 * bench.repeats + 1
    out = bench.folder / "floors" / "daily.duckdb"
    command = [sys.executable, "-m", "tests.bench.scale.floors"]
    done = bench.run("floors", [*command, bench.data / "raw", out, str(runs)])
    found = json.loads(done.output)
    return {
        "read_seconds": statistics.median(found["read"]),
        "aggregate_seconds": statistics.median(found["aggregate"]),
        "days": found["days"],
        "peak_bytes": done.peak,
        "runs": found,
    }


def run_build(bench: Bench) -> Json:
    """dbt build of everything but the increment."""
    place_increment(bench, added=False)
    bench.before.unlink(missing_ok=True)
    return fresh(bench, "daily", BUILD)


def place_increment(bench: Bench, added: bool) -> None:
    """Move the increment beside what was there before it, or away again."""
    apart, raw = bench.data / "increment", bench.data / "raw"
    here, there = (apart, raw) if added else (raw, apart)
    about = json.loads((bench.data / "about.json").read_text())
    for name in about["increment_files"]:
        if (here / name).exists():
            (here / name).rename(there / name)


def run_increment(bench: Bench) -> Json:
    """Add the increment and build again, each time on the warehouse as it was."""
    warehouse = bench.warehouse("daily")
    if not bench.before.exists():
        shutil.copy2(warehouse, bench.before)
    place_increment(bench, added=True)
    runs = []
    for _ in range(bench.repeats):
        shutil.copy2(bench.before, warehouse)
        runs.append(dbt(bench, "daily", BUILD))
    if not bench.keep:
        bench.before.unlink()
    return median_run(runs) | {"disk_bytes": warehouse.stat().st_size}


def run_features(bench: Bench) -> Json:
    """Everything that the features need, from nothing, on all events."""
    place_increment(bench, added=True)
    found = fresh(bench, "fresh", FEATURES)
    found["counts"] = bench.script(
        "fresh", "tables", "counts", bench.warehouse("fresh")
    )
    if bench.warehouse("daily").exists():
        both = [bench.warehouse("daily"), bench.warehouse("fresh")]
        found["increment_differs"] = bench.script("fresh", "tables", "same", *both)
    return found


def run_shared(bench: Bench) -> Json:
    """Only what the features that other ways make too need."""
    found = fresh(bench, "shared", SHARED)
    bench.warehouse("shared").unlink()
    return found


def run_training(bench: Bench) -> Json:
    """python -m ml.train without its studies, on the warehouse of every day."""
    command = [sys.executable, "-m", "ml.train", "--no-studies", "--force"]
    done = bench.run("daily", command, Limits(seconds=TRAINING))
    models = folder_size(bench.folder / "daily" / "models")
    rows = bench.script("daily", "tables", "trained", bench.warehouse("daily"))
    return done.as_json() | rows | {"disk_bytes": models}


def run_scoring(bench: Bench) -> Json:
    """python -m ml.score with the champion."""
    done = bench.run("daily", [sys.executable, "-m", "ml.score"])
    scored = bench.script("daily", "tables", "scored", bench.warehouse("daily"))
    return done.as_json() | scored


def run_bare_scoring(bench: Bench) -> Json:
    """Scoring many points against XGBoost's bare prediction of them."""
    module: list[str | Path] = [sys.executable, "-m", "tests.bench.scoring_task"]
    folder = bench.folder / "scoring"
    warehouse = bench.warehouse("daily")
    bench.warehouse("scoring").unlink(missing_ok=True)
    bench.run("daily", [*module, "enlarge", warehouse, folder, SCORED_POINTS])
    models = bench.folder / "daily" / "models"
    command = [*module, "measure", bench.warehouse("scoring"), models]
    return dict(json.loads(bench.run("scoring", command).output))


def run_pandas(bench: Bench) -> Json:
    """The pandas way, as notebooks have it."""
    return run_other(bench, pandas_command(bench, other_output(bench)), "pandas")


def run_careful_pandas(bench: Bench) -> Json:
    """The pandas way, written with care."""
    command = [*pandas_command(bench, other_output(bench)), "--careful"]
    return run_other(bench, command, "pandas_careful")


def pandas_command(bench: Bench, out: Path) -> list[str | Path]:
    """The script with its input, and where it writes."""
    module = [sys.executable, "-m", "tests.bench.scale.pandas_way"]
    return [*module, bench.data / "raw", points(bench), out]


def other_output(bench: Bench) -> Path:
    """What another way made, to be compared."""
    return bench.folder / "other.parquet"


def run_featuretools(bench: Bench) -> Json:
    """featuretools with cutoff times, in an environment of its own."""
    try:
        python = featuretools_python(bench.scratch)
    except subprocess.CalledProcessError:
        return {"gave_up": "its environment could not be installed"}
    facts = bench.folder / "facts.parquet"
    command = [*pandas_command(bench, facts), "--facts"]
    prepared = bench.run("other", command, other_limits())
    if prepared.gave_up:
        return {"gave_up": f"{prepared.gave_up} to prepare its input"}
    script = HERE / "featuretools_way.py"
    command = [python, script, facts, points(bench), other_output(bench)]
    return run_other(bench, command, "featuretools")


def other_limits() -> Limits:
    """How long another way may take, and how much of the machine's memory."""
    return Limits(OTHER_WAYS, int(machine_memory() * SHARE_OF_MACHINE))


def run_other(bench: Bench, command: Sequence[str | Path], name: str) -> Json:
    """Measure another way, and compare what it made with the warehouse."""
    done = bench.run(name, command, other_limits())
    found = done.as_json()
    if done.gave_up:
        return found
    found["work_seconds"] = json.loads(done.output)["seconds"]
    both = [bench.warehouse("fresh"), other_output(bench)]
    made = bench.script("fresh", "tables", "compare", *both)
    if made["unmatched"] or made["different"]:
        raise CommandFailed(f"{name} makes other numbers than the warehouse: {made}")
    return found | {"same": {name: made[name] for name in ("rows", "features")}}


def points(bench: Bench) -> Path:
    """The prediction points, for the other ways."""
    path = bench.folder / "points.parquet"
    if not path.exists():
        warehouse = bench.warehouse("fresh")
        bench.script("fresh", "tables", "points", warehouse, path)
    return path


def featuretools_python(scratch: Path) -> Path:
    """The interpreter of an environment with featuretools, made where missing."""
    folder = scratch / "featuretools"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), *quiet, *FEATURETOOLS], check=True)
        (folder / "made").touch()
    return python


STEPS: dict[str, Callable[[Bench], Json]] = {
    "data": make_data,
    "floors": run_floors,
    "build": run_build,
    "increment": run_increment,
    "features": run_features,
    "shared": run_shared,
    "pandas": run_pandas,
    "pandas_careful": run_careful_pandas,
    "featuretools": run_featuretools,
    "train": run_training,
    "score": run_scoring,
    "scoring": run_bare_scoring,
}
NEEDS_STUDENTS = ("train", "score", "scoring")
NEEDS_MODEL = ("score", "scoring")
# On almost no data these take what dbt takes for itself.
DBT_STEPS = ("data", "build", "increment", "features", "shared")


# ---------- all of it


def measure_overhead(bench: Bench) -> Json:
    """What dbt's commands take on the smallest data, and a first parse."""
    bench.size = "0"
    found = {}
    for step in DBT_STEPS:
        found[step] = STEPS[step](bench)
        bench.about = found["data"]
        tell("overhead", step, found[step])
    shutil.rmtree(bench.folder / "daily" / "target")
    found["parse"] = bench.run("daily", [DBT, "--quiet", "parse"]).as_json()
    shutil.rmtree(bench.folder)
    return found


def measure_size(bench: Bench, size: str, steps: list[str], results: Json) -> None:
    """Run steps at one size; the results are kept after each."""
    bench.size = size
    found = results["sizes"].setdefault(size, {})
    bench.about = found.get("data", {})
    for step in steps:
        reason = reason_to_skip(bench, results, step)
        found[step] = {"gave_up": reason} if reason else STEPS[step](bench)
        bench.about = found["data"]
        tell(f"{size} million", step, found[step])
        note_day(results, step, size, bench.day)
        save(results)


def reason_to_skip(bench: Bench, results: Json, step: str) -> str | None:
    """Why a step is not worth trying at the present size, if there is a reason."""
    if step in NEEDS_STUDENTS and bench.about["events"] < FEWEST_FOR_TRAINING:
        return "too few students"
    if step in NEEDS_MODEL:
        status = results["sizes"][bench.size]["train"].get("status")
        return None if status == "champion" else "there is no model: it was refused"
    smaller = [
        found.get(step, {})
        for size, found in results["sizes"].items()
        if float(size) < float(bench.size)
    ]
    gave_up = any("gave_up" in found for found in smaller)
    return "not tried: it gave up on fewer events" if gave_up else None


def tell(size: str, step: str, found: Json) -> None:
    """One line of progress."""
    seconds = found.get("seconds")
    took = "" if seconds is None else f"{seconds:9.1f} s"
    peak = found.get("peak_bytes")
    memory = "" if peak is None else f"{peak / GB:7.2f} GB"
    gave_up = found.get("gave_up", "")
    print(f"{size:>12} {step:15}{took:11}{memory:10} {gave_up}", file=sys.stderr)


def save(results: Json) -> None:
    """Write the results."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def machine_memory() -> int:
    """Bytes of memory that the machine has, to 0.1 GB: two starts differ by pages."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), -8)


def describe_machine() -> Json:
    """What a reader has to know about the machine, and nothing that names it."""
    names = ["duckdb", "dbt-core", "dbt-duckdb", "pandas", "xgboost-cpu"]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": machine_memory(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in names},
        "featuretools": FEATURETOOLS[0].split("==")[1],
    }


def start_results(arguments: argparse.Namespace, bench: Bench) -> Json:
    """New results; with --steps those that are there, if the machine is the same."""
    started: Json = {
        "days": {},
        "machine": describe_machine(),
        "limits": {
            "memory_bytes": bench.memory,
            "duckdb_memory": bench.settings("any")["WAREHOUSE_MEMORY_LIMIT"],
        },
        "sizes": {},
    }
    if arguments.steps is None:
        return started
    kept = json.loads(RESULTS.read_text())
    if any(kept[name] != started[name] for name in ("machine", "limits")):
        raise SystemExit(f"{RESULTS} is of another machine, version or limit.")
    return dict(kept)


def note_day(results: Json, step: str, size: str, day: str) -> None:
    """Keep on which day a step began: with --steps others are of an earlier one."""
    results["days"].setdefault(step, {})[size] = day


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.scale",
        description=(__doc__ or "").partition("\n")[0],
        epilog="example: python -m tests.bench.scale --sizes 1,10 --memory 3",
    )
    add = parser.add_argument
    add("--sizes", default="1,10,100", help="millions of events (default 1,10,100)")
    add("--memory", type=float, default=6, help="GB for each command (default 6)")
    add("--steps", help=f"only these: {', '.join(['overhead', *STEPS])}")
    add("--repeats", type=int, default=3, help="runs below 20 million (default 3)")
    add("--scratch", type=Path, help="folder to work in (default data/bench)")
    add("--keep", action="store_true", help="leave data and warehouses there")
    return parser.parse_args()


def main() -> None:
    """Measure what was asked for, and write the page."""
    arguments = read_arguments()
    given = arguments.scratch or os.environ.get("BENCH_SCRATCH") or "data/bench"
    scratch, memory = (PROJECT_ROOT / given).resolve(), int(arguments.memory * GB)
    bench = Bench(scratch, memory, arguments.keep, arguments.repeats)
    bench.scratch.mkdir(parents=True, exist_ok=True)
    results = start_results(arguments, bench)
    steps = [*STEPS, "overhead"]
    steps = steps if arguments.steps is None else arguments.steps.split(",")
    if "overhead" in steps:
        results["overhead"] = measure_overhead(bench)
        note_day(results, "overhead", "0", bench.day)
    for size in arguments.sizes.split(","):
        chosen = [step for step in STEPS if step in steps]
        measure_size(bench, size, chosen, results)
        if not arguments.keep:
            shutil.rmtree(bench.folder)
    save(results)
    subprocess.run([sys.executable, "-m", "tests.bench.scale.page"], check=True)


if __name__ == "__main__":
    main()
