"""Sections on what lies behind the figures: features, groups, drift, search, run."""

import json
from typing import Any

import numpy as np
import pandas as pd

from ml.reporting import charts
from ml.reporting.page import (
    NOT_DEFINED,
    TRAIN,
    Picture,
    Section,
    Table,
    count,
    known,
    lacking,
    number,
    percent,
    short,
)
from ml.reporting.read import Facts, Model, split_pairs
from ml.reporting.verdict import known_day

TOP_FEATURES = 20
DRAWN_ATTRIBUTES = 12
DRAWN_GROUPS = 15
DRAWN_DRIFT = 15
GENERIC_ROWS = 40
# The usual reading of the population stability index.
DRIFT_LEVELS = {"Watch from 0.1": 0.1, "Shifted from 0.25": 0.25}
FAIRNESS_RATES = {
    "flag_rate": "Flagged",
    "false_positive_rate": "Flagged in vain",
    "false_negative_rate": "Missed",
    "precision": "Precision",
    "calibration_gap": "Calibration gap",
}
IMBALANCE_WORDS = {
    "winner": "The search's winner, cut at its best F1",
    "ratio": "Failing weighted by the full ratio, cut at 0.5",
    "third_of_ratio": "Failing weighted by a third of the ratio, cut at 0.5",
    "tuned_threshold": "No weight, cut at its best F1",
}
IMBALANCE_COLUMNS = {
    "pr_auc": "PR-AUC",
    "pr_auc_minus_winner": "Against the winner",
    "recall": "Recall",
    "precision": "Precision",
    "f1": "F1",
    "threshold": "Cut at",
    "roc_auc": "ROC-AUC",
}
NO_ROWS = "The warehouse has no rows in `{table}`."
RUN_WORDS = {
    "run_id": "Run",
    "status": "Status",
    "status_reason": "Why",
    "source_system": "Source",
    "target_definition": "Target",
    "test_from": "Test period from",
    "train_rows": "Cases trained on",
    "calibration_rows": "Cases calibrated on",
    "test_rows": "Cases tested on",
    "left_out_rows": "Cases left out",
    "refitted": "Refitted",
    "seed": "Seed",
    "data_fingerprint": "Data fingerprint",
    "code_fingerprint": "Code fingerprint",
    "feature_fingerprint": "Feature fingerprint",
    "artifact_path": "Model, in MODELS_PATH",
    "created_at": "First written (UTC)",
}


def audit_sections(facts: Facts) -> list[Section]:
    """Importance, fairness, drift, class imbalance, search, and the run itself."""
    model = facts.model
    if model is None:
        names = {
            "importance": "What the model looks at",
            "search": "The search",
        }
        return [
            *(Section(anchor, title, missing=TRAIN) for anchor, title in names.items()),
            settings_section(facts),
        ]
    built = [
        _importance(facts, model),
        _fairness(facts),
        _drift(facts),
        _imbalance(model),
        _search(model),
        _run(facts, model),
    ]
    return [section for section in built if section is not None]


# ---------------------------------------------------------------- importance


def _importance(facts: Facts, model: Model) -> Section:
    anchor, title = "importance", "What the model looks at"
    if model.importance.empty:
        return lacking(anchor, title, "ml.feature_importance")
    top = model.importance.sort_values("importance_rank").head(TOP_FEATURES)
    rows = top.to_dict("records")
    alt = f"The {len(top)} features that move the risk most, the strongest on top."
    picture = Picture(
        f"The {len(top)} strongest features",
        charts.bars(
            "importance",
            alt,
            [short(_plain(facts, row["feature"]), 56) for row in rows],
            [float(row["mean_abs_contribution"]) for row in rows],
            [number(row["mean_abs_contribution"], 2) for row in rows],
            "Mean contribution to the risk (log-odds, either way)",
        ),
        alt,
        "The longer the bar, the more the feature moves the risk of a typical case, "
        "up or down; it does not say that changing it changes the outcome.",
        Table(
            "Importance on the test period",
            ["Feature", "Column", "Meaning", "Mean contribution", "Gain"],
            [
                [
                    _plain(facts, row["feature"]),
                    str(row["feature"]),
                    facts.features[row["feature"]].description
                    if row["feature"] in facts.features
                    else "",
                    number(row["mean_abs_contribution"]),
                    number(row["gain"], 0),
                ]
                for row in rows
            ],
            words=3,
        ),
    )
    curves = [
        _dependence_picture(facts, str(feature), rows)
        for feature in top["feature"]
        if len(rows := model.dependence[model.dependence["feature"] == feature]) > 1
    ]
    return Section(
        anchor,
        title,
        [
            "Contributions are exact TreeSHAP values: for each case they add up to the "
            "model's raw log-odds. Calibration comes after and keeps the order."
        ],
        [picture, *curves],
    )


