"""Who is in which arm: drawn before anything is drafted, and kept in the store.

Both tables are append-only. A student is in at most one campaign at a time, and as
long as that holds gets what the arm says, or nothing at all from anybody.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from intervene.experiments.campaigns import (
    STUDY_DAYS,
    Campaign,
    CampaignError,
    Candidate,
    fits,
    what_changed,
)
from intervene.store import (
    Store,
    campaign_assignments,
    campaigns,
    messages,
    naive_utc,
)

ASSIGNMENT_LOCK = 20260306  # any number, the same for everyone and no other lock's


class DesignChanged(CampaignError):
    """A campaign that has begun is declared otherwise than when it began."""


@dataclass(frozen=True)
class Place:
    """The campaign and arm that a flagged student is in."""

    campaign: Campaign
    arm: str


@dataclass(frozen=True)
class Assigned:
    """Where each flagged student of a campaign is, and who is new there."""

    places: dict[str, Place]
    new: Counter[tuple[str, str]]


def registered(store: Store, source_system: str) -> dict[str, dict[str, Any]]:
    """The campaigns that have begun, as rows of `campaigns` by name."""
    with store.reading() as connection:
        return _registered(connection, source_system)


def assignments(store: Store, source_system: str) -> list[dict[str, Any]]:
    """All assignments of a source, in order of campaign and student."""
    with store.reading() as connection:
        return _assigned(connection, source_system)


def check_designs(
    declared: Iterable[Campaign], begun: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise DesignChanged, naming all that changed in campaigns that have begun."""
    lines = [
        f"  {campaign.name}: {line}"
        for campaign in declared
        if campaign.name in begun
        for line in what_changed(begun[campaign.name]["design"], campaign.design)
    ]
    if lines:
        raise DesignChanged(
            "Campaigns that have begun are declared otherwise than when their first "
            "student was assigned:\n"
            + "\n".join(lines)
            + "\nPut the old values back, or declare the new design under another "
            "name: results of two designs cannot be mixed."
        )


def assign(
    store: Store,
    declared: Sequence[Campaign],
    students: Iterable[Candidate],
    planned: Mapping[str, int],
    source_system: str,
    now: datetime,
    keep: bool = True,
) -> Assigned:
    """Draw an arm for every flagged student who enters a campaign today.

    One transaction that excludes every other: what two processes read is what they
    act on. A student enters the first campaign, in the order of the file, that runs
    on the day of the flag, has places left and has the student in its audience,
    unless a campaign holds the student already or somebody has written a message
    about the sitting, which no arm could take back.

    Parameters
    ----------
    declared
        In the order of the file.
    planned
        Students after which a campaign is full, by campaign that has not begun; one
        that has begun keeps the number it began with.
    now
        UTC.
    keep
        False draws and writes nothing down.

    Returns
    -------
    Assigned
        Also with students who were assigned on another day.

    Raises
    ------
    DesignChanged
        Nothing was assigned.
    """
    with store.writing() as connection:
        _exclude_others(connection)
        begun = _registered(connection, source_system)
        check_designs(declared, begun)
        designs = {
            name: Campaign.from_design(row["design"]) for name, row in begun.items()
        }
        # Of a campaign that has begun the kept design: in another order of the file
        # its arms would be drawn otherwise.
        declared = [designs.get(campaign.name, campaign) for campaign in declared]
        rows = _assigned(connection, source_system)
        book = _Book(
            designs,
            _by_student(rows),
            Counter(row["campaign"] for row in rows),
            {name: row["planned_students"] for name, row in begun.items()}
            | {name: n for name, n in planned.items() if name not in begun},
        )
        written_about = _written_about(connection, source_system)
        places, new = {}, []
        is_forgotten = store.is_forgotten(connection)
        for student in students:
            if is_forgotten(source_system, student.student_id):
                continue
            place = book.place_of(student)
            if place is None and _sitting(student) not in written_about:
                place = book.enter(student, declared, source_system)
                new += [] if place is None else [(student, place)]
            if place is not None:
                places[student.student_id] = place
        if keep:
            _write(connection, new, book.planned, begun, source_system, naive_utc(now))
    return Assigned(places, Counter((p.campaign.name, p.arm) for _, p in new))


