"""What an advisor does to messages: approve, reject, undo, edit.

Each message is decided in a transaction of its own, so that one that cannot be
decided holds up no other. Whether a move is possible the store says; what is added
here is who was faster, and what becomes of the other variants.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa

from intervene.drafting.check import CHECKS, Problem, problems
from intervene.drafting.draft import due_day, make_context
from intervene.drafting.drafter import Context, Draft
from intervene.handover import Contact
from intervene.review.snapshot import Snapshot
from intervene.store import (
    SLOT,
    IllegalMove,
    Store,
    append_event,
    current,
    lock_message,
    message_edits,
    message_events,
    messages,
    naive_utc,
    newest_edit,
    newest_event,
    refuse_while_claimed,
)
from intervene.text import to_gsm7

# Followed by the id of the approved one, so that an undo finds what to bring back.
ANOTHER = "another variant was approved: "
LONGEST_REASON = 300
UNDONE = "undone"
EDITED = "edited"
EDITABLE = ("checked", "approved", "scheduled")


@dataclass(frozen=True)
class Seen:
    """A message as somebody had it before their eyes; None: as it is now."""

    message_id: str
    edits: int | None = None


@dataclass
class Result:
    """Messages that were decided, and why others were not."""

    done: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


class EditRefused(Exception):
    """An edit that was not stored, and why."""

    def __init__(self, found: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{item.check}: {item.reason}" for item in found))
        self.problems = tuple(found)


# ---------------------------------------------------------------- decisions


def approve(store: Store, chosen: Sequence[Seen], actor: str, now: datetime) -> Result:
    """Approve messages; the undecided other variants of each are rejected.

    Of the variants of one message (same sitting, campaign and step) one call
    approves one at most: which of them was meant is not for the program to say.
    """
    twice = _chosen_twice(store, chosen)

    def one(connection: sa.Connection, seen: Seen) -> None:
        if seen.message_id in twice:
            raise IllegalMove("several variants of this message were chosen; take one")
        variants = _lock_variants(connection, seen.message_id)
        _expect(connection, seen, ("checked",))
        append_event(connection, seen.message_id, "approved", actor, now)
        reason = f"{ANOTHER}{seen.message_id}"
        for other in variants:
            if newest_event(connection, other)[1] == "checked":
                append_event(connection, other, "rejected", actor, now, reason)

    return _each(store, chosen, one)


def reject(
    store: Store,
    chosen: Sequence[Seen],
    reason: str,
    actor: str,
    now: datetime,
    contacts: Mapping[str, Contact] | None = None,
) -> Result:
    """Reject messages that have not gone out.

    Parameters
    ----------
    reason
        Without personal data: it is stored, and copied to the warehouse.
    contacts
        By student, where they are known: whom the reason must not name.
    """
    words = " ".join(reason.split())

    def one(connection: sa.Connection, seen: Seen) -> None:
        student = connection.execute(
            sa.select(messages.c.student_id).where(
                messages.c.message_id == seen.message_id
            )
        ).scalar()
        wrong = why_not_a_reason(words, (contacts or {}).get(student or ""))
        if wrong:
            raise IllegalMove(wrong)
        lock_message(connection, seen.message_id)
        _expect(connection, seen, ("checked", "approved", "scheduled"))
        append_event(connection, seen.message_id, "rejected", actor, now, words)

    return _each(store, chosen, one)


def undo(store: Store, chosen: Sequence[Seen], actor: str, now: datetime) -> Result:
    """Put approved or rejected messages back to be decided, unless they are on the way.

    With an approval the rejections that it brought about are undone too.
    """

    def one(connection: sa.Connection, seen: Seen) -> None:
        variants = _lock_variants(connection, seen.message_id)
        _expect(connection, seen, ("approved", "scheduled", "rejected"))
        _put_back(connection, seen.message_id, variants, actor, now, UNDONE)

    return _each(store, chosen, one)


def _put_back(
    connection: sa.Connection,
    message_id: str,
    variants: Sequence[str],
    actor: str,
    now: datetime,
    why: str,
) -> None:
    """Undo a decision, and the rejections of other variants that came with it."""
    append_event(connection, message_id, "checked", actor, now, why)
    for other in variants:
        newest = _newest(connection, other)
        brought = ("rejected", f"{ANOTHER}{message_id}")
        if newest and (newest.event, newest.reason) == brought:
            append_event(connection, other, "checked", actor, now, why)


def why_not_a_reason(reason: str, contact: Contact | None = None) -> str | None:
    """Why a reason is not stored: empty, too long, or it holds personal data."""
    if not reason:
        return "a rejection needs a reason"
    if len(reason) > LONGEST_REASON:
        return f"the reason has more than {LONGEST_REASON} characters"
    nothing = Context(
        None, None, None, None, None, None, (), (), False, "en", "email", "supportive"
    )
    draft = _as_draft(None, reason)
    found = CHECKS["personal_data"](draft, nothing, contact or Contact(""))
    return f"the reason holds {found[0]}; leave it out" if found else None


def _each(
    store: Store,
    chosen: Sequence[Seen],
    one: Callable[[sa.Connection, Seen], None],
) -> Result:
    result = Result()
    for seen in dict.fromkeys(chosen):
        try:
            with store.writing() as connection:
                one(connection, seen)
        except IllegalMove as refusal:
            result.refused[seen.message_id] = str(refusal)
        else:
            result.done.append(seen.message_id)
    return result


def _chosen_twice(store: Store, chosen: Sequence[Seen]) -> set[str]:
    """Messages of which another variant was chosen too."""
    columns = [messages.c[name] for name in SLOT]
    ids = {seen.message_id for seen in chosen}
    rows = store.rows(
        sa.select(messages.c.message_id, *columns).where(messages.c.message_id.in_(ids))
    )
    slots = {row.pop("message_id"): tuple(row.values()) for row in rows}
    counts = Counter(slots.values())
    return {message_id for message_id, slot in slots.items() if counts[slot] > 1}


def _lock_variants(connection: sa.Connection, message_id: str) -> list[str]:
    """Lock a message and its other variants, in one order for everyone."""
    mine, theirs = messages.alias("mine"), messages
    same = [theirs.c[name].is_not_distinct_from(mine.c[name]) for name in SLOT]
    ids: sa.ScalarResult[str] = connection.execute(
        sa.select(theirs.c.message_id)
        .join(mine, sa.and_(*same))
        .where(mine.c.message_id == message_id)
        .order_by(theirs.c.message_id)
        .with_for_update(key_share=True, of=theirs)
    ).scalars()
    return [other for other in ids if other != message_id]


def _expect(connection: sa.Connection, seen: Seen, states: tuple[str, ...]) -> None:
    """Raise IllegalMove, saying who was faster, unless it is as it was seen."""
    newest = _newest(connection, seen.message_id)
    if newest is None:
        raise IllegalMove("there is no such message")
    refuse_while_claimed(connection, seen.message_id)
    if newest.event not in states:
        words = "waiting to be decided" if newest.event == "checked" else newest.event
        by = f" by {newest.actor} at {newest.happened_at:%H:%M} UTC"
        raise IllegalMove(f"already {words}{by}")
    if seen.edits not in (None, newest_edit(connection, seen.message_id)):
        raise IllegalMove(f"edited by {newest.actor} in the meantime; read it again")


def _newest(connection: sa.Connection, message_id: str) -> Any:
    columns = message_events.c
    return connection.execute(
        sa.select(message_events)
        .where(columns.message_id == message_id)
        .order_by(columns.sequence.desc())
        .limit(1)
    ).first()


# ---------------------------------------------------------------- edits


def edit(
    store: Store,
    seen: Seen,
    subject: str | None,
    body: str,
    snapshot: Snapshot | None,
    contact: Contact,
    actor: str,
    now: datetime,
) -> None:
    """Check a new text and make it the message's; an approval is taken back.

    Parameters
    ----------
    snapshot
        Of the sitting; without it nothing can be checked.
    contact
        Whom the checks compare the text with.

    Raises
    ------
    EditRefused
        With every check that the text did not pass: nothing was stored.
    IllegalMove
        The message is no longer as it was seen, or cannot be edited any more.
    """
    row = _current(store, seen.message_id)
    subject, body = _tidy(row, subject, body)
    if (subject, body) == (row["subject"], row["body"]):
        raise EditRefused([Problem("unchanged", "the text is as it was")])
    if snapshot is None:
        reason = "why the student was flagged is not known; run `draft` again"
        raise EditRefused([Problem("facts", reason)])
    true_on = _true_on(row, contact, now)
    context = _context(row, snapshot, contact, true_on)
    others = _others(store, row) if row["drafter"] != "template" else ()
    found = problems(_as_draft(subject, body), context, contact, others)
    if found:
        raise EditRefused(found)
    with store.writing() as connection:
        variants = _lock_variants(connection, seen.message_id)
        _expect(connection, seen, EDITABLE)
        number = newest_edit(connection, seen.message_id) + 1
        text = {
            "message_id": seen.message_id,
            "edit": number,
            "actor": actor,
            "subject": subject,
            "body": body,
            "true_on": true_on,
            "edited_at": naive_utc(now),
        }
        connection.execute(sa.insert(message_edits), text)
        if newest_event(connection, seen.message_id)[1] != "checked":
            _put_back(connection, seen.message_id, variants, actor, now, EDITED)
        for event in ("drafted", "checked"):
            append_event(connection, seen.message_id, event, actor, now, EDITED)


def _current(store: Store, message_id: str) -> dict[str, Any]:
    rows = store.rows(sa.select(current).where(current.c.message_id == message_id))
    if not rows:
        raise IllegalMove("there is no such message")
    return rows[0]


def _tidy(
    row: dict[str, Any], subject: str | None, body: str
) -> tuple[str | None, str]:
    """The text as a drafter would have laid it out."""
    lines = [line.rstrip() for line in body.replace("\r\n", "\n").split("\n")]
    body = "\n".join(lines).strip()
    if row["channel"] == "sms":
        return None, to_gsm7(body) or body
    return " ".join((subject or "").split()), body


def _true_on(row: dict[str, Any], contact: Contact, now: datetime) -> date:
    """The day that the text's dates are checked for: today, while it can be sent.

    What is over is not sent; then the day of the flag still tells right from wrong,
    which lets past data be worked through as well.
    """
    today = max(now.astimezone(UTC).date(), row["as_of_date"])
    over = row["due_at"] is not None and due_day(row["due_at"], contact) < today
    return row["as_of_date"] if over else today


def _context(
    row: dict[str, Any], snapshot: Snapshot, contact: Contact, today: date
) -> Context:
    """What the drafter knew, as of today, in the language that it wrote in."""
    flag = replace(snapshot.flag, as_of_date=today)
    context = make_context(flag, contact, row["tone"], row["channel"])
    return replace(context, locale=row["locale"])


def _others(store: Store, row: dict[str, Any]) -> tuple[str, ...]:
    """Bodies of the other messages to the same student."""
    rows = store.rows(
        sa.select(current.c.body)
        .where(current.c.source_system == row["source_system"])
        .where(current.c.student_id == row["student_id"])
        .where(current.c.message_id != row["message_id"])
    )
    return tuple(other["body"] for other in rows)


def _as_draft(subject: str | None, body: str) -> Draft:
    """A text that has no parts any more: each part is all of it."""
    return Draft(subject, body, body, (body,), body, body)
