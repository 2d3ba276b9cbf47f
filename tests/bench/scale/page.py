"""Write docs/performance.md and its picture from docs/performance.json, and what
follows from it in docs/scaling.md.

python -m tests.bench.scale.page
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ml.settings import PROJECT_ROOT
from tests.bench.scale.rates import fill
from tests.bench.scale.targets import (
    LEAST_WORK,
    TARGETS,
    Results,
    Target,
    aggregation_ratio,
    increment_range,
    increment_share,
    measured,
    speed_up,
    work,
)

DOCS = PROJECT_ROOT / "docs"
GB = 1e9
NOTHING = "-"

Row = list[str]
Step = dict[str, Any]
STAGES = {
    "features": "features at four leads",
    "build": "whole build, with tests",
    "increment": "daily increment",
    "train": "training, 45 fits",
    "score": "scoring",
}
WAYS = {
    "pandas": "pandas, as notebooks do",
    "pandas_careful": "pandas, with care",
    "featuretools": "featuretools",
}


# ---------- figures in words


def number(value: float | None, digits: int = 1) -> str:
    """A figure with its thousands; a dash where there is none."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def gigabytes(step: Step, name: str) -> str:
    """Bytes of a step in GB."""
    value = step.get(name)
    return NOTHING if value is None else number(value / GB, 2)


def times(value: float | None) -> str:
    """A ratio."""
    return NOTHING if value is None else f"{value:,.{1 if value >= 3 else 2}f} x"


def percent(share: float | None) -> str:
    """A share in per cent."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table; every column but the first is of numbers."""
    full = [row + [""] * (len(head) - len(row)) for row in rows]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *full]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_size(
    results: Results, step: str, cells: Callable[[str, Step], Row]
) -> list[Row]:
    """A row for each size at which a step was tried."""
    rows = []
    for size, steps in results["sizes"].items():
        found = steps.get(step)
        if found is not None:
            first = [f"{float(size):g} million"]
            gave_up = found.get("gave_up")
            rows.append([*first, *([gave_up] if gave_up else cells(size, found))])
    return rows


# ---------- the parts of the page


def measured_on(results: Results) -> str:
    """The newest day, and which steps are of an earlier one."""
    by_step = results["days"].items()
    newest = max(day for _, sizes in by_step for day in sizes.values())
    older: dict[tuple[str, str], list[str]] = {}
    for step, sizes in by_step:
        for size, day in sizes.items():
            if day != newest:
                older.setdefault((step, day), []).append(size)
    said = f"Measured on {newest}; what was changed since is not in it."
    if not older:
        return said
    steps = [
        f"{step} at {', '.join(sizes)} million events ({day})"
        for (step, day), sizes in older.items()
    ]
    return (
        f"{said} Measured before that: {'; '.join(steps)}. Ratios with them compare two"
        " hours, in which the machine may not have been as fast."
    )


def machine(results: Results) -> str:
    """On what it was measured."""
    found, limits = results["machine"], results["limits"]
    versions = ", ".join(f"{name} {text}" for name, text in found["versions"].items())
    memory = f"{found['memory_bytes'] / GB:.0f} GB of memory"
    return (
        f"{measured_on(results)} "
        f"The machine has {found['cores']} cores and {memory}, "
        f"Python {found['python']}, {versions}. Each command may hold "
        f"{limits['memory_bytes'] / GB:g} GB: DuckDB is given "
        f"`WAREHOUSE_MEMORY_LIMIT={limits['duckdb_memory']}`, Python has the rest."
    )


def promise(results: Results, target: Target) -> Row:
    """One target, and what became of it."""
    value = target.value(results)
    sign = "≥" if target.at_least else "≤"
    status = target.status(results)
    shown = f"**{status}**" if status == "missed" else status
    bound = f"{sign} {target.bound:g}"
    return [target.name, bound, number(value, 2), shown]


def data(results: Results) -> str:
    """What was read."""

    def cells(_: str, found: Step) -> Row:
        return [
            number(found["events"], 0),
            number(found["students"], 0),
            number(found["event_files"], 0),
            gigabytes(found, "bytes"),
            number(found["increment_events"], 0),
            number(found["increment_late"], 0),
            number(found["increment_again"], 0),
        ]

    head = ["size", "events", "students", "files", "GB"]
    head += ["increment", "of it late", "delivered twice"]
    return table(head, by_size(results, "data", cells))


