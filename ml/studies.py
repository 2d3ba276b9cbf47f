"""What the chosen model is worth under other questions: studies beside the evaluation.

Each study fits the winner's parameters again, without a new search, and writes rows
of `ml.model_metrics` under a split of its own:

- `estimate_random`, `estimate_grouped`, `estimate_temporal`: how much other ways of
  dividing the data flatter (`ml.estimates`)
- `backtest`: each past term, scored as it would have been then (`ml.backtest`)
- `imbalance`: ways to make a model care for the rarer outcome (`ml.imbalance`)
- `ablation`: each family of features left out, and alone
- `attributes`: what leaving the students' attributes out costs
- `learning_curve`: what more students would bring

Nothing is chosen by them here. What a reader may choose by (families, attributes,
amount of data) is judged on the calibration period: later than the training, and
not the test period, which stays unused.
"""

import logging
from collections.abc import Callable

import duckdb
import numpy as np
import pandas as pd

from ml.backtest import SPLIT as BACKTEST
from ml.backtest import backtest
from ml.boosting import SEED
from ml.dataset import Points, Split
from ml.estimates import NAMES as ESTIMATES
from ml.estimates import estimates
from ml.explain import family_of, read_feature_docs
from ml.features import CATEGORY
from ml.imbalance import imbalance
from ml.refits import (
    METRIC_COLUMNS,
    Ground,
    Refit,
    Row,
    Study,
    compare,
    constant,
    has_both,
    is_among,
    make_ground,
    metric_rows,
    run_all,
    too_few,
)
from ml.registry import Artifact
from ml.warehouse import table_exists

SPLITS = (
    *(f"estimate_{name}" for name in ESTIMATES),
    BACKTEST,
    "imbalance",
    "ablation",
    "attributes",
    "learning_curve",
)
# Shares of the students in the learning curve, beside all of them; draws of each.
SHARES = (0.1, 0.25, 0.5)
DRAWS = 3
ATTRIBUTE_PREFIX = "attribute_"

log = logging.getLogger(__name__)


