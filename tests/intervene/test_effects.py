"""Effects against other libraries, and every verdict."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from intervene.experiments.campaigns import Arm, Campaign, Guardrails
from intervene.experiments.effects import (
    Experiment,
    adjusted_difference,
    analyse,
    difference,
    holm,
    rate_difference,
    shares_test,
    without_explained,
)

START, END = date(2026, 3, 1), date(2026, 9, 1)
OVER = date(2027, 3, 1)


def make_campaign(**changes) -> Campaign:
    values = {
        "name": "spring",
        "start": START,
        "end": END,
        "arms": [Arm(name="control", message=False), Arm(name="email")],
        "minimum_detectable_effect": 0.1,
        "guardrails": Guardrails(opted_out=0.02, complained=0.02),
    }
    return Campaign(**(values | changes))


def make_students(count: int = 800, effect: float = 0.0, seed: int = 1, **columns):
    """Students of two arms of equal size; the score explains part of who fails."""
    random = np.random.default_rng(seed)
    score = random.beta(2, 3, count)
    in_arm = np.arange(count) % 2 == 0
    chance = np.clip(score - effect * in_arm, 0, 1)
    frame = pd.DataFrame(
        {
            "campaign": "spring",
            "student_id": [f"s{number:04}" for number in range(count)],
            "arm": np.where(in_arm, "email", "control"),
            "risk_score": score,
            "risk_band": np.where(score > 0.5, "high", "medium"),
            "engagement_zone": "warning",
            "lead_band": "8-14",
            "course_id": np.where(random.random(count) < 0.5, "c1", "c2"),
            "outcome_status": "matured",
            "at_risk": pd.array((random.random(count) < chance).astype(int), "Int64"),
            "messages_sent": in_arm.astype(int),
            "opted_out": False,
            "complained": False,
        }
    )
    return frame.assign(**columns)


def run(students: pd.DataFrame, planned: int | None = None, **changes) -> pd.DataFrame:
    campaign = changes.pop("campaign", None) or make_campaign(**changes)
    return analyse(
        Experiment(
            campaign=campaign,
            planned=planned or len(students),
            students=students,
            data_until=OVER,
            contact_cost=campaign.contact_cost or 5.0,
            pass_value=200.0,
        )
    )


def row_of(effects: pd.DataFrame, metric: str, arm: str = "email", subgroup="all"):
    rows = effects[
        (effects["metric"] == metric)
        & (effects["arm"] == arm)
        & (effects["subgroup"] == subgroup)
    ]
    [row] = rows.to_dict("records")
    return row


# ---------------------------------------------------------------- other libraries


def test_a_difference_is_welchs_test() -> None:
    random = np.random.default_rng(3)
    arm, control = random.normal(1, 2, 70), random.normal(0, 1, 40)
    found = difference(arm, control)
    other = stats.ttest_ind(arm, control, equal_var=False)
    low, high = other.confidence_interval(0.95)
    assert found.p == pytest.approx(other.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


def test_cuped_is_a_regression_on_the_score_and_its_absence() -> None:
    random = np.random.default_rng(4)
    score = random.random(400)
    outcome = (random.random(400) < score).astype(float)
    score[::7] = np.nan
    in_arm = random.random(400) < 0.4
    found = adjusted_difference(outcome, score, in_arm)

    columns = pd.DataFrame({"score": score, "missing": np.isnan(score)})
    columns["score"] = columns["score"].fillna(columns["score"].mean())
    model = LinearRegression().fit(columns, outcome)
    left = outcome - model.predict(columns)
    other = stats.ttest_ind(left[in_arm], left[~in_arm], equal_var=False)
    low, high = other.confidence_interval(0.95)
    assert found.is_adjusted
    assert found.p == pytest.approx(other.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    raw = difference(outcome[in_arm], outcome[~in_arm])
    assert found.variance_reduction == pytest.approx(
        1 - (found.high - found.low) ** 2 / (raw.high - raw.low) ** 2, abs=1e-3
    )
    assert found.variance_reduction > 0.1


def test_without_scores_nothing_is_adjusted() -> None:
    outcome = np.array([0.0, 1, 1, 0])
    assert without_explained(outcome, np.full(4, np.nan)) is None
    assert without_explained(outcome, np.full(4, 0.3)) is None


def test_rates_with_few_events_have_newcombes_interval() -> None:
    """Newcombe (1998), table II, example (a), method 10: 56/70 and 48/80."""
    arm = np.repeat([1.0, 0.0], [56, 14])
    control = np.repeat([1.0, 0.0], [48, 32])
    found = rate_difference(arm, control)
    assert found.estimate == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    nothing = rate_difference(np.zeros(10), np.zeros(10))
    assert nothing.low < 0 < nothing.high


def test_holms_correction_on_known_numbers() -> None:
    """The example of Wikipedia's article: 0.01, 0.04, 0.03, 0.005."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


# ---------------------------------------------------------------- verdicts


