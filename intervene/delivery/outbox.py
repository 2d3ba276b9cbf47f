"""The outbox: which messages wait, who has taken one, and what came of it.

A message is taken (`claim`) in a transaction that is committed before anything
leaves, and closed (`finish`) when the outcome is known. Whatever happens in
between, nobody takes it again: a claim without an outcome is *unknown* once its
sender must be dead, and a person decides (`resolve`).
"""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from intervene.store import (
    RELEASED,
    IllegalMove,
    Store,
    append_event,
    current,
    delivery_attempts,
    lock_message,
    message_events,
    messages,
    naive_utc,
    newest_attempt,
    newest_edit,
    newest_event,
)

# Longer than any attempt lasts: every step of one has a timeout of its own.
LEASE = timedelta(minutes=15)
# What a failed attempt waits for before the next: doubled from the first.
FIRST_WAIT = timedelta(minutes=5)
LONGEST_WAIT = timedelta(hours=6)
LONGEST_RETRY_AFTER = timedelta(days=1)
MOST_ATTEMPTS = 12

WAITING = ("approved", "scheduled")
# Reasons of a bounce that say nothing against the address: given up, refused for now,
# or a refusal of the text, the sender or the network (RFC 3463: x.3 to x.7).
NOT_THE_ADDRESS = re.compile(
    r"given up|^4\d\d|\b4\.\d|\b5\.[3-7]\.|at (DATA|final dot)|cannot be written"
)
Kind = Literal["accepted", "temporary", "permanent", "unknown"]


