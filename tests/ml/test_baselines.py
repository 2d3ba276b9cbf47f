"""The baselines: what each one says of whom."""

import numpy as np
import pandas as pd
import pytest

from ml.baselines import (
    NEEDED,
    check_columns,
    course_rate_scores,
    logistic_scores,
    random_scores,
    rule_scores,
)
from ml.dataset import Points
from ml.settings import UserError


def _features(**columns: list[float | None]) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype=float)


def test_the_rule_counts_misses_and_puts_the_dormant_before_the_clean() -> None:
    features = _features(
        record_assessments_missed=[2, 1, 0, 0, 0, None],
        record_assessments_due=[3, 1, 0, 0, 2, None],
        to_date_active_days=[5, 0, 0, None, 0, 3],
    )
    # dormant counts only where nothing was due; unknown activity is not dormancy
    assert rule_scores(features).tolist() == [2, 1, 0.5, 0, 0, 0]


def test_the_course_rate_falls_back_on_the_base_rate() -> None:
    features = _features(context_course_failure_rate=[0.4, None])
    assert course_rate_scores(features, 0.25).tolist() == [0.4, 0.25]


def test_random_is_the_same_every_time() -> None:
    assert random_scores(50).tolist() == random_scores(50).tolist()
    assert len(set(random_scores(50))) == 50


def _points(rows: int, seed: int, category: str = "a") -> Points:
    random = np.random.default_rng(seed)
    value = random.normal(size=rows)
    labels = (value + random.normal(size=rows) > 1).astype(int)
    features = pd.DataFrame(
        {
            "value": np.where(random.random(rows) < 0.2, np.nan, value),
            "never_known": np.nan,
            "text": np.where(value > 0, category, None),
        }
    )
    kinds = {"value": "number", "never_known": "number", "text": "category"}
    return Points(pd.DataFrame({"at_risk": labels}), features, kinds)


def test_the_logistic_regression_takes_nulls_and_text_it_never_met() -> None:
    train, test = _points(500, 1), _points(200, 2, category="new")
    scores = logistic_scores(train, test)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[test.labels == 1].mean() > scores[test.labels == 0].mean()
    np.testing.assert_array_equal(scores, logistic_scores(train, test))


def test_missing_columns_are_all_named() -> None:
    with pytest.raises(UserError) as error:
        check_columns(_points(5, 1).kinds)
    for name in NEEDED:
        assert name in str(error.value)
