"""Checks that every draft passes before it is stored: deterministic, each named.

A draft quotes titles and topics that somebody else wrote. Those are facts of
the course, the same for everyone, so words are looked for outside them: a
course may be called "Risk management".
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from intervene.drafting.drafter import MOST_STEPS, TEMPLATES, Context, Draft
from intervene.drafting.facts import (
    CUT,
    invented_dates,
    invented_links,
    invented_names,
    invented_numbers,
    names_time_left,
    ordinary_words,
)
from intervene.drafting.language import (
    any_of,
    language,
    lix,
    plain,
    resemblance,
    unmasked,
    wrong_language,
)
from intervene.handover import Contact
from intervene.text import EMAIL_ADDRESS, sms_segments

# What is merged locally later, and the room that it may need.
PLACEHOLDERS = {"first_name": 20}
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

LONGEST_BODY = {"email": 2_000, "in_app": 1_000}
LONGEST_SUBJECT = 120
# Beyond this nothing else is looked at: some checks take the square of the length.
LONGEST_CHECKED = 8_000
MOST_SMS_SEGMENTS = 2

# LIX; text of an official paper is above 50. Short text says too little.
HIGHEST_LIX = 50
FEWEST_WORDS_FOR_LIX = 12

MOST_EXCLAMATIONS = 1
SHOUTED = re.compile(r"(?<!\w)[^\W\d_a-zæøåáéíóúñü]{4,}(?!\w)")
# Two messages with so large a share of common three-word runs say the same.
TOO_SIMILAR = 0.8
ALPHABET_BEYOND_ASCII = set("æøÆØ")
HEADER = re.compile(r"(?m)^\W*(?:to|cc|bcc|from|subject|til|fra|emne|para|asunto)\s*:")

PHONE_NUMBER = re.compile(r"\+?\d[\d ()./-]{5,}\d")
FEWEST_PHONE_DIGITS = 6
FEWEST_ID_CHARACTERS = 5  # a shorter id may be an ordinary number


@dataclass(frozen=True)
class Problem:
    """A check that a draft did not pass, and why; the reason quotes nobody."""

    check: str
    reason: str


Check = Callable[[Draft, Context, Contact], list[str]]


def problems(
    draft: Draft, context: Context, contact: Contact, others: Iterable[str] = ()
) -> list[Problem]:
    """Run every check; an empty list means that the draft may be stored.

    Parameters
    ----------
    others
        Bodies of other messages to the same student.
    """
    length = len(draft.subject or "") + len(draft.body)
    if length > LONGEST_CHECKED:
        return [Problem("length", f"{length:,} characters are too many to be checked")]
    found = [
        Problem(name, reason)
        for name, check in CHECKS.items()
        for reason in check(draft, context, contact)
    ]
    similar = max((resemblance(draft.body, other) for other in others), default=0.0)
    if similar >= TOO_SIMILAR:
        reason = f"{similar:.0%} like another message to the same student"
        found.append(Problem("duplicate", reason))
    return found


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
    if "{first_name}" not in draft.body and context.has_name:
        found.append("{first_name} is missing")
    if set(PLACEHOLDER.sub("", text)) & set("{}"):
        found.append("a brace that belongs to no placeholder")
    return sorted(found)


def _length(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    found = []
    if len(draft.next_steps) > MOST_STEPS:
        found.append(f"{len(draft.next_steps)} next steps, at most {MOST_STEPS}")
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
        "the student's id": len(contact.student_id) >= FEWEST_ID_CHARACTERS
        and _whole(contact.student_id).search(own_words) is not None,
        "the student's phone": len(digits) >= FEWEST_PHONE_DIGITS
        and digits in re.sub(r"[ ()./+-]", "", text),
        "the student's first name": _has_name(own_words, contact, context.locale),
        "an email address": bool(EMAIL_ADDRESS.search(own_words)),
        "a phone number": bool(PHONE_NUMBER.search(own_words)),
    }
    return [name for name, is_there in found.items() if is_there]


def _characters(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    """Characters that hide something: invisible, or drawn like a Latin letter."""
    text = _without_facts(draft, context)
    hidden = {c for c in text if unicodedata.category(c)[0] == "C" and c != "\n"}
    odd = {c for c in text if c.isalnum() and not _is_plain_letter(c)}
    return [
        f"the character U+{ord(char):04X} {unicodedata.name(char, '')}".strip()
        for char in sorted(hidden | odd)
    ]


def _is_plain_letter(char: str) -> bool:
    if char in ALPHABET_BEYOND_ASCII:
        return True
    # NFD, not NFKD: a full-width or bold letter stays what it is.
    base = unicodedata.normalize("NFD", char)[0]
    return base.isascii()


def _numbers(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    return invented_numbers(_without_facts(draft, context), context)


def _dates(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    return invented_dates(_without_facts(draft, context), context)


def _links(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    return invented_links(_without_facts(draft, context))


def _names(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    parts = (draft.subject or "", draft.body)
    return invented_names(tuple(_cut(part, context) for part in parts), context)


def _instructions(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    """Talk about prompts, money or secrets, and headers of a mail."""
    text = _without_facts(draft, context)
    seen = plain(unmasked(text))
    found = re.findall(any_of(language(context.locale).instructions), seen)
    if context.locale != "en":  # what a title hides is most often English
        found += re.findall(any_of(language("en").instructions), seen)
    found += HEADER.findall(plain(text))
    return [f"not for a student: {phrase.strip()}" for phrase in sorted(set(found))]


def _language(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    found = wrong_language(_without_facts(draft, context), context.locale)
    return [found] if found else []


def _readability(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    text = _cut(draft.body, context)
    if len(re.findall(r"[^\W\d_]+", text)) < FEWEST_WORDS_FOR_LIX:
        return []
    found = lix(text)
    return [f"LIX {found:.0f}, at most {HIGHEST_LIX}"] if found > HIGHEST_LIX else []


def _tone(draft: Draft, context: Context, _contact: Contact) -> list[str]:
    text, found = _without_facts(draft, context), []
    if text.count("!") > MOST_EXCLAMATIONS:
        found.append(f"more than {MOST_EXCLAMATIONS} exclamation mark")
    if SHOUTED.search(text):
        found.append("words in capitals")
    if context.tone == "urgent" and not names_time_left(text, context):
        found.append("urgent, and does not say how much time is left")
    if context.tone == "supportive":
        pressure = any_of(language(context.locale).pressure)
        words = re.findall(pressure, plain(unmasked(text)))
        found += [f"supportive, and presses: {word}" for word in sorted(set(words))]
    if context.tone == "resource_focused" and context.topics:
        body = plain(draft.body)
        if not any(plain(topic) in body for topic in context.topics):
            found.append("resource_focused, and names none of the topics")
    return found


CHECKS: dict[str, Check] = {
    "empty_parts": _empty_parts,
    "placeholders": _placeholders,
    "length": _length,
    "characters": _characters,
    "forbidden_words": _forbidden_words,
    "personal_data": _personal_data,
    "instructions": _instructions,
    "numbers": _numbers,
    "dates": _dates,
    "links": _links,
    "names": _names,
    "language": _language,
    "readability": _readability,
    "tone": _tone,
}


# ---------------------------------------------------------------- words


def forbidden_words(text: str, locale: str) -> list[str]:
    """Forbidden words of a language that text holds, as they are found there."""
    found = _forbidden_pattern(locale).findall(plain(unmasked(text)))
    return sorted(set(found))


@cache
def _forbidden_pattern(locale: str) -> re.Pattern[str]:
    lines = (TEMPLATES / locale / "forbidden_words.txt").read_text(encoding="utf-8")
    words = [
        re.escape(plain(line).rstrip("*")) + (r"\w*" if line.endswith("*") else "")
        for line in map(str.strip, lines.splitlines())
        if line and not line.startswith("#")
    ]
    return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)")


def _has_name(text: str, contact: Contact, locale: str) -> bool:
    """Whether the name stands there, unless it is an ordinary word: May, Will."""
    name = (contact.first_name or "").strip()
    if not name or name.casefold() in ordinary_words(locale):
        return False
    return any(_whole(form).search(text) for form in (name, name.upper()))


# ---------------------------------------------------------------- text


def _everything(draft: Draft) -> str:
    return f"{draft.subject or ''}\n{draft.body}"


def _without_facts(draft: Draft, context: Context) -> str:
    return _cut(_everything(draft), context)


def _cut(text: str, context: Context) -> str:
    """Text without the titles and topics it quotes, and without placeholders."""
    for fact in context.facts:
        text = _whole(fact).sub(CUT, text)
    return text.replace("{first_name}", CUT)


def _whole(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)")


def _merged(text: str) -> str:
    """Text with the room that its placeholders may need."""
    return PLACEHOLDER.sub(lambda found: "x" * PLACEHOLDERS.get(found[1], 0), text)