def test_a_planted_effect_helped_and_its_opposite_harmed() -> None:
    helped = row_of(run(make_students(2000, effect=0.15)), "at_risk")
    assert helped["verdict"] == "helped"
    assert helped["ci_low"] < -0.15 < helped["ci_high"] < 0
    assert "fell by" in helped["note"]
    harmed = row_of(run(make_students(2000, effect=-0.15)), "at_risk")
    assert harmed["verdict"] == "harmed"


def test_without_an_effect_many_students_rule_one_out_and_few_do_not() -> None:
    assert row_of(run(make_students(3000)), "at_risk")["verdict"] == "no_effect"
    few = row_of(run(make_students(120)), "at_risk")
    assert few["verdict"] == "inconclusive"
    assert "not ruled out" in few["note"]


def test_a_metric_that_should_rise_helps_by_rising() -> None:
    students = make_students(2000, effect=-0.15)
    students["studied_within_14_days"] = students["at_risk"]
    effects = run(students, metric="studied_within_14_days", base_rate=0.4)
    assert row_of(effects, "studied_within_14_days")["verdict"] == "helped"
    assert set(effects["role"]) == {"check", "primary", "guardrail", "subgroup"}


@pytest.mark.parametrize("reason", ["pending", "not all assigned"])
def test_before_the_planned_students_are_known_nothing_is_shown(reason: str) -> None:
    students = make_students(400, effect=0.3)
    campaign = make_campaign(end=OVER if reason == "pending" else date(2028, 1, 1))
    planned = 400
    if reason == "pending":
        students.loc[0, ["at_risk", "outcome_status"]] = [pd.NA, "pending"]
    else:
        planned = 401
    effects = run(students, planned=planned, campaign=campaign)
    hidden = effects[effects["role"].isin(["primary", "worth", "subgroup"])]
    assert set(hidden["verdict"]) == {"too_early"}
    shown = ["value", "value_control", "estimate", "ci_low", "ci_high", "p_value"]
    assert hidden[shown].isna().all(axis=None)
    assert row_of(effects, "opted_out")["verdict"] == "kept"
    assert row_of(effects, "sample_ratio", arm="all")["verdict"] == "passed"


def test_a_campaign_that_ended_short_of_students_is_judged() -> None:
    effects = run(make_students(400, effect=0.4), planned=10_000)
    assert row_of(effects, "at_risk")["verdict"] == "helped"


def test_arms_without_the_planned_shares_make_the_result_invalid() -> None:
    students = make_students(2000, effect=0.2)
    keep = (students["arm"] == "control") | (students.index % 20 != 0)
    row = row_of(run(students[keep]), "sample_ratio", arm="all")
    assert row["verdict"] == "passed", "what chance allows is no mismatch"
    keep = (students["arm"] == "control") | (students.index % 5 != 0)
    effects = run(students[keep])
    row = row_of(effects, "sample_ratio", arm="all")
    counts = students[keep]["arm"].value_counts()
    other = stats.chisquare([counts["control"], counts["email"]])
    assert row["estimate"] == pytest.approx(other.statistic)
    assert row["p_value"] == pytest.approx(other.pvalue)
    assert row["verdict"] == "failed"
    told = effects[effects["role"].isin(["primary", "worth", "subgroup"])]
    assert set(told["verdict"]) == {"invalid"}


def test_uneven_shares_of_few_students_are_no_mismatch_by_approximation() -> None:
    """One student in an arm that gets 1 of 1,001: rare, not 1 in 10,000."""
    weights = np.array([1000, 1]) / 1001
    _, p = shares_test([59, 1], list(60 * weights))
    assert p == pytest.approx(2 * (1 - weights[0] ** 60), rel=1e-6)
    many = [900, 1100]
    other = stats.chisquare(many, [1000, 1000])
    assert shares_test(many, [1000, 1000]) == (other.statistic, other.pvalue)


def test_of_rare_outcomes_the_worth_has_an_interval_and_subgroups_none() -> None:
    students = make_students(400, at_risk=pd.array([1] * 400, "Int64"))
    effects = run(students)
    rate = rate_difference(np.zeros(200), np.zeros(200))
    gain = row_of(effects, "gain_per_student")
    assert gain["estimate"] == pytest.approx(-5)
    assert gain["ci_low"] == pytest.approx(200 * rate.low - 5)
    assert gain["ci_high"] == pytest.approx(200 * rate.high - 5)
    roi = row_of(effects, "roi")
    assert roi["ci_low"] == pytest.approx(gain["ci_low"] / 5)
    assert roi["ci_high"] == pytest.approx(gain["ci_high"] / 5)
    groups = effects[effects["role"] == "subgroup"]
    assert set(groups["verdict"]) == {"too_small"}


def test_outcomes_that_are_missing_in_one_arm_make_it_invalid() -> None:
    students = make_students(2000, effect=0.2)
    lost = (students["arm"] == "email") & (students.index % 10 == 0)
    students.loc[lost, "at_risk"] = pd.NA
    students.loc[lost, "outcome_status"] = "postponed"
    effects = run(students)
    assert row_of(effects, "outcome_missing")["verdict"] == "failed"
    assert row_of(effects, "at_risk")["verdict"] == "invalid"
    assert row_of(effects, "at_risk")["students"] == 1000 - lost.sum()


