"""The transactional store of messages: what was drafted, and what became of it.

SQLite by default, PostgreSQL by URL. It is independent of the warehouse's
lock; `intervene.handover` copies it there. A message never holds a name, an
address or a number: its text keeps placeholders.

What happens to a message is a row of `message_events`, which is append-only;
the view `current_messages` has the state that the newest event led to. The
database refuses an impossible move itself, whoever writes it. What an advisor
changed is a row of `message_edits`, append-only too: `messages` keeps the text
as drafted, the view has the text as it is now. What the sender tried is a row of
`delivery_attempts` (`intervene.delivery.outbox`); why a student was flagged, as the
review page shows it, is a row of `flag_snapshots` (`intervene.review.snapshot`).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from ml.forgotten import Forgotten
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
    # Bounced: the server refused it for good, so that it was never sent.
    "scheduled": ("approved", "checked", "sent", "bounced", "rejected"),
    "sent": ("delivered", "bounced", "replied", "complained", "outcome"),
    "delivered": ("bounced", "replied", "complained", "outcome"),
    "bounced": ("outcome",),
    "replied": ("complained", "outcome"),
    # The student called it unwanted, to us or to the mail provider.
    "complained": ("outcome",),
    # How the sitting went; an answer can still come after it.
    "outcome": ("bounced", "replied", "complained"),
}
# What `send --resolve … release` gives as the reason of its event `outcome`.
RELEASED = "released"
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

# The texts that a message had after the one it was drafted with.
message_edits = sa.Table(
    "message_edits",
    metadata,
    sa.Column("message_id", sa.ForeignKey("messages.message_id"), primary_key=True),
    sa.Column("edit", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("subject", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    # The day for which the days that the text counts were right.
    sa.Column("true_on", sa.Date, nullable=False),
    sa.Column("edited_at", sa.DateTime, nullable=False),
)

# Why a student was flagged for a sitting, as the warehouse had it on the newest
# day of a flag: the review page does not wait for the warehouse. Lists are JSON.
flag_snapshots = sa.Table(
    "flag_snapshots",
    metadata,
    sa.Column("snapshot_id", sa.String(32), primary_key=True),
    sa.Column("source_system", sa.Text, nullable=False),
    sa.Column("student_id", sa.Text, nullable=False),
    sa.Column("course_id", sa.Text, nullable=False),
    sa.Column("course_run_id", sa.Text, nullable=False),
    sa.Column("assessment_id", sa.Text, nullable=False),
    sa.Column("due_at", sa.DateTime),
    sa.Column("as_of_date", sa.Date, nullable=False),
    sa.Column("flag_rank", sa.Integer, nullable=False),
    sa.Column("flag_policy", sa.Text),
    sa.Column("risk_band", sa.Text),
    sa.Column("engagement_zone", sa.Text),
    sa.Column("course_title", sa.Text),
    sa.Column("assessment_title", sa.Text),
    sa.Column("assessment_kind", sa.Text),
    sa.Column("reasons", sa.JSON, nullable=False),
    sa.Column("student_reasons", sa.JSON, nullable=False),
    sa.Column("topics", sa.JSON, nullable=False),
    # Days with study in each of the last weeks, oldest first; null is unknown.
    sa.Column("active_days", sa.JSON, nullable=False),
    sa.Index("flag_snapshots_of_student", "source_system", "student_id"),
)

# One row per time that the sender took a message: committed before anything
# leaves, closed when the outcome is known. A row without an outcome is a sender
# at work, or one that died at it.
delivery_attempts = sa.Table(
    "delivery_attempts",
    metadata,
    sa.Column("message_id", sa.ForeignKey("messages.message_id"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("claimed_at", sa.DateTime, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("finished_at", sa.DateTime),
    sa.Column("retry_at", sa.DateTime),
)

# The designs of campaigns that have begun, and the arm of every student in them
# (`intervene.experiments.assignments`). Both are append-only: an arm is drawn once.
campaigns = sa.Table(
    "campaigns",
    metadata,
    sa.Column("source_system", sa.Text, primary_key=True),
    sa.Column("campaign", sa.Text, primary_key=True),
    sa.Column("design", sa.Text, nullable=False),
    sa.Column("design_hash", sa.String(64), nullable=False),
    sa.Column("starts_on", sa.Date, nullable=False),
    sa.Column("ends_on", sa.Date, nullable=False),
    sa.Column("planned_students", sa.Integer, nullable=False),
    sa.Column("registered_at", sa.DateTime, nullable=False),
)
campaign_assignments = sa.Table(
    "campaign_assignments",
    metadata,
    sa.Column("source_system", sa.Text, primary_key=True),
    sa.Column("campaign", sa.Text, primary_key=True),
    sa.Column("student_id", sa.Text, primary_key=True),
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("is_control", sa.Boolean, nullable=False),
    sa.Column("course_id", sa.Text, nullable=False),
    sa.Column("course_run_id", sa.Text, nullable=False),
    sa.Column("assessment_id", sa.Text, nullable=False),
    sa.Column("due_at", sa.DateTime),
    sa.Column("as_of_date", sa.Date, nullable=False),
    sa.Column("lead_days", sa.Integer),
    sa.Column("risk_score", sa.Double),
    sa.Column("risk_band", sa.Text),
    sa.Column("engagement_zone", sa.Text),
    sa.Column("flag_policy", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("design_hash", sa.String(64), nullable=False),
    sa.Column("assigned_at", sa.DateTime, nullable=False),
    sa.ForeignKeyConstraint(
        ["source_system", "campaign"],
        ["campaigns.source_system", "campaigns.campaign"],
    ),
)


def current_messages() -> sa.Select[Any]:
    """Each message as it is now.

    `subject` and `body` are those of the newest edit, `true_on` the day for which
    the text was checked, `edits` how many there were. `state` comes with since
    when, by whom and why.
    """
    newest = (
        sa.select(
            message_events.c.message_id,
            sa.func.max(message_events.c.sequence).label("sequence"),
        )
        .group_by(message_events.c.message_id)
        .subquery()
    )
    now = message_events.alias("now")
    newest_edit = (
        sa.select(
            message_edits.c.message_id, sa.func.max(message_edits.c.edit).label("edit")
        )
        .group_by(message_edits.c.message_id)
        .subquery()
    )
    text = message_edits.alias("text")
    as_drafted = [
        column for column in messages.c if column.name not in ("subject", "body")
    ]
    sent = (
        sa.select(sa.func.min(message_events.c.happened_at))
        .where(message_events.c.message_id == messages.c.message_id)
        .where(message_events.c.event == "sent")
        .scalar_subquery()
    )
    return (
        sa.select(
            *as_drafted,
            sa.func.coalesce(text.c.subject, messages.c.subject).label("subject"),
            sa.func.coalesce(text.c.body, messages.c.body).label("body"),
            sa.func.coalesce(text.c.true_on, messages.c.as_of_date).label("true_on"),
            sa.func.coalesce(text.c.edit, 0).label("edits"),
            now.c.event.label("state"),
            now.c.happened_at.label("state_at"),
            now.c.actor.label("state_actor"),
            now.c.reason.label("state_reason"),
            sent.label("sent_at"),
        )
        .join(newest, newest.c.message_id == messages.c.message_id)
        .join(
            now,
            sa.and_(
                now.c.message_id == newest.c.message_id,
                now.c.sequence == newest.c.sequence,
            ),
        )
        .join(
            newest_edit,
            newest_edit.c.message_id == messages.c.message_id,
            isouter=True,
        )
        .join(
            text,
            sa.and_(
                text.c.message_id == newest_edit.c.message_id,
                text.c.edit == newest_edit.c.edit,
            ),
            isouter=True,
        )
    )


# The same query as a view, for whoever opens the database itself.
CURRENT = "current_messages"
current = sa.table(
    CURRENT,
    *(
        sa.column(column.name, column.type)
        for column in current_messages().selected_columns
    ),
)

# What the database refuses by itself. Made from MOVES, in each dialect's words.
POSSIBLE = ", ".join(
    f"'{before or ''}>{after}'" for before, afters in MOVES.items() for after in afters
)
IMPOSSIBLE = f"coalesce({{before}}, '') || '>' || NEW.event NOT IN ({POSSIBLE})"
NOBODY = "trim(NEW.actor) = ''"
NO_REASON = "NEW.event = 'rejected' AND trim(coalesce(NEW.reason, '')) = ''"
NEWEST = "FROM message_events WHERE message_id = NEW.message_id"
NEWEST += " ORDER BY sequence DESC LIMIT 1"
APPEND_ONLY = (
    "message_events",
    "message_edits",
    "campaigns",
    "campaign_assignments",
)
SQLITE_GUARDS = (
    *(
        f"""
CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"""
        for table in APPEND_ONLY
        for verb in ("UPDATE", "DELETE")
    ),
    # A store of an earlier version knows fewer moves.
    "DROP TRIGGER IF EXISTS message_events_guard",
    f"""
CREATE TRIGGER message_events_guard BEFORE INSERT ON message_events
BEGIN
SELECT RAISE(ABORT, 'the sequence of a message has no gaps')
WHERE NEW.sequence <> coalesce((SELECT sequence {NEWEST}), 0) + 1;
SELECT RAISE(ABORT, 'this move is not possible')
WHERE {IMPOSSIBLE.format(before=f"(SELECT event {NEWEST})")};
SELECT RAISE(ABORT, 'an event needs an actor') WHERE {NOBODY};
SELECT RAISE(ABORT, 'a rejection needs a reason') WHERE {NO_REASON};
END""",
)
POSTGRESQL_GUARDS = (
    """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger AS $$
BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only',
ERRCODE = 'integrity_constraint_violation'; END
$$ LANGUAGE plpgsql""",
    *(
        f"""
CREATE OR REPLACE TRIGGER {table}_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
EXECUTE FUNCTION refuse_change()"""
        for table in APPEND_ONLY
    ),
    f"""
CREATE OR REPLACE FUNCTION check_message_event() RETURNS trigger AS $$
DECLARE newest record; wrong text;
BEGIN
SELECT sequence, event INTO newest {NEWEST};
wrong := CASE
WHEN NEW.sequence <> coalesce(newest.sequence, 0) + 1
THEN 'the sequence of a message has no gaps'
WHEN {IMPOSSIBLE.format(before="newest.event")} THEN 'this move is not possible'
WHEN {NOBODY} THEN 'an event needs an actor'
WHEN {NO_REASON} THEN 'a rejection needs a reason' END;
IF wrong IS NOT NULL THEN
RAISE EXCEPTION
USING MESSAGE = wrong, ERRCODE = 'integrity_constraint_violation';
END IF;
RETURN NEW;
END
$$ LANGUAGE plpgsql""",
    """
