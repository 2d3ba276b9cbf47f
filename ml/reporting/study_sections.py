"""Sections on the studies: what the model is worth under other questions.

Each is there only where a training has run the study.
"""

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ml.reporting import charts
from ml.reporting.charts import Line, Look
from ml.reporting.page import (
    NOT_DEFINED,
    Picture,
    Section,
    Table,
    count,
    known,
    percent,
    with_interval,
)
from ml.reporting.read import FAMILY_WORDS, Facts, Model

POOLED = -1
PARTS = {"": "All cases", ":first": "First (cold start)", ":later": "Later"}
LOOKS = {
    "": Look("All cases", charts.BLUE, "-", "o"),
    ":first": Look("First (cold start)", charts.ORANGE, "--", "s"),
    ":later": Look("Later", charts.GREEN, "-.", "^"),
}
NO_DIFFERENCE = {"No difference": 0.0}
ESTIMATES = {
    "estimate_random": "Points divided at random",
    "estimate_grouped": "Other students, same period",
    "estimate_temporal": "Later time (the honest one)",
}


@dataclass(frozen=True)
class StudyFigures:
    """The figures of one study at one lead, by metric and segment."""

    metrics: pd.DataFrame
    split: str
    lead: int

    def row(self, metric: str, segment: str) -> dict[Any, Any] | None:
        """The row, or None where it was not measured or is not defined."""
        found = self.metrics[
            (self.metrics["split"] == self.split)
            & (self.metrics["lead_days"] == self.lead)
            & (self.metrics["segment"] == segment)
            & (self.metrics["metric"] == metric)
        ]
        if found.empty or not known(found.iloc[0]["value"]):
            return None
        return dict(found.iloc[0])

    def has_part(self, part: str) -> bool:
        """Whether all, first or later cases were measured."""
        mine = self.metrics[self.metrics["split"] == self.split]["segment"].astype(str)
        return bool((mine.str.endswith(part) if part else mine.ne("")).any())

    def text(self, metric: str, segment: str) -> str:
        """The figure with its interval."""
        row = self.row(metric, segment)
        if row is None:
            return NOT_DEFINED
        return with_interval(row["value"], row["ci_low"], row["ci_high"])

    def count(self, metric: str, segment: str) -> str:
        """A figure that is a number of things."""
        row = self.row(metric, segment)
        return count(row["value"]) if row else NOT_DEFINED

    def percent(self, metric: str, segment: str) -> str:
        """A figure that is a share."""
        row = self.row(metric, segment)
        return percent(row["value"]) if row else NOT_DEFINED


def study_sections(facts: Facts) -> list[Section]:
    """Estimates, families of features, attributes, learning curve."""
    model = facts.model
    if model is None or model.metrics.empty:
        return []
    window = facts.built.observation_window_days
    built = [
        _estimates(model, facts.headline),
        _ablation(model, facts.headline, window),
        _attributes(model, facts.headline),
        _learning_curve(model, facts.headline),
    ]
    return [section for section in built if section is not None]


def _segments(model: Model, split: str, pattern: str) -> list[str]:
    """Segments of a study that the pattern matches, in alphabetical order."""
    metrics = model.metrics
    names = metrics.loc[metrics["split"] == split, "segment"].astype(str)
    return sorted({name for name in names if re.fullmatch(pattern, name)})


# ---------------------------------------------------------------- estimates


