"""Walk-forward backtest: each past term, scored as it would have been then.

The matured time line is cut into terms: the dates at which runs began, where these
are few; else calendar windows of equal length. For each term but the first, a model
is trained on the points whose label was known before the first question of the term
was asked, and scores that term (age 0) and every later one (age 1, 2, …). The
parameters are the winner's: they were chosen once, on the search period, so a term
before its end is judged with parameters that nobody had then; the models themselves
know nothing that was not known.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ml.dataset import Points
from ml.metrics import Resamples, base_rate
from ml.refits import (
    Figures,
    Ground,
    Refit,
    Row,
    Study,
    constant,
    draw_for,
    has_both,
    metric_rows,
    ranked,
)

SPLIT = "backtest"
MOST_TERMS = 6
AVERAGED = ("pr_auc", "roc_auc", "pr_auc_minus_base_rate", "pr_auc_minus_fresh")


@dataclass(frozen=True)
class Term:
    """A stretch of the time line: its name, its points, its first question."""

    name: str
    rows: np.ndarray
    first_day: pd.Timestamp


@dataclass(frozen=True)
class Cell:
    """A model and a term that it scores; `age` is how many terms lie between."""

    model: str
    term: Term
    age: int
    rows: np.ndarray

    @property
    def segment(self) -> str:
        """Key of the cell in `model_metrics`."""
        return f"trained_before={self.model},term={self.term.name}"


def backtest(ground: Ground) -> Study | str:
    """Models by the day before which their labels were known, and all that they
    score; or why there are none."""
    terms = cut_terms(ground.points)
    trained = {}
    for term in terms[1:]:
        known = known_before(ground.points, term.first_day)
        if has_both(ground.points, known):
            trained[term.name] = known
    cells = _cells(ground, terms, trained)
    if not cells:
        return "no term has enough labels known before it begins"
    artifact = ground.artifact
    refits, fitted = {}, {}
    for model, known in trained.items():
        scored = [cell.rows for cell in cells if cell.model == model]
        if np.array_equal(known, ground.split.is_known):
            fitted[model] = ground.margins
        elif scored:
            refits[model] = Refit(
                ground.points,
                known,
                np.logical_or.reduce(scored),
                artifact.contract.kinds,
                artifact.parameters,
            )
    sizes = {model: int(known.sum()) for model, known in trained.items()}

    def measure(scores: dict[str, np.ndarray]) -> list[Row]:
        return _measure(ground, cells, scores | fitted, sizes)

    return Study(SPLIT, refits, measure)


def known_before(points: Points, day: pd.Timestamp) -> np.ndarray:
    """Points whose label was known before a day."""
    return (points.targets["label_known_at"] < day).to_numpy()


def cut_terms(points: Points) -> list[Term]:
    """Terms in order of their first question, at most `MOST_TERMS`."""
    targets = points.targets
    start = pd.to_datetime(targets["run_started_at"]).dt.normalize()
    if start.isna().any() or start.nunique() > MOST_TERMS:
        start = _windows(pd.to_datetime(targets["as_of_date"]))
    days = pd.to_datetime(targets["as_of_date"])
    terms = [
        Term(f"{day:%Y-%m-%d}", rows := (start == day).to_numpy(), days[rows].min())
        for day in start.unique()
    ]
    return sorted(terms, key=lambda term: (term.first_day, term.name))


def _windows(days: pd.Series) -> pd.Series:
    """First day of the window that each day lies in."""
    first = days.min()
    length = max(1, -(-((days.max() - first).days + 1) // MOST_TERMS))
    return first + pd.to_timedelta((days - first).dt.days // length * length, unit="D")


def _cells(
    ground: Ground, terms: list[Term], trained: dict[str, np.ndarray]
) -> list[Cell]:
    targets = ground.points.targets
    usual = ~targets["contacted_before_due"].to_numpy(dtype=bool)
    usual &= (targets["lead_days"] == ground.headline).to_numpy()
    found = []
    for place, model in enumerate(terms):
        for age, term in enumerate(terms[place:]):
            rows = term.rows & usual
            if model.name in trained and has_both(ground.points, rows):
                found.append(Cell(model.name, term, age, rows))
    return found


# ---------------------------------------------------------------- figures


def _measure(
    ground: Ground,
    cells: list[Cell],
    scores: dict[str, np.ndarray],
    sizes: dict[str, int],
) -> list[Row]:
    """A row per cell and metric, then the mean over the cells of each age."""
    everywhere = np.logical_or.reduce([cell.rows for cell in cells])
    draws = draw_for(ground.points, everywhere)
    figures = [
        _figures(ground, cell, scores[cell.model], draws.take(cell.rows[everywhere]))
        for cell in cells
    ]
    fresh = {
        cell.term.name: own["pr_auc"]
        for cell, own in zip(cells, figures, strict=True)
        if cell.age == 0
    }
    rows = []
    for cell, own in zip(cells, figures, strict=True):
        if cell.age and cell.term.name in fresh:
            own["pr_auc_minus_fresh"] = own["pr_auc"] - fresh[cell.term.name]
        labels = ground.points.labels[cell.rows]
        size = {"train_rows": constant(sizes[cell.model])}
        rows += metric_rows(own | size, ground.headline, cell.segment, labels)
    return rows + _by_age(ground, cells, figures)


def _figures(
    ground: Ground, cell: Cell, scores: np.ndarray, draws: Resamples
) -> Figures:
    labels = ground.points.labels[cell.rows]
    found = ranked(labels, scores[cell.rows], draws)
    found["base_rate"] = base_rate(labels, draws)
    # Terms have different base rates, and a random order reaches the base rate.
    found["pr_auc_minus_base_rate"] = found["pr_auc"] - found["base_rate"]
    return found


def _by_age(ground: Ground, cells: list[Cell], figures: list[Figures]) -> list[Row]:
    rows = []
    for age in sorted({cell.age for cell in cells}):
        chosen = [number for number, cell in enumerate(cells) if cell.age == age]
        labels = np.concatenate([ground.points.labels[cells[n].rows] for n in chosen])
        means = {
            metric: np.mean(values, axis=0)
            for metric in AVERAGED
            if (values := [figures[n][metric] for n in chosen if metric in figures[n]])
        }
        rows += metric_rows(means, ground.headline, f"age={age}", labels)
    return rows