def _dependence_picture(facts: Facts, feature: str, rows: pd.DataFrame) -> Picture:
    """The mean risk by the value of one feature, a line for numbers."""
    plain = _plain(facts, feature)
    alt = f"Mean risk by: {plain}."
    name = f"dependence-{feature}"
    values = [_dependence_value(row) for row in rows.to_dict("records")]
    risks = rows["mean_risk"].tolist()
    numbers = rows[rows["value"].notna()]
    if len(numbers) > 1:
        absent = rows[rows["value"].isna()]["mean_risk"]
        svg = charts.lines(
            name,
            alt,
            [
                charts.Line(
                    charts.LOOKS["model"],
                    numbers["value"].tolist(),
                    numbers["mean_risk"].tolist(),
                    markers=True,
                )
            ],
            short(plain, 70),
            "Mean risk",
            y_percent=True,
            limits=(0, max(0.02, 1.25 * max(risks))),
            level=("Not known", float(absent.iloc[0])) if len(absent) else None,
        )
    else:
        texts = [percent(risk) for risk in risks]
        svg = charts.bars(name, alt, values, risks, texts, "Mean risk", percent=True)
    return Picture(
        f"Risk by: {plain}",
        svg,
        alt,
        "Each point is the mean risk if everybody had this value and all else stayed "
        "as it is: what the model would say, not what would come of a change.",
        Table(
            f"Mean risk by {feature}",
            ["Value", "Mean risk"],
            [[v, percent(r)] for v, r in zip(values, risks, strict=True)],
        ),
    )


def _dependence_value(row: dict[Any, Any]) -> str:
    if known(row["value"]):
        return f"{row['value']:.4g}"
    return row["category"] if isinstance(row["category"], str) else "not known"


def _plain(facts: Facts, feature: Any) -> str:
    """The feature in words; of one that the tables no longer have, its name."""
    named = facts.features.get(str(feature))
    return named.plain if named else str(feature)


# ---------------------------------------------------------------- fairness


def _fairness(facts: Facts) -> Section | None:
    anchor, title = "fairness", "Fairness"
    groups = facts.fairness
    if groups.empty:
        return None
    singles, pairs = split_pairs(groups)
    attributes = sorted(singles["attribute"].astype(str).unique())
    return Section(
        anchor,
        title,
        [
            "How often students of each group are missed or flagged in vain. Groups "
            "below the minimum size are not measured; where the intervals of two "
            "groups overlap, the difference may be chance."
        ],
        [
            _attribute_picture(name, singles[singles["attribute"].astype(str) == name])
            for name in attributes[:DRAWN_ATTRIBUTES]
        ],
        folded=[_fairness_table(singles), *_most_missed_pairs(pairs)],
    )


def _most_missed_pairs(pairs: pd.DataFrame) -> list[Table]:
    """The groups by two attributes of which surely the most are missed."""
    if pairs.empty:
        return []
    measured = pairs[[known(value) for value in pairs["false_negative_rate"]]]
    worst = measured.sort_values(
        ["false_negative_rate_low", "attribute", "value"],
        ascending=[False, True, True],
    )
    caption = "Groups by two attributes at once, of which surely the most are missed"
    return [_fairness_table(worst.head(GENERIC_ROWS), caption=caption)]


