"""Drafters: from what is known about a flag to the parts of a message.

`TemplateDrafter` works offline; `intervene.drafting.gemini` asks a model. A drafter
gets orders and gives back what it wrote, one for each, in the same order.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jinja2

from intervene.text import one_line, to_gsm7
from ml.settings import UserError

if TYPE_CHECKING:
    from intervene.drafting.check import Problem
    from intervene.handover import Contact

TEMPLATES = Path(__file__).parent / "templates"
LOCALES = ("en", "nb", "es")
CHANNELS = ("email", "sms", "in_app")
TONES = ("supportive", "urgent", "resource_focused")
MOST_STEPS = 3

# A title that talks to a language model instead of naming something.
TALKS_TO_A_MODEL = re.compile(
    r"\b(?:ignore|disregard|forget|override|ignorer|glem|ignora|olvida)\b.{0,40}"
    r"(?:instru|prompt|message|melding|mensaje|above|previous|tidligere|anterior)"
    r"|system\s*prompt|\byou are now\b|\bdu er nå\b|\bahora eres\b"
    r"|\b(?:system|assistant|user)\s*:",
    re.IGNORECASE,
)

# Most characters of a title or topic, by channel.
TITLE_LIMITS = {"email": 80, "in_app": 50, "sms": 30}


class TemplateError(UserError):
    """A template cannot be rendered: a bug in the template, never a blank."""


@dataclass(frozen=True)
class Context:
    """The only facts that a drafter sees: an allow-list, with nobody's name.

    Attributes
    ----------
    course, assessment
        Titles, already made harmless; None where there is none to show.
    kind
        exam, assignment or quiz.
    due_on, days_left
        The student's due day and the days until then; None for an open sitting.
    zone
        dormant, warning, safe, or None where activity is unknown.
    topics
        Weak topics, already made harmless.
    reasons
        Sentences to the student, in English.
    has_name
        Whether {first_name} can be merged later.
    """

    course: str | None
    assessment: str | None
    kind: str | None
    due_on: date | None
    days_left: int | None
    zone: str | None
    topics: tuple[str, ...]
    reasons: tuple[str, ...]
    has_name: bool
    locale: str
    channel: str
    tone: str

    @property
    def facts(self) -> tuple[str, ...]:
        """Text from elsewhere that the message may quote, longest first."""
        found = (self.course, self.assessment, *self.topics)
        return tuple(sorted(filter(None, found), key=len, reverse=True))


@dataclass(frozen=True)
class Draft:
    """The parts of a message; `body` is how they read together."""

    subject: str | None
    opening: str
    observation: str
    next_steps: tuple[str, ...]
    closing: str
    body: str


@dataclass(frozen=True)
class Order:
    """One message to write.

    Attributes
    ----------
    message_id
        Of the message that it becomes.
    contact
        Whom the checks compare the text with; never part of a text.
    others
        Bodies of earlier messages to the same student.
    """

    message_id: str
    context: Context
    contact: "Contact"
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """A draft, who wrote it, and what the checks say against it."""

    draft: Draft
    drafter: str
    version: str
    problems: tuple["Problem", ...]


# Checks a draft for an order against other messages to the same student.
Judge = Callable[[Order, Draft, Sequence[str]], list["Problem"]]


class Drafter(Protocol):
    """Writes messages."""

    def write_all(
        self, orders: Sequence[Order], judge: Judge, done: Callable[[int], None]
    ) -> list[Written]:
        """Write one message for each order; `done` hears how many are."""


class TemplateDrafter:
    """Renders `templates/<locale>/<channel>.<tone>.j2`, a macro for each part."""

    name = "template"

    def __init__(self, folder: Path = TEMPLATES) -> None:
        self._folder = folder
        self._environment = _environment(folder)

    @property
    def version(self) -> str:
        """Hash of every template."""
        return _version(self._folder)

    def write_all(
        self, orders: Sequence[Order], judge: Judge, done: Callable[[int], None]
    ) -> list[Written]:
        """Render a template for each order.

        They resemble each other by design, so they are not compared with others.
        """
        written = []
        for order in orders:
            draft = self.write(order.context)
            found = tuple(judge(order, draft, ()))
            written.append(Written(draft, self.name, self.version, found))
            done(len(written))
        return written

    def write(self, context: Context) -> Draft:
        """Render the parts and lay them out.

        Raises
        ------
        TemplateError
            Naming the template and what is wrong with it.
        """
        name = template_name(context)
        try:
            return self._render(name, context)
        except (jinja2.TemplateError, AttributeError) as error:
            raise TemplateError(f"Template {name}: {error}") from error

    def _render(self, name: str, context: Context) -> Draft:
        variables = {
            field.name: getattr(context, field.name) for field in fields(context)
        }
        parts: Any = self._environment.get_template(name).make_module(variables)
        return compose(
            context,
            subject=None if context.channel == "sms" else parts.subject(),
            opening=parts.opening(),
            observation=parts.observation(),
            next_steps=parts.next_steps().splitlines(),
            closing=parts.closing(),
            environment=self._environment,
        )


def compose(
    context: Context,
    *,
    subject: str | None,
    opening: str,
    observation: str,
    next_steps: Sequence[str],
    closing: str,
    environment: jinja2.Environment | None = None,
) -> Draft:
    """Put the parts, one line each, into the layout of channel and language."""
    lines = (_line(step) for step in next_steps)
    steps = tuple(line for line in lines if line)[:MOST_STEPS]
    opening, observation, closing = map(_line, (opening, observation, closing))
    layout = (environment or _environment(TEMPLATES)).get_template(
        f"{context.locale}/layout.j2"
    )
    body = layout.render(
        channel=context.channel,
        opening=opening,
        observation=observation,
        next_steps=steps,
        closing=closing,
    )
    return Draft(
        subject=None if subject is None else _line(subject),
        opening=opening,
        observation=observation,
        next_steps=steps,
        closing=closing,
        body=_in_alphabet(body.strip(), context),
    )


@cache
def _environment(folder: Path) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        # A missing variable is an error, never a blank.
        undefined=jinja2.StrictUndefined,
        # Messages are plain text; whoever shows one as HTML escapes it.
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def template_name(context: Context) -> str:
    """The template's path below the folder of templates."""
    return f"{context.locale}/{context.channel}.{context.tone}.j2"


def quotable(text: str | None, channel: str) -> str | None:
    """A title or topic as this channel may quote it; None where it cannot."""
    line = one_line(text, TITLE_LIMITS[channel])
    if line and TALKS_TO_A_MODEL.search(line):
        return None
    return to_gsm7(line) if line and channel == "sms" else line


def _in_alphabet(body: str, context: Context) -> str:
    return (to_gsm7(body) or body) if context.channel == "sms" else body


def _line(text: str) -> str:
    return " ".join(text.split())


@cache
def _version(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.j2")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_text(encoding="utf-8").encode())
    return digest.hexdigest()[:12]
