"""What an arm did against the control: effects, intervals, checks and verdicts.

Pure functions. Everybody counts in the arm that was drawn, written to or not
(intention to treat): whoever was reached differs from the rest in ways that no arm
decided. The adjustment is CUPED (Deng, Xu, Kohavi and Walker 2013): the risk score at
assignment explains part of who fails, and that part is taken off. It cannot bias the
estimate beyond order 1/n, nor make it less precise in large samples with arms of
equal size (Lin 2013, Annals of Applied Statistics 7, who also says when it could).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from intervene.experiments.campaigns import Arm, Campaign

CONFIDENCE = 0.95
# Sample ratios are looked at again and again, so only what is nearly impossible
# counts (Fabijan et al. 2019, "Diagnosing sample ratio mismatch").
SAMPLE_RATIO_P = 0.001
MISSING_P = 0.01
# With fewer of either outcome in an arm no normal approximation is to be trusted.
FEWEST_OF_EACH = 5
SMALLEST_SUBGROUP = 30
SUBGROUPS = ("risk_band", "engagement_zone", "lead_band", "course_id")
GUARDRAILS = ("opted_out", "complained")
EVERYBODY = "all"
TOO_EARLY = "too_early"
INVALID = "invalid"


@dataclass(frozen=True)
class Effect:
    """Arm minus control, with a 95 % interval and the two-sided p of no difference.

    `error` is the standard error, NaN where the interval does not come from one.
    """

    estimate: float
    low: float
    high: float
    p: float
    error: float
    is_adjusted: bool = False
    variance_reduction: float | None = None


# ---------------------------------------------------------------- estimators


def difference(arm: np.ndarray, control: np.ndarray) -> Effect:
    """Difference of two means, each arm with a variance of its own.

    The standard error is Welch's, the same as HC2's (MacKinnon and White 1985) of the
    regression on the arm; quantiles are Student's with Welch and Satterthwaite's
    degrees of freedom.

    Parameters
    ----------
    arm, control
        One value per student, at least two in each.
    """
    estimate = float(arm.mean() - control.mean())
    parts = np.array([arm.var(ddof=1) / len(arm), control.var(ddof=1) / len(control)])
    error = float(np.sqrt(parts.sum()))
    if error == 0:
        return Effect(estimate, estimate, estimate, float(estimate == 0), error)
    freedom = parts.sum() ** 2 / (
        parts[0] ** 2 / (len(arm) - 1) + parts[1] ** 2 / (len(control) - 1)
    )
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(estimate) / error, freedom))
    return Effect(estimate, estimate - half, estimate + half, p, error)


def without_explained(outcome: np.ndarray, score: np.ndarray) -> np.ndarray | None:
    """The outcome less what the score explains, with the same mean (CUPED).

    Theta is the least-squares slope over all students, whatever their arm. A missing
    score counts as the mean, with an indicator of its own beside it. None where there
    is nothing to explain with.
    """
    missing = np.isnan(score)
    if missing.all():
        return None
    filled = np.where(missing, score[~missing].mean(), score)
    columns = [column for column in (filled, missing.astype(float)) if column.std() > 0]
    if not columns:
        return None
    covariates = np.column_stack(columns)
    centred = covariates - covariates.mean(axis=0)
    theta, *_ = np.linalg.lstsq(centred, outcome - outcome.mean(), rcond=None)
    return outcome - centred @ theta


def adjusted_difference(
    outcome: np.ndarray, score: np.ndarray, in_arm: np.ndarray
) -> Effect:
    """`difference` after CUPED; unadjusted where no score is known.

    Parameters
    ----------
    outcome
        One value per student of arm and control.
    score
        Risk score as known at assignment; NaN where it was not.
    in_arm
        True for the arm, False for the control.
    """
    raw = difference(outcome[in_arm], outcome[~in_arm])
    adjusted = without_explained(outcome, score)
    if adjusted is None or raw.error == 0:
        return raw
    effect = difference(adjusted[in_arm], adjusted[~in_arm])
    reduction = 1 - (effect.error / raw.error) ** 2
    return replace(effect, is_adjusted=True, variance_reduction=reduction)


def rate_difference(arm: np.ndarray, control: np.ndarray) -> Effect:
    """Difference of two rates where events are few.

    The interval is Newcombe's (1998, method 10) of two Wilson intervals, the p
    Fisher's exact. Values are 0 or 1.
    """
    rates, ends = [], []
    for values in (arm, control):
        events = int(values.sum())
        interval = stats.binomtest(events, len(values)).proportion_ci(
            CONFIDENCE, method="wilson"
        )
        rates.append(events / len(values))
        ends.append((interval.low, interval.high))
    estimate = rates[0] - rates[1]
    down = np.hypot(rates[0] - ends[0][0], ends[1][1] - rates[1])
    up = np.hypot(ends[0][1] - rates[0], rates[1] - ends[1][0])
    table = [[v.sum(), len(v) - v.sum()] for v in (arm, control)]
    p = float(stats.fisher_exact(table).pvalue)
    return Effect(estimate, estimate - down, estimate + up, p, float("nan"))


def has_few(outcome: np.ndarray, in_arm: np.ndarray) -> bool:
    """Whether a 0/1 outcome is too rare, on one side, for a normal approximation."""
    sides = (outcome[in_arm], outcome[~in_arm])
    return min(min(s.sum(), len(s) - s.sum()) for s in sides) < FEWEST_OF_EACH


def metric_effect(
    outcome: np.ndarray, score: np.ndarray, in_arm: np.ndarray
) -> Effect | None:
    """Effect on a 0/1 metric: adjusted, or by `rate_difference` where events are few;
    None with nobody on one side."""
    if min(in_arm.sum(), (~in_arm).sum()) < 2:
        return None
    if has_few(outcome, in_arm):
        return rate_difference(outcome[in_arm], outcome[~in_arm])
    return adjusted_difference(outcome, score, in_arm)


def gain_and_return(
    failed: np.ndarray,
    spent: np.ndarray,
    score: np.ndarray,
    in_arm: np.ndarray,
    value: float,
) -> tuple[Effect, Effect | None]:
    """What an arm brings per student, and per money spent; None if that is nothing.

    The return is a ratio of two differences less 1, with the interval of the delta
    method: that of its linearised value per student. Where passes or failures are few
    both have the interval of `rate_difference`, and what was spent counts as known.

    Parameters
    ----------
    failed
        1 or 0 per student.
    spent
        Cost of each student's messages.
    score, in_arm
        As in `adjusted_difference`.
    value
        Of a pass.
    """
    passed = value * (1 - failed)
    few = has_few(failed, in_arm)
    # Only outcomes have something to do with the risk; what was sent has not.
    explained = None if few else without_explained(passed, score)
    likely = passed if explained is None else explained

    def compare(values: np.ndarray) -> Effect:
        found = difference(values[in_arm], values[~in_arm])
        return replace(found, is_adjusted=explained is not None)

    gain = compare(likely - spent)
    more = float(spent[in_arm].mean() - spent[~in_arm].mean())
    if few:
        rate = rate_difference(failed[in_arm], failed[~in_arm])
        low, high = (-value * end - more for end in (rate.high, rate.low))
        gain = replace(gain, low=low, high=high, p=rate.p)
    if more <= 0:
        return gain, None
    estimate = gain.estimate / more
    if few:
        low, high = gain.low / more, gain.high / more
    else:
        noise = compare((likely - (1 + estimate) * spent) / more)
        low, high = (estimate + end - noise.estimate for end in (noise.low, noise.high))
    return gain, replace(gain, estimate=estimate, low=low, high=high)


def shares_test(
    counts: Sequence[int], expected: Sequence[float]
) -> tuple[float, float]:
    """Chi-square of the students per arm, and the p of the planned shares.

    Where an arm expects few the p is exact: that of the least likely arm (binomial),
    times the arms (Bonferroni).
    """
    statistic, p = stats.chisquare(counts, expected)
    if min(expected) < FEWEST_OF_EACH:
        total = sum(counts)
        exact = [
            stats.binomtest(count, total, share / total).pvalue
            for count, share in zip(counts, expected, strict=True)
        ]
        p = min(1.0, len(exact) * min(exact))
    return float(statistic), float(p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values after Holm's (1979) correction, in their order."""
    count = len(p_values)
    corrected, largest = [0.0] * count, 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        corrected[int(place)] = largest
    return corrected


