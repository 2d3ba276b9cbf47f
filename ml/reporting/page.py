"""What a page is made of, and how it is written: the template does the rest."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATE_FOLDER = Path(__file__).parent
TEMPLATE = "page.html.j2"
NOT_DEFINED = "\N{EN DASH}"
TRAIN = "Train a model with `python -m ml.train`, then make this page again."
TRAIN_AGAIN = (
    "This run has no rows in {table}. Train again with `python -m ml.train --force`, "
    "then make this page again."
)
SEGMENT_WORDS = {
    "all": "All cases",
    "first": "First assessment in the course (cold start)",
    "later": "Later assessments",
    "new_runs:all": "Runs begun in the test period: all",
    "new_runs:first": "Runs begun in the test period: first",
    "new_runs:later": "Runs begun in the test period: later",
    "contacted": "Students written to in between (kept apart)",
}


@dataclass(frozen=True)
class Table:
    """Rows of text; the first `words` columns are words, the others figures."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    words: int = 1


@dataclass(frozen=True)
class Picture:
    """A picture, one sentence on how to read it, and its figures as a table."""

    title: str
    svg: Markup
    alt: str
    reading: str
    table: Table | None = None


@dataclass(frozen=True)
class Section:
    """One part of the page; `missing` says what is not there and how to get it."""

    anchor: str
    title: str
    paragraphs: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    folded: list[Table] = field(default_factory=list)
    missing: str = ""


@dataclass(frozen=True)
class Tile:
    """A key figure with what it means."""

    figure: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """The answer in plain words.

    `tone` is good, caution, bad or neutral; a paragraph is what it is about, and what
    it says.
    """

    tone: str
    headline: str
    paragraphs: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """Everything the template shows."""

    title: str
    subtitle: str
    verdict: Verdict
    sections: list[Section]
    glossary: dict[str, str]
    command: str = "python -m ml.report"


def lacking(anchor: str, title: str, table: str) -> Section:
    """The section of a run that has no rows in its table."""
    return Section(anchor, title, missing=TRAIN_AGAIN.format(table=table))


def render(page: Page) -> str:
    """The page as HTML; every text is escaped, pictures alone are taken as they are."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tie"] = _tie
    return environment.get_template(TEMPLATE).render(page=page)


def _tie(text: str) -> str:
    """A per cent sign stays with its figure at the end of a line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


# ---------------------------------------------------------------- figures as text


def known(value: Any) -> bool:
    """Whether there is a figure at all."""
    return value is not None and not pd.isna(value) and not math.isinf(float(value))


def number(value: Any, digits: int = 3) -> str:
    """`0.804`, or a dash where the figure is not defined."""
    return f"{float(value):.{digits}f}" if known(value) else NOT_DEFINED


def count(value: Any) -> str:
    """`28,317`."""
    return f"{int(value):,}" if known(value) else NOT_DEFINED


def percent(value: Any) -> str:
    """`42 %`; near 0 and near 100 per cent with one digit more."""
    if not known(value):
        return NOT_DEFINED
    share = 100 * float(value)
    digits = 1 if 0 < abs(share) < 9.95 or 98.5 < abs(share) < 100 else 0
    return f"{share:.{digits}f} %"


def with_interval(value: Any, low: Any, high: Any, digits: int = 3) -> str:
    """`0.804 (0.795 to 0.812)`, without the bracket where there is no interval."""
    if not (known(value) and known(low) and known(high)):
        return number(value, digits)
    return f"{number(value, digits)} ({number(low, digits)} to {number(high, digits)})"


def short(text: Any, length: int = 30) -> str:
    """Text that fits beside a bar."""
    words = " ".join(str(text).split())
    return words if len(words) <= length else words[: length - 1] + "…"


def segment_in_words(segment: str) -> str:
    """`course=AAA` as `Course AAA`, `first` as what it is."""
    if segment.startswith("course="):
        return f"Course {segment.removeprefix('course=')}"
    return SEGMENT_WORDS.get(segment, segment)