def read_attributes(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """Rows of `student_attributes`, in a fixed order; none where it is missing."""
    columns = ["student_id", "course_run_id", "attribute", "value"]
    if not table_exists(connection, "student_attributes", "main"):
        return pd.DataFrame(columns=columns)
    return connection.execute(
        f"select {', '.join(columns)} from main.student_attributes order by all"
    ).df()


def run_studies(
    split: Split, artifact: Artifact, attributes: pd.DataFrame, headline: int
) -> pd.DataFrame:
    """Run every study that the data are large enough for.

    Parameters
    ----------
    artifact
        The run's model, trained on what was known before the test period of `split`.
    attributes
        Rows of `student_attributes`: student_id, course_run_id (null: every run),
        attribute, value. May be empty.
    headline
        The lead, in days, at which models are compared.

    Returns
    -------
    pandas.DataFrame
        Rows of `model_metrics` without run_id; no rows for a study that the data
        are too small for, which a line of the log says.
    """
    ground = make_ground(split, artifact, attributes, headline)
    makers: dict[str, Callable[[Ground], Study | str]] = {
        "estimates": estimates,
        BACKTEST: backtest,
        "imbalance": imbalance,
        "ablation": _ablation,
        "attributes": _attributes,
        "learning_curve": _learning_curve,
    }
    studies = []
    for name, make in makers.items():
        made = make(ground)
        if isinstance(made, Study):
            studies.append(made)
        else:
            log.info("No study `%s`: %s.", name, made)
    return pd.DataFrame(run_all(studies), columns=METRIC_COLUMNS)


# ---------------------------------------------------------------- on later time


def _later(ground: Ground) -> np.ndarray:
    """Where readers may choose by what they see: the calibration period."""
    return ground.judged("calibration", ground.headline)


def _too_few_later(ground: Ground) -> str:
    """Why nothing can be judged on the calibration period, or nothing."""
    if has_both(ground.points, _later(ground)):
        return ""
    return too_few(f"the calibration period at lead {ground.headline}")


def _ablation(ground: Ground) -> Study | str:
    """Each family of features left out, and alone: `without=…`, `only=…`."""
    kinds = ground.artifact.contract.kinds
    docs = read_feature_docs()
    family = {name: family_of(name, docs) for name in kinds}
    families = sorted(set(family.values()))
    if len(families) < 2:
        return "all features are of one family"
    if problem := _too_few_later(ground):
        return problem
    columns: dict[str, dict[str, str]] = {}
    for one in families:
        inside = {name: kind for name, kind in kinds.items() if family[name] == one}
        outside = {name: kind for name, kind in kinds.items() if family[name] != one}
        columns |= {f"without={one}": outside, f"only={one}": inside}
    judged = _later(ground)
    refits = {
        name: Refit(
            ground.points,
            ground.split.part == "search",
            judged,
            chosen,
            ground.artifact.parameters,
        )
        for name, chosen in columns.items()
    }

    def measure(scores: dict[str, np.ndarray]) -> list[Row]:
        models = {name: [values] for name, values in scores.items()}
        return compare(ground, judged, models, "all", "pr_auc_minus_all")

    return Study("ablation", refits | {"all": ground.reference}, measure)


def _learning_curve(ground: Ground) -> Study | str:
    """Trained on a growing share of the search period's students: `share=…`.

    A small share is a matter of luck, so each is drawn `DRAWS` times and the figures
    are averaged.
    """
    if problem := _too_few_later(ground):
        return problem
    search = ground.split.part == "search"
    students = ground.points.students
    random, names = np.random.default_rng(SEED), np.unique(students[search])
    judged, artifact = _later(ground), ground.artifact
    orders = [random.permutation(names) for _ in range(DRAWS)]
    drawn = {
        f"share={share}": [
            search & is_among(students, order[: round(share * len(names))])
            for order in orders
        ]
        for share in SHARES
    }
    drawn = {
        name: draws
        for name, draws in drawn.items()
        if all(has_both(ground.points, rows) for rows in draws)
    }
    if not drawn:
        return too_few("half of the search period")
    refits = {
        f"{name} {number}": Refit(
            ground.points, rows, judged, artifact.contract.kinds, artifact.parameters
        )
        for name, draws in drawn.items()
        for number, rows in enumerate(draws)
    }

    def measure(scores: dict[str, np.ndarray]) -> list[Row]:
        models = {
            name: [scores[f"{name} {number}"] for number in range(DRAWS)]
            for name in drawn
        }
        models["share=1.0"] = [scores["share=1.0"]]
        found = compare(ground, judged, models, "share=1.0", "pr_auc_minus_all")
        sizes = {
            name: float(np.mean([rows.sum() for rows in draws]))
            for name, draws in drawn.items()
        } | {"share=1.0": float(search.sum())}
        labels = ground.points.labels[judged]
        for name, size in sizes.items():
            row = {"train_rows": constant(size)}
            found += metric_rows(row, ground.headline, name, labels)
        return found

    return Study("learning_curve", refits | {"share=1.0": ground.reference}, measure)


def _attributes(ground: Ground) -> Study | str:
    """With and without the students' attributes as features: `with`, `without`.

    Neither of the two serves because of it.
    """
    if ground.attributes.empty:
        return "student_attributes is missing or empty"
    if problem := _too_few_later(ground):
        return problem
    points, added = add_attributes(ground.points, ground.attributes)
    docs = read_feature_docs()
    kinds = ground.artifact.contract.kinds
    plain = {
        name: kind
        for name, kind in kinds.items()
        if family_of(name, docs) != "attribute"
    }
    judged = _later(ground)
    columns = {"with": plain | added, "without": plain}
    refits = {
        name: Refit(
            points,
            ground.split.part == "search",
            judged,
            chosen,
            ground.artifact.parameters,
        )
        for name, chosen in columns.items()
        if chosen != kinds
    }
    refits |= dict.fromkeys(columns.keys() - refits.keys(), ground.reference)

    def measure(scores: dict[str, np.ndarray]) -> list[Row]:
        models = {name: [scores[name]] for name in columns}
        return compare(ground, judged, models, "without", "pr_auc_minus_without")

    return Study("attributes", refits, measure)


def add_attributes(
    points: Points, attributes: pd.DataFrame
) -> tuple[Points, dict[str, str]]:
    """The points with a category `attribute_<name>` each, and the kinds of these.

    A value for the point's own run goes before one for every run; of several, the
    last in alphabetical order, so that no order of rows decides.
    """
    by_run = attributes["course_run_id"].notna()
    whole = ["student_id"]
    found = _values(points, attributes[by_run], [*whole, "course_run_id"])
    found = found.combine_first(_values(points, attributes[~by_run], whole))
    found.columns = pd.Index([ATTRIBUTE_PREFIX + str(name) for name in found.columns])
    kept = points.features.drop(columns=found.columns, errors="ignore")
    features = pd.concat([kept, found.astype(object)], axis=1)
    added = dict.fromkeys(found.columns, CATEGORY)
    return Points(points.targets, features, points.kinds | added), added


def _values(points: Points, attributes: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """One column per attribute, in the order of the points; null where unknown."""
    wide = attributes.groupby([*key, "attribute"])["value"].max().unstack("attribute")
    joined = points.targets[key].merge(
        wide.reset_index(), on=key, how="left", validate="many_to_one"
    )
    return joined.drop(columns=key)
