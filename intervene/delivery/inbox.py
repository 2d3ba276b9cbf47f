"""Reading the mail that came back: bounces, confirmations, replies, complaints.

A message is recognised by its Message-ID, which returned mail repeats. Nothing
else of a mail is looked at, and nothing in the folder is changed: reading it
again records nothing twice.
"""

import mailbox
import re
from collections.abc import Iterator
from datetime import datetime
from email import message_from_string
from email.message import Message
from email.utils import parseaddr
from pathlib import Path

from intervene.store import IllegalMove, Store
from ml.settings import PROJECT_ROOT, Settings, UserError

ACTOR = "inbox"
EVENTS = {"failed": "bounced", "delivered": "delivered"}
# The subject that List-Unsubscribe asks for (`intervene.channels.compose`).
UNSUBSCRIBE = re.compile(r"\s*unsubscribe\s+([0-9a-f]{32})\s*")
STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


def read_inbox(store: Store, settings: Settings, now: datetime) -> dict[str, int]:
    """Record what MAIL_FOLDER says about messages; return counts by event.

    `already known` counts what was recorded before, or cannot follow any more.
    """
    counts: dict[str, int] = {}
    domain = parseaddr(settings.mail_from)[1].rpartition("@")[2]
    known = {row["message_id"] for row in store.messages()}
    for message_id, event, reason in _news(open_mailbox(settings), domain):
        if message_id not in known:
            continue
        try:
            store.record(message_id, event, ACTOR, now, reason)
        except IllegalMove:
            event = "already known"
        counts[event] = counts.get(event, 0) + 1
    return counts


def open_mailbox(settings: Settings) -> mailbox.Mailbox[Message]:
    """The Maildir or mbox file of MAIL_FOLDER; UserError where there is none."""
    if not settings.mail_folder or not settings.mail_from:
        raise UserError(
            "MAIL_FOLDER and MAIL_FROM say which mail to read, and whose: set both."
        )
    path = PROJECT_ROOT / Path(settings.mail_folder).expanduser()
    if (path / "new").is_dir():
        return mailbox.Maildir(path, create=False)  # type: ignore[return-value]
    if path.is_file():
        return mailbox.mbox(path, create=False)  # type: ignore[return-value]
    raise UserError(f"MAIL_FOLDER {path} is neither a Maildir nor an mbox file.")


def _news(
    mails: mailbox.Mailbox[Message], domain: str
) -> Iterator[tuple[str, str, str | None]]:
    """Message, event and reason of every mail that is about one of our messages."""
    for mail in mails:
        event: str | None
        reason: str | None
        report = _delivery_status(mail)
        unsubscribe = UNSUBSCRIBE.fullmatch(str(mail.get("Subject", "")))
        if _is_complaint(mail):
            event, reason = "complained", "marked as unwanted"
            ids = _ids(_returned_headers(mail), ("Message-ID",), domain)
        elif report:
            event = EVENTS.get(report[0])
            ids = _ids(_returned_headers(mail), ("Message-ID",), domain)
            reason = report[1]
        elif unsubscribe:
            # Some programs send it by themselves, so it may call itself automatic.
            event, reason = "complained", "unsubscribed"
            ids = [unsubscribe[1]]
        else:
            # An automatic answer is nobody's reply (RFC 3834).
            automatic = str(mail.get("Auto-Submitted", "no")).lower() != "no"
            event = None if automatic else "replied"
            ids = _ids(mail, ("In-Reply-To", "References"), domain)
            reason = None
        for message_id in ids if event else ():
            yield message_id, str(event), reason


def _delivery_status(mail: Message) -> tuple[str, str | None] | None:
    """Action and status code of a delivery status notification (RFC 3464)."""
    for part in mail.walk():
        if part.get_content_type() != "message/delivery-status":
            continue
        for block in part.get_payload():
            if isinstance(block, Message) and block.get("Action"):
                code = STATUS.search(str(block.get("Status", "")))
                return str(block["Action"]).strip().lower(), code and code[0]
    return None


def _is_complaint(mail: Message) -> bool:
    """Whether a provider passes on that a message was marked as spam (RFC 5965)."""
    return any(
        re.search(r"^feedback-type:\s*abuse\b", _text(part), re.I | re.M)
        for part in mail.walk()
        if part.get_content_type() == "message/feedback-report"
    )


def _text(part: Message) -> str:
    """Content of a part, which the parser may have taken for headers."""
    content = part.get_payload()
    return "\n".join(map(str, content)) if isinstance(content, list) else str(content)


def _returned_headers(mail: Message) -> Message | None:
    """The headers of the message that a notification is about."""
    for part in mail.walk():
        if part.get_content_type() == "message/rfc822":
            returned = part.get_payload()
            return returned[0] if isinstance(returned, list) else None  # type: ignore[return-value]
        if part.get_content_type() == "text/rfc822-headers":
            return message_from_string(str(part.get_payload()))
    return None


def _ids(mail: Message | None, headers: tuple[str, ...], domain: str) -> list[str]:
    if mail is None:
        return []
    text = " ".join(str(mail.get(name, "")) for name in headers)
    found = re.findall(rf"<([0-9a-f]{{32}})@{re.escape(domain)}>", text)
    return list(dict.fromkeys(found))
