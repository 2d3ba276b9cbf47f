"""From flags to checked messages: which tone, which channel, which words."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from itertools import product
from zoneinfo import ZoneInfo

from intervene.drafting.check import Problem, forbidden_words, problems
from intervene.drafting.drafter import (
    CHANNELS,
    LOCALES,
    TONES,
    Context,
    Draft,
    Drafter,
    Order,
    quotable,
    template_name,
)
from intervene.experiments.campaigns import NO_CAMPAIGN
from intervene.handover import Contact, Flag
from intervene.store import Message
from intervene.text import one_line

DEFAULT_LOCALE = "en"
REASONS_ARE_IN = "en"
DEFAULT_CHANNEL = "email"
OTHER_NAMES_OF_LOCALES = {"no": "nb", "nn": "nb"}
URGENT_WITHIN_DAYS = 7
LONGEST_REASON = 200
# Nobody is helped by being told that they got nothing right.
NOTHING_AT_ALL = re.compile(r"(?<![\d.,])0\s?%")
# What there is room for.
MOST_REASONS = {"email": 3, "in_app": 1, "sms": 0}
MOST_TOPICS = 3
FIRST_STEP = 1

Texts = Mapping[str, tuple[str, ...]]  # bodies by student


@dataclass(frozen=True)
class Policy:
    """What to draft. A tone or channel of None is chosen for each student."""

    campaign: str = NO_CAMPAIGN
    tone: str | None = None
    channel: str | None = None
    all_variants: bool = False

    @property
    def asked_for(self) -> tuple[str, ...]:
        """Of channel and tone, what somebody asked for by name."""
        asked = {"channel": self.channel, "tone": self.tone}
        return tuple(
            name for name, value in asked.items() if value or self.all_variants
        )


@dataclass(frozen=True)
class Refused:
    """A draft that did not pass its checks."""

    student_id: str
    template: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Drafted:
    """What came of some flags."""

    messages: list[Message]
    skipped: Counter[str]
    refused: list[Refused]


@dataclass(frozen=True)
class Plan:
    """What is to be written: messages that lack only their text, and orders."""

    messages: list[Message]
    orders: list[Order]
    skipped: Counter[str]


def plan(
    flags: Iterable[Flag],
    contacts: Mapping[str, Contact],
    policy: Policy,
    source_system: str,
) -> Plan:
    """Decide on tone and channel of every message to some flags.

    Parameters
    ----------
    contacts
        By student. Somebody who is not in it is written to by email, in English.
    source_system
        Where the ids come from; part of a message's identity.
    """
    planned = Plan([], [], Counter())
    for flag in flags:
        contact = contacts.get(flag.student_id)
        if contact and contact.opted_out_at:
            planned.skipped["opted out"] += 1
            continue
        for tone, channel in choose_variants(flag, contact, policy):
            context = make_context(flag, contact, tone, channel)
            message = _blank(flag, context, policy, source_system)
            someone = contact or Contact(flag.student_id)
            planned.messages.append(message)
            planned.orders.append(Order(message.message_id, context, someone))
    return planned


def only_missing(planned: Plan, missing: Iterable[Message], store_texts: Texts) -> Plan:
    """Leave out what is in the store; add what each student was sent before."""
    wanted = {message.message_id for message in missing}
    kept = [
        (message, replace(order, others=store_texts.get(message.student_id, ())))
        for message, order in zip(planned.messages, planned.orders, strict=True)
        if message.message_id in wanted
    ]
    return Plan([m for m, _ in kept], [o for _, o in kept], planned.skipped)


def write(
    planned: Plan, drafter: Drafter, done: Callable[[int], None] = lambda _: None
) -> Drafted:
    """Write and check what was planned."""
    drafted = Drafted(messages=[], skipped=planned.skipped, refused=[])
    texts = drafter.write_all(planned.orders, _judge, done)
    for message, order, text in zip(
        planned.messages, planned.orders, texts, strict=True
    ):
        if text.problems:
            name = template_name(order.context)
            drafted.refused.append(Refused(message.student_id, name, text.problems))
            continue
        drafted.messages.append(
            replace(
                message,
                drafter=text.drafter,
                drafter_version=text.version,
                subject=text.draft.subject,
                body=text.draft.body,
            )
        )
    return drafted


def draft(
    flags: Iterable[Flag],
    contacts: Mapping[str, Contact],
    policy: Policy,
    drafter: Drafter,
    source_system: str,
) -> Drafted:
    """Plan and write the messages for some flags."""
    return write(plan(flags, contacts, policy, source_system), drafter)


def _judge(order: Order, text: Draft, others: Sequence[str]) -> list[Problem]:
    return problems(text, order.context, order.contact, others)


def _blank(flag: Flag, context: Context, policy: Policy, source_system: str) -> Message:
    return Message(
        source_system=source_system,
        student_id=flag.student_id,
        course_id=flag.course_id,
        course_run_id=flag.course_run_id,
        assessment_id=flag.assessment_id,
        due_at=flag.due_at,
        as_of_date=flag.as_of_date,
        campaign=policy.campaign,
        step=FIRST_STEP,
        channel=context.channel,
        tone=context.tone,
        locale=context.locale,
        drafter="",
        drafter_version="",
        subject=None,
        body="",
    )


# ---------------------------------------------------------------- policy


def choose_variants(
    flag: Flag, contact: Contact | None, policy: Policy
) -> list[tuple[str, str]]:
    """Return the pairs of tone and channel to draft for this student."""
    if policy.all_variants:
        tones = [policy.tone] if policy.tone else TONES
        channels = [policy.channel] if policy.channel else CHANNELS
        return list(product(tones, channels))
    tone = policy.tone or choose_tone(flag, contact)
    return [(tone, policy.channel or choose_channel(contact))]


def choose_tone(flag: Flag, contact: Contact | None = None) -> str:
    """Urgent in the last week; else resources where we know which would help.

    Somebody who has not begun is invited, not handed a reading list, and an
    open sitting is never urgent.
    """
    days_left = _days_left(flag, contact)
    if days_left is not None and days_left <= URGENT_WITHIN_DAYS:
        return "urgent"
    if flag.topics and flag.engagement_zone != "dormant":
        return "resource_focused"
    return "supportive"


def choose_channel(contact: Contact | None) -> str:
    """The preferred channel where it can be used, else email, else in the app."""
    if contact is None:
        return DEFAULT_CHANNEL
    usable = {
        "email": bool((contact.email or "").strip()),
        "sms": bool((contact.phone or "").strip()),
        "in_app": True,
    }
    wanted = (contact.preferred_channel or "").strip().lower()
    if usable.get(wanted):
        return wanted
    return "email" if usable["email"] else "in_app"


def choose_locale(contact: Contact | None) -> str:
    """The student's language where there are templates in it, else English."""
    wanted = (contact.locale if contact else None) or DEFAULT_LOCALE
    language = wanted.strip().replace("_", "-").split("-")[0].lower()
    language = OTHER_NAMES_OF_LOCALES.get(language, language)
    return language if language in LOCALES else DEFAULT_LOCALE


