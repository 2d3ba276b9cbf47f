"""Experiments on students whose true effect is known: are the intervals right?

Students are drawn from the flagged part of the sample's test period, with the risk
score and the outcome that they really had. Arms are drawn by the code that drafting
calls, effects by the code of `python -m intervene campaigns --analyse`. Where an
effect is planted, a message turns a failure into a pass with a fixed probability.

`BENCH_WAREHOUSE` names a warehouse that is trained already; else one is made.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from intervene.experiments.analysis import Evidence, read_evidence
from intervene.experiments.assignments import assign
from intervene.experiments.campaigns import Arm, Audience, Campaign, Candidate
from intervene.experiments.effects import Experiment, analyse
from intervene.experiments.power import expect, make_plan, past_audience
from intervene.store import Store, open_store
from ml.warehouse import open_warehouse

SIMULATIONS = int(os.environ.get("BENCH_SIMULATIONS", "1000"))
SEED = 20260304
EFFECT = 0.10
SCORED = date(2026, 1, 1)
OVER = date(2027, 6, 1)
# Three in a thousand runs of a right method fall outside (3 standard errors).
BOUND = 3 * (0.05 * 0.95 / SIMULATIONS) ** 0.5

pytestmark = pytest.mark.bench


@dataclass(frozen=True)
class Ground:
    """The sample's flagged students, and what the power calculator says of them."""

    past: pd.DataFrame
    evidence: Evidence
    campaign: Campaign
    students: int


def make_campaign(name: str, *weights: float) -> Campaign:
    """A control and as many arms with messages as there are further weights."""
    arms = [
        Arm(name=f"arm-{number}" if number else "control", weight=weight,
            message=number > 0)
        for number, weight in enumerate(weights)
    ]  # fmt: skip
    return Campaign(
        name=name, start=SCORED, end=date(2027, 1, 1), arms=arms,
        minimum_detectable_effect=EFFECT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest) -> Ground:
    given = os.environ.get("BENCH_WAREHOUSE")
    if not given:
        request.getfixturevalue("made")
        given = str(request.getfixturevalue("clone") / "data" / "warehouse.duckdb")
    with open_warehouse(Path(given), read_only=True) as connection:
        evidence = read_evidence(connection, {})
    campaign = make_campaign("base", 1, 1)
    past = past_audience(Audience(), evidence.candidates, evidence.history)
    expected = expect(campaign, evidence.candidates, evidence.history, 1.0, None)
    plan = make_plan(campaign, expected, SCORED)
    return Ground(past.reset_index(drop=True), evidence, campaign, plan.needed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path_factory.mktemp('bench')}/s.sqlite") as store:
        yield store


def draw_students(past: pd.DataFrame, count: int, random: np.random.Generator):
    """Flagged students like those of the past, and the outcome without a message."""
    rows = past.iloc[random.integers(0, len(past), count)]
    students = [
        Candidate(
            student_id=f"s{number}",
            course_id=row.course_id,
            course_run_id=row.course_run_id,
            assessment_id=row.assessment_id,
            assessment_kind="exam",
            due_at=datetime(2026, 1, 15),
            as_of_date=SCORED,
            lead_days=int(row.lead_days),
            risk_score=None if np.isnan(row.risk_score) else float(row.risk_score),
            risk_band="high" if row.risk_score > 0.3 else "medium",
            engagement_zone="warning",
            flag_policy="capacity",
            run_id="m",
            locale="en",
            has_opted_out=False,
        )
        for number, row in enumerate(rows.itertuples())
    ]
    return students, rows["at_risk"].to_numpy(int)


def simulate(
    ground: Ground,
    store: Store,
    campaign: Campaign,
    saved: float,
    random: np.random.Generator,
) -> pd.DataFrame:
    """One campaign, from flags to `experiment_effects`.

    Parameters
    ----------
    saved
        Probability that a message turns a failure into a pass.
    """
    students, outcome = draw_students(ground.past, ground.students, random)
    assigned = assign(
        store, [campaign], students, {campaign.name: len(students)}, "sample",
        datetime.now(UTC), keep=False,
    )  # fmt: skip
    arms = [assigned.places[student.student_id].arm for student in students]
    written_to = np.array([arm != "control" for arm in arms])
    outcome = outcome * ~(written_to & (random.random(len(outcome)) < saved))
    rows = pd.DataFrame(
        {
            "student_id": [student.student_id for student in students],
            "arm": arms,
            "risk_score": pd.array([s.risk_score for s in students], dtype="Float64"),
            "risk_band": [student.risk_band for student in students],
            "engagement_zone": "warning",
            "lead_band": "8-14",
            "course_id": [student.course_id for student in students],
            "at_risk": outcome,
            "outcome_status": "matured",
            "messages_sent": written_to.astype(int),
            "opted_out": False,
            "complained": False,
        }
    )
    return analyse(Experiment(campaign, len(rows), rows, OVER, 5.0, 200.0))


