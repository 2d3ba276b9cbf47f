"""Drafters: from what is known about a flag to the parts of a message.

`TemplateDrafter` works offline. Another drafter needs a name, a version and
`write`; `Context` is all that it is given, so nothing else can leave.
"""

import hashlib
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import jinja2

from intervene.text import one_line, to_gsm7
from ml.settings import UserError

TEMPLATES = Path(__file__).parent / "templates"
LOCALES = ("en", "nb", "es")
CHANNELS = ("email", "sms", "in_app")
TONES = ("supportive", "urgent", "resource_focused")
MOST_STEPS = 3

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


class Drafter(Protocol):
    """Writes the text of one message."""

    @property
    def name(self) -> str:
        """`template`, or the model's name."""

    @property
    def version(self) -> str:
        """Changes whenever the same context may lead to another text."""

    def write(self, context: Context) -> Draft:
        """Write the message for this context."""


class TemplateDrafter:
    """Renders `templates/<locale>/<channel>.<tone>.j2`, a macro for each part."""

    name = "template"

    def __init__(self, folder: Path = TEMPLATES) -> None:
        self._folder = folder
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            # A missing variable is an error, never a blank.
            undefined=jinja2.StrictUndefined,
            # Messages are plain text; whoever shows one as HTML escapes it.
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    @property
    def version(self) -> str:
        """Hash of every template."""
        return _version(self._folder)

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
        opening, closing = _line(parts.opening()), _line(parts.closing())
        observation, next_steps = _line(parts.observation()), _lines(parts.next_steps())
        body = self._environment.get_template(f"{context.locale}/layout.j2").render(
            channel=context.channel,
            opening=opening,
            observation=observation,
            next_steps=next_steps,
            closing=closing,
        )
        return Draft(
            subject=None if context.channel == "sms" else _line(parts.subject()),
            opening=opening,
            observation=observation,
            next_steps=next_steps,
            closing=closing,
            body=_in_alphabet(body.strip(), context),
        )


def template_name(context: Context) -> str:
    """The template's path below the folder of templates."""
    return f"{context.locale}/{context.channel}.{context.tone}.j2"


def quotable(text: str | None, channel: str) -> str | None:
    """A title or topic as this channel may quote it; None where it cannot."""
    line = one_line(text, TITLE_LIMITS[channel])
    return to_gsm7(line) if line and channel == "sms" else line


def _in_alphabet(body: str, context: Context) -> str:
    return (to_gsm7(body) or body) if context.channel == "sms" else body


def _line(text: str) -> str:
    return " ".join(text.split())


def _lines(text: str) -> tuple[str, ...]:
    lines = (_line(line) for line in text.splitlines())
    return tuple(line for line in lines if line)[:MOST_STEPS]


@cache
def _version(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.j2")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_text(encoding="utf-8").encode())
    return digest.hexdigest()[:12]
