"""Reasons: exact, in order, in words."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from synthetic import make_project

from ml.boosting import contributions, margins, plain_matrix
from ml.dataset import feature_column, read_points
from ml.explain import (
    REASONS,
    FeatureDoc,
    format_value,
    importance_table,
    read_feature_docs,
    tell_reasons,
    top_reasons,
)
from ml.features import FeatureContract, encode
from ml.registry import load_artifact
from ml.score import peer_medians
from ml.settings import UserError
from ml.spool import Spool
from ml.train import run_train
from ml.warehouse import open_warehouse

CONTRACT = FeatureContract(
    {"days": "number", "share": "number", "seen": "boolean", "habit": "category"},
    {"habit": ["early", "late"]},
)
DOCS = {
    "days": FeatureDoc(
        description="Days with activity. Null means unknown.",
        unit="days",
        reason="Active on {value} of {window} days; the middle student on {peer}",
        reason_student="You were active on {value} days",
        actionable=True,
        worrying="low",
    ),
    "share": FeatureDoc(description="Share of the course done.", unit="share"),
    "seen": FeatureDoc(description="Opened the course", reason="Opened: {value}"),
}
FEATURES = pd.DataFrame(
    {
        "days": [2.0, 6.0, np.nan],
        "share": [0.25, 0.5, 0.75],
        "seen": [0.0, 1.0, 1.0],
        "habit": ["late", None, "early"],
    }
)


def _told(values: np.ndarray, features: pd.DataFrame = FEATURES) -> pd.DataFrame:
    points = pa.Table.from_pandas(features.rename(columns=feature_column))
    spool = Spool(Path(), points.schema)
    spool.write(points)
    spool.finish()
    medians = peer_medians(spool, CONTRACT)
    told = tell_reasons(values, features, CONTRACT, DOCS, medians, window_days=14)
    return told.to_pandas()


def test_contributions_and_bias_add_up_to_the_margin(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    run_id = run_train(project.settings).run["run_id"]
    artifact = load_artifact(project.settings.models_path, run_id)
    with open_warehouse(project.settings.warehouse_path) as connection:
        points = read_points(connection)
    rows = encode(points.features, artifact.contract)
    matrix = plain_matrix(rows, artifact.contract)
    values = contributions(artifact.model, matrix)
    assert values.shape == (len(points), len(artifact.contract.names) + 1)
    np.testing.assert_allclose(
        values.sum(axis=1), margins(artifact.model, matrix), atol=1e-5
    )


def test_only_what_raises_the_risk_is_told_strongest_first() -> None:
    values = np.array([[0.1, 0.4, -0.3, 0.2], [-0.1, -0.2, 0.0, -0.3]])
    reasons = top_reasons(values, CONTRACT.names)
    assert reasons["point"].tolist() == [0, 0, 0]
    assert reasons["reason_rank"].tolist() == [1, 2, 3]
    assert reasons["contribution"].tolist() == [0.4, 0.2, 0.1]


def test_no_more_than_the_limit_and_equals_in_order_of_name() -> None:
    names = [f"f{n}" for n in range(REASONS + 1, -1, -1)]
    reasons = top_reasons(np.full((1, len(names)), 0.2), names)
    assert len(reasons) == REASONS
    told = [names[column] for column in reasons["feature"]]
    assert told == [f"f{n}" for n in range(REASONS)]


def test_sentences_hold_the_value_and_the_middle_one() -> None:
    told = _told(np.array([[0.9, 0.8, 0.7, 0.6], [0] * 4, [0] * 4]))
    assert told["sentence"].tolist() == [
        "Active on 2 of 14 days; the middle student on 4",
        "Share of the course done: 25 %",
        "Opened: no",
        "habit: late",
    ]
    assert told["sentence_student"].tolist()[0] == "You were active on 2 days"
    assert told["sentence_student"].isna().tolist() == [False, True, True, True]
    assert told["is_actionable"].tolist() == [True, False, False, False]
    assert told["peer_median"].tolist()[:2] == [4.0, 0.5]
    assert np.isnan(told["peer_median"].tolist()[3])


def test_only_the_worrying_side_of_the_middle_is_something_to_act_on() -> None:
    told = _told(np.array([[0] * 4, [0.9, 0, 0, 0], [0] * 4])).iloc[0]
    assert told["sentence"] == "Active on 6 of 14 days; the middle student on 4"
    assert not told["is_actionable"]
    assert pd.isna(told["sentence_student"])


@pytest.mark.parametrize(
    ("worrying", "value", "is_worrying"),
    [
        ("low", 3.0, True),
        ("low", 4.0, False),
        ("high", 5.0, True),
        ("high", 4.0, False),
        ("high", np.nan, False),
        (None, 3.0, False),
    ],
)
def test_worrying_means_beyond_the_middle(
    worrying: str | None, value: float, is_worrying: bool
) -> None:
    doc = FeatureDoc(description="Days", worrying=worrying)
    assert doc.is_worrying(value, peer=4.0) is is_worrying


def test_an_unknown_value_says_so_and_says_nothing_to_the_student() -> None:
    told = _told(np.array([[0] * 4, [0] * 4, [0.5, 0, 0, 0]])).iloc[0]
    assert told["sentence"] == "Not known so far: days with activity"
    assert pd.isna(told["feature_value"])
    assert pd.isna(told["sentence_student"])


def test_reasons_do_not_depend_on_the_order_of_the_rows() -> None:
    values = np.array([[0.9, 0.8, 0.7, 0.6], [0.2, 0, 0, 0.1], [0.5, 0, 0, 0]])
    order = [2, 0, 1]
    usual = _told(values)
    shuffled = _told(values[order], FEATURES.iloc[order].reset_index(drop=True))
    shuffled["point"] = [order[point] for point in shuffled["point"]]
    shuffled = shuffled.sort_values(["point", "reason_rank"], ignore_index=True)
    pd.testing.assert_frame_equal(usual, shuffled)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (7.0, "days", "7"),
        (2.5, "count", "2.5"),
        (10.0, "count", "10"),
        (0.126, "score", "0.13"),
        (0.4, "share", "40 %"),
        (1.0, "share", "100 %"),
        (0.001, "share", "0 %"),
        (-0.001, "count", "0"),
        (1.0, "boolean", "yes"),
        (float("nan"), "days", "unknown"),
        ("weekend", "text", "weekend"),
    ],
)
def test_values_read_well(value: float | str, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_the_projects_own_documentation_can_be_told() -> None:
    docs = read_feature_docs()
    told = [doc for doc in docs.values() if doc.reason]
    assert told
    assert any(doc.actionable and doc.reason_student for doc in told)
    assert all(doc.worrying in ("low", "high") for doc in told if doc.actionable)


def test_a_sentence_with_an_unknown_placeholder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "features.yml"
    path.write_text(
        "models:\n  - name: student_features_14d\n    columns:\n"
        "      - name: days\n        description: Days\n"
        "        config: {meta: {reason: 'On {values} days'}}\n"
    )
    with pytest.raises(UserError, match=r"days: 'On .values. days'"):
        read_feature_docs(path)


def test_importance_is_the_mean_of_absolute_contributions() -> None:
    values = np.array([[1.0, -3.0, 0.0, 0.0], [-1.0, 3.0, 0.0, 0.0]])
    table = importance_table(values, {"share": 5.0}, CONTRACT)
    assert table["feature"].tolist() == ["share", "days", "habit", "seen"]
    assert table["mean_abs_contribution"].tolist() == [3.0, 1.0, 0.0, 0.0]
    assert table["gain"].tolist() == [5.0, 0.0, 0.0, 0.0]
    assert table["importance_rank"].tolist() == [1, 2, 3, 4]
