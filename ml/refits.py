"""The chosen parameters fitted again, on other points or columns, and measured.

What every study of `ml.studies` shares: nothing is searched, a refit learns its
categories from its own points, and figures that are compared rest on the same
points and the same draws of students.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ml.boosting import CORES, SEED, fit, margins, plain_matrix, training_matrix
from ml.cli import progress
from ml.dataset import Points, Split
from ml.evaluate import RESAMPLES, summary
from ml.features import encode, learn_contract
from ml.metrics import Resamples, base_rate, draw_resamples, ranking_metrics
from ml.registry import Artifact

# Fewer students of one class are too few to learn from, or to be judged on.
FEWEST_STUDENTS = 10

METRIC_COLUMNS = [
    "split",
    "lead_days",
    "segment",
    "scorer",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "rows",
    "positives",
]

# Metric and its values: as the data are, then one per resample.
Figures = dict[str, np.ndarray]
Row = dict[str, Any]


@dataclass(frozen=True)
class Ground:
    """What studies stand on: the split, the run's model, and attributes by student.

    `attributes` has the columns student_id, course_run_id (null: every run),
    attribute, value. `margins` are the model's on all points but those that it was
    trained on, where they are NaN.
    """

    split: Split
    artifact: Artifact
    attributes: pd.DataFrame
    headline: int
    margins: np.ndarray

    @property
    def points(self) -> Points:
        """All points with a matured label, in key order."""
        return self.split.matured

    @cached_property
    def reference(self) -> "Refit":
        """The chosen parameters on the search period, scored on the calibration
        period: the run's own model has seen that."""
        return Refit(
            self.points,
            self.split.part == "search",
            self.judged("calibration", self.headline),
            self.artifact.contract.kinds,
            self.artifact.parameters,
        )

    def judged(self, part: str, lead: int | None = None) -> np.ndarray:
        """Rows of a part to judge on: at one lead, or all; nobody written to."""
        targets = self.points.targets
        rows = (self.split.part == part) & ~targets["contacted_before_due"].to_numpy(
            dtype=bool
        )
        return (
            rows if lead is None else rows & (targets["lead_days"] == lead).to_numpy()
        )


def make_ground(
    split: Split, artifact: Artifact, attributes: pd.DataFrame, headline: int
) -> Ground:
    """Score what the model was not trained on once, for every study."""
    later = ~split.is_known
    rows = encode(split.matured.features[later], artifact.contract)
    found = np.full(len(split.matured), np.nan)
    found[later] = margins(artifact.model, plain_matrix(rows, artifact.contract))
    return Ground(split, artifact, attributes, headline, found)


@dataclass(frozen=True)
class Refit:
    """One model to fit: rows to train on, rows to score, columns, parameters."""

    points: Points
    train: np.ndarray
    scored: np.ndarray
    kinds: dict[str, str]
    parameters: dict[str, Any]

    @property
    def cost(self) -> float:
        """Roughly how long the fit takes, for the order only."""
        trees = float(self.parameters["n_estimators"])
        nodes = 1.5 ** float(self.parameters["max_depth"])
        return float(self.train.sum()) * len(self.kinds) * trees * nodes


@dataclass(frozen=True)
class Study:
    """Models to fit by name, and what makes rows of `model_metrics` of their scores.

    A model's scores are log-odds, one for each of its points; NaN where not scored.
    """

    split: str
    refits: dict[str, Refit]
    measure: Callable[[dict[str, np.ndarray]], list[Row]]


def run_all(studies: list[Study]) -> list[Row]:
    """Fit the models of all studies, the longest first, and measure each study.

    A refit that several studies share is fitted once.
    """
    shared = {id(refit): refit for study in studies for refit in study.refits.values()}
    tasks = sorted(shared, key=lambda number: -shared[number].cost)
    found: dict[int, np.ndarray] = {}
    with (
        progress("Studies", len(tasks)) as on_fit,
        ThreadPoolExecutor(CORES) as threads,
    ):
        scored = threads.map(lambda number: _score(shared[number]), tasks)
        for number, values in zip(tasks, scored, strict=True):
            found[number] = values
            on_fit()
        scores = [
            {name: found[id(refit)] for name, refit in study.refits.items()}
            for study in studies
        ]
        measured = threads.map(
            lambda study, own: [
                {"split": study.split} | row for row in study.measure(own)
            ],
            studies,
            scores,
        )
        return [row for rows in measured for row in rows]


