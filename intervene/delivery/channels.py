"""Ways out: SMTP, a service behind HTTP, a folder of files.

A channel tries one letter once and says what became of it: accepted, refused
for now, refused for good, or unknown. Unknown is only what was handed over
completely and never answered. No reason repeats what the other side said.
"""

import html
import json
import logging
import os
import re
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr, parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote

from intervene.delivery.outbox import Outcome
from ml.settings import PROJECT_ROOT, Settings, UserError

TIMEOUT_SECONDS = 30.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
STATUS_CODE = re.compile(r"\b[245]\.\d{1,3}\.\d{1,3}\b")
# Errors of requests, urllib3 and ssl that come before a request is sent.
BEFORE_THE_REQUEST = (
    "ConnectTimeout",
    "NewConnectionError",
    "NameResolutionError",
    "SSLCertVerificationError",
)
# What an HTTP service says about us and not about the message.
REFUSES_US = (401, 403, 407)
# Too early, too slow, too often: the service did not take it.
TEMPORARY = (408, 425, 429)
# A gateway that got no answer does not know either.
GATEWAY_TIMEOUT = 504


class ChannelDown(UserError):
    """A way out cannot be used at all; nothing was tried."""


@dataclass(frozen=True)
class Letter:
    """A message with everything merged. Personal: never printed, never stored."""

    message_id: str
    student_id: str
    channel: str
    to: str | None = field(repr=False)
    subject: str | None = field(repr=False)
    body: str = field(repr=False)


class Channel(Protocol):
    """One way out."""

    def prepare(self) -> None:
        """Make ready what can be made ready before a message is taken.

        Raises
        ------
        ChannelDown
            Nothing can be sent this way.
        """

    def send(self, letter: Letter) -> Outcome:
        """Try one letter once; every failure is an outcome."""

    def close(self) -> None:
        """Let go of connections."""


def make_channels(settings: Settings) -> dict[str, Channel]:
    """The ways out that the settings name; the folder takes what is left.

    Raises
    ------
    ChannelDown
        A setting is missing beside another, or not usable.
    """
    found: dict[str, Channel] = {}
    if settings.smtp_host:
        found["email"] = SmtpChannel(settings)
    targets = {"sms": settings.sms_target, "in_app": settings.in_app_target}
    for name, target in targets.items():
        if target.get_secret_value():
            found[name] = HttpChannel(name, target.get_secret_value())
    if settings.drop_folder:
        folder = FileChannel(PROJECT_ROOT / Path(settings.drop_folder).expanduser())
        for name in ("email", *targets):
            found.setdefault(name, folder)
    return found


# ---------------------------------------------------------------- email


