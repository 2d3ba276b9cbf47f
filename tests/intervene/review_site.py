"""A warehouse with flags, a store with drafts, and a browser's side of the page."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import duckdb
from flask import Flask
from flask.testing import FlaskClient
from intervene_examples import CONTACT_DDL, FLAG_DDL, PIPELINE_SETTINGS, Warehouse
from werkzeug.test import TestResponse

from intervene.drafting.draft import Policy, draft
from intervene.drafting.drafter import TemplateDrafter
from intervene.handover import read_contacts
from intervene.review.access import Gate
from intervene.review.contacts import Contacts
from intervene.review.server import create_app
from intervene.review.snapshot import Snapshot, read_snapshots
from intervene.store import Message, Store
from ml.settings import load_settings

NOW = datetime(2026, 3, 5, 9, tzinfo=UTC)
TOKENS = {"anna-token-0123456789": "anna", "ben-token-0123456789": "ben"}
HOST = "localhost:8765"
ORIGIN = f"http://{HOST}"
PERSON = {
    "first_name": "Zebulonia",
    "email": "zebulonia.private@example.org",
    "phone": "+1 555 010 4477",
}


@dataclass(frozen=True)
class Drafts:
    """A warehouse with flags, and what is drafted for them."""

    path: Path
    snapshots: list[Snapshot]
    messages: list[Message]


def make_drafts(path: Path, students: int) -> Drafts:
    """Flag and draft some students; the first has a contact."""
    with duckdb.connect(str(path)) as connection:
        for sql in (FLAG_DDL, "create schema personal", CONTACT_DDL, PIPELINE_SETTINGS):
            connection.execute(sql)
    warehouse = Warehouse(path)
    for number in range(1, students + 1):
        warehouse.flag(
            f"s{number}",
            flag_rank=number,
            risk_band="high",
            reason_1=f"Last studied {number + 9} days ago",
            reason_2="Has missed 1 of the assessments due so far",
        )
    warehouse.contact("s1", **PERSON)
    with duckdb.connect(str(path), read_only=True) as connection:
        snapshots, contacts = read_snapshots(connection), read_contacts(connection)
    flags = [snapshot.flag for snapshot in snapshots]
    made = draft(flags, contacts, Policy(), TemplateDrafter(), "sample")
    return Drafts(path, snapshots, made.messages)


def make_app(store: Store, clock: Callable[[], datetime] = lambda: NOW) -> Flask:
    """The application over a store, in the environment of the test."""
    contacts = Contacts(load_settings(None))
    return create_app(store, "sample", contacts, Gate(TOKENS), clock)


@dataclass
class Visitor:
    """One browser without script: keeps its cookie and reads forms off the page."""

    client: FlaskClient

    def get(self, path: str = "/", **headers: str) -> TestResponse:
        """Open a page."""
        return self.client.get(path, headers={"Host": HOST} | headers)

    def csrf(self, path: str = "/") -> str:
        """The token in the forms of a page."""
        return re.findall(r'name="csrf" value="([^"]+)"', self.get(path).text)[0]

    def post(
        self,
        path: str,
        data: dict[str, Any],
        csrf: str | None = None,
        origin: str | None = ORIGIN,
    ) -> TestResponse:
        """Send a form as a browser does, by default a genuine one."""
        page = "/sign-in" if path == "/sign-in" else "/"
        data = {"csrf": self.csrf(page) if csrf is None else csrf} | data
        headers = {"Host": HOST} | ({"Origin": origin} if origin else {})
        return self.client.post(path, data=data, headers=headers)

    def act(self, path: str, *messages: str, **fields: Any) -> str:
        """Send a form about messages and read what the next page says of it."""
        answer = self.post(path, {"message": list(messages)} | fields)
        assert answer.status_code == 303, answer.text
        return self.said()

    def said(self) -> str:
        """The result on the page, as text."""
        found = re.search(r'id="said">(.*?)</div>', self.get().text, re.DOTALL)
        assert found
        return unescape(re.sub(r"<[^>]+>", " ", found[1])).strip()


def visit(app: Flask, name: str | None = "anna") -> Visitor:
    """A browser, signed in unless `name` is None."""
    visitor = Visitor(app.test_client())
    if name:
        answer = visitor.post("/sign-in", {"token": f"{name}-token-0123456789"})
        assert answer.status_code == 303
    return visitor
