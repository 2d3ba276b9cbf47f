"""The section on calibration: predicted risk against what happened."""

from dataclasses import replace

import pandas as pd
from markupsafe import Markup

from ml.evaluate import POOLED
from ml.reporting import charts
from ml.reporting.charts import LOOKS, Line
from ml.reporting.page import (
    NOT_DEFINED,
    Picture,
    Section,
    Table,
    count,
    lacking,
    number,
    percent,
    segment_in_words,
    short,
)
from ml.reporting.read import Facts, Model
from ml.reporting.verdict import find_figure

LISTED_PLACES = 60
# Six lines at most are told apart by colour, dash and marker.
SIX_LOOKS = [
    charts.Look("", charts.BLUE, "-", "o"),
    charts.Look("", charts.ORANGE, "--", "s"),
    charts.Look("", charts.GREEN, "-.", "D"),
    charts.Look("", charts.RED, ":", "^"),
    charts.Look("", charts.PURPLE, (0, (5, 1, 1, 1, 1, 1)), "v"),
    charts.Look("", charts.SKY, (0, (3, 1)), "x"),
]


def calibration(facts: Facts, model: Model) -> Section:
    anchor, title = "calibration", "Calibration"
    bins = model.calibration
    if len(bins):
        bins = bins[bins["split"] == "test"]
    overall = bins[bins["segment"] == "all"] if len(bins) else bins
    at_lead = overall[overall["lead_days"] == facts.headline] if len(bins) else bins
    if at_lead.empty:
        return lacking(anchor, title, "ml.calibration_curve")
    courses = bins[
        (bins["lead_days"] == facts.headline)
        & bins["segment"].str.startswith("course=")
    ]
    pictures = [_reliability(at_lead, facts.headline)]
    leads = overall[overall["lead_days"] != POOLED]
    if leads["lead_days"].nunique() > 1:
        by_lead = {
            f"Lead {lead}": part
            for lead, part in sorted(
                leads.groupby("lead_days"), key=lambda pair: -float(str(pair[0]))
            )
        }
        pictures.append(_reliabilities("lead", by_lead))
    if courses["segment"].nunique() > 1:
        pictures.append(_reliabilities("course", _largest(courses)))
    return Section(
        anchor,
        title,
        _calibration_in_words(model, facts.headline),
        pictures,
        folded=[_probability_table(model, facts.headline)],
    )


def _calibration_in_words(model: Model, lead: int) -> list[str]:
    """Each figure with what it says; nothing where it was not measured."""
    said = []
    ece = find_figure(model.metrics, "ece", lead)
    floor = find_figure(model.metrics, "ece_if_calibrated", lead)
    if ece:
        said.append(f"Expected calibration error: {ece.text}.")
    if ece and floor:
        said.append(
            f"Perfect probabilities would show {number(floor.value)} by chance "
            f"(up to {number(floor.high)}), "
            + (
                "so no miscalibration is to be seen."
                if ece.value <= floor.high
                else "so there is more than chance in it."
            )
        )
    brier = find_figure(model.metrics, "brier", lead)
    if brier:
        said.append(f"Brier score: {brier.text}.")
    slope = find_figure(model.metrics, "calibration_slope", lead)
    intercept = find_figure(model.metrics, "calibration_intercept", lead)
    if slope and intercept:
        said.append(
            f"Calibration slope {slope.text} (1 is right, below it the risks are too "
            f"extreme), intercept {intercept.text} (0 is right)."
        )
    return [" ".join(said)] if said else []