def _estimates(model: Model, headline: int) -> Section | None:
    of = {name: StudyFigures(model.metrics, name, headline) for name in ESTIMATES}
    drawn = {name: found.row("pr_auc", "all") for name, found in of.items()}
    known = {name: row for name, row in drawn.items() if row is not None}
    if len(known) < len(ESTIMATES):
        return None
    alt = "PR-AUC of the same cases after three ways of dividing the data."
    first = next(iter(known.values()))
    picture = Picture(
        "Three estimates of the same thing",
        charts.dots(
            "estimates",
            alt,
            [ESTIMATES[name] for name in known],
            [float(row["value"]) for row in known.values()],
            [float(row["ci_low"]) for row in known.values()],
            [float(row["ci_high"]) for row in known.values()],
            f"PR-AUC, lead {headline}",
        ),
        alt,
        "What the upper dots lie further right is flattery: such a division lets the "
        "model see the period, or the very students, that it is tested on.",
        _estimate_table(model, headline),
    )
    return Section(
        "estimates",
        "Three ways to divide the data",
        [
            f"The same parameters, as many cases to train on, and the same "
            f"{count(first['rows'])} test cases each time."
        ],
        [picture],
    )


def _estimate_table(model: Model, headline: int) -> Table:
    rows = []
    for lead, words in ((headline, str(headline)), (POOLED, "all pooled")):
        for name, plain in ESTIMATES.items():
            found = StudyFigures(model.metrics, name, lead)
            rows.append(
                [
                    plain,
                    words,
                    found.count("train_rows", "all"),
                    found.percent("base_rate", "all"),
                    found.text("pr_auc", "all"),
                    found.text("pr_auc_minus_temporal", "all"),
                    found.text("roc_auc", "all"),
                ]
            )
    return Table(
        "The three estimates, 95 % intervals",
        ["Division", "Lead", "Trained on", "Failing", "PR-AUC", "Flattery", "ROC-AUC"],
        rows,
        words=2,
    )


# ---------------------------------------------------------------- ablation


def _ablation(model: Model, headline: int, window: int) -> Section | None:
    found = StudyFigures(model.metrics, "ablation", headline)
    without = _segments(model, "ablation", r"without=\w+")
    if not without:
        return None
    families = [segment.removeprefix("without=") for segment in without]
    differences = {
        family: found.row("pr_auc_minus_all", f"without={family}")
        for family in families
    }
    drawn = {family: row for family, row in differences.items() if row is not None}
    ordered = sorted(drawn, key=lambda family: float(drawn[family]["value"]))
    alt = "By how much PR-AUC changes when a family of features is left out."
    picture = Picture(
        "Left out",
        charts.dots(
            "ablation",
            alt,
            [f"Without {_family(family, window)}" for family in ordered],
            [float(drawn[family]["value"]) for family in ordered],
            [float(drawn[family]["ci_low"]) for family in ordered],
            [float(drawn[family]["ci_high"]) for family in ordered],
            "Change of PR-AUC against all features",
            levels=NO_DIFFERENCE,
        ),
        alt,
        "The further left a dot, the more is lost without that family; where its bar "
        "reaches 0, the others may make up for it.",
    )
    return Section(
        "ablation",
        "Families of features",
        [
            "Trained on the search period with one family left out, or with one alone, "
            f"and judged on the calibration period at lead {headline}: later time, and "
            "not the test period, which no choice may touch."
        ],
        [picture],
        tables=[
            _difference_table(
                found,
                "Without one family",
                {"All features": "all"}
                | {_family(f, window): f"without={f}" for f in ordered},
                "pr_auc_minus_all",
            )
        ],
        folded=[
            _difference_table(
                found,
                "One family alone",
                {_family(f, window): f"only={f}" for f in families},
                "pr_auc_minus_all",
            )
        ],
    )


def _family(family: str, window: int) -> str:
    words = FAMILY_WORDS.get(family, "").format(window=window)
    plain = family.replace("_", " ")
    return f"{plain} ({words})" if words else plain


def _difference_table(
    found: StudyFigures, caption: str, segments: dict[str, str], metric: str
) -> Table:
    """PR-AUC of each model and its difference, for all, first and later cases."""
    parts = {part: words for part, words in PARTS.items() if found.has_part(part)}
    columns = [
        column
        for words in parts.values()
        for column in (f"PR-AUC: {words.lower()}", "Difference")
    ]
    return Table(
        f"{caption}, 95 % intervals",
        ["Features", *columns],
        [
            [
                name,
                *(
                    cell
                    for part in parts
                    for cell in (
                        found.text("pr_auc", segment + part),
                        found.text(metric, segment + part),
                    )
                ),
            ]
            for name, segment in segments.items()
        ],
    )


