"""Sending what advisors approved: looked at again, taken, handed over, recorded.

What may have changed since a message was drafted is looked at here: opt-outs,
quiet hours, caps, a stop, the due time, the days that the text counts. Names
and addresses are merged here, from the warehouse, and are never stored.
"""

import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from intervene.delivery.channels import Channel, ChannelDown, Letter
from intervene.delivery.outbox import (
    Cap,
    NotClaimed,
    claim,
    contacted,
    finish,
    naive_utc,
    waiting,
    what_is_against,
    why_not_now,
)
from intervene.drafting.draft import due_day
from intervene.drafting.drafter import Context
from intervene.drafting.facts import invented_dates
from intervene.handover import Contact
from intervene.store import IllegalMove, Store
from intervene.text import one_line
from ml.settings import Settings

STOP_FILE = "intervene.stop"
# So often in a row a way out may fail before the rest of the run is spared.
MOST_FAILURES = 3
LONGEST_NAME = 40
HOW_TO_RESOLVE = (
    "Look on the other side (the mail server's log by Message-ID, the service's list, "
    "the folder) whether it has the message, then:\n"
    "  python -m intervene send --resolve MESSAGE_ID sent     it was taken\n"
    "  python -m intervene send --resolve MESSAGE_ID retry    it was not; send it again"
)
ADDRESS = re.compile(r"[\w.+'&=/-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", re.ASCII)
# With the country: what a national number means depends on who reads it.
PHONE = re.compile(r"\+[1-9]\d{6,14}")
PHONE_PUNCTUATION = re.compile(r"[\s()./-]")

Action = Literal[
    "sent", "queued", "bounced", "unknown", "held", "rejected", "returned", "would send"
]


@dataclass(frozen=True)
class Verdict:
    """Why a message is not sent now.

    held: looked at again by the next run. rejected: for good. returned: an advisor
    has to read it again.
    """

    action: Action
    reason: str


@dataclass(frozen=True)
class Line:
    """What became of one message in one run; the text keeps its placeholders."""

    message_id: str
    student_id: str
    channel: str
    action: Action
    reason: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Rules:
    """What is looked at when sending."""

    quiet: tuple[time, time] | None
    timezone: str
    cap: Cap | None
    stopped: bool
    stop_file: Path

    @classmethod
    def from_settings(cls, settings: Settings) -> "Rules":
        """The rules that the settings state."""
        begin, _, end = settings.quiet_hours.partition("-")
        most = settings.contact_cap
        return cls(
            quiet=(time.fromisoformat(begin), time.fromisoformat(end)) if end else None,
            timezone=settings.delivery_timezone,
            cap=Cap(most, settings.contact_cap_days) if most else None,
            stopped=settings.intervene_stop,
            stop_file=settings.warehouse_path.with_name(STOP_FILE),
        )

    def why_stopped(self) -> str | None:
        """Who has stopped all sending; asked before every message."""
        if self.stopped:
            return "INTERVENE_STOP is set"
        if self.stop_file.exists():
            return f"there is a file {self.stop_file}"
        return None


# ---------------------------------------------------------------- the run