CREATE OR REPLACE TRIGGER message_events_guard BEFORE INSERT ON message_events
FOR EACH ROW EXECUTE FUNCTION check_message_event()""",
)
GUARDS = {"sqlite": SQLITE_GUARDS, "postgresql": POSTGRESQL_GUARDS}
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
CREATION_LOCK = 20260304  # any number, the same for everyone
FORGETTING_LOCK = 20260305  # another one


# ---------------------------------------------------------------- the store


class Store:
    """Messages and their events; make one with `open_store`."""

    def __init__(self, engine: sa.Engine, forgotten: Forgotten | None = None) -> None:
        self._engine, self._forgotten = engine, forgotten

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
        now = naive_utc(now)
        stored = []
        with self.writing() as connection:
            is_forgotten = self.is_forgotten(connection)
            taken = _taken(connection, {draft.campaign for draft in drafts}, apart)
            for draft in drafts:
                if is_forgotten(draft.source_system, draft.student_id):
                    continue
                slot = _slot(draft, apart)
                if slot not in taken and _insert(connection, draft, now):
                    taken.add(slot)
                    stored.append(draft)
        return stored

    def missing(
        self, drafts: Iterable[Message], apart: Iterable[str] = ()
    ) -> list[Message]:
        """Those that `add` would store: asked before a text is paid for."""
        drafts, apart = list(drafts), tuple(apart)
        campaigns = {draft.campaign for draft in drafts}
        with self._engine.connect() as connection:
            taken = _taken(connection, campaigns, apart)
        return [draft for draft in drafts if _slot(draft, apart) not in taken]

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
            The message is not there, the move is not in MOVES, nobody did it, a
            rejection has no reason, or the sender has the message in hand.
        """
        with self.writing() as connection:
            lock_message(connection, message_id)
            refuse_while_claimed(connection, message_id)
            return append_event(connection, message_id, event, actor, now, reason)

    def messages(self, source_system: str | None = None) -> list[dict[str, Any]]:
        """All messages with `state` and `sent_at`, in a fixed order."""
        query = sa.select(current).order_by(current.c.message_id)
        if source_system is not None:
            query = query.where(current.c.source_system == source_system)
        return self.rows(query)

    def events(self, source_system: str | None = None) -> list[dict[str, Any]]:
        """All events, in order of message and sequence."""
        columns = message_events.c
        query = sa.select(message_events).order_by(columns.message_id, columns.sequence)
        if source_system is not None:
            query = query.join(messages).where(
                messages.c.source_system == source_system
            )
        return self.rows(query)

    def rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        """Run a query and return its rows."""
        with self.reading() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One transaction that reads."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction that writes."""
        with _writing(self._engine) as connection:
            yield connection

    def is_forgotten(self, connection: sa.Connection) -> Callable[[str, str], bool]:
        """Whether a student of a source was forgotten; true until the transaction ends.

        Whoever writes about students asks: the warehouse may be older than the wish.
        """
        if connection.dialect.name == "postgresql":
            lock = sa.func.pg_advisory_xact_lock_shared(FORGETTING_LOCK)
            connection.execute(sa.select(lock))
        return self._forgotten.holds if self._forgotten else lambda *_: False

    def wait_for_writers(self, connection: sa.Connection) -> None:
        """Wait for all who have asked `is_forgotten`; SQLite has one writer anyway."""
        if connection.dialect.name == "postgresql":
            lock = sa.func.pg_advisory_xact_lock(FORGETTING_LOCK)
            connection.execute(sa.select(lock))

    def vacuum(self) -> None:
        """See to it that no byte of a deleted row stays in the database's files.

        Raises
        ------
        StoreError
            Another program has the SQLite file open and keeps its log alive.
        """
        unbound = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        with unbound.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("VACUUM FULL")
                return
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.rollback()
            raw.execute("VACUUM")
            busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise StoreError(
                "The rows are deleted, but another program reads the store, so that "
                "its log still holds them. Close it and run this again."
            )