def _attribute_picture(attribute: str, groups: pd.DataFrame) -> Picture:
    measured = groups[[known(value) for value in groups["false_negative_rate"]]]
    largest = measured.sort_values(["points", "value"], ascending=[False, True])
    rows = largest.head(DRAWN_GROUPS).sort_values("value", key=_numbers_first)
    label = attribute.replace("_", " ")
    title = f"Missed, by {label}"
    alt = f"Share of the failing that is not flagged, by {label}."
    table = _fairness_table(groups, attribute)
    if rows.empty:
        nothing = charts.draw(
            "fairness-none-" + attribute, alt, lambda figure: None, 0.2
        )
        reading = "No group of this attribute is large enough, or has failing cases."
        return Picture(title, nothing, alt, reading, table)
    svg = charts.dots(
        f"fairness-{attribute}",
        alt,
        [short(value, 48) for value in rows["value"]],
        rows["false_negative_rate"].tolist(),
        rows["false_negative_rate_low"].tolist(),
        rows["false_negative_rate_high"].tolist(),
        "Share of the failing that is missed",
        percent=True,
        from_zero=True,
    )
    return Picture(
        title,
        svg,
        alt,
        "The further right a dot, the more failing students of that group are missed; "
        "the bar is the 95 % interval.",
        table,
    )


def _numbers_first(values: pd.Series) -> pd.Series:
    """Places in order: numbers by size, then words."""
    texts = values.astype(str)
    numbers = pd.to_numeric(texts, errors="coerce").fillna(np.inf)
    order = np.lexsort([texts.to_numpy(dtype=object), numbers.to_numpy()])
    return pd.Series(np.argsort(order), index=values.index)


def _fairness_table(
    groups: pd.DataFrame, attribute: str = "", caption: str = ""
) -> Table:
    """Groups with what they are measured by; `caption` keeps them in their order."""
    present = [name for name in FAIRNESS_RATES if name in groups.columns]
    ordered = groups
    if not caption:
        ordered = groups.sort_values("value", key=_numbers_first)
        ordered = ordered.sort_values("attribute", kind="stable")
        by = f" by {attribute.replace('_', ' ')}," if attribute else ""
        caption = f"All groups{by} with 95 % intervals"
    return Table(
        caption,
        ["Attribute", "Group", "Remark", "Cases", "Failing"]
        + [FAIRNESS_RATES[name] for name in present],
        [
            [
                str(row["attribute"]),
                "unknown" if pd.isna(row["value"]) else str(row["value"]),
                _words(row.get("note")),
                count(row["points"]),
                count(row["positives"]),
                *(_rate(row, name) for name in present),
            ]
            for row in ordered.to_dict("records")
        ],
        words=3,
    )


def _words(text: Any) -> str:
    return "" if text is None or pd.isna(text) else str(text)


def _rate(row: dict[Any, Any], name: str) -> str:
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if not (known(low) and known(high)):
        return percent(value)
    return f"{percent(value)} ({percent(low)} to {percent(high)})"


# ---------------------------------------------------------------- drift


def _drift(facts: Facts) -> Section | None:
    anchor, title = "drift", "Drift"
    drift, scores = facts.feature_drift, facts.score_drift
    if "as_of_date" in scores.columns:
        scores = scores.sort_values("as_of_date", ascending=False)
    if drift.empty and scores.empty:
        return None
    empty = [
        name
        for name, table in (("feature_drift", drift), ("score_drift", scores))
        if table.empty
    ]
    pictures = []
    if len(drift):
        measured = drift[[known(value) for value in drift["population_stability"]]]
        if len(measured):
            pictures.append(_drift_picture(facts, measured))
    return Section(
        anchor,
        title,
        [
            "The population stability index compares today's values with those of "
            "training: 0 is no difference, from 0.25 on the model looks at other "
            "students than it was trained on. A level counts only beyond what chance "
            "explains with so few students in so few courses."
        ],
        pictures,
        [generic_table("Drift of the score", scores)] if len(scores) else [],
        missing=NO_ROWS.format(table="` and `".join(empty)) if empty else "",
    )


