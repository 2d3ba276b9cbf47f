"""What the checks know about a language, and plain measures of a text.

The words are in `templates/<locale>/language.toml`, one file for each language.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any

from intervene.drafting.drafter import LOCALES, TEMPLATES
from intervene.text import without_accents

# Distinctive function words of languages that nobody is written to in; they
# resemble one that somebody is.
OTHER_LANGUAGES = {
    "nn": "ikkje eg dykk frå kva korleis nokon noko berre meir hjå vere dei",
    "da": "af jer hvad hvordan nogen noget meget blive uge også ikke kun dig",
    "sv": "och att är inte jag dig på för vad hur när någon också om du har",
    "fr": "le la les des est une vous votre nous pas pour avec dans qui que et sur",
    "de": "der die das und ist nicht du dein wir ein eine für mit auf zu den",
    "pt": "o os as um uma você não para com seu sua em do da dos das está mais",
}
FEWEST_WORDS = 8
LEAST_SHARE_OF_FUNCTION_WORDS = 0.2
FEWEST_FOREIGN_WORDS = 3

# Letters drawn like Latin ones. Unicode's confusables list is far longer; any
# other letter that is not Latin is refused by the check `characters` anyway.
LOOK_ALIKES = str.maketrans(
    "авеёіјкморсуѕтхһԁԛԝαειοκνρτυχ",
    "abeeijkmopcystxhdqwaeiokvptux",
)
LEET = str.maketrans("0134578@$", "oieastbas")
SPELLED_OUT = re.compile(r"(?<!\w)(?:[^\W\d_][\s.\-_*·]{1,2}){3,}[^\W\d_](?!\w)")
MIXED_TOKEN = re.compile(r"[\w@$]*[^\W\d_][\w@$]*")


@dataclass(frozen=True)
class Language:
    """The words of one language; see the TOML files for what each list is."""

    months: list[str]
    weekdays: list[str]
    numbers: str
    ones: str
    tens: str
    joiner: str
    large: dict[str, int]
    ordinals: str
    some: list[str]
    hours: list[str]
    days: list[str]
    weeks: list[str]
    of_date: list[str]
    until: list[str]
    left: list[str]
    single: list[str]
    today: list[str]
    tomorrow: list[str]
    later: list[str]
    is_due: list[str]
    function_words: str
    pressure: list[str]
    instructions: list[str]
    titles: list[str]

    @cached_property
    def number_words(self) -> dict[str, int]:
        """Words for numbers from 2 up, without accents."""
        found = {word: value for value, word in enumerate(self.numbers.split(), 2)}
        for ten, tens in enumerate(self.tens.split(), 2):
            found[tens] = 10 * ten
            for one, ones in enumerate(self.ones.split(), 1):
                for joiner in {self.joiner, self.joiner.replace("-", " ")}:
                    found[f"{tens}{joiner}{ones}"] = 10 * ten + one
        return {plain(word): value for word, value in (found | self.large).items()}

    @cached_property
    def ordinal_words(self) -> dict[str, int]:
        """Words for second, third and so on, without accents."""
        return {plain(word): n for n, word in enumerate(self.ordinals.split(), 2)}


@cache
def language(locale: str) -> Language:
    """Read what is known about a locale's language."""
    path = TEMPLATES / locale / "language.toml"
    values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    names = {field.name for field in fields(Language)}
    if set(values) != names:
        wrong = ", ".join(sorted(set(values) ^ names))
        raise ValueError(f"{path.name} of {locale}: missing or unknown: {wrong}")
    return Language(**values)


# ---------------------------------------------------------------- words


def plain(text: str) -> str:
    """Without case and accents, the way words are compared."""
    return without_accents(text).casefold()


def any_of(words: Iterable[str]) -> str:
    """Return a pattern for whole words; a final * stands for any ending.

    It is meant for text that went through `plain`.
    """
    return _any_of(tuple(words))


@cache
def _any_of(words: tuple[str, ...]) -> str:
    parts = [
        re.escape(plain(word).rstrip("*")).replace(r"\ ", r"\s+")
        + (r"\w*" if word.endswith("*") else "")
        for word in sorted(words, key=len, reverse=True)
    ]
    return rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)"


def unmasked(text: str) -> str:
    """Text as a reader sees it: look-alikes, leet and s p a c i n g undone."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = text.casefold().translate(LOOK_ALIKES)
    text = SPELLED_OUT.sub(lambda found: re.sub(r"[\W_]", "", found[0]), text)
    return MIXED_TOKEN.sub(_without_leet, text)


def _without_leet(found: re.Match[str]) -> str:
    token = found[0]
    inside = re.search(r"[^\W\d_][\d@$]+[^\W\d_]|^[\d@$]{1,2}[^\W\d_]{3,}", token)
    return token.translate(LEET) if inside else token


# ---------------------------------------------------------------- measures


def sentences(text: str) -> list[str]:
    """Split at ends of sentences and lines."""
    parts = re.split(r"(?<=[.!?…])\s+|\n+", text)
    return [part for part in (part.strip(" -•\t") for part in parts) if part]


def lix(text: str) -> float:
    """Readability: words per sentence plus the percentage of long words.

    LIX, Björnsson (1968), Läsbarhet; long is more than six letters. It needs no
    dictionary and no syllables, so one formula serves the three languages. 40 is
    a newspaper's, 50 an official text's.
    """
    words = re.findall(r"[^\W\d_]+", text)
    if not words:
        return 0.0
    long_words = sum(len(word) > 6 for word in words)
    return len(words) / max(len(sentences(text)), 1) + 100 * long_words / len(words)


def wrong_language(text: str, locale: str) -> str | None:
    """Say why text is not in the locale's language; None where it may be.

    Function words decide: over the whole text they have to be common, and no
    sentence may hold clearly more of another language's.
    """
    words = _words(text)
    own = _function_words(locale)
    share = sum(word in own for word in words) / max(len(words), 1)
    if len(words) >= FEWEST_WORDS and share < LEAST_SHARE_OF_FUNCTION_WORDS:
        return f"few words of {locale}: {share:.0%}"
    others = [code for code in (*LOCALES, *OTHER_LANGUAGES) if code != locale]
    for sentence in sentences(text):
        spoken = _words(sentence)
        for code in others:
            # Words that both have (`de`, `en`, `que`) tell nothing.
            only_own, only_other = _apart(locale, code)
            here = sum(word in only_own for word in spoken)
            there = sum(word in only_other for word in spoken)
            if there >= FEWEST_FOREIGN_WORDS and there >= here:
                return f"a sentence in {code} instead of {locale}"
    return None


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.casefold())


@cache
def _function_words(code: str) -> frozenset[str]:
    known = OTHER_LANGUAGES.get(code)
    return frozenset((known or language(code).function_words).casefold().split())


@cache
def _apart(one: str, other: str) -> tuple[frozenset[str], frozenset[str]]:
    a, b = _function_words(one), _function_words(other)
    return a - b, b - a


def shingles(text: str, size: int = 3) -> frozenset[tuple[str, ...]]:
    """Every run of `size` words."""
    words = re.findall(r"\w+", text.casefold())
    return frozenset(
        tuple(words[at : at + size]) for at in range(max(len(words) - size + 1, 1))
    )


def resemblance(one: str, other: str) -> float:
    """Share of common shingles (Jaccard), 0 to 1.

    Broder (1997), On the resemblance and containment of documents.
    """
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)
