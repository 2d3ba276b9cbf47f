"""What the checks make of messages whose verdict people have written down."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from intervene_examples import make_contact, make_flag

from intervene.drafting.check import CHECKS, problems
from intervene.drafting.draft import make_context
from intervene.drafting.drafter import Draft, compose

HERE = Path(__file__).parent
CORPUS = yaml.safe_load((HERE / "corpus.yaml").read_text(encoding="utf-8"))
HELD_OUT = yaml.safe_load((HERE / "corpus_held_out.yaml").read_text(encoding="utf-8"))
BASES = CORPUS["bases"]
TITLES = {
    "en": ("Linear algebra", "Final exam", "Vectors"),
    "nb": ("Lineær algebra", "Avsluttende eksamen", "Vektorer"),
    "es": ("Álgebra lineal", "Examen final", "Vectores"),
}
PARTS = ("subject", "opening", "observation", "next_steps", "closing")
FLOOR = 0.95


def verdict(entry: dict[str, Any]) -> list[str]:
    """Names of the checks that a message of the corpus does not pass."""
    locale, channel = entry["base"].split("_", 1)
    course, assessment, topic = TITLES[locale]
    flag = make_flag(
        **{
            "course_title": course,
            "assessment_title": assessment,
            "topics": (topic,),
            "due_at": datetime(2026, 3, 14, 12),
        }
        | entry.get("context", {})
    )
    contact = make_contact(locale=locale)
    context = make_context(flag, contact, entry.get("tone", "supportive"), channel)
    text = parts(entry, context)
    others = [parts({"base": base}, context).body for base in entry.get("others", ())]
    return [problem.check for problem in problems(text, context, contact, others)]


def parts(entry: dict[str, Any], context: Any) -> Draft:
    given = BASES[entry["base"]] | {k: entry[k] for k in PARTS if k in entry}
    # SMS quotes titles in its own alphabet, as the drafters do.
    if context.channel == "sms":
        given = {k: v for k, v in given.items() if k != "subject"}
    return compose(context, **({"subject": None} | given))


def figures(corpus: dict[str, Any]) -> dict[str, Any]:
    """Precision and recall of `refused`; a bad one counts if its check caught it."""
    wrong, missed, caught, good = [], [], 0, 0
    for entry in corpus["messages"]:
        found, expected = verdict(entry), entry.get("expect")
        if expected is None:
            good += 1
            wrong += [(entry, found)] if found else []
        elif expected in found:
            caught += 1
        else:
            missed.append((entry, found))
    return {
        "good": good,
        "bad": caught + len(missed),
        "precision": caught / (caught + len(wrong)),
        "recall": caught / (caught + len(missed)),
        "refused although good": wrong,
        "not caught": missed,
    }


@pytest.mark.parametrize("corpus", [CORPUS, HELD_OUT], ids=["open", "held out"])
def test_the_checks_agree_with_the_corpus(corpus, record_property):
    found = figures(corpus)
    for name in ("precision", "recall"):
        record_property(name, found[name])
        print(f"{name}: {found[name]:.3f}")
    assert found["precision"] >= FLOOR, found["refused although good"]
    assert found["recall"] >= FLOOR, found["not caught"]


def test_the_corpus_covers_every_check_language_and_channel():
    both = CORPUS["messages"] + HELD_OUT["messages"]
    assert len(both) >= 120
    expected = {entry.get("expect") for entry in both} - {None}
    assert expected == set(CHECKS) - {"empty_parts"} | {"duplicate"}
    for verdict_is_good in (True, False):
        bases = {e["base"] for e in both if ("expect" not in e) == verdict_is_good}
        assert bases == set(BASES)
