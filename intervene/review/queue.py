"""What the page shows: messages by view, grouped by what they are about."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from intervene.drafting.drafter import CHANNELS, TONES
from intervene.review.snapshot import Snapshot, from_row, same_sitting
from intervene.store import (
    DRAFTING,
    MOVES,
    SLOT,
    Store,
    current,
    flag_snapshots,
    message_edits,
    message_events,
    messages,
    naive_utc,
)

# Which states each view shows.
VIEWS: dict[str, tuple[str, ...]] = {
    "waiting": ("checked",),
    "approved": ("approved", "scheduled"),
    "rejected": ("rejected",),
}
# Whatever else a message can be is what came of sending it.
VIEWS["sent"] = tuple(
    state
    for state in MOVES
    if state and state not in {*DRAFTING, *sum(VIEWS.values(), ())}
)
CASES_PER_PAGE = 20
NO_RANK = 2**31 - 1


@dataclass(frozen=True)
class Case:
    """One message to decide about: its variants, and why the student was flagged."""

    student_id: str
    due_at: datetime | None
    campaign: str
    step: int
    over: bool
    snapshot: Snapshot | None
    variants: list[dict[str, Any]]


@dataclass(frozen=True)
class Page:
    """One page of a view. `counts` are messages by view, of every student."""

    cases: list[Case]
    number: int
    pages: int
    total: int
    counts: dict[str, int]


def read_page(
    store: Store,
    source_system: str,
    view: str,
    number: int,
    student_id: str,
    now: datetime,
) -> Page:
    """Read one page, most urgent first; a number beyond the last is the last.

    Urgent is what is due first; at the same due time the better rank. What has no
    due time comes after, then what is over. Decided messages: newest first.
    """
    slot = [current.c[name] for name in SLOT]
    matching = sa.and_(
        current.c.source_system == source_system,
        current.c.state.in_(VIEWS[view]),
        *([current.c.student_id == student_id] if student_id else []),
    )
    rank = sa.func.coalesce(sa.func.min(flag_snapshots.c.flag_rank), NO_RANK)
    over = sa.case(
        (current.c.due_at < naive_utc(now), 2), (current.c.due_at.is_(None), 1), else_=0
    )
    urgency = [over, current.c.due_at, rank]
    if view != "waiting":
        urgency = [sa.func.max(current.c.state_at).desc()]
    grouped = sa.select(*slot).where(matching).group_by(*slot)
    with store.reading() as connection:
        total = connection.execute(
            sa.select(sa.func.count()).select_from(grouped.subquery())
        ).scalar_one()
        pages = max(1, -(-total // CASES_PER_PAGE))
        number = min(max(number, 1), pages)
        found = connection.execute(
            grouped.select_from(
                sa.outerjoin(current, flag_snapshots, same_sitting(current.c))
            )
            .order_by(*urgency, *slot)
            .limit(CASES_PER_PAGE)
            .offset((number - 1) * CASES_PER_PAGE)
        ).all()
        students = {row.student_id for row in found}
        variants = _variants(connection, source_system, students)
        snapshots = _snapshots(connection, source_system, students)
        counts = _counts(connection, source_system)
    cases = [
        Case(
            student_id=row.student_id,
            due_at=row.due_at,
            campaign=row.campaign,
            step=row.step,
            over=row.due_at is not None and row.due_at < naive_utc(now),
            snapshot=snapshots.get(tuple(row)[: SLOT.index("campaign")]),
            variants=variants[tuple(row)],
        )
        for row in found
    ]
    return Page(cases, number, pages, total, counts)


@dataclass(frozen=True)
class History:
    """A message with its case, the texts that it had, and what happened to it."""

    message: dict[str, Any]
    case: Case
    texts: list[dict[str, Any]]
    events: list[dict[str, Any]]


def read_message(
    store: Store, source_system: str, message_id: str, now: datetime
) -> History | None:
    """Read one message with everything about it; None where there is none."""
    with store.reading() as connection:
        drafted = connection.execute(
            sa.select(messages).where(
                messages.c.message_id == message_id,
                messages.c.source_system == source_system,
            )
        ).first()
        if drafted is None:
            return None
        student = {drafted.student_id}
        slot = tuple(getattr(drafted, name) for name in SLOT)
        variants = _variants(connection, source_system, student)[slot]
        snapshots = _snapshots(connection, source_system, student)
        edits = _of_message(connection, message_edits, message_id)
        events = _of_message(connection, message_events, message_id)
    first = {
        "actor": drafted.drafter,
        "subject": drafted.subject,
        "body": drafted.body,
        "edited_at": drafted.created_at,
    }
    case = Case(
        student_id=drafted.student_id,
        due_at=drafted.due_at,
        campaign=drafted.campaign,
        step=drafted.step,
        over=drafted.due_at is not None and drafted.due_at < naive_utc(now),
        snapshot=snapshots.get(slot[: SLOT.index("campaign")]),
        variants=variants,
    )
    [message] = [row for row in variants if row["message_id"] == message_id]
    return History(message, case, [first, *edits], events)


def read_names(
    store: Store, message_ids: list[str], source_system: str | None = None
) -> dict[str, str]:
    """How to call messages in a sentence: `email (urgent) to student s1`."""
    query = sa.select(messages).where(messages.c.message_id.in_(message_ids))
    if source_system is not None:
        query = query.where(messages.c.source_system == source_system)
    return {
        row["message_id"]: f"{row['channel'].replace('_', '-')} "
        f"({row['tone'].replace('_', ' ')}) to student {row['student_id']}"
        for row in store.rows(query)
    }


def _variants(
    connection: sa.Connection, source_system: str, students: set[str]
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    rows = connection.execute(
        sa.select(current)
        .where(current.c.source_system == source_system)
        .where(current.c.student_id.in_(students))
    ).mappings()
    found = defaultdict(list)
    for row in sorted(rows, key=_order):
        found[tuple(row[name] for name in SLOT)].append(dict(row))
    return found


def _order(row: Any) -> tuple[int, int, str]:
    return (
        CHANNELS.index(row["channel"]),
        TONES.index(row["tone"]),
        row["message_id"],
    )


def _snapshots(
    connection: sa.Connection, source_system: str, students: set[str]
) -> dict[tuple[Any, ...], Snapshot]:
    """By source and sitting."""
    rows = connection.execute(
        sa.select(flag_snapshots)
        .where(flag_snapshots.c.source_system == source_system)
        .where(flag_snapshots.c.student_id.in_(students))
    ).mappings()
    names = SLOT[: SLOT.index("campaign")]
    return {tuple(row[name] for name in names): from_row(row) for row in rows}


def _counts(connection: sa.Connection, source_system: str) -> dict[str, int]:
    rows = connection.execute(
        sa.select(current.c.state, sa.func.count())
        .where(current.c.source_system == source_system)
        .group_by(current.c.state)
    ).all()
    by_state: dict[str, int] = {row[0]: row[1] for row in rows}
    return {
        view: sum(by_state.get(state, 0) for state in states)
        for view, states in VIEWS.items()
    }


def _of_message(
    connection: sa.Connection, table: sa.Table, message_id: str
) -> list[dict[str, Any]]:
    rows = connection.execute(
        sa.select(table)
        .where(table.c.message_id == message_id)
        .order_by(*table.primary_key.columns)
    ).mappings()
    return [dict(row) for row in rows]