def _score(refit: Refit) -> np.ndarray:
    points = refit.points
    train = points.features.loc[refit.train, list(refit.kinds)]
    contract = learn_contract(train, refit.kinds)
    labels = points.labels[refit.train]
    model = fit(
        training_matrix(encode(train, contract), labels, contract), refit.parameters
    )
    rows = encode(points.features.loc[refit.scored, list(refit.kinds)], contract)
    scores = np.full(len(points), np.nan)
    scores[refit.scored] = margins(model, plain_matrix(rows, contract))
    return scores


# ---------------------------------------------------------------- enough to go on


def has_both(points: Points, rows: np.ndarray) -> bool:
    """Whether the rows hold enough failing and enough passing students."""
    labels, students = points.labels, points.students
    return all(
        len(set(students[rows & (labels == label)])) >= FEWEST_STUDENTS
        for label in (0, 1)
    )


def is_among(students: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Rows of the chosen students; numpy's own isin crawls over text."""
    return pd.Series(students).isin(chosen).to_numpy()


def too_few(what: str) -> str:
    """Why a study is left out."""
    return f"{what} has fewer than {FEWEST_STUDENTS} failing or passing students"


# ---------------------------------------------------------------- figures


def draw_for(points: Points, rows: np.ndarray) -> Resamples:
    """Draws of the students of some rows, the same for everything measured on them."""
    return draw_resamples(points.students[rows], RESAMPLES, SEED)


def ranked(labels: np.ndarray, scores: np.ndarray, draws: Resamples) -> Figures:
    """PR-AUC and ROC-AUC."""
    found = ranking_metrics(labels, scores, draws)
    return {name: found[name] for name in ("pr_auc", "roc_auc")}


def mean_of(figures: list[Figures]) -> Figures:
    """The mean of each figure, resample by resample."""
    return {
        name: np.mean([own[name] for own in figures], axis=0) for name in figures[0]
    }


def metric_rows(
    figures: Figures, lead: int, segment: str, labels: np.ndarray
) -> list[Row]:
    """Rows of `model_metrics`, without run and split."""
    return [
        summary("model", metric, values)
        | {
            "lead_days": lead,
            "segment": segment,
            "rows": len(labels),
            "positives": int(labels.sum()),
        }
        for metric, values in figures.items()
    ]


def constant(value: float) -> np.ndarray:
    """A figure that no draw of students changes, such as a count; no interval."""
    return np.append(value, np.full(RESAMPLES, np.nan))


def segments_of(points: Points, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """`` for all rows, `:first` and `:later` sittings; where there are both kinds,
    and enough of each."""
    first = points.targets["is_first_sitting"].to_numpy(dtype=bool)
    parts = {"": rows, ":first": rows & first, ":later": rows & ~first}
    for name, chosen in parts.items():
        same_as_all = bool(name) and np.array_equal(chosen, rows)
        if has_both(points, chosen) and not same_as_all:
            yield name, chosen


def compare(
    ground: Ground,
    rows: np.ndarray,
    scores: dict[str, list[np.ndarray]],
    reference: str,
    difference: str,
) -> list[Row]:
    """PR-AUC of several models on the same rows, and by how much each is ahead of
    the `reference`, resample by resample, as the metric `difference`.

    Of several models of one name the figures are averaged. Segments are the name,
    alone and with `:first` and `:later`.
    """
    found = []
    for segment, chosen in segments_of(ground.points, rows):
        labels = ground.points.labels[chosen]
        draws = draw_for(ground.points, chosen)
        figures = {
            name: mean_of([ranked(labels, values[chosen], draws) for values in models])
            | {"base_rate": base_rate(labels, draws)}
            for name, models in scores.items()
        }
        to_beat = figures[reference]["pr_auc"]
        for name, own in figures.items():
            if name != reference:
                own[difference] = own["pr_auc"] - to_beat
            found += metric_rows(own, ground.headline, name + segment, labels)
    return found