def _drift_picture(facts: Facts, drift: pd.DataFrame) -> Picture:
    ordered = drift.sort_values(
        ["population_stability", "feature"], ascending=[False, True]
    )
    rows = ordered.head(DRAWN_DRIFT).to_dict("records")
    alt = "The features whose values have moved most since training."
    return Picture(
        "Features that moved most",
        charts.bars(
            "drift",
            alt,
            [short(_plain(facts, row["feature"]), 56) for row in rows],
            [float(row["population_stability"]) for row in rows],
            [number(row["population_stability"], 2) for row in rows],
            "Population stability index",
            levels=DRIFT_LEVELS,
        ),
        alt,
        "Bars beyond the dashed line deserve a look, beyond the dotted one a new "
        "training.",
        Table(
            "Drift by feature",
            [
                "Feature",
                "Column",
                "Level",
                "Population stability",
                "Of that by chance",
                "Unknown in training",
                "Unknown now",
            ],
            [
                [
                    _plain(facts, row["feature"]),
                    str(row["feature"]),
                    str(row.get("level", "")),
                    number(row["population_stability"]),
                    number(row.get("stability_by_chance")),
                    percent(row.get("missing_then")),
                    percent(row.get("missing_now")),
                ]
                for row in ordered.to_dict("records")
            ],
            words=3,
        ),
    )


def generic_table(caption: str, frame: pd.DataFrame) -> Table:
    """A small table as it is, columns in words."""
    numbers = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    ordered = sorted(
        frame.columns, key=lambda name: numbers[list(frame.columns).index(name)]
    )
    return Table(
        caption,
        [str(name).replace("_", " ").capitalize() for name in ordered],
        [
            [_cell(row[name]) for name in ordered]
            for row in frame.head(GENERIC_ROWS).to_dict("records")
        ],
        words=len(numbers) - sum(numbers),
    )


def _cell(value: Any) -> str:
    if value is None or pd.isna(value):
        return NOT_DEFINED
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return count(value)
    if isinstance(value, (float, np.floating)):
        return number(value)
    if isinstance(value, pd.Timestamp):
        return str(value.date())
    return str(value)


# ---------------------------------------------------------------- imbalance, search


def _imbalance(model: Model) -> Section | None:
    """Ways to handle rare failing, where training compared them."""
    metrics = model.metrics
    rows = metrics[metrics["split"] == "imbalance"] if len(metrics) else metrics
    if rows.empty:
        return None
    names = ["segment", "scorer"]
    # What is the same everywhere is no part of the configuration's name.
    names = [name for name in names if rows[name].nunique() > 1] or ["segment"]
    present = list(dict.fromkeys(rows["metric"]))
    first = [name for name in IMBALANCE_COLUMNS if name in present]
    ordered = first + [name for name in present if name not in first]
    body = []
    for key, found in rows.groupby(names):
        figures = {row["metric"]: row for row in found.to_dict("records")}
        cells = [
            _with_ends(figures[name]) if name in figures else NOT_DEFINED
            for name in ordered
        ]
        words = [IMBALANCE_WORDS.get(str(part), str(part)) for part in key]
        body.append([" / ".join(words), *cells])
    return Section(
        "imbalance",
        "Class imbalance",
        [
            "Ways to make a model care for the rarer outcome. Weights and thresholds "
            "move recall against precision; what they do to PR-AUC tells whether the "
            "ranking itself got better: where the interval of the difference includes "
            "0, that may be chance.",
            "All but the winner have XGBoost's own defaults. Trained on what was known "
            "before the test period and measured on it; thresholds were tuned on the "
            "calibration period.",
        ],
        tables=[
            Table(
                "Configurations compared",
                [
                    "Configuration",
                    *(
                        IMBALANCE_COLUMNS.get(name, name.replace("_", " ").capitalize())
                        for name in ordered
                    ),
                ],
                body,
            )
        ],
    )


def _with_ends(row: dict[Any, Any]) -> str:
    if known(row["ci_low"]) and known(row["ci_high"]):
        ends = f"{number(row['ci_low'])} to {number(row['ci_high'])}"
        return f"{number(row['value'])} ({ends})"
    return number(row["value"])