def floors(results: Results) -> str:
    """From events to features against the floors."""

    def cells(size: str, found: Step) -> Row:
        floor = measured(results, size, "floors") or {}
        seconds = work(results, size, "features")
        read = floor.get("read_seconds")
        aggregate = floor.get("aggregate_seconds")
        events = results["sizes"][size]["data"]["events"]
        return [
            number(read, 2),
            number(aggregate, 2),
            number(found["seconds"]),
            number(seconds),
            times(seconds / read if seconds and read else None),
            times(aggregation_ratio(results, size, "features")),
            number(events / seconds if seconds else None, 0),
        ]

    head = ["events", "read once, s", "aggregate, s", "features, s", "work, s"]
    head += ["work / read", "work / aggregate", "events a second"]
    return table(head, by_size(results, "features", cells))


def stage(results: Results, step: str) -> str:
    """Time, memory and disk of one command."""

    def cells(size: str, found: Step) -> Row:
        return [
            number(found["seconds"]),
            number(work(results, size, step)),
            number(sum(found["node_seconds"].values())),
            number(found["cpu_seconds"]),
            gigabytes(found, "peak_bytes"),
            gigabytes(found, "spilled_bytes"),
            gigabytes(found, "disk_bytes"),
        ]

    head = ["events", "wall, s", "work, s", "in nodes, s", "CPU, s", "peak memory, GB"]
    head += ["spilled, GB", "on disk, GB"]
    return table(head, by_size(results, step, cells))


def increments(results: Results) -> str:
    """The increment as a share of the full build."""

    def cells(size: str, _: Step) -> Row:
        extremes = increment_range(results, size) or [None]
        return [
            percent(increment_share(results, size)),
            " to ".join(percent(share) for share in extremes),
            percent(increment_share(results, size, "cpu_seconds")),
        ]

    head = ["events", "of the work", "by the extremes of the runs", "of the CPU time"]
    return table(head, by_size(results, "increment", cells))


def slowest(results: Results) -> str:
    """The models that take longest, at the largest size."""
    size = max(results["sizes"], key=float)
    found = measured(results, size, "features")
    if found is None:
        return ""
    rows = [[f"`{name}`", number(s, 2)] for name, s in found["slowest"].items()]
    return (
        f"\nAt {float(size):g} million events the slowest models were (seconds; two "
        f"run at a time):\n\n{table(['model', 's'], rows)}\n"
    )


def overhead(results: Results) -> str:
    """What dbt takes for itself."""
    rows = []
    for step in ("features", "build", "increment"):
        found = results["overhead"][step]
        nodes = sum(found["nodes"].values())
        inside = sum(found["node_seconds"].values())
        rows.append(
            [
                STAGES[step],
                number(found["seconds"]),
                number(nodes, 0),
                number(inside),
                number(1000 * found["seconds"] / nodes, 0),
            ]
        )
    head = ["command", "wall, s", "nodes", "in nodes, s", "ms a node"]
    parse = number(results["overhead"]["parse"]["seconds"])
    return (
        table(head, rows)
        + f"\n\nA first parse of the project takes {parse} s more; later ones are kept."
    )


def machine_learning(results: Results, step: str) -> str:
    """Training, or scoring."""

    def cells(_: str, found: Step) -> Row:
        points = found.get("points", found.get("scored"))
        return [
            number(points, 0),
            number(found["seconds"]),
            number(found["cpu_seconds"]),
            gigabytes(found, "peak_bytes"),
            number(points / found["seconds"], 0) if points else NOTHING,
        ]

    head = [
        "events",
        "points",
        "wall, s",
        "CPU, s",
        "peak memory, GB",
        "points a second",
    ]
    return table(head, by_size(results, step, cells))


