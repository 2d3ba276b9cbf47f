"""What was asked of a model and what it answered, kept beside the messages.

An answer is written down the moment it arrives, under the hash of model, prompt
version and prompt: a run that was killed goes on without asking, and paying, again.
Request and answer hold a pseudonym and placeholders, never a person's data.
"""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from intervene.store import INSERTS, Store, metadata

model_requests = sa.Table(
    "model_requests",
    metadata,
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("message_id", sa.String(32), nullable=False, index=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("prompt_version", sa.Text, nullable=False),
    sa.Column("body_sha256", sa.String(64), nullable=False),
    sa.Column("body", sa.Text),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("answer", sa.Text),
    sa.Column("input_tokens", sa.Integer, nullable=False),
    sa.Column("output_tokens", sa.Integer, nullable=False),
    sa.Column("answered_at", sa.DateTime, nullable=False),
)

# One secret for each run, so that a pseudonym says nothing beyond it.
pseudonym_keys = sa.Table(
    "pseudonym_keys",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("key", sa.String(64), nullable=False),
)


class Ledger:
    """Requests to models; lives in the store's database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, request_id: str) -> dict[str, Any] | None:
        """Return the kept answer to this request, if there is one."""
        query = sa.select(model_requests).where(
            model_requests.c.request_id == request_id
        )
        return next(iter(self._store.rows(query)), None)

    def keep(self, row: dict[str, Any]) -> None:
        """Write down an answer; `answered_at` is added."""
        now = datetime.now(UTC).replace(tzinfo=None)
        self._insert(model_requests, row | {"answered_at": now}, "request_id")

    def requests(self) -> list[dict[str, Any]]:
        """All requests, in a fixed order."""
        query = sa.select(model_requests).order_by(model_requests.c.request_id)
        return self._store.rows(query)

    def pseudonym_key(self, run: str) -> bytes:
        """Return the run's secret, made the first time it is asked for."""
        self._insert(pseudonym_keys, {"run": run, "key": secrets.token_hex(32)}, "run")
        query = sa.select(pseudonym_keys.c.key).where(pseudonym_keys.c.run == run)
        return bytes.fromhex(self._store.rows(query)[0]["key"])

    def _insert(self, table: sa.Table, row: dict[str, Any], key: str) -> None:
        with self._store.writing() as connection:
            insert = INSERTS[connection.dialect.name](table)
            connection.execute(insert.on_conflict_do_nothing(index_elements=[key]), row)


def pseudonym(key: bytes, student_id: str) -> str:
    """A keyed hash of the student's id: nobody without the key can try ids."""
    return hmac.new(key, student_id.encode(), hashlib.sha256).hexdigest()[:16]
