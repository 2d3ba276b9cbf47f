"""Sections on the data: what there is before any model."""

import numpy as np
import pandas as pd

from ml.reporting import charts
from ml.reporting.figures import (
    group_shares,
    number_columns,
    rank_correlations,
    top_pairs,
)
from ml.reporting.page import Picture, Section, Table, count, number, percent, short
from ml.reporting.read import FAMILY_WORDS, OTHER_FAMILY, Facts
from ml.reporting.verdict import outcome_correlations

PANELS_PER_FAMILY = 2
LISTED_COURSES = 60
DRAWN_COURSES = 15
PAIRS = 12
NO_LABELS = (
    "No case has a known outcome yet. Build the tables with `dbt build` on data whose "
    "outcome period is over."
)


def data_sections(facts: Facts) -> list[Section]:
    """Profile, distributions, class balance, missing values, correlations."""
    return [
        _profile(facts),
        _distributions(facts),
        _balance(facts),
        _missing(facts),
        _correlations(facts),
    ]


# ---------------------------------------------------------------- profile


def _profile(facts: Facts) -> Section:
    profile, built = facts.profile, facts.built
    return Section(
        "data",
        "The data",
        [
            f"Source {built.source_system}, facts up to {built.data_until}. A case "
            "(prediction point) is one student with one assessment, seen some days "
            "before it is due; only cases with a matured outcome are learned from. "
            f"{count(profile.scoring_points)} cases stand at the day that is scored, "
            f"{built.as_of_date}."
        ],
        tables=[
            Table(
                "Training cases by days to the due day and state of the outcome",
                ["Lead", "Outcome", "Cases"],
                [
                    [str(row["lead_days"]), row["label_status"], count(row["points"])]
                    for row in profile.statuses.to_dict("records")
                ],
                words=2,
            )
        ],
        folded=[_quarantine(profile.quarantine)] if len(profile.quarantine) else [],
        missing="" if len(profile.statuses) else NO_LABELS,
    )


def _quarantine(summary: pd.DataFrame) -> Table:
    return Table(
        "Raw rows, and those that were rejected (quarantine.quarantine_by_reason "
        "says why)",
        ["Table", "Rows", "Rejected", "Share"],
        [
            [
                str(row["source_table"]),
                count(row["raw_rows"]),
                count(row["rejected_rows"]),
                percent(row["rejected_share"]),
            ]
            for row in summary.sort_values("source_table").to_dict("records")
        ],
    )


# ---------------------------------------------------------------- distributions


def _distributions(facts: Facts) -> Section:
    profile = facts.profile
    title = "Distributions"
    if profile.sample.empty:
        return Section("distributions", title, missing=NO_LABELS)
    strengths = outcome_correlations(profile)
    pictures = [
        picture
        for family in [*FAMILY_WORDS, OTHER_FAMILY]
        if (picture := _family_picture(facts, family, strengths))
    ]
    return Section(
        "distributions",
        title,
        [
            "For each family of features the two that go along with failing most "
            f"strongly, on {count(len(profile.sample))} cases at lead {profile.lead}; "
            "the table behind each picture has all features of the family."
        ],
        pictures,
    )


def _family_picture(facts: Facts, family: str, strengths: pd.Series) -> Picture | None:
    sample = facts.profile.sample
    names = [
        str(name)
        for name in strengths.index
        if facts.features[str(name)].family == family
    ]
    panels: list[tuple[str, np.ndarray, dict[str, np.ndarray]]] = []
    for name in names:
        shares = group_shares(sample[name], sample["at_risk"])
        if shares and len(panels) < PANELS_PER_FAMILY:
            panels.append((_bare_name(facts, name), *shares))
    if not panels:
        return None
    words = FAMILY_WORDS.get(family, OTHER_FAMILY)
    title = f"Features: {words.format(window=facts.built.observation_window_days)}"
    alt = "Distribution among those who failed and those who did not: " + "; ".join(
        panel[0] for panel in panels
    )
    return Picture(
        title,
        charts.histograms(f"distribution-{family}", alt, panels, "Share"),
        alt,
        "The further apart the two lines, the more the feature tells: the solid line "
        "is the share of failed cases with that value, the dashed one of all others.",
        _family_table(facts, names, strengths),
    )


def _bare_name(facts: Facts, name: str) -> str:
    return facts.features[name].plain.rsplit(" (", 1)[0]


