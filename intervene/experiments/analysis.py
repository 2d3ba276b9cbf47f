"""Campaigns between warehouse, store and reader: drawn, planned, analysed."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import duckdb
import pandas as pd

from intervene.drafting.draft import Policy, choose_locale
from intervene.experiments.assignments import (
    Assigned,
    assign,
    assignments,
    check_designs,
    registered,
)
from intervene.experiments.campaigns import Campaign, CampaignError, Candidate, fits
from intervene.experiments.power import (
    Hopeless,
    Plan,
    describe,
    expect,
    make_plan,
    refuse_hopeless,
)
from intervene.handover import Contact, Flag, read_columns
from intervene.store import Store
from ml.settings import Settings
from ml.warehouse import (
    WarehouseMissing,
    create_handback_tables,
    find_handback_table,
    read_pipeline_settings,
    read_rows,
    replace_rows,
    table_exists,
    transaction,
)

EFFECTS = "intervene.experiment_effects"
CANDIDATE_COLUMNS = {
    "student_id": "varchar",
    "course_id": "varchar",
    "course_run_id": "varchar",
    "assessment_id": "varchar",
    "assessment_kind": "varchar",
    "due_at": "timestamp",
    "as_of_date": "date",
    "lead_days": "integer",
    "risk_score": "double",
    "risk_band": "varchar",
    "engagement_zone": "varchar",
    "flag_policy": "varchar",
    "run_id": "varchar",
}
PAST_COLUMNS = [
    "student_id",
    "course_id",
    "course_run_id",
    "assessment_id",
    "as_of_date",
    "lead_days",
    "contacted_before_due",
    "at_risk",
    "risk_score",
]


@dataclass(frozen=True)
class Evidence:
    """What the warehouse says to campaigns.

    Attributes
    ----------
    candidates
        Every flagged student, most pressing first.
    history
        `ml.evaluation_predictions` of the champion; empty without one.
    observed
        Share of the past questions whose outcome became known.
    today
        The day that the warehouse scores.
    """

    candidates: list[Candidate]
    history: pd.DataFrame
    observed: float
    today: date


@dataclass(frozen=True)
class Batch:
    """Flags that are drafted for alike."""

    flags: list[Flag]
    policy: Policy
    drafter: str


# ---------------------------------------------------------------- before drafting


def read_evidence(
    connection: duckdb.DuckDBPyConnection, contacts: Mapping[str, Contact]
) -> Evidence:
    """Read today's flags and the past that says what to expect of them."""
    built = read_pipeline_settings(connection)
    rows = []
    if table_exists(connection, "flagged_students"):
        order = ["flag_rank", "student_id"]
        rows = read_columns(
            connection, "main", "flagged_students", CANDIDATE_COLUMNS, order
        )
    candidates = [
        Candidate(
            **row,
            locale=choose_locale(contacts.get(row["student_id"])),
            has_opted_out=_has_opted_out(contacts.get(row["student_id"])),
        )
        for row in rows
    ]
    return Evidence(
        candidates=candidates,
        history=_read_history(connection, built.source_system, built.target_definition),
        observed=_read_observed(connection),
        today=max((c.as_of_date for c in candidates), default=built.as_of_date),
    )


def _has_opted_out(contact: Contact | None) -> bool:
    return contact is not None and contact.opted_out_at is not None


def _read_history(
    connection: duckdb.DuckDBPyConnection, source_system: str, target_definition: str
) -> pd.DataFrame:
    tables = ("evaluation_predictions", "model_runs")
    if not all(table_exists(connection, name, "ml") for name in tables):
        return pd.DataFrame(columns=PAST_COLUMNS)
    columns = ", ".join(f"predictions.{name}" for name in PAST_COLUMNS)
    return connection.execute(
        f"select {columns} from ml.evaluation_predictions as predictions"
        " inner join ml.model_runs as runs on predictions.run_id = runs.run_id"
        " where runs.status = 'champion' and runs.source_system = ?"
        " and runs.target_definition = ?",
        [source_system, target_definition],
    ).df()