# ---------------------------------------------------------------- one campaign


@dataclass(frozen=True)
class Experiment:
    """A campaign that has begun, and what is known of its students.

    Attributes
    ----------
    planned
        Students after which the campaign is full.
    students
        Rows of `experiment_outcomes` of this campaign.
    data_until
        Day after the newest fact.
    contact_cost, pass_value
        In one currency; None where gains are not to be computed.
    """

    campaign: Campaign
    planned: int
    students: pd.DataFrame
    data_until: date
    contact_cost: float | None
    pass_value: float | None

    @cached_property
    def waiting_for(self) -> str:
        """Why it is too early for a result; empty when it is not."""
        assigned, campaign = len(self.students), self.campaign
        if assigned < self.planned and self.data_until < campaign.end:
            return (
                f"{assigned:,} of {self.planned:,} planned students are assigned, and "
                f"more may be until {campaign.end}"
            )
        pending = int(self.is_pending.sum())
        return f"{pending:,} outcomes are still to come" if pending else ""

    @cached_property
    def is_pending(self) -> pd.Series:
        """Students whose outcome is not due to be known yet."""
        unknown = self.students[self.campaign.metric].isna()
        if self.campaign.metric == "at_risk":
            return unknown & (self.students["outcome_status"] == "pending")
        return unknown


