"""What crosses between the warehouse and `intervene`: flags in, messages out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import duckdb
import pandas as pd
import sqlalchemy as sa

from intervene.edits import edited_parts
from intervene.experiments.assignments import assignments, registered
from intervene.store import IllegalMove, Store, current
from intervene.text import split_list
from ml.settings import UserError
from ml.warehouse import (
    WarehouseMissing,
    create_handback_tables,
    handback_tables,
    replace_rows,
    table_exists,
    transaction,
)

FLAG_COLUMNS = {
    "student_id": "varchar",
    "course_id": "varchar",
    "course_run_id": "varchar",
    "course_title": "varchar",
    "assessment_id": "varchar",
    "assessment_title": "varchar",
    "assessment_kind": "varchar",
    "as_of_date": "date",
    "due_at": "timestamp",
    "engagement_zone": "varchar",
    "student_reason_1": "varchar",
    "student_reason_2": "varchar",
    "student_reason_3": "varchar",
    "weak_topics": "varchar",
}
CONTACT_COLUMNS = {
    "student_id": "varchar",
    "first_name": "varchar",
    "email": "varchar",
    "phone": "varchar",
    "locale": "varchar",
    "timezone": "varchar",
    "preferred_channel": "varchar",
    "opted_out_at": "timestamp",
}

# States of messages that wait for the outcome of their sitting, and who tells it.
WENT_OUT = ("sent", "delivered", "replied")
LABELS = "labels"


class WrongColumns(UserError):
    """A table that is read here does not have the columns it should have."""


@dataclass(frozen=True)
class Flag:
    """What a draft needs of a row of `flagged_students`: no score, no rank."""

    student_id: str
    course_id: str
    course_run_id: str
    course_title: str | None
    assessment_id: str
    assessment_title: str | None
    assessment_kind: str | None
    as_of_date: date
    due_at: datetime | None
    engagement_zone: str | None
    reasons: tuple[str, ...]
    topics: tuple[str, ...]


@dataclass(frozen=True)
class Contact:
    """How to reach a student. Personal: never printed, never stored."""

    student_id: str
    first_name: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    locale: str | None = None
    timezone: str | None = None
    preferred_channel: str | None = None
    opted_out_at: datetime | None = None


# ---------------------------------------------------------------- in


def read_flags(connection: duckdb.DuckDBPyConnection) -> list[Flag]:
    """Read `flagged_students`, most pressing first.

    Raises
    ------
    WarehouseMissing
        The mart has not been built.
    WrongColumns
        Naming every column that is missing.
    """
    if not table_exists(connection, "flagged_students"):
        raise WarehouseMissing(
            "The warehouse has no table flagged_students. It is built from the "
            "scores: run `dbt build`, `python -m ml.train` and `dbt build` again, "
            "or `make run` for all of it."
        )
    rows = read_columns(
        connection,
        "main",
        "flagged_students",
        FLAG_COLUMNS,
        ["flag_rank", "student_id"],
    )
    return [_to_flag(row) for row in rows]


def read_contacts(connection: duckdb.DuckDBPyConnection) -> dict[str, Contact]:
    """Read the contacts by student; a source without them has an empty table."""
    if not table_exists(connection, "student_contacts", "personal"):
        raise WarehouseMissing(
            "The warehouse has no table personal.student_contacts. "
            "Build it with `dbt build`."
        )
    rows = read_columns(
        connection, "personal", "student_contacts", CONTACT_COLUMNS, ["student_id"]
    )
    return {row["student_id"]: Contact(**row) for row in rows}


def why_nobody(connection: duckdb.DuckDBPyConnection) -> str:
    """Explain an empty `flagged_students`."""
    students, day = 0, None
    if table_exists(connection, "student_scores", "ml"):
        (students, day), *_ = connection.execute(
            "select count(distinct student_id), max(as_of_date) from ml.student_scores"
        ).fetchall()
    if not students:
        return "nothing was scored yet. Run `python -m ml.train`, then `dbt build`."
    return (
        f"{students:,} students have scores, the newest of {day}, and none of them "
        "is flagged. Run `dbt build --select flagged_students` if the scores are "
        "newer than the flags; else look at AS_OF_DATE, PREDICTION_THRESHOLD and "
        "FLAG_CAPACITY."
    )


def read_columns(
    connection: duckdb.DuckDBPyConnection,
    schema: str,
    table: str,
    columns: dict[str, str],
    order: list[str],
) -> list[dict[str, Any]]:
    """Rows of a table with these columns, cast to these types, in this order."""
    _require_columns(connection, schema, table, [*columns, *order])
    casts = ", ".join(
        f"cast({name} as {kind}) as {name}" for name, kind in columns.items()
    )
    rows = connection.execute(
        f"select {casts} from {schema}.{table} order by {', '.join(order)}"
    ).fetchall()
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _require_columns(
    connection: duckdb.DuckDBPyConnection, schema: str, table: str, names: list[str]
) -> None:
    found = connection.execute(
        "select column_name from information_schema.columns"
        " where table_schema = ? and table_name = ?",
        [schema, table],
    ).fetchall()
    missing = sorted(set(names) - {row[0] for row in found})
    if missing:
        raise WrongColumns(
            f"Table {schema}.{table} has no column {', '.join(missing)}. "
            "Build it again with `dbt build`."
        )


def _to_flag(row: dict[str, Any]) -> Flag:
    reasons = [row.pop(f"student_reason_{number}") for number in (1, 2, 3)]
    return Flag(
        **{name: value for name, value in row.items() if name != "weak_topics"},
        reasons=tuple(reason for reason in reasons if reason),
        topics=tuple(split_list(row["weak_topics"])),
    )


def read_outcomes(
    connection: duckdb.DuckDBPyConnection,
) -> dict[tuple[str, str, str], int]:
    """`at_risk` of every sitting whose label has matured.

    By student, course run and assessment; empty where nothing was built. A sitting
    has one answer, from whatever day one asks.
    """
    if not table_exists(connection, "student_targets"):
        return {}
    rows = connection.execute(
        "select student_id, course_run_id, assessment_id, max(at_risk)"
        " from student_targets where label_status = 'matured' group by 1, 2, 3"
    ).fetchall()
    return {(student, run, sat): int(at_risk) for student, run, sat, at_risk in rows}


# ---------------------------------------------------------------- out


def record_outcomes(
    store: Store,
    outcomes: Mapping[tuple[str, str, str], int],
    source_system: str,
    now: datetime,
) -> int:
    """Give messages that went out the outcome of their sitting; return how many.

    What bounced or met a complaint stays so: the sender goes by that.
    """
    recorded = 0
    query = sa.select(
        current.c.message_id,
        current.c.student_id,
        current.c.course_run_id,
        current.c.assessment_id,
    ).where(current.c.source_system == source_system, current.c.state.in_(WENT_OUT))
    for row in store.rows(query.order_by(current.c.message_id)):
        sitting = (row["student_id"], row["course_run_id"], row["assessment_id"])
        if sitting not in outcomes:
            continue
        reason = f"at_risk = {outcomes[sitting]}"
        try:
            store.record(row["message_id"], "outcome", LABELS, now, reason)
        except IllegalMove:
            continue  # Something came back in the meantime; the next run sees it.
        recorded += 1
    return recorded


def copy_to_warehouse(
    connection: duckdb.DuckDBPyConnection, store: Store, source_system: str
) -> int:
    """Replace schema `intervene` by what the store holds; return the messages.

    With them go campaigns and who is in which arm. Only what belongs to the
    warehouse's own source is copied: the same id is another student elsewhere.
    """
    contents = {
        "messages": store.messages(source_system),
        "message_events": store.events(source_system),
        "message_edits": edited_parts(store, source_system),
        "campaigns": list(registered(store, source_system).values()),
        "campaign_assignments": assignments(store, source_system),
    }
    create_handback_tables(connection, "intervene")
    with transaction(connection):
        for name, rows in contents.items():
            columns = list(handback_tables("intervene")[name].columns)
            frame = pd.DataFrame(rows, columns=columns)
            replace_rows(connection, f"intervene.{name}", frame, where={})
    return len(contents["messages"])
