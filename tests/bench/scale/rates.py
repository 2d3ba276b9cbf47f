"""The measured rates, and what follows from them at a billion events a day.

Fills the part of docs/scaling.md between its two markers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tests.bench.scale.targets import Results, largest, measured, work

BILLION = 1e9
HOUR = 3600
DAYS = 112  # that an enrollment of the bench's students lasts
MARKED = re.compile(r"(<!-- measured -->\n).*(<!-- end of measured -->)", re.DOTALL)


@dataclass(frozen=True)
class Rates:
    """What one event costs, at the largest size that was measured."""

    events: float
    refresh: float  # events a second, from raw to features
    floor: float  # events a second, one plain aggregation
    core_seconds: float  # for a million events, from raw to features
    raw_bytes: float  # of Parquet, by event
    events_a_day: float  # by row of student x course x day
    of_enrollment: float  # events of one enrollment
    day_bytes: float  # of warehouse, by row of student x course x day
    memory: float  # bytes at the peak
    increment_events: float
    increment_seconds: float
    scoring: float | None  # points a second
    training: float | None  # points a second


def read_rates(results: Results) -> Rates:
    """The rates of the largest size at which features were made."""
    size = largest(results, "features")
    if size is None:
        raise SystemExit("The step features was measured at no size.")
    steps = results["sizes"][size]
    data, features, floors = (steps[name] for name in ("data", "features", "floors"))
    seconds = work(results, size, "features") or math.nan
    overhead = results["overhead"]["features"]["cpu_seconds"]
    return Rates(
        events=data["events"],
        refresh=data["events"] / seconds,
        floor=data["events"] / floors["aggregate_seconds"],
        core_seconds=(features["cpu_seconds"] - overhead) / data["events"] * 1e6,
        raw_bytes=data["bytes"] / data["events"],
        events_a_day=data["events"] / features["counts"]["days"],
        of_enrollment=data["events"] / features["counts"]["enrollments"],
        day_bytes=features["disk_bytes"] / features["counts"]["days"],
        memory=features["peak_bytes"],
        increment_events=data["increment_events"],
        increment_seconds=work(results, size, "increment") or math.nan,
        scoring=_points_a_second(results, "scoring", "rows"),
        training=_points_a_second(results, "train", "points"),
    )


def _points_a_second(results: Results, step: str, name: str) -> float | None:
    size = largest(results, step)
    found = None if size is None else measured(results, size, step)
    return (
        None if found is None or name not in found else found[name] / found["seconds"]
    )


def block(results: Results) -> str:
    """Two tables: the rates, and a billion events a day at these rates."""
    rates = read_rates(results)
    cores = results["machine"]["cores"]
    lines = ["| | what | measured |", "| --- | --- | ---: |"]
    lines += [f"| *{name}* | {what} | {value} |" for name, what, value in _rates(rates)]
    lines += ["", f"At a billion events a day, on machines of {cores} cores like this:"]
    lines += ["", "| what | how | |", "| --- | --- | ---: |"]
    lines += [f"| {what} | {how} | {value} |" for what, how, value in _billion(rates)]
    size = f"{rates.events / 1e6:.0f} million events"
    return f"From [performance.md](performance.md), at {size}:\n\n" + "\n".join(lines)


def _rates(rates: Rates) -> list[tuple[str, str, str]]:
    share = rates.increment_events / rates.events
    found = [
        (
            "r",
            "events a second, raw to features, from nothing",
            f"{rates.refresh:,.0f}",
        ),
        ("a", "events a second, one plain aggregation", f"{rates.floor:,.0f}"),
        ("c", "core-seconds for a million events", f"{rates.core_seconds:.2f}"),
        ("i", f"seconds of a {share:.1%} increment", f"{rates.increment_seconds:.1f}"),
        ("b", "bytes of Parquet for an event", f"{rates.raw_bytes:.1f}"),
        ("k", "events in a row of the daily table", f"{rates.events_a_day:.1f}"),
        ("e", "events of an enrollment", f"{rates.of_enrollment:.0f}"),
        ("w", "bytes of warehouse for such a row", f"{rates.day_bytes:.0f}"),
        ("m", "GB of memory at the peak", f"{rates.memory / 1e9:.1f}"),
    ]
    if rates.scoring is not None:
        found.append(
            ("s", "points scored a second, reasons too", f"{rates.scoring:,.0f}")
        )
    if rates.training is not None:
        found.append(("t", "points trained on a second", f"{rates.training:,.0f}"))
    return found


def _billion(rates: Rates) -> list[tuple[str, str, str]]:
    rows = BILLION / rates.events_a_day
    enrollments = BILLION * DAYS / rates.of_enrollment
    hours = BILLION / rates.refresh / HOUR
    night = 4 * HOUR * rates.refresh
    raw = BILLION * rates.raw_bytes
    found = [
        (
            "raw, a day and a year",
            "*b*",
            f"{raw / 1e9:.0f} GB, {raw * 365 / 1e12:.1f} TB",
        ),
        ("rows of the daily table, a day", "1 / *k*", f"{rows / 1e6:.0f} million"),
        ("open enrollments", f"{DAYS} days / *e*", _millions(enrollments)),
        (
            "daily table of a term",
            f"{DAYS} days x rows x *w*",
            f"{DAYS * rows * rates.day_bytes / 1e12:.1f} TB",
        ),
        (
            "core-hours for a day's events",
            "*c*",
            f"{rates.core_seconds * 1e3 / HOUR:.1f}",
        ),
        ("hours of one machine for a day's events", "1 / *r*", f"{hours:.1f}"),
        (
            "the same, at the floor",
            "1 / *a*",
            f"{BILLION / rates.floor / HOUR:.2f}",
        ),
        (
            "machines for it within one hour",
            "the hours, rounded up",
            f"{math.ceil(hours)}",
        ),
        ("events that one machine refreshes in a night", "4 h x *r*", _millions(night)),
    ]
    if rates.scoring is not None:
        scoring = enrollments / rates.scoring / HOUR
        found.append(
            ("hours of one machine to score each once", "/ *s*", f"{scoring:.1f}")
        )
    return found


def _millions(value: float) -> str:
    return f"{value / 1e6:,.0f} million"


def fill(text: str, results: Results) -> str:
    """The page with the measured part written anew."""
    filled, count = MARKED.subn(
        lambda found: f"{found[1]}{block(results)}\n{found[2]}", text
    )
    if count != 1:
        raise SystemExit("docs/scaling.md has lost its markers of what is measured.")
    return filled
