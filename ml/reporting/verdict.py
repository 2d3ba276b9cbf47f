"""The verdict in plain words: is the model of use, how sure is that, whom does it
miss."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml.reporting.figures import flagged_weights, number_columns
from ml.reporting.page import Table, Tile, Verdict, count, known, number, percent
from ml.reporting.page import with_interval as interval
from ml.reporting.read import Facts, Model, Profile, split_pairs

# Nothing honest in this field reaches it.
LEAK_FROM = 0.95
LEAK_CORRELATION = 0.9
RARE_BELOW = 0.05
FEW_POINTS = 1000
SMALLEST_GROUP = 30
WORST_COURSES = 3
# Half of this share of the failing, or less, is called out.
POORLY_REACHED = 0.5
CALIBRATION_WORDS = (
    (0.03, "they can be taken at their word"),
    (0.06, "they are roughly right"),
    (float("inf"), "use them to rank students, not as probabilities"),
)
OUTCOMES = {
    "course_repurchased": "buy the course again after a failed first attempt",
    "assessment_not_passed": "miss the assessment or not pass it",
    "assessment_missed": "miss the assessment",
}
# Scorers in the order of the page, with their column in evaluation_predictions.
SCORERS = {
    "model": "risk_score",
    "logistic": "baseline_logistic",
    "rule": "baseline_rule",
    "course_rate": "baseline_course_rate",
    "random": "baseline_random",
}
COMPARED_WITH = {
    "rule": "the rule, which counts missed assessments",
    "logistic": "a logistic regression",
    "course_rate": "the course's earlier failure rate",
}


@dataclass(frozen=True)
class Figure:
    """One row of `model_metrics`."""

    value: float
    low: float
    high: float
    rows: int

    @property
    def text(self) -> str:
        """`0.804 (0.795 to 0.812)`."""
        return interval(self.value, self.low, self.high)


def find_figure(
    metrics: pd.DataFrame,
    metric: str,
    lead: int,
    segment: str = "all",
    scorer: str = "model",
    split: str = "test",
) -> Figure | None:
    """The figure, or None where it was not measured or is not defined."""
    if metrics.empty:
        return None
    found = metrics[
        (metrics["metric"] == metric)
        & (metrics["lead_days"] == lead)
        & (metrics["segment"] == segment)
        & (metrics["scorer"] == scorer)
        & (metrics["split"] == split)
    ]
    if found.empty or not known(found.iloc[0]["value"]):
        return None
    row = found.iloc[0]
    return Figure(row["value"], row["ci_low"], row["ci_high"], int(row["rows"]))


def give_verdict(facts: Facts, explore: bool) -> Verdict:
    """The verdict for the page: on the data alone, or on the run that is shown."""
    if explore:
        return _on_data(facts)
    if facts.model is None:
        data = _on_data(facts)
        return Verdict(
            "neutral",
            "No model has been trained yet.",
            [
                (
                    "What to do.",
                    "Train one with `python -m ml.train`, then make this page again. "
                    "Until then it shows the data alone.",
                ),
                *data.paragraphs,
            ],
            data.warnings,
            data.tiles,
        )
    return _on_model(facts, facts.model)


# ---------------------------------------------------------------- data


def _on_data(facts: Facts) -> Verdict:
    profile = facts.profile
    balance = profile.balance[profile.balance["lead_days"] == profile.lead]
    points = int(balance["points"].sum())
    failing = int(balance["failing"].sum())
    tiles = [
        Tile(count(profile.students), "students"),
        Tile(count(profile.courses), "courses"),
        Tile(count(points), "cases with a known outcome", f"lead {profile.lead}"),
        Tile(percent(failing / points if points else None), "of them failed"),
    ]
    if not points:
        return Verdict(
            "caution",
            "There is nothing to learn from yet: no case has a known outcome.",
            [("", "An outcome is known once its period is over (see label_status).")],
            tiles=tiles[:2],
        )
    return Verdict(
        "neutral",
        f"{count(points)} cases can be learned from; {percent(failing / points)} "
        "of them failed.",
        [
            (
                "The question.",
                "A case is one student with one assessment, looked at "
                f"{profile.lead} days before it is due: will the student "
                f"{_outcome(facts)}?",
            ),
            ("The features.", _features_in_words(profile)),
        ],
        _data_warnings(facts, points, failing),
        tiles,
    )


def _outcome(facts: Facts) -> str:
    target = facts.built.target_definition
    return OUTCOMES.get(target, target.replace("_", " "))


def _features_in_words(profile: Profile) -> str:
    empty = int((profile.missing == 1).sum())
    half = int(((profile.missing >= 0.5) & (profile.missing < 1)).sum())
    return (
        f"Each case has {len(profile.missing)} features. {empty} of them are empty "
        f"throughout (this source does not record them) and {half} more are unknown "
        "for at least half of the cases; the model takes unknown for what it is."
    )


def _data_warnings(facts: Facts, points: int, failing: int) -> list[str]:
    found = []
    rate = failing / points
    if rate in (0, 1):
        found.append("All cases have the same outcome: no model can be trained.")
    elif min(rate, 1 - rate) < RARE_BELOW:
        found.append(
            f"Only {percent(min(rate, 1 - rate))} of the cases have the rarer "
            "outcome: expect wide intervals."
        )
    if points < FEW_POINTS:
        found.append(f"{count(points)} cases are few: expect wide intervals.")
    for name, strength in outcome_correlations(facts.profile).items():
        if abs(strength) >= LEAK_CORRELATION:
            found.append(
                f"{facts.features[str(name)].plain} tells the outcome almost by itself "
                f"(rank correlation {number(strength, 2)}): a leak until proven "
                "otherwise."
            )
    return found


def outcome_correlations(profile: Profile) -> pd.Series:
    """Rank correlation of each numeric feature with failing, strongest first."""
    sample = profile.sample
    if sample.empty:
        return pd.Series(dtype=float)
    names = [name for name in number_columns(sample) if name != "at_risk"]
    ranks = sample[names].astype(float).rank()
    found = ranks.corrwith(sample["at_risk"].astype(float)).dropna()
    return found.sort_values(key=lambda values: -values.abs(), kind="stable")


# ---------------------------------------------------------------- model


def _on_model(facts: Facts, model: Model) -> Verdict:
    lead = facts.headline
    tone, headline = _tone(model, lead)
    reached = reach_table(model.predictions)
    paragraphs = [
        *_quality(facts, model),
        *_against_baselines(model, lead),
        *_whom_it_misses(reached, facts.fairness),
        *_probabilities(model, lead),
        *_other_runs(facts, model),
    ]
    warnings = _leaks(model, lead)
    return Verdict(
        "bad" if warnings else tone,
        headline,
        paragraphs,
        warnings + _remarks(model),
        _tiles(model, lead),
        [_reach_as_table(reached)] if len(reached) else [],
    )


def _tone(model: Model, lead: int) -> tuple[str, str]:
    rule = find_figure(model.metrics, "pr_auc_minus_rule", lead)
    logistic = find_figure(model.metrics, "pr_auc_minus_logistic", lead)
    if model.run["status"] == "refused":
        return "bad", "The model was refused. Students are flagged by the rule instead."
    if rule is None:
        return "caution", f"There are no figures for this run at lead {lead}."
    if rule.high < 0:
        return "bad", "The model is behind the rule. Do not use it."
    if not rule.low > 0:
        return "caution", "It is not sure that the model is better than the rule."
    if logistic is not None and logistic.high < 0:
        return (
            "caution",
            "The model is better than the rule, but a plain logistic regression "
            "is better still.",
        )
    return "good", "The model is better than the rule."


def _quality(facts: Facts, model: Model) -> list[tuple[str, str]]:
    lead = facts.headline
    said = []
    if model.run["status"] == "refused":
        said.append(("Why.", str(model.run["status_reason"])))
    found = find_figure(model.metrics, "pr_auc", lead)
    base = find_figure(model.metrics, "base_rate", lead)
    if found is None or base is None:
        how = "Train again with `python -m ml.train --force` to have it measured."
        return [*said, ("What to do.", how)]
    text = (
        f"{lead} days before the due day it was asked about {count(found.rows)} cases "
        f"from {_day(model.run['test_from'])} on that it had never seen: will the "
        f"student {_outcome(facts)}? {percent(base.value)} did. Its PR-AUC is "
        f"{number(found.value)}{_between(found)}; 1 is perfect, and a random order "
        f"gets {number(base.value)}."
    )
    return [*said, ("How good.", text)]


def _between(figure: Figure) -> str:
    if not (known(figure.low) and known(figure.high)):
        return ""
    return f" (95 % interval {number(figure.low)} to {number(figure.high)})"


def _day(value: Any) -> str:
    return str(pd.Timestamp(value).date()) if known_day(value) else "an unknown day"


def known_day(value: Any) -> bool:
    """Whether there is a day at all."""
    return value is not None and not pd.isna(value)


def _against_baselines(model: Model, lead: int) -> list[tuple[str, str]]:
    said = []
    for name, words in COMPARED_WITH.items():
        ahead = find_figure(model.metrics, f"pr_auc_minus_{name}", lead)
        if ahead is not None:
            said.append(_comparison(ahead, words))
    if not said:
        return []
    said.append(
        "In brackets: where the difference lies in 95 of 100 draws of the students."
    )
    return [("By how much, and how sure.", " ".join(said))]


def _comparison(ahead: Figure, words: str) -> str:
    """`It is 0.154 ahead of the rule, more than chance (+0.150 to +0.158).`"""
    if not (known(ahead.low) and known(ahead.high)):
        return f"Its PR-AUC differs from that of {words} by {ahead.value:+.3f}."
    bracket = f"({ahead.low:+.3f} to {ahead.high:+.3f})"
    if ahead.low > 0:
        return f"It is {ahead.value:.3f} ahead of {words}, more than chance {bracket}."
    if ahead.high < 0:
        return f"It is {-ahead.value:.3f} behind {words}, more than chance {bracket}."
    return f"It differs from {words} by {ahead.value:+.3f}, maybe by chance {bracket}."


def reach_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Whom the model finds when as many cases are flagged as fail.

    Returns
    -------
    pandas.DataFrame
        Columns kind (all, first, later, course), group, points, failing, reached
        (share of the failing that is flagged) and rule (the same for the rule);
        empty without failing cases.
    """
    if predictions.empty or not predictions["at_risk"].sum():
        return pd.DataFrame(
            columns=["kind", "group", "points", "failing", "reached", "rule"]
        )
    labels = predictions["at_risk"].to_numpy(dtype=float)
    flags = int(labels.sum())
    model = flagged_weights(predictions["risk_score"].to_numpy(dtype=float), flags)
    rule = flagged_weights(predictions["baseline_rule"].to_numpy(dtype=float), flags)
    first = predictions["is_first_sitting"].to_numpy(dtype=bool)
    courses = predictions["course_id"].astype(str).to_numpy()
    groups = [
        ("all", "All cases", np.ones(len(labels), dtype=bool)),
        ("first", "First assessment in the course (cold start)", first),
        ("later", "Later assessments", ~first),
        *(
            ("course", f"Course {course}", courses == course)
            for course in sorted(set(courses))
        ),
    ]
    rows = [
        (kind, name, int(rows.sum()), int(failing), *shares)
        for kind, name, rows in groups
        if (failing := labels[rows].sum())
        for shares in [
            [
                float((labels[rows] * flagged[rows]).sum() / failing)
                for flagged in (model, rule)
            ]
        ]
    ]
    names = ["kind", "group", "points", "failing", "reached", "rule"]
    return pd.DataFrame(rows, columns=names)


