"""A transaction in the PostgreSQL that readers use; its errors tell no secret."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
from psycopg import errors, sql

from ml.settings import UserError

log = logging.getLogger(__name__)

# Any number, the same for all publishers.
PUBLISHING_LOCK = 727_470_114
SESSION = """
set local statement_timeout = 0;
set local lock_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
set local tcp_keepalives_idle = 60;
set local tcp_keepalives_interval = 10;
set local tcp_keepalives_count = 6
"""

Connection = psycopg.Connection[tuple[Any, ...]]


class NotPublished(UserError):
    """Nothing has changed for readers; the message says why."""


@contextmanager
def connect(url: str, autocommit: bool = False) -> Iterator[Connection]:
    """One transaction; its errors tell neither a password nor a published value."""
    try:
        with psycopg.connect(
            url,
            autocommit=autocommit,
            # Poolers hand a connection to others, who have not prepared anything.
            prepare_threshold=None,
            client_encoding="utf8",
            application_name="student success: publish",
            connect_timeout=10,
        ) as connection:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            if not autocommit:
                connection.execute(SESSION)
            yield connection
    except psycopg.Error as error:
        raise NotPublished(
            f"PostgreSQL: {_without_secrets(words_of(error), url)}. Readers see a "
            "whole snapshot, as before. Put that right (PUBLISH_POSTGRES_URL, "
            "docs/serving.md) and run this again."
        ) from None


def lock_out_publishers(connection: Connection) -> None:
    """Be the only publisher until the transaction ends; wait for another one."""
    lock = sql.Literal(PUBLISHING_LOCK)
    found = connection.execute(
        sql.SQL("select pg_try_advisory_xact_lock({})").format(lock)
    ).fetchone()
    if found != (True,):
        log.warning("Another publication is at work there: waiting for its end.")
        connection.execute(sql.SQL("select pg_advisory_xact_lock({})").format(lock))


def words_of(error: psycopg.Error) -> str:
    """What the server says, without values: they may be of a student."""
    if isinstance(error, errors.DataError):
        column = re.search(r"column (\S+?):? ", f"{error.diag.context} ")
        where = f" in column {column[1]}" if column else ""
        return f"it does not take a value{where} ({type(error).__name__})"
    words = error.diag.message_primary or " ".join(str(error).split())
    return words.rstrip(".")


def _without_secrets(text: str, url: str) -> str:
    parts = urlsplit(url)
    secrets = [parts.password or "", *parse_qs(parts.query).get("password", [])]
    for secret in {part for given in secrets for part in (given, unquote(given))}:
        if secret:
            text = text.replace(secret, "***")
    return text
