"""Which tone and channel, and what the templates say."""

import dataclasses
import re
import shutil
from collections import Counter
from datetime import date, datetime
from itertools import cycle, product
from pathlib import Path

import pytest
from intervene_examples import make_contact, make_flag

from intervene.drafting.check import problems
from intervene.drafting.draft import (
    Policy,
    choose_channel,
    choose_locale,
    choose_tone,
    draft,
    make_context,
)
from intervene.drafting.drafter import (
    CHANNELS,
    LOCALES,
    TEMPLATES,
    TITLE_LIMITS,
    TONES,
    TemplateDrafter,
    TemplateError,
)
from intervene.text import sms_segments

ZONES = ("dormant", "warning", "safe", None)
DUE = {
    "open": None,
    "today": datetime(2026, 3, 4, 12),
    "tomorrow": datetime(2026, 3, 5, 12),
    "far": datetime(2026, 3, 14, 12),
}
DRAFTER = TemplateDrafter()


def write(flag, contact=None, tone="supportive", channel="email"):
    context = make_context(flag, contact, tone, channel)
    return DRAFTER.write(context), context


# ---------------------------------------------------------------- policy


@pytest.mark.parametrize(
    ("days", "zone", "topics", "tone"),
    [
        (0, "warning", (), "urgent"),
        (7, "warning", ("Vectors",), "urgent"),
        (7, "dormant", (), "urgent"),
        (8, "warning", (), "supportive"),
        (8, "warning", ("Vectors",), "resource_focused"),
        (8, "dormant", ("Vectors",), "supportive"),
        (8, None, ("Vectors",), "resource_focused"),
        (8, None, (), "supportive"),
        (None, "safe", (), "supportive"),
        (None, "safe", ("Vectors",), "resource_focused"),
        (None, "dormant", ("Vectors",), "supportive"),
    ],
)
def test_tone_follows_days_left_zone_and_topics(days, zone, topics, tone):
    due = None if days is None else datetime(2026, 3, 4 + days, 12)
    flag = make_flag(due_at=due, engagement_zone=zone, topics=topics)
    assert choose_tone(flag) == tone


@pytest.mark.parametrize(
    ("preferred", "email", "phone", "channel"),
    [
        ("sms", "e@example.org", "+15550100", "sms"),
        ("sms", "e@example.org", None, "email"),
        ("sms", None, None, "in_app"),
        ("email", "e@example.org", "+15550100", "email"),
        ("email", None, "+15550100", "in_app"),
        ("email", "  ", None, "in_app"),
        ("in_app", "e@example.org", "+15550100", "in_app"),
        (None, "e@example.org", "+15550100", "email"),
        ("pigeon", None, "+15550100", "in_app"),
        (" SMS ", None, "+15550100", "sms"),
    ],
)
def test_channel_is_the_preferred_one_where_it_works(preferred, email, phone, channel):
    contact = make_contact(preferred_channel=preferred, email=email, phone=phone)
    assert choose_channel(contact) == channel


def test_somebody_without_contacts_gets_english_email():
    assert choose_channel(None) == "email"
    assert choose_locale(None) == "en"


@pytest.mark.parametrize(
    ("wanted", "locale"),
    [
        ("en-GB", "en"),
        ("nb_NO", "nb"),
        ("no", "nb"),
        ("nn-NO", "nb"),
        ("ES", "es"),
        ("fr", "en"),
        ("", "en"),
        (None, "en"),
        ("../nb", "en"),
    ],
)
def test_locale_falls_back_to_english(wanted, locale):
    assert choose_locale(make_contact(locale=wanted)) == locale


def test_all_variants_is_every_tone_for_every_channel():
    drafted = draft([make_flag()], {}, Policy(all_variants=True), DRAFTER, "sample")
    found = {(message.tone, message.channel) for message in drafted.messages}
    assert found == set(product(TONES, CHANNELS))
    assert len({message.idempotency_key for message in drafted.messages}) == 9


def test_a_tone_asked_for_narrows_all_variants():
    policy = Policy(all_variants=True, tone="urgent")
    drafted = draft([make_flag()], {}, policy, DRAFTER, "sample")
    assert [message.tone for message in drafted.messages] == ["urgent"] * 3


def test_who_opted_out_gets_no_draft_and_is_counted():
    contacts = {"s1": make_contact(opted_out_at=datetime(2026, 1, 1))}
    drafted = draft([make_flag()], contacts, Policy(), DRAFTER, "sample")
    assert drafted.messages == []
    assert drafted.skipped == Counter({"opted out": 1})


def test_same_flags_same_messages():
    def once():
        flags = [make_flag(), make_flag(student_id="s2", topics=("Vectors",))]
        return draft(flags, {}, Policy(), DRAFTER, "sample").messages

    assert once() == once()
    assert [m.message_id for m in once()] == [m.message_id for m in once()]


