"""`python -m intervene draft` and `sync` on a real warehouse and a real store."""

import subprocess
import sys
from datetime import date, datetime
from functools import partial

import pytest

import intervene.__main__ as commands
import intervene.drafting.command as drafting
from intervene.drafting.drafter import TemplateDrafter
from ml.settings import PROJECT_ROOT
from ml.warehouse import find_handback_table, handback_tables, open_warehouse

PERSONAL = {
    "first_name": "Zebulonia",
    "email": "zebulonia.private@example.org",
    "phone": "+1 555 010 4477",
}
HOLD_THE_LOCK = (
    "import duckdb, sys; held = duckdb.connect(sys.argv[1]);"
    " print('held', flush=True); sys.stdin.read()"
)


def messages(warehouse, columns="*", order="message_id"):
    return warehouse.run(f"select {columns} from intervene.messages order by {order}")


def test_one_draft_for_each_flag(warehouse, run):
    for number in range(3):
        warehouse.flag(f"s{number}", flag_rank=number)
    outcome = run("draft")
    assert outcome.code == 0, outcome.err
    assert "flags:         3" in outcome.out
    assert "drafted:       3" in outcome.out
    assert "already there: 0" in outcome.out
    assert "Drafting for 3" in outcome.err
    found = messages(warehouse, "student_id, channel, tone, state, sent_at")
    assert sorted(found) == [
        (f"s{number}", "email", "supportive", "checked", None) for number in range(3)
    ]
    assert warehouse.run(
        "select event, count(*) from intervene.message_events group by event order by 1"
    ) == [("checked", 3), ("drafted", 3), ("proposed", 3)]


def test_the_copy_has_the_columns_of_the_ddl(warehouse, run):
    warehouse.flag("s1", due_at=None)
    run("draft")
    for table in handback_tables("intervene").values():
        found = warehouse.run(
            "select column_name, lower(data_type) from information_schema.columns"
            " where table_schema = 'intervene' and table_name = ?"
            " order by ordinal_position",
            [table.name],
        )
        assert dict(found) == table.columns
    assert messages(warehouse, "due_at, as_of_date") == [(None, date(2026, 3, 4))]


def test_drafting_twice_makes_nothing_twice(warehouse, run):
    warehouse.flag("s1")
    run("draft")
    before = messages(warehouse)
    events = warehouse.run("select * from intervene.message_events order by all")
    outcome = run("draft")
    assert "drafted:       0" in outcome.out
    assert "already there: 1" in outcome.out
    assert messages(warehouse) == before
    assert (
        warehouse.run("select * from intervene.message_events order by all") == events
    )


def test_flagged_again_on_another_day_makes_nothing(warehouse, run):
    warehouse.flag("s1")
    run("draft")
    # A week later the policy would choose another tone: still the same sitting.
    warehouse.run(
        "update flagged_students set as_of_date = date '2026-03-11',"
        " weak_topics = 'Vectors'"
    )
    assert "already there: 1" in run("draft").out
    assert len(messages(warehouse)) == 1


def test_a_new_due_time_is_a_new_sitting(warehouse, run):
    warehouse.flag("s1")
    run("draft")
    warehouse.run("update flagged_students set due_at = timestamp '2026-06-14 12:00'")
    assert "drafted:       1" in run("draft").out


def test_all_variants_then_again(warehouse, run):
    warehouse.flag("s1")
    run("draft")
    assert "drafted:       8" in run("draft", "--all-variants").out
    assert "already there: 9" in run("draft", "--all-variants").out
    assert len(messages(warehouse)) == 9


def test_options_narrow_what_is_drafted(warehouse, run):
    for number in range(4):
        warehouse.flag(f"s{number}", flag_rank=4 - number)
    outcome = run(
        "draft", "--limit", "2", "--tone", "urgent", "--channel", "sms",
        "--campaign", "spring",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert messages(
        warehouse, "student_id, tone, channel, campaign, subject", "student_id"
    ) == [
        ("s2", "urgent", "sms", "spring", None),
        ("s3", "urgent", "sms", "spring", None),
    ]


@pytest.mark.parametrize("option", ["--tone", "--channel"])
def test_an_unknown_tone_or_channel_says_what_is_allowed(warehouse, run, option):
    outcome = run("draft", option, "loud")
    assert outcome.code == 1
    assert f"{option} 'loud': use one of" in outcome.err


def test_contacts_decide_language_and_channel(warehouse, run):
    for student in ("s1", "s2", "s3"):
        warehouse.flag(student)
    warehouse.contact(
        "s1", locale="nb-NO", preferred_channel="sms", phone="+4700000000"
    )
    warehouse.contact("s2", locale="fr", first_name="Name")
    warehouse.contact("s3", opted_out_at=datetime(2026, 1, 1))
    outcome = run("draft")
    assert "skipped:       1 (opted out)" in outcome.out
    assert messages(warehouse, "student_id, locale, channel", "student_id") == [
        ("s1", "nb", "sms"),
        ("s2", "en", "in_app"),
    ]


def test_no_personal_value_leaves_the_contacts(warehouse, run, tmp_path):
    warehouse.flag("s1", weak_topics="Vectors")
    warehouse.contact("s1", locale="en", **PERSONAL)
    outcome = run("draft", "--all-variants")
    assert outcome.code == 0, outcome.err
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("store.sqlite*"))
    assert b"{first_name}" in stored, "the scan would find text in these files"
    copied = repr(messages(warehouse)) + repr(
        warehouse.run("select * from intervene.message_events")
    )
    for value in (*PERSONAL.values(), "5550104477", "555 010"):
        assert value.encode() not in stored
        assert value not in copied
        assert value not in outcome.out + outcome.err


