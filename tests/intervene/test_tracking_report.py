"""What is told of the messages: counts and parts, never a student or a text."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa
import yaml
from intervene_examples import PIPELINE_SETTINGS

from intervene.edits import edited_parts, parts
from intervene.store import Message, message_edits, open_store
from intervene.tracking import REPORT_FILE, build_report, read_tracked
from ml.settings import PROJECT_ROOT, Settings
from ml.warehouse import WarehouseMissing, create_handback_tables

MODELS = PROJECT_ROOT / "dbt_project/models/marts/interventions/_tracking__models.yml"
BODY = """Hi {first_name},

You have not opened a lesson for 12 days.

For the next two days:
- Open one lesson.
- Answer five questions.

We are here to help."""
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


# ---------------------------------------------------------------- edits


def test_a_message_is_cut_up_as_it_is_laid_out():
    found = parts("Exam", BODY + "\n\nKind regards,\nYour course team")
    assert found["opening"] == "Hi {first_name},"
    assert found["reason"] == "You have not opened a lesson for 12 days."
    assert found["steps"].endswith("five questions.")
    assert found["closing"].startswith("We are here to help.\nKind regards,")
    assert parts(None, "Hi, one line.") == {"subject": "", "text": "Hi, one line."}


def test_an_edit_is_compared_with_the_text_before_it(tmp_path):
    message = Message(
        source_system="sample", student_id="s1", course_id="c1", course_run_id="r1",
        assessment_id="a1", due_at=None, as_of_date=date(2026, 3, 4), campaign="c",
        step=1, channel="email", tone="supportive", locale="en", drafter="template",
        drafter_version="1", subject="Your exam", body=BODY,
    )  # fmt: skip
    steps = BODY.replace("five questions", "two questions today")
    texts = [
        ("Your exam", steps),
        ("Your exam soon", steps),
        ("Your exam soon", "Just call us."),
        ("Your exam soon", ""),
    ]
    with open_store(f"sqlite:///{tmp_path}/store.sqlite") as store:
        store.add([message], NOW)
        with store.writing() as connection:
            for number, (subject, body) in enumerate(texts, start=1):
                row = {
                    "message_id": message.message_id, "edit": number, "actor": "ada",
                    "subject": subject, "body": body, "true_on": date(2026, 3, 4),
                    "edited_at": NOW.replace(tzinfo=None),
                }  # fmt: skip
                connection.execute(sa.insert(message_edits), row)
        found = edited_parts(store, "sample")
        assert edited_parts(store, "oulad") == []
    changed = [
        (row["edit"], row["part"], row["words_removed"], row["words_added"])
        for row in found
    ]
    words = len(steps.split())
    assert changed == [
        (1, "steps", 2, 3),  # "five questions." became "two questions today."
        (2, "subject", 0, 1),
        (3, "text", words, 3),  # laid out otherwise
    ]
    assert not any("body" in row or "subject" in row for row in found)


# ---------------------------------------------------------------- the page


def make_tables(path: Path) -> None:
    """The tables of dbt, with the columns that its contracts state, and no rows."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(PIPELINE_SETTINGS)
        for model in yaml.safe_load(MODELS.read_text())["models"]:
            columns = ", ".join(
                f"{column['name']} {column['data_type']}" for column in model["columns"]
            )
            connection.execute(f"create table {model['name']} ({columns})")
        create_handback_tables(connection, "intervene")


def insert(path: Path, table: str, *rows: dict) -> None:
    with duckdb.connect(str(path)) as connection:
        for row in rows:
            marks = ", ".join("?" for _ in row)
            connection.execute(
                f"insert into {table} ({', '.join(row)}) values ({marks})",
                list(row.values()),
            )


def funnel(arm: str, channel: str, tone: str, drafter: str, *counts: int) -> dict:
    names = (
        "students", "drafted", "checked", "waiting_for_review", "edited", "approved",
        "rejected", "scheduled", "sent", "delivered", "bounced", "replied",
        "complained", "with_outcome",
    )  # fmt: skip
    kind = {"campaign": "spring", "arm": arm, "channel": channel}
    counted = dict(zip(names, counts, strict=True))
    return kind | {"tone": tone, "drafter": drafter} | counted


