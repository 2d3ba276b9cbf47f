"""The decision table: cuts by hand, planted gains, and new costs on an old run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix
from synthetic import Project, make_settings

from ml.decisions import (
    CAPACITIES,
    CAPACITY,
    THRESHOLD,
    THRESHOLDS,
    WEEKLY,
    break_even,
    decision_table,
    net_benefit,
    still_reachable,
)
from ml.evaluate import POOLED
from ml.settings import Settings
from ml.train import run_train
from ml.warehouse import handback_tables

LEAD = 14
NO_COSTS = {"contact_cost": None, "pass_value": None, "contact_effect": None}


def _settings(**changes: object) -> Settings:
    return make_settings(Path("unused"), **changes)


def _points(labels: list[int], scores: list[float], **columns: object) -> pd.DataFrame:
    """One student per point, all asked on the same Monday unless said otherwise."""
    rows = len(labels)
    given = {
        "student_id": [f"s{n:05d}" for n in range(rows)],
        "course_id": "c1",
        "course_run_id": "r1",
        "assessment_id": "a1",
        "as_of_date": pd.Timestamp("2024-01-01"),
        "lead_days": LEAD,
        "contacted_before_due": False,
        "at_risk": labels,
        "risk_score": scores,
        "confidence": 1.0,
        "baseline_rule": 0.0,
        "baseline_random": np.linspace(0, 1, rows),
    }
    return pd.DataFrame(given | columns)


def _table(
    points: pd.DataFrame, resamples: int = 50, **changes: object
) -> pd.DataFrame:
    table = decision_table(points, _settings(**changes), LEAD, resamples)
    return table[table["lead_days"] == LEAD].set_index(["cut", "cut_value"])


TEN = _points(
    [1, 1, 0, 1, 0, 0, 0, 0, 0, 0],
    [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05],
    baseline_rule=[1.0, 0.0, 2.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0],
)


def _many(rows: int = 2000, seed: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    chance = random.random(rows)
    return _points(
        (random.random(rows) < chance).astype(int).tolist(),
        chance.tolist(),
        student_id=[f"s{n % 500:03d}" for n in range(rows)],
        assessment_id=[f"a{n // 500}" for n in range(rows)],
        as_of_date=pd.Timestamp("2024-01-01")
        + pd.to_timedelta(random.integers(0, 70, rows), "D"),
        baseline_rule=random.integers(0, 3, rows).astype(float),
        baseline_random=random.random(rows),
    )


# ---------------------------------------------------------------- cuts


def test_cuts_by_hand() -> None:
    table = _table(TEN, flag_capacity=4, advisors=2)
    cut = table.loc[(THRESHOLD, 0.65)]
    assert cut["flagged"] == 3
    assert cut["precision"] == pytest.approx(2 / 3)
    assert cut["recall"] == pytest.approx(2 / 3)
    assert cut["net_benefit"] == pytest.approx((2 - 0.65 / 0.35) / 10)
    assert cut["net_benefit_all"] == pytest.approx((3 - 7 * 0.65 / 0.35) / 10)
    # One missed, or more: the first and the third, of whom the first fails.
    assert cut["net_benefit_rule"] == pytest.approx((1 - 0.65 / 0.35) / 10)
    assert cut["flags_per_advisor"] == 1.5
    fifth = table.loc[(CAPACITY, 0.2)]
    assert (fifth["flagged"], fifth["threshold"], fifth["precision"]) == (2, 0.8, 1)
    assert fifth["expected_gain"] == pytest.approx(2 * 0.05 * 200 - 2 * 5)
    week = table.loc[(WEEKLY, 4.0)]
    assert (week["flagged"], week["recall"]) == (4, 1)
    assert week["expected_gain"] == pytest.approx(3 * 0.05 * 200 - 4 * 5)


def test_a_sitting_asked_about_at_several_leads_gains_once() -> None:
    """Pooled, it would gain at every lead: there is no gain there."""
    both = pd.concat([TEN, TEN.assign(lead_days=7)])
    table = decision_table(both, _settings(), LEAD, 50)
    gains = [name for name in table.columns if name.startswith("expected_gain")]
    assert len(gains) == 3
    pooled = table["lead_days"] == POOLED
    assert table.loc[pooled, gains].isna().all(axis=None)
    assert table.loc[~pooled, gains].notna().all(axis=None)
    assert table.loc[pooled, "precision"].notna().any()


def test_every_threshold_is_what_scikit_learn_counts() -> None:
    points = _many()
    table = _table(points)
    labels = points["at_risk"].to_numpy()
    for threshold in THRESHOLDS:
        flagged = (points["risk_score"] >= threshold).astype(int)
        (_, wrong), (missed, right) = confusion_matrix(labels, flagged)
        row = table.loc[(THRESHOLD, threshold)]
        assert row["flagged"] == right + wrong
        assert row["precision"] == pytest.approx(right / (right + wrong))
        assert row["recall"] == pytest.approx(right / (right + missed))
        odds = threshold / (1 - threshold)
        benefit = (right - wrong * odds) / len(labels)
        assert row["net_benefit"] == pytest.approx(benefit)


def test_intervals_hold_the_figure_and_a_capacity_stays_full_in_each_draw() -> None:
    table = _table(_many(), resamples=200)
    for name in ("precision", "recall", "expected_gain"):
        inside = table[f"{name}_low"] <= table[name]
        assert (inside & (table[name] <= table[f"{name}_high"])).mean() > 0.95
    # By hand: the share's precision in every draw of whole students.
    points = _many().sort_values(["student_id", "assessment_id"], ignore_index=True)
    random = np.random.default_rng(0)
    by_student = points.groupby("student_id").indices
    names = sorted(by_student)
    drawn = []
    for _ in range(300):
        rows = np.concatenate([by_student[n] for n in random.choice(names, len(names))])
        best = points.iloc[rows].nlargest(round(0.1 * len(rows)), "risk_score")
        drawn.append(best["at_risk"].mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    row = table.loc[(CAPACITY, 0.1)]
    assert row["precision_low"] == pytest.approx(low, abs=0.01)
    assert row["precision_high"] == pytest.approx(high, abs=0.01)


def test_a_week_takes_each_student_once_with_the_riskiest_point() -> None:
    weeks = ["2024-01-01", "2024-01-07", "2024-01-08", "2024-01-08", "2024-01-14"]
    points = _points(
        [1, 0, 1, 0, 1],
        [0.9, 0.8, 0.7, 0.6, 0.5],
        student_id=["a", "a", "a", "b", "c"],
        assessment_id=["1", "2", "3", "1", "1"],
        as_of_date=pd.to_datetime(weeks),
    )
    # First week: `a` once, with 0.9. Second: `a` and `b`, and no place for `c`.
    row = _table(points, flag_capacity=2).loc[(WEEKLY, 2.0)]
    assert row["flagged"] == 3
    assert row["recall"] == pytest.approx(2 / 3)
    assert row["flags_per_advisor"] == 1.5


def test_a_score_that_is_not_sure_enough_is_not_flagged() -> None:
    unsure = TEN.assign(confidence=[0.2, *[0.9] * 8, None])
    table = _table(unsure, confidence_threshold=0.5, flag_capacity=2)
    assert table.loc[(THRESHOLD, 0.65), "flagged"] == 2
    assert table.loc[(CAPACITY, 0.2), "threshold"] == 0.7
    assert table.loc[(WEEKLY, 2.0), "recall"] == pytest.approx(1 / 3)
    # Unknown is no reason to leave somebody out.
    assert table.loc[(THRESHOLD, 0.05), "flagged"] == 9


def test_students_who_were_written_to_are_left_out() -> None:
    contacted = TEN.assign(contacted_before_due=TEN["risk_score"] > 0.85)
    assert _table(contacted).loc[(THRESHOLD, 0.65), "flagged"] == 2
    nobody = decision_table(TEN.assign(contacted_before_due=True), _settings(), LEAD)
    columns = handback_tables("ml")["threshold_metrics"].columns
    assert nobody.empty
    assert {*nobody.columns, "run_id"} == set(columns)


def test_the_row_of_the_present_settings_is_marked() -> None:
    by_capacity = _table(TEN, flag_capacity=3)
    assert by_capacity.index[by_capacity["is_current"]].tolist() == [(WEEKLY, 3.0)]
    by_threshold = _table(TEN, flag_capacity=3, prediction_threshold=0.42)
    assert by_threshold.index[by_threshold["is_current"]].tolist() == [
        (THRESHOLD, 0.42)
    ]
    assert not _table(TEN, flag_capacity=None)["is_current"].any()


def test_the_order_of_the_rows_changes_nothing() -> None:
    points = _many(400)
    shuffled = points.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(_table(points), _table(shuffled), check_exact=True)


# ---------------------------------------------------------------- the edges


def test_zero_flags_cost_nothing_and_have_no_precision() -> None:
    row = _table(TEN).loc[(THRESHOLD, 0.95)]
    assert row["flagged"] == 0
    assert np.isnan(row["precision"]) and np.isnan(row["precision_low"])
    assert (row["recall"], row["net_benefit"], row["expected_gain"]) == (0, 0, 0)
    unsure = _table(TEN.assign(confidence=0.1), confidence_threshold=0.5)
    assert (unsure["flagged"] == 0).all()
    assert not unsure["is_recommended"].any()


@pytest.mark.parametrize("label", [0, 1])
def test_one_class(label: int) -> None:
    table = _table(TEN.assign(at_risk=label))
    row = table.loc[(THRESHOLD, 0.65)]
    assert row["precision"] == label
    assert np.isnan(row["recall"]) if label == 0 else row["recall"] == 0.3
    assert row["still_reachable"] == 1 if label else np.isnan(row["still_reachable"])


# ---------------------------------------------------------------- reach


def test_reachable_are_the_failing_who_have_not_left() -> None:
    first = _points([1, 1, 1, 1, 0], [0.5] * 5, lead_days=28)
    second = first.iloc[[0, 1, 2, 4]].assign(lead_days=14)
    third = first.iloc[[0, 4]].assign(lead_days=7)
    # Who came later, and an open sitting, could not be asked about at lead 28.
    newcomer = first.iloc[[0]].assign(student_id="new", lead_days=7)
    open_sitting = first.iloc[[0]].assign(assessment_id="open", lead_days=0)
    points = pd.concat([first, second, third, newcomer, open_sitting])
    assert still_reachable(points) == {28: 1.0, 14: 0.75, 7: 0.25}


# ---------------------------------------------------------------- worth


def test_net_benefit_at_the_break_even_risk_is_the_gain_per_case() -> None:
    """Times the cases, and times (effect x value - cost)."""
    costs = {"contact_cost": 6.0, "pass_value": 150.0, "contact_effect": 0.1}
    points = _many()
    assert break_even(_settings(**costs)) == pytest.approx(0.4)
    table = _table(points, **costs)
    for cut in [(CAPACITY, share) for share in CAPACITIES] + [(THRESHOLD, 0.4)]:
        row = table.loc[cut]
        expected = len(points) * (0.1 * 150 - 6) * row["net_benefit"]
        assert row["expected_gain"] == pytest.approx(expected)
        everybody = points["at_risk"].sum() * 15 - len(points) * 6
        assert len(points) * 9 * row["net_benefit_all"] == pytest.approx(everybody)


def test_a_threshold_of_one_and_a_contact_that_never_pays_have_no_net_benefit() -> None:
    assert np.isnan(net_benefit(3, 5, 10, 1.0))
    assert net_benefit(3, 5, 10, 0.0) == 0.3
    dear = _table(TEN, contact_cost=10.0)
    assert break_even(_settings(contact_cost=10.0)) is None
    assert dear.loc[CAPACITY]["net_benefit"].isna().all()
    assert dear.loc[(THRESHOLD, 0.5), "net_benefit"] > 0


def test_by_capacity_the_rule_may_flag_as_many() -> None:
    points = TEN.assign(baseline_rule=TEN["risk_score"])
    row = _table(points, contact_cost=1.0).loc[(CAPACITY, 0.2)]
    assert row["net_benefit_rule"] == row["net_benefit"] > 0


def _planted(failing: int, rows: int = 1000) -> pd.DataFrame:
    """The `failing` highest scores fail and nobody else does."""
    labels = [int(n < failing) for n in range(rows)]
    return _points(labels, np.linspace(0.99, 0.01, rows).tolist())


@pytest.mark.parametrize("share", CAPACITIES)
def test_the_capacity_that_ends_where_the_failing_end_is_recommended(
    share: float,
) -> None:
    table = _table(_planted(int(share * 1000)), flag_capacity=None)
    assert table.index[table["is_recommended"]].tolist() == [(CAPACITY, share)]
    best = table.loc[(CAPACITY, share)]
    assert best["expected_gain"] == pytest.approx(share * 1000 * 5)
    assert best["expected_gain_low"] > 0


def test_a_weekly_capacity_can_be_the_one() -> None:
    table = _table(_planted(70), flag_capacity=70)
    assert table.index[table["is_recommended"]].tolist() == [(WEEKLY, 70.0)]


@pytest.mark.parametrize(
    "changes",
    [{"contact_cost": 11.0}, {"contact_effect": 0.0}, NO_COSTS, {"pass_value": None}],
    ids=["too dear", "no effect", "no costs", "one is missing"],
)
def test_no_capacity_is_recommended(changes: dict[str, object]) -> None:
    table = _table(_planted(100), **changes)
    assert not table["is_recommended"].any()
    missing = None in changes.values()
    assert table["expected_gain"].isna().all() == missing


# ---------------------------------------------------------------- on a run


def test_new_costs_change_the_decisions_and_neither_the_run_nor_its_model(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("ml.train.train_model", no_training)
    query = "select * from ml.threshold_metrics order by lead_days, cut, cut_value"
    metrics = "select * from ml.model_metrics order by all"
    before, figures = trained.rows(query), trained.rows(metrics)
    gain = before.loc[before["is_recommended"], "expected_gain"]
    assert len(gain) == 1 and gain.item() > 0
    dear = trained.with_settings(contact_cost=10.0, prediction_threshold=0.42)
    run_train(dear.settings)
    after = trained.rows(query)
    assert set(after["run_id"]) == set(before["run_id"])
    assert (after["contact_cost"] == 10).all()
    assert not after["is_recommended"].any()
    assert set(after.loc[after["is_current"], "cut_value"]) == {0.42}
    pd.testing.assert_frame_equal(trained.rows(metrics), figures)
    run_train(trained.settings)
    pd.testing.assert_frame_equal(trained.rows(query), before)


def test_the_champion_s_decisions_follow_the_costs_too(trained: Project) -> None:
    champion = trained.rows("select run_id from ml.model_runs")["run_id"].item()
    other = trained.with_settings(model_max_depth=2, contact_cost=1.0)
    run_train(other.settings)
    costs = trained.rows(
        "select run_id, max(contact_cost) as cost from ml.threshold_metrics group by 1"
    ).set_index("run_id")["cost"]
    assert len(costs) == 2
    assert costs[champion] == 1