class SmtpChannel:
    """Email over SMTP; one connection for many letters."""

    def __init__(self, settings: Settings, timeout: float = TIMEOUT_SECONDS) -> None:
        if not settings.mail_from:
            raise ChannelDown("MAIL_FROM is empty: email needs a sender's address.")
        password = settings.smtp_password.get_secret_value()
        if password and not settings.smtp_user:
            raise ChannelDown("SMTP_PASSWORD is set and SMTP_USER is empty.")
        unsafe = settings.smtp_security == "none"
        if password and unsafe and settings.smtp_host not in LOOPBACK:
            raise ChannelDown(
                "SMTP_SECURITY=none would send SMTP_PASSWORD in clear text: use "
                "starttls or tls."
            )
        self._settings = settings
        self._timeout = timeout
        self._smtp: smtplib.SMTP | None = None

    def prepare(self) -> None:
        """Connect and sign in, unless the connection is there and alive."""
        if self._smtp is not None and self._is_alive(self._smtp):
            return
        self.close()
        where = f"SMTP server {self._settings.smtp_host}:{self._settings.smtp_port}"
        try:
            self._smtp = self._connect()
        except smtplib.SMTPAuthenticationError as error:
            raise ChannelDown(
                f"The {where} refused the sign-in ({error.smtp_code}). "
                "Check SMTP_USER and SMTP_PASSWORD."
            ) from None
        except (smtplib.SMTPException, OSError) as error:
            raise ChannelDown(
                f"The {where} cannot be used: {_kind_of(error)}. Check SMTP_HOST, "
                "SMTP_PORT and SMTP_SECURITY; what waits is sent by the next run."
            ) from None

    def send(self, letter: Letter) -> Outcome:
        """One SMTP transaction."""
        smtp = self._smtp
        if smtp is None:
            return Outcome("temporary", "not connected", lost=True)
        try:
            data = compose(letter, self._settings)
        except ValueError:
            return Outcome("permanent", "it cannot be written as an email")
        sender = parseaddr(self._settings.mail_from)[1]
        outcome = _transaction(smtp, sender, letter.to or "", data)
        if outcome.lost or outcome.kind == "unknown":
            self.close()
        elif outcome.kind != "accepted":
            self._reset(smtp)
        return outcome

    def close(self) -> None:
        """Say goodbye where somebody listens."""
        smtp, self._smtp = self._smtp, None
        if smtp is None:
            return
        try:
            smtp.quit()
        except (smtplib.SMTPException, OSError):
            smtp.close()

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        address = (settings.smtp_host, settings.smtp_port)
        context = ssl.create_default_context()
        if settings.smtp_security == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                *address, timeout=self._timeout, context=context
            )
        else:
            smtp = smtplib.SMTP(*address, timeout=self._timeout)
        try:
            if settings.smtp_security == "starttls":
                smtp.starttls(context=context)
            smtp.ehlo_or_helo_if_needed()
            if settings.smtp_user:
                smtp.login(
                    settings.smtp_user, settings.smtp_password.get_secret_value()
                )
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _is_alive(self, smtp: smtplib.SMTP) -> bool:
        try:
            return smtp.noop()[0] == 250
        except (smtplib.SMTPException, OSError):
            return False

    def _reset(self, smtp: smtplib.SMTP) -> None:
        try:
            smtp.rset()
        except (smtplib.SMTPException, OSError):
            self.close()


def _transaction(
    smtp: smtplib.SMTP, sender: str, recipient: str, data: bytes
) -> Outcome:
    """MAIL, RCPT, DATA, text, final dot.

    Until the final dot has left, a broken connection means: not accepted. Once it
    has, only the reply can tell.
    """
    # Each step with the first digit of the answer that lets it go on.
    steps: dict[str, tuple[Callable[[], tuple[int, bytes]], int]] = {
        "MAIL": (lambda: smtp.mail(sender), 2),
        "RCPT": (lambda: smtp.rcpt(recipient), 2),
        "DATA": (lambda: smtp.docmd("DATA"), 3),
    }
    step = "MAIL"
    try:
        for step, (command, expected) in steps.items():
            code, words = command()
            if code // 100 != expected:
                return _refusal(step, code, words)
        step = "text"
        smtp.send(_with_final_dot(data))
        step = "final dot"
        code, words = smtp.getreply()
    except (smtplib.SMTPException, OSError) as error:
        reason = f"{_kind_of(error)} at {step}"
        if step == "final dot":
            return Outcome("unknown", reason)
        return Outcome("temporary", reason, lost=True)
    if code >= 400:
        return _refusal(step, code, words)
    if code // 100 != 2:
        return Outcome("unknown", f"an answer that is none at {step}")
    return Outcome("accepted", str(code))


def _refusal(step: str, code: int, words: bytes) -> Outcome:
    found = STATUS_CODE.search(words.decode("ascii", "replace"))
    reason = f"{code}{f' {found[0]}' if found else ''} at {step}"
    if code >= 500 and step != "MAIL":
        return Outcome("permanent", reason)
    # Refused at MAIL: the server does not want this sender, whoever the student is.
    # 421, or no SMTP at all: the connection is of no more use.
    return Outcome(
        "temporary", reason, lost=step == "MAIL" or code == 421 or code < 400
    )