class Sender:
    """One run over everything that waits.

    Parameters
    ----------
    contacts
        By student, as the warehouse has them now.
    channels
        By the channel of a message.
    clock
        The present, asked anew for every message: quiet hours may begin.
    dry_run
        Decide everything, write and send nothing.
    """

    def __init__(
        self,
        store: Store,
        contacts: Mapping[str, Contact],
        channels: Mapping[str, Channel],
        rules: Rules,
        clock: Callable[[], datetime],
        dry_run: bool = False,
    ) -> None:
        self._store, self._contacts, self._channels = store, contacts, channels
        self._rules, self._clock, self._dry_run = rules, clock, dry_run
        self._failures: Counter[str] = Counter()
        self._worker = f"send@{socket.gethostname()}:{os.getpid()}"
        self.down: dict[str, str] = {}
        self.stopped: str | None = None

    def run(self, source_system: str) -> Iterator[Line]:
        """Send what can be sent; one line for each message as it happens."""
        now = self._clock()
        cap = self._rules.cap
        since = now - timedelta(days=cap.days if cap else 1)
        self._sent = contacted(self._store, source_system, since)
        try:
            for row in waiting(self._store, source_system):
                self.stopped = self._rules.why_stopped()
                if self.stopped:
                    return
                yield _line(row, self._one(row))
        finally:
            for channel in self._channels.values():
                channel.close()

    def trouble(self, attempts: list[dict[str, Any]]) -> str | None:
        """What a person has to look at after the run; None where it is nothing."""
        lost = sum(not row["young"] for row in attempts)
        lines = [self.stopped and f"Stopped: {self.stopped}.", *self.down.values()]
        if lost:
            lines.append(
                f"Of {lost:,} messages it is unknown whether they went out. "
                "`python -m intervene send --unknown` lists them and says what to do."
            )
        return "\n".join(filter(None, lines)) or None

    def _one(self, row: dict[str, Any]) -> Verdict:
        now = self._clock()
        contact = self._contacts.get(row["student_id"])
        verdict = judge(row, contact, self._rules, self._sent[row["student_id"]], now)
        verdict = verdict or self._without_way_out(row["channel"])
        if verdict:
            return self._apply(row, verdict, now)
        if self._dry_run:
            # Else the claim finds out, under its lock.
            with self._store.reading() as connection:
                against = what_is_against(connection, row["message_id"])
            if against:
                return Verdict("held", against[0][1])
            self._sent[row["student_id"]] += 1
            return Verdict("would send", "")
        return self._deliver(row, write_letter(row, contact), now)

    def _without_way_out(self, name: str) -> Verdict | None:
        if name not in self._channels:
            return Verdict("held", f"no way out for {name} is set")
        if name not in self.down and not self._dry_run:
            try:
                self._channels[name].prepare()
            except ChannelDown as error:
                self.down[name] = str(error)
        return Verdict("held", f"{name} is down") if name in self.down else None

    def _apply(self, row: dict[str, Any], verdict: Verdict, now: datetime) -> Verdict:
        event = {"rejected": "rejected", "returned": "checked"}.get(verdict.action)
        if event and not self._dry_run:
            try:
                self._store.record(
                    row["message_id"], event, self._worker, now, verdict.reason
                )
            except IllegalMove:
                return Verdict("held", "another process changed it")
        return verdict

    def _deliver(self, row: dict[str, Any], letter: Letter, now: datetime) -> Verdict:
        """Take it (committed), hand it over, write down what came of it."""
        name = row["channel"]
        try:
            taken = claim(
                self._store,
                letter.message_id,
                self._worker,
                now,
                self._rules.cap,
                row["edits"],
            )
        except NotClaimed as error:
            return Verdict("held", str(error))
        outcome = self._channels[name].send(letter)
        try:
            outcome = finish(self._store, taken, outcome, self._worker, self._clock())
        except IllegalMove as error:
            return Verdict("unknown", f"{outcome.kind}, but {error}")
        self._failures[name] = self._failures[name] + 1 if outcome.lost else 0
        if self._failures[name] >= MOST_FAILURES:
            self.down[name] = f"{name} failed {MOST_FAILURES} times: {outcome.reason}."
        if outcome.kind in ("accepted", "unknown"):
            self._sent[row["student_id"]] += 1
        actions: dict[str, Action] = {
            "accepted": "sent",
            "temporary": "queued",
            "permanent": "bounced",
            "unknown": "unknown",
        }
        return Verdict(actions[outcome.kind], outcome.reason)


def _line(row: dict[str, Any], verdict: Verdict) -> Line:
    parts = filter(None, (row["subject"], row["body"]))
    return Line(
        row["message_id"],
        row["student_id"],
        row["channel"],
        verdict.action,
        verdict.reason,
        "\n\n".join(parts),
    )


# ---------------------------------------------------------------- may it go?


def judge(
    row: Mapping[str, Any],
    contact: Contact | None,
    rules: Rules,
    sent: int,
    now: datetime,
) -> Verdict | None:
    """Why this message does not go out now; None where it may.

    Parameters
    ----------
    row
        A message with its newest attempt, as `waiting` returns it.
    sent
        Messages that its student got within the days of the cap.
    """
    if row["attempt"] is not None:
        refusal = why_not_now(row["outcome"], row["retry_at"], now)
        if refusal:
            return Verdict("held", refusal)
    if contact and contact.opted_out_at:
        return Verdict("rejected", "the student has opted out")
    return (
        _out_of_date(row, contact, rules, now)
        or _cannot_be_addressed(row, contact)
        or _not_now(contact, rules, sent, now)
    )


def _out_of_date(
    row: Mapping[str, Any], contact: Contact | None, rules: Rules, now: datetime
) -> Verdict | None:
    if not row["body"]:
        return Verdict("rejected", "its text is no longer kept")
    due_at = row["due_at"]
    if due_at is None:
        return None
    if due_at <= naive_utc(now):
        return Verdict("rejected", "the due time has passed")
    due, today = due_day(due_at, contact), _local(now, contact, rules).date()
    # What is untrue today and was true on the day for which the text was checked:
    # the days it counts. Titles that the text quotes are no part of the difference.
    if _untrue(row, due, today) - _untrue(row, due, row["true_on"]):
        left = (due - today).days
        return Verdict("returned", f"the text counts the days, and {left} are left")
    return None