@contextmanager
def guards_lifted(connection: sa.Connection, tables: list[str]) -> Iterator[None]:
    """Let rows of append-only tables go, within this transaction and for it alone.

    For what the law or the retention period asks for and for nothing else. Both
    databases undo it with the transaction: there is no moment without guards.
    """
    if connection.dialect.name == "postgresql":
        for table in tables:
            connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        yield
        for table in tables:
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        return
    found = connection.exec_driver_sql(
        "SELECT name, sql, tbl_name FROM sqlite_master WHERE type = 'trigger'"
    )
    guards = [(str(row.name), str(row.sql)) for row in found if row.tbl_name in tables]
    for name, _ in guards:
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    yield
    for _, sql in guards:
        connection.exec_driver_sql(sql)


def check_move(message_id: str, state: str | None, event: str) -> None:
    """Raise IllegalMove unless MOVES allows this event after this state."""
    if event not in MOVES[state]:
        possible = ", ".join(MOVES[state]) or "nothing"
        raise IllegalMove(
            f"Message {message_id} is {state or 'not there'} and cannot become "
            f"{event}; possible: {possible}."
        )


def append_event(
    connection: sa.Connection,
    message_id: str,
    event: str,
    actor: str,
    now: datetime,
    reason: str | None = None,
) -> int:
    """Append an event to a message that this transaction has locked."""
    sequence, state = newest_event(connection, message_id)
    check_move(message_id, state, event)
    if not actor.strip():
        raise IllegalMove(f"Message {message_id}: {event} needs an actor.")
    if event == "rejected" and not (reason or "").strip():
        raise IllegalMove(f"Message {message_id}: a rejection needs a reason.")
    row = {
        "message_id": message_id,
        "sequence": sequence + 1,
        "event": event,
        "actor": actor,
        "reason": reason,
        "happened_at": naive_utc(now),
    }
    try:
        connection.execute(sa.insert(message_events), row)
    except IntegrityError:
        raise IllegalMove(
            f"Message {message_id}: another process changed it, or it is not "
            "there. Look at its state and decide again."
        ) from None
    return sequence + 1


def newest_edit(connection: sa.Connection, message_id: str) -> int:
    """Number of the newest edit; 0 where the text is as drafted."""
    columns = message_edits.c
    found: int | None = connection.execute(
        sa.select(sa.func.max(columns.edit)).where(columns.message_id == message_id)
    ).scalar_one()
    return found or 0