def bare_scoring(results: Results) -> str:
    """Scoring against the bare prediction."""

    def cells(_: str, found: Step) -> Row:
        return [
            number(found["rows"], 0),
            number(found["seconds"], 2),
            number(found["bare_seconds"], 2),
            times(found["ratio"]),
        ]

    head = ["model of", "points", "scoring, s", "predict and contributions, s", "ratio"]
    return table(head, by_size(results, "scoring", cells))


def other_ways(results: Results) -> str:
    """pandas and featuretools against the same events."""
    rows = []
    for size, steps in results["sizes"].items():
        for way, name in WAYS.items():
            if way not in steps:
                continue
            found = steps[way]
            first = [f"{float(size):g} million", name]
            if "gave_up" in found:
                rows.append([*first, found["gave_up"]])
                continue
            seconds = found["work_seconds"]
            against = [work(results, size, step) for step in ("features", "shared")]
            rows.append(
                [
                    *first,
                    number(seconds),
                    gigabytes(found, "peak_bytes"),
                    *(times(seconds / ours if ours else None) for ours in against),
                ]
            )
    head = ["events", "way", "s", "peak memory, GB", "slower than all our features"]
    return table([*head, "slower than the shared part"], rows)


def render(results: Results) -> str:
    """The page."""
    promises = table(
        ["what", "to reach", "measured", ""], (promise(results, t) for t in TARGETS)
    )
    careful = speed_up(results, "pandas_careful")
    return f"""<!-- Written by `make bench` from performance.json; do not edit. -->
# Performance

`make bench` generates the native contract at several sizes, measures every step in a
process of its own, one after the other, and writes this page. `make bench SIZES=1,10`
is shorter, `make bench MEMORY=3` halves the memory. Seconds belong to a machine, so
what is promised is ratios to what the same machine did in the same run.

{machine(results)}

![Seconds against events, both logarithmic](performance.png)

## What was to be reached

{promises}

*Work* is what a command takes beyond the same command on almost no data (twenty
students): dbt's start, and what each model costs by existing. The floors have no such
start, and check, deduplicate and name nothing. *In nodes* is the sum that dbt reports
over models and tests, two of which run at a time.

## What was read

{data(results)}

Students are as busy as on a real platform: about 18 clicks on an active day, as in
OULAD (5.2 rows of clicks on an active day, each standing for 3.4), and about 30 active
days in an enrollment of at most 112 (OULAD: 59, in eight months). Events lie in the
order in which they were loaded, in files of at most five million, with the sample's
kinds of dirt. The increment is what was loaded last.

## From events to features

Everything from raw files to `student_features_14d` at four leads, into an empty
warehouse (`dbt run --select +student_features_14d`). *Read once* is DuckDB looking at
every value of `activity_events`; *aggregate* is one plain aggregation of it to student
x course x day, written to a table. All have the same threads, memory and warm cache.

{floors(results)}

{stage(results, "features")}
{slowest(results)}
## The whole build, and a day later

`dbt build` makes every table and runs every test. The build reads all but the newest
hundredth of the events; then that is added, with late arrivals and repeated deliveries
in it, and `dbt build` runs again. Afterwards daily activity and features are compared
with those built from nothing on all events: {differences(results)}.

{stage(results, "build")}

The increment:

{stage(results, "increment")}

What it takes beyond its start, as a share of what the full build takes beyond its own.
Both are differences of two runs. Where data is small they are hardly larger than what
runs of one command differ by, as the extremes show; CPU time differs less. A build
that was faster than its start, measured in another hour, has no share:

{increments(results)}

## What dbt takes for itself

The same commands on twenty students, after a first parse.

{overhead(results)}

## Training and scoring

`python -m ml.train --no-studies`: search of 15 candidates on 3 folds, calibration,
evaluation, reasons and scores. It is ended after two hours.

{machine_learning(results, "train")}

`python -m ml.score`, with the start of Python, on the questions that are open on one
day:

{machine_learning(results, "score")}

Against XGBoost's `predict` and `pred_contribs` alone, on the same points in memory:

{bare_scoring(results)}

## Other ways

The same events, and the features that all have in common; where a way came to an end,
every value was compared with the warehouse's and is the same, to 1e-9. *As notebooks
do*: read Parquet, and merge and group for each lead and window. *With care*: ids as
categories, one merge for both windows. {featuretools_version(results)} runs with
cutoff times in an environment of its own, and is spared reading, checking and
assigning events to enrollments. Other ways may take half an hour and most of the
machine's memory. They make 10 to 13 features; ours are all of them, or (*the shared
part*) the two families that these belong to. Against pandas with care, at the largest
size that it manages, all our features are {times(careful)} as fast.

{other_ways(results)}
"""


