"""Checks that every draft passes before it is stored: deterministic, each named.

A draft quotes titles and topics that somebody else wrote. Those are facts of
the course, the same for everyone, so words are looked for outside them: a
course may be called "Risk management".
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from intervene.drafter import TEMPLATES, Context, Draft
from intervene.handover import Contact
from intervene.text import EMAIL_ADDRESS, sms_segments, without_accents

# What is merged locally later, and the room that it may need.
PLACEHOLDERS = {"first_name": 20}
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

LONGEST_BODY = {"email": 2_000, "in_app": 1_000}
LONGEST_SUBJECT = 120
MOST_SMS_SEGMENTS = 2

PHONE_NUMBER = re.compile(r"\+?\d[\d ()./-]{5,}\d")
FEWEST_PHONE_DIGITS = 6


@dataclass(frozen=True)
class Problem:
    """A check that a draft did not pass, and why; the reason quotes nobody."""

    check: str
    reason: str


Check = Callable[[Draft, Context, Contact], list[str]]


def problems(draft: Draft, context: Context, contact: Contact) -> list[Problem]:
    """Run every check; an empty list means that the draft may be stored."""
    return [
        Problem(name, reason)
        for name, check in CHECKS.items()
        for reason in check(draft, context, contact)
    ]


def _empty_parts(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    parts = {
        "opening": draft.opening,
        "observation": draft.observation,
        "next steps": " ".join(draft.next_steps),
        "closing": draft.closing,
        "body": draft.body,
    }
    if context.channel != "sms":
        parts["subject"] = draft.subject or ""
    return [f"{name} is empty" for name, text in parts.items() if not text.strip()]


def _placeholders(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    text = _everything(draft)
    names = set(PLACEHOLDER.findall(text))
    found = [f"unknown placeholder {{{name}}}" for name in names - set(PLACEHOLDERS)]
    if "first_name" in names and not context.has_name:
        found.append("{first_name} with no name to merge")
    if set(PLACEHOLDER.sub("", text)) & set("{}"):
        found.append("a brace that belongs to no placeholder")
    return sorted(found)


def _length(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    found = []
    if len(_merged(draft.subject or "")) > LONGEST_SUBJECT:
        found.append(f"subject is longer than {LONGEST_SUBJECT} characters")
    body = _merged(draft.body)
    if context.channel == "sms":
        segments = sms_segments(body)
        if segments > MOST_SMS_SEGMENTS:
            found.append(f"{segments} SMS segments, at most {MOST_SMS_SEGMENTS}")
    elif len(body) > LONGEST_BODY[context.channel]:
        found.append(f"{len(body)} characters, at most {LONGEST_BODY[context.channel]}")
    return found


def _forbidden_words(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    words = forbidden_words(_without_facts(draft, context), context.locale)
    return [f"forbidden: {word}" for word in words]


def _personal_data(draft: Draft, context: Context, contact: Contact) -> list[str]:
    text, own_words = _everything(draft), _without_facts(draft, context)
    digits = re.sub(r"\D", "", contact.phone or "")
    found = {
        "the student's email": bool(contact.email)
        and (contact.email or "").strip().lower() in text.lower(),
        "the student's phone": len(digits) >= FEWEST_PHONE_DIGITS
        and digits in re.sub(r"[ ()./+-]", "", text),
        "the student's first name": _has_name(own_words, contact, context.locale),
        "an email address": bool(EMAIL_ADDRESS.search(own_words)),
        "a phone number": bool(PHONE_NUMBER.search(own_words)),
    }
    return [name for name, is_there in found.items() if is_there]


CHECKS: dict[str, Check] = {
    "empty_parts": _empty_parts,
    "placeholders": _placeholders,
    "length": _length,
    "forbidden_words": _forbidden_words,
    "personal_data": _personal_data,
}


# ---------------------------------------------------------------- words


def forbidden_words(text: str, locale: str) -> list[str]:
    """Forbidden words of a language that text holds, as they are found there."""
    found = _forbidden_pattern(locale).findall(without_accents(text).casefold())
    return sorted(set(found))


@cache
def _forbidden_pattern(locale: str) -> re.Pattern[str]:
    lines = (TEMPLATES / locale / "forbidden_words.txt").read_text(encoding="utf-8")
    words = [
        re.escape(without_accents(line).casefold().rstrip("*"))
        + (r"\w*" if line.endswith("*") else "")
        for line in map(str.strip, lines.splitlines())
        if line and not line.startswith("#")
    ]
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)")


def _has_name(text: str, contact: Contact, locale: str) -> bool:
    """Whether the name stands there, unless it is an ordinary word: May, Will."""
    name = (contact.first_name or "").strip()
    if not name or name.casefold() in _ordinary_words(locale):
        return False
    return _whole(name).search(text) is not None


@cache
def _ordinary_words(locale: str) -> frozenset[str]:
    folder = TEMPLATES / locale
    text = " ".join(
        path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.j2"))
    )
    return frozenset(re.findall(r"\w+", text.casefold()))


# ---------------------------------------------------------------- text


def _everything(draft: Draft) -> str:
    return f"{draft.subject or ''}\n{draft.body}"


def _without_facts(draft: Draft, context: Context) -> str:
    text = _everything(draft)
    for fact in context.facts:
        text = _whole(fact).sub("…", text)
    return text


def _whole(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)")


def _merged(text: str) -> str:
    """Text with the room that its placeholders may need."""
    return PLACEHOLDER.sub(lambda found: "x" * PLACEHOLDERS.get(found[1], 0), text)
