"""How many students a campaign needs, and whether it can get them.

The sample size is that of two proportions (Fleiss, Levin and Paik 2003, Statistical
Methods for Rates and Proportions, equation 4.14, without the continuity correction),
times what CUPED leaves of the variance (Deng et al. 2013). What is expected comes
from past questions on which the model was judged, so from later time than it was
trained on, and without the students who were written to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
import pandas as pd

from intervene.experiments.campaigns import Audience, Campaign, Candidate, fits
from ml.settings import UserError

# Fewer past sittings than this say nothing about a rate.
FEWEST_PAST = 50
SMALLEST_STEP = 1e-5
DAYS_OF_A_WEEK = 7
SITTING = ["student_id", "course_run_id", "assessment_id"]


class Hopeless(UserError):
    """A campaign could not find what it looks for, whatever is true."""


@dataclass(frozen=True)
class Expectation:
    """What is expected of a campaign's students.

    Attributes
    ----------
    base_rate
        Rate of the metric without a message, 0 to 1; None where nothing says.
    explained
        R² of the outcome on the risk score: the share of the variance that CUPED
        takes away.
    observed
        Share of assigned students whose outcome becomes known.
    now
        Students who would enter today.
    per_week
        Further students that enter in a week.
    past
        Past sittings that this is from.
    """

    base_rate: float | None
    explained: float
    observed: float
    now: int
    per_week: float
    past: int


@dataclass(frozen=True)
class Plan:
    """What a campaign needs against what it can get.

    `needed` and `reachable` count students over all arms; `detectable` is the smallest
    effect that `reachable` students can show, None where there is none.
    """

    campaign: Campaign
    expected: Expectation
    needed: int
    reachable: int
    weeks: float
    detectable: float | None

    @property
    def is_hopeless(self) -> bool:
        """Whether the campaign ends before it has the students it needs."""
        return self.needed > self.reachable

    @property
    def planned(self) -> int:
        """Students after which nobody is assigned any more."""
        return max(1, min(self.needed, self.reachable))


def students_needed(
    rate: float, effect: float, campaign: Campaign, explained: float = 0.0
) -> int:
    """Students over all arms that show an effect with the campaign's power.

    Parameters
    ----------
    rate
        The control's rate of the metric, 0 to 1.
    effect
        Absolute difference to find, in the direction that helps.
    explained
        R² of the outcome on the covariate, 0 to below 1.

    Returns
    -------
    int
        The largest of the pairs of control and treatment decides. With several
        treatments alpha is divided by their number (Bonferroni, which Holm's
        correction never falls behind).

    Raises
    ------
    Hopeless
        The rate cannot change by so much.
    """
    other = rate - effect if campaign.lower_is_better else rate + effect
    if not 0 < rate < 1 or not 0 <= other <= 1:
        raise Hopeless(
            f"Campaign {campaign.name}: a rate of {rate:.3f} cannot change by "
            f"{effect:.3f}. Use a smaller minimum_detectable_effect."
        )
    quantile = NormalDist().inv_cdf
    significance = quantile(1 - campaign.alpha / len(campaign.treatments) / 2)
    power = quantile(campaign.power)
    control = campaign.share(campaign.control)
    totals = []
    for arm in campaign.treatments:
        ratio = campaign.share(arm) / control
        mean = (rate + ratio * other) / (1 + ratio)
        pooled = (1 + 1 / ratio) * mean * (1 - mean)
        separate = rate * (1 - rate) + other * (1 - other) / ratio
        # The effect's test does not pool: where the smaller arm varies more, pooling
        # would promise too much.
        chance = significance * sqrt(max(pooled, separate))
        spread = (chance + power * sqrt(separate)) / effect
        in_control = (1 - explained) * spread**2
        totals.append(ceil(in_control) / control)
    return ceil(max(totals))


def smallest_effect(
    rate: float, students: int, campaign: Campaign, explained: float = 0.0
) -> float | None:
    """The smallest effect that so many students show; None where there is none."""
    largest = (rate if campaign.lower_is_better else 1 - rate) * (1 - 1e-9)

    def is_shown(effect: float) -> bool:
        return students_needed(rate, effect, campaign, explained) <= students

    if not is_shown(largest):
        return None
    low, high = 0.0, largest
    while high - low > SMALLEST_STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if is_shown(middle) else (middle, high)
    return high


# ---------------------------------------------------------------- what is expected


def expect(
    campaign: Campaign,
    students: Sequence[Candidate],
    history: pd.DataFrame,
    observed: float,
    capacity: int | None,
) -> Expectation:
    """What to expect of a campaign, from today's flags and the past.

    Parameters
    ----------
    students
        Everybody who is flagged today.
    history
        Rows of `ml.evaluation_predictions` of one run: the columns of SITTING,
        course_id, as_of_date, lead_days, contacted_before_due, at_risk, risk_score.
        Of each sitting the first question within the audience's days counts.
    observed
        Share of past sittings whose outcome became known, above 0.
    capacity
        Most students flagged at once; None for no limit.
    """
    audience = campaign.audience
    today = [student for student in students if fits(audience, student)]
    past = past_audience(audience, today, history)
    enough = len(past) >= FEWEST_PAST
    outcome = past["at_risk"].to_numpy(float)
    measured = campaign.metric == "at_risk"
    return Expectation(
        base_rate=campaign.base_rate
        or (_base_rate(outcome, today, enough) if measured else None),
        explained=(
            explained_share(outcome, past["risk_score"].to_numpy(float))
            if enough and measured
            else 0.0
        ),
        observed=observed if measured else 1.0,
        now=len(today),
        per_week=_per_week(audience, students, today, past, capacity),
        past=len(past),
    )


def past_audience(
    audience: Audience, today: Sequence[Candidate], history: pd.DataFrame
) -> pd.DataFrame:
    """Past sittings like those of the audience, with their first question.

    The past has courses, days and risks, and neither zones nor languages: where
    students are flagged by the model, it is cut at the lowest risk flagged today.
    """
    risks = [
        student.risk_score
        for student in today
        if student.risk_score is not None
        and student.flag_policy in ("capacity", "threshold")
    ]
    lowest = max(min(risks, default=0.0), audience.min_risk or 0.0)
    leads, scores = history["lead_days"], history["risk_score"]
    keep = ~history["contacted_before_due"].astype(bool) & (scores >= lowest)
    keep &= scores <= (1.0 if audience.max_risk is None else audience.max_risk)
    keep &= leads >= (audience.min_lead_days or 0)
    if audience.max_lead_days is not None:
        keep &= leads <= audience.max_lead_days
    if audience.course_ids is not None:
        keep &= history["course_id"].isin(audience.course_ids)
    found = history[keep].sort_values([*SITTING, "as_of_date"])
    return found.drop_duplicates(SITTING)


def explained_share(outcome: np.ndarray, score: np.ndarray) -> float:
    """R² of the outcome on the score; 0 where one of them never varies."""
    if outcome.std() == 0 or score.std() == 0:
        return 0.0
    return float(np.corrcoef(outcome, score)[0, 1] ** 2)


def _base_rate(
    outcome: np.ndarray, today: Sequence[Candidate], enough: bool
) -> float | None:
    if enough:
        return float(outcome.mean())
    # Scores are calibrated, so their mean is the expected rate.
    scores = [s.risk_score for s in today if s.risk_score is not None]
    return float(np.mean(scores)) if scores else None


def _per_week(
    audience: Audience,
    students: Sequence[Candidate],
    today: Sequence[Candidate],
    past: pd.DataFrame,
    capacity: int | None,
) -> float:
    """New students in a week of the past, as far as capacity and audience go."""
    if past.empty:
        return 0.0
    days = pd.to_datetime(past["as_of_date"])
    weeks = max(1.0, ((days.max() - days.min()).days + 1) / DAYS_OF_A_WEEK)
    arriving = past["student_id"].nunique() / weeks
    if capacity is not None:
        arriving = min(arriving, capacity)
    # What the past does not know, today does: the share of the flags that the
    # audience's zones, languages and kinds leave.
    known = audience.model_copy(
        update={"engagement_zones": None, "locales": None, "assessment_kinds": None}
    )
    could = sum(fits(known, student) for student in students)
    return arriving * (len(today) / could if could else 1.0)


# ---------------------------------------------------------------- the verdict


def make_plan(campaign: Campaign, expected: Expectation, today: date) -> Plan:
    """What the campaign needs and can get from today, or from its start, to its end.

    Raises
    ------
    Hopeless
        No base rate is known, or the effect is larger than the rate allows.
    """
    rate = expected.base_rate
    if rate is None:
        raise Hopeless(
            f"Campaign {campaign.name}: nothing says how many of its students fail "
            f"without a message ({expected.past:,} past sittings, {FEWEST_PAST} are "
            "needed, and no scores of today). Declare base_rate, or wait for scores."
        )
    needed = students_needed(
        rate, campaign.minimum_detectable_effect, campaign, expected.explained
    )
    needed = ceil(needed / expected.observed)
    days = max(0, (campaign.end - max(today, campaign.start)).days)
    now = expected.now if days else 0
    reachable = int(now + expected.per_week * days / DAYS_OF_A_WEEK)
    wanting = max(0, needed - now)
    weeks = wanting / expected.per_week if expected.per_week else float("inf")
    return Plan(
        campaign=campaign,
        expected=expected,
        needed=needed,
        reachable=reachable,
        weeks=weeks if wanting else 0.0,
        detectable=smallest_effect(
            rate, int(reachable * expected.observed), campaign, expected.explained
        ),
    )


def describe(plan: Plan) -> str:
    """The plan in words, with what would do where it is hopeless."""
    campaign, expected = plan.campaign, plan.expected
    effect = campaign.minimum_detectable_effect
    lines = [
        f"{campaign.name}: {campaign.metric}, {len(campaign.arms)} arms, "
        f"from {campaign.start} to {campaign.end}",
        f"  expected rate  {expected.base_rate:.3f} without a message "
        f"(from {expected.past:,} past sittings)"
        if campaign.base_rate is None
        else f"  expected rate  {expected.base_rate:.3f} without a message (declared)",
        f"  CUPED          takes away {expected.explained:.0%} of the variance",
        f"  eligible       {expected.now:,} today, {expected.per_week:.1f} more a week",
        f"  needed         {plan.needed:,} students to find {effect:.3f} with power "
        f"{campaign.power:.0%} at alpha {campaign.alpha:g}"
        + (
            f" (outcomes of {expected.observed:.0%} become known)"
            if expected.observed < 1
            else ""
        ),
    ]
    arms = ", ".join(
        f"{arm.name} {round(plan.needed * campaign.share(arm)):,}"
        for arm in campaign.arms
    )
    lines.append(f"  by arm         {arms}")
    if not plan.is_hopeless:
        lines.append(f"  enough         in about {ceil(plan.weeks)} weeks")
        return "\n".join(lines)
    lines.append(
        f"  HOPELESS       about {plan.reachable:,} students enter by {campaign.end}"
    )
    return "\n".join([*lines, *(f"  {way}" for way in _ways_out(plan))])


def _ways_out(plan: Plan) -> list[str]:
    campaign = plan.campaign
    longer = (
        f"last {ceil(plan.weeks):,} weeks"
        if plan.weeks < float("inf")
        else "wait for students (none enter)"
    )
    effect = (
        f"look for an effect of {np.ceil(plan.detectable * 1000) / 1000:.3f} or more"
        if plan.detectable is not None
        else "no effect is large enough to be found by so few"
    )
    return [
        f"What would do: {plan.needed:,} students ({longer}, or a wider audience);",
        f"or {effect}.",
        "Under allow_underpowered = true it starts all the same"
        + (" (declared)." if campaign.allow_underpowered else "."),
    ]


def refuse_hopeless(plans: Sequence[Plan]) -> None:
    """Raise Hopeless, with every plan that is, unless its campaign allows that."""
    refused = [
        plan
        for plan in plans
        if plan.is_hopeless and not plan.campaign.allow_underpowered
    ]
    if refused:
        raise Hopeless(
            "Campaigns that could not find what they look for:\n"
            + "\n".join(describe(plan) for plan in refused)
        )
