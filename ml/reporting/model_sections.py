"""Sections on the model: how well it ranks, how right its probabilities are, what
flagging by it brings."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ml.decisions import CAPACITY, THRESHOLD, WEEKLY
from ml.reporting import charts
from ml.reporting.charts import LOOKS, Line
from ml.reporting.figures import curve
from ml.reporting.page import (
    NOT_DEFINED,
    Picture,
    Section,
    Table,
    count,
    known,
    number,
    percent,
    short,
    with_interval,
)
from ml.reporting.read import SCORE_BINS, Facts, Model
from ml.reporting.verdict import SCORERS, find_figure

POOLED = -1
TRAIN = "Train a model with `python -m ml.train`, then make this page again."
TRAIN_AGAIN = (
    "This run has no rows in {table}. Train again with `python -m ml.train --force`, "
    "then make this page again."
)
LISTED_SEGMENTS = 60
TABLE_RECALLS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
TABLE_FALSE_RATES = [0.01, 0.05, 0.1, 0.2, 0.3, 0.5]
SEGMENT_WORDS = {
    "all": "All cases",
    "first": "First assessment in the course (cold start)",
    "later": "Later assessments",
    "new_runs:all": "Runs begun in the test period: all",
    "new_runs:first": "Runs begun in the test period: first",
    "new_runs:later": "Runs begun in the test period: later",
    "contacted": "Students written to in between (kept apart)",
}
# Six lines at most are told apart by colour, dash and marker.
SIX_LOOKS = [
    charts.Look("", charts.BLUE, "-", "o"),
    charts.Look("", charts.ORANGE, "--", "s"),
    charts.Look("", charts.GREEN, "-.", "D"),
    charts.Look("", charts.RED, ":", "^"),
    charts.Look("", charts.PURPLE, (0, (5, 1, 1, 1, 1, 1)), "v"),
    charts.Look("", charts.SKY, (0, (3, 1)), "x"),
]
BAND_COLOURS = {"low": charts.SKY, "medium": charts.ORANGE, "high": charts.RED}


def model_sections(facts: Facts) -> list[Section]:
    """Ranking, metrics, calibration, decisions, leads, staleness, scores."""
    parts: list[tuple[str, str, Callable[[Facts, Model], Section | None]]] = [
        ("ranking", "Ranking against the baselines", _ranking),
        ("metrics", "Figures by segment", _metrics),
        ("calibration", "Calibration", _calibration),
        ("decisions", "Thresholds and decisions", _decisions),
        ("leads", "How early it can be known", _leads),
        ("staleness", "Staleness", _staleness),
        ("scores", "Scores of the day", _scores),
    ]
    if facts.model is None:
        return [
            Section(anchor, title, missing=TRAIN)
            for anchor, title, _ in parts
            if anchor != "staleness"
        ]
    built = [make(facts, facts.model) for _, _, make in parts]
    return [section for section in built if section is not None]


def lacking(anchor: str, title: str, table: str) -> Section:
    """The section of a run that has no rows in its table."""
    return Section(anchor, title, missing=TRAIN_AGAIN.format(table=table))


# ---------------------------------------------------------------- ranking


def _ranking(facts: Facts, model: Model) -> Section:
    anchor, title = "ranking", "Ranking against the baselines"
    predictions = model.predictions
    if predictions.empty:
        return lacking(anchor, title, "ml.evaluation_predictions")
    labels = predictions["at_risk"].to_numpy(dtype=np.int64)
    curves = {
        scorer: curve(labels, predictions[column].to_numpy(dtype=float))
        for scorer, column in SCORERS.items()
    }
    if curves["model"].empty:
        return Section(
            anchor, title, missing="All test cases have the same outcome: no curves."
        )
    rate = float(labels.mean())
    drawn = {name: found for name, found in curves.items() if name != "random"}
    return Section(
        anchor,
        title,
        [
            f"On {count(len(labels))} test cases at lead {facts.headline}, of which "
            f"{percent(rate)} failed."
        ],
        [_precision_recall(drawn, rate), _roc(drawn)],
    )


def _precision_recall(curves: dict[str, pd.DataFrame], rate: float) -> Picture:
    alt = (
        "Precision against recall for the model and the baselines; the dotted line is "
        f"the share that fails, {percent(rate)}."
    )
    return Picture(
        "Precision and recall",
        charts.lines(
            "precision-recall",
            alt,
            [
                Line(
                    LOOKS[name],
                    found["recall"].tolist(),
                    found["precision"].tolist(),
                    steps="steps-pre",
                    markers=len(found) <= 15,
                )
                for name, found in curves.items()
            ],
            "Recall (failing that are flagged)",
            "Precision (flagged that fail)",
            x_percent=True,
            y_percent=True,
            level=("Random order", rate),
        ),
        alt,
        "From left to right more and more cases are flagged; the higher the line, the "
        "fewer of them are flagged in vain.",
        _curve_table(curves, "recall", "precision", TABLE_RECALLS, "Precision"),
    )


def _roc(curves: dict[str, pd.DataFrame]) -> Picture:
    alt = "Share of the failing found against share of the others flagged in vain."
    return Picture(
        "ROC",
        charts.lines(
            "roc",
            alt,
            [
                Line(
                    LOOKS[name],
                    [0.0, *found["false_positive_rate"]],
                    [0.0, *found["recall"]],
                    markers=len(found) <= 15,
                )
                for name, found in curves.items()
            ],
            "Others that are flagged",
            "Failing that are flagged",
            x_percent=True,
            y_percent=True,
            diagonal="Random order",
        ),
        alt,
        "The further a line bends to the upper left, the better it tells who fails "
        "from who does not; the dotted diagonal is chance.",
        _curve_table(
            curves, "false_positive_rate", "recall", TABLE_FALSE_RATES, "Found"
        ),
    )


def _curve_table(
    curves: dict[str, pd.DataFrame], at: str, read: str, places: list[float], word: str
) -> Table:
    """Each curve where it first reaches a place (recall), or last stays within it."""
    first = at == "recall"
    rows = []
    for place in places:
        cells = []
        for found in curves.values():
            inside = found[found[at] >= place] if first else found[found[at] <= place]
            pick = 0 if first else -1
            cells.append(percent(inside[read].iloc[pick]) if len(inside) else "0 %")
        rows.append([percent(place), *cells])
    where = "recall" if first else "share of the others flagged"
    return Table(
        f"{word} by {where}",
        [where.capitalize(), *(LOOKS[name].name for name in curves)],
        rows,
        words=0,
    )


# ---------------------------------------------------------------- metrics


def _metrics(facts: Facts, model: Model) -> Section:
    anchor, title = "metrics", "Figures by segment"
    at_lead = _test_rows(model, facts.headline)
    if at_lead.empty:
        return lacking(anchor, title, "ml.model_metrics")
    return Section(
        anchor,
        title,
        [
            f"At lead {facts.headline}, with 95 % intervals from drawing the students "
            "anew. Where an interval of the difference to the rule includes 0, the "
            "model may be no better than the rule there."
        ],
        tables=[_segment_table(model, at_lead, facts.headline)],
        folded=[_scorer_table(model, facts.headline)],
    )


def _test_rows(model: Model, lead: int) -> pd.DataFrame:
    metrics = model.metrics
    if metrics.empty:
        return metrics
    return metrics[(metrics["split"] == "test") & (metrics["lead_days"] == lead)]


def segment_in_words(segment: str) -> str:
    """`course=AAA` as `Course AAA`, `first` as what it is."""
    if segment.startswith("course="):
        return f"Course {segment.removeprefix('course=')}"
    return SEGMENT_WORDS.get(segment, segment)


def _segment_table(model: Model, at_lead: pd.DataFrame, lead: int) -> Table:
    present = set(at_lead["segment"])
    ordered = [name for name in SEGMENT_WORDS if name in present]
    ordered += sorted(present - set(SEGMENT_WORDS))

    def cell(metric: str, segment: str, scorer: str = "model") -> str:
        found = find_figure(model.metrics, metric, lead, segment, scorer)
        return found.text if found else NOT_DEFINED

    rows = []
    for segment in ordered[:LISTED_SEGMENTS]:
        base = find_figure(model.metrics, "base_rate", lead, segment)
        rows.append(
            [
                segment_in_words(segment),
                count(base.rows) if base else NOT_DEFINED,
                percent(base.value) if base else NOT_DEFINED,
                cell("pr_auc", segment),
                cell("pr_auc", segment, "rule"),
                cell("pr_auc_minus_rule", segment),
                cell("pr_auc_within_course", segment),
                cell("roc_auc", segment),
                cell("brier", segment),
                cell("precision_at_10pct", segment),
            ]
        )
    return Table(
        "The model by segment"
        + (
            f" (the first {LISTED_SEGMENTS} of {len(ordered)})"
            if len(ordered) > LISTED_SEGMENTS
            else ""
        ),
        [
            "Segment",
            "Cases",
            "Failing",
            "PR-AUC",
            "PR-AUC, rule",
            "Ahead of the rule",
            "PR-AUC within course",
            "ROC-AUC",
            "Brier score",
            "Precision, top 10 %",
        ],
        rows,
    )


def _scorer_table(model: Model, lead: int) -> Table:
    names = {
        "pr_auc": "PR-AUC",
        "pr_auc_within_course": "PR-AUC within course",
        "roc_auc": "ROC-AUC",
        "brier": "Brier score",
        "log_loss": "Log loss",
        "ece": "Expected calibration error",
        "precision_at_10pct": "Precision, top 10 %",
        "recall_at_10pct": "Recall, top 10 %",
    }
    rows = []
    for metric, name in names.items():
        found = {
            scorer: find_figure(model.metrics, metric, lead, scorer=scorer)
            for scorer in SCORERS
        }
        cells = [figure.text if figure else NOT_DEFINED for figure in found.values()]
        rows.append([name, *cells])
    return Table(
        "The model and every baseline, all cases",
        ["Figure", *(LOOKS[scorer].name for scorer in SCORERS)],
        rows,
    )


# ---------------------------------------------------------------- calibration


def _calibration(facts: Facts, model: Model) -> Section:
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
        charts.lines(
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
            "Predicted risk (mean of the group)",
            "Share that failed",
            x_percent=True,
            y_percent=True,
            diagonal="As predicted",
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
        charts.lines(
            f"calibration-{kind}",
            alt,
            series,
            "Predicted risk (mean of the group)",
            "Share that failed",
            x_percent=True,
            y_percent=True,
            diagonal="As predicted",
        ),
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
            for words, at, segment in places[:LISTED_SEGMENTS]
        ],
    )


# ---------------------------------------------------------------- decisions


def _decisions(facts: Facts, model: Model) -> Section:
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
    alt = "Precision and recall by the number of cases flagged."
    return Picture(
        "By capacity",
        charts.lines(
            "cut-capacity",
            alt,
            _precision_and_recall(capacities, capacities["flagged"].tolist()),
            "Cases flagged in the test period",
            "Share",
            y_percent=True,
        ),
        alt,
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


def _precision_and_recall(cuts: pd.DataFrame, places: list[float]) -> list[Line]:
    looks = {
        "precision": charts.Look("Precision", charts.BLUE, "-", "o"),
        "recall": charts.Look("Recall", charts.RED, "--", "s"),
    }
    return [
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
    alt = "Precision and recall by threshold."
    return Picture(
        "By threshold",
        charts.lines(
            "cut-threshold",
            alt,
            _precision_and_recall(thresholds, thresholds["cut_value"].tolist()),
            "Flag from this risk on",
            "Share",
            x_percent=True,
            y_percent=True,
        ),
        alt,
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


# ---------------------------------------------------------------- leads


def _leads(facts: Facts, model: Model) -> Section:
    anchor, title = "leads", "How early it can be known"
    metrics = model.metrics
    if len(metrics):
        metrics = metrics[
            (metrics["split"] == "test")
            & (metrics["segment"] == "all")
            & (metrics["lead_days"] != POOLED)
        ]
    wanted = metrics[metrics["metric"] == "pr_auc"] if len(metrics) else metrics
    if wanted.empty:
        return lacking(anchor, title, "ml.model_metrics")
    leads = sorted(wanted["lead_days"].unique(), reverse=True)
    shown = [name for name in SCORERS if name in set(wanted["scorer"])]
    table = Table(
        "PR-AUC by days before the due day, 95 % intervals",
        ["Lead", "Cases", "Failing", *(LOOKS[name].name for name in shown)],
        [_lead_row(model, int(lead), shown) for lead in leads],
    )
    if len(leads) == 1:
        return Section(
            anchor,
            title,
            [
                f"There is one lead only, {leads[0]} days: no curve. PREDICTION_LEADS "
                "adds others."
            ],
            tables=[table],
        )
    alt = "PR-AUC by days before the due day for the model and the baselines."
    series = []
    for name in shown:
        rows = wanted[wanted["scorer"] == name].sort_values("lead_days")
        series.append(
            Line(
                LOOKS[name],
                rows["lead_days"].tolist(),
                rows["value"].tolist(),
                rows["ci_low"].tolist(),
                rows["ci_high"].tolist(),
                markers=True,
            )
        )
    picture = Picture(
        "PR-AUC by lead",
        charts.lines(
            "leads",
            alt,
            series,
            "Days before the due day",
            "PR-AUC",
            backwards=True,
            ticks={float(lead): str(lead) for lead in leads},
        ),
        alt,
        "Time runs to the right; a flat line means that waiting buys little, a rising "
        "one that late warnings are better but leave less time; the bars are 95 % "
        "intervals.",
        table,
    )
    return Section(anchor, title, pictures=[picture])


def _lead_row(model: Model, lead: int, scorers: list[str]) -> list[str]:
    base = find_figure(model.metrics, "base_rate", lead)
    found = [
        find_figure(model.metrics, "pr_auc", lead, scorer=name) for name in scorers
    ]
    return [
        str(lead),
        count(base.rows) if base else NOT_DEFINED,
        percent(base.value) if base else NOT_DEFINED,
        *(figure.text if figure else NOT_DEFINED for figure in found),
    ]


# ---------------------------------------------------------------- staleness


def _staleness(facts: Facts, model: Model) -> Section | None:
    """Past terms scored as they would have been then, where a backtest has run."""
    metrics = model.metrics
    if metrics.empty:
        return None
    rows = metrics[
        (metrics["split"] == "backtest")
        & (metrics["metric"] == "pr_auc")
        & metrics["segment"].str.fullmatch(r"age=\d+")
    ]
    rows = rows[rows["lead_days"] == _lead_of(rows, facts.headline)]
    if rows.empty:
        return None
    rows = rows.assign(age=rows["segment"].str.removeprefix("age=").astype(int))
    rows = rows.sort_values(["age", "scorer"])
    series = [
        Line(
            LOOKS[name],
            found["age"].tolist(),
            found["value"].tolist(),
            found["ci_low"].tolist(),
            found["ci_high"].tolist(),
            markers=True,
        )
        for name in SCORERS
        if len(found := rows[rows["scorer"] == name])
    ]
    if not series:
        return None
    alt = "PR-AUC by terms since the model was trained."
    picture = Picture(
        "PR-AUC by age of the model",
        charts.lines(
            "staleness",
            alt,
            series,
            "Terms since training",
            "PR-AUC",
            ticks={float(age): str(age) for age in sorted(rows["age"].unique())},
        ),
        alt,
        "Each past term was scored by a model trained only on what was known before; "
        "a falling line means that the model should be trained anew that often.",
        Table(
            "PR-AUC by terms since training, 95 % intervals",
            ["Terms", "Scorer", "Cases", "PR-AUC"],
            [
                [
                    str(row["age"]),
                    LOOKS[row["scorer"]].name
                    if row["scorer"] in LOOKS
                    else str(row["scorer"]),
                    count(row["rows"]),
                    with_interval(row["value"], row["ci_low"], row["ci_high"]),
                ]
                for row in rows.to_dict("records")
            ],
            words=2,
        ),
    )
    lead = _lead_of(rows, facts.headline)
    found = metrics[(metrics["split"] == "backtest") & (metrics["lead_days"] == lead)]
    aged = _against_fresh(found)
    return Section(
        "staleness",
        "Backtest and staleness",
        [
            "Terms differ in how many fail, so PR-AUC alone does not tell an old model "
            "from a hard term: the difference to a model trained right before the same "
            "term does."
        ],
        [picture, aged] if aged else [picture],
        _backtest_tables(found),
    )


def _against_fresh(found: pd.DataFrame) -> Picture | None:
    """What models of each age lose against fresh ones on the same terms."""
    rows = found[found["metric"] == "pr_auc_minus_fresh"]
    rows = rows[rows["segment"].str.fullmatch(r"age=\d+")]
    if rows.empty:
        return None
    rows = rows.assign(age=rows["segment"].str.removeprefix("age=").astype(int))
    rows = rows.sort_values("age")
    alt = "By how much models of each age are behind fresh ones on the same terms."
    return Picture(
        "Against a fresh model",
        charts.dots(
            "staleness-fresh",
            alt,
            [f"{age} term{'s' if age > 1 else ''} old" for age in rows["age"]],
            rows["value"].tolist(),
            rows["ci_low"].tolist(),
            rows["ci_high"].tolist(),
            "PR-AUC less that of a fresh model",
            levels={"No difference": 0.0},
        ),
        alt,
        "Left of 0 the older model ranks the same cases worse than one trained right "
        "before the term; where a bar reaches 0, age may have cost nothing.",
        Table(
            "Against a fresh model, mean over the terms, 95 % intervals",
            ["Terms", "Cases", "Difference of PR-AUC"],
            [
                [
                    str(row["age"]),
                    count(row["rows"]),
                    with_interval(row["value"], row["ci_low"], row["ci_high"]),
                ]
                for row in rows.to_dict("records")
            ],
        ),
    )


def _backtest_tables(found: pd.DataFrame) -> list[Table]:
    """Rows: when the model was trained; columns: the term it scored."""
    cells = found["segment"].str.extract(r"^trained_before=(?P<model>.+),term=(.+)$")
    named = found.assign(model=cells["model"], term=cells[1]).dropna(subset=["model"])
    shown = {
        "pr_auc": "PR-AUC",
        "pr_auc_minus_base_rate": "PR-AUC less the share that fails",
        "roc_auc": "ROC-AUC",
    }
    tables = []
    for metric, words in shown.items():
        rows = named[named["metric"] == metric]
        if len(rows):
            tables.append(_backtest_table(rows, f"{words} by term, 95 % intervals"))
    return tables


def _backtest_table(rows: pd.DataFrame, caption: str) -> Table:
    terms = sorted(rows["term"].unique())
    texts = {
        (row["model"], row["term"]): with_interval(
            row["value"], row["ci_low"], row["ci_high"]
        )
        for row in rows.to_dict("records")
    }
    return Table(
        caption,
        ["Trained before", *(f"Term of {term}" for term in terms)],
        [
            [model, *(texts.get((model, term), "") for term in terms)]
            for model in sorted(rows["model"].unique())
        ],
    )


def _lead_of(rows: pd.DataFrame, headline: int) -> int:
    """The headline lead where it was measured, else all leads pooled."""
    return headline if headline in set(rows["lead_days"]) else POOLED


# ---------------------------------------------------------------- scores


def _scores(facts: Facts, model: Model) -> Section:
    anchor, title = "scores", "Scores of the day"
    scores = model.scores
    if scores.empty:
        how = (
            "The run was refused, so nobody is scored by it; students are flagged by "
            "the rule."
            if model.run["status"] == "refused"
            else "This run has scored nobody. `python -m ml.score --as-of DAY` scores "
            "a day on which something is due."
        )
        return Section(anchor, title, missing=how)
    day = pd.Timestamp(scores["as_of_date"].iloc[0]).date()
    parts: dict[str, tuple[str, Any]] = {}
    totals: dict[str, int] = {}
    for band, colour in BAND_COLOURS.items():
        rows = scores[scores["risk_band"] == band]
        heights = np.zeros(SCORE_BINS)
        heights[rows["bin"].to_numpy(dtype=int)] = rows["points"].to_numpy()
        parts[f"{band.capitalize()} risk"] = (colour, heights)
        totals[band] = int(rows["points"].sum())
    alt = "How many cases have which risk score, by risk band."
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    everybody = sum(totals.values())
    bands = ", ".join(
        f"{count(totals[band])} {band}" for band in ("high", "medium", "low")
    )
    picture = Picture(
        "Risk scores",
        charts.columns("scores", alt, edges, parts, "Risk score", "Cases"),
        alt,
        "The higher a column, the more cases have that risk; a model that tells "
        "students apart spreads them out.",
        Table(
            "Cases by risk score",
            ["From", "To", *parts],
            [
                [
                    percent(edges[place]),
                    percent(edges[place + 1]),
                    *(count(heights[place]) for _, heights in parts.values()),
                ]
                for place in range(SCORE_BINS)
            ],
            words=0,
        ),
    )
    said = f"{count(everybody)} cases were scored for {day}, by risk: {bands}."
    return Section(anchor, title, [said], [picture])
