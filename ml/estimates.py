"""What other ways of dividing the data flatter: three estimates side by side.

The same parameters are measured on the same points: a random half of the test points
of a random third of the test period's students.

- `estimate_temporal` is the honest one: the run's model, trained on
  what was known before the test period.
- `estimate_grouped` is trained on points of any period of other students, drawn
  student by student until they are as many as those (or all there are).
  What it gains is the knowledge of the period that it is tested in.
- `estimate_random` is trained on as many points; those that the judged students have
  left take the place of others. What it gains on top is the knowledge of the same
  students, and of the same sittings at other leads, as after any division of points
  at random.

Sizes and judged points being equal, the differences are flattery: neither more data
nor another base rate explains them.
"""

import numpy as np
import pandas as pd

from ml.boosting import SEED
from ml.evaluate import POOLED
from ml.metrics import base_rate
from ml.refits import (
    Ground,
    Refit,
    Row,
    Study,
    constant,
    draw_for,
    has_both,
    is_among,
    metric_rows,
    ranked,
    too_few,
)

NAMES = ("random", "grouped", "temporal")
JUDGED_STUDENTS = 1 / 3
JUDGED_POINTS = 1 / 2


def estimates(ground: Ground) -> Study | str:
    """The two other models, measured beside the run's; or why they are not."""
    judged = _draw_judged(ground)
    at_headline = judged & ground.judged("test", ground.headline)
    if not has_both(ground.points, at_headline):
        return too_few(f"the sample of the test period at lead {ground.headline}")
    trained = _draw_training(ground, judged)
    if not all(has_both(ground.points, rows) for rows in trained.values()):
        return too_few("what is left to train on")
    artifact = ground.artifact
    refits = {
        name: Refit(
            ground.points, rows, judged, artifact.contract.kinds, artifact.parameters
        )
        for name, rows in trained.items()
    }
    sizes = {name: int(rows.sum()) for name, rows in trained.items()}
    sizes["temporal"] = int(ground.split.is_known.sum())

    def measure(scores: dict[str, np.ndarray]) -> list[Row]:
        scores = scores | {"temporal": ground.margins}
        found = []
        for lead, rows in ((ground.headline, at_headline), (POOLED, judged)):
            found += _estimate_rows(ground, lead, rows, scores, sizes)
        return found

    return Study("estimate", refits, measure)


def _draw_judged(ground: Ground) -> np.ndarray:
    """Half of the test points of a third of the test period's students."""
    random = np.random.default_rng(SEED)
    test = ground.judged("test")
    students = ground.points.students
    names = np.unique(students[test])
    drawn = random.permutation(names)[: int(np.ceil(JUDGED_STUDENTS * len(names)))]
    half = random.random(len(students)) < JUDGED_POINTS
    return test & is_among(students, drawn) & half


def _draw_training(ground: Ground, judged: np.ndarray) -> dict[str, np.ndarray]:
    """Rows to train on after a division by student, and of points at random."""
    random = np.random.default_rng(SEED)
    students = ground.points.students
    own = is_among(students, np.unique(students[judged])) & ~judged
    of_others = ~own & ~judged
    wanted = int(ground.split.is_known.sum())
    code, names = pd.factorize(students, sort=True)
    place = random.permutation(len(names))[code]
    # Whole students in a random order; the last one may be cut.
    grouped = _first(of_others, place, wanted)
    shuffled = random.permutation(len(students))
    kept = _first(own, shuffled, int(grouped.sum()))
    filled = _first(grouped, shuffled, int(grouped.sum() - kept.sum()))
    return {"grouped": grouped, "random": kept | filled}


def _first(rows: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """The `count` of `rows` that come first in order of `place`."""
    candidates = np.flatnonzero(rows)
    order = np.argsort(place[candidates], kind="stable")
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[candidates[order[:count]]] = True
    return chosen


def _estimate_rows(
    ground: Ground,
    lead: int,
    rows: np.ndarray,
    scores: dict[str, np.ndarray],
    sizes: dict[str, int],
) -> list[Row]:
    labels = ground.points.labels[rows]
    draws = draw_for(ground.points, rows)
    figures = {name: ranked(labels, scores[name][rows], draws) for name in NAMES}
    honest = figures["temporal"]["pr_auc"]
    found = []
    for name, own in figures.items():
        own["base_rate"] = base_rate(labels, draws)
        own["train_rows"] = constant(sizes[name])
        if name != "temporal":
            own["pr_auc_minus_temporal"] = own["pr_auc"] - honest
        for row in metric_rows(own, lead, "all", labels):
            found.append(row | {"split": f"estimate_{name}"})
    return found