def analyse(experiment: Experiment) -> pd.DataFrame:
    """Every row of `experiment_effects` of one campaign.

    There is one time for the result: when nobody can be assigned any more and every
    outcome that will be known is. Before it no effect is computed, so that nobody can
    stop at a lucky moment; guardrails and checks are, because harm must not wait.
    """
    ratio = _sample_ratio(experiment)
    rows: list[dict[str, Any]] = [ratio]
    primaries: list[dict[str, Any]] = []
    for arm in experiment.campaign.treatments:
        pair = _Pair(experiment, arm)
        missing = pair.missing()
        broken = [row["note"] for row in (ratio, missing) if row["verdict"] == "failed"]
        primary = pair.primary()
        rest = [*pair.subgroups(), *pair.worth()]
        for row in (primary, *rest):
            if broken and row["verdict"] != TOO_EARLY:
                row |= {"verdict": INVALID, "note": " ".join(broken)}
        guardrails = [pair.guardrail(metric) for metric in GUARDRAILS]
        primaries.append(primary)
        rows += [primary, missing, *guardrails, *rest]
    _decide(experiment.campaign, primaries)
    frame = pd.DataFrame(rows)
    return frame.assign(
        campaign=experiment.campaign.name,
        control_arm=experiment.campaign.control.name,
        data_until=experiment.data_until,
    )


def _decide(campaign: Campaign, rows: Sequence[dict[str, Any]]) -> None:
    """Correct the arms' p values for each other, and say what follows."""
    measured = [row for row in rows if row["p_value"] is not None]
    corrected = holm([row["p_value"] for row in measured])
    for row, p in zip(measured, corrected, strict=True):
        row["p_adjusted"] = p
        if row["verdict"] is None:
            row["verdict"], row["note"] = _verdict(campaign, row)