def test_the_key_knows_the_sitting_and_not_the_day():
    first, *others = (
        draft([flag], {}, Policy(tone="urgent"), DRAFTER, "sample").messages[0]
        for flag in (
            make_flag(),
            make_flag(as_of_date=date(2026, 3, 5)),
            make_flag(due_at=datetime(2026, 3, 15, 12)),
            make_flag(course_run_id="r2"),
            make_flag(assessment_id="a2"),
            make_flag(due_at=None),
        )
    )
    assert others[0].message_id == first.message_id
    assert len({first.message_id, *(item.message_id for item in others[1:])}) == 5


def test_ids_with_separators_do_not_meet_in_one_key():
    one, two = (
        draft([flag], {}, Policy(), DRAFTER, "sample").messages[0]
        for flag in (
            make_flag(course_id='c","r', course_run_id="x"),
            make_flag(course_id="c", course_run_id='r","x'),
        )
    )
    assert one.idempotency_key != two.idempotency_key


# ---------------------------------------------------------------- templates


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("locale", LOCALES)
def test_every_template_renders_and_passes_its_checks(locale, channel, tone):
    """In every zone, for every kind of work, near, far and open, long and short."""
    contact = make_contact(locale=locale)
    long_topics = ("M" * 90, "N" * 90, "O" * 90, "P" * 90)
    quoted = [
        ({"course_title": "Æ" * 90, "assessment_title": "W" * 90}, long_topics),
        ({"course_title": None, "assessment_title": None}, ()),
        ({"course_title": "Risikostyring: risk of failing, riesgo"}, ("Vectors",)),
    ]
    kinds = cycle(("exam", "quiz", None, "assignment", "quiz"))
    for zone, due, (title, topic), someone, kind in zip(
        *zip(*product(ZONES, DUE, quoted, (contact, None)), strict=True),
        kinds,
        strict=False,
    ):
        flag = make_flag(
            engagement_zone=zone,
            due_at=DUE[due],
            assessment_kind=kind,
            topics=topic,
            reasons=("You have " + "x" * 300,) * 3,
            **title,
        )
        context = make_context(flag, someone, tone, channel)
        text = DRAFTER.write(context)
        found = problems(text, context, someone or make_contact(first_name=None))
        assert found == [], (flag, text)
        assert 1 <= len(text.next_steps) <= 3
        assert ("{first_name}" in text.body) == (someone is not None)


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("locale", LOCALES)
def test_each_zone_and_each_tone_reads_differently(locale, channel, tone):
    contact = make_contact(locale=locale)

    def body(zone, tone):
        flag = make_flag(engagement_zone=zone, reasons=())
        return write(flag, contact, tone, channel)[0].body

    assert body("dormant", tone) != body("warning", tone)
    assert len({body("warning", other) for other in TONES}) == 3
    if channel != "sms":
        assert len({body(zone, tone) for zone in ZONES}) == 4


@pytest.mark.parametrize(
    ("locale", "due", "words"),
    [
        ("en", "far", "in 10 days, on 14 March"),
        ("en", "tomorrow", "tomorrow, 5 March"),
        ("en", "today", "today"),
        ("nb", "far", "om 10 dager, 14. mars"),
        ("nb", "tomorrow", "i morgen, 5. mars"),
        ("es", "far", "dentro de 10 días, el 14 de marzo"),
        ("es", "tomorrow", "mañana, 5 de marzo"),
    ],
)
def test_it_says_what_is_due_and_when(locale, due, words):
    flag = make_flag(due_at=DUE[due])
    body = write(flag, make_contact(locale=locale))[0].body
    assert "Final exam" in body
    assert words in body


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("locale", LOCALES)
def test_an_open_sitting_names_no_day(locale, channel):
    for tone, zone in product(TONES, ZONES):
        flag = make_flag(due_at=None, engagement_zone=zone, reasons=())
        body = write(flag, make_contact(locale=locale), tone, channel)[0].body
        assert not re.search(r"\d", body), body
        assert "None" not in body


def test_the_due_day_is_the_students_own():
    late = datetime(2026, 3, 14, 2)  # still the evening of the 13th in New York
    there = make_contact(timezone="America/New_York")
    assert "in 9 days, on 13 March" in write(make_flag(due_at=late), there)[0].body
    midnight = datetime(2026, 3, 14)  # a date without a time
    assert "on 14 March" in write(make_flag(due_at=midnight), there)[0].body
    for unknown in ("Nowhere/Nothing", "../etc/passwd", "Europe"):
        contact = make_contact(timezone=unknown)
        assert "on 14 March" in write(make_flag(due_at=late), contact)[0].body


