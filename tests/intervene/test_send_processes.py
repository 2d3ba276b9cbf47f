"""Senders that race and senders that are killed: each message once, none lost."""

import dataclasses
import random
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from delivery_servers import MailServer, smtp_server
from sender_processes import PROCESSES, send_command, send_everything
from test_send import ADA, NOW, add, message

from intervene.delivery.outbox import resolve, unknown
from intervene.store import open_store

DELAY = 0.01  # of the server, before it accepts and before it says so


def test_two_senders_at_once_send_each_message_once(store_url):
    """And no student gets more than the cap, whoever takes the messages."""
    names = [f"s{number}" for number in range(30)]
    people = [dataclasses.replace(ADA, student_id=name) for name in names]
    server, start = MailServer(delay=0.005), PROCESSES.Barrier(2)
    with open_store(store_url) as store, smtp_server(server) as port:
        add(store, *(message(name, step=step) for name in names for step in (1, 2)))
        senders = [
            PROCESSES.Process(
                target=send_everything, args=(store_url, port, start, people, NOW)
            )
            for _ in range(2)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(60)
        assert [sender.exitcode for sender in senders] == [0, 0]
        ids = [mail["Message-ID"] for mail in server.accepted]
        assert len(ids) == len(set(ids)) == 30
        sent = [row["student_id"] for row in store.messages() if row["state"] == "sent"]
        assert sorted(sent) == sorted(names)
        actors = {row["actor"] for row in store.events() if row["event"] == "sent"}
        assert len(actors) == 2, "both had a hand in it"


def kill_again_and_again(warehouse, url, kills, messages, log):
    """Kill a sender at random moments, then decide the unknown and count."""
    chance = random.Random(20260304)
    drafts = [
        message(f"s{n}", due_at=None, as_of_date=date.today(), body="Hi {first_name},")
        for n in range(messages)
    ]
    warehouse.run(
        "insert into personal.student_contacts (student_id, first_name, email)"
        " select 's' || n, 'Ada', 's' || n || '@example.org'"
        f" from range({messages}) as numbers (n)"
    )
    server = MailServer(delay=DELAY)
    with open_store(url) as store, smtp_server(server) as port:
        add(store, *drafts)
        environment = {
            "WAREHOUSE_PATH": str(warehouse.path), "INTERVENE_STORE": url,
            "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(port), "SMTP_SECURITY": "none",
            "MAIL_FROM": "advice@example.org", "QUIET_HOURS": "",
        }  # fmt: skip

        def start():
            sender = PROCESSES.Process(target=send_command, args=(environment, log))
            sender.start()
            return sender

        for _ in range(kills):
            sender, before = start(), len(server.seen)
            # Mostly while it sends, sometimes before it does.
            if chance.random() < 0.8:
                while sender.is_alive() and len(server.seen) == before:
                    time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.12))
            sender.kill()
            sender.join()
        time.sleep(10 * DELAY)
        accepted = {mail["Message-ID"][1:33] for mail in server.accepted}
        left = unknown(store, datetime.now(UTC))
        later = datetime.now(UTC) + timedelta(hours=1)
        for row in left:
            resolve(store, row["message_id"], row["message_id"] in accepted, "x", later)
        last = start()
        last.join(300)
        counts = Counter(mail["Message-ID"][1:33] for mail in server.accepted)
        assert set(counts) == {draft.message_id for draft in drafts}, "one was lost"
        assert set(counts.values()) == {1}, "one went out twice"
        assert {row["state"] for row in store.messages()} == {"sent"}
        events = Counter(row["event"] for row in store.events())
        assert events["scheduled"] == events["sent"] == messages
        assert len(accepted) < messages, "the kills came before the end"
    both = sum(row["message_id"] in accepted for row in left)
    return len(left), both


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_sender_killed_at_any_moment_loses_and_repeats_nothing(
    warehouse, database, request, tmp_path
):
    urls = {"sqlite": f"sqlite:///{tmp_path}/killed.sqlite"}
    url = urls.get(database) or request.getfixturevalue("postgresql_url")
    left, _ = kill_again_and_again(warehouse, url, 9, 60, str(tmp_path / "log"))
    assert left, "no kill fell between taking and knowing: it tests nothing"


@pytest.mark.bench
def test_two_hundred_kills(warehouse, tmp_path):
    url = f"sqlite:///{tmp_path}/killed.sqlite"
    left, both = kill_again_and_again(warehouse, url, 200, 1500, str(tmp_path / "log"))
    print(f"200 kills of 1,500 messages: {left} unknown, {both} of them accepted")
