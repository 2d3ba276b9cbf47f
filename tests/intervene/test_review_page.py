"""The advisors' page in a real browser, as the command serves it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from intervene_examples import SETTINGS
from playwright.sync_api import Browser, BrowserContext, Page, expect
from review_site import Drafts, make_drafts

from intervene.review.actions import Seen, undo
from intervene.review.snapshot import save_snapshots
from intervene.store import Store, open_store
from ml.settings import PROJECT_ROOT

STUDENTS = 6


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> Drafts:
    """A warehouse with flags, and what is drafted for them."""
    return make_drafts(tmp_path_factory.mktemp("page") / "w.duckdb", STUDENTS)


@dataclass
class Site:
    """The page as it is served, and the store behind it."""

    url: str
    store: Store
    requests: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return self.url.split("/sign-in")[0]

    def open(self, context: BrowserContext) -> Page:
        """Follow the link that the command printed, and note what the page does."""
        page = context.new_page()
        context.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("console", lambda line: self.trouble.append(line.text))
        page.goto(self.url)
        return page

    def states(self) -> dict[str, str]:
        """State by student: each has one message."""
        return {row["student_id"]: row["state"] for row in self.store.messages()}


@pytest.fixture
def site(served: Site) -> Site:
    """The page with every message to be decided."""
    states = {row["message_id"]: row["state"] for row in served.store.messages()}
    decided = [Seen(key) for key, state in states.items() if state != "checked"]
    undo(served.store, decided, "test", datetime.now(UTC))
    return Site(served.url, served.store)


@pytest.fixture(scope="module")
def served(drafts: Drafts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`python -m intervene review` in a process of its own."""
    url = f"sqlite:///{tmp_path_factory.mktemp('page')}/store.sqlite"
    environment = {
        **os.environ,
        **SETTINGS,
        "WAREHOUSE_PATH": str(drafts.path),
        "INTERVENE_STORE": url,
        "REVIEW_TOKENS": "",
        "REVIEW_URL": "",
    }
    with open_store(url) as store:
        store.add(drafts.messages, datetime.now(UTC))
        save_snapshots(store, drafts.snapshots, "sample")
        command = [sys.executable, "-m", "intervene", "review", "--port", "0"]
        with subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout
            printed = process.stdout.readline()
            assert printed.startswith("Review: http://127.0.0.1:"), printed
            yield Site(printed.removeprefix("Review: ").strip(), store)
            process.terminate()
            process.communicate()


def press(page: Page, *keys: str) -> None:
    """Press keys one after the other, as a hand does."""
    for key in keys:
        page.keyboard.press(key)


def focused(page: Page) -> str:
    """The message that has the focus, by the student in its name."""
    return page.evaluate(
        """() => {
            const at = document.activeElement;
            return (at?.getAttribute('aria-labelledby') ?? '').split(' ')
                .map((id) => document.getElementById(id)?.textContent ?? '')
                .join(' ').replace(/\\s+/g, ' ').trim();
        }"""
    )


def said(page: Page, words: str) -> None:
    """Wait until the live region says this, and keys work again on its page."""
    expect(page.get_by_role("status")).to_contain_text(words)
    # The words are there before the page's script is.
    page.wait_for_load_state("load")


