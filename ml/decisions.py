"""What flagging brings: every cut with what it finds, costs and is worth.

All of it is computed from rows of `evaluation_predictions`, so that other costs,
capacities or thresholds need no training: `python -m ml.train` computes the table
anew each time. Students who were written to in between are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import pandas as pd

from ml.boosting import SEED
from ml.evaluate import POOLED, RESAMPLES, by_lead
from ml.metrics import BLOCK, Resamples, draw_resamples, percentile_interval
from ml.settings import Settings
from ml.warehouse import find_handback_table

TABLE = "ml.threshold_metrics"
THRESHOLD = "threshold"
CAPACITY = "capacity"
WEEKLY = "capacity_per_week"
THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]
CAPACITIES = [0.01, 0.02, 0.05, 0.1, 0.2]
# The rule flags who has missed this many assessments, or more.
RULE_FROM = 1.0
A_MONDAY = date(1970, 1, 5)
GAINS = ["expected_gain", "expected_gain_low", "expected_gain_high"]
SITTING = ["student_id", "course_id", "course_run_id", "assessment_id"]


@dataclass(frozen=True)
class Flagged:
    """Points flagged, and failing ones among them, for each resample."""

    points: np.ndarray
    failing: np.ndarray


@dataclass(frozen=True)
class Part:
    """The points of one lead, and the draws of their students.

    `confident` says who is sure enough to be flagged; `tie_break` is a random
    number per point; `week` counts weeks from Monday to Monday.
    """

    labels: np.ndarray
    scores: np.ndarray
    rule: np.ndarray
    confident: np.ndarray
    tie_break: np.ndarray
    week: np.ndarray
    draws: Resamples

    @cached_property
    def all_failing(self) -> np.ndarray:
        """Failing points in each resample."""
        return self.draws.totals(self.labels.astype(float))

    @property
    def as_it_is(self) -> Resamples:
        """The first row of the draws: everybody once."""
        return Resamples(self.draws.weights[:1], self.draws.student)


def decision_table(
    predictions: pd.DataFrame,
    settings: Settings,
    headline: int,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Every cut at every lead, and the capacity that is worth most.

    Intervals are the 2.5th and 97.5th percentile over resamples of students; a
    capacity is filled anew in each. With all leads pooled a sitting is asked about
    several times, and would bring its gain each time: there the gain is null.

    Parameters
    ----------
    predictions
        Rows of `evaluation_predictions`.
    settings
        Read are the costs, ADVISORS, FLAG_CAPACITY and the two thresholds.
    headline
        The lead at which a capacity is recommended.

    Returns
    -------
    pandas.DataFrame
        Rows of `threshold_metrics` without run_id.
    """
    usual = predictions[~predictions["contacted_before_due"]]
    reachable = still_reachable(usual)
    rows = [
        row | {"lead_days": lead, "still_reachable": reachable.get(lead, np.nan)}
        for lead, points in by_lead(usual)
        if len(points)
        for row in _rows(_part(points, settings, resamples), settings)
    ]
    if not rows:
        columns = find_handback_table(TABLE).columns
        return pd.DataFrame(columns=[name for name in columns if name != "run_id"])
    table = pd.DataFrame(rows)
    table.loc[table["lead_days"] == POOLED, GAINS] = np.nan
    return _recommend(table, headline)


def still_reachable(points: pd.DataFrame) -> dict[int, float]:
    """Of the failing sittings asked about at the longest lead, the share that is
    still asked about at each lead.

    A sitting is asked about as long as its student is enrolled and has handed
    nothing in. So whoever leaves the course in between is out of an advisor's reach,
    and the longest lead has 1 by definition. A lead that has no such sitting (open
    sittings have lead 0 alone) is left out.
    """
    failing = points[points["at_risk"] == 1]
    asked = {
        lead: set(part[SITTING].itertuples(index=False, name=None))
        for lead, part in by_lead(failing)
        if lead != POOLED
    }
    first = asked.get(max(points["lead_days"], default=0), set())
    return {
        lead: len(first & now) / len(first)
        for lead, now in asked.items()
        if first & now
    }


def break_even(settings: Settings) -> float | None:
    """The risk from which a contact is worth its cost: cost / (effect x value).

    None where a cost setting is empty, or where no risk is high enough.
    """
    cost, value, effect = (
        settings.contact_cost,
        settings.pass_value,
        settings.contact_effect,
    )
    if cost is None or value is None or effect is None or cost >= effect * value:
        return None
    return cost / (effect * value)


