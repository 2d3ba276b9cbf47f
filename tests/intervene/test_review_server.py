"""The advisors' page, asked by HTTP: who may, what is shown, what is done."""

import logging
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from threading import Barrier

import duckdb
import pytest
import sqlalchemy as sa
from intervene_examples import SETTINGS, make_contact, make_flag
from review_site import (
    HOST,
    NOW,
    ORIGIN,
    PERSON,
    TOKENS,
    make_app,
    make_drafts,
    visit,
)

from intervene.delivery.outbox import NotClaimed, claim
from intervene.drafting.draft import Policy, draft
from intervene.drafting.drafter import TemplateDrafter
from intervene.review import access
from intervene.review.access import Gate
from intervene.review.actions import EditRefused, Seen, approve, edit, reject, undo
from intervene.review.queue import read_message, read_page
from intervene.review.snapshot import Snapshot, read_snapshots, save_snapshots
from intervene.store import (
    CURRENT,
    DRAFTING,
    IllegalMove,
    flag_snapshots,
    message_edits,
    message_events,
    messages,
    open_store,
)

NOT_THERE = "0" * 32


@pytest.fixture(scope="module")
def drafted(tmp_path_factory):
    """A warehouse with three flags, and what is drafted for them."""
    path = tmp_path_factory.mktemp("review") / "warehouse.duckdb"
    return make_drafts(path, 3)