Weights = tuple[float, ...]


@pytest.fixture(scope="module")
def primaries(ground: Ground, store: Store) -> Callable[[Weights, float], pd.DataFrame]:
    """The main effects of many campaigns of one kind."""

    def run(weights: Weights, saved: float) -> pd.DataFrame:
        random = np.random.default_rng(SEED)
        found = []
        for number in range(SIMULATIONS):
            campaign = make_campaign(f"simulation-{number}", *weights)
            effects = simulate(ground, store, campaign, saved, random)
            worth = effects[effects["metric"] == "gain_per_student"]
            rows = effects[effects["role"] == "primary"].merge(
                worth[["arm", "ci_low", "ci_high"]], on="arm", suffixes=("", "_gain")
            )
            found.append(rows.assign(simulation=number))
        return pd.concat(found, ignore_index=True)

    return run


def coverage(rows: pd.DataFrame, truth: float, suffix: str = "") -> float:
    inside = (rows[f"ci_low{suffix}"] <= truth) & (truth <= rows[f"ci_high{suffix}"])
    return float(inside.mean())


def false_positives(rows: pd.DataFrame) -> float:
    """Share of campaigns in which any arm is said to have done something."""
    wrong = rows["verdict"].isin(["helped", "harmed"])
    return float(wrong.groupby(rows["simulation"]).any().mean())


def test_with_no_effect_intervals_hold_zero_and_few_campaigns_find_one(
    ground: Ground, primaries, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = primaries((1, 1), 0.0)
    held, wrong = coverage(rows, 0.0), false_positives(rows)
    reduction = rows["variance_reduction"].mean()
    with capsys.disabled():
        print(
            f"\nno effect, {SIMULATIONS} campaigns of {ground.students} students:"
            f" coverage {held:.3f}, false positives {wrong:.3f},"
            f" variance reduction {reduction:.3f}"
        )
    assert abs(held - 0.95) < BOUND
    assert wrong < 0.05 + BOUND
    assert reduction > 0
    # The sample-ratio check is wrong once in a thousand.
    assert (rows["verdict"] == "invalid").mean() < 0.005


def test_a_planted_effect_is_held_by_the_intervals_and_found_as_often_as_planned(
    ground: Ground, primaries, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = ground.past["at_risk"].mean()
    rows = primaries((1, 1), EFFECT / rate)
    held = coverage(rows, -EFFECT)
    gain = coverage(rows, EFFECT * 200 - 5, "_gain")
    found = (rows["verdict"] == "helped").mean()
    bias = rows["estimate"].mean() + EFFECT
    with capsys.disabled():
        print(
            f"\nplanted {-EFFECT}, {SIMULATIONS} campaigns of {ground.students}"
            f" students: coverage {held:.3f} (gain {gain:.3f}), found {found:.3f},"
            f" bias {bias:+.4f}"
        )
    assert abs(held - 0.95) < BOUND
    assert abs(gain - 0.95) < BOUND
    assert abs(bias) < 4 * rows["estimate"].std() / SIMULATIONS**0.5
    assert found > 0.8 - 3 * (0.8 * 0.2 / SIMULATIONS) ** 0.5
    assert not (rows["verdict"] == "harmed").any()


def test_of_several_arms_without_effect_hardly_any_campaign_finds_one(
    ground: Ground, primaries, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = primaries((2, 1, 1, 1), 0.0)
    held, wrong = coverage(rows, 0.0), false_positives(rows)
    with capsys.disabled():
        print(f"\nthree arms, no effect: coverage {held:.3f}, any found {wrong:.3f}")
    # The three estimates of a campaign share its control.
    assert abs(held - 0.95) < BOUND
    assert wrong < 0.05 + BOUND


def test_missing_scores_and_a_useless_score_do_not_spoil_the_intervals(
    ground: Ground, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(SEED)
    past = ground.past.copy()
    past["risk_score"] = random.random(len(past))
    past.loc[::3, "risk_score"] = np.nan
    shuffled = replace(ground, past=past)
    rows = pd.concat(
        [
            simulate(shuffled, store, make_campaign(f"u-{n}", 1, 1), 0.0, random)
            for n in range(SIMULATIONS)
        ]
    )
    rows = rows[rows["role"] == "primary"]
    held = coverage(rows, 0.0)
    with capsys.disabled():
        print(f"\nuseless score, a third missing: coverage {held:.3f}")
    assert abs(held - 0.95) < BOUND
