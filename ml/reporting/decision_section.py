"""The section on decisions: what flagging by each cut finds, costs and is worth."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from ml.decisions import CAPACITY, THRESHOLD, WEEKLY
from ml.evaluate import POOLED
from ml.reporting import charts
from ml.reporting.charts import LOOKS, Line
from ml.reporting.page import (
    NOT_DEFINED,
    Picture,
    Section,
    Table,
    count,
    known,
    lacking,
    number,
    percent,
)
from ml.reporting.read import Facts, Model


def decisions(facts: Facts, model: Model) -> Section:
    anchor, title = "decisions", "Thresholds and decisions"
    table = model.thresholds
    cuts = table[table["lead_days"] == facts.headline] if len(table) else table
    if cuts.empty:
        return lacking(anchor, title, "ml.threshold_metrics")
    thresholds = cuts[cuts["cut"] == THRESHOLD].sort_values("cut_value")
    capacities = cuts[cuts["cut"] != THRESHOLD].sort_values(["flagged", "cut"])
    pictures = []
    if len(capacities):
        pictures.append(_capacity_picture(capacities))
        if capacities["expected_gain"].notna().any():
            pictures.append(_gain_picture(capacities))
    if len(thresholds):
        pictures += [_threshold_picture(thresholds), _decision_curve(thresholds)]
    return Section(
        anchor,
        title,
        [
            "FLAG_CAPACITY flags as many students as can be helped, those with the "
            "highest risk first; PREDICTION_THRESHOLD, where it is set, flags from a "
            f"risk on instead. Test period, lead {facts.headline}; 95 % intervals from "
            "drawing the students anew.",
            _settings_in_words(cuts),
            _recommendation(capacities),
        ],
        pictures,
        tables=[_capacity_table(capacities), _lead_table(table, cuts)],
    )


def cut_in_words(row: dict[Hashable, Any]) -> str:
    """`Top 5 %`, `50 students a week`, or `From a risk of 40 %`."""
    if row["cut"] == CAPACITY:
        return f"Top {percent(row['cut_value'])}"
    if row["cut"] == WEEKLY:
        return f"{count(row['cut_value'])} students a week"
    return f"From a risk of {percent(row['cut_value'])}"


def _settings_in_words(cuts: pd.DataFrame) -> str:
    """What the settings of the last training do."""
    current = cuts[cuts["is_current"]]
    if current.empty:
        return "Under the present settings everybody with a score is flagged."
    row = current.to_dict("records")[0]
    cut = cut_in_words(row)
    return (
        f"The present settings: {cut[0].lower()}{cut[1:]}. That flagged "
        f"{count(row['flagged'])} cases ({number(row['flags_per_advisor'], 1)} a week "
        f"for each advisor), of which {_share(row, 'precision')} failed, and found "
        f"{_share(row, 'recall')} of the failing."
    )


def _share(row: dict[Hashable, Any], name: str) -> str:
    """`42 % (38 % to 46 %)`, without the bracket where there is no interval."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if not (known(row[name]) and known(low) and known(high)):
        return percent(row[name])
    return f"{percent(row[name])} ({percent(low)} to {percent(high)})"


def _gain(row: dict[Hashable, Any]) -> str:
    """`4,670 (4,490 to 4,800)`."""
    if not known(row["expected_gain"]):
        return NOT_DEFINED
    text = count(row["expected_gain"])
    low, high = row["expected_gain_low"], row["expected_gain_high"]
    if not (known(low) and known(high)):
        return text
    return f"{text} ({count(low)} to {count(high)})"