class NotClaimed(Exception):
    """The message cannot be taken now; the text says why."""


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt.

    Attributes
    ----------
    kind
        accepted; temporary (certainly not accepted, to be tried again); permanent
        (refused for good); unknown (it may have been accepted).
    reason
        A code and where it was met. Never the other side's words, which may
        quote an address.
    retry_after
        What the other side asked us to wait.
    lost
        The way out failed and not this message: another would fare no better.
    """

    kind: Kind
    reason: str
    retry_after: timedelta | None = None
    lost: bool = False


@dataclass(frozen=True)
class Cap:
    """Most messages that one student gets within so many days."""

    messages: int
    days: int


@dataclass(frozen=True)
class Claim:
    """One attempt at one message."""

    message_id: str
    attempt: int


def waiting(store: Store, source_system: str) -> list[dict[str, Any]]:
    """Messages to be sent, most pressing first, with their newest attempt."""
    newest = (
        sa.select(
            delivery_attempts.c.message_id,
            sa.func.max(delivery_attempts.c.attempt).label("attempt"),
        )
        .group_by(delivery_attempts.c.message_id)
        .subquery()
    )
    attempts = delivery_attempts.c
    found = store.rows(
        sa.select(current, attempts.attempt, attempts.outcome, attempts.retry_at)
        .join(newest, newest.c.message_id == current.c.message_id, isouter=True)
        .join(
            delivery_attempts,
            sa.and_(
                attempts.message_id == newest.c.message_id,
                attempts.attempt == newest.c.attempt,
            ),
            isouter=True,
        )
        .where(current.c.source_system == source_system)
        .where(current.c.state.in_(WAITING))
    )
    return sorted(
        found, key=lambda row: (row["due_at"] or datetime.max, row["message_id"])
    )


def contacted(store: Store, source_system: str, since: datetime) -> Counter[str]:
    """By student, the messages that went out since then, or may have."""
    reached = _reached(since).subquery()
    rows = store.rows(
        sa.select(messages.c.student_id, sa.func.count().label("count"))
        .join(reached, reached.c.message_id == messages.c.message_id)
        .where(messages.c.source_system == source_system)
        .group_by(messages.c.student_id)
    )
    return Counter({row["student_id"]: row["count"] for row in rows})


def claim(
    store: Store,
    message_id: str,
    worker: str,
    now: datetime,
    cap: Cap | None,
    edits: int = 0,
) -> Claim:
    """Take a message; once this returns nobody else can.

    Parameters
    ----------
    edits
        How often the text that is about to be sent had been edited when it was
        read; it may have been edited and approved again since.

    Raises
    ------
    NotClaimed
        It is no longer waiting, somebody else has it, its time has not come, its
        text is another by now, or its student has had enough messages, wants none,
        or cannot be reached this way.
    """
    with store.writing() as connection:
        is_forgotten = store.is_forgotten(connection)
        student = _lock_student(connection, message_id)
        if is_forgotten(student.source_system, student.student_id):
            raise NotClaimed("the student is to be forgotten")
        _, state = newest_event(connection, message_id)
        if state not in WAITING:
            raise NotClaimed(f"it is {state}")
        if newest_edit(connection, message_id) != edits:
            raise NotClaimed("its text was edited in the meantime")
        last = newest_attempt(connection, message_id)
        refusal = why_not_now(last.outcome, last.retry_at, now) if last else None
        if refusal:
            raise NotClaimed(refusal)
        against = what_is_against(connection, message_id)
        if against:
            raise NotClaimed(against[0][1])
        if cap and _count(connection, student, now, cap) >= cap.messages:
            raise NotClaimed("cap")
        if state == "approved":
            append_event(connection, message_id, "scheduled", worker, now)
        attempt = last.attempt + 1 if last else 1
        row = {
            "message_id": message_id,
            "attempt": attempt,
            "worker": worker,
            "claimed_at": naive_utc(now),
        }
        connection.execute(sa.insert(delivery_attempts), row)
    return Claim(message_id, attempt)


def what_is_against(
    connection: sa.Connection, message_id: str
) -> list[tuple[str, str]]:
    """Earlier messages that forbid to send this one, each with what came of it.

    The student called one unwanted, on whatever channel, or the address of this
    channel refused one for good, and no `release` came after it.
    """
    mine, theirs, events = messages.alias("mine"), messages, message_events
    rows = connection.execute(
        sa.select(
            theirs.c.message_id,
            (theirs.c.channel == mine.c.channel).label("same_channel"),
            events.c.event,
            events.c.reason,
        )
        .join(mine, theirs.c.student_id == mine.c.student_id)
        .join(events, events.c.message_id == theirs.c.message_id)
        .where(mine.c.message_id == message_id)
        .where(theirs.c.source_system == mine.c.source_system)
        .where(
            events.c.event.in_(("bounced", "complained"))
            | (events.c.reason == RELEASED)
        )
        .order_by(theirs.c.message_id, events.c.sequence)
    )
    newest = {row.message_id: row for row in rows}
    found = []
    for row in newest.values():
        bounced = row.event == "bounced" and row.same_channel
        if row.event == "complained":
            found.append((row.message_id, "the student wants no more messages"))
        elif bounced and not NOT_THE_ADDRESS.search(row.reason or ""):
            found.append((row.message_id, "the address bounced before"))
    return found


def release(store: Store, message_id: str, actor: str, now: datetime) -> None:
    """Let a message out: the address was put right, or the student wants it again.

    Raises
    ------
    IllegalMove
        Nothing is against this message.
    """
    with store.writing() as connection:
        against = what_is_against(connection, message_id)
        if not against:
            raise IllegalMove(f"Nothing that came back holds message {message_id}.")
        for other, _ in against:
            lock_message(connection, other)
            append_event(connection, other, "outcome", actor, now, RELEASED)


def why_not_now(
    outcome: str | None, retry_at: datetime | None, now: datetime
) -> str | None:
    """Why a message with such a newest attempt cannot be tried now."""
    if outcome in (None, "unknown"):
        return "an attempt without an outcome"
    if retry_at and naive_utc(now) < retry_at:
        return "to be tried again later"
    return None


def finish(
    store: Store, taken: Claim, outcome: Outcome, worker: str, now: datetime
) -> Outcome:
    """Write down what came of an attempt, and move the message accordingly.

    Returns
    -------
    Outcome
        As given, or permanent where a temporary refusal was one too many.

    Raises
    ------
    IllegalMove
        Somebody has resolved the attempt in the meantime.
    """
    if outcome.kind == "temporary" and taken.attempt >= MOST_ATTEMPTS:
        reason = f"{outcome.reason}; given up after {taken.attempt} attempts"
        outcome = Outcome("permanent", reason, lost=outcome.lost)
    retry_at = None
    if outcome.kind == "temporary":
        retry_at = naive_utc(now) + _wait(taken.attempt, outcome.retry_after)
    with store.writing() as connection:
        lock_message(connection, taken.message_id)
        _close(connection, taken, outcome, now, retry_at)
        event = {"accepted": "sent", "permanent": "bounced"}.get(outcome.kind)
        if event:
            why = outcome.reason if event == "bounced" else None
            append_event(connection, taken.message_id, event, worker, now, why)
    return outcome


def unknown(store: Store, now: datetime) -> list[dict[str, Any]]:
    """Attempts of which nobody knows whether they reached the student.

    `young` marks those whose sender may still be at work.
    """
    columns = delivery_attempts.c
    rows = store.rows(
        sa.select(
            delivery_attempts,
            messages.c.source_system,
            messages.c.student_id,
            messages.c.channel,
            messages.c.due_at,
        )
        .join(messages, messages.c.message_id == columns.message_id)
        .where(sa.or_(columns.outcome.is_(None), columns.outcome == "unknown"))
        .order_by(columns.claimed_at, columns.message_id)
    )
    return [row | {"young": _is_young(row, now)} for row in rows]


def resolve(
    store: Store, message_id: str, went_out: bool, actor: str, now: datetime
) -> None:
    """Close an unknown attempt by a person's word.

    Parameters
    ----------
    went_out
        True: the student has it, and it is recorded as sent when it was claimed.
        False: it never left, and is sent again.

    Raises
    ------
    IllegalMove
        Nothing is unknown about the message, or its sender may be at work.
    """
    with store.writing() as connection:
        lock_message(connection, message_id)
        last = newest_attempt(connection, message_id)
        if last is None or last.outcome not in (None, "unknown"):
            raise IllegalMove(f"Message {message_id} has no unknown attempt.")
        if _is_young(last._mapping, now):
            raise IllegalMove(
                f"Message {message_id} was taken by {last.worker} at "
                f"{last.claimed_at:%H:%M:%S} UTC, which may still be at work. "
                f"Decide {LEASE.seconds // 60} minutes after that."
            )
        taken = Claim(message_id, last.attempt)
        words = f"resolved by {actor}"
        if went_out:
            _close(connection, taken, Outcome("accepted", words), now, None)
            sent_at = last.claimed_at.replace(tzinfo=UTC)
            append_event(connection, message_id, "sent", actor, sent_at, words)
        else:
            _close(connection, taken, Outcome("temporary", words), now, None)


def _close(
    connection: sa.Connection,
    taken: Claim,
    outcome: Outcome,
    now: datetime,
    retry_at: datetime | None,
) -> None:
    columns = delivery_attempts.c
    closed = connection.execute(
        sa.update(delivery_attempts)
        .where(columns.message_id == taken.message_id)
        .where(columns.attempt == taken.attempt)
        .where(sa.or_(columns.outcome.is_(None), columns.outcome == "unknown"))
        .values(
            outcome=outcome.kind,
            reason=outcome.reason,
            finished_at=naive_utc(now),
            retry_at=retry_at,
        )
    )
    if closed.rowcount != 1:
        raise IllegalMove(
            f"Message {taken.message_id}: attempt {taken.attempt} was resolved in "
            "the meantime."
        )


def _wait(attempt: int, asked: timedelta | None) -> timedelta:
    if asked is not None:
        return min(max(asked, timedelta(seconds=1)), LONGEST_RETRY_AFTER)
    return min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT)


def _is_young(row: Any, now: datetime) -> bool:
    return row["outcome"] is None and naive_utc(now) < row["claimed_at"] + LEASE


def _lock_student(connection: sa.Connection, message_id: str) -> sa.Row[Any]:
    """Lock every message of the student, in one order, so that caps hold."""
    student = connection.execute(
        sa.select(messages.c.source_system, messages.c.student_id).where(
            messages.c.message_id == message_id
        )
    ).one()
    connection.execute(
        sa.select(messages.c.message_id)
        .where(messages.c.source_system == student.source_system)
        .where(messages.c.student_id == student.student_id)
        .order_by(messages.c.message_id)
        .with_for_update(key_share=True)
    )
    return student


def _count(
    connection: sa.Connection, student: sa.Row[Any], now: datetime, cap: Cap
) -> int:
    reached = _reached(now - timedelta(days=cap.days)).subquery()
    return connection.execute(
        sa.select(sa.func.count())
        .select_from(messages)
        .join(reached, reached.c.message_id == messages.c.message_id)
        .where(messages.c.source_system == student.source_system)
        .where(messages.c.student_id == student.student_id)
    ).scalar_one()


def _reached(since: datetime) -> sa.CompoundSelect[Any]:
    """Messages sent since then, or taken without an outcome: one row each."""
    sent = (
        sa.select(message_events.c.message_id)
        .where(message_events.c.event == "sent")
        .where(message_events.c.happened_at > naive_utc(since))
    )
    columns = delivery_attempts.c
    taken = sa.select(columns.message_id).where(
        sa.or_(columns.outcome.is_(None), columns.outcome == "unknown")
    )
    return sent.union(taken)