@dataclass
class _Book:
    """Who is where, while students are assigned."""

    campaigns: dict[str, Campaign]
    held: dict[str, list[dict[str, Any]]]
    taken: Counter[str]
    planned: dict[str, int]

    def place_of(self, student: Candidate) -> Place | None:
        """The campaign that holds the student on the day of the flag."""
        for row in self.held.get(student.student_id, []):
            campaign = self.campaigns[row["campaign"]]
            if _holds(row, campaign, student):
                return Place(campaign, row["arm"])
        return None

    def enter(
        self, student: Candidate, declared: Sequence[Campaign], source_system: str
    ) -> Place | None:
        """The first campaign that has a place for the student, and the arm drawn."""
        earlier = {row["campaign"] for row in self.held.get(student.student_id, [])}
        for campaign in declared:
            name = campaign.name
            if (
                name not in earlier
                and campaign.runs_on(student.as_of_date)
                and self.taken[name] < self.planned.get(name, 0)
                and fits(campaign.audience, student)
            ):
                self.taken[name] += 1
                arm = campaign.draw(source_system, student.student_id)
                return Place(campaign, arm.name)
        return None


def _holds(row: Mapping[str, Any], campaign: Campaign, student: Candidate) -> bool:
    """A campaign holds its students while it runs, until the sitting that counts is
    over and the days of study that count are, and for that sitting for ever."""
    due_at = row["due_at"]
    counted = STUDY_DAYS if campaign.metric == "studied_within_14_days" else 0
    return (
        campaign.runs_on(student.as_of_date)
        or student.as_of_date < row["as_of_date"] + timedelta(days=counted)
        or (due_at is not None and due_at.date() >= student.as_of_date)
        or _sitting(student) == (row["student_id"], *_sitting_of(row))
    )


def _sitting(student: Candidate) -> tuple[str, str, str]:
    return student.student_id, student.course_run_id, student.assessment_id


def _sitting_of(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["course_run_id"], row["assessment_id"]


# ---------------------------------------------------------------- in the store


def _exclude_others(connection: sa.Connection) -> None:
    """Let one process assign at a time; SQLite's lock does already."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ASSIGNMENT_LOCK)))


def _registered(
    connection: sa.Connection, source_system: str
) -> dict[str, dict[str, Any]]:
    columns = campaigns.c
    query = sa.select(campaigns).where(columns.source_system == source_system)
    rows = connection.execute(query.order_by(columns.campaign)).mappings()
    return {row["campaign"]: dict(row) for row in rows}


def _assigned(connection: sa.Connection, source_system: str) -> list[dict[str, Any]]:
    columns = campaign_assignments.c
    query = sa.select(campaign_assignments).where(
        columns.source_system == source_system
    )
    query = query.order_by(columns.campaign, columns.student_id)
    return [dict(row) for row in connection.execute(query).mappings()]


def _by_student(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The newest assignment of each student first."""
    found: dict[str, list[dict[str, Any]]] = {}
    newest = sorted(rows, key=lambda row: (row["as_of_date"], row["campaign"]))
    for row in reversed(newest):
        found.setdefault(row["student_id"], []).append(dict(row))
    return found


def _written_about(
    connection: sa.Connection, source_system: str
) -> Collection[tuple[str, str, str]]:
    columns = messages.c
    query = sa.select(columns.student_id, columns.course_run_id, columns.assessment_id)
    found = connection.execute(query.where(columns.source_system == source_system))
    return {(row[0], row[1], row[2]) for row in found}


def _write(
    connection: sa.Connection,
    new: Sequence[tuple[Candidate, Place]],
    planned: Mapping[str, int],
    begun: Collection[str],
    source_system: str,
    now: datetime,
) -> None:
    starting = {place.campaign.name: place.campaign for _, place in new}
    for name in sorted(starting.keys() - set(begun)):
        campaign = starting[name]
        row = {
            "source_system": source_system,
            "campaign": name,
            "design": campaign.design,
            "design_hash": campaign.design_hash,
            "starts_on": campaign.start,
            "ends_on": campaign.end,
            "planned_students": planned[name],
            "registered_at": now,
        }
        connection.execute(sa.insert(campaigns), row)
    names = campaign_assignments.columns.keys()
    rows = [
        {name: value for name, value in asdict(student).items() if name in names}
        | {
            "source_system": source_system,
            "campaign": place.campaign.name,
            "arm": place.arm,
            "is_control": place.arm == place.campaign.control.name,
            "design_hash": place.campaign.design_hash,
            "assigned_at": now,
        }
        for student, place in new
    ]
    if rows:
        connection.execute(sa.insert(campaign_assignments), rows)