def test_a_day_of_work_by_keyboard(browser: Browser, site: Site) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = site.open(context)
    # Signed in by the link; the token is nowhere in what the browser keeps or sent.
    expect(page.get_by_role("heading", level=1)).to_have_text("To review")
    token = site.url.split("token=")[1]
    assert page.url == f"{site.origin}/"
    assert token not in "".join(site.requests)
    assert page.evaluate("history.length") <= 2

    press(page, "j")
    assert "student s1" in focused(page)
    press(page, "j", "k", "k")
    assert "student s1" in focused(page)

    # Edit: a text that fails its checks, then one that passes.
    press(page, "j", "e")
    editor = page.get_by_role("textbox", name="Message")
    expect(editor).to_be_focused()
    before = editor.input_value()
    press(page, "Control+End")
    page.keyboard.type("\nSee www.answers.example, a j k!")
    press(page, "Tab", "Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("links: an address on the web")
    expect(alert).to_be_focused()
    assert editor.input_value() == f"{before}\nSee www.answers.example, a j k!"
    press(page, "Tab", "Tab", "Control+a")
    page.keyboard.insert_text(f"{before}\nWe are glad to help.")
    press(page, "Tab", "Enter")
    said(page, "It passed its checks.")
    assert "Student s2" in focused(page)
    assert page.get_by_text("We are glad to help.").count() == 1

    # Approve, and take it back.
    press(page, "a")
    said(page, "Approved: the email (supportive) to student s2.")
    assert site.states()["s2"] == "approved"
    assert "Student s3" in focused(page)
    press(page, "u")
    said(page, "Put back: the email")
    assert site.states()["s2"] == "checked"

    # Reject with a reason; keys that are typed do nothing else.
    press(page, "k", "j", "r")
    assert "Student s3" in focused_message(page)
    page.keyboard.type("already in contact, j a x")
    press(page, "Enter")
    said(page, "Rejected: the email (supportive) to student s3.")
    assert site.states()["s3"] == "rejected"

    # Approve several.
    press(page, "j", "x", "j", "x")
    expect(page.get_by_text("2 messages selected")).to_be_visible()
    page.get_by_role("button", name="Approve selected").focus()
    press(page, "Enter")
    said(page, "Approved: 2 messages.")
    assert list(site.states().values()).count("approved") == 2
    press(page, "u")
    said(page, "Put back: 2 messages.")

    # Help, and single keys switched off for those whom they would disturb.
    press(page, "?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    press(page, "Space", "Escape", "Escape")
    page.get_by_role("heading", level=1).click()
    press(page, "j", "a")
    assert list(site.states().values()).count("approved") == 0

    actors = {e["actor"] for e in site.store.events()} - {"template", "test"}
    assert len(actors) == 1
    assert all(url.startswith(f"{site.origin}/") for url in site.requests)
    # The browser itself remarks on the answer to the failed edit.
    assert [line for line in site.trouble if "422" not in line] == []
    context.close()


def focused_message(page: Page) -> str:
    """The message in which a field has the focus."""
    return page.evaluate(
        "document.activeElement.closest('section').querySelector('h2').textContent"
    )


def test_phones_readers_and_no_script(browser: Browser, site: Site) -> None:
    phone = browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True
    )
    page = site.open(phone)
    page.get_by_label("Select Email, supportive, student s1").check()
    page.get_by_text("Reject", exact=True).first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    # What a screen reader finds, by role and name.
    for role, name in (
        ("banner", ""),
        ("main", ""),
        ("navigation", "Views"),
        ("region", "Zebulonia student s1"),
        ("article", "Email, supportive Zebulonia student s1"),
        ("form", "Several at once"),
        ("search", ""),
        ("textbox", "Student id"),
        ("button", "Sign out"),
        ("link", "Skip to the content"),
    ):
        assert page.get_by_role(role, name=name).count(), (role, name)  # type: ignore[arg-type]
    chart = page.get_by_role("img").first.get_attribute("aria-label")
    assert chart and chart.startswith("Active days in each of the last 8 weeks")
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, a, input:not([type=hidden])')]
            .filter((e) => !(e.textContent.trim() || e.labels?.length
                || e.getAttribute('aria-label'))).length"""
    )
    assert unnamed == 0
    page.get_by_role("link", name="Edit").first.click()
    expect(page.get_by_role("textbox", name="Subject")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    cookies = phone.cookies()
    phone.close()

    plain = browser.new_context(java_script_enabled=False)
    plain.add_cookies(cookies)
    page = plain.new_page()
    page.goto(f"{site.origin}/")
    page.get_by_role("button", name="Approve", exact=True).first.click()
    said(page, "Approved: the email (supportive) to student s1.")
    page.get_by_role("button", name="Undo").first.click()
    said(page, "Put back")
    for box in page.get_by_role("checkbox").all()[:2]:
        box.check()
    page.get_by_role("button", name="Approve selected").click()
    said(page, "Approved: 2 messages.")
    plain.close()
    assert site.trouble == []
