"""The store on real SQLite files."""

import dataclasses
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from intervene.store import (
    MOVES,
    IllegalMove,
    Message,
    StoreError,
    current_messages,
    message_events,
    messages,
    metadata,
    open_store,
    store_url,
)
from ml.settings import PROJECT_ROOT, Settings

NOW = datetime(2026, 3, 4, 9, tzinfo=UTC)
MESSAGE = Message(
    source_system="sample",
    student_id="s1",
    course_id="c1",
    course_run_id="r1",
    assessment_id="a1",
    due_at=datetime(2026, 3, 14, 12),
    as_of_date=date(2026, 3, 4),
    campaign="early-alert",
    step=1,
    channel="email",
    tone="supportive",
    locale="en",
    drafter="template",
    drafter_version="1",
    subject="Hello",
    body="Hi {first_name}",
)
ID = MESSAGE.message_id
DELETE = sa.delete(message_events)


def change(**changes):
    return dataclasses.replace(MESSAGE, **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "store.sqlite"


@pytest.fixture
def url(path):
    return f"sqlite:///{path}"


@pytest.fixture
def each(store_url):
    """The store on each database."""
    with open_store(store_url) as opened:
        yield opened


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        yield opened


def test_a_draft_is_stored_once_with_its_events(each):
    store = each
    assert store.add([MESSAGE], NOW) == [MESSAGE]
    assert store.add([MESSAGE], NOW + timedelta(days=1)) == []
    [row] = store.messages()
    assert row["state"] == "checked"
    assert row["sent_at"] is None
    assert row["created_at"] == datetime(2026, 3, 4, 9)
    assert [(e["sequence"], e["event"]) for e in store.events()] == [
        (1, "proposed"),
        (2, "drafted"),
        (3, "checked"),
    ]


def test_tomorrow_makes_nothing_even_in_another_tone(store):
    store.add([MESSAGE], NOW)
    tomorrow = {"as_of_date": date(2026, 3, 5)}
    assert store.add([change(**tomorrow)], NOW) == []
    assert store.add([change(tone="urgent", **tomorrow)], NOW) == []
    assert store.add([change(channel="sms", **tomorrow)], NOW) == []
    assert len(store.messages()) == 1


def test_a_tone_asked_for_by_name_is_a_message_of_its_own(store):
    store.add([MESSAGE], NOW)
    assert len(store.add([change(tone="urgent")], NOW, ["tone"])) == 1
    assert store.add([change(tone="urgent", channel="sms")], NOW, ["tone"]) == []
    assert len(store.add([change(channel="sms")], NOW, ["tone", "channel"])) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"student_id": "s2"},
        {"course_run_id": "r2"},
        {"assessment_id": "a2"},
        {"due_at": None},
        {"due_at": datetime(2026, 3, 15, 12)},
        {"campaign": "other"},
        {"step": 2},
        {"source_system": "platform"},
    ],
)
def test_another_sitting_campaign_or_step_is_another_message(store, changes):
    store.add([MESSAGE], NOW)
    assert len(store.add([change(**changes)], NOW)) == 1


def test_the_same_draft_twice_in_one_call(store):
    assert len(store.add([MESSAGE, MESSAGE], NOW)) == 1
    assert len(store.events()) == 3


def test_a_draft_that_came_in_between_is_left_alone(store, monkeypatch):
    """Where both processes looked before either wrote (PostgreSQL lets them)."""
    store.add([MESSAGE], NOW)
    monkeypatch.setattr("intervene.store._taken", lambda *_: set())
    assert store.add([MESSAGE, change(student_id="s2")], NOW) == [
        change(student_id="s2")
    ]
    assert len(store.events()) == 6


def test_the_key_is_unique_in_the_database_itself(store, path):
    store.add([MESSAGE], NOW)
    refused = pytest.raises(sqlite3.IntegrityError, match="idempotency_key")
    with sqlite3.connect(path) as connection, refused:
        connection.execute(
            "insert into messages select 'other', idempotency_key, source_system,"
            " student_id, course_id, course_run_id, assessment_id, due_at,"
            " as_of_date, campaign, step, channel, tone, locale, drafter,"
            " drafter_version, subject, body, created_at from messages"
        )


def test_a_failure_half_way_stores_nothing(store):
    with pytest.raises(sa.exc.SQLAlchemyError):
        store.add([MESSAGE, change(student_id="s2", body=None)], NOW)
    assert store.messages() == []
    assert store.events() == []


def test_events_can_only_be_appended(store, path):
    store.add([MESSAGE], NOW)
    for sql in ("update message_events set actor = 'x'", "delete from message_events"):
        refused = pytest.raises(sqlite3.IntegrityError, match="append-only")
        with sqlite3.connect(path) as connection, refused:
            connection.execute(sql)
    assert len(store.events()) == 3


STATES = [state for state in MOVES if state]


