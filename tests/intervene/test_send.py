"""`python -m intervene send`, `record` and `inbox`, to a real mail server."""

import dataclasses
import json
import mailbox
import time as time_module
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from email import message_from_string

import pytest
import sqlalchemy as sa
from delivery_servers import MailServer, free_port, smtp_server
from test_message_store import MESSAGE, path_to

from intervene.delivery.channels import Letter
from intervene.delivery.outbox import (
    LEASE,
    MOST_ATTEMPTS,
    Cap,
    NotClaimed,
    Outcome,
    claim,
    contacted,
    finish,
    release,
    resolve,
    unknown,
    waiting,
)
from intervene.delivery.send import Rules, Sender, judge, write_letter
from intervene.handover import Contact
from intervene.store import IllegalMove, delivery_attempts, lock_message, open_store

NOW = datetime(2026, 3, 4, 9, tzinfo=UTC)
ADA = Contact("s1", "Ada", "ada.private@example.org", "+47 123 45 678")
TEXT = "Hi {first_name}, Final exam is in 10 days, on 14 March."
MINE = dataclasses.replace(MESSAGE, body=TEXT)
ID = MINE.message_id
PERSONAL = ("Ada", "ada.private", "12345678", "123 45 678")


def message(student="s1", **changes):
    return dataclasses.replace(MINE, student_id=student, **changes)


def add(store, *messages, state="approved"):
    """Store messages and walk them to a state."""
    store.add(messages, NOW - timedelta(days=1))
    steps = path_to(state)[3:]
    for item in messages:
        for step in steps:
            store.record(item.message_id, step, "advisor", NOW - timedelta(hours=1))


def states(store):
    return {row["student_id"]: row["state"] for row in store.messages()}


@pytest.fixture
def store(store_url):
    with open_store(store_url) as opened:
        yield opened


@pytest.fixture
def rules(tmp_path):
    return Rules(None, "UTC", Cap(2, 7), False, tmp_path / "intervene.stop")


class Recorder:
    """A way out that notes what it was given and answers as told."""

    def __init__(self, *answers):
        self.letters, self.answers, self.on_send = [], list(answers), lambda: None

    def prepare(self):
        pass

    def send(self, letter):
        self.letters.append(letter)
        self.on_send()
        return self.answers.pop(0) if self.answers else Outcome("accepted", "250")

    def close(self):
        pass


def send(store, rules, way_out, *contacts, now=NOW, dry_run=False):
    people = {contact.student_id: contact for contact in contacts or (ADA,)}
    ways = {"email": way_out, "sms": way_out, "in_app": way_out}
    sender = Sender(store, people, ways, rules, lambda: now, dry_run)
    return [(line.action, line.reason) for line in sender.run("sample")]


# ---------------------------------------------------------------- the outbox


def test_an_approved_message_goes_out_once_with_its_name(store, rules):
    add(store, MINE)
    way_out = Recorder()
    assert send(store, rules, way_out) == [("sent", "250")]
    assert send(store, rules, way_out) == []
    [letter] = way_out.letters
    assert (letter.to, letter.body[:7]) == (ADA.email, "Hi Ada,")
    assert [event["event"] for event in store.events()][3:] == [
        "approved",
        "scheduled",
        "sent",
    ]
    everything = repr(store.messages()) + repr(store.events())
    assert not [value for value in PERSONAL if value in everything]


@pytest.mark.parametrize("state", ["checked", "sent", "replied", "bounced"])
def test_only_approved_messages_go_out(store, rules, state):
    add(store, MINE, state=state)
    assert send(store, rules, Recorder()) == []


def test_it_is_claimed_in_the_store_before_anything_leaves(store, rules):
    add(store, MINE)
    way_out = Recorder()
    seen = []

    def look():
        seen.append((states(store), unknown(store, NOW)[0]["outcome"]))
        with pytest.raises(IllegalMove, match="may be on its way"):
            store.record(ID, "rejected", "advisor", NOW, "changed my mind")
        with pytest.raises(NotClaimed, match="without an outcome"):
            claim(store, ID, "another", NOW, None)

    way_out.on_send = look
    send(store, rules, way_out)
    assert seen == [({"s1": "scheduled"}, None)]