def lock_message(connection: sa.Connection, message_id: str) -> None:
    """Make others who would move the message wait; SQLite's lock does already."""
    connection.execute(
        sa.select(messages.c.message_id)
        .where(messages.c.message_id == message_id)
        .with_for_update(key_share=True)
    )


def newest_attempt(connection: sa.Connection, message_id: str) -> Any:
    """The newest row of `delivery_attempts`, or None."""
    columns = delivery_attempts.c
    return connection.execute(
        sa.select(delivery_attempts)
        .where(columns.message_id == message_id)
        .order_by(columns.attempt.desc())
        .limit(1)
    ).first()


def refuse_while_claimed(connection: sa.Connection, message_id: str) -> None:
    """Raise IllegalMove while the sender has the message, or may have had it."""
    attempt = newest_attempt(connection, message_id)
    if attempt is not None and attempt.outcome in (None, "unknown"):
        raise IllegalMove(
            f"Message {message_id} may be on its way: an attempt has no outcome "
            "yet. Wait for it; if it stays so, `python -m intervene send --unknown` "
            "says what to do."
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


def newest_event(connection: sa.Connection, message_id: str) -> tuple[int, str | None]:
    """Sequence and name of the newest event; 0 and None where there is none."""
    columns = message_events.c
    row = connection.execute(
        sa.select(columns.sequence, columns.event)
        .where(columns.message_id == message_id)
        .order_by(columns.sequence.desc())
        .limit(1)
    ).first()
    return (row.sequence, row.event) if row else (0, None)


def naive_utc(moment: datetime) -> datetime:
    """The moment in UTC, without a zone, as the store keeps times."""
    return moment.astimezone(UTC).replace(tzinfo=None)


# ---------------------------------------------------------------- opening


def store_url(settings: Settings) -> str:
    """INTERVENE_STORE, or intervene.sqlite in the warehouse's folder."""
    given = settings.intervene_store.get_secret_value()
    beside = settings.warehouse_path.with_name("intervene.sqlite")
    return given or f"sqlite:///{beside}"


def open_store_of(settings: Settings) -> AbstractContextManager[Store]:
    """Open the store of the settings; it takes nothing about forgotten students."""
    return open_store(store_url(settings), Forgotten.from_settings(settings))


@contextmanager
def open_store(url: str, forgotten: Forgotten | None = None) -> Iterator[Store]:
    """Open the store, making its tables where they are missing.

    Parameters
    ----------
    url
        As SQLAlchemy writes it: `sqlite:///data/intervene.sqlite` or
        `postgresql://…`. A relative file counts from the project's folder.
    forgotten
        Whom nothing is stored about; None: nobody was ever forgotten.

    Raises
    ------
    StoreError
        The URL is not usable, or the database does not answer.
    """
    engine = _make_engine(url)
    try:
        _create_tables(engine)
        yield Store(engine, forgotten)
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
        return _postgresql_engine(parsed)
    except (SQLAlchemyError, ModuleNotFoundError, OSError) as error:
        # The URL is not repeated: it may hold a password.
        raise StoreError(
            f"INTERVENE_STORE is not usable: {_first_line(error)}. Use "
            "sqlite:///path/to/file, or postgresql://… with its driver: "
            "`pip install '.[postgres]'`."
        ) from None


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    # Without a driver in the URL, what that means changes with SQLAlchemy.
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return sa.create_engine(url, hide_parameters=True)


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
    """Make what is missing; the view comes last and says that guards are there."""
    name = engine.dialect.name
    with _writing(engine) as connection:
        if name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATION_LOCK)))
        metadata.create_all(connection)
        inspector = sa.inspect(connection)
        if inspector.has_table(CURRENT):
            made = {column["name"] for column in inspector.get_columns(CURRENT)}
            if made == {column.name for column in current.c}:
                return
            # A store of an earlier version: its tables stay, the view is renewed.
            connection.exec_driver_sql(f"DROP VIEW {CURRENT}")
        for guard in GUARDS[name]:
            connection.exec_driver_sql(guard)
        connection.exec_driver_sql(_view_ddl(engine.dialect))


def _view_ddl(dialect: sa.Dialect) -> str:
    query = current_messages().compile(
        dialect=dialect, compile_kwargs={"literal_binds": True}
    )
    return f"CREATE VIEW {CURRENT} AS {query}"


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
