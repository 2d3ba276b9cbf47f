"""Each check, on drafts that it must refuse and on some that it must not."""

import dataclasses

import pytest
from intervene_examples import make_contact, make_flag

from intervene.drafting.check import problems
from intervene.drafting.draft import Policy, draft, make_context
from intervene.drafting.drafter import LOCALES, Draft, TemplateDrafter
from intervene.text import sms_segments, to_gsm7

DRAFTER = TemplateDrafter()


def check(changes, contact=None, channel="email", **flag):
    contact = contact or make_contact()
    context = make_context(make_flag(**flag), contact, "supportive", channel)
    text = DRAFTER.write(context)
    if "body" not in changes and "extra" in changes:
        changes = {"body": f"{text.body}\n{changes['extra']}"}
    found = problems(dataclasses.replace(text, **changes), context, contact)
    return {problem.check: problem.reason for problem in found}


def test_a_text_that_would_take_minutes_is_not_looked_at_further():
    assert list(check({"extra": "x" * 200_000})) == ["length"]


def test_an_untouched_draft_has_no_problem():
    assert check({}) == {}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"extra": "Dear {last_name}"}, "placeholders"),
        ({"extra": "{{ first_name }}"}, "placeholders"),
        ({"extra": "a { brace"}, "placeholders"),
        ({"subject": "{title}"}, "placeholders"),
        ({"opening": " "}, "empty_parts"),
        ({"observation": ""}, "empty_parts"),
        ({"next_steps": ()}, "empty_parts"),
        ({"closing": ""}, "empty_parts"),
        ({"subject": ""}, "empty_parts"),
        ({"subject": None}, "empty_parts"),
        ({"subject": "x" * 121}, "length"),
        ({"extra": "x" * 2000}, "length"),
        ({"extra": "You are at risk."}, "forbidden_words"),
        ({"extra": "You are FAILING."}, "forbidden_words tone"),
        ({"extra": "Do not drop out."}, "forbidden_words"),
        ({"extra": "This is your last chance!"}, "forbidden_words"),
        ({"subject": "Your score"}, "forbidden_words"),
        ({"extra": "Write to S1@Example.org"}, "personal_data numbers links names"),
        ({"extra": "Write to other@example.org"}, "personal_data links"),
        ({"extra": "Call 1-555-010-0001"}, "personal_data numbers"),
        ({"extra": "Call 22 33 44 55"}, "personal_data numbers"),
        ({"extra": "Dear Testname,"}, "personal_data names"),
    ],
)
def test_what_must_not_be_stored_is_refused_by_name(changes, names):
    assert list(check(changes)) == names.split()


@pytest.mark.parametrize(
    "extra",
    ["Take an asterisk.", "The scenery is nice.", "One day at a time, in 48 hours."],
)
def test_harmless_words_pass(extra):
    assert check({"extra": extra}) == {}


@pytest.mark.parametrize(
    ("locale", "words", "names"),
    [
        ("nb", "Du kan stryke på eksamen", "forbidden_words"),
        ("nb", "Siste sjanse!", "forbidden_words"),
        ("nb", "høy RISIKO", "forbidden_words tone"),
        ("es", "Puedes suspender el examen", "forbidden_words"),
        ("es", "última oportunidad", "forbidden_words"),
        ("es", "ULTIMA OPORTUNIDAD", "forbidden_words tone"),
        ("es", "alto riesgo", "forbidden_words"),
    ],
)
def test_forbidden_words_know_the_language(locale, words, names):
    contact = make_contact(locale=locale)
    assert list(check({"extra": words}, contact)) == names.split()


def test_every_language_forbids_something():
    for locale in LOCALES:
        contact = make_contact(locale=locale)
        found = check({"extra": "depression depresjon depresión"}, contact)
        assert list(found) == ["forbidden_words"]


def test_a_title_may_hold_any_word_the_text_around_it_may_not():
    title = "Risk management"
    assert check({}, course_title=title) == {}
    assert "forbidden_words" in check({"extra": "Your risk"}, course_title=title)


def test_a_name_in_a_title_or_an_ordinary_word_is_nobodys():
    assert check({}, make_contact(first_name="Linear")) == {}
    may = make_contact(first_name="May")
    assert check({"extra": "You may ask. May we help?"}, may) == {}


def test_a_placeholder_needs_something_to_merge():
    contact = make_contact(first_name=None)
    found = check({"extra": "Hi {first_name}"}, contact)
    assert found == {"placeholders": "{first_name} with no name to merge"}


def test_sms_is_counted_with_room_for_the_name():
    exact = "x" * (306 - 20)
    assert check({"body": "{first_name}" + exact}, channel="sms") == {}
    found = check({"body": "{first_name}x" + exact}, channel="sms")
    assert found == {"length": "3 SMS segments, at most 2"}


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        # 152 places, then a euro that does not fit into the last one.
        ("a" * 152 + "€" + "a" * 151, 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        ("ы" * 70, 1),
        ("ы" * 71, 2),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("😀" * 66, 2),
        ("😀" * 67, 3),
    ],
)
def test_sms_segments(text, segments):
    assert sms_segments(text) == segments


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Café ñandú", "Café ñandu"),
        ("Blåbær på “norsk” …", 'Blåbær på "norsk" ...'),
        ("Łódź", None),
        ("数学", None),
    ],
)
def test_the_sms_alphabet(text, plain):
    assert to_gsm7(text) == plain


def test_a_refused_draft_is_not_a_message():
    class Careless(TemplateDrafter):
        def write(self, context):
            return Draft("S", "o", "You will fail.", ("s",), "c", "You will fail.")

    drafted = draft([make_flag()], {}, Policy(), Careless(), "sample")
    assert drafted.messages == []
    [refused] = drafted.refused
    assert refused.student_id == "s1"
    assert [item.check for item in refused.problems] == ["forbidden_words"]