def test_a_rejection_waits_for_a_claim_and_is_then_refused(store):
    """A second attempt adds no event that the two could collide on."""
    add(store, MINE)
    once = claim(store, ID, "send@host:1", NOW, None)
    finish(store, once, Outcome("temporary", "450 at RCPT"), "send@host:1", NOW)
    row = {"message_id": ID, "attempt": 2, "worker": "x", "claimed_at": datetime.now()}
    with ThreadPoolExecutor(1) as pool:
        with store.writing() as connection:
            lock_message(connection, ID)
            rejection = pool.submit(store.record, ID, "rejected", "ola", NOW, "no")
            time_module.sleep(0.3)
            connection.execute(sa.insert(delivery_attempts), row)
        with pytest.raises(IllegalMove, match="may be on its way"):
            rejection.result(30)


def test_a_refusal_for_now_waits_twice_as_long_each_time(store, rules):
    add(store, message(due_at=None, body="Hello"))
    way_out = Recorder(*[Outcome("temporary", "450 at RCPT")] * 3)
    now, waits = NOW, []
    for _ in range(3):
        assert send(store, rules, way_out, now=now) == [("queued", "450 at RCPT")]
        assert send(store, rules, way_out, now=now) == [
            ("held", "to be tried again later")
        ]
        [row] = waiting(store, "sample")
        waits.append(row["retry_at"].replace(tzinfo=UTC) - now)
        now += waits[-1]
    assert waits == [timedelta(minutes=minutes) for minutes in (5, 10, 20)]
    assert send(store, rules, way_out, now=now) == [("sent", "250")]


def test_what_the_other_side_asks_to_wait_is_waited(store, rules):
    add(store, MINE)
    asked = Outcome("temporary", "HTTP 429", timedelta(minutes=42))
    send(store, rules, Recorder(asked))
    [row] = waiting(store, "sample")
    assert row["retry_at"].replace(tzinfo=UTC) == NOW + timedelta(minutes=42)


def test_it_is_given_up_after_so_many_attempts(store, rules):
    add(store, message(due_at=None, body="Hello"))
    way_out = Recorder(*[Outcome("temporary", "450 at RCPT")] * 20)
    for day in range(MOST_ATTEMPTS):
        [(action, reason)] = send(store, rules, way_out, now=NOW + timedelta(days=day))
    assert (action, reason) == ("bounced", "450 at RCPT; given up after 12 attempts")


def test_a_refusal_for_good_bounces_and_was_never_sent(store, rules):
    add(store, MINE)
    answer = Outcome("permanent", "550 5.1.1 at RCPT")
    assert send(store, rules, Recorder(answer)) == [("bounced", "550 5.1.1 at RCPT")]
    [row] = store.messages()
    assert (row["state"], row["sent_at"]) == ("bounced", None)
    assert row["state_reason"] == "550 5.1.1 at RCPT"


@pytest.mark.parametrize(
    ("event", "reason", "channel", "held"),
    [
        ("bounced", "550 5.1.1 at RCPT", "email", "the address bounced before"),
        ("bounced", None, "email", "the address bounced before"),
        ("bounced", "HTTP 400", "email", "the address bounced before"),
        ("bounced", "550 5.1.1 at RCPT", "sms", None),
        ("bounced", "550 5.7.1 at RCPT", "email", None),
        ("bounced", "4.4.7", "email", None),
        ("bounced", "450 at RCPT; given up after 12 attempts", "email", None),
        ("complained", "unsubscribed", "email", "the student wants no more messages"),
        ("complained", "unsubscribed", "sms", "the student wants no more messages"),
        ("replied", None, "email", None),
    ],
)
def test_what_came_back_holds_later_messages(
    store, rules, event, reason, channel, held
):
    earlier, elsewhere = message(step=2), message("s2", step=2)
    add(store, earlier, elsewhere, state="sent")
    for item in (earlier, elsewhere):
        store.record(item.message_id, event, "inbox", NOW, reason)
    later = message(channel=channel, due_at=None, body="Hello")
    add(store, later)
    way_out = Recorder()
    dry = send(store, rules, way_out, dry_run=True)
    assert dry == [("held", held) if held else ("would send", "")]
    assert send(store, rules, way_out) == [("held", held) if held else ("sent", "250")]
    if held:
        release(store, later.message_id, "ola", NOW)
        assert send(store, rules, way_out) == [("sent", "250")]
    with pytest.raises(IllegalMove, match="Nothing that came back"):
        release(store, later.message_id, "ola", NOW)


