"""The transactional store of messages: what was drafted, and what became of it.

SQLite by default, PostgreSQL by URL. It is independent of the warehouse's
lock; `intervene.handover` copies it there. A message never holds a name, an
address or a number: its text keeps placeholders.

What happens to a message is a row of `message_events`, which is append-only;
the current state is that of the newest event.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from ml.settings import PROJECT_ROOT, Settings, UserError

BUSY_TIMEOUT_MS = 30_000

# From each state (None: not there yet) the states that may follow. Nothing
# else decides what is possible. Backwards moves are an advisor's undo, which
# ends where a message has gone out.
MOVES: dict[str | None, tuple[str, ...]] = {
    None: ("proposed",),
    "proposed": ("drafted", "rejected"),
    "drafted": ("checked", "rejected"),
    "checked": ("drafted", "approved", "rejected"),
    "approved": ("checked", "scheduled", "rejected"),
    "rejected": ("checked",),
    "scheduled": ("approved", "sent", "rejected"),
    "sent": ("delivered", "bounced", "replied", "outcome"),
    "delivered": ("bounced", "replied", "outcome"),
    "bounced": ("outcome",),
    "replied": ("outcome",),
    "outcome": (),
}
DRAFTING = ("proposed", "drafted", "checked")


class StoreError(UserError):
    """The store cannot be opened, read or written."""


class IllegalMove(Exception):
    """A message cannot go from its state to the one asked for."""


class Sitting(NamedTuple):
    """What a message is about: one student due once for one assessment."""

    student_id: str
    course_id: str
    course_run_id: str
    assessment_id: str
    due_at: datetime | None


# One message each, unless channel or tone were asked for by name.
SLOT = ("source_system", *Sitting._fields, "campaign", "step")


@dataclass(frozen=True)
class Message:
    """One drafted message. Times are UTC without a zone."""

    source_system: str
    student_id: str
    course_id: str
    course_run_id: str
    assessment_id: str
    due_at: datetime | None
    as_of_date: date
    campaign: str
    step: int
    channel: str
    tone: str
    locale: str
    drafter: str
    drafter_version: str
    subject: str | None
    body: str

    @property
    def sitting(self) -> Sitting:
        """The sitting that the message is about."""
        return Sitting(
            self.student_id,
            self.course_id,
            self.course_run_id,
            self.assessment_id,
            self.due_at,
        )

    @property
    def idempotency_key(self) -> str:
        """Student, sitting, campaign, channel, tone and step; not the day."""
        due = self.due_at.isoformat() if self.due_at else None
        parts = [
            self.source_system,
            *self.sitting[:-1],
            due,
            self.campaign,
            self.channel,
            self.tone,
            self.step,
        ]
        # JSON, because an id may hold any separator.
        return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))

    @property
    def message_id(self) -> str:
        """Hash of the idempotency key."""
        return hashlib.sha256(self.idempotency_key.encode()).hexdigest()[:32]


# ---------------------------------------------------------------- tables

metadata = sa.MetaData()

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("message_id", sa.String(32), primary_key=True),
    sa.Column("idempotency_key", sa.Text, nullable=False, unique=True),
    sa.Column("source_system", sa.Text, nullable=False),
    sa.Column("student_id", sa.Text, nullable=False, index=True),
    sa.Column("course_id", sa.Text, nullable=False),
    sa.Column("course_run_id", sa.Text, nullable=False),
    sa.Column("assessment_id", sa.Text, nullable=False),
    sa.Column("due_at", sa.DateTime),
    sa.Column("as_of_date", sa.Date, nullable=False),
    sa.Column("campaign", sa.Text, nullable=False, index=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("tone", sa.Text, nullable=False),
    sa.Column("locale", sa.Text, nullable=False),
    sa.Column("drafter", sa.Text, nullable=False),
    sa.Column("drafter_version", sa.Text, nullable=False),
    sa.Column("subject", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
)

# The key makes two processes that move one message at once collide: the
# second finds its sequence taken.
message_events = sa.Table(
    "message_events",
    metadata,
    sa.Column("message_id", sa.ForeignKey("messages.message_id"), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("happened_at", sa.DateTime, nullable=False),
)

REFUSE_UPDATE = """
CREATE TRIGGER message_events_no_update BEFORE UPDATE ON message_events
BEGIN SELECT RAISE(ABORT, 'message_events is append-only'); END"""
REFUSE_DELETE = """
CREATE TRIGGER message_events_no_delete BEFORE DELETE ON message_events
BEGIN SELECT RAISE(ABORT, 'message_events is append-only'); END"""
REFUSE = """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger AS $$
BEGIN RAISE EXCEPTION 'message_events is append-only'; END
$$ LANGUAGE plpgsql"""
REFUSE_ALL = """
CREATE TRIGGER message_events_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON message_events
EXECUTE FUNCTION refuse_change()"""
APPEND_ONLY = {
    "sqlite": (REFUSE_UPDATE, REFUSE_DELETE),
    "postgresql": (REFUSE, REFUSE_ALL),
}
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

for _dialect, _statements in APPEND_ONLY.items():
    for _statement in _statements:
        sa.event.listen(
            message_events,
            "after_create",
            sa.DDL(_statement).execute_if(dialect=_dialect),
        )


# ---------------------------------------------------------------- the store


class Store:
    """Messages and their events; make one with `open_store`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def add(
        self, drafts: Iterable[Message], now: datetime, apart: Iterable[str] = ()
    ) -> list[Message]:
        """Store checked drafts that are not there yet; return those stored.

        Parameters
        ----------
        drafts
            Drafts that passed every check.
        now
            UTC; the only thing in the store that depends on the clock.
        apart
            Of `channel` and `tone`, what somebody asked for by name. What the
            policy chose does not make a second message: tomorrow it may choose
            otherwise for the same sitting.
        """
        # In one order for everyone, so that two processes wait for each other
        # and do not wait in a circle.
        drafts = sorted(drafts, key=lambda item: item.message_id)
        apart = tuple(apart)
        now = _naive_utc(now)
        stored = []
        with _writing(self._engine) as connection:
            taken = _taken(connection, {draft.campaign for draft in drafts}, apart)
            for draft in drafts:
                slot = _slot(draft, apart)
                if slot not in taken and _insert(connection, draft, now):
                    taken.add(slot)
                    stored.append(draft)
        return stored

    def record(
        self,
        message_id: str,
        event: str,
        actor: str,
        now: datetime,
        reason: str | None = None,
    ) -> int:
        """Append an event and return its sequence.

        Raises
        ------
        IllegalMove
            The message is not there, the move is not in MOVES, or another
            process moved the message in the meantime.
        """
        row: dict[str, Any] = {"event": event, "actor": actor, "reason": reason}
        row["happened_at"] = _naive_utc(now)
        try:
            with _writing(self._engine) as connection:
                sequence, state = _newest(connection, message_id)
                check_move(message_id, state, event)
                row |= {"message_id": message_id, "sequence": sequence + 1}
                connection.execute(sa.insert(message_events), row)
        except IntegrityError:
            raise IllegalMove(
                f"Message {message_id}: another process changed it, or it is not "
                "there. Look at its state and decide again."
            ) from None
        return sequence + 1

    def messages(self, source_system: str | None = None) -> list[dict[str, Any]]:
        """All messages with `state` and `sent_at`, in a fixed order."""
        query = current_messages().order_by(messages.c.message_id)
        if source_system is not None:
            query = query.where(messages.c.source_system == source_system)
        return self._rows(query)

    def events(self, source_system: str | None = None) -> list[dict[str, Any]]:
        """All events, in order of message and sequence."""
        columns = message_events.c
        query = sa.select(message_events).order_by(columns.message_id, columns.sequence)
        if source_system is not None:
            query = query.join(messages).where(
                messages.c.source_system == source_system
            )
        return self._rows(query)

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def check_move(message_id: str, state: str | None, event: str) -> None:
    """Raise IllegalMove unless MOVES allows this event after this state."""
    if event not in MOVES[state]:
        possible = ", ".join(MOVES[state]) or "nothing"
        raise IllegalMove(
            f"Message {message_id} is {state or 'not there'} and cannot become "
            f"{event}; possible: {possible}."
        )


