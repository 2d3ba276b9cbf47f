"""What the model has to beat. Baselines go through the same evaluation."""

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from ml.boosting import SEED
from ml.dataset import Points
from ml.features import CATEGORY
from ml.settings import UserError

BASELINES = ("random", "rule", "course_rate", "logistic")
PENALTY = 0.1
# Rarer categories share a column.
MIN_FREQUENCY = 20
UNKNOWN = "(unknown)"
NEEDED = (
    "record_assessments_missed",
    "record_assessments_due",
    "to_date_active_days",
    "context_course_failure_rate",
)


def check_columns(kinds: dict[str, str]) -> None:
    """Raise UserError naming each feature that the baselines need and do not find."""
    missing = [name for name in NEEDED if name not in kinds]
    if missing:
        raise UserError(
            "student_features_14d lacks columns that the baselines are made of: "
            + ", ".join(missing)
        )


def random_scores(count: int) -> np.ndarray:
    """A seeded random order: the PR-AUC that comes for free."""
    return np.random.default_rng(SEED).random(count)


def rule_scores(features: pd.DataFrame) -> np.ndarray:
    """Assessments missed so far, as one score.

    A student of whom nothing was due yet gets half a missed assessment if known to
    be dormant (no active day since the enrollment began), so the dormant come after
    everybody who missed one and before everybody else. Unknown activity is not
    dormancy.
    """
    missed = features["record_assessments_missed"].fillna(0).to_numpy(dtype=float)
    nothing_due = features["record_assessments_due"].fillna(0).to_numpy() == 0
    dormant = features["to_date_active_days"].to_numpy(dtype=float) == 0
    return missed + 0.5 * (nothing_due & dormant)


def course_rate_scores(features: pd.DataFrame, base_rate: float) -> np.ndarray:
    """The course's earlier failure rate; the base rate of training where unknown."""
    rate = features["context_course_failure_rate"]
    return rate.fillna(base_rate).to_numpy(dtype=float)


def logistic_scores(train: Points, test: Points) -> np.ndarray:
    """Probabilities of a regularised logistic regression on the same rows."""
    # The sums inside depend on the number of threads.
    with threadpool_limits(limits=1):
        model = _logistic(train.kinds).fit(_plain(train), train.labels)
        return model.predict_proba(_plain(test))[:, 1]


def _logistic(kinds: dict[str, str]) -> Pipeline:
    text = [name for name, kind in kinds.items() if kind == CATEGORY]
    numbers = [name for name, kind in kinds.items() if kind != CATEGORY]
    number_steps = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        # Counts have long tails, which a linear model would follow.
        FunctionTransformer(signed_log),
        StandardScaler(),
    )
    text_steps = OneHotEncoder(handle_unknown="ignore", min_frequency=MIN_FREQUENCY)
    columns = ColumnTransformer([("n", number_steps, numbers), ("t", text_steps, text)])
    return make_pipeline(columns, LogisticRegression(C=PENALTY, max_iter=2000))


def signed_log(values: np.ndarray) -> np.ndarray:
    """Logarithms that know negative numbers."""
    return np.sign(values) * np.log1p(np.abs(values))


def _plain(points: Points) -> pd.DataFrame:
    """Text without nulls, numbers without infinities."""
    frame = points.features
    return pd.DataFrame(
        {
            name: frame[name].astype("object").fillna(UNKNOWN).astype(str)
            if kind == CATEGORY
            else frame[name].astype(float).replace([np.inf, -np.inf], np.nan)
            for name, kind in points.kinds.items()
        }
    )


def all_scores(train: Points, test: Points) -> dict[str, np.ndarray]:
    """Scores of every baseline on the test points, by name."""
    check_columns(train.kinds)
    return {
        "random": random_scores(len(test)),
        "rule": rule_scores(test.features),
        "course_rate": course_rate_scores(test.features, float(train.labels.mean())),
        "logistic": logistic_scores(train, test),
    }