def _read_observed(connection: duckdb.DuckDBPyConnection) -> float:
    if not table_exists(connection, "student_targets"):
        return 1.0
    row = connection.execute(
        "select avg(case when label_status = 'matured' then 1.0 else 0.0 end)"
        " from main.student_targets"
        " where is_training_point and label_status <> 'pending'"
    ).fetchone()
    return float(row[0]) if row and row[0] else 1.0


def make_plans(
    declared: Sequence[Campaign], evidence: Evidence, settings: Settings
) -> list[Plan]:
    """What each campaign needs and can get.

    Raises
    ------
    Hopeless
        Naming every campaign about which nothing can be said.
    """
    plans, problems = [], []
    for campaign in declared:
        expected = expect(
            campaign,
            evidence.candidates,
            evidence.history,
            evidence.observed,
            settings.flag_capacity,
        )
        try:
            plans.append(make_plan(campaign, expected, evidence.today))
        except Hopeless as error:
            problems.append(str(error))
    if problems:
        raise Hopeless("\n".join(problems))
    return plans


def draw_arms(
    store: Store,
    declared: Sequence[Campaign],
    evidence: Evidence,
    settings: Settings,
    source_system: str,
    now: datetime,
    keep: bool,
    limit: int | None = None,
) -> Assigned:
    """Assign the flagged students to campaigns; nothing is kept unless `keep`.

    Parameters
    ----------
    limit
        Only so many students, by rank. What a campaign needs and can get does not
        depend on it: that is kept when the first student is assigned.

    Raises
    ------
    Hopeless
        A campaign that would begin today cannot find what it looks for.
    DesignChanged
        A campaign that has begun is declared otherwise.
    """
    begun = registered(store, source_system)
    check_designs(declared, begun)
    starting = [
        campaign
        for campaign in declared
        if campaign.name not in begun
        and campaign.runs_on(evidence.today)
        and any(fits(campaign.audience, student) for student in evidence.candidates)
    ]
    plans = make_plans(starting, evidence, settings)
    refuse_hopeless(plans)
    planned = {plan.campaign.name: plan.planned for plan in plans}
    students = evidence.candidates[:limit]
    return assign(store, declared, students, planned, source_system, now, keep)


def divide(
    flags: Sequence[Flag],
    assigned: Assigned,
    policy: Policy,
    drafter: str,
    only: str | None,
) -> tuple[list[Batch], Counter[str]]:
    """Divide flags by who decides what is written, and count who gets nothing.

    Parameters
    ----------
    policy, drafter
        Of the students whom no campaign holds.
    only
        A campaign to which drafting is limited; None for everybody.
    """
    batches: dict[tuple[str, str], Batch] = {}
    without: Counter[str] = Counter()
    usual = Batch([], policy, drafter)
    for flag in flags:
        place = assigned.places.get(flag.student_id)
        if place is None:
            if only is None:
                usual.flags.append(flag)
            continue
        name = place.campaign.name
        if place.arm == place.campaign.control.name:
            without[f"control of {name}"] += 1
        elif only in (None, name):
            arm = next(arm for arm in place.campaign.arms if arm.name == place.arm)
            new = Batch(
                [],
                Policy(name, arm.tone, arm.channel),
                arm.drafter or drafter,
            )
            batches.setdefault((name, arm.name), new).flags.append(flag)
    found = [batches[key] for key in sorted(batches)]
    # Without any batch a run would have nothing to say.
    return [*found, usual] if usual.flags or not found else found, without


def describe_assigned(assigned: Assigned) -> list[str]:
    """A line for each arm that got new students."""
    return [
        f"assigned:      {count:,} to {arm} of {campaign}"
        for (campaign, arm), count in sorted(assigned.new.items())
    ]


# ---------------------------------------------------------------- the command