# ---------------------------------------------------------------- attributes


def _attributes(model: Model, headline: int) -> Section | None:
    found = StudyFigures(model.metrics, "attributes", headline)
    gained = {
        part: row
        for part in PARTS
        if (row := found.row("pr_auc_minus_without", f"with{part}")) is not None
    }
    if not gained:
        return None
    alt = "By how much PR-AUC changes when students' attributes become features."
    picture = Picture(
        "What attributes would add",
        charts.dots(
            "attributes",
            alt,
            [PARTS[part] for part in gained],
            [float(row["value"]) for row in gained.values()],
            [float(row["ci_low"]) for row in gained.values()],
            [float(row["ci_high"]) for row in gained.values()],
            "PR-AUC with attributes less PR-AUC without",
            levels=NO_DIFFERENCE,
        ),
        alt,
        "Right of 0 the ranking would be better with attributes: that is the price of "
        "leaving them out; where a bar reaches 0 there may be none.",
        _difference_table(
            found,
            "With and without attributes",
            {"Without attributes": "without", "With attributes": "with"},
            "pr_auc_minus_without",
        ),
    )
    return Section(
        "attributes",
        "The price of leaving attributes out",
        [
            "What is known of students as persons (age, gender and the like) is no "
            "feature unless INCLUDE_ATTRIBUTES asks for it. Here the same parameters "
            "are fitted both ways on the search period and judged on the calibration "
            f"period at lead {headline}; nobody is scored by the model with attributes "
            "because of this."
        ],
        [picture],
    )


# ---------------------------------------------------------------- learning curve


def _learning_curve(model: Model, headline: int) -> Section | None:
    found = StudyFigures(model.metrics, "learning_curve", headline)
    segments = _segments(model, "learning_curve", r"share=[\d.]+")
    if len(segments) < 2:
        return None
    shares = {segment: float(segment.removeprefix("share=")) for segment in segments}
    series = [
        _share_line(found, shares, part) for part in PARTS if found.has_part(part)
    ]
    alt = "PR-AUC by the share of the students that the model was trained on."
    picture = Picture(
        "PR-AUC by students trained on",
        charts.lines(
            "learning-curve",
            alt,
            [line for line in series if len(line.x)],
            "Share of the search period's students",
            "PR-AUC",
            x_axis_percent=True,
        ),
        alt,
        "A line that still rises at its right end promises more from more students; a "
        "flat one asks for better features instead.",
        Table(
            "PR-AUC by students trained on, 95 % intervals",
            ["Students", "Cases trained on", "PR-AUC", "Against all students"]
            + [words for part, words in PARTS.items() if part and found.has_part(part)],
            [
                [
                    percent(share),
                    found.count("train_rows", segment),
                    found.text("pr_auc", segment),
                    found.text("pr_auc_minus_all", segment),
                    *(
                        found.text("pr_auc", segment + part)
                        for part in PARTS
                        if part and found.has_part(part)
                    ),
                ]
                for segment, share in shares.items()
            ],
        ),
    )
    return Section(
        "learning-curve",
        "What more students would bring",
        [
            f"Judged on the calibration period, lead {headline}. Smaller shares are "
            "the mean over several draws of students."
        ],
        [picture],
    )


def _share_line(found: StudyFigures, shares: dict[str, float], part: str) -> Line:
    rows = {
        share: row
        for segment, share in shares.items()
        if (row := found.row("pr_auc", segment + part)) is not None
    }
    frame = pd.DataFrame(list(rows.values()), index=list(rows))
    return Line(
        LOOKS[part],
        list(rows),
        frame["value"].tolist(),
        frame["ci_low"].tolist(),
        frame["ci_high"].tolist(),
        markers=True,
    )
