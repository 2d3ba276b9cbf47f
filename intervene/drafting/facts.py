"""Checks of facts: a number, date, link or name that the context does not hold.

Titles and topics are cut out beforehand, so what is left are the drafter's words.
"""

import re
from collections.abc import Iterator
from functools import cache

from intervene.drafting.drafter import TEMPLATES, Context
from intervene.drafting.language import Language, any_of, language, plain, unmasked
from intervene.text import EMAIL_ADDRESS, LINK, bare_link

# Steps are for the next 48 hours, in days or hours.
HORIZON_DAYS, HORIZON_HOURS = 2, 48
CUT = "¤"  # stands where a title, a topic or a placeholder was

DIGITS = re.compile(r"\d+(?:[.,:]\d+)*")
NUMERIC_DATE = re.compile(
    r"(?<![\d.])(?:(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
    r"|(?P<a>\d{1,2})[./](?P<b>\d{1,2})[./]?(?P<year2>\d{2,4})?)(?!\d)"
)
# English words that are months only beside a day or after a preposition.
ALSO_WORDS = {"may", "march"}
FROM_ORDINAL = 4  # "the second lesson" is no date

MARKDOWN_LINK = re.compile(r"\]\s*\(|<a\b", re.IGNORECASE)
IP_ADDRESS = re.compile(r"(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?!\d)")
HIDDEN_DOT = re.compile(r"\s*[\[({]\s*(?:\.|dot|punto|punktum)\s*[\])}]\s*", re.I)
SPOKEN_DOT = re.compile(
    r"(?<=\w)\s+(?:dot|punto|punktum)\s+"
    r"(?=(?:com|org|net|io|info|biz|edu|no|es|ly|me|app|example)\b)",
    re.I,
)
HIDDEN_SCHEME = re.compile(r"\bhxxps?\b|\bh\s?t\s?t\s?p\s?s?\s?:", re.I)

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")  # noqa: RUF001
APOSTROPHE = re.compile("['’]")  # noqa: RUF001
SENTENCE_ENDS = ".!?…:;\n"
QUOTES = " \t\"'“”«»¿¡([*_"


# ---------------------------------------------------------------- numbers


def invented_numbers(text: str, context: Context) -> list[str]:
    """Numbers, as digits or words, that are not in the context.

    The due date's own are `invented_dates`' business, and so are days until then.
    """
    spoken = language(context.locale)
    text = _without_dates(plain(text), spoken)
    text = re.sub(any_of(spoken.some), CUT, text)
    allowed = _allowed_numbers(context)
    found = []
    for value, match in _numbers(text, spoken):
        after = text[match.end() : match.end() + 20]
        if value not in allowed and not _is_time_ahead(value, after, context, spoken):
            found.append(f"the number {match[0].strip()} is not in the context")
    return found


def _allowed_numbers(context: Context) -> set[float]:
    quoted = " ".join((*context.reasons, *context.facts))
    numbers = {number for number, _ in _numbers(plain(quoted), language("en"))}
    if context.days_left is not None:
        numbers.add(context.days_left)
    return numbers


def _is_time_ahead(
    value: float, after: str, context: Context, spoken: Language
) -> bool:
    """Whether it is the next 48 hours, or the days left told in weeks."""
    if re.match(rf"\W*{any_of(spoken.hours)}", after):
        return value in (HORIZON_HOURS, HORIZON_HOURS / 2)
    if re.match(rf"\W*{any_of(spoken.weeks)}", after):
        return context.days_left == 7 * value
    return value == HORIZON_DAYS and bool(re.match(rf"\W*{any_of(spoken.days)}", after))


def _numbers(text: str, spoken: Language) -> Iterator[tuple[float, re.Match[str]]]:
    for match in DIGITS.finditer(text):
        yield _value(match[0]), match
    for match in re.finditer(any_of(spoken.number_words), text):
        yield spoken.number_words[re.sub(r"\s+", " ", match[0])], match


def _value(digits: str) -> float:
    try:
        return float(digits.replace(",", "."))
    except ValueError:
        return float("nan")  # 1.2.3 or 10:30: no number that a context holds


# ---------------------------------------------------------------- dates


def invented_dates(text: str, context: Context) -> list[str]:
    """Days, weekdays and spans of time that are not those of the due date."""
    spoken, text = language(context.locale), plain(text)
    found = [
        *_wrong_numeric_dates(text, context),
        *_wrong_months(text, context, spoken),
        *_wrong_weekdays(text, context, spoken),
        *_wrong_claims(text, context, spoken),
    ]
    return list(dict.fromkeys(found))