def current_messages() -> sa.Select[Any]:
    """Each message with the state of its newest event and when it was sent."""
    newest = (
        sa.select(
            message_events.c.message_id,
            sa.func.max(message_events.c.sequence).label("sequence"),
        )
        .group_by(message_events.c.message_id)
        .subquery()
    )
    now = message_events.alias("now")
    sent = (
        sa.select(sa.func.min(message_events.c.happened_at))
        .where(message_events.c.message_id == messages.c.message_id)
        .where(message_events.c.event == "sent")
        .scalar_subquery()
    )
    return (
        sa.select(messages, now.c.event.label("state"), sent.label("sent_at"))
        .join(newest, newest.c.message_id == messages.c.message_id)
        .join(
            now,
            sa.and_(
                now.c.message_id == newest.c.message_id,
                now.c.sequence == newest.c.sequence,
            ),
        )
    )


def _taken(
    connection: sa.Connection, campaigns: set[str], apart: tuple[str, ...]
) -> set[tuple[Any, ...]]:
    columns = [messages.c[name] for name in (*SLOT, *apart)]
    query = sa.select(*columns).where(messages.c.campaign.in_(campaigns))
    return {tuple(row) for row in connection.execute(query)}


def _slot(draft: Message, apart: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(draft, name) for name in (*SLOT, *apart))