def fill(path: Path) -> None:
    """A campaign in which something of everything happened."""
    rows = [
        funnel("email", "email", "supportive", "template",
               60, 60, 60, 10, 12, 45, 5, 44, 43, 20, 1, 6, 1, 0),
        funnel("email", "email", "urgent", "gemini-2.5-flash",
               30, 30, 30, 0, 9, 24, 6, 24, 24, 10, 0, 3, 0, 0),
        funnel("none", "sms", "supportive", "template",
               10, 10, 10, 2, 1, 8, 0, 8, 8, 0, 0, 0, 0, 0),
    ]  # fmt: skip
    insert(path, "message_funnel", *rows)
    insert(path, "review_times", *(
        {
            "message_id": f"m{number}", "campaign": "spring", "channel": "email",
            "tone": "urgent" if number % 3 == 0 else "supportive",
            "drafter": "gemini-2.5-flash" if number % 3 == 0 else "template",
            "decision": "rejected" if number % 8 == 0 else "approved",
            "hours_to_decision": 0.2 + number % 40,
        }
        for number in range(88)
    ))  # fmt: skip
    for part, edited in (("any", 12), ("steps", 9), ("subject", 4), ("reason", 2)):
        insert(path, "message_edit_rates", {
            "drafter": "template", "channel": "email", "tone": "supportive",
            "part": part, "reviewed_messages": 58, "edited_messages": edited,
            "edited_share": edited / 58, "words_removed": 5 * edited,
            "words_added": 7 * edited,
        })  # fmt: skip
    insert(path, "intervene.experiment_effects", {
        "campaign": "spring", "arm": "email", "control_arm": "control",
        "metric": "at_risk", "role": "primary", "subgroup": "all", "assigned": 90,
        "assigned_control": 88, "estimate": -0.06, "ci_low": -0.15, "ci_high": 0.03,
        "verdict": "inconclusive", "note": "The interval holds 0.",
    })  # fmt: skip
    insert(path, "intervene.messages", *(
        {"message_id": f"m{n}", "student_id": f"student-{n}", "body": "Secret text"}
        for n in range(100)
    ))  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb")


def text_of(html: str) -> str:
    """What a reader reads: words with single blanks."""
    visible = re.sub(r"<(style|svg)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", visible).replace("\xa0", " ").split())


def test_before_anything_happened_the_page_says_so(settings):
    make_tables(settings.warehouse_path)
    text = text_of(build_report(settings))
    assert "No message was drafted yet" in text
    assert "Nobody has decided on a draft yet." in text
    assert "Nobody has edited a draft" in text
    assert "No experiment was analysed yet." in text


def test_drafts_that_nobody_sent_are_not_called_sent(settings):
    make_tables(settings.warehouse_path)
    row = funnel("none", "sms", "urgent", "template", 3, 3, 3, 3, *[0] * 10)
    insert(settings.warehouse_path, "message_funnel", row)
    text = text_of(build_report(settings))
    assert "No message sent yet" in text
    assert "differ by 3 messages from the copy of the store" in text


def test_the_page_has_the_figures_and_names_nobody(settings):
    make_tables(settings.warehouse_path)
    fill(settings.warehouse_path)
    html = build_report(settings)
    text = text_of(html)
    for words in (
        "75 of 100 messages sent",
        "12 wait for an advisor",
        "22 % edited 22 of 100 drafts",
        "spring email email supportive template 60 45 43 20 6",
        "spring email email supportive template 10 12 5 1 1",
        "Marked as unwanted: 1.",
        "template email supportive steps 9 of 58 16 % 5.0 7.0",
        "-0.060 (-0.150 to 0.030)",
        "The interval holds 0.",
    ):
        assert words in text, words
    assert "differ by" not in text
    assert not re.search(r"student-\d|Secret|\bm\d+\b", text)
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", html), "opens offline"
    assert "<script" not in html
    assert build_report(settings) == html, "to the last byte"


def test_without_the_tables_it_says_what_to_run(settings):
    with duckdb.connect(str(settings.warehouse_path)) as connection:
        connection.execute(PIPELINE_SETTINGS)
        with pytest.raises(WarehouseMissing, match=r"message_funnel.*dbt build"):
            read_tracked(connection)


def test_the_command_writes_the_page_by_the_warehouse(warehouse, run, monkeypatch):
    path = warehouse.path.with_name("other.duckdb")
    make_tables(path)
    monkeypatch.setenv("WAREHOUSE_PATH", str(path))
    outcome = run("report")
    assert outcome.code == 0, outcome.err
    page = path.with_name(REPORT_FILE)
    assert str(page) in outcome.out
    assert "No message was drafted yet" in page.read_text()