def _search(model: Model) -> Section:
    anchor, title = "search", "The search"
    found = model.search
    if found.empty:
        return lacking(anchor, title, "ml.search_results")
    rows = found.sort_values(["rank_test_score", "candidate"]).to_dict("records")
    alt = "PR-AUC of each candidate on the folds of the search, the best on top."
    mean = [float(row["mean_test_score"]) for row in rows]
    spread = [float(row["std_test_score"]) for row in rows]
    picture = Picture(
        "Candidates",
        charts.dots(
            "search",
            alt,
            [f"Candidate {row['candidate']}" for row in rows],
            mean,
            [middle - half for middle, half in zip(mean, spread, strict=True)],
            [middle + half for middle, half in zip(mean, spread, strict=True)],
            "PR-AUC, mean over the folds",
        ),
        alt,
        "Each dot is the mean over the folds, its bar one standard deviation either "
        "way; where the bars overlap, the choice between them hardly matters.",
        Table(
            "Candidates of the search",
            ["Candidate", "Parameters", "Rank", "Mean", "Deviation", "Seconds per fit"],
            [
                [
                    str(row["candidate"]),
                    parameters_in_words(row["params"]),
                    count(row["rank_test_score"]),
                    number(row["mean_test_score"], 4),
                    number(row["std_test_score"], 4),
                    number(row["mean_fit_time"], 1),
                ]
                for row in rows
            ],
            words=2,
        ),
    )
    return Section(
        anchor,
        title,
        [
            f"{len(rows)} candidates, each fitted on every fold; no student stands in "
            "two folds. These figures choose the parameters; they are not the test's."
        ],
        [picture],
    )


def parameters_in_words(text: Any) -> str:
    """JSON parameters as `name value, name value`; anything else as it is."""
    try:
        values = json.loads(text)
    except (TypeError, ValueError):
        return "" if text is None else str(text)
    if not isinstance(values, dict):
        return str(values)
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))


# ---------------------------------------------------------------- run and settings


def _run(facts: Facts, model: Model) -> Section:
    run = model.run
    known_columns = [name for name in RUN_WORDS if name in run]
    tables = [
        Table(
            "This run",
            ["What", "Value"],
            [[RUN_WORDS[name], _run_value(run[name])] for name in known_columns],
            words=2,
        )
    ]
    folded = [
        Table(
            caption,
            ["Name", "Value"],
            [[name, value] for name, value in _pairs(run.get(column))],
            words=2,
        )
        for column, caption in (
            ("parameters", "Chosen parameters"),
            ("settings", "Settings of the run"),
            ("versions", "Versions of the libraries"),
        )
    ]
    folded.append(_build_table(facts))
    if len(facts.runs) > 1:
        folded.append(_runs_table(facts.runs))
    return Section("run", "The run and its settings", tables=tables, folded=folded)


def settings_section(facts: Facts) -> Section:
    """What the tables were built with, where there is no run to describe."""
    return Section("settings", "Settings", tables=[_build_table(facts)])


def _build_table(facts: Facts) -> Table:
    built = facts.built
    # Where the raw files lie may name a person's folder.
    shown = {
        "SOURCE_SYSTEM": built.source_system,
        "TARGET_DEFINITION": built.target_definition,
        "OBSERVATION_WINDOW_DAYS": built.observation_window_days,
        "PREDICTION_LEADS": built.prediction_leads,
        "INCLUDE_ATTRIBUTES": str(built.include_attributes).lower(),
        "AS_OF_DATE": built.as_of_date,
        "Facts up to": built.data_until,
    }
    return Table(
        "Settings that the tables were built with",
        ["Setting", "Value"],
        [[name, str(value)] for name, value in shown.items()],
        words=2,
    )


def _runs_table(runs: pd.DataFrame) -> Table:
    return Table(
        "All runs of this source and target, newest first",
        ["Run", "Status", "First written (UTC)", "Why"],
        [
            [
                str(row["run_id"]),
                str(row["status"]),
                _run_value(row["created_at"]),
                str(row["status_reason"]),
            ]
            for row in runs.head(GENERIC_ROWS).to_dict("records")
        ],
        words=4,
    )


def _run_value(value: Any) -> str:
    if isinstance(value, pd.Timestamp) and known_day(value):
        return f"{value:%Y-%m-%d %H:%M}" if value != value.normalize() else _cell(value)
    return _cell(value)


def _pairs(text: Any) -> list[tuple[str, str]]:
    try:
        values = json.loads(text)
    except (TypeError, ValueError):
        return []
    return [
        (str(name), value if isinstance(value, str) else json.dumps(value))
        for name, value in sorted(values.items())
        if name != "data_raw_path"
    ]