@pytest.mark.parametrize("state", STATES)
def test_every_move_is_allowed_or_refused_by_the_one_table(store, url, state):
    """Walk to the state and try every event from there."""
    for event in STATES:
        message = change(student_id=f"{state}-{event}")
        insert_without_events(url, message)
        for step in path_to(state):
            store.record(message.message_id, step, "advisor", NOW, "why")
        if event in MOVES[state]:
            store.record(message.message_id, event, "advisor", NOW, "why")
        else:
            with pytest.raises(IllegalMove, match=f"cannot become {event}"):
                store.record(message.message_id, event, "advisor", NOW, "why")


@pytest.mark.parametrize(
    "steps",
    [
        ("sent",),
        ("scheduled",),
        ("approved", "sent"),
        ("rejected", "approved"),
        ("approved", "scheduled", "sent", "approved"),
        ("approved", "scheduled", "sent", "rejected"),
        ("approved", "scheduled", "sent", "sent"),
    ],
)
def test_nothing_goes_out_unapproved_twice_or_back(store, steps):
    store.add([MESSAGE], NOW)
    for step in steps[:-1]:
        store.record(ID, step, "advisor", NOW, "why")
    with pytest.raises(IllegalMove, match="cannot become"):
        store.record(ID, steps[-1], "advisor", NOW, "why")


def insert_without_events(url, message):
    row = dataclasses.asdict(message) | {
        "message_id": message.message_id,
        "idempotency_key": message.idempotency_key,
        "created_at": datetime(2026, 3, 4),
    }
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.insert(messages), row)
    engine.dispose()


def path_to(state):
    """The shortest way from nothing to a state."""
    paths = {None: []}
    found = [None]
    for reached in found:
        for following in MOVES[reached]:
            if following not in paths:
                paths[following] = [*paths[reached], following]
                found.append(following)
    return paths[state]


def test_the_state_is_that_of_the_newest_event_and_sent_at_of_the_first_sending(store):
    store.add([MESSAGE], NOW)
    store.record(ID, "approved", "advisor-1", NOW, reason="reads well")
    store.record(ID, "scheduled", "sender", NOW)
    norway = timezone(timedelta(hours=1))
    store.record(ID, "sent", "sender", datetime(2026, 3, 5, 9, tzinfo=norway))
    store.record(ID, "replied", "inbox", NOW + timedelta(days=3))
    [row] = store.messages()
    assert row["state"] == "replied"
    assert row["sent_at"] == datetime(2026, 3, 5, 8), "kept in UTC"
    assert store.events()[3]["reason"] == "reads well"


def test_a_message_that_is_not_there_cannot_move(store):
    with pytest.raises(IllegalMove, match="not there"):
        store.record("nobody", "approved", "advisor", NOW)
    with pytest.raises(IllegalMove, match="not there"):
        store.record("nobody", "proposed", "advisor", NOW)


def test_of_many_at_once_one_moves_a_message(store, url):
    store.add([MESSAGE], NOW)

    def approve(number):
        with open_store(url) as own:
            try:
                return own.record(ID, "approved", f"advisor-{number}", NOW)
            except IllegalMove:
                return None

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(approve, range(6)))
    assert sorted(results, key=str) == [4, None, None, None, None, None]
    assert [event["event"] for event in store.events()].count("approved") == 1


def test_an_approval_has_an_actor_and_a_rejection_a_reason(each):
    each.add([MESSAGE], NOW)
    with pytest.raises(IllegalMove, match="approved needs an actor"):
        each.record(ID, "approved", " ", NOW)
    for reason in (None, " "):
        with pytest.raises(IllegalMove, match="needs a reason"):
            each.record(ID, "rejected", "advisor", NOW, reason)
    assert len(each.events()) == 3


@pytest.mark.parametrize(
    ("sequence", "event", "actor", "reason", "words"),
    [
        (4, "sent", "x", None, "move is not possible"),
        (4, "proposed", "x", None, "move is not possible"),
        (6, "approved", "x", None, "has no gaps"),
        (3, "approved", "x", None, "has no gaps"),
        (4, "approved", "", None, "needs an actor"),
        (4, "rejected", "x", "", "needs a reason"),
    ],
)
def test_the_database_itself_refuses_what_cannot_be(
    each, sequence, event, actor, reason, words
):
    """Whoever writes the row, with whatever program."""
    each.add([MESSAGE], NOW)
    row = {"message_id": ID, "sequence": sequence, "event": event, "actor": actor}
    row |= {"reason": reason, "happened_at": datetime(2026, 3, 4)}
    refused = pytest.raises(sa.exc.IntegrityError, match=words)
    with refused, each.writing() as connection:
        connection.execute(sa.insert(message_events), row)
    for statement in (sa.update(message_events).values(actor="y"), DELETE):
        refused = pytest.raises(sa.exc.IntegrityError, match="append-only")
        with refused, each.writing() as connection:
            connection.execute(statement)
    assert [event["event"] for event in each.events()] == [
        "proposed",
        "drafted",
        "checked",
    ]