def _recommendation(capacities: pd.DataFrame) -> str:
    """Which capacity is worth most, how sure that is, and on what it rests."""
    rows = capacities.to_dict("records")
    priced = [row for row in rows if known(row["expected_gain"])]
    if not priced:
        return (
            "What flagging is worth was not computed: set CONTACT_COST, PASS_VALUE and "
            "CONTACT_EFFECT and run `python -m ml.train` again, which then trains "
            "nothing."
        )
    row = priced[0]
    assumed = (
        f"If a contact costs {_amount(row['contact_cost'])}, a pass is worth "
        f"{_amount(row['pass_value'])} and a contact lets "
        f"{percent(row['contact_effect'])} of the failing pass (CONTACT_EFFECT: an "
        "assumption until an experiment has measured it), "
    )
    best = [row for row in priced if row["is_recommended"]]
    if not best:
        return f"{assumed}no capacity pays."
    chosen = best[0]
    cut = cut_in_words(chosen)
    text = (
        f"{assumed}this capacity is worth most: {cut[0].lower()}{cut[1:]}. Its gain "
        f"over the test period is {_gain(chosen)}"
    )
    if known(chosen["expected_gain_low"]) and chosen["expected_gain_low"] <= 0:
        text += ", which may be none at all"
    if chosen["flagged"] == max(row["flagged"] for row in priced):
        text += "; it is the largest that was tried, more may be worth more"
    return f"{text}."


def _amount(value: float) -> str:
    return f"{value:,.10g}"


def _capacity_picture(capacities: pd.DataFrame) -> Picture:
    return _precision_and_recall(
        "capacity",
        "the number of cases flagged",
        capacities,
        capacities["flagged"].tolist(),
        "Cases flagged in the test period",
        "The solid line is the share of the flagged that fail, the dashed one the "
        "share of the failing that is flagged: more of one costs some of the other.",
        Table(
            "Cuts by capacity",
            ["Capacity", "Risk from", "Flagged", "Precision", "Recall"],
            [
                [
                    cut_in_words(row),
                    percent(row["threshold"]),
                    count(row["flagged"]),
                    _share(row, "precision"),
                    _share(row, "recall"),
                ]
                for row in capacities.to_dict("records")
            ],
        ),
    )


def _capacity_table(capacities: pd.DataFrame) -> Table:
    """What each capacity asks of the advisors, and what it is worth."""
    return Table(
        "Capacities: work, and what it is worth",
        [
            "Capacity",
            "",
            "Flagged",
            "A week, per advisor",
            "Precision",
            "Net benefit",
            "of the rule",
            "Expected gain",
        ],
        [
            [
                cut_in_words(row),
                _mark(row),
                count(row["flagged"]),
                number(row["flags_per_advisor"], 1),
                percent(row["precision"]),
                number(row["net_benefit"]),
                number(row["net_benefit_rule"]),
                _gain(row),
            ]
            for row in capacities.to_dict("records")
        ],
        words=2,
    )


def _mark(row: dict[Hashable, Any]) -> str:
    marks = {"worth most": row["is_recommended"], "present setting": row["is_current"]}
    return ", ".join(words for words, holds in marks.items() if holds)


def _precision_and_recall(
    kind: str,
    by: str,
    cuts: pd.DataFrame,
    places: list[float],
    axis: str,
    reading: str,
    table: Table,
    x_percent: bool = False,
) -> Picture:
    """Both along the cuts of one kind, at their places on the axis."""
    looks = {
        "precision": charts.Look("Precision", charts.BLUE, "-", "o"),
        "recall": charts.Look("Recall", charts.RED, "--", "s"),
    }
    series = [
        Line(
            look,
            places,
            cuts[name].tolist(),
            cuts[f"{name}_low"].tolist(),
            cuts[f"{name}_high"].tolist(),
            markers=True,
        )
        for name, look in looks.items()
    ]
    alt = f"Precision and recall by {by}."
    svg = charts.lines(
        f"cut-{kind}", alt, series, axis, "Share", x_percent=x_percent, y_percent=True
    )
    return Picture(f"By {kind}", svg, alt, reading, table)