def _whom_it_misses(
    reached: pd.DataFrame, fairness: pd.DataFrame
) -> list[tuple[str, str]]:
    if reached.empty:
        return []
    rows = {row["kind"]: row for row in reached.to_dict("records")}
    overall = rows["all"]
    text = [
        f"If as many cases are flagged as fail ({count(overall['failing'])}), it finds "
        f"{percent(overall['reached'])} of those who fail and misses "
        f"{percent(1 - overall['reached'])}; the rule finds {percent(overall['rule'])}."
    ]
    if "first" in rows and "later" in rows:
        text.append(
            _first_and_later(rows["first"]["reached"], rows["later"]["reached"])
        )
    text += _poorly_seen_courses(reached, overall["reached"])
    text += _unequal_groups(fairness)
    return [("Whom it misses.", " ".join(text))]


def _first_and_later(first: float, later: float) -> str:
    shares = (
        f"of those who fail their first assessment in a course it finds "
        f"{percent(first)}, of those who fail a later one {percent(later)}."
    )
    if first < POORLY_REACHED * later:
        return f"It hardly sees a cold start: {shares}"
    return shares[0].upper() + shares[1:]


def _poorly_seen_courses(reached: pd.DataFrame, overall: float) -> list[str]:
    poor = reached[
        (reached["kind"] == "course")
        & (reached["failing"] >= SMALLEST_GROUP)
        & (reached["reached"] < min(POORLY_REACHED, overall))
    ].sort_values(["reached", "group"])
    if poor.empty:
        return []
    named = ", ".join(
        f"{row['group'].removeprefix('Course ')} ({percent(row['reached'])})"
        for row in poor.head(WORST_COURSES).to_dict("records")
    )
    return [f"It finds the fewest of the failing in these courses: {named}."]