def _with_final_dot(data: bytes) -> bytes:
    """The text as SMTP transmits it (RFC 5321, 4.5.2)."""
    lines = data.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
    return b"\r\n".join([*stuffed, b".", b""])


def compose(letter: Letter, settings: Settings) -> bytes:
    """The email: plain text and HTML, with a Message-ID that a retry repeats."""
    mail = EmailMessage(policy=policy.SMTP.clone(cte_type="7bit"))
    sender = parseaddr(settings.mail_from)[1]
    mail["From"] = settings.mail_from
    mail["To"] = letter.to
    mail["Subject"] = letter.subject or ""
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = f"<{letter.message_id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["List-Unsubscribe"] = (
        f"<mailto:{sender}?subject=unsubscribe%20{letter.message_id}>"
    )
    if settings.unsubscribe_url:
        url = settings.unsubscribe_url.replace("{message_id}", letter.message_id)
        mail.replace_header("List-Unsubscribe", f"<{url}>, {mail['List-Unsubscribe']}")
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058
    mail.set_content(letter.body)
    mail.add_alternative(as_html(letter.body), subtype="html")
    return mail.as_bytes()


def as_html(text: str) -> str:
    """Plain text as HTML: paragraphs, lists of lines with a dash, all escaped."""
    blocks = [block.splitlines() for block in re.split(r"\n\s*\n", text.strip())]
    return (
        "<!doctype html>\n<html><body>\n"
        + "".join(map(_block, blocks))
        + ("</body></html>\n")
    )


def _block(lines: list[str]) -> str:
    items = [line[2:] for line in lines if line.startswith("- ")]
    words = [html.escape(line) for line in lines if not line.startswith("- ")]
    paragraph = f"<p>{'<br>'.join(words)}</p>\n" if words else ""
    points = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return paragraph + (f"<ul>{points}</ul>\n" if points else "")