def _gain_picture(capacities: pd.DataFrame) -> Picture:
    alt = "Expected gain over the test period by the number of cases flagged."
    top = float(capacities["expected_gain_high"].max())
    low = float(capacities["expected_gain_low"].min())
    room = 0.08 * max(top - low, 1.0)
    return Picture(
        "What a capacity is worth",
        charts.lines(
            "gain",
            alt,
            [
                Line(
                    charts.Look("Expected gain", charts.BLUE, "-", "o"),
                    capacities["flagged"].tolist(),
                    capacities["expected_gain"].tolist(),
                    capacities["expected_gain_low"].tolist(),
                    capacities["expected_gain_high"].tolist(),
                    markers=True,
                )
            ],
            "Cases flagged in the test period",
            "Expected gain",
            limits=(min(0.0, low) - room, max(0.0, top) + room),
            level=("Flag nobody", 0.0),
        ),
        alt,
        "Passes that contacts bring about, at their value, less what the contacts "
        "cost; the bars say how it varies with the students, not how sure the assumed "
        "effect is.",
        Table(
            "Expected gain by capacity, 95 % intervals",
            ["Capacity", "Flagged", "Expected gain"],
            [
                [cut_in_words(row), count(row["flagged"]), _gain(row)]
                for row in capacities.to_dict("records")
            ],
        ),
    )


def _threshold_picture(thresholds: pd.DataFrame) -> Picture:
    return _precision_and_recall(
        "threshold",
        "threshold",
        thresholds,
        thresholds["cut_value"].tolist(),
        "Flag from this risk on",
        "The further to the right, the fewer are flagged: more of them fail, and more "
        "of the failing are missed.",
        Table(
            "Cuts by threshold",
            [
                "Flag from this risk on",
                "Flagged",
                "A week, per advisor",
                "Precision",
                "Recall",
                "",
            ],
            [
                [
                    percent(row["cut_value"]),
                    count(row["flagged"]),
                    number(row["flags_per_advisor"], 1),
                    _share(row, "precision"),
                    _share(row, "recall"),
                    _mark(row),
                ]
                for row in thresholds.to_dict("records")
            ],
            words=0,
        ),
        x_percent=True,
    )


def _decision_curve(thresholds: pd.DataFrame) -> Picture:
    looks = {
        "net_benefit": LOOKS["model"],
        "net_benefit_rule": charts.Look("Rule: one missed", charts.ORANGE, "-.", ""),
        "net_benefit_all": charts.Look("Flag everybody", charts.GREY, "--", ""),
    }
    drawn = thresholds[thresholds["net_benefit"].notna()]
    places = drawn["cut_value"].tolist()
    top = float(np.nanmax(drawn[list(looks)].to_numpy(dtype=float), initial=0.0))
    alt = "Net benefit of flagging by the model, by the rule, everybody and nobody."
    return Picture(
        "Decision curve",
        charts.lines(
            "decision-curve",
            alt,
            [Line(look, places, drawn[name].tolist()) for name, look in looks.items()],
            "Risk from which a contact is worth it",
            "Net benefit per case",
            x_axis_percent=True,
            limits=(-0.25 * max(top, 0.02), 1.1 * max(top, 0.02)),
            level=("Flag nobody", 0.0),
        ),
        alt,
        "Choose your place on the axis (at 20 % one failing student found is worth "
        "four contacts in vain); whoever is highest there serves you best.",
        Table(
            "Net benefit per case",
            [
                "Risk from which a contact is worth it",
                *(look.name for look in looks.values()),
            ],
            [
                [percent(row["cut_value"]), *(number(row[name]) for name in looks)]
                for row in drawn.to_dict("records")
            ],
            words=0,
        ),
    )


def _lead_table(table: pd.DataFrame, cuts: pd.DataFrame) -> Table:
    """One cut at every lead: what acting earlier or later changes."""
    chosen = cuts[cuts["is_recommended"]]
    chosen = chosen if len(chosen) else cuts[cuts["is_current"]]
    row = (chosen if len(chosen) else cuts).to_dict("records")[0]
    same = table[
        (table["cut"] == row["cut"])
        & (table["cut_value"] == row["cut_value"])
        & (table["lead_days"] != POOLED)
    ].sort_values("lead_days", ascending=False)
    return Table(
        f"The same at other leads: {cut_in_words(row)}",
        ["Lead", "Flagged", "Precision", "Recall", "Still reachable", "Found in time"],
        [
            [
                str(each["lead_days"]),
                count(each["flagged"]),
                _share(each, "precision"),
                _share(each, "recall"),
                percent(each["still_reachable"]),
                percent(each["recall"] * each["still_reachable"]),
            ]
            for each in same.to_dict("records")
        ],
    )
