"""How the sitting went, as the last step of a message."""

from datetime import UTC, datetime

import pytest
from test_message_store import MESSAGE, change, path_to

from intervene.delivery.outbox import what_is_against
from intervene.store import open_store, store_url
from ml.settings import load_settings

NOW = datetime(2026, 3, 4, 9, tzinfo=UTC)
TARGETS = """
create table student_targets as
select * from (values
    ('s1', 'r1', 'a1', 'matured', 1), ('s1', 'r1', 'a1', 'pending', null),
    ('s2', 'r1', 'a1', 'matured', 0), ('s3', 'r1', 'a1', 'pending', null)
) as rows (student_id, course_run_id, assessment_id, label_status, at_risk)"""


@pytest.fixture
def store(warehouse):
    with open_store(store_url(load_settings())) as opened:
        yield opened


def put(store, state, **changes):
    message = change(**changes)
    store.add([message], NOW, apart=("channel",))
    for step in path_to(state)[3:]:
        store.record(message.message_id, step, "somebody", NOW, "why")
    return message.message_id


def newest(store, message_id):
    rows = {row["message_id"]: row for row in store.messages()}
    return rows[message_id]["state"], rows[message_id]["state_reason"]


def test_a_sitting_without_a_build_or_a_label_has_no_outcome(store, run, warehouse):
    waiting = put(store, "sent", student_id="s3")
    assert "outcomes recorded: 0" in run("sync").out
    warehouse.run(TARGETS)
    assert "outcomes recorded: 0" in run("sync").out
    assert newest(store, waiting)[0] == "sent"


def test_what_went_out_gets_the_label_of_its_sitting_once(store, run, warehouse):
    warehouse.run(TARGETS)
    failed = put(store, "delivered")
    passed = put(store, "replied", student_id="s2")
    never_sent = put(store, "approved", student_id="s2", channel="sms")
    other = put(store, "sent", student_id="s2", assessment_id="a2")
    assert "outcomes recorded: 2" in run("sync").out
    assert newest(store, failed) == ("outcome", "at_risk = 1")
    assert newest(store, passed) == ("outcome", "at_risk = 0")
    assert newest(store, never_sent)[0] == "approved"
    assert newest(store, other)[0] == "sent"
    assert "outcomes recorded: 0" in run("sync").out
    copied = "select count(*) from intervene.message_events where event = 'outcome'"
    assert warehouse.run(copied) == [(2,)]


def test_an_outcome_does_not_lift_what_forbids_to_write_again(store, run, warehouse):
    warehouse.run(TARGETS)
    bounced = put(store, "bounced")
    unwanted = put(store, "sent", student_id="s2")
    run("sync")
    assert newest(store, bounced)[0] == "bounced"
    assert newest(store, unwanted)[0] == "outcome"
    store.record(unwanted, "complained", "somebody", NOW)
    run("sync")
    later = [
        put(store, "approved", student_id=student, assessment_id="a2")
        for student in (MESSAGE.student_id, "s2")
    ]
    with store.reading() as connection:
        assert [len(what_is_against(connection, message)) for message in later] == [
            1,
            1,
        ]