def _untrue(row: Mapping[str, Any], due: date, today: date) -> set[str]:
    """What the checks of a draft would say against the text's dates that day."""
    context = Context(
        course=None,
        assessment=None,
        kind=None,
        due_on=due,
        days_left=(due - today).days,
        zone=None,
        topics=(),
        reasons=(),
        has_name=True,
        locale=row["locale"],
        channel=row["channel"],
        tone=row["tone"],
    )
    return set(invented_dates(f"{row['subject'] or ''}\n{row['body']}", context))


def _cannot_be_addressed(
    row: Mapping[str, Any], contact: Contact | None
) -> Verdict | None:
    missing = {"email": "email address", "sms": "phone number with its country"}
    wanted = missing.get(row["channel"])
    if wanted and address_of(row["channel"], contact) is None:
        return Verdict("held", f"no usable {wanted}")
    if "{first_name}" in f"{row['subject']}{row['body']}" and not _name(contact):
        return Verdict("held", "no first name for the greeting")
    return None


def _not_now(
    contact: Contact | None, rules: Rules, sent: int, now: datetime
) -> Verdict | None:
    if rules.cap and sent >= rules.cap.messages:
        return Verdict("held", "cap")
    if rules.quiet:
        begin, end = rules.quiet
        clock = _local(now, contact, rules).time()
        overnight = begin > end
        after_begin, before_end = begin <= clock, clock < end
        if (after_begin or before_end) if overnight else (after_begin and before_end):
            return Verdict("held", f"quiet hours until {end:%H:%M}")
    return None


def _local(now: datetime, contact: Contact | None, rules: Rules) -> datetime:
    """The present on the student's clock."""
    try:
        zone = (contact.timezone or "").strip() if contact else ""
        return now.astimezone(ZoneInfo(zone))
    except (KeyError, ValueError, OSError):
        return now.astimezone(ZoneInfo(rules.timezone))


# ---------------------------------------------------------------- merging


def write_letter(row: Mapping[str, Any], contact: Contact | None) -> Letter:
    """Merge name and address into a message."""
    name = _name(contact) or ""

    def merge(text: str) -> str:
        return text.replace("{first_name}", name)

    subject = row["subject"]
    return Letter(
        message_id=row["message_id"],
        student_id=row["student_id"],
        channel=row["channel"],
        to=address_of(row["channel"], contact),
        subject=" ".join(merge(subject).split()) if subject else None,
        body=merge(row["body"]),
    )


def address_of(channel: str, contact: Contact | None) -> str | None:
    """Address or number, if it is one that can be used."""
    if channel == "email":
        email = (contact.email or "").strip() if contact else ""
        return email if ADDRESS.fullmatch(email) else None
    if channel == "sms":
        phone = PHONE_PUNCTUATION.sub("", contact.phone or "") if contact else ""
        phone = re.sub(r"^00", "+", phone)
        return phone if PHONE.fullmatch(phone) else None
    return None


def _name(contact: Contact | None) -> str | None:
    """The first name as text alone: people type links into such fields."""
    return one_line(contact.first_name, LONGEST_NAME) if contact else None


# ---------------------------------------------------------------- in words


def describe_line(line: Line) -> str:
    """One line of a run, for the screen or a log: nobody's name, no text."""
    reason = f": {line.reason}" if line.reason else ""
    return (
        f"{line.action:<10}  {line.message_id}  {line.channel}"
        f"  student {line.student_id}{reason}"
    )


def summarise(lines: list[Line]) -> str:
    """Counts by what became of the messages, and why."""
    if not lines:
        return "No message waits to be sent."
    counts = Counter((line.action, line.reason) for line in lines)
    return "\n".join(
        f"{action + ':':<12} {count:,}{f' ({reason})' if reason else ''}"
        for (action, reason), count in sorted(counts.items())
    )


def describe_unknown(attempts: list[dict[str, Any]]) -> str:
    """Every attempt without an outcome, and what to do about it."""
    if not attempts:
        return "Nothing is unknown."
    lines = [
        f"{row['message_id']}  {row['channel']}  student {row['student_id']}"
        f"  taken {row['claimed_at']:%Y-%m-%d %H:%M:%S} UTC by {row['worker']}: "
        + ("may still be at work" if row["young"] else row["reason"] or "no outcome")
        for row in attempts
    ]
    return "\n".join([*lines, HOW_TO_RESOLVE])