def test_a_text_that_retention_took_is_not_sent(store, rules):
    add(store, message(due_at=None, body=""))
    way_out = Recorder()
    assert send(store, rules, way_out) == [("rejected", "its text is no longer kept")]
    assert way_out.letters == []


def test_a_bounce_holds_the_next_message_of_the_same_run(store, rules):
    add(store, message(), message(step=2))
    way_out = Recorder(Outcome("permanent", "550 5.1.1 at RCPT"))
    assert send(store, rules, way_out) == [
        ("bounced", "550 5.1.1 at RCPT"),
        ("held", "the address bounced before"),
    ]
    assert len(way_out.letters) == 1


def test_the_unknown_is_never_tried_again_until_somebody_decides(store, rules):
    add(store, message("s1"), message("s2"), message("s3"))
    people = [dataclasses.replace(ADA, student_id=name) for name in ("s1", "s2", "s3")]
    way_out = Recorder(*[Outcome("unknown", "dropped at final dot")] * 2)
    send(store, rules, way_out, *people)
    later = NOW + timedelta(hours=2)
    assert [
        action for action, _ in send(store, rules, way_out, *people, now=later)
    ] == [
        "held",
        "held",
    ]
    first, second = (row["message_id"] for row in unknown(store, NOW))
    resolve(store, first, True, "ola", later)
    resolve(store, second, False, "ola", later)
    with pytest.raises(IllegalMove, match="no unknown attempt"):
        resolve(store, first, False, "ola", later)
    assert send(store, rules, way_out, *people, now=later) == [("sent", "250")]
    assert set(states(store).values()) == {"sent"}
    assert len(way_out.letters) == 4
    sent = {row["message_id"]: row["sent_at"] for row in store.messages()}
    assert sent[first] == NOW.replace(tzinfo=None), "when it was taken"


def test_a_sender_that_may_still_be_at_work_is_left_alone(store):
    add(store, MINE)
    taken = claim(store, ID, "send@host:1", NOW, None)
    [row] = unknown(store, NOW)
    assert row["young"]
    with pytest.raises(IllegalMove, match="may still be at work"):
        resolve(store, ID, False, "ola", NOW + LEASE - timedelta(seconds=1))
    resolve(store, ID, False, "ola", NOW + LEASE)
    with pytest.raises(IllegalMove, match="resolved in the meantime"):
        finish(store, taken, Outcome("accepted", "250"), "send@host:1", NOW + LEASE)


def test_after_three_failures_the_rest_of_the_run_is_spared(store, rules):
    names = [f"s{number}" for number in range(5)]
    add(store, *(message(name) for name in names))
    people = [dataclasses.replace(ADA, student_id=name) for name in names]
    way_out = Recorder(*[Outcome("temporary", "no connection", lost=True)] * 9)
    actions = [action for action, _ in send(store, rules, way_out, *people)]
    assert actions == ["queued"] * 3 + ["held"] * 2


# ---------------------------------------------------------------- the rules


def judged(changes=None, contact=ADA, now=NOW, sent=0, **rules_changes):
    row = {name: getattr(MINE, name) for name in MINE.__dataclass_fields__}
    row |= {"attempt": None, "outcome": None, "retry_at": None} | (changes or {})
    row = {"true_on": row["as_of_date"]} | row
    rules = Rules(None, "UTC", Cap(2, 7), False, None)
    rules = dataclasses.replace(rules, **rules_changes)
    verdict = judge(row, contact, rules, sent, now)
    return verdict and (verdict.action, verdict.reason)


def person(**changes):
    return dataclasses.replace(ADA, **changes)


@pytest.mark.parametrize(
    ("contact", "channel", "expected"),
    [
        (ADA, "email", None),
        (person(opted_out_at=datetime(2026, 1, 1)), "email", "rejected"),
        (None, "email", "held"),
        (person(email=None), "email", "held"),
        (person(email="a@b"), "email", "held"),
        (person(email="a@example.org, b@example.org"), "email", "held"),
        (person(email="a@example.org\nBcc: b@example.org"), "email", "held"),
        (person(email=None), "sms", None),
        (person(phone="12345678"), "sms", "held"),
        (person(phone="0047 123 45 678"), "sms", None),
        (person(email=None, phone=None), "in_app", None),
        (person(first_name=" "), "email", "held"),
    ],
)
def test_the_contact_decides(contact, channel, expected):
    found = judged({"channel": channel}, contact)
    assert (found and found[0]) == expected