def _kind_of(error: Exception) -> str:
    """The error's kind in words; its own text may hold an address."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it answered {error.smtp_code}"
    # smtplib wraps what the socket raised.
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, (smtplib.SMTPServerDisconnected, ConnectionError)):
        return "connection dropped"
    return type(error).__name__


# ---------------------------------------------------------------- HTTP


class HttpChannel:
    """SMS or a message in the app, by a target of apprise.

    Parameters
    ----------
    name
        sms or in_app.
    target
        A URL as apprise documents them, with {phone}, {student_id} and
        {message_id} where they belong.
    """

    def __init__(self, name: str, target: str) -> None:
        try:
            import apprise
            import requests
        except ModuleNotFoundError:
            raise ChannelDown(
                f"{name.upper()}_TARGET is set and apprise is not installed: "
                "`pip install '.[delivery]'`."
            ) from None
        self._apprise, self._requests = apprise, requests
        self._target = target
        # It would log numbers and hosts.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        sample = {"phone": "+14155550100", "student_id": "s", "message_id": "0" * 32}
        if self._make(sample) is None:
            raise ChannelDown(
                f"{name.upper()}_TARGET is not a URL that apprise takes. Its "
                "documentation lists them; docs/delivery.md has examples."
            )

    def prepare(self) -> None:
        """Nothing to do: every letter is a request of its own."""

    def send(self, letter: Letter) -> Outcome:
        """One notification; what happened is read from the HTTP exchange."""
        values = {"student_id": letter.student_id, "message_id": letter.message_id}
        service = self._make(values | {"phone": letter.to or ""})
        if service is None:
            return Outcome("permanent", "the service does not take this number")
        with self._watched() as exchanges:
            accepted = service.notify(title=letter.subject or "", body=letter.body)
        return self._judge(bool(accepted), exchanges)

    def close(self) -> None:
        """Nothing is held open."""

    def _make(self, values: dict[str, str]) -> Any:
        target = self._target
        for name, value in values.items():
            target = target.replace(f"{{{name}}}", quote(value, safe=""))
        service = self._apprise.Apprise.instantiate(target, suppress_exceptions=True)
        if service is None:
            return None
        # A retry that we do not see could send twice.
        service.retry = 0
        # Some services leave a number out that they cannot read, and then send to
        # a default: whom we name has to be there.
        digits = re.sub(r"\D", "", values["phone"])
        named = "{phone}" not in self._target or digits in _digits(service.url())
        return service if named else None

    @contextmanager
    def _watched(self) -> Iterator[list[Any]]:
        """Collect responses and errors of `requests`, through which services go.

        apprise itself says yes or no, which does not tell a refusal from silence.
        """
        seen: list[Any] = []
        session: Any = self._requests.Session
        original = session.send

        def send(*arguments: Any, **options: Any) -> Any:
            try:
                response = original(*arguments, **options)
            except self._requests.RequestException as error:
                seen.append(error)
                raise
            seen.append(response)
            return response

        session.send = send
        try:
            yield seen
        finally:
            session.send = original

    def _judge(self, accepted: bool, exchanges: list[Any]) -> Outcome:
        if accepted:
            return Outcome("accepted", "accepted")
        statuses = [getattr(item, "status_code", None) for item in exchanges]
        if not exchanges or any(status and status < 300 for status in statuses):
            # A part may have gone out, or it went another way than HTTP.
            return Outcome("unknown", "the service said no after accepting a part")
        last = exchanges[-1]
        if statuses[-1] is None:
            return self._judge_error(last)
        return _judge_status(statuses[-1], last.headers.get("Retry-After"))

    def _judge_error(self, error: Any) -> Outcome:
        if never_connected(error):
            return Outcome("temporary", "no connection", lost=True)
        return Outcome("unknown", f"{type(error).__name__} after the request")


def never_connected(error: Any) -> bool:
    """Whether the request cannot have been sent (an error of `requests`)."""
    cause = error.args[0] if error.args else None
    # urllib3's MaxRetryError has the reason, which may wrap one of ssl.
    reason: Any = getattr(cause, "reason", None)
    wrapped = reason.args[0] if getattr(reason, "args", ()) else None
    return any(
        type(item).__name__ in BEFORE_THE_REQUEST
        for item in (error, cause, reason, wrapped)
    )


def _judge_status(status: int, retry_after: str | None) -> Outcome:
    reason = f"HTTP {status}"
    if status == GATEWAY_TIMEOUT:
        return Outcome("unknown", reason)
    if status in (*REFUSES_US, *TEMPORARY) or status >= 500:
        return Outcome("temporary", reason, _parse_retry_after(retry_after), lost=True)
    return Outcome("permanent", reason)


def _parse_retry_after(text: str | None) -> timedelta | None:
    """Seconds or a date (RFC 9110, 10.2.3); None for anything else."""
    text = (text or "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return timedelta(seconds=int(text))
    try:
        return parsedate_to_datetime(text) - datetime.now(UTC)
    except (TypeError, ValueError):
        return None


def _digits(text: str) -> str:
    return re.sub(r"[^\d/?&=]", "", unquote(text))


# ---------------------------------------------------------------- files


class FileChannel:
    """A folder that another system empties: one JSON file per message."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Make the folder."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ChannelDown(
                f"DROP_FOLDER {self._folder} cannot be used: {error.strerror}."
            ) from None

    def send(self, letter: Letter) -> Outcome:
        """Write the file under another name, then rename it: whole or not there."""
        hidden = self._folder / f".{letter.message_id}.part"
        text = json.dumps(asdict(letter), ensure_ascii=False, indent=2)
        try:
            # It holds an address: for the owner alone.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            with os.fdopen(os.open(hidden, flags, 0o600), "w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            hidden.replace(self._folder / f"{letter.message_id}.json")
        except OSError as error:
            return Outcome("temporary", f"file: {error.strerror}", lost=True)
        return Outcome("accepted", "written")

    def close(self) -> None:
        """Nothing is held open."""