def net_benefit(
    failing: float, flagged: float, points: int, threshold: float | None
) -> float:
    """Net benefit per point (Vickers and Elkin 2006): the failing that are flagged,
    less the others at the odds of the threshold. NaN without a threshold below 1."""
    if threshold is None or threshold >= 1:
        return float("nan")
    return (failing - (flagged - failing) * threshold / (1 - threshold)) / points


# ---------------------------------------------------------------- cuts


def _part(points: pd.DataFrame, settings: Settings, resamples: int) -> Part:
    sure_from = settings.confidence_threshold or 0.0
    days = pd.to_datetime(points["as_of_date"]) - pd.Timestamp(A_MONDAY)
    return Part(
        labels=points["at_risk"].to_numpy(dtype=np.int64),
        scores=points["risk_score"].to_numpy(dtype=float),
        rule=points["baseline_rule"].to_numpy(dtype=float),
        # Unknown (a run from before it was kept) is sure enough.
        confident=points["confidence"].fillna(1.0).to_numpy(dtype=float) >= sure_from,
        tie_break=points["baseline_random"].to_numpy(dtype=float),
        week=days.dt.days.to_numpy() // 7,
        draws=draw_resamples(points["student_id"].to_numpy(), resamples, SEED),
    )


def _rows(part: Part, settings: Settings) -> Iterator[dict[str, object]]:
    """By threshold, by share, and by a number a week where FLAG_CAPACITY is set."""
    thresholds = _thresholds(settings)
    rule = _by_rule(part)
    for threshold, found in zip(
        thresholds, _by_threshold(part, thresholds), strict=True
    ):
        cut = {
            "cut": THRESHOLD,
            "cut_value": threshold,
            "threshold": threshold,
            "is_current": threshold == settings.prediction_threshold,
        }
        yield cut | _figures(part, found, rule, threshold, settings)
    worth_it_from = break_even(settings)
    for share, found, rule in _by_share(part):
        cut = {
            "cut": CAPACITY,
            "cut_value": share,
            "threshold": _lowest_flagged(part, int(found.points[0])),
            "is_current": False,
        }
        yield cut | _figures(part, found, rule, worth_it_from, settings)
    if settings.flag_capacity:
        found, rule = _by_week(part, settings.flag_capacity)
        cut = {
            "cut": WEEKLY,
            "cut_value": float(settings.flag_capacity),
            # Every week has its own.
            "threshold": float("nan"),
            "is_current": settings.prediction_threshold is None,
        }
        yield cut | _figures(part, found, rule, worth_it_from, settings)


def _thresholds(settings: Settings) -> list[float]:
    own = settings.prediction_threshold
    return sorted({*THRESHOLDS, *([] if own is None else [own])})


def _by_threshold(part: Part, thresholds: list[float]) -> list[Flagged]:
    """Who reaches each threshold: points are counted between two, then added up."""
    reached = np.searchsorted(thresholds, part.scores, side="right")
    reached[~part.confident] = 0
    groups = len(thresholds) + 1
    values = (np.ones(len(part.labels)), part.labels)
    between = part.draws.totals_by_group(values, reached, groups)
    points, failing = (sums[:, ::-1].cumsum(axis=1)[:, ::-1] for sums in between)
    return [Flagged(points[:, n], failing[:, n]) for n in range(1, groups)]


def _by_rule(part: Part) -> Flagged:
    """Whom the rule flags without a capacity, in the data as it is."""
    chosen = part.rule >= RULE_FROM
    return Flagged(
        np.array([float(chosen.sum())]), np.array([float(part.labels[chosen].sum())])
    )


def _by_share(part: Part) -> Iterator[tuple[float, Flagged, Flagged]]:
    """Each share of the points with the highest scores, and the rule's choice."""
    one_group = np.zeros(len(part.labels), dtype=np.int64)
    everybody = part.draws.totals(np.ones(len(part.labels)))
    places = [np.maximum(1, np.round(share * everybody)) for share in CAPACITIES]
    best = _by_risk(part.scores, part.tie_break)
    best = _enough(best[part.confident[best]], places[-1], part.draws)
    found = _fill(part.labels, best, one_group, places, part.draws)
    by_rule = _by_risk(part.rule, part.tie_break)
    only = [room[:1] for room in places]
    rule = _fill(part.labels, by_rule, one_group, only, part.as_it_is)
    yield from zip(CAPACITIES, found, rule, strict=True)


def _enough(order: np.ndarray, places: np.ndarray, draws: Resamples) -> np.ndarray:
    """The first of the points, as long as they fill the places in every resample."""
    first = order[: int(1.2 * places.max())]
    filled = draws.take(first).totals(np.ones(len(first)))
    return first if (filled >= places).all() else order