def test_a_message_in_the_app_needs_no_contact():
    assert judged({"channel": "in_app", "body": "Hello"}, None) is None


@pytest.mark.parametrize(
    ("changes", "now", "expected"),
    [
        ({}, NOW, None),
        ({}, NOW + timedelta(days=1), "returned"),
        ({}, datetime(2026, 3, 14, 12, tzinfo=UTC), "rejected"),
        ({"body": "It is on 14 March."}, NOW + timedelta(days=5), None),
        (
            {"body": "It is due tomorrow.", "as_of_date": date(2026, 3, 13)},
            NOW + timedelta(days=10),
            "returned",
        ),
        ({"due_at": None}, NOW + timedelta(days=90), None),
        ({"locale": "nb", "body": "Prøven er om 10 dager."}, NOW, None),
        (
            {"locale": "nb", "body": "Prøven er om 10 dager."},
            NOW + timedelta(days=2),
            "returned",
        ),
        (
            {"locale": "es", "body": "El examen es dentro de diez días."},
            NOW + timedelta(days=2),
            "returned",
        ),
    ],
)
def test_a_text_that_is_no_longer_true_does_not_go_out(changes, now, expected):
    found = judged(changes, now=now)
    assert (found and found[0]) == expected


def test_the_students_own_day_counts():
    late = datetime(2026, 3, 4, 23, tzinfo=UTC)
    assert judged(now=late) is None
    found = judged(contact=person(timezone="Europe/Oslo"), now=late)
    assert found == ("returned", "the text counts the days, and 9 are left")


NIGHT = (time(21), time(8))


@pytest.mark.parametrize(
    ("hour", "zone", "quiet", "held"),
    [
        (7, None, NIGHT, True),
        (8, None, NIGHT, False),
        (20, None, NIGHT, False),
        (21, None, NIGHT, True),
        (7, "Europe/Oslo", NIGHT, False),
        (20, "Europe/Oslo", NIGHT, True),
        (12, "Pacific/Auckland", NIGHT, True),
        (12, "Mars/Base", NIGHT, False),
        (12, None, (time(11), time(13)), True),
        (13, None, (time(11), time(13)), False),
        (3, None, None, False),
    ],
)
def test_quiet_hours_are_the_students(hour, zone, quiet, held):
    found = judged(
        {"body": "Hello", "due_at": None},
        person(timezone=zone),
        NOW.replace(hour=hour),
        quiet=quiet,
    )
    assert (found is not None) == held
    if held:
        assert found == ("held", f"quiet hours until {quiet[1]:%H:%M}")


def test_the_cap_counts_what_went_out_within_its_days(store, rules):
    three = [message(step=step, due_at=None, body="Hello") for step in (1, 2, 3)]
    add(store, *three)
    assert send(store, rules, Recorder()) == [
        ("sent", "250"),
        ("sent", "250"),
        ("held", "cap"),
    ]
    assert contacted(store, "sample", NOW - timedelta(days=7)) == {"s1": 2}
    [row] = waiting(store, "sample")
    with pytest.raises(NotClaimed, match="cap"):
        claim(store, row["message_id"], "another", NOW, rules.cap)
    week = NOW + timedelta(days=7)
    assert send(store, rules, Recorder(), now=week) == [("sent", "250")]


def test_what_is_no_longer_wanted_is_recorded_with_the_reason(store, rules):
    add(store, message("s1"), message("s2"))
    contact = person(opted_out_at=datetime(2026, 3, 1))
    other = dataclasses.replace(ADA, student_id="s2")
    send(store, rules, Recorder(), contact, other, now=NOW + timedelta(days=1))
    assert states(store) == {"s1": "rejected", "s2": "checked"}
    reasons = {row["student_id"]: row["state_reason"] for row in store.messages()}
    assert reasons == {
        "s1": "the student has opted out",
        "s2": "the text counts the days, and 9 are left",
    }


def test_a_stop_is_heeded_between_two_messages(store, rules):
    add(store, message("s1"), message("s2"))
    way_out = Recorder()
    way_out.on_send = lambda: rules.stop_file.write_text("")
    people = [dataclasses.replace(ADA, student_id=name) for name in ("s1", "s2")]
    assert send(store, rules, way_out, *people) == [("sent", "250")]
    assert sorted(states(store).values()) == ["approved", "sent"]