def _unequal_groups(fairness: pd.DataFrame) -> list[str]:
    """The attribute with the widest gap between groups that is more than chance."""
    if fairness.empty:
        return []
    rate = "false_negative_rate"
    singles, _ = split_pairs(fairness)
    measured = singles[[known(value) for value in singles[rate]]]
    found = []
    for attribute, groups in measured.groupby("attribute"):
        ordered = groups.sort_values([rate, "value"])
        least, most = ordered.iloc[0], ordered.iloc[-1]
        if most[f"{rate}_low"] > least[f"{rate}_high"]:
            text = (
                f"By {str(attribute).replace('_', ' ')}, it misses "
                f"{percent(most[rate])} of the failing in group {most['value']} and "
                f"{percent(least[rate])} in group {least['value']}."
            )
            found.append((least[rate] - most[rate], text))
    return [min(found)[1]] if found else []


def _reach_as_table(reached: pd.DataFrame) -> Table:
    return Table(
        "Whom the model finds when as many cases are flagged as fail",
        ["Group", "Cases", "Failing", "Found by the model", "Found by the rule"],
        [
            [
                str(row["group"]),
                count(row["points"]),
                count(row["failing"]),
                percent(row["reached"]),
                percent(row["rule"]),
            ]
            for row in reached.head(60).to_dict("records")
        ],
    )


