"""Campaigns: declared, refused, drawn and kept; power; and a result from raw tables."""

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from math import asin, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from intervene_examples import Warehouse
from scipy import stats
from sklearn.linear_model import LinearRegression

from intervene.experiments.assignments import assign, assignments, registered
from intervene.experiments.campaigns import (
    Arm,
    Audience,
    Campaign,
    CampaignError,
    Candidate,
    fits,
    parse_campaigns,
    what_changed,
)
from intervene.experiments.power import (
    FEWEST_PAST,
    Hopeless,
    describe,
    expect,
    explained_share,
    make_plan,
    past_audience,
    smallest_effect,
    students_needed,
)
from intervene.store import campaign_assignments, message_events, messages, open_store
from ml.settings import PROJECT_ROOT

DAY = date(2026, 3, 4)
NOW = datetime(2026, 3, 4, 8, tzinfo=UTC)
EXAMPLE = PROJECT_ROOT / "intervene/experiments/campaigns.example.toml"
DECLARED = """
[[campaign]]
name = "spring"
start = 2026-03-01
end = 2026-06-01
minimum_detectable_effect = 0.1
base_rate = 0.4
allow_underpowered = true
[[campaign.arms]]
name = "control"
message = false
[[campaign.arms]]
name = "email"
tone = "urgent"
channel = "email"
"""


def make_campaign(name: str = "spring", **changes) -> Campaign:
    values = {
        "name": name,
        "start": date(2026, 3, 1),
        "end": date(2026, 6, 1),
        "arms": [Arm(name="control", message=False), Arm(name="email")],
        "minimum_detectable_effect": 0.1,
    }
    return Campaign(**(values | changes))


def make_student(student_id: str = "s1", **changes) -> Candidate:
    values = {
        "student_id": student_id,
        "course_id": "c1",
        "course_run_id": "r1",
        "assessment_id": "a1",
        "assessment_kind": "exam",
        "due_at": datetime(2026, 3, 14, 12),
        "as_of_date": DAY,
        "lead_days": 10,
        "risk_score": 0.4,
        "risk_band": "high",
        "engagement_zone": "warning",
        "flag_policy": "capacity",
        "run_id": "m",
        "locale": "en",
        "has_opted_out": False,
    }
    return Candidate(**(values | changes))