def _insert(connection: sa.Connection, draft: Message, now: datetime) -> bool:
    """Insert a draft with its first events, unless its key is there already."""
    row = asdict(draft) | {
        "message_id": draft.message_id,
        "idempotency_key": draft.idempotency_key,
        "created_at": now,
    }
    insert = INSERTS[connection.dialect.name](messages)
    insert = insert.on_conflict_do_nothing(index_elements=["idempotency_key"])
    # Asked what it inserted, because not every driver counts.
    inserted = connection.execute(insert.returning(messages.c.message_id), row)
    if inserted.first() is None:
        return False
    connection.execute(
        sa.insert(message_events),
        [
            {
                "message_id": draft.message_id,
                "sequence": sequence,
                "event": event,
                "actor": draft.drafter,
                "reason": None,
                "happened_at": now,
            }
            for sequence, event in enumerate(DRAFTING, start=1)
        ],
    )
    return True


def _newest(connection: sa.Connection, message_id: str) -> tuple[int, str | None]:
    columns = message_events.c
    row = connection.execute(
        sa.select(columns.sequence, columns.event)
        .where(columns.message_id == message_id)
        .order_by(columns.sequence.desc())
        .limit(1)
    ).first()
    return (row.sequence, row.event) if row else (0, None)


def _naive_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


# ---------------------------------------------------------------- opening


def store_url(settings: Settings) -> str:
    """INTERVENE_STORE, or intervene.sqlite in the warehouse's folder."""
    given = settings.intervene_store.get_secret_value()
    beside = settings.warehouse_path.with_name("intervene.sqlite")
    return given or f"sqlite:///{beside}"


@contextmanager
def open_store(url: str) -> Iterator[Store]:
    """Open the store, making its tables where they are missing.

    Parameters
    ----------
    url
        As SQLAlchemy writes it: `sqlite:///data/intervene.sqlite` or
        `postgresql://…`. A relative file counts from the project's folder.

    Raises
    ------
    StoreError
        The URL is not usable, or the database does not answer.
    """
    engine = _make_engine(url)
    try:
        _create_tables(engine)
        yield Store(engine)
    except DBAPIError as error:
        raise StoreError(
            f"The store {_shown(engine.url)} refused: {_first_line(error)}. "
            "Check INTERVENE_STORE, and that no other program holds it."
        ) from error
    finally:
        engine.dispose()


def _make_engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() not in INSERTS:
            raise StoreError(
                f"INTERVENE_STORE={_shown(parsed)!r} is not allowed: use "
                "sqlite:///path/to/file or postgresql://…"
            )
        if parsed.get_backend_name() == "sqlite":
            return _sqlite_engine(parsed)
        return sa.create_engine(parsed, hide_parameters=True)
    except (SQLAlchemyError, ModuleNotFoundError, OSError) as error:
        # The URL is not repeated: it may hold a password.
        raise StoreError(
            f"INTERVENE_STORE is not usable: {_first_line(error)}. Use "
            "sqlite:///path/to/file, or postgresql://… with its driver installed."
        ) from None


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if url.database in (None, "", ":memory:"):
        raise StoreError("INTERVENE_STORE needs a file: sqlite:///path/to/file.")
    path = PROJECT_ROOT / Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url.set(database=str(path)), hide_parameters=True)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transactions start too late: at the first write.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")
    # Readers and a writer do not block each other.
    connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would fail, not wait,
    # where another process wrote in between; so it takes the lock at once.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _create_tables(engine: sa.Engine) -> None:
    try:
        _create_all(engine)
    except DBAPIError:
        # Another process made them at the same moment.
        _create_all(engine)


def _create_all(engine: sa.Engine) -> None:
    with _writing(engine) as connection:
        metadata.create_all(connection)


@contextmanager
def _writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that writes; on SQLite it holds the lock throughout."""
    writer = engine.execution_options(writes=True)
    with writer.begin() as connection:
        yield connection


def _shown(url: sa.URL) -> str:
    return url.render_as_string(hide_password=True)


def _first_line(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else "no reason"
