"""Real servers for the tests: SMTP, HTTP; made to fail on demand."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, syntax

from tests.postgresql import free_port

# The server of the tests tells the addresses it is given; what we log is tested.
logging.getLogger("mail.log").setLevel(logging.WARNING)


# ---------------------------------------------------------------- SMTP


class MailServer:
    """An SMTP server that records what it accepted.

    The local part of a recipient says how it fails: `rcpt-450`, `mid-data`, ….
    `hello` is what it says to whoever connects.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.accepted: list[EmailMessage] = []
        self.seen: list[str] = []
        self.delay = delay
        self.refuse_senders = ""
        self.slow_seconds = 5.0

    async def handle_MAIL(self, server, session, envelope, address, options):
        if self.refuse_senders:
            return self.refuse_senders
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        how = address.split("@")[0]
        self.seen.append(how)
        if how.startswith("rcpt-"):
            # Servers quote the address; nobody may repeat it.
            return f"{how[5:8]} 5.1.1 <{address}> says no"
        if how == "drop-rcpt":
            server.transport.abort()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        how = envelope.rcpt_tos[0].split("@")[0]
        if how.startswith("data-"):
            return f"{how[5:8]} 5.7.1 no {envelope.rcpt_tos[0]}"
        mail = message_from_bytes(envelope.content, policy=policy.default)
        await asyncio.sleep(self.delay)
        self.accepted.append(mail)
        if how == "drop-reply":
            server.transport.abort()
        if how == "slow-reply":
            await asyncio.sleep(self.slow_seconds)
        await asyncio.sleep(self.delay)
        return "250 taken"


class FailingSMTP(SMTP):
    """Breaks the connection at DATA, where no handler is asked."""

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        how = self.envelope.rcpt_tos[0].split("@")[0] if self.envelope.rcpt_tos else ""
        if how == "drop-data":
            self.transport.abort()
        elif how == "mid-data":
            await self.push("354 go on")
            # Some of the text arrives, and then the line is cut.
            await self._reader.readexactly(1000)
            self.transport.abort()
        else:
            await super().smtp_DATA(arg)


class FailingController(Controller):
    """aiosmtpd's controller with our server in it."""

    def factory(self) -> SMTP:
        return FailingSMTP(self.handler, **self.SMTP_kwargs)


@contextmanager
def smtp_server(mails: MailServer, **options: object) -> Iterator[int]:
    """Run it on a port that is free and stays the same; yields the port."""
    controller = FailingController(
        mails, hostname="127.0.0.1", port=free_port(), **options
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@contextmanager
def greeting_server(words: bytes) -> Iterator[int]:
    """Says one thing to whoever connects, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(words)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


# ---------------------------------------------------------------- HTTP


class Receiver(ThreadingHTTPServer):
    """Records requests; `answers` says what the next ones get, then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ReceiverHandler)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request, client_address) -> None:
        """A connection that the test cut is no news."""


class ReceiverHandler(BaseHTTPRequestHandler):
    """Answers as its server was told."""

    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        answers = self.server.answers
        status, headers = answers.pop(0) if answers else ("200", {})
        if status == "drop":
            self.connection.close()
            return
        if status == "slow":
            time.sleep(1.5)
            status = "200"
        self.send_response(int(status))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run an HTTP receiver."""
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.shutdown()