def declare(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Path:
    path = folder / "campaigns.toml"
    path.write_text(text)
    monkeypatch.setenv("CAMPAIGNS", str(path))
    return path


# ---------------------------------------------------------------- declarations


def test_the_example_is_a_campaign_with_the_documented_defaults() -> None:
    [campaign] = parse_campaigns(EXAMPLE)
    assert campaign.control.name == "control"
    assert [arm.name for arm in campaign.treatments] == ["supportive"]
    left_out = {"minimum_detectable_effect": 0.08, "arms": campaign.arms}
    default = Campaign(name="x", start=campaign.start, end=campaign.end, **left_out)
    for field in ("metric", "power", "alpha", "guardrails", "allow_underpowered"):
        assert getattr(campaign, field) == getattr(default, field)


def test_all_mistakes_are_told_at_once_with_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "campaigns.toml"
    path.write_text(
        """
        other = 1
        [[campaign]]
        name = "Spring Term"
        start = "soon"
        minimum_detectable_effect = 1.5
        metric = "grades"
        colour = "blue"
        audience = {risk_bands = ["extreme"], locales = ["xx"], min_lead_days = -1}
        [[campaign.arms]]
        name = "control"
        message = "no"
        [[campaign.arms]]
        name = "shout"
        tone = "loud"
        weight = 0
        [[campaign]]
        name = "twice"
        start = 2026-03-01
        end = 2026-02-01
        minimum_detectable_effect = 0.1
        metric = "studied_within_14_days"
        arms = [{name = "a"}, {name = "a"}]
        [[campaign]]
        name = "twice"
        start = 2026-03-01
        minimum_detectable_effect = 0.1
        arms = [{name = "c", message = false, tone = "urgent"}, {name = "b"}]
        [[campaign]]
        name = "nobody"
        audience = {risk_bands = [], min_risk = 0.9, max_risk = 0.1}
        [[campaign]]
        name = "early-alert"
        start = 2026-03-01
        minimum_detectable_effect = 0.1
        arms = [{name = "c", message = false}, {name = "b"}]
        """
    )
    with pytest.raises(CampaignError) as error:
        parse_campaigns(path)
    told = str(error.value)
    for line in (
        "other: unknown",
        "campaign 1 (Spring Term): name='Spring Term': use lowercase letters",
        "campaign 1 (Spring Term): start='soon': use a day",
        "minimum_detectable_effect=1.5: use a difference in rates",
        "metric='grades': use one of at_risk, studied_within_14_days",
        "colour: there is no such field",
        "audience.risk_bands.0='extreme': use a list of high, medium, low",
        "audience.locales: use a list of",
        "audience.min_lead_days=-1: use a whole number",
        "arms.0.message='no': use true or false",
        "arms.1.tone='loud': use one of supportive",
        "arms.1.weight=0: use a number above 0",
        "campaign 2 (twice): the campaign: end 2026-02-01 is not after start",
        "each with a name of its own",
        "exactly one is the control",
        "metric studied_within_14_days needs base_rate",
        "campaign 3 (twice): arms.0: an arm without a message has no tone",
        "name 'twice' is declared 2 times",
        "audience: risk_bands is empty: name some",
        "min_risk 0.9 is above max_risk 0.1",
        "name early-alert is that of drafts without a campaign",
    ):
        assert line in told, line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[campaign]", "is not TOML"),
        ("campaign = 1", "begin with [[campaign]]"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, text, words) -> None:
    path = tmp_path / "campaigns.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CampaignError, match="CAMPAIGNS=") as error:
        parse_campaigns(path)
    assert words in str(error.value)


def test_a_design_survives_the_store_and_tells_what_changed() -> None:
    campaign = make_campaign(audience=Audience(risk_bands=["high"]))
    assert Campaign.from_design(campaign.design) == campaign
    other = make_campaign(
        end=date(2026, 7, 1),
        arms=[Arm(name="control", message=False), Arm(name="email", tone="urgent")],
    )
    assert what_changed(campaign.design, other.design) == [
        'arms[email].tone: nothing -> "urgent"',
        'audience.risk_bands: ["high"] -> nothing',
        'end: "2026-06-01" -> "2026-07-01"',
    ]
    allowed = campaign.model_copy(update={"allow_underpowered": True})
    assert allowed.design_hash == campaign.design_hash


@pytest.mark.parametrize(
    ("audience", "change"),
    [
        (Audience(course_ids=["c1"]), {"course_id": "c2"}),
        (Audience(assessment_kinds=["exam"]), {"assessment_kind": "quiz"}),
        (Audience(engagement_zones=["warning"]), {"engagement_zone": None}),
        (Audience(risk_bands=["high"]), {"risk_band": None}),
        (Audience(locales=["en"]), {"locale": "nb"}),
        (Audience(min_lead_days=10), {"lead_days": 9}),
        (Audience(max_lead_days=10), {"lead_days": 11}),
        (Audience(min_risk=0.4), {"risk_score": 0.399}),
        (Audience(max_risk=0.4), {"risk_score": None}),
        (Audience(), {"has_opted_out": True}),
    ],
)
def test_each_condition_of_an_audience_keeps_somebody_out(audience, change) -> None:
    student = make_student()
    assert fits(audience, student)
    assert not fits(audience, replace(student, **change))


# ---------------------------------------------------------------- the draw


def test_an_arm_is_the_same_everywhere_and_for_ever() -> None:
    """Pinned: another hash would move students of running campaigns."""
    campaign = make_campaign()
    drawn = [campaign.draw("sample", f"s{number}").name for number in range(8)]
    assert drawn == ("control email email email control control email email").split()
    assert campaign.draw("sample", "s1") == campaign.draw("sample", "s1")


def test_arms_get_their_shares_and_campaigns_are_independent() -> None:
    arms = [
        Arm(name="control", message=False, weight=1),
        Arm(name="a", weight=2),
        Arm(name="b", weight=1),
    ]
    first, second = make_campaign("one", arms=arms), make_campaign("two", arms=arms)
    pairs = Counter(
        (first.draw("sample", f"s{n}").name, second.draw("sample", f"s{n}").name)
        for n in range(4000)
    )
    counts = Counter()
    for (arm, _), count in pairs.items():
        counts[arm] += count
    shares = [counts[name] for name in ("control", "a", "b")]
    assert stats.chisquare(shares, [1000, 2000, 1000]).pvalue > 0.001
    table = pd.Series(pairs).unstack()
    assert stats.chi2_contingency(table).pvalue > 0.001
    other = [first.draw("oulad", f"s{n}").name for n in range(100)]
    assert other != [first.draw("sample", f"s{n}").name for n in range(100)]


def test_who_is_in_a_campaign_stays_there(store_url: str) -> None:
    """On SQLite and PostgreSQL: another day, another sitting, a full campaign."""
    campaign, later = make_campaign(), make_campaign("later")
    students = [make_student(f"s{n}") for n in range(20)]
    with open_store(store_url) as store:
        first = assign(store, [campaign], students, {"spring": 20}, "sample", NOW)
        assert len(first.places) == sum(first.new.values()) == 20
        another = [
            replace(s, as_of_date=date(2026, 5, 1), assessment_id="a2", due_at=None)
            for s in students
        ]
        # The plan of today does not matter any more, nor does the order of the file.
        again = assign(
            store, [later, campaign], another, {"later": 99, "spring": 1}, "sample", NOW
        )
        assert again.places == first.places
        assert not again.new
        more = [make_student("new")]
        full = assign(store, [campaign], more, {"spring": 99}, "sample", NOW)
        assert full.places == {}
        rows = assignments(store, "sample")
        assert len(rows) == 20
        assert rows[0]["assessment_id"] == "a1"
        assert rows[0]["risk_score"] == 0.4
        assert {row["design_hash"] for row in rows} == {campaign.design_hash}
        [begun] = registered(store, "sample").values()
        assert json.loads(begun["design"])["name"] == "spring"
        # The same ids elsewhere are other students.
        assert assign(store, [], students, {}, "oulad", NOW).places == {}


def test_a_campaign_that_is_over_holds_until_the_sitting_is(store_url: str) -> None:
    campaign = make_campaign(end=date(2026, 3, 5))
    after = make_campaign("after", start=date(2026, 3, 5))
    student = make_student()
    later = replace(student, as_of_date=date(2026, 3, 10), assessment_id="a2")
    with open_store(store_url) as store:
        assign(store, [campaign], [student], {"spring": 9}, "sample", NOW)
        held = assign(store, [after], [later], {"after": 9}, "sample", NOW)
        assert held.places["s1"].campaign.name == "spring"
        free = replace(later, as_of_date=date(2026, 3, 15))
        moved = assign(store, [after], [free], {"after": 9}, "sample", NOW)
        assert moved.places["s1"].campaign.name == "after"


def test_days_of_study_that_count_are_held_to_their_end(store_url: str) -> None:
    """The sitting is over on 14 March, the days that count on the 17th."""
    ends = {"end": date(2026, 3, 5)}
    campaign = make_campaign(**ends, metric="studied_within_14_days", base_rate=0.4)
    after = make_campaign("after", start=date(2026, 3, 5))
    student = make_student()
    with open_store(store_url) as store:
        assign(store, [campaign], [student], {"spring": 9}, "sample", NOW)
        for day, name in ((17, "spring"), (18, "after")):
            later = replace(student, as_of_date=date(2026, 3, day), assessment_id="a2")
            found = assign(store, [after], [later], {"after": 9}, "sample", NOW)
            assert found.places["s1"].campaign.name == name


def test_the_order_of_the_arms_in_the_file_changes_no_draw(store_url: str) -> None:
    campaign = make_campaign()
    turned = make_campaign(arms=campaign.arms[::-1])
    students = [make_student(f"s{number}") for number in range(30)]
    with open_store(store_url) as store:
        assign(store, [campaign], students[:1], {"spring": 30}, "sample", NOW)
        found = assign(store, [turned], students, {}, "sample", NOW)
        assert {s: place.arm for s, place in found.places.items()} == {
            s.student_id: campaign.draw("sample", s.student_id).name for s in students
        }
        hashes = {row["design_hash"] for row in assignments(store, "sample")}
        assert hashes == {campaign.design_hash}


def test_the_first_campaign_of_the_file_has_the_first_choice(store_url: str) -> None:
    exams = make_campaign("exams", audience=Audience(assessment_kinds=["exam"]))
    others = make_campaign("others")
    not_yet = make_campaign("not-yet", start=date(2026, 3, 5))
    students = [make_student("exam"), make_student("quiz", assessment_kind="quiz")]
    planned = {"exams": 9, "others": 9, "not-yet": 9}
    with open_store(store_url) as store:
        found = assign(
            store, [not_yet, exams, others], students, planned, "sample", NOW
        )
        assert {s: p.campaign.name for s, p in found.places.items()} == {
            "exam": "exams",
            "quiz": "others",
        }


def test_what_was_drawn_cannot_be_changed(store_url: str) -> None:
    with open_store(store_url) as store:
        assign(store, [make_campaign()], [make_student()], {"spring": 9}, "sample", NOW)
        for statement in (
            sa.update(campaign_assignments).values(arm="email"),
            sa.delete(campaign_assignments),
        ):
            with (
                pytest.raises(sa.exc.DBAPIError, match="append-only"),
                store.writing() as connection,
            ):
                connection.execute(statement)


# ---------------------------------------------------------------- drafting


def drafted(warehouse: Warehouse) -> dict[str, tuple[str, str, str]]:
    rows = warehouse.run(
        "select student_id, campaign, tone, channel from intervene.messages"
    )
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


def arms_in(warehouse: Warehouse) -> dict[str, str]:
    rows = warehouse.run("select student_id, arm from intervene.campaign_assignments")
    return dict(rows)


def test_arms_are_drawn_before_drafting_and_the_control_gets_nothing(
    warehouse, run, monkeypatch, tmp_path
) -> None:
    path = declare(monkeypatch, tmp_path, DECLARED)
    for number in range(30):
        warehouse.flag(f"s{number}", risk_score=0.5, lead_days=10)
    warehouse.contact("s0", opted_out_at=datetime(2026, 1, 1))
    outcome = run("draft")
    assert outcome.code == 0, outcome.err
    arms = arms_in(warehouse)
    counts = Counter(arms.values())
    assert sum(counts.values()) == 29 and "s0" not in arms
    assert f"assigned:      {counts['control']} to control of spring" in outcome.out
    assert f"skipped:       {counts['control']} (control of spring)" in outcome.out
    assert drafted(warehouse) == {
        student: ("spring", "urgent", "email")
        for student, arm in arms.items()
        if arm == "email"
    }
    # Whatever is asked for afterwards, with and without the file.
    for command in (["draft"], ["draft", "--campaign", "else", "--tone", "supportive"]):
        again = run(*command)
        assert again.code == 0, again.err
        assert "drafted:       0" in again.out
    path.unlink()
    monkeypatch.setenv("CAMPAIGNS", "")
    assert "drafted:       0" in run("draft").out
    assert arms_in(warehouse) == arms


def test_students_outside_of_campaigns_are_drafted_for_as_before(
    warehouse, run, monkeypatch, tmp_path
) -> None:
    declare(
        monkeypatch, tmp_path, DECLARED + '[campaign.audience]\nrisk_bands = ["high"]\n'
    )
    for number in range(10):
        band = "high" if number < 5 else "low"
        warehouse.flag(f"s{number}", risk_band=band, risk_score=0.4)
    assert run("draft", "--campaign", "spring").code == 0
    assert set(drafted(warehouse)) == {
        student for student, arm in arms_in(warehouse).items() if arm == "email"
    }
    assert run("draft").code == 0
    usual = {s for s, row in drafted(warehouse).items() if row[0] == "early-alert"}
    assert usual == {f"s{number}" for number in range(5, 10)}


def test_who_was_written_to_about_the_sitting_is_not_assigned(
    warehouse, run, monkeypatch, tmp_path
) -> None:
    warehouse.flag("s1")
    assert run("draft").code == 0
    declare(monkeypatch, tmp_path, DECLARED)
    warehouse.flag("s2")
    assert run("draft").code == 0
    assert set(arms_in(warehouse)) == {"s2"}


def test_a_changed_design_is_refused_with_what_changed(
    warehouse, run, monkeypatch, tmp_path
) -> None:
    declare(monkeypatch, tmp_path, DECLARED)
    warehouse.flag("s1")
    assert run("draft").code == 0
    declare(monkeypatch, tmp_path, DECLARED.replace("urgent", "supportive"))
    for command in ("draft", "campaigns"):
        outcome = run(command)
        assert outcome.code == 1
        assert 'spring: arms[email].tone: "urgent" -> "supportive"' in outcome.err
        assert "another name" in outcome.err


def test_estimating_assigns_nobody(warehouse, run, monkeypatch, tmp_path) -> None:
    declare(monkeypatch, tmp_path, DECLARED)
    warehouse.flag("s1")
    assert run("draft", "--estimate").code == 0
    run("sync")
    assert arms_in(warehouse) == {}


def test_a_limit_assigns_fewer_and_plans_the_same(
    warehouse, run, monkeypatch, tmp_path
) -> None:
    declare(monkeypatch, tmp_path, DECLARED)
    for number in range(8):
        warehouse.flag(f"s{number}", flag_rank=number)
    assert run("draft", "--limit", "2").code == 0
    assert set(arms_in(warehouse)) == {"s0", "s1"}
    [planned] = warehouse.run("select planned_students from intervene.campaigns")
    assert planned == (8,)


def test_without_anybody_for_it_a_hopeless_campaign_stops_nothing(
    warehouse, run, monkeypatch, tmp_path
) -> None:
    text = DECLARED.replace("allow_underpowered = true\n", "")
    declare(monkeypatch, tmp_path, text + '[campaign.audience]\nrisk_bands=["high"]\n')
    warehouse.flag("s1", risk_band="low")
    assert run("draft").code == 0
    assert set(drafted(warehouse)) == {"s1"}


def test_options_that_an_arm_decides_are_refused(
    warehouse, run, monkeypatch, tmp_path
) -> None:
    declare(monkeypatch, tmp_path, DECLARED)
    outcome = run("draft", "--campaign", "spring", "--tone", "urgent")
    assert outcome.code == 1
    assert "its arms say tone and channel" in outcome.err


def test_two_at_once_draw_the_same_arms(store_url: str) -> None:
    """Two connections, as two processes have them, each with the students reversed."""
    campaign = make_campaign()
    students = [make_student(f"s{number}") for number in range(60)]
    with open_store(store_url):
        pass

    def draw(order: int) -> dict[str, str]:
        with open_store(store_url) as store:
            found = assign(
                store, [campaign], students[::order], {"spring": 60}, "sample", NOW
            )
        return {student: place.arm for student, place in found.places.items()}

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(draw, [1, -1])
    assert first == second
    with open_store(store_url) as store:
        rows = assignments(store, "sample")
    assert {row["student_id"]: row["arm"] for row in rows} == first
    assert first == {s: campaign.draw("sample", s).name for s in first}


# ---------------------------------------------------------------- power


def test_the_sample_size_of_two_proportions() -> None:
    """0.6 against 0.7 at alpha 0.05 and power 0.8 needs 356 in each of two arms, as
    published tables without continuity correction have it."""
    campaign = make_campaign(metric="studied_within_14_days", base_rate=0.6)
    assert students_needed(0.6, 0.1, campaign) == 2 * 356
    half = students_needed(0.6, 0.1, campaign, explained=0.5)
    assert half == 2 * 178


def test_the_planned_power_is_reached_by_another_librarys_reckoning() -> None:
    """Cohen's effect size h of two arms gives nearly the same power."""
    campaign = make_campaign(power=0.9)
    students = students_needed(0.3, 0.1, campaign)
    h = 2 * asin(sqrt(0.3)) - 2 * asin(sqrt(0.2))
    power = stats.norm.sf(stats.norm.isf(0.025) - h * sqrt(students / 4))
    assert power == pytest.approx(0.9, abs=0.005)


def test_a_small_control_that_varies_more_is_reckoned_with() -> None:
    """A quarter as many in control: the test's own variance gives the power."""
    arms = [Arm(name="control", message=False, weight=1), Arm(name="a", weight=4)]
    students = students_needed(0.3, 0.1, make_campaign(arms=arms))
    error = sqrt(0.3 * 0.7 / (students / 5) + 0.2 * 0.8 / (students * 4 / 5))
    assert stats.norm.sf(stats.norm.isf(0.025) - 0.1 / error) >= 0.8


def test_uneven_and_many_arms_need_more() -> None:
    even = students_needed(0.3, 0.1, make_campaign())
    uneven = [Arm(name="control", message=False, weight=1), Arm(name="a", weight=4)]
    assert students_needed(0.3, 0.1, make_campaign(arms=uneven)) > even
    three = [Arm(name="control", message=False), Arm(name="a"), Arm(name="b")]
    assert students_needed(0.3, 0.1, make_campaign(arms=three)) > even * 1.5


def test_the_smallest_effect_undoes_the_sample_size() -> None:
    campaign = make_campaign()
    students = students_needed(0.3, 0.08, campaign, 0.2)
    assert smallest_effect(0.3, students, campaign, 0.2) == pytest.approx(
        0.08, abs=2e-3
    )
    assert smallest_effect(0.3, 4, campaign) is None
    with pytest.raises(Hopeless, match="cannot change by"):
        students_needed(0.05, 0.1, campaign)


def make_past(count: int = 400, weeks: int = 20) -> pd.DataFrame:
    random = np.random.default_rng(8)
    score = random.random(count)
    return pd.DataFrame(
        {
            "student_id": [f"p{n}" for n in range(count)],
            "course_id": "c1",
            "course_run_id": "r",
            "assessment_id": "a",
            "as_of_date": pd.Timestamp("2025-01-01")
            + pd.to_timedelta(np.arange(count) * weeks * 7 // count, unit="D"),
            "lead_days": 14,
            "contacted_before_due": False,
            "at_risk": (random.random(count) < score).astype(int),
            "risk_score": score,
        }
    )


def test_what_to_expect_comes_from_past_students_of_the_audience() -> None:
    past = make_past()
    past.loc[0, "contacted_before_due"] = True
    later = past.assign(as_of_date=past["as_of_date"] + pd.Timedelta(days=7))
    history = pd.concat([past, later.assign(lead_days=7, at_risk=1)])
    campaign = make_campaign(audience=Audience(engagement_zones=["warning"]))
    today = [
        make_student("t1", risk_score=0.5),
        make_student("t2", risk_score=0.7),
        make_student("t3", risk_score=0.6, engagement_zone="safe"),
        make_student("t4", risk_score=0.01, flag_policy="dormant"),
    ]
    found = expect(campaign, today, history, 0.9, None)
    alike = past[(past["risk_score"] >= 0.01) & ~past["contacted_before_due"]]
    alike = alike[alike["risk_score"] >= 0.5]
    assert found.past == len(alike)
    assert found.base_rate == pytest.approx(alike["at_risk"].mean())
    assert found.explained == pytest.approx(
        explained_share(
            alike["at_risk"].to_numpy(float), alike["risk_score"].to_numpy(float)
        )
    )
    assert found.now == 3
    assert found.per_week == pytest.approx(0.75 * len(alike) / 20, rel=0.06)
    assert expect(campaign, today, history, 0.9, 2).per_week == pytest.approx(1.5)
    few = expect(campaign, today, history.head(FEWEST_PAST - 1), 0.9, None)
    assert few.explained == 0
    assert few.base_rate == pytest.approx((0.5 + 0.7 + 0.01) / 3)
    only = past_audience(Audience(max_lead_days=7), [], history)
    assert set(only["lead_days"]) == {7}


def test_a_hopeless_campaign_says_what_would_do() -> None:
    campaign = make_campaign(end=date(2026, 4, 1))
    expected = expect(campaign, [make_student()], make_past(), 0.8, None)
    plan = make_plan(campaign, expected, DAY)
    assert plan.is_hopeless
    told = describe(plan)
    assert f"{plan.needed:,} students (last" in told
    assert plan.detectable and plan.detectable > 0.1
    assert "look for an effect of 0." in told
    unadjusted = students_needed(expected.base_rate, 0.1, campaign, expected.explained)
    assert plan.needed == pytest.approx(unadjusted / 0.8, abs=1)
    assert make_plan(campaign, expected, campaign.end).reachable == 0
    enough = make_campaign(end=date(2027, 7, 1))
    assert not make_plan(enough, expected, DAY).is_hopeless
    with pytest.raises(Hopeless, match="Declare base_rate"):
        make_plan(campaign, replace(expected, base_rate=None), DAY)


def test_a_hopeless_campaign_does_not_start_unless_told_to(
    warehouse, run, monkeypatch, tmp_path
) -> None:
    text = DECLARED.replace("allow_underpowered = true\n", "")
    declare(monkeypatch, tmp_path, text)
    warehouse.flag("s1")
    shown = run("campaigns")
    assert shown.code == 1
    assert "HOPELESS" in shown.out
    assert "Hopeless as declared: spring" in shown.err
    refused = run("draft")
    assert refused.code == 1
    assert "What would do: 712 students" in refused.err.replace(",", "")
    run("sync")
    assert arms_in(warehouse) == {}
    assert warehouse.run("select count(*) from intervene.messages") == [(0,)]
    declare(monkeypatch, tmp_path, DECLARED)
    assert run("draft").code == 0
    # Once begun it is not asked again.
    assert "spring: begun, 1" in run("campaigns").out
    assert run("draft").code == 0


def test_no_campaigns_file_is_no_campaign(warehouse, run) -> None:
    outcome = run("campaigns")
    assert outcome.code == 0, outcome.err
    assert "No campaign is declared" in outcome.out


# ---------------------------------------------------------------- a whole experiment


STUDENTS = 400


def simulate_term(warehouse: Warehouse, saved: float) -> None:
    """What dbt would find months later; a message saves with probability `saved`."""
    for sql in (
        "create schema if not exists intermediate",
        "create table intermediate.int_calendar as"
        " select date '2026-12-01' as data_until",
        "create table intermediate.int_daily_activity as select 's1' as student_id,"
        " date '2026-03-05' as activity_date, 2 as facts, 0 as sessions",
        f"""
        create table student_targets as
        select
            student_id, course_id, course_run_id, assessment_id,
            as_of_date - 4 as as_of_date,
            case
                when arm = 'email' and hash(student_id, 1) % 1000 < {saved * 1000}
                    then 0
                when hash(student_id, 2) % 1000 < risk_score * 1000 then 1
                else 0
            end as at_risk,
            'matured' as label_status,
            timestamp '2026-07-01' as label_known_at
        from intervene.campaign_assignments""",
        "update pipeline_settings set data_until = date '2026-12-01'",
    ):
        warehouse.run(sql)


def send_everything(store_url: str) -> None:
    """Approve and send all drafts, as advisors and the sender would."""
    with open_store(store_url) as store, store.writing() as connection:
        ids = connection.execute(sa.select(messages.c.message_id)).scalars().all()
        for number, event in enumerate(("approved", "scheduled", "sent"), start=4):
            rows = [
                {
                    "message_id": message_id,
                    "sequence": number,
                    "event": event,
                    "actor": "ola",
                    "happened_at": datetime(2026, 3, 5, 9),
                }
                for message_id in ids
            ]
            connection.execute(sa.insert(message_events), rows)


def build_marts(warehouse: Warehouse, folder: Path) -> None:
    """The two models of dbt, on the tables that are there."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("dbt"), "run",
            "--select", "experiment_exposure", "experiment_outcomes",
            "--target-path", folder / "target", "--log-path", folder / "logs",
        ],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_planted_effect_is_found_by_the_commands_and_by_another_library(
    warehouse, run, monkeypatch, tmp_path
) -> None:
    text = DECLARED.replace("allow_underpowered = true\n", "")
    declare(monkeypatch, tmp_path, text.replace("effect = 0.1", "effect = 0.15"))
    warehouse.run(
        "insert into flagged_students (student_id, course_id, course_run_id,"
        " course_title, assessment_id, assessment_title, assessment_kind, as_of_date,"
        " due_at, lead_days, risk_score, risk_band, engagement_zone, flag_rank,"
        " student_reason_1)"
        " select 's' || n, 'c' || n % 2, 'r1', 'Linear algebra', 'a1', 'Final exam',"
        " 'exam', date '2026-03-04', timestamp '2026-03-14 12:00', 10,"
        " (n * 37 % 100) / 100.0, 'high', 'warning', n, 'You have not begun.'"
        f" from range({STUDENTS}) as t(n)"
    )
    assert run("draft").code == 0
    send_everything(f"sqlite:///{tmp_path}/store.sqlite")
    assert run("sync").code == 0
    simulate_term(warehouse, saved=0.5)
    early = run("campaigns", "--analyse")
    assert early.code == 1
    assert "no table experiment_outcomes" in early.err
    build_marts(warehouse, tmp_path)
    outcome = run("campaigns", "--analyse")
    assert outcome.code == 0, outcome.err
    assert "email against control, at_risk: helped." in outcome.out

    # The same from the raw tables, by scikit-learn and SciPy.
    raw = pd.DataFrame(
        warehouse.run(
            "select arm = 'email', risk_score, at_risk"
            " from intervene.campaign_assignments inner join student_targets"
            " using (student_id, course_run_id, assessment_id)"
        ),
        columns=["in_arm", "score", "failed"],
    )
    model = LinearRegression().fit(raw[["score"]], raw["failed"])
    left = raw["failed"] - model.predict(raw[["score"]])
    side = raw["in_arm"]
    test = stats.ttest_ind(left[side], left[~side], equal_var=False)
    interval = test.confidence_interval(0.95)
    [row] = warehouse.run(
        "select estimate, ci_low, ci_high, p_value, students, students_control"
        " from intervene.experiment_effects where role = 'primary'"
    )
    expected = (
        left[side].mean() - left[~side].mean(), interval.low, interval.high,
        test.pvalue, side.sum(), (~side).sum(),
    )  # fmt: skip
    assert row == pytest.approx(expected, rel=1e-9)

    before = warehouse.run("select * from intervene.experiment_effects order by all")
    assert run("campaigns", "--analyse").code == 0
    again = warehouse.run("select * from intervene.experiment_effects order by all")
    assert again == before
    warehouse.run("delete from experiment_outcomes where student_id = 's1'")
    stale = run("campaigns", "--analyse")
    assert stale.code == 1
    assert "dbt build --select source:intervene+" in stale.err
