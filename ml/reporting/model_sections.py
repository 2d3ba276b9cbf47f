"""Sections on the model: how well it ranks, by segment, lead and day."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ml.evaluate import POOLED
from ml.reporting import charts
from ml.reporting.calibration_section import calibration
from ml.reporting.charts import LOOKS, Line
from ml.reporting.decision_section import decisions
from ml.reporting.figures import curve
from ml.reporting.page import (
    NOT_DEFINED,
    SEGMENT_WORDS,
    TRAIN,
    Picture,
    Section,
    Table,
    count,
    lacking,
    percent,
    segment_in_words,
)
from ml.reporting.read import SCORE_BINS, Facts, Model
from ml.reporting.staleness_section import staleness
from ml.reporting.verdict import SCORERS, find_figure

LISTED_SEGMENTS = 60
TABLE_RECALLS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
TABLE_FALSE_RATES = [0.01, 0.05, 0.1, 0.2, 0.3, 0.5]
BAND_COLOURS = {"low": charts.SKY, "medium": charts.ORANGE, "high": charts.RED}


def model_sections(facts: Facts) -> list[Section]:
    """Ranking, metrics, calibration, decisions, leads, staleness, scores."""
    parts: list[tuple[str, str, Callable[[Facts, Model], Section | None]]] = [
        ("ranking", "Ranking against the baselines", _ranking),
        ("metrics", "Figures by segment", _metrics),
        ("calibration", "Calibration", calibration),
        ("decisions", "Thresholds and decisions", decisions),
        ("leads", "How early it can be known", _leads),
        ("staleness", "Staleness", staleness),
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
