"""The store on real SQLite files."""

import dataclasses
import sqlite3
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
    messages,
    metadata,
    open_store,
    store_url,
)
from ml.settings import Settings

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


def change(**changes):
    return dataclasses.replace(MESSAGE, **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "store.sqlite"


@pytest.fixture
def url(path):
    return f"sqlite:///{path}"


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        yield opened


def test_a_draft_is_stored_once_with_its_events(store):
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
            store.record(message.message_id, step, "advisor", NOW)
        if event in MOVES[state]:
            store.record(message.message_id, event, "advisor", NOW)
        else:
            with pytest.raises(IllegalMove, match=f"cannot become {event}"):
                store.record(message.message_id, event, "advisor", NOW)


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
        store.record(ID, step, "advisor", NOW)
    with pytest.raises(IllegalMove):
        store.record(ID, steps[-1], "advisor", NOW)


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
