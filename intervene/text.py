"""Small text helpers: untrusted text made harmless, and the alphabet of SMS."""

import re
import unicodedata

GSM7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
# These take two places: an escape and the character.
GSM7_EXTENSION = frozenset("^{}\\[~]|€\f")
PLAIN_FORMS = str.maketrans("“”„«»‘’–—‑", '"""""\'\'---')  # noqa: RUF001

EMAIL_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
LINK = re.compile(r"(?:\b[a-z][a-z0-9+.-]*://|\bwww\.)\S*", re.IGNORECASE)
# Without a scheme: with a path, or ending as addresses on the web do.
TOP_LEVELS = (
    "com|org|net|info|biz|edu|gov|io|co|me|ly|gl|app|dev|xyz|top|site|online|shop|live"
    "|link|click|ru|cn|no|es|uk|de|eu|us|example|test"
)
BARE_LINK = re.compile(
    rf"(?<![\w@.])(?:[a-z0-9-]+\.)+(?:[a-z]{{2,}}/\S*|(?:{TOP_LEVELS})(?![\w-]))\S*"
)
LONG_NUMBER = re.compile(r"\+\d[\d ()./-]{5,}\d|\d(?:[ ()./-]?\d){8,}")
# Braces are ours (placeholders), angle brackets are HTML's.
MARKUP = re.compile(r"[{}<>`]+")


def one_line(text: str | None, limit: int) -> str | None:
    """Make text from elsewhere safe to quote: one line, no markup, no link.

    Parameters
    ----------
    text
        A title or topic as somebody typed it.
    limit
        Most characters of the result; longer text ends in an ellipsis.

    Returns
    -------
    str or None
        None where nothing readable is left.
    """
    text = unicodedata.normalize("NFC", text or "")
    text = "".join(
        " " if unicodedata.category(char)[0] in "CZ" else char for char in text
    )
    for unwanted in (LINK, EMAIL_ADDRESS, BARE_LINK, LONG_NUMBER, MARKUP):
        text = unwanted.sub(" ", text)
    text = " ".join(text.split())
    if len(text) > limit:
        text = text[: limit - 1].rstrip() + "…"
    return text if any(char.isalnum() for char in text) else None


def bare_link(text: str) -> bool:
    """Whether text holds an address on the web that has no scheme."""
    return BARE_LINK.search(text.lower()) is not None


def to_gsm7(text: str) -> str | None:
    """Write text in the SMS alphabet; None where a letter has no such form.

    Accents that the alphabet lacks are dropped, as people do when they type.
    """
    letters = [_gsm7_form(char) for char in text.translate(PLAIN_FORMS)]
    return None if None in letters else "".join(filter(None, letters))


def _gsm7_form(char: str) -> str | None:
    if char in GSM7 or char in GSM7_EXTENSION:
        return char
    plain = without_accents(char)
    return plain if plain and set(plain) <= GSM7 else None


def without_accents(text: str) -> str:
    """Return text with accents dropped: é becomes e, å becomes a, ø stays."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(char for char in parts if not unicodedata.combining(char))


def sms_segments(text: str) -> int:
    """Count the messages that a provider sends, and charges, for this text."""
    if set(text) <= GSM7 | GSM7_EXTENSION:
        widths = [2 if char in GSM7_EXTENSION else 1 for char in text]
        return _segments(widths, alone=160, joined=153)
    # Anything else switches the whole text to UCS-2, counted in UTF-16 units.
    widths = [2 if ord(char) > 0xFFFF else 1 for char in text]
    return _segments(widths, alone=70, joined=67)


def _segments(widths: list[int], alone: int, joined: int) -> int:
    if sum(widths) <= alone:
        return 1
    segments, room = 1, joined
    for width in widths:
        # A character of two places is never split between two segments.
        if width > room:
            segments, room = segments + 1, joined
        room -= width
    return segments


def split_list(text: str | None) -> list[str]:
    """Split the '; '-joined text of a mart's column."""
    return [part.strip() for part in (text or "").split(";") if part.strip()]