def test_reasons_are_told_in_english_and_only_there():
    reason = "You have not opened a lesson for 12 days"
    assert f"{reason}." in write(make_flag(reasons=(reason,)))[0].body
    for locale in ("nb", "es"):
        text, context = write(make_flag(), make_contact(locale=locale))
        assert context.reasons, "a model may tell them in the language"
        assert reason not in text.body


@pytest.mark.parametrize(
    "discouraging",
    [
        "Your risk score is high.",
        "You are further along than 33 % of the others in your course",
        "0 % of your first attempts at quiz questions were right",
    ],
)
def test_a_reason_that_would_discourage_is_left_out(discouraging):
    reasons = (discouraging, "You have done 10 % of the course so far.")
    body = write(make_flag(reasons=reasons))[0].body
    assert discouraging.rstrip(".") not in body
    assert "done 10 % of the course" in body


def test_somebody_who_has_not_begun_is_invited_without_a_reason():
    flag = make_flag(engagement_zone="dormant", reasons=("You are far behind.",))
    body = write(flag)[0].body
    assert "far behind" not in body
    assert "welcome to start now" in body


def test_weak_topics_become_a_step():
    flag = make_flag(topics=("Vectors", "Matrices"))
    for channel in CHANNELS:
        assert "Vectors" in " ".join(write(flag, channel=channel)[0].next_steps)


def test_sms_stays_in_its_alphabet():
    flag = make_flag(course_title="Estadística 😀 básica", topics=("Математика",))
    body = write(flag, make_contact(locale="es"), channel="sms")[0].body
    assert sms_segments(body) <= 2
    assert "(tu curso)" in body, "a title that SMS cannot write is not quoted"
    assert "Математика" not in body


# ---------------------------------------------------------------- untrusted titles

INJECTIONS = {
    "jinja": "{{ 7*7 }} {% raw %}",
    "placeholder": "{first_name} {secret}",
    "newlines": "Algebra\r\n\r\nSubject: other\u2028line",
    "html": "<script>alert(1)</script><a href='x'>",
    "link": "Algebra https://evil.example/x www.evil.example",
    "address": "Algebra write to me@evil.example",
    "direction": "Algebra \u202eesrever\u200b",
    "long": "Algebra " * 500,
    "nothing": "\u200b {}<>",
}


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("title", INJECTIONS.values(), ids=INJECTIONS)
def test_a_title_stays_inert(title, channel):
    flag = make_flag(course_title=title, assessment_title=title, topics=(title, title))
    text, context = write(flag, make_contact(), channel=channel)
    plain, _ = write(make_flag(topics=("a", "b")), make_contact(), channel=channel)
    everything = f"{text.subject}\n{text.body}"
    assert problems(text, context, make_contact()) == []
    assert text.body.count("\n") == plain.body.count("\n")
    assert everything.count("{") == everything.count("{first_name}") == 1
    assert not re.search(r"49|[<>]|https?:|www\.|@|[\u200b\u202e\u2028\r]", everything)
    assert all(len(fact) <= TITLE_LIMITS[channel] + 2 for fact in context.facts)


# ---------------------------------------------------------------- broken templates


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TEMPLATES, tmp_path / "templates"))


def test_a_missing_variable_is_an_error_not_a_blank(templates):
    path = templates / "en" / "email.supportive.j2"
    path.write_text(path.read_text().replace("A small", "{{ adviser_name }}: A small"))
    context = make_context(make_flag(), None, "supportive", "email")
    with pytest.raises(TemplateError, match=r"email\.supportive\.j2.*adviser_name"):
        TemplateDrafter(templates).write(context)


def test_a_missing_part_is_an_error_that_names_it(templates):
    path = templates / "en" / "email.supportive.j2"
    path.write_text(path.read_text().replace("macro closing", "macro ending"))
    context = make_context(make_flag(), None, "supportive", "email")
    with pytest.raises(TemplateError, match=r"email\.supportive\.j2.*closing"):
        TemplateDrafter(templates).write(context)


def test_the_version_follows_the_templates(templates):
    before = TemplateDrafter().version
    assert TemplateDrafter(templates).version == before
    other = templates.parent / "other"
    shutil.copytree(templates, other)
    (other / "en" / "layout.j2").write_text("changed")
    assert TemplateDrafter(other).version != before


def test_the_drafter_is_given_no_identity_and_no_score():
    names = {
        field.name
        for field in dataclasses.fields(
            make_context(make_flag(), make_contact(), "urgent", "email")
        )
    }
    assert names == {
        "course",
        "assessment",
        "kind",
        "due_on",
        "days_left",
        "zone",
        "topics",
        "reasons",
        "has_name",
        "locale",
        "channel",
        "tone",
    }