def _family_table(facts: Facts, names: list[str], strengths: pd.Series) -> Table:
    sample = facts.profile.sample
    failed = sample[sample["at_risk"] == 1]
    passed = sample[sample["at_risk"] == 0]
    return Table(
        "All features of this family",
        [
            "Feature",
            "Meaning",
            "Median, failed",
            "Median, others",
            "Rank correlation with failing",
        ],
        [
            [
                name,
                facts.features[name].description,
                number(failed[name].astype(float).median(), 2),
                number(passed[name].astype(float).median(), 2),
                number(strengths[name], 2),
            ]
            for name in names
        ],
        words=2,
    )


# ---------------------------------------------------------------- class balance


def _balance(facts: Facts) -> Section:
    profile = facts.profile
    title = "Class balance"
    if profile.balance.empty:
        return Section("balance", title, missing=NO_LABELS)
    by_lead = profile.balance.groupby("lead_days")[["points", "failing"]].sum()
    by_lead = by_lead.sort_index(ascending=False)
    overall = by_lead.loc[profile.lead]
    return Section(
        "balance",
        title,
        [
            f"At lead {profile.lead}, {count(overall['failing'])} of "
            f"{count(overall['points'])} cases failed "
            f"({percent(overall['failing'] / overall['points'])}). A course far from "
            "the others can flatter or sink every pooled figure."
        ],
        [_balance_by_course(facts), _balance_by_month(facts)],
        [
            Table(
                "Failing by lead",
                ["Lead", "Cases", "Failing", "Share"],
                [
                    [
                        str(lead),
                        count(row["points"]),
                        count(row["failing"]),
                        percent(row["failing"] / row["points"]),
                    ]
                    for lead, row in by_lead.iterrows()
                ],
            )
        ],
    )


def _balance_by_course(facts: Facts) -> Picture:
    profile = facts.profile
    balance = profile.balance[profile.balance["lead_days"] == profile.lead]
    balance = balance.assign(rate=balance["failing"] / balance["points"])
    largest = balance.sort_values(["points", "course_id"], ascending=[False, True])
    drawn = largest.head(DRAWN_COURSES).sort_values(
        ["rate", "course_id"], ascending=[False, True]
    )
    alt = f"Share of cases that failed, by course, at lead {profile.lead}."
    return Picture(
        "By course",
        charts.bars(
            "balance-course",
            alt,
            [short(course) for course in drawn["course_id"]],
            list(drawn["rate"]),
            [percent(rate) for rate in drawn["rate"]],
            "Share that failed",
            percent=True,
        ),
        alt,
        "The longer the bar, the larger the share of the course's cases that failed"
        + (
            f"; the {DRAWN_COURSES} largest of {len(balance)} courses are drawn."
            if len(balance) > DRAWN_COURSES
            else "."
        ),
        Table(
            f"Failing by course at lead {profile.lead}"
            + (
                f" (the {LISTED_COURSES} largest of {len(balance)})"
                if len(balance) > LISTED_COURSES
                else ""
            ),
            ["Course", "Cases", "Failing", "Share"],
            [
                [
                    str(row["course_id"]),
                    count(row["points"]),
                    count(row["failing"]),
                    percent(row["rate"]),
                ]
                for row in largest.head(LISTED_COURSES).to_dict("records")
            ],
        ),
    )


def _balance_by_month(facts: Facts) -> Picture:
    months = facts.profile.months
    days = pd.to_datetime(months["month"])
    alt = "Share of cases that failed, by month of the prediction."
    years = [_year(day) for day in days]
    return Picture(
        "Over time",
        charts.lines(
            "balance-month",
            alt,
            [
                charts.Line(
                    charts.LOOKS["failed"],
                    years,
                    months["failure_rate"].tolist(),
                    markers=True,
                )
            ],
            "Month",
            "Share that failed",
            y_percent=True,
            ticks=_month_ticks(days),
        ),
        alt,
        "A level that moves means that the past says less about the present than a "
        "test within one period would suggest.",
        Table(
            "Failing by month of the prediction",
            ["Month", "Cases", "Share that failed"],
            [
                [f"{day:%Y-%m}", count(row["points"]), percent(row["failure_rate"])]
                for day, row in zip(days, months.to_dict("records"), strict=True)
            ],
        ),
    )


def _year(day: pd.Timestamp) -> float:
    return day.year + (day.month - 1) / 12