def test_a_link_in_a_name_does_not_become_a_greeting():
    row = {name: getattr(MINE, name) for name in MINE.__dataclass_fields__}
    row["message_id"] = ID
    typed = person(first_name="Ada\nhttps://evil.example/x <b>")
    assert write_letter(row, typed).body.startswith("Hi Ada b,")
    assert "evil" not in repr(write_letter(row, ADA)) + str(
        Letter(ID, "s", "x", "evil", None, "evil")
    )


# ---------------------------------------------------------------- the command


@pytest.fixture
def today(warehouse, monkeypatch):
    """A warehouse with Ada in it, and one approved message of today."""
    for name, value in {
        "QUIET_HOURS": "", "CONTACT_CAP": "2", "SMTP_SECURITY": "none",
        "SMTP_HOST": "127.0.0.1", "MAIL_FROM": "advice@example.org",
        "INTERVENE_STOP": "", "MAIL_FOLDER": "", "DROP_FOLDER": "",
        "SMTP_USER": "", "SMTP_PASSWORD": "", "SMS_TARGET": "", "IN_APP_TARGET": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    warehouse.contact("s1", first_name=ADA.first_name, email=ADA.email)
    with open_store(f"sqlite:///{warehouse.path.with_name('store.sqlite')}") as store:
        add(store, message(due_at=None, as_of_date=date.today(), body=TEXT[:16]))
        yield store


@pytest.fixture
def mails(today, monkeypatch):
    server = MailServer()
    with smtp_server(server) as port:
        monkeypatch.setenv("SMTP_PORT", str(port))
        yield server


def test_send_from_end_to_end(run, mails, warehouse, today):
    dry = run("send", "--dry-run")
    assert dry.code == 0, dry.err
    assert "would send" in dry.out
    assert "Hi {first_name}" in dry.out
    assert mails.accepted == []
    outcome = run("send")
    assert outcome.code == 0, outcome.err
    assert "sent:        1" in outcome.out
    assert [mail["To"] for mail in mails.accepted] == [ADA.email]
    assert "No message waits" in run("send").out
    assert len(mails.accepted) == 1
    [(state, sent)] = warehouse.run("select state, sent_at from intervene.messages")
    assert state == "sent"
    assert sent is not None
    for outputs in (dry, outcome):
        assert not [v for v in PERSONAL if v in outputs.out + outputs.err]
    assert "may be on its way" not in run("record", "delivered", known(today)).err
    assert run("record", "replied", known(today), "--by", "ola").code == 0
    assert states(today) == {"s1": "replied"}
    personal = run("record", "complained", known(today), "--reason", "ada@x.example")
    assert (personal.code, "an email address" in personal.err) == (1, True)
    assert states(today) == {"s1": "replied"}
    refused = run("record", "delivered", known(today))
    assert (refused.code, "cannot become" in refused.err) == (1, True)


def known(store):
    return store.messages()[0]["message_id"]


def test_refusals_never_repeat_the_address(run, mails, warehouse, today):
    warehouse.run(
        "update personal.student_contacts set email = 'rcpt-550@private.example.org'"
    )
    outcome = run("send")
    assert "bounced:     1 (550 5.1.1 at RCPT)" in outcome.out
    stored = repr(today.events())
    assert "private.example" not in outcome.out + outcome.err + stored
    [before] = today.messages()
    add(today, dataclasses.replace(MINE, step=2, due_at=None, body="Hello"))
    assert "held:        1 (the address bounced before)" in run("send").out
    later = next(row for row in today.messages() if row["state"] == "approved")
    decided = run("send", "--resolve", later["message_id"], "release", "--by", "ola")
    assert decided.out == f"{later['message_id']}: can be sent\n"
    closed = [
        row["message_id"] for row in today.messages() if row["state_actor"] == "ola"
    ]
    assert closed == [before["message_id"]]


def test_a_server_that_is_down_keeps_everything_and_says_so(run, today, monkeypatch):
    monkeypatch.setenv("SMTP_PORT", str(free_port()))
    outcome = run("send")
    assert outcome.code == 1
    assert "connection refused" in outcome.err
    assert states(today) == {"s1": "approved"}


@pytest.mark.parametrize("how", ["setting", "file"])
def test_everything_can_be_stopped(run, mails, today, warehouse, monkeypatch, how):
    if how == "setting":
        monkeypatch.setenv("INTERVENE_STOP", "true")
    else:
        warehouse.path.with_name("intervene.stop").write_text("")
    outcome = run("send")
    assert "Stopped: " in outcome.err
    assert outcome.code == 1
    assert mails.accepted == []


def test_the_unknown_is_listed_and_decided(run, mails, warehouse, today):
    warehouse.run("update personal.student_contacts set email = 'drop-reply@p.example'")
    outcome = run("send")
    assert outcome.code == 1
    assert "unknown:     1 (connection dropped at final dot)" in outcome.out
    assert "send --unknown" in outcome.err
    listed = run("send", "--unknown").out
    assert known(today) in listed
    assert "p.example" not in listed
    assert run("send", "--resolve", known(today), "maybe").code == 1
    assert run("send", "sent").code == 1
    assert run("send", "--resolve", known(today), "sent", "--by", "ola").code == 0
    assert states(today) == {"s1": "sent"}
    assert "Nothing is unknown" in run("send", "--unknown").out
    assert run("send", "--resolve", known(today), "retry").code == 1


BOUNCE = """From: MAILER-DAEMON@example.org
Content-Type: multipart/report; report-type=delivery-status; boundary=B

--B
Content-Type: text/plain

nobody@example.org is not here
--B
Content-Type: message/delivery-status

Reporting-MTA: dns; example.org

Final-Recipient: rfc822; nobody@example.org
Action: {action}
Status: 5.1.1
--B
Content-Type: {kind}

Message-ID: <{id}@example.org>
Subject: x

--B--
"""
COMPLAINT = """\
From: <feedback@provider.example>
To: advice@example.org
Auto-Submitted: auto-generated
Content-Type: multipart/report; report-type=feedback-report; boundary="b"

--b
Content-Type: text/plain

A reader has said what follows.
--b
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: provider/1.0
Version: 1

--b
Content-Type: message/rfc822

From: advice@example.org
To: nobody@example.org
Message-ID: <{id}@example.org>

Dear student
--b--
"""
REPLY = "In-Reply-To: <{id}@example.org>\n{more}Subject: Re\n\nThank you"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (BOUNCE.format(action="failed", kind="message/rfc822", id="{id}"), "bounced"),
        (
            BOUNCE.format(action="failed", kind="text/rfc822-headers", id="{id}"),
            "bounced",
        ),
        (BOUNCE.format(action="delayed", kind="message/rfc822", id="{id}"), "sent"),
        (
            BOUNCE.format(action="delivered", kind="message/rfc822", id="{id}"),
            "delivered",
        ),
        (REPLY.format(id="{id}", more=""), "replied"),
        (REPLY.format(id="{id}", more="Auto-Submitted: auto-replied\n"), "sent"),
        ("Subject: unsubscribe {id}\nFrom: nobody@example.org\n\n", "complained"),
        (COMPLAINT.format(kind="abuse", id="{id}"), "complained"),
        (COMPLAINT.format(kind="not-spam", id="{id}"), "sent"),
        (REPLY.format(id="0" * 32, more=""), "sent"),
        ("Subject: anything\n\nelse", "sent"),
    ],
)
@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_the_inbox_is_read_once(
    run, mails, today, tmp_path, monkeypatch, text, state, kind
):
    run("send")
    folder = tmp_path / "mail"
    box = (mailbox.Maildir if kind == "maildir" else mailbox.mbox)(folder)
    box.add(message_from_string(text.replace("{id}", known(today))))
    box.flush()
    box.close()
    monkeypatch.setenv("MAIL_FOLDER", str(folder))
    outcome = run("inbox")
    assert outcome.code == 0, outcome.err
    assert states(today) == {"s1": state}
    events = today.events()
    assert run("inbox").code == 0
    assert today.events() == events
    assert "nobody@" not in repr(events) + outcome.out


def test_no_mail_folder_is_explained(run, today, monkeypatch, tmp_path):
    assert "MAIL_FOLDER and MAIL_FROM" in run("inbox").err
    monkeypatch.setenv("MAIL_FOLDER", str(tmp_path / "none"))
    assert "neither a Maildir nor an mbox" in run("inbox").err


def test_what_has_no_way_out_is_dropped_as_a_file(run, today, monkeypatch, tmp_path):
    monkeypatch.setenv("SMTP_HOST", "")
    assert "held:        1 (no way out for email is set)" in run("send").out
    monkeypatch.setenv("DROP_FOLDER", str(tmp_path / "drop"))
    assert run("send").code == 0
    [path] = (tmp_path / "drop").iterdir()
    assert json.loads(path.read_text())["body"] == "Hi Ada,"