def featuretools_version(results: Results) -> str:
    """Which one it was."""
    return f"featuretools {results['machine']['featuretools']}"


def differences(results: Results) -> str:
    """Whether increments end where a full build does."""
    found = [
        sum(step["increment_differs"].values())
        for size in results["sizes"]
        if (step := measured(results, size, "features")) and "increment_differs" in step
    ]
    if not found:
        return "not measured"
    return f"{sum(found):,} rows differ" if sum(found) else "no row differs"


# ---------- the picture


def lines(results: Results) -> dict[str, list[tuple[float, float]]]:
    """Events and seconds by what is drawn."""
    drawn: dict[str, list[tuple[float, float]]] = {}

    def add(name: str, size: str, seconds: float | None) -> None:
        # Less than dbt's start varies by is no measurement.
        if seconds is not None and seconds > LEAST_WORK:
            events = results["sizes"][size]["data"]["events"]
            drawn.setdefault(name, []).append((events, seconds))

    for size in results["sizes"]:
        for step in ("features", "build", "increment"):
            add(STAGES[step], size, work(results, size, step))
        for step in ("train",):
            found = measured(results, size, step)
            add(STAGES[step], size, found["seconds"] if found else None)
        for way, name in WAYS.items():
            found = measured(results, size, way)
            add(name, size, found["work_seconds"] if found else None)
        floor = measured(results, size, "floors")
        if floor:
            add("floor: aggregate once", size, floor["aggregate_seconds"])
            add("floor: read once", size, floor["read_seconds"])
    return drawn


def draw(results: Results, path: Path) -> None:
    """Seconds against events, logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.add_subplot()
    styles = {
        STAGES["features"]: ("#0b5394", "-", 2.6),
        STAGES["build"]: ("#3d85c6", "-", 1.6),
        STAGES["increment"]: ("#6fa8dc", "--", 1.6),
        STAGES["train"]: ("#674ea7", ":", 1.6),
        WAYS["pandas"]: ("#cc4125", "-", 1.6),
        WAYS["pandas_careful"]: ("#e69138", "-", 1.6),
        WAYS["featuretools"]: ("#990000", "-", 1.6),
        "floor: aggregate once": ("#666666", "-", 1.2),
        "floor: read once": ("#aaaaaa", "-", 1.2),
    }
    for name, found in lines(results).items():
        color, line, width = styles[name]
        xs, ys = zip(*sorted(found), strict=True)
        axes.plot(xs, ys, line, color=color, linewidth=width, marker="o", markersize=4)
        axes.plot([], [], line, color=color, linewidth=width, label=name)
    axes.set(xscale="log", yscale="log", xlabel="events", ylabel="seconds")
    axes.xaxis.set_major_formatter(lambda events, _: f"{events / 1e6:g} million")
    axes.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:,g}")
    axes.set_title("Seconds of work against events", loc="left")
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    order = [labels.index(name) for name in styles if name in labels]
    figure.legend(
        [handles[n] for n in order],
        [labels[n] for n in order],
        loc="outside right upper",
        frameon=False,
        fontsize=9,
    )
    # Without the version of matplotlib in it, the same results are the same bytes.
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main() -> None:
    """Write all of it, and print what was to be reached."""
    results = json.loads((DOCS / "performance.json").read_text())
    (DOCS / "performance.md").write_text(render(results))
    draw(results, DOCS / "performance.png")
    scaling = DOCS / "scaling.md"
    scaling.write_text(fill(scaling.read_text(), results))
    for target in TARGETS:
        name, bound, value, _ = promise(results, target)
        print(f"{target.status(results):12} {value:>10} ({bound})  {name}")


if __name__ == "__main__":
    main()