def _probabilities(model: Model, lead: int) -> list[tuple[str, str]]:
    ece = find_figure(model.metrics, "ece", lead)
    if ece is None:
        return []
    text = f"They are on average {100 * ece.value:.1f} percentage points off"
    if known(ece.low) and known(ece.high):
        text += f" (95 % interval {100 * ece.low:.1f} to {100 * ece.high:.1f})"
    use = next(words for limit, words in CALIBRATION_WORDS if ece.value <= limit)
    return [("Can its probabilities be read?", f"{text}: {use}.")]


def _other_runs(facts: Facts, model: Model) -> list[tuple[str, str]]:
    """A newer run than the one shown is worth a sentence."""
    newest = facts.runs.iloc[0]
    if newest["run_id"] == model.run["run_id"]:
        return []
    text = (
        f"Run {newest['run_id']} is newer, and {newest['status']}: "
        f"{newest['status_reason']} See it with "
        f"`python -m ml.report --run {newest['run_id']}`."
    )
    return [("Another run.", text)]


def _leaks(model: Model, lead: int) -> list[str]:
    found = []
    for metric, name in (("pr_auc", "PR-AUC"), ("roc_auc", "ROC-AUC")):
        figure = find_figure(model.metrics, metric, lead)
        if figure is not None and figure.value >= LEAK_FROM:
            found.append(
                f"A {name} of {number(figure.value)} is too good to be true. Look for "
                "a leak before you use this model: a feature that already knows the "
                "outcome, or students on both sides of the split."
            )
    return found


def _remarks(model: Model) -> list[str]:
    found = []
    if model.run.get("refitted"):
        found.append(
            "The scores come from a refit on newer labels; the figures on this page "
            "are those of its predecessor."
        )
    if model.scores.empty and model.run["status"] != "refused":
        found.append(
            "This run has scored nobody: nothing is due at AS_OF_DATE, or nothing was "
            "scored yet. `python -m ml.score --as-of DAY` scores a day."
        )
    return found


def _tiles(model: Model, lead: int) -> list[Tile]:
    wanted = (
        ("pr_auc", "PR-AUC", "model"),
        ("pr_auc", "PR-AUC of the rule", "rule"),
        ("precision_at_10pct", "of the riskiest tenth do fail", "model"),
        ("base_rate", "of all cases fail", "model"),
    )
    tiles = []
    for metric, label, scorer in wanted:
        figure = find_figure(model.metrics, metric, lead, scorer=scorer)
        if figure is None:
            continue
        write = number if metric == "pr_auc" else percent
        note = ""
        if known(figure.low) and known(figure.high):
            note = f"95 %: {write(figure.low).rstrip(' %')} to {write(figure.high)}"
        tiles.append(Tile(write(figure.value), label, note))
    return tiles