def _by_week(part: Part, capacity: int) -> tuple[Flagged, Flagged]:
    """As many students in every week, each once, as flagged_students has them."""
    found = []
    for scores, draws, allowed in (
        (part.scores, part.draws, part.confident),
        (part.rule, part.as_it_is, np.ones(len(part.labels), dtype=bool)),
    ):
        best = _by_risk(scores, part.tie_break)
        best = best[allowed[best]]
        who = pd.DataFrame({"week": part.week[best], "who": draws.student[best]})
        best = best[~who.duplicated().to_numpy()]
        best = best[np.argsort(part.week[best], kind="stable")]
        places = [np.full(len(draws.weights), float(capacity))]
        found += _fill(part.labels, best, part.week, places, draws)
    return found[0], found[1]


def _by_risk(scores: np.ndarray, tie_break: np.ndarray) -> np.ndarray:
    """Points by falling score; of equal ones by their random number."""
    return np.lexsort((tie_break, -scores))


def _fill(
    labels: np.ndarray,
    order: np.ndarray,
    group: np.ndarray,
    places: list[np.ndarray],
    draws: Resamples,
) -> list[Flagged]:
    """Fill the places of every group from the top, in each resample.

    Parameters
    ----------
    order
        Points to choose from: those of a group together, the best first.
    places
        For each capacity, the places of a group in each resample.
    """
    groups = group[order]
    first = np.flatnonzero(np.append(True, groups[1:] != groups[:-1])[: len(order)])
    start = np.repeat(first, np.diff(np.append(first, len(order))))
    failing = labels[order].astype(np.float32)
    counted: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in places]
    step = max(1, BLOCK // max(1, len(order)))
    for begin in range(0, len(draws.weights), step):
        rows = slice(begin, begin + step)
        # Whole numbers far below 2^24: float32 adds them exactly.
        drawn = np.take(draws.weights[rows], draws.student[order], axis=1)
        ahead = np.cumsum(drawn, axis=1) - drawn
        ahead -= ahead[:, start]
        for capacity, done in zip(places, counted, strict=True):
            room = capacity[rows, None].astype(np.float32)
            taken = np.clip(room - ahead, 0, drawn)
            done.append((taken.sum(axis=1), taken @ failing))
    return [
        Flagged(
            *(np.concatenate(part).astype(float) for part in zip(*done, strict=True))
        )
        for done in counted
    ]


def _lowest_flagged(part: Part, flagged: int) -> float:
    scores = np.sort(part.scores[part.confident])[::-1]
    return float(scores[flagged - 1]) if flagged else float("nan")


# ---------------------------------------------------------------- figures


def _figures(
    part: Part,
    found: Flagged,
    rule: Flagged,
    threshold: float | None,
    settings: Settings,
) -> dict[str, object]:
    """The figures of one cut; `threshold` is what net benefit is counted at."""
    points, failing = len(part.labels), int(part.labels.sum())
    flagged = int(found.points[0])
    weeks = len(np.unique(part.week))
    gain = _gain(found, settings)
    return {
        "flagged": flagged,
        **_with_interval("precision", _share(found.failing, found.points)),
        **_with_interval("recall", _share(found.failing, part.all_failing)),
        "flags_per_advisor": flagged / weeks / settings.advisors,
        "net_benefit": net_benefit(found.failing[0], flagged, points, threshold),
        "net_benefit_all": net_benefit(failing, points, points, threshold),
        "net_benefit_rule": net_benefit(
            rule.failing[0], rule.points[0], points, threshold
        ),
        **_with_interval("expected_gain", gain),
        "contact_cost": _number(settings.contact_cost),
        "pass_value": _number(settings.pass_value),
        "contact_effect": _number(settings.contact_effect),
    }


def _gain(found: Flagged, settings: Settings) -> np.ndarray:
    """Passes that contacts bring about, at their value, less the contacts' cost."""
    cost, value, effect = map(
        _number, (settings.contact_cost, settings.pass_value, settings.contact_effect)
    )
    return found.failing * effect * value - found.points * cost


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _with_interval(name: str, values: np.ndarray) -> dict[str, float]:
    low, high = percentile_interval(values)
    return {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}


def _recommend(table: pd.DataFrame, headline: int) -> pd.DataFrame:
    """Mark the capacity with the highest gain at the headline lead, if one gains."""
    table["is_recommended"] = False
    gains = table.loc[
        (table["lead_days"] == headline) & (table["cut"] != THRESHOLD), "expected_gain"
    ]
    if gains.max() > 0:
        table.loc[gains.idxmax(), "is_recommended"] = True
    return table