def _wrong_numeric_dates(text: str, context: Context) -> Iterator[str]:
    due = context.due_on
    for match in NUMERIC_DATE.finditer(text):
        if match["year"]:
            days = {(int(match["month"]), int(match["day"]))}
        else:
            a, b = int(match["a"]), int(match["b"])
            days = {(b, a), (a, b)} if context.locale == "en" else {(b, a)}
        if due is None or (due.month, due.day) not in days:
            yield f"the date {match[0]} is not in the context"


def _wrong_months(text: str, context: Context, spoken: Language) -> Iterator[str]:
    due = context.due_on
    for match, month, day in _month_days(text, spoken):
        if due is None or month != due.month or day not in (None, due.day):
            yield f"the date {match[0].strip()} is not in the context"
    known = {due.day} if due else set()
    for match in re.finditer(any_of(spoken.ordinal_words), text):
        day = spoken.ordinal_words[match[0]]
        if day >= FROM_ORDINAL and day not in known:
            yield f"the day {match[0]} is not in the context"


def _month_days(
    text: str, spoken: Language
) -> Iterator[tuple[re.Match[str], int, int | None]]:
    """Months that text names, each with the day beside it, if there is one."""
    months = [plain(month) for month in spoken.months]
    for match in _date_pattern(spoken).finditer(text):
        day = match["before"] or match["after"]
        word = match["month"]
        if word in ALSO_WORDS and not (day or match["preposition"]):
            continue
        yield match, months.index(word) + 1, _day_number(day, spoken)


def _date_pattern(spoken: Language) -> re.Pattern[str]:
    words = [*spoken.number_words, *spoken.ordinal_words]
    day = rf"(?:\d{{1,2}}(?!\d)|{any_of(words)})"
    of = "".join(rf"(?:{word}\s+)?" for word in spoken.of_date)
    return re.compile(
        rf"(?:(?P<preposition>in|until|by|on|before|after|since|from)\s+)?"
        rf"(?:(?P<before>{day})(?:st|nd|rd|th|\.)?\s+{of})?"
        rf"(?P<month>{any_of(spoken.months)})"
        rf"(?:\s+(?:the\s+)?(?P<after>{day})(?:st|nd|rd|th)?)?"
    )


def _day_number(day: str | None, spoken: Language) -> int | None:
    if day is None:
        return None
    if day.isdigit():
        return int(day)
    return (spoken.ordinal_words | spoken.number_words)[day]


def _wrong_weekdays(text: str, context: Context, spoken: Language) -> Iterator[str]:
    due = context.due_on
    days = [plain(day) for day in spoken.weekdays]
    for match in re.finditer(any_of(days), text):
        if due is None or days.index(match[0]) != due.weekday():
            yield f"the day {match[0]} is not in the context"


def _wrong_claims(text: str, context: Context, spoken: Language) -> Iterator[str]:
    """`It is due tomorrow`, `12 days left`: right only if so many days are left."""
    left = context.days_left
    claim = rf"{any_of(spoken.is_due)}\W+(?:\w+\W+)?"
    spans = {
        0: rf"{claim}(?:{any_of(spoken.today)})",
        1: rf"{claim}(?:{any_of(spoken.tomorrow)})",
        None: rf"{claim}(?:{any_of(spoken.later)})",
    }
    for days, pattern in spans.items():
        match = re.search(pattern, text)
        if match and (days is None or left is None or max(left, 0) != days):
            yield f"`{match[0]}` is not what the context says"
    for match, ahead in _spans(text, claim, spoken):
        if ahead != left:
            yield f"`{match[0]}` is not the time left"


def _spans(
    text: str, claim: str, spoken: Language
) -> Iterator[tuple[re.Match[str], float]]:
    values = {**spoken.number_words, **{plain(word): 1 for word in spoken.single}}
    number = rf"(?P<number>\d+|{any_of(values)})"
    units = {1: any_of(spoken.days), 7: any_of(spoken.weeks)}
    for length, unit in units.items():
        ahead = rf"{claim}{any_of(spoken.until)}\W+{number}\W+{unit}"
        behind = rf"{number}\W+{unit}\W+(?:\w+\W+)?{any_of(spoken.left)}"
        for match in re.finditer(rf"{ahead}", text):
            yield match, length * _span_value(match["number"], values)
        for match in re.finditer(rf"{behind}", text):
            yield match, length * _span_value(match["number"], values)


