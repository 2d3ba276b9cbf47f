"""What is to be reached, as ratios: the one place that says so.

A target that is not reached stays as it is and is reported as missed; `held` is then
the ratio that the bench still holds it to: what it did reach, and a third for the noise
of another day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]
LEAST_WORK = 0.01  # seconds; a ratio to less is none
WAYS = ("pandas", "pandas_careful", "featuretools")


@dataclass(frozen=True)
class Target:
    """One promise: `value(results)` at most, or at least, `bound`."""

    name: str
    bound: float
    value: Callable[[Results], float | None]
    at_least: bool = False
    held: float | None = None

    def reaches(self, value: float, bound: float) -> bool:
        """Whether a value is on the right side of a bound."""
        return value >= bound if self.at_least else value <= bound

    def status(self, results: Results) -> str:
        """met, missed or not measured."""
        value = self.value(results)
        if value is None:
            return "not measured"
        return "met" if self.reaches(value, self.bound) else "missed"


# ---------- what is computed from the results


def measured(results: Results, size: str, step: str) -> dict[str, Any] | None:
    """One step of one size, if it was measured to its end."""
    found = results["sizes"].get(size, {}).get(step)
    return None if found is None or "gave_up" in found else found


def work(results: Results, size: str, step: str, of: str = "seconds") -> float | None:
    """Seconds of a dbt command beyond those that it takes on almost no data."""
    found = measured(results, size, step)
    overhead = results["overhead"].get(step)
    if found is None or overhead is None:
        return None
    return float(max(found[of] - overhead[of], LEAST_WORK))


def aggregation_ratio(results: Results, size: str, step: str) -> float | None:
    """Work of a step against the plain aggregation of the same events."""
    seconds, floors = work(results, size, step), measured(results, size, "floors")
    if seconds is None or floors is None:
        return None
    return seconds / floors["aggregate_seconds"]


def largest(results: Results, step: str) -> str | None:
    """The largest size at which a step was measured to its end."""
    sizes = [size for size in results["sizes"] if measured(results, size, step)]
    return max(sizes, key=float, default=None)


def speed_up(results: Results, way: str, step: str = "features") -> float | None:
    """How many times longer another way takes, at the largest size that it manages."""
    size = largest(results, way)
    seconds = None if size is None else work(results, size, step)
    if size is None or seconds is None:
        return None
    return float(results["sizes"][size][way]["work_seconds"] / seconds)


def growth(results: Results, step: str, low: str, high: str) -> float | None:
    """How much more work an event is at a larger size."""
    few, many = work(results, low, step), work(results, high, step)
    if few is None or many is None:
        return None
    events = [results["sizes"][size]["data"]["events"] for size in (low, high)]
    return (many / events[1]) / (few / events[0])


def memory_share(results: Results, size: str) -> float | None:
    """The highest peak of the dbt commands, as a share of the limit."""
    steps = [measured(results, size, s) for s in ("build", "increment", "features")]
    peaks = [step["peak_bytes"] for step in steps if step]
    return max(peaks) / results["limits"]["memory_bytes"] if peaks else None


def increment_share(results: Results, size: str, of: str = "seconds") -> float | None:
    """Work of the daily increment against that of the full build, if that had any."""
    part, whole = work(results, size, "increment", of), work(results, size, "build", of)
    if part is None or whole is None or whole == LEAST_WORK:
        return None
    return part / whole


def increment_range(results: Results, size: str) -> tuple[float, float] | None:
    """That share, by the runs that make it smallest and those that make it largest."""
    part, whole = (
        work_range(results, size, "increment"),
        work_range(results, size, "build"),
    )
    if part is None or whole is None or whole[0] == LEAST_WORK:
        return None
    return part[0] / whole[1], part[1] / whole[0]


def work_range(results: Results, size: str, step: str) -> tuple[float, float] | None:
    """The least and the most work, by the extremes of the runs of both commands."""
    found, overhead = measured(results, size, step), results["overhead"].get(step)
    if found is None or overhead is None:
        return None
    runs, starts = found["runs"], overhead["runs"]
    least, most = min(runs) - max(starts), max(runs) - min(starts)
    return max(least, LEAST_WORK), max(most, LEAST_WORK)


def scoring_ratio(results: Results) -> float | None:
    """Scoring against predict and pred_contribs alone."""
    size = largest(results, "scoring")
    return None if size is None else results["sizes"][size]["scoring"]["ratio"]


TARGETS = [
    Target(
        "10 million events to features at four leads, against one plain aggregation",
        4.0,
        lambda r: aggregation_ratio(r, "10", "features"),
        held=13.0,
    ),
    Target(
        "faster than pandas, at the largest size that it manages",
        10.0,
        lambda r: speed_up(r, "pandas"),
        at_least=True,
        held=1.5,
    ),
    Target(
        "faster than featuretools, at the largest size that it manages",
        30.0,
        lambda r: speed_up(r, "featuretools"),
        at_least=True,
        held=20.0,
    ),
    Target(
        "peak memory of dbt at 100 million events, as a share of the limit",
        1.0,
        lambda r: memory_share(r, "100"),
    ),
    Target(
        "work per event of the features at 100 million, against 10 million",
        1.0,
        lambda r: growth(r, "features", "10", "100"),
        held=1.5,
    ),
    Target(
        "work per event of the whole build at 100 million, against 10 million",
        1.0,
        lambda r: growth(r, "build", "10", "100"),
        held=2.0,
    ),
    Target(
        "work of an increment of 1 % against the full build, at 10 million",
        0.1,
        lambda r: increment_share(r, "10"),
        held=0.35,
    ),
    Target(
        "work of an increment of 1 % against the full build, at 100 million",
        0.1,
        lambda r: increment_share(r, "100"),
        held=0.25,
    ),
    Target(
        "scoring against predict and pred_contribs alone",
        2.0,
        scoring_ratio,
    ),
]