def test_nobody_flagged_says_so_and_why(warehouse, run):
    outcome = run("draft")
    assert outcome.code == 0, outcome.err
    assert "No student is flagged: nothing was scored yet" in outcome.out
    warehouse.run("create schema ml")
    warehouse.run(find_handback_table("ml.student_scores").ddl)
    warehouse.run(
        "insert into ml.student_scores by name select 's1' as student_id,"
        " date '2026-03-04' as as_of_date"
    )
    assert "1 students have scores, the newest of 2026-03-04" in run("draft").out


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("drop table flagged_students", "python -m ml.train"),
        ("drop table personal.student_contacts", "dbt build"),
        (
            "alter table flagged_students drop weak_topics",
            "flagged_students has no column weak_topics",
        ),
        ("update pipeline_settings set source_system = 'oulad'", "SOURCE_SYSTEM"),
    ],
)
def test_what_is_not_there_is_explained(warehouse, run, broken, words):
    warehouse.flag("s1")
    warehouse.run(broken)
    outcome = run("draft")
    assert outcome.code == 1
    assert words in outcome.err
    assert "Traceback" not in outcome.err


def test_no_warehouse_is_explained(warehouse, run, monkeypatch, tmp_path):
    monkeypatch.setenv("WAREHOUSE_PATH", str(tmp_path / "none.duckdb"))
    outcome = run("draft")
    assert outcome.code == 1
    assert "There is no warehouse" in outcome.err


def test_a_refused_draft_is_named_and_the_others_are_stored(
    warehouse, run, monkeypatch
):
    warehouse.flag("s1")
    warehouse.flag("s2")
    warehouse.contact("s2", **PERSONAL)
    original = TemplateDrafter.write

    def careless(self, context):
        text = original(self, context)
        if context.has_name:
            object.__setattr__(text, "body", f"{text.body} {PERSONAL['email']}")
        return text

    monkeypatch.setattr(TemplateDrafter, "write", careless)
    outcome = run("draft")
    assert outcome.code == 1
    assert "student s2, template en/email.supportive.j2: personal_data" in outcome.err
    assert PERSONAL["email"] not in outcome.out + outcome.err
    assert [row[0] for row in messages(warehouse, "student_id")] == ["s1"]


def test_two_processes_at_once_make_nothing_twice(warehouse):
    for number in range(40):
        warehouse.flag(f"s{number}")
    command = [sys.executable, "-m", "intervene", "draft"]
    running = [
        subprocess.Popen(
            command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    drafted = [
        int(line.split(":")[1])
        for out, _ in outputs
        for line in out.decode().splitlines()
        if line.startswith("drafted:")
    ]
    assert sum(drafted) == 40
    assert len(messages(warehouse)) == 40
    [(events,)] = warehouse.run("select count(*) from intervene.message_events")
    assert events == 120


def test_a_locked_warehouse_leaves_the_drafts_safe(warehouse, run, monkeypatch):
    warehouse.flag("s1")
    holder = []

    def draft_then_lock(*arguments):
        """Another process takes the file between the reading and the copying."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD_THE_LOCK, str(warehouse.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline().strip() == b"held"
        holder.append(process)
        return original(*arguments)

    original = drafting.write
    with monkeypatch.context() as patched:
        patched.setattr(drafting, "write", draft_then_lock)
        patched.setattr(
            commands, "open_warehouse", partial(open_warehouse, wait_seconds=0.2)
        )
        outcome = run("draft")
    holder[0].communicate(timeout=30)
    assert outcome.code == 1
    assert "in use by process" in outcome.err
    assert "safe in the store" in outcome.err
    assert "python -m intervene sync" in outcome.err
    synced = run("sync")
    assert synced.code == 0, synced.err
    assert "messages in the warehouse: 1" in synced.out
    assert len(messages(warehouse)) == 1


def test_sync_replaces_what_is_there_and_leaves_other_sources_out(warehouse, run):
    warehouse.flag("s1")
    run("draft")
    warehouse.run("insert into intervene.messages (message_id) values ('stray')")
    run("sync")
    assert messages(warehouse, "student_id") == [("s1",)]
    warehouse.run("update pipeline_settings set source_system = 'oulad'")
    assert "messages in the warehouse: 0" in run("sync").out


@pytest.mark.parametrize("command", [["draft"], ["sync"]])
def test_help_has_an_example(run, command):
    assert "python -m intervene" in run(*command, "--help").out