def _verdict(campaign: Campaign, row: dict[str, Any]) -> tuple[str, str]:
    estimate, low, high = row["estimate"], row["ci_low"], row["ci_high"]
    limit = campaign.minimum_detectable_effect
    between = f"{estimate:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"
    if row["p_adjusted"] < campaign.alpha:
        good = (estimate < 0) == campaign.lower_is_better
        return ("helped" if good else "harmed"), (
            f"{campaign.metric} {'fell' if estimate < 0 else 'rose'} by {between}."
        )
    if -limit < low and high < limit:
        return "no_effect", f"An effect of {limit:.3f} or more is ruled out: {between}."
    return "inconclusive", (
        f"No effect is shown, and one of {limit:.3f} is not ruled out: {between}."
    )


def _sample_ratio(experiment: Experiment) -> dict[str, Any]:
    """Whether the arms have the shares of the design, over all arms."""
    campaign, arms = experiment.campaign, experiment.students["arm"]
    counts = [int((arms == arm.name).sum()) for arm in campaign.arms]
    expected = [campaign.share(arm) * sum(counts) for arm in campaign.arms]
    statistic, p = shares_test(counts, expected) if sum(counts) else (0.0, 1.0)
    failed = p < SAMPLE_RATIO_P
    told = ", ".join(
        f"{arm.name} {count:,} (expected {share:.0f})"
        for arm, count, share in zip(campaign.arms, counts, expected, strict=True)
    )
    return _row(
        EVERYBODY, "sample_ratio", "check",
        estimate=statistic, p_value=p, p_adjusted=p,
        assigned=sum(counts) - int((arms == campaign.control.name).sum()),
        assigned_control=int((arms == campaign.control.name).sum()),
        verdict="failed" if failed else "passed",
        note=(
            f"Sample ratio mismatch: {told}. Something other than chance decided who "
            "is in which arm."
            if failed
            else f"The arms have the planned shares: {told}."
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class _Pair:
    """One arm beside the control."""

    experiment: Experiment
    arm: Arm

    @property
    def campaign(self) -> Campaign:
        return self.experiment.campaign

    @cached_property
    def students(self) -> pd.DataFrame:
        """Everybody in the two, in a fixed order."""
        rows = self.experiment.students
        both = rows["arm"].isin([self.arm.name, self.campaign.control.name])
        return rows[both].sort_values("student_id")

    @cached_property
    def known(self) -> pd.DataFrame:
        """Those whose metric is known."""
        rows = self.students
        return rows[rows[self.campaign.metric].notna()]

    def in_arm(self, rows: pd.DataFrame) -> np.ndarray:
        return (rows["arm"] == self.arm.name).to_numpy()

    def row(self, metric: str, role: str, **values: Any) -> dict[str, Any]:
        """A row with the counts that every row has."""
        assigned = self.in_arm(self.students)
        counts = {
            "assigned": int(assigned.sum()),
            "assigned_control": int((~assigned).sum()),
        }
        return _row(self.arm.name, metric, role, **(counts | values))

    def measured(
        self, metric: str, role: str, rows: pd.DataFrame, effect: Effect | None,
        values: np.ndarray, **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """A row with an effect, or without one where nothing could be measured."""
        in_arm = self.in_arm(rows)
        found: dict[str, Any] = {
            "students": int(in_arm.sum()),
            "students_control": int((~in_arm).sum()),
        }
        if effect is not None:
            found |= {
                "value": float(values[in_arm].mean()),
                "value_control": float(values[~in_arm].mean()),
                "estimate": effect.estimate,
                "ci_low": effect.low,
                "ci_high": effect.high,
                "is_adjusted": effect.is_adjusted,
                "variance_reduction": effect.variance_reduction,
                "p_value": effect.p,
            }
        return self.row(metric, role, **(found | more))

    # ------------------------------------------------------------ what is asked

    def primary(self) -> dict[str, Any]:
        """The effect on the metric; its verdict comes when all arms are known."""
        metric, rows = self.campaign.metric, self.known
        early = self.experiment.waiting_for
        if early:
            return self.too_early(metric, "primary", rows)
        outcome, score = _numbers(rows, metric), _numbers(rows, "risk_score")
        effect = metric_effect(outcome, score, self.in_arm(rows))
        row = self.measured(metric, "primary", rows, effect, outcome)
        if effect is None:
            row |= {"verdict": "inconclusive", "note": "Fewer than 2 known outcomes."}
        return row

    def too_early(self, metric: str, role: str, rows: pd.DataFrame) -> dict[str, Any]:
        note = f"Too early: {self.experiment.waiting_for}."
        return self.measured(
            metric, role, rows, None, np.empty(0), verdict=TOO_EARLY, note=note
        )

    def missing(self) -> dict[str, Any]:
        """Whether outcomes are missing more in one arm, which no analysis mends."""
        rows = self.students
        rows = rows[~self.experiment.is_pending.loc[rows.index]]
        in_arm, lost = self.in_arm(rows), rows[self.campaign.metric].isna().to_numpy()
        values = lost.astype(float)
        effect = None
        if in_arm.any() and not in_arm.all():
            effect = rate_difference(values[in_arm], values[~in_arm])
        failed = effect is not None and effect.p < MISSING_P
        return self.measured(
            "outcome_missing", "check", rows, effect, values,
            p_adjusted=effect and effect.p,
            verdict="failed" if failed else "passed",
            note=(
                "Outcomes are missing more often in one arm: those that are known "
                "cannot be compared."
                if failed
                else "Outcomes are missing about as often in both arms."
            ),
        )  # fmt: skip

    def guardrail(self, metric: str) -> dict[str, Any]:
        """Whether the arm raised a rate by more than is allowed, at any time."""
        rows, limit = self.students, getattr(self.campaign.guardrails, metric)
        values, in_arm = _numbers(rows, metric), self.in_arm(rows)
        if not in_arm.any() or in_arm.all():
            return self.row(metric, "guardrail", verdict="unclear", note="Nobody yet.")
        effect = rate_difference(values[in_arm], values[~in_arm])
        between = (
            f"{effect.estimate:+.3f} (95 % interval {effect.low:+.3f} to "
            f"{effect.high:+.3f}) against {limit:.3f} allowed"
        )
        if effect.estimate > limit and effect.low > 0:
            verdict, note = "breached", f"Stop and look: {between}."
        elif effect.high <= limit:
            verdict, note = "kept", f"{between}."
        else:
            verdict, note = "unclear", f"More than allowed is not ruled out: {between}."
        return self.measured(
            metric, "guardrail", rows, effect, values,
            p_adjusted=effect.p, verdict=verdict, note=note,
        )  # fmt: skip

    def worth(self) -> Iterator[dict[str, Any]]:
        """Gain per assigned student, and per money spent.

        The gain of a student is the value of a pass, if there was one, less what the
        messages cost.
        """
        cost, value = self.experiment.contact_cost, self.experiment.pass_value
        if self.campaign.metric != "at_risk" or cost is None or value is None:
            return
        rows = self.known
        if self.experiment.waiting_for:
            yield self.too_early("gain_per_student", "worth", rows)
            yield self.too_early("roi", "worth", rows)
            return
        in_arm = self.in_arm(rows)
        if min(in_arm.sum(), (~in_arm).sum()) < 2:
            return
        score, failed = _numbers(rows, "risk_score"), _numbers(rows, "at_risk")
        spent = cost * _numbers(rows, "messages_sent")
        gain, roi = gain_and_return(failed, spent, score, in_arm, value)
        net = value * (1 - failed) - spent
        row = self.measured("gain_per_student", "worth", rows, gain, net)
        row["verdict"] = _worth(gain)
        row["note"] = (
            f"{gain.estimate:+.2f} for each assigned student ({gain.low:+.2f} to "
            f"{gain.high:+.2f}), at {value:g} a pass and {cost:g} a message."
        )
        yield row
        if roi is None:
            yield self.row(
                "roi", "worth", verdict="unclear",
                note="Nothing was spent: there is no return on it.",
            )  # fmt: skip
            return
        row = self.measured("roi", "worth", rows, roi, net)
        row |= {"value": None, "value_control": None, "verdict": _worth(roi)}
        row["note"] = (
            f"{roi.estimate:+.2f} back for each 1 spent, beyond that 1 "
            f"({roi.low:+.2f} to {roi.high:+.2f})."
        )
        yield row

    def subgroups(self) -> list[dict[str, Any]]:
        """The effect within groups known at assignment, and whether it differs there.

        The p value is that of the difference between a group's effect and everybody
        else's: an effect that is significant here and not there proves no difference.
        """
        rows = self.known
        found: list[dict[str, Any]] = []
        for column in SUBGROUPS:
            levels = sorted(rows[column].dropna().unique())
            for level in levels if len(levels) > 1 else []:
                found.append(self.subgroup(rows, column, str(level)))
        measured = [row for row in found if row["p_value"] is not None]
        for row, p in zip(
            measured, holm([row["p_value"] for row in measured]), strict=True
        ):
            row["p_adjusted"] = p
            differs = p < self.campaign.alpha
            row["verdict"] = "differs" if differs else "no_sign"
            row["note"] = (
                "The effect differs from everybody else's. One of many looks: test it "
                "in a campaign of its own before acting on it."
                if differs
                else "No sign that the effect differs from everybody else's; small "
                "groups rarely show one."
            )
        return found

    def subgroup(self, rows: pd.DataFrame, column: str, level: str) -> dict[str, Any]:
        metric = self.campaign.metric
        inside = (rows[column] == level).to_numpy()
        group, name = rows[inside], f"{column}={level}"
        if self.experiment.waiting_for:
            row = self.too_early(metric, "subgroup", group)
            return row | {"subgroup": name}
        parts = [
            (_numbers(part, metric), _numbers(part, "risk_score"), self.in_arm(part))
            for part in (group, rows[~inside])
        ]
        is_small = any(
            min(side.sum(), (~side).sum()) < SMALLEST_SUBGROUP
            or min(values.sum(), len(values) - values.sum()) < 2 * FEWEST_OF_EACH
            for values, _, side in parts
        )
        if is_small:
            return self.measured(
                metric, "subgroup", group, None, np.empty(0),
                subgroup=name, verdict="too_small",
                note=f"Fewer than {SMALLEST_SUBGROUP} students on one side, or than "
                f"{2 * FEWEST_OF_EACH} of either outcome.",
            )  # fmt: skip
        effects = [adjusted_difference(*part) for part in parts]
        gap = effects[0].estimate - effects[1].estimate
        error = np.hypot(effects[0].error, effects[1].error)
        p = float(2 * stats.norm.sf(abs(gap) / error)) if error > 0 else 1.0
        row = self.measured(
            metric, "subgroup", group, effects[0], _numbers(group, metric)
        )
        return row | {"subgroup": name, "p_value": p}


def _worth(effect: Effect) -> str:
    if effect.low > 0:
        return "pays"
    return "costs" if effect.high < 0 else "unclear"


def _numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    return rows[column].to_numpy(dtype=float, na_value=np.nan)


def _row(arm: str, metric: str, role: str, **values: Any) -> dict[str, Any]:
    """A row of `experiment_effects` with nulls where nothing is said."""
    return {
        "arm": arm,
        "metric": metric,
        "role": role,
        "subgroup": EVERYBODY,
        "assigned": 0,
        "assigned_control": 0,
        "students": None,
        "students_control": None,
        "value": None,
        "value_control": None,
        "estimate": None,
        "ci_low": None,
        "ci_high": None,
        "is_adjusted": False,
        "variance_reduction": None,
        "p_value": None,
        "p_adjusted": None,
        "verdict": None,
        "note": None,
    } | values
