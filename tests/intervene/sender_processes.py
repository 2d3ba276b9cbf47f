"""What a sender's own process does in the tests of races and kills."""

import dataclasses
import multiprocessing
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from intervene.__main__ import main
from intervene.delivery.channels import SmtpChannel
from intervene.delivery.send import Rules, Sender
from intervene.handover import Contact
from intervene.store import open_store
from ml.settings import Settings

# Processes start from one that has imported everything, so that a test can afford
# many of them; each is a real process that can be killed.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["intervene.__main__", "pytest"])


def send_command(environment: dict[str, str], log: str) -> None:
    """`python -m intervene send` under these settings."""
    os.environ.update(environment)
    # Closed by the end of the process, which may be a kill.
    sys.stdout = sys.stderr = Path(log).open("a")  # noqa: SIM115
    sys.argv = ["intervene", "send"]
    main()


def send_everything(
    url: str, port: int, start: Any, contacts: list[Contact], now: datetime
) -> None:
    """One sender over all messages of source `sample`, one message per student."""
    base = Settings(quiet_hours="", contact_cap=1)
    settings = Settings(
        smtp_host="127.0.0.1",
        smtp_port=port,
        smtp_security="none",
        mail_from="advice@example.org",
    )
    people = {contact.student_id: dataclasses.replace(contact) for contact in contacts}
    ways = {"email": SmtpChannel(settings)}
    with open_store(url) as store:
        start.wait()
        sender = Sender(store, people, ways, Rules.from_settings(base), lambda: now)
        list(sender.run("sample"))
