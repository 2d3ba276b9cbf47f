"""Sections on the model: how well it ranks, how right its probabilities are, what
flagging by it brings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ml.reporting import charts
from ml.reporting.charts import LOOKS, Line
from ml.reporting.figures import curve
from ml.reporting.page import (
    NOT_DEFINED,
    Picture,
    Section,
    Table,
    count,
    number,
    percent,
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
        bins = bins[(bins["split"] == "test") & (bins["lead_days"] == facts.headline)]
    if bins.empty:
        return lacking(anchor, title, "ml.calibration_curve")
    alt = "Predicted risk against the share that failed, in ten groups of equal size."
    picture = Picture(
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
            f"Groups of equal size, test period, lead {facts.headline}",
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
    said = []
    for metric, name in (
        ("ece", "Expected calibration error"),
        ("brier", "Brier score"),
    ):
        figure = find_figure(model.metrics, metric, facts.headline)
        if figure:
            said.append(f"{name}: {figure.text}.")
    return Section(anchor, title, [" ".join(said)] if said else [], [picture])


# ---------------------------------------------------------------- decisions


def _decisions(facts: Facts, model: Model) -> Section:
    anchor, title = "decisions", "Thresholds and decisions"
    cuts = model.thresholds
    if len(cuts):
        cuts = cuts[cuts["lead_days"] == facts.headline]
    if cuts.empty:
        return lacking(anchor, title, "ml.threshold_metrics")
    pictures = []
    thresholds = cuts[cuts["cut"] == "threshold"].sort_values("cut_value")
    capacities = cuts[cuts["cut"] == "capacity"].sort_values("cut_value")
    if len(thresholds):
        pictures += [
            _cut_picture(thresholds, "threshold", "Flag from this risk on"),
            _decision_curve(model, thresholds),
        ]
    if len(capacities):
        pictures.append(_cut_picture(capacities, "capacity", "Share of cases flagged"))
    return Section(
        anchor,
        title,
        [
            "PREDICTION_THRESHOLD flags from a risk on, flag_capacity as many as can "
            f"be helped. Test period, lead {facts.headline}."
        ],
        pictures,
    )


def _cut_picture(cuts: pd.DataFrame, kind: str, x_label: str) -> Picture:
    alt = f"Precision and recall by {kind}."
    precision = charts.Look("Precision", charts.BLUE, "-", "o")
    recall = charts.Look("Recall", charts.RED, "--", "s")
    places = cuts["cut_value"].tolist()
    drawn = charts.lines(
        f"cut-{kind}",
        alt,
        [
            Line(precision, places, cuts["precision"].tolist(), markers=True),
            Line(recall, places, cuts["recall"].tolist(), markers=True),
        ],
        x_label,
        "Share",
        x_percent=kind == "threshold",
        y_percent=True,
        x_axis_percent=True,
    )
    return Picture(
        "By threshold" if kind == "threshold" else "By capacity",
        drawn,
        alt,
        "The solid line is the share of the flagged that fail, the dashed one the "
        "share of the failing that is flagged: more of one costs some of the other.",
        Table(
            f"Cuts by {kind}",
            [x_label, "Risk from", "Flagged", "Precision", "Recall"],
            [
                [
                    percent(row["cut_value"]),
                    percent(row["threshold"]),
                    count(row["flagged"]),
                    percent(row["precision"]),
                    percent(row["recall"]),
                ]
                for row in cuts.to_dict("records")
            ],
            words=0,
        ),
    )


def _decision_curve(model: Model, thresholds: pd.DataFrame) -> Picture:
    places = thresholds["cut_value"].to_numpy(dtype=float)
    series = [Line(LOOKS["model"], places.tolist(), thresholds["net_benefit"].tolist())]
    everybody = charts.Look("Flag everybody", charts.GREY, "--", "")
    rule_look = charts.Look("Rule: one missed", charts.ORANGE, "-.", "")
    found = {"The model": thresholds["net_benefit"].to_numpy(dtype=float)}
    predictions = model.predictions
    if len(predictions):
        labels = predictions["at_risk"].to_numpy(dtype=float)
        by_rule = predictions["baseline_rule"].to_numpy(dtype=float) >= 1
        found["The rule"] = net_benefit(labels, by_rule, places)
        found["Flag everybody"] = net_benefit(labels, np.ones(len(labels)) > 0, places)
        series += [
            Line(rule_look, places.tolist(), found["The rule"].tolist()),
            Line(everybody, places.tolist(), found["Flag everybody"].tolist()),
        ]
    top = max(float(np.nanmax(values)) for values in found.values())
    alt = "Net benefit of flagging by the model, by the rule, everybody and nobody."
    return Picture(
        "Decision curve",
        charts.lines(
            "decision-curve",
            alt,
            series,
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
            ["Risk from which a contact is worth it", *found],
            [
                [percent(place), *(number(values[row]) for values in found.values())]
                for row, place in enumerate(places)
            ],
            words=0,
        ),
    )


def net_benefit(
    labels: np.ndarray, flagged: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Right flags per case, less the wrong ones at the odds of each threshold."""
    right = float((labels * flagged).sum())
    wrong = float(flagged.sum()) - right
    return (right - wrong * thresholds / (1 - thresholds)) / len(labels)


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
    """PR-AUC by terms since training, where a backtest has measured it."""
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
    return Section("staleness", "Staleness", pictures=[picture])


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