def _reliability(bins: pd.DataFrame, lead: int) -> Picture:
    alt = "Predicted risk against the share that failed, in ten groups of equal size."
    return Picture(
        "Predicted and observed risk",
        _lines(
            "calibration",
            alt,
            [
                Line(
                    LOOKS["model"],
                    bins["mean_predicted"].tolist(),
                    bins["observed_rate"].tolist(),
                    bins["ci_low"].tolist(),
                    bins["ci_high"].tolist(),
                    markers=True,
                )
            ],
        ),
        alt,
        "On the dotted line a risk of 40 % means that 40 of 100 fail; above it the "
        "model is too optimistic, below it too pessimistic; the bars are 95 % "
        "intervals.",
        Table(
            f"Groups of equal size, test period, lead {lead}",
            ["Group", "Cases", "Predicted", "Failed", "95 % interval"],
            [
                [
                    str(row["bin"]),
                    count(row["rows"]),
                    percent(row["mean_predicted"]),
                    percent(row["observed_rate"]),
                    f"{percent(row['ci_low'])} to {percent(row['ci_high'])}",
                ]
                for row in bins.to_dict("records")
            ],
        ),
    )


def _lines(name: str, alt: str, series: list[Line]) -> Markup:
    return charts.lines(
        name,
        alt,
        series,
        "Predicted risk (mean of the group)",
        "Share that failed",
        x_percent=True,
        y_percent=True,
        diagonal="As predicted",
    )


def _largest(courses: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The courses with the most cases, as many as lines can be told apart."""
    cases = courses.groupby("segment")["rows"].sum().sort_index()
    largest = cases.sort_values(ascending=False, kind="stable").index[: len(SIX_LOOKS)]
    return {
        segment_in_words(name): courses[courses["segment"] == name]
        for name in sorted(largest)
    }


def _reliabilities(kind: str, curves: dict[str, pd.DataFrame]) -> Picture:
    """One line for each lead, or course."""
    alt = f"Predicted risk against the share that failed, by {kind}."
    series = [
        Line(
            replace(look, name=short(name)),
            bins["mean_predicted"].tolist(),
            bins["observed_rate"].tolist(),
            markers=True,
        )
        for look, (name, bins) in zip(SIX_LOOKS, curves.items(), strict=False)
    ]
    return Picture(
        f"Predicted and observed risk by {kind}",
        _lines(f"calibration-{kind}", alt, series),
        alt,
        f"A {kind} whose line leaves the dotted one has risks that are not to be taken "
        "at their word, although they may be right on the whole.",
        Table(
            f"Share that failed by group of equal size, test period, by {kind}",
            [kind.capitalize(), "Group", "Cases", "Predicted", "Failed"],
            [
                [
                    name,
                    str(row["bin"]),
                    count(row["rows"]),
                    percent(row["mean_predicted"]),
                    percent(row["observed_rate"]),
                ]
                for name, bins in curves.items()
                for row in bins.to_dict("records")
            ],
        ),
    )


def _probability_table(model: Model, lead: int) -> Table:
    """Figures of the probabilities: at each lead, and by course at the headline."""
    names = {
        "brier": "Brier score",
        "brier_reliability": "Reliability",
        "brier_resolution": "Resolution",
        "brier_uncertainty": "Uncertainty",
        "ece": "Calibration error",
        "ece_if_calibrated": "By chance",
        "calibration_slope": "Slope",
        "calibration_intercept": "Intercept",
    }
    measured = model.metrics
    if len(measured):
        measured = measured[
            (measured["split"] == "test")
            & (measured["metric"] == "brier")
            & (measured["scorer"] == "model")
        ]
    places: list[tuple[str, int, str]] = []
    if len(measured):
        leads = sorted(set(measured["lead_days"]) - {POOLED}, reverse=True)
        places += [(f"All cases, lead {each}", int(each), "all") for each in leads]
        courses = sorted(
            name for name in set(measured["segment"]) if name.startswith("course=")
        )
        places += [(segment_in_words(name), lead, name) for name in courses]
    return Table(
        f"Figures of the probabilities; courses at lead {lead}",
        ["Cases", *names.values()],
        [
            [
                words,
                *(
                    found.text if found else NOT_DEFINED
                    for found in (
                        find_figure(model.metrics, metric, at, segment)
                        for metric in names
                    )
                ),
            ]
            for words, at, segment in places[:LISTED_PLACES]
        ],
    )