def _span_value(number: str, values: dict[str, int]) -> float:
    return float(number) if number.isdigit() else values[number]


def _without_dates(text: str, spoken: Language) -> str:
    text = NUMERIC_DATE.sub(lambda m: CUT if _is_day(m) else m[0], text)
    for match, _, day in reversed(list(_month_days(text, spoken))):
        if day is not None:
            text = text[: match.start()] + CUT + text[match.end() :]
    return text


def _is_day(match: re.Match[str]) -> bool:
    return bool(match["year"]) or max(int(match["a"]), int(match["b"])) <= 31


def names_time_left(text: str, context: Context) -> bool:
    """Whether text says when the work is due: the days left, or the date."""
    if context.due_on is None or context.days_left is None:
        return True
    spoken, text, left = language(context.locale), plain(text), context.days_left
    near = {0: spoken.today, 1: spoken.tomorrow}.get(max(left, 0))
    if near and re.search(any_of(near), text):
        return True
    if any(
        (month, day) == (context.due_on.month, context.due_on.day)
        for _, month, day in _month_days(text, spoken)
    ):
        return True
    for value, match in _numbers(text, spoken):
        after = text[match.end() :]
        if value == left and re.match(rf"\W*{any_of(spoken.days)}", after):
            return True
        if 7 * value == left and re.match(rf"\W*{any_of(spoken.weeks)}", after):
            return True
    week = rf"{any_of(spoken.single)}\W+{any_of(spoken.weeks)}"
    return left == 7 and bool(re.search(week, text))


# ---------------------------------------------------------------- links


def invented_links(text: str) -> list[str]:
    """Addresses of any kind; a context never holds one."""
    seen = unmasked(text)
    seen = SPOKEN_DOT.sub(".", HIDDEN_DOT.sub(".", seen))
    seen = EMAIL_ADDRESS.sub(" ", seen)  # personal_data's business
    kinds = {
        "an address on the web": LINK.search(seen) or bare_link(seen),
        "a disguised address": HIDDEN_SCHEME.search(seen),
        "markup of a link": MARKDOWN_LINK.search(text),
        "an IP address": IP_ADDRESS.search(seen),
    }
    return [kind for kind, found in kinds.items() if found]


# ---------------------------------------------------------------- names


def invented_names(parts: tuple[str, ...], context: Context) -> list[str]:
    """Capital letters that neither the context nor the grammar explains.

    A name that begins a sentence is known only from a list of common first
    names; everywhere else any unexplained capital counts.
    """
    spoken = language(context.locale)
    known = _known_words(context.locale) | {
        plain(word) for fact in context.facts for word in WORD.findall(fact)
    }
    titles = re.compile(rf"(?<!\w)(?:{'|'.join(spoken.titles)})\.?\s+(?=[^\W\d_])")
    found = 0
    for text in parts:
        titled = _is_titled(text)
        for match in WORD.finditer(text):
            word = match[0]
            stem = APOSTROPHE.split(word)[0]
            if not word[0].isupper() or plain(stem) in known:
                continue
            if _begins_sentence(text, match.start()):
                found += word in _first_names()
            else:
                found += not word.isupper() and not titled
        found += sum(text[m.end()].isupper() for m in titles.finditer(text))
    return ["a name that is not in the context"] if found else []


def _begins_sentence(text: str, at: int) -> bool:
    before = text[:at].rstrip(QUOTES)
    return not before or before[-1] in SENTENCE_ENDS or before[-2:] == "\n-"


def _is_titled(text: str) -> bool:
    """Whether nearly every longer word has a capital: a headline."""
    words = [word for word in WORD.findall(text) if len(word) > 3]
    return len(words) > 2 and all(word[0].isupper() for word in words)


@cache
def _known_words(locale: str) -> frozenset[str]:
    spoken = language(locale)
    words = [*ordinary_words(locale), *spoken.function_words.split(), "i", "ok", "sms"]
    return frozenset(map(plain, [*words, *spoken.months, *spoken.weekdays]))


@cache
def ordinary_words(locale: str) -> frozenset[str]:
    """Words that the language's templates use."""
    folder = TEMPLATES / locale
    text = " ".join(
        path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.j2"))
    )
    return frozenset(re.findall(r"\w+", text.casefold()))


@cache
def _first_names() -> frozenset[str]:
    lines = (TEMPLATES / "first_names.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(
        name for line in lines if not line.startswith("#") for name in line.split()
    )