def test_the_view_has_the_state_with_who_when_and_why(each):
    each.add([MESSAGE, change(student_id="s2")], NOW)
    each.record(ID, "rejected", "advisor-1", NOW + timedelta(hours=1), "wrong tone")
    with each.reading() as connection:
        rows = connection.exec_driver_sql(
            "select student_id, state, state_actor, state_reason, sent_at"
            " from current_messages order by student_id"
        ).all()
    assert [tuple(row) for row in rows] == [
        ("s1", "rejected", "advisor-1", "wrong tone", None),
        ("s2", "checked", "template", None, None),
    ]
    assert each.messages() == each.rows(
        current_messages().order_by(messages.c.message_id)
    )


def test_a_store_from_before_the_guards_gets_them(url, path):
    with open_store(url) as store:
        store.add([MESSAGE], NOW)
    with sqlite3.connect(path) as connection:
        connection.execute("drop view current_messages")
        connection.execute("drop trigger message_events_guard")
        connection.execute("drop table delivery_attempts")
    with open_store(url) as store:
        assert store.messages()[0]["state"] == "checked"
    refused = pytest.raises(sqlite3.IntegrityError, match="not possible")
    with sqlite3.connect(path) as connection, refused:
        connection.execute(
            "insert into message_events values (?, 4, 'sent', 'x', null, '2026')", [ID]
        )


APPROVE_ALL = """
import sys
from datetime import UTC, datetime
from intervene.store import IllegalMove, open_store

url, actor = sys.argv[1:]
with open_store(url) as store:
    ids = sorted(row["message_id"] for row in store.messages())
    print("ready", flush=True)
    sys.stdin.readline()
    won = 0
    for message_id in ids:
        try:
            store.record(message_id, "approved", actor, datetime.now(UTC))
            won += 1
        except IllegalMove:
            pass
print(won)
"""


def test_two_processes_at_once_approve_each_message_once(each, store_url):
    each.add([change(student_id=f"s{number}") for number in range(60)], NOW)
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", APPROVE_ALL, store_url, f"advisor-{number}"],
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in racing:
        assert process.stdout.readline() == "ready\n"
    for process in racing:
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [int(process.communicate(timeout=60)[0]) for process in racing]
    assert sum(won) == 60
    approvals = [row for row in each.events() if row["event"] == "approved"]
    assert len({row["message_id"] for row in approvals}) == len(approvals) == 60


def test_many_at_once_make_the_tables_and_draft_once_on_postgresql(postgresql_url):
    test_many_at_once_make_the_tables_and_draft_once(postgresql_url)


def test_many_at_once_make_the_tables_and_draft_once(url):
    drafts = [change(student_id=f"s{number}") for number in range(50)]

    def add(shift):
        with open_store(url) as own:
            return len(own.add(drafts[shift:] + drafts[:shift], NOW))

    with ThreadPoolExecutor(6) as pool:
        counts = list(pool.map(add, range(6)))
    assert sum(counts) == 50
    with open_store(url) as store:
        assert len(store.events()) == 150


def test_readers_do_not_wait_for_a_writer(store, path):
    store.add([MESSAGE], NOW)
    with sqlite3.connect(path, isolation_level=None) as writer:
        assert writer.execute("pragma journal_mode").fetchone() == ("wal",)
        writer.execute("begin immediate")
        assert len(store.messages()) == 1
        writer.execute("rollback")


def test_another_source_is_not_mixed_in(store):
    store.add([MESSAGE, change(source_system="platform")], NOW)
    assert [row["source_system"] for row in store.messages("platform")] == ["platform"]
    assert len(store.events("platform")) == 3
    assert len(store.messages()) == 2


def test_tables_and_queries_compile_for_postgresql():
    dialect = postgresql.dialect()
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
    assert "SELECT" in str(current_messages().compile(dialect=dialect))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mysql://me:secret@host/x", "not allowed"),
        ("sqlite://", "needs a file"),
        ("nonsense", "not usable"),
        ("sqlite:////proc/none/store.sqlite", "not usable"),
    ],
)
def test_an_unusable_url_is_explained_without_its_password(given, words):
    with pytest.raises(StoreError, match=words) as error, open_store(given):
        pass
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_explained(tmp_path):
    (tmp_path / "x.sqlite").write_text("this is not a database, but long enough " * 50)
    url = f"sqlite:///{tmp_path}/x.sqlite"
    with pytest.raises(StoreError, match="INTERVENE_STORE"), open_store(url):
        pass


def test_the_store_lies_beside_the_warehouse_unless_told_otherwise(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("INTERVENE_STORE", raising=False)
    settings = Settings(warehouse_path=tmp_path / "w.duckdb")
    assert store_url(settings) == f"sqlite:///{tmp_path}/intervene.sqlite"
    monkeypatch.setenv("INTERVENE_STORE", "postgresql://host/x")
    settings = Settings(warehouse_path=tmp_path / "w.duckdb")
    assert store_url(settings) == "postgresql://host/x"