# ---------------------------------------------------------------- context


def make_context(
    flag: Flag, contact: Contact | None, tone: str, channel: str
) -> Context:
    """What the drafter may know, with everything untrusted made harmless."""
    locale = choose_locale(contact)
    topics = (quotable(topic, channel) for topic in flag.topics)
    return Context(
        course=quotable(flag.course_title, channel),
        assessment=quotable(flag.assessment_title, channel),
        kind=flag.assessment_kind,
        due_on=due_day(flag.due_at, contact) if flag.due_at else None,
        days_left=_days_left(flag, contact),
        zone=flag.engagement_zone,
        topics=tuple(topic for topic in topics if topic)[:MOST_TOPICS],
        reasons=_usable_reasons(flag)[: MOST_REASONS[channel]],
        has_name=bool(contact and (contact.first_name or "").strip()),
        locale=locale,
        channel=channel,
        tone=tone,
    )


def _usable_reasons(flag: Flag) -> tuple[str, ...]:
    """Sentences that a message may repeat; they come in English only."""
    lines = [one_line(reason, LONGEST_REASON) for reason in flag.reasons]
    return tuple(
        line if line[-1] in ".!?…" else f"{line}."
        for line in lines
        if line
        and not NOTHING_AT_ALL.search(line)
        and not forbidden_words(line, REASONS_ARE_IN)
    )


def _days_left(flag: Flag, contact: Contact | None) -> int | None:
    if flag.due_at is None:
        return None
    return (due_day(flag.due_at, contact) - flag.as_of_date).days


def due_day(due_at: datetime, contact: Contact | None) -> date:
    """The day as the student's calendar has it.

    Midnight stands for a date without a time, which is the same day everywhere.
    """
    zone = (contact.timezone or "").strip() if contact else ""
    if not zone or due_at.time() == time(0):
        return due_at.date()
    try:
        return due_at.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).date()
    except (KeyError, ValueError, OSError):
        return due_at.date()