def _month_ticks(days: pd.Series) -> dict[float, str]:
    """First, last and up to three months between them."""
    places = np.unique(np.linspace(0, len(days) - 1, 5).round().astype(int))
    return {_year(days.iloc[place]): f"{days.iloc[place]:%Y-%m}" for place in places}


# ---------------------------------------------------------------- missing values


def _family_in_words(facts: Facts, family: str) -> str:
    words = FAMILY_WORDS.get(family, OTHER_FAMILY)
    words = words.format(window=facts.built.observation_window_days)
    return f"{family.replace('_', ' ').capitalize()}: {words}"


def _missing(facts: Facts) -> Section:
    title = "Missing values"
    missing = facts.profile.missing.dropna()
    if missing.empty:
        return Section("missing", title, missing=NO_LABELS)
    families = pd.Series(
        {name: facts.features[str(name)].family for name in missing.index}
    )
    mean = missing.groupby(families).mean()
    order = [name for name in [*FAMILY_WORDS, OTHER_FAMILY] if name in mean.index]
    labels = [_family_in_words(facts, name) for name in order]
    alt = "Mean share of unknown values by family of features."
    picture = Picture(
        "By family of features",
        charts.bars(
            "missing",
            alt,
            labels,
            [float(mean[name]) for name in order],
            [percent(mean[name]) for name in order],
            "Mean share of unknown values",
            percent=True,
        ),
        alt,
        "The longer the bar, the less is known; unknown (nothing recorded yet, or not "
        "by this source) is not the same as nothing done, and the model sees the "
        "difference.",
        Table(
            "Share of unknown values by feature",
            ["Feature", "Family", "Unknown"],
            [
                [str(name), families[str(name)], percent(share)]
                for name, share in missing.sort_values(
                    ascending=False, kind="stable"
                ).items()
            ],
            words=2,
        ),
    )
    return Section("missing", title, pictures=[picture])


# ---------------------------------------------------------------- correlations


def _correlations(facts: Facts) -> Section:
    sample = facts.profile.sample
    title = "Correlations"
    if sample.empty:
        return Section("correlations", title, missing=NO_LABELS)
    names = [name for name in number_columns(sample) if name != "at_risk"]
    pairs = top_pairs(rank_correlations(sample[names].astype(float)), PAIRS)
    pictures = []
    if pairs:
        pictures.append(_pairs_picture(facts, pairs))
    strengths = outcome_correlations(facts.profile).head(PAIRS)
    if len(strengths):
        pictures.append(_outcome_picture(facts, strengths))
    return Section(
        "correlations",
        title,
        [
            "Rank correlations at "
            f"lead {facts.profile.lead}: 1 and -1 are the same order and its reverse, "
            "0 is no relation."
        ],
        pictures,
        missing="" if pictures else "No two features vary together: nothing to show.",
    )


def _pairs_picture(facts: Facts, pairs: list[tuple[str, str, float]]) -> Picture:
    alt = "The pairs of features with the strongest rank correlation."
    return Picture(
        "Between features",
        charts.bars(
            "correlation-pairs",
            alt,
            [
                f"{short(first.replace('_', ' '), 28)} / "
                f"{short(second.replace('_', ' '), 28)}"
                for first, second, _ in pairs
            ],
            [strength for _, _, strength in pairs],
            [number(strength, 2) for _, _, strength in pairs],
            "Rank correlation",
            signed=True,
        ),
        alt,
        "Two features at the end of the scale say the same thing twice: a reason may "
        "name either.",
        Table(
            "Strongest pairs",
            ["Feature", "Other feature", "Rank correlation"],
            [
                [
                    facts.features[first].plain,
                    facts.features[second].plain,
                    number(s, 2),
                ]
                for first, second, s in pairs
            ],
            words=2,
        ),
    )


def _outcome_picture(facts: Facts, strengths: pd.Series) -> Picture:
    alt = "The features with the strongest rank correlation with failing."
    names = [facts.features[str(name)].plain for name in strengths.index]
    return Picture(
        "With failing",
        charts.bars(
            "correlation-outcome",
            alt,
            [short(name, 52) for name in names],
            strengths.tolist(),
            [number(value, 2) for value in strengths],
            "Rank correlation with failing",
            signed=True,
        ),
        alt,
        "Bars to the right: the higher the value, the more fail; bars to the left: "
        "the fewer.",
        Table(
            "Strongest features by themselves",
            ["Feature", "Rank correlation with failing"],
            [
                [name, number(value, 2)]
                for name, value in zip(names, strengths, strict=True)
            ],
        ),
    )
