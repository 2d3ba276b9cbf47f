"""The section on the backtest: how models age."""

import pandas as pd

from ml.evaluate import POOLED
from ml.reporting import charts
from ml.reporting.charts import LOOKS, Line
from ml.reporting.page import (
    Picture,
    Section,
    Table,
    count,
    with_interval,
)
from ml.reporting.read import Facts, Model
from ml.reporting.verdict import SCORERS


def staleness(facts: Facts, model: Model) -> Section | None:
    """Past terms scored as they would have been then, where a backtest has run."""
    metrics = model.metrics
    if metrics.empty:
        return None
    backtest = metrics[metrics["split"] == "backtest"]
    rows = _by_age(backtest, "pr_auc")
    lead = _lead_of(rows, facts.headline)
    rows = rows[rows["lead_days"] == lead]
    if rows.empty:
        return None
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
    found = backtest[backtest["lead_days"] == lead]
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


def _by_age(backtest: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of a metric by the terms since training, their column `age`."""
    rows = backtest[backtest["metric"] == metric]
    rows = rows[rows["segment"].str.fullmatch(r"age=\d+").astype(bool)]
    rows = rows.assign(age=rows["segment"].str.removeprefix("age=").astype(int))
    return rows.sort_values(["age", "scorer"])


def _against_fresh(found: pd.DataFrame) -> Picture | None:
    """What models of each age lose against fresh ones on the same terms."""
    rows = _by_age(found, "pr_auc_minus_fresh")
    if rows.empty:
        return None
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