@pytest.fixture
def filled(drafted, tmp_path, monkeypatch):
    """The path of the warehouse, in an environment that points at it."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WAREHOUSE_PATH", str(drafted.path))
    monkeypatch.setenv("INTERVENE_STORE", f"sqlite:///{tmp_path}/store.sqlite")
    return drafted.path


@pytest.fixture
def store(drafted, filled, tmp_path):
    with open_store(f"sqlite:///{tmp_path}/store.sqlite") as opened:
        opened.add(drafted.messages, NOW)
        save_snapshots(opened, drafted.snapshots, "sample")
        yield opened


@pytest.fixture
def app(store):
    return make_app(store)


@pytest.fixture
def anna(app):
    return visit(app)


@contextmanager
def held(path):
    """Another process has the warehouse open for writing, as a build has."""
    program = (
        "import duckdb, sys; held = duckdb.connect(sys.argv[1]);"
        " print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate("")


def ids(store, **wanted):
    rows = sorted(store.messages(), key=lambda row: (row["student_id"], row["tone"]))
    return [
        row["message_id"]
        for row in rows
        if all(row[name] == value for name, value in wanted.items())
    ]


def states(store):
    return {row["message_id"]: row["state"] for row in store.messages()}


def last_event(store, message_id):
    event = [e for e in store.events() if e["message_id"] == message_id][-1]
    return event["event"], event["actor"], event["reason"]


# ---------------------------------------------------------------- who may


@pytest.mark.parametrize("path", ["/", f"/messages/{NOT_THERE}", "/nowhere"])
def test_every_page_asks_who_it_is(app, path):
    answer = visit(app, None).get(path)
    assert answer.status_code == 303
    assert answer.location == "/sign-in"
    assert "s1" not in answer.text


@pytest.mark.parametrize("path", ["/approve", "/reject", "/undo", "/sign-out"])
def test_nobody_acts_without_having_signed_in(app, store, path):
    stranger = visit(app, None)
    csrf = stranger.csrf("/sign-in")
    form = {"message": ids(store)[0], "reason": "x"}
    answer = stranger.post(path, form, csrf)
    assert answer.location == "/sign-in"
    assert set(states(store).values()) == {"checked"}


def test_signing_in_and_out(app):
    visitor = visit(app, None)
    assert visitor.post("/sign-in", {"token": "wrong"}).status_code == 401
    before = visitor.client.get_cookie("review_session").value
    answer = visitor.post("/sign-in", {"token": " anna-token-0123456789 "})
    assert answer.location == "/"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    # Who knew the session from before must not be in the one after.
    key = visitor.client.get_cookie("review_session").value
    assert key != before
    assert "Signed in as <b>anna</b>" in visitor.get().text
    visitor.post("/sign-out", {})
    visitor.client.set_cookie("review_session", key)
    assert visitor.get().location == "/sign-in"


def test_cookies_demand_tls_where_there_is_tls(store):
    secure = Gate(TOKENS, url="https://review.example.org")
    assert secure.over_tls and not Gate(TOKENS).over_tls
    assert secure.knows_host("review.example.org")
    assert secure.is_own_origin("https://review.example.org", "127.0.0.1:8765")


def test_a_session_ends_by_itself():
    now = [0.0]
    gate = Gate(TOKENS, clock=lambda: now[0])
    session = gate.begin("anna")
    now[0] = access.SESSION_SECONDS - 1
    assert gate.session(session.key) is session
    now[0] += 1
    assert gate.session(session.key) is None


def test_sign_in_pages_do_not_push_out_who_is_signed_in():
    gate = Gate(TOKENS)
    session = gate.begin("anna")
    for _ in range(access.MOST_SESSIONS + 5):
        gate.begin()
    assert gate.session(session.key) is session


def test_after_many_wrong_tokens_the_right_one_waits_too():
    now = [0.0]
    gate = Gate(TOKENS, clock=lambda: now[0])
    for number in range(access.MOST_WRONG):
        assert gate.seconds_to_wait("127.0.0.1") == 0
        assert gate.sign_in(f"guess{number}", "127.0.0.1") is None
    assert gate.seconds_to_wait("127.0.0.1") > 0
    assert gate.seconds_to_wait("10.0.0.9") == 0
    now[0] = access.WRONG_SECONDS
    assert gate.seconds_to_wait("127.0.0.1") == 0
    assert gate.sign_in("ben-token-0123456789", "127.0.0.1") == "ben"


def test_a_flood_of_wrong_tokens_is_told_to_wait(app):
    visitor = visit(app, None)
    for _ in range(access.MOST_WRONG):
        visitor.post("/sign-in", {"token": "wrong"})
    answer = visitor.post("/sign-in", {"token": "anna-token-0123456789"})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


# ---------------------------------------------------------------- forged requests


@pytest.mark.parametrize(
    ("csrf", "origin"),
    [
        ("", ORIGIN),
        ("wrong", ORIGIN),
        ("ørn", ORIGIN),
        ("another's", ORIGIN),
        (None, None),
        (None, "null"),
        (None, "https://evil.example"),
        (None, f"https://{HOST}"),
        (None, "http://localhost:1"),
    ],
)
def test_a_forged_form_changes_nothing(app, store, anna, csrf, origin):
    if csrf == "another's":
        csrf = visit(app, "ben").csrf()
    answer = anna.post("/approve", {"message": ids(store)[0]}, csrf, origin)
    assert answer.status_code == 403
    assert set(states(store).values()) == {"checked"}


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8765", True),
        ("localhost:1234", True),
        ("[::1]:8765", True),
        ("evil.example:8765", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8765", False),
        ("user@localhost:8765:x", False),
    ],
)
def test_only_the_own_names_are_answered(app, host, known):
    """A name elsewhere can be made to point here (DNS rebinding)."""
    visitor = visit(app, None)
    for path in ("/sign-in", "/static/review.js"):
        assert (visitor.get(path, Host=host).status_code == 200) == known


def test_an_action_by_link_is_not_possible(anna, store):
    for path in ("/approve", "/reject", "/undo", "/sign-out"):
        assert anna.get(f"{path}?message={ids(store)[0]}").status_code == 405


@pytest.mark.parametrize("path", ["/", "/sign-in", "/static/review.css", "/nowhere"])
def test_every_answer_forbids_what_is_not_from_here(anna, path):
    headers = anna.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert path.startswith("/static") or headers["Cache-Control"] == "no-store"
    assert "Server" not in headers or "Werkzeug" not in headers["Server"]


# ---------------------------------------------------------------- what is shown

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"


def test_nothing_from_elsewhere_becomes_markup(warehouse, run, tmp_path):
    warehouse.flag(
        f"s{NASTY}",
        course_title=NASTY,
        assessment_title=NASTY,
        engagement_zone=NASTY,
        risk_band=NASTY,
        reason_1=NASTY,
        weak_topics=NASTY.replace(";", ","),
    )
    warehouse.contact(f"s{NASTY}", first_name=NASTY)
    run("draft", "--campaign", NASTY)
    with open_store(f"sqlite:///{tmp_path}/store.sqlite") as store:
        [message_id] = ids(store)
        visitor = visit(make_app(store))
        pages = [visitor.get(), visitor.get(f"/messages/{message_id}")]
        reject(store, [Seen(message_id)], f"no {NASTY}", NASTY, NOW)
        visitor.post("/approve", {"message": message_id})
        pages += [
            visitor.get("/?view=rejected"),
            visitor.get(f"/messages/{message_id}"),
            visitor.get("/", student_id=NASTY),
            visitor.get(f"/messages/{NASTY}"),
        ]
        bad = {"subject": NASTY, "body": NASTY, "edits": "0"}
        pages.append(visitor.post(f"/messages/{message_id}", bad))
    for page in pages:
        assert "<script>alert" not in page.text and "<img" not in page.text
    assert "&lt;script&gt;alert(1)" in pages[0].text
    assert "{{ 7*7 }}" in pages[0].text


def test_the_page_says_why_what_is_due_and_to_whom(anna):
    page = anna.get().text
    for words in (
        "Last studied 10 days ago",
        "Has missed 1 of the assessments due so far",
        "Final exam</b> (exam) in Linear algebra",
        "Sat 14 March 2026, 12:00 UTC",
        "9 days left",
        "high risk",
        "Zebulonia",
        "student s1",
        "Student s2",
        "Active days in each of the last 8 weeks, oldest first: unknown, unknown",
    ):
        assert words in page, words
    assert PERSON["email"] not in page


def test_names_are_left_out_while_the_warehouse_is_held(store, filled):
    with held(filled):
        began = time.monotonic()
        anna = visit(make_app(store))
        page = anna.get().text
        assert time.monotonic() - began < 2
    assert "Zebulonia" not in page and "Names are not shown" in page
    assert "Last studied 10 days ago" in page
    assert "Approved: the email" in anna.act("/approve", ids(store)[0])


def test_the_most_urgent_comes_first(store):
    drafted = []
    sittings = {
        "x-over": datetime(2026, 3, 5, 8),
        "x-open": None,
        "x-week": datetime(2026, 3, 12),
        "x-soon": datetime(2026, 3, 6),
        "x-soon-worse": datetime(2026, 3, 6),
    }
    for rank, (student, due_at) in enumerate(sittings.items()):
        flag = make_flag(student_id=student, due_at=due_at)
        rank = 0 if student == "x-soon-worse" else rank + 10
        kept = Snapshot(flag, rank, None, None, (), ())
        save_snapshots(store, [kept], "sample")
        drafted += draft([flag], {}, Policy(), TemplateDrafter(), "sample").messages
    store.add(drafted, NOW)
    page = visit(make_app(store)).get().text
    assert re.findall(r"<h2[^>]*>\s*Student ([\w-]+)", page) == [
        "x-soon-worse",
        "x-soon",
        "x-week",
        "s2",
        "s3",
        "x-open",
        "x-over",
    ]
    assert "the due time has passed" in page


def test_views_pages_and_the_search(store, anna):
    first, *_ = ids(store)
    anna.act("/approve", first)
    assert "Student s1" not in anna.get().text
    assert "student s1" in anna.get("/?view=approved").text
    found = anna.get("/?student_id=s3").text
    assert "Student s3" in found and "Student s2" not in found
    for odd in ("/?view=none&number=999", "/?number=-3", "/?number=x", "/?view=sent"):
        assert anna.get(odd).status_code == 200


def test_five_thousand_messages_are_no_burden(tmp_path, warehouse):
    flags = [
        make_flag(
            student_id=f"s{n:05}", due_at=datetime(2026, 3, 6) + timedelta(hours=n)
        )
        for n in range(2500)
    ]
    [one] = draft(flags[:1], {}, Policy(), TemplateDrafter(), "sample").messages
    made = [
        replace(one, student_id=flag.student_id, due_at=flag.due_at, tone=tone)
        for flag in flags
        for tone in ("supportive", "urgent")
    ]
    with open_store(f"sqlite:///{tmp_path}/many.sqlite") as store:
        rows = [asdict(message) for message in made]
        for row, message in zip(rows, made, strict=True):
            row |= {
                "message_id": message.message_id,
                "idempotency_key": message.idempotency_key,
                "created_at": datetime(2026, 3, 5),
            }
        with store.writing() as connection:
            connection.execute(sa.insert(messages), rows)
            for sequence, event in enumerate(DRAFTING, start=1):
                happened = {
                    "sequence": sequence,
                    "event": event,
                    "actor": "template",
                    "happened_at": datetime(2026, 3, 5),
                }
                events = [happened | {"message_id": m.message_id} for m in made]
                connection.execute(sa.insert(message_events), events)
        kept = [Snapshot(flag, 1, None, None, (), ()) for flag in flags]
        save_snapshots(store, kept, "sample")
        anna = visit(make_app(store))
        began = time.monotonic()
        pages = [anna.get("/"), anna.get("/?number=125")]
        seconds = (time.monotonic() - began) / 2
    assert "Page 1 of 125" in pages[0].text and "s02499" in pages[1].text
    assert seconds < 1


# ---------------------------------------------------------------- decisions


def test_approving_is_recorded_with_who_did_it(anna, store):
    message_id, *_ = ids(store)
    assert anna.act("/approve", f"{message_id}.0") == (
        "Approved: the email (supportive) to student s1."
    )
    assert last_event(store, message_id) == ("approved", "anna", None)
    assert anna.act("/undo", message_id).startswith("Put back: the email")
    assert last_event(store, message_id) == ("checked", "anna", "undone")


def test_the_second_of_two_advisors_is_told_who_was_first(app, anna, store):
    ben, (message_id, *_) = visit(app, "ben"), ids(store)
    anna.act("/approve", f"{message_id}.0")
    told = ben.act("/approve", f"{message_id}.0")
    assert "1 could not be approved" in told
    assert "already approved by anna at 09:00 UTC" in told
    assert Counter(e["event"] for e in store.events())["approved"] == 1


def test_a_rejection_needs_a_reason_without_personal_data(anna, store):
    message_id, *_ = ids(store)
    assert "a rejection needs a reason" in anna.act("/reject", message_id, reason=" ")
    for words in (PERSON["email"], "Zebulonia has called", "call +1 555 010 4477"):
        assert "leave it out" in anna.act("/reject", message_id, reason=words)
    assert states(store)[message_id] == "checked"
    anna.act("/reject", message_id, reason="already in contact")
    assert last_event(store, message_id) == ("rejected", "anna", "already in contact")


def test_several_at_once_and_each_failure_told(app, anna, store):
    one, two, three = ids(store)
    visit(app, "ben").act("/reject", two, reason="no need")
    told = anna.act("/approve", one, two, three)
    assert "Approved: 2 messages." in told
    assert "1 could not be approved" in told
    assert "student s2: already rejected by ben" in told
    assert anna.act("/undo", one, three).startswith("Put back: 2 messages.")
    assert list(states(store).values()).count("checked") == 2
    assert anna.act("/approve") == "Nothing was selected."


@pytest.mark.parametrize("odd", [NOT_THERE, "", ".", "x.y", "'; drop table messages"])
def test_what_is_no_message_is_ignored(anna, store, odd):
    assert anna.act("/approve", odd) == "Nothing was selected."
    assert anna.get(f"/messages/{odd or 'x'}").status_code == 404
    assert set(states(store).values()) == {"checked"}


def test_messages_of_another_source_are_out_of_reach(store, anna):
    flag = make_flag(student_id="elsewhere")
    made = draft([flag], {}, Policy(), TemplateDrafter(), "platform")
    store.add(made.messages, NOW)
    [message_id] = ids(store, source_system="platform")
    assert "elsewhere" not in anna.get().text
    assert anna.act("/approve", message_id) == "Nothing was selected."
    assert anna.get(f"/messages/{message_id}").status_code == 404


# ---------------------------------------------------------------- variants, texts


@pytest.fixture
def each(store_url):
    """A store with three variants of one message, on each database."""
    flag, contact = make_flag(topics=("vectors",)), make_contact()
    policy = Policy(channel="email", all_variants=True)
    made = draft([flag], {"s1": contact}, policy, TemplateDrafter(), "sample")
    with open_store(store_url) as opened:
        opened.add(made.messages, NOW, ["tone"])
        save_snapshots(opened, [Snapshot(flag, 1, None, None, (), ())], "sample")
        yield opened


def test_one_variant_is_approved_and_the_others_are_not(each):
    first, second, third = ids(each)
    assert approve(each, [Seen(first)], "anna", NOW).done == [first]
    assert states(each) == {first: "approved", second: "rejected", third: "rejected"}
    assert last_event(each, second) == (
        "rejected",
        "anna",
        f"another variant was approved: {first}",
    )
    assert undo(each, [Seen(first)], "anna", NOW).done == [first]
    assert set(states(each).values()) == {"checked"}


def test_two_variants_at_the_same_moment_are_not_both_approved(each):
    first, second, _ = ids(each)
    start = Barrier(2)

    def take(message_id, actor):
        start.wait()
        return approve(each, [Seen(message_id)], actor, NOW)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(take, (first, second), ("anna", "ben")))
    assert sorted(len(result.done) for result in results) == [0, 1]
    [refused] = [why for result in results for why in result.refused.values()]
    assert "already rejected by" in refused
    assert Counter(states(each).values()) == {"approved": 1, "rejected": 2}


def test_the_queue_is_read_alike_on_each_database(each):
    first, *_ = ids(each)
    page = read_page(each, "sample", "waiting", 7, "s1", NOW)
    [case] = page.cases
    assert (page.number, page.total, page.counts["waiting"]) == (1, 1, 3)
    assert len(case.variants) == 3 and case.snapshot.flag.topics == ("vectors",)
    approve(each, [Seen(first)], "anna", NOW)
    assert read_page(each, "sample", "waiting", 1, "", NOW).cases == []
    assert read_page(each, "sample", "approved", 1, "", NOW).total == 1
    history = read_message(each, "sample", first, NOW)
    assert [event["event"] for event in history.events][-1] == "approved"


def test_an_undo_brings_back_only_what_the_approval_took(each):
    first, second, third = ids(each)
    reject(each, [Seen(second)], "too harsh", "ben", NOW)
    approve(each, [Seen(first)], "anna", NOW)
    undo(each, [Seen(first)], "anna", NOW)
    assert states(each) == {first: "checked", second: "rejected", third: "checked"}


def test_a_second_variant_goes_out_only_when_it_is_meant(each):
    first, second, third = ids(each)
    result = approve(each, [Seen(first), Seen(second)], "anna", NOW)
    assert set(result.refused) == {first, second}
    assert "take one" in result.refused[first]
    approve(each, [Seen(first)], "anna", NOW)
    undo(each, [Seen(second)], "anna", NOW)
    approve(each, [Seen(second)], "anna", NOW)
    assert states(each) == {first: "approved", second: "approved", third: "rejected"}


def edited(store, message_id, change, actor="anna", edits=0, now=NOW):
    row = next(row for row in store.messages() if row["message_id"] == message_id)
    flag = make_flag(topics=("vectors",))
    snapshot = Snapshot(flag, 1, None, None, (), ())
    text = change(row["body"])
    who, seen = make_contact(), Seen(message_id, edits)
    edit(store, seen, row["subject"], text, snapshot, who, actor, now)
    return text


def add_line(body):
    """A text that is true a day after it was drafted."""
    body = body.replace("10 days", "9 days")
    return body.replace("\n\n", "\n\nWe are glad to help.\n\n", 1)


def test_an_edit_is_added_and_the_draft_is_kept(each):
    message_id, other, _ = ids(each)
    [before] = each.rows(
        sa.select(messages.c.body).where(messages.c.message_id == message_id)
    )
    approve(each, [Seen(message_id)], "ben", NOW)
    text = edited(each, message_id, add_line)
    row = next(row for row in each.messages() if row["message_id"] == message_id)
    assert (row["body"], row["edits"], row["true_on"]) == (text, 1, NOW.date())
    assert each.rows(
        sa.select(messages.c.body).where(messages.c.message_id == message_id)
    ) == [before]
    trail = [e for e in each.events() if e["message_id"] == message_id]
    assert [(e["event"], e["actor"]) for e in trail[3:]] == [
        ("approved", "ben"),
        ("checked", "anna"),
        ("drafted", "anna"),
        ("checked", "anna"),
    ]
    # The rejections that the approval brought are not to be lost with it.
    assert states(each)[other] == "checked"


def test_edits_cannot_be_changed_afterwards(each):
    edited(each, ids(each)[0], add_line)
    for statement in (
        sa.update(message_edits).values(body="x"),
        sa.delete(message_edits),
    ):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), each.writing() as c:
            c.execute(statement)


def test_nobody_approves_or_overwrites_a_text_that_was_not_seen(each):
    message_id, *_ = ids(each)
    edited(each, message_id, add_line, "ben")
    result = approve(each, [Seen(message_id, 0)], "anna", NOW)
    assert "edited by ben" in result.refused[message_id]
    with pytest.raises(IllegalMove, match="edited by ben"):
        edited(each, message_id, lambda body: f"{body}\n\nThanks.", edits=0)
    assert approve(each, [Seen(message_id, 1)], "anna", NOW).done


def test_the_sender_takes_only_the_text_that_it_has_read(each):
    message_id, *_ = ids(each)
    edited(each, message_id, add_line)
    approve(each, [Seen(message_id)], "anna", NOW)
    with pytest.raises(NotClaimed, match="edited"):
        claim(each, message_id, "send", NOW, None, edits=0)
    claim(each, message_id, "send", NOW, None, edits=1)
    # From here on it may have left.
    for result in (
        undo(each, [Seen(message_id)], "anna", NOW),
        reject(each, [Seen(message_id)], "no", "anna", NOW),
    ):
        assert "may be on its way" in result.refused[message_id]


def test_an_edit_is_checked_for_the_day_on_which_it_is_made(each):
    urgent = next(r for r in each.messages() if r["tone"] == "urgent")
    # Drafted ten days before; the edit is made four days before.
    later = NOW + timedelta(days=5)
    with pytest.raises(EditRefused, match="the time left"):
        edited(each, urgent["message_id"], add_line, now=later)
    text = edited(
        each, urgent["message_id"], lambda body: body.replace("10 ", "4 "), now=later
    )
    row = next(r for r in each.messages() if r["tone"] == "urgent")
    assert "4 days" in text and row["true_on"] == later.date()


# ---------------------------------------------------------------- edits on the page


def test_an_edit_that_fails_its_checks_is_not_stored(anna, store):
    message_id, *_ = ids(store)
    before = store.messages()
    bad = {"subject": "Hello", "body": "Call Zebulonia at www.x.example", "edits": "0"}
    answer = anna.post(f"/messages/{message_id}", bad)
    assert answer.status_code == 422
    for words in (
        "links: an address on the web",
        "personal data: the student&#39;s first name",
        "placeholders: {first_name} is missing",
        "Call Zebulonia at www.x.example",
    ):
        assert words in answer.text, words
    assert store.messages() == before


def test_an_edit_is_saved_and_sent(anna, store, run, filled, monkeypatch):
    message_id, *_ = ids(store)
    row = next(r for r in store.messages() if r["message_id"] == message_id)
    body = add_line(row["body"]).replace("\n", "\r\n")
    form = {"subject": row["subject"], "body": body, "edits": "0"}
    answer = anna.post(f"/messages/{message_id}", form)
    assert answer.status_code == 303
    assert "It passed its checks." in anna.said()
    page = anna.get(f"/messages/{message_id}").text
    assert "Earlier texts (1)" in page and "<b>drafted</b> by anna: edited" in page
    assert anna.post(f"/messages/{message_id}", form).status_code == 422
    anna.act("/approve", f"{message_id}.1")
    monkeypatch.setenv("DROP_FOLDER", str(filled.parent / "out"))
    sent = run("send", "--dry-run").out
    assert "Hi Zebulonia" not in sent and "We are glad to help." in sent


def test_without_contacts_no_edit_is_stored(store, filled):
    with held(filled):
        anna = visit(make_app(store))
        form = {"subject": "Hello", "body": "Hi {first_name}", "edits": "0"}
        answer = anna.post(f"/messages/{ids(store)[0]}", form)
    assert answer.status_code == 422
    assert "the warehouse is in use" in answer.text
    assert all(row["edits"] == 0 for row in store.messages())


def test_the_log_names_advisors_and_nobody_else(anna, store, caplog):
    caplog.set_level(logging.DEBUG)
    message_id, *_ = ids(store)
    anna.get()
    anna.act("/approve", message_id)
    anna.post("/sign-in", {"token": "wrong"}, csrf=anna.csrf())
    assert "refused" in caplog.text
    for secret in (*PERSON.values(), message_id, "wrong", "s1"):
        assert secret not in caplog.text


# ---------------------------------------------------------------- snapshots


def test_the_chart_knows_only_what_was_known(warehouse):
    warehouse.flag("s1")
    warehouse.flag("s2", course_run_id="r2", flag_rank=2)
    for sql in (
        "create schema intermediate",
        "create table intermediate.int_enrollments as select * from (values"
        " ('s1', 'r1', timestamp '2026-01-20 08:00', 'all'),"
        " ('s2', 'r2', timestamp '2026-01-20 08:00', 'never'))"
        " as t(student_id, course_run_id, began_at, activity_scope_id)",
        "create table intermediate.int_activity_coverage as select * from (values"
        " ('all', date '2025-01-01'), ('never', date '2026-03-04'))"
        " as t(activity_scope_id, study_known_from)",
        "create table intermediate.int_enrollment_activity as select * from (values"
        " ('s1', 'r1', date '2026-03-03', date '2026-03-03', 4),"
        " ('s1', 'r1', date '2026-03-03', date '2026-03-02', 1),"
        " ('s1', 'r1', date '2026-03-02', date '2026-03-02', 0),"
        " ('s1', 'r1', date '2026-02-25', date '2026-02-26', 2),"
        " ('s1', 'r1', date '2026-02-24', date '2026-02-24', 2),"
        " ('s1', 'r1', date '2026-02-20', date '2026-03-04', 2),"
        " ('s1', 'r1', date '2026-03-04', date '2026-03-04', 2))"
        " as t(student_id, course_run_id, activity_date, known_date, study_facts)",
    ):
        warehouse.run(sql)
    with duckdb.connect(str(warehouse.path)) as connection:
        one, two = read_snapshots(connection)
    # Two weeks before the enrollment; 24 February is in the week before the last.
    assert one.active_days == (None, 0, 0, 0, 0, 0, 1, 2)
    assert two.active_days == (None,) * 8


def test_the_newest_day_of_a_flag_is_kept(store_url):
    newer = make_flag(as_of_date=date(2026, 3, 5))
    with open_store(store_url) as opened:
        for flag, rank in ((newer, 2), (newer, 3), (make_flag(), 1)):
            kept = Snapshot(flag, rank, "capacity", "high", ("why",), (None, 0))
            save_snapshots(opened, [kept], "sample")
        [row] = opened.rows(sa.select(flag_snapshots))
    assert (row["as_of_date"], row["flag_rank"]) == (date(2026, 3, 5), 3)
    assert (row["reasons"], row["active_days"]) == (["why"], [None, 0])


def test_a_store_of_an_earlier_version_is_brought_along(store, tmp_path):
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as old:
        old.execute(f"drop view {CURRENT}")
        old.execute("drop table message_edits")
        old.execute(f"create view {CURRENT} as select message_id from messages")
    with open_store(f"sqlite:///{path}") as opened:
        assert {row["edits"] for row in opened.messages()} == {0}


# ---------------------------------------------------------------- without a browser


def test_the_same_by_command(store, run):
    one, two, _ = ids(store)
    assert run("approve", one, "--by", "anna").out == f"{one}: approved\n"
    outcome = run("approve", one, two, "--by", "ben")
    assert outcome.code == 1
    assert f"{two}: approved" in outcome.out
    assert "already approved by anna" in outcome.err
    assert run("reject", two, "--reason", "no need", "--by", "anna").code == 0
    assert run("undo", one, two).out == f"{one}: put back\n{two}: put back\n"
    assert "leave it out" in run("reject", one, "--reason", "a@example.org").err


def test_an_address_that_cannot_be_listened_on_is_told(filled, run):
    outcome = run("review", "--host", "192.0.2.1", "--port", "0")
    assert outcome.code == 1
    assert "REVIEW_HOST" in outcome.err