def test_guardrails_break_hold_or_stay_open() -> None:
    students = make_students(2000)
    students["opted_out"] = (students["arm"] == "email") & (students.index % 10 == 0)
    effects = run(students)
    assert row_of(effects, "opted_out")["verdict"] == "breached"
    assert row_of(effects, "complained")["verdict"] == "kept"
    assert row_of(run(make_students(60)), "complained")["verdict"] == "unclear"


def test_of_several_arms_each_is_corrected_for_the_others() -> None:
    students = make_students(1500, effect=0.2)
    students["arm"] = np.where(
        students["arm"] == "control",
        "control",
        np.where(students.index % 4 == 0, "email", "sms"),
    )
    arms = [
        Arm(name="control", message=False, weight=2),
        Arm(name="email"),
        Arm(name="sms"),
    ]
    effects = run(students, arms=arms)
    rows = [row_of(effects, "at_risk", arm=arm) for arm in ("email", "sms")]
    assert [row["p_adjusted"] for row in rows] == pytest.approx(
        holm([row["p_value"] for row in rows])
    )
    for row in rows:
        pair = students[students["arm"].isin([row["arm"], "control"])]
        alone = adjusted_difference(
            pair["at_risk"].to_numpy(float),
            pair["risk_score"].to_numpy(float),
            (pair["arm"] == row["arm"]).to_numpy(),
        )
        assert row["estimate"] == pytest.approx(alone.estimate)


def test_a_subgroup_is_asked_whether_it_differs_from_the_rest() -> None:
    students = make_students(4000)
    in_arm = students["arm"] == "email"
    # In the one course the arm saves everybody, in the other nobody.
    students.loc[in_arm & (students["course_id"] == "c1"), "at_risk"] = 0
    students.loc[0, "engagement_zone"] = "dormant"
    effects = run(students)
    rows = effects[effects["role"] == "subgroup"].set_index("subgroup")
    assert rows.loc["course_id=c1", "verdict"] == "differs"
    assert "campaign of its own" in rows.loc["course_id=c1", "note"]
    assert rows.loc["engagement_zone=dormant", "verdict"] == "too_small"
    assert pd.isna(rows.loc["engagement_zone=dormant", "estimate"])
    assert not any(name.startswith("lead_band") for name in rows.index)
    plain = run(make_students(4000, effect=0.1))
    assert "differs" not in set(plain[plain["role"] == "subgroup"]["verdict"])


def test_the_gain_is_value_less_cost_and_its_interval_holds_the_truth() -> None:
    effects = run(make_students(6000, effect=0.15))
    gain = row_of(effects, "gain_per_student")
    primary = row_of(effects, "at_risk")
    # Everybody in the arm got one message, so cost has no variance.
    assert gain["estimate"] == pytest.approx(-200 * primary["estimate"] - 5)
    assert gain["ci_low"] == pytest.approx(-200 * primary["ci_high"] - 5)
    assert gain["verdict"] == "pays"
    roi = row_of(effects, "roi")
    assert roi["estimate"] == pytest.approx(gain["estimate"] / 5)
    assert roi["ci_low"] == pytest.approx(gain["ci_low"] / 5)


def test_the_return_on_uneven_spending_has_the_delta_methods_interval() -> None:
    students = make_students(3000, effect=0.6)
    random = np.random.default_rng(5)
    students["messages_sent"] *= random.integers(0, 3, len(students))
    # A large effect of dear messages, so that what was spent matters.
    campaign = make_campaign(contact_cost=20.0)
    row = row_of(run(students, campaign=campaign), "roi")
    in_arm = (students["arm"] == "email").to_numpy()
    passed = 200 * (1 - students["at_risk"].to_numpy(float))
    passed = without_explained(passed, students["risk_score"].to_numpy(float))
    spent = 20 * students["messages_sent"].to_numpy(float)
    draws = []
    for _ in range(1000):
        places = random.integers(0, len(students), len(students))
        side = in_arm[places]
        gained, cost = passed[places], spent[places]
        more = cost[side].mean() - cost[~side].mean()
        draws.append((gained[side].mean() - gained[~side].mean()) / more - 1)
    assert row["estimate"] == pytest.approx(np.mean(draws), abs=0.05)
    low, high = np.percentile(draws, [2.5, 97.5])
    assert row["ci_high"] - row["ci_low"] == pytest.approx(high - low, rel=0.1)


def test_nothing_sent_gives_no_return() -> None:
    row = row_of(run(make_students(400, messages_sent=0)), "roi")
    assert row["verdict"] == "unclear"
    assert row["estimate"] is None or pd.isna(row["estimate"])


def test_the_order_of_the_students_changes_nothing() -> None:
    students = make_students(500, effect=0.1)
    shuffled = students.sample(frac=1, random_state=7)
    pd.testing.assert_frame_equal(run(students), run(shuffled), check_exact=True)