def overview(
    declared: Sequence[Campaign],
    store: Store,
    evidence: Evidence,
    settings: Settings,
    source_system: str,
) -> tuple[str, str]:
    """What `python -m intervene campaigns` shows, and what is wrong; empty for
    nothing."""
    begun = registered(store, source_system)
    check_designs(declared, begun)
    counts = Counter(
        (row["campaign"], row["arm"]) for row in assignments(store, source_system)
    )
    lines = [
        f"{name}: begun, {_told_counts(name, counts)} of "
        f"{row['planned_students']:,} planned students, until {row['ends_on']}"
        for name, row in begun.items()
    ]
    plans = make_plans([c for c in declared if c.name not in begun], evidence, settings)
    lines += [describe(plan) for plan in plans]
    hopeless = [
        plan.campaign.name
        for plan in plans
        if plan.is_hopeless and not plan.campaign.allow_underpowered
    ]
    if not lines:
        lines = ["No campaign is declared or has begun (CAMPAIGNS)."]
    trouble = f"Hopeless as declared: {', '.join(hopeless)}." if hopeless else ""
    return "\n".join(lines), trouble


def _told_counts(campaign: str, counts: Counter[tuple[str, str]]) -> str:
    arms = sorted(key for key in counts if key[0] == campaign)
    return " + ".join(f"{counts[key]:,} {key[1]}" for key in arms)


# ---------------------------------------------------------------- afterwards


def analyse_campaigns(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> pd.DataFrame:
    """Replace `intervene.experiment_effects` by the effects of every campaign.

    Everything comes from the warehouse: designs and arms as they were copied from the
    store, outcomes from the mart `experiment_outcomes`.

    Raises
    ------
    WarehouseMissing
        The mart has not been built.
    CampaignError
        The mart is older than the assignments.
    """
    # It needs SciPy, whose import takes longer than most commands.
    from intervene.experiments.effects import Experiment, analyse

    if not table_exists(connection, "experiment_outcomes"):
        raise WarehouseMissing(
            "The warehouse has no table experiment_outcomes. Build it with `dbt build`."
        )
    create_handback_tables(connection, "intervene")
    outcomes = connection.execute("select * from main.experiment_outcomes").df()
    _require_fresh(connection, outcomes)
    until = read_pipeline_settings(connection).data_until
    frames = []
    for row in read_rows(connection, "intervene.campaigns", {}).to_dict("records"):
        campaign = Campaign.from_design(str(row["design"]))
        frames.append(
            analyse(
                Experiment(
                    campaign=campaign,
                    planned=int(row["planned_students"]),
                    students=outcomes[outcomes["campaign"] == campaign.name],
                    data_until=until,
                    contact_cost=_first(campaign.contact_cost, settings.contact_cost),
                    pass_value=_first(campaign.pass_value, settings.pass_value),
                )
            )
        )
    columns = list(find_handback_table(EFFECTS).columns)
    found = pd.DataFrame(columns=columns)
    if frames:
        found = pd.concat(frames, ignore_index=True)[columns]
    with transaction(connection):
        replace_rows(connection, EFFECTS, found, where={})
    return found


def _first(declared: float | None, setting: float | None) -> float | None:
    return setting if declared is None else declared


def _require_fresh(
    connection: duckdb.DuckDBPyConnection, outcomes: pd.DataFrame
) -> None:
    [(assigned,)] = connection.execute(
        "select count(*) from intervene.campaign_assignments"
    ).fetchall()
    if assigned != len(outcomes):
        raise CampaignError(
            f"experiment_outcomes has {len(outcomes):,} students, "
            f"intervene.campaign_assignments {assigned:,}. Run `dbt build --select "
            "source:intervene+` and analyse again."
        )


def describe_effects(effects: pd.DataFrame) -> str:
    """The verdicts in words: what was asked first, then what went wrong."""
    if effects.empty:
        return "No campaign has begun: there is nothing to analyse."
    lines: list[str] = []
    for campaign, rows in effects.groupby("campaign", sort=True):
        lines.append(f"{campaign}:")
        lines += [_told(row) for row in rows.to_dict("records") if _is_told(row)]
    return "\n".join(lines)


def _is_told(row: Mapping[Hashable, Any]) -> bool:
    return row["role"] != "subgroup" or row["verdict"] == "differs"


def _told(row: Mapping[Hashable, Any]) -> str:
    arm = "" if row["arm"] == "all" else f"{row['arm']} against control, "
    where = "" if row["subgroup"] == "all" else f" in {row['subgroup']}"
    return f"  {arm}{row['metric']}{where}: {row['verdict']}. {row['note']}"
