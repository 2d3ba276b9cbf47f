"""Why a student was flagged, kept in the store for the review page.

The page shows it, and checks edits against it, without opening the warehouse.
It holds no score and nobody's name.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb
import sqlalchemy as sa

from intervene.handover import Flag, read_columns, read_flags
from intervene.store import INSERTS, Sitting, Store, flag_snapshots
from ml.warehouse import table_exists

WEEKS = 8
SHOWN_COLUMNS = {
    "flag_rank": "integer",
    "flag_policy": "varchar",
    "risk_band": "varchar",
    "reason_1": "varchar",
    "reason_2": "varchar",
    "reason_3": "varchar",
}


@dataclass(frozen=True)
class Snapshot:
    """A flag with what only an advisor sees of it.

    Attributes
    ----------
    rank
        1 was to be helped first on the day of the flag.
    reasons
        In the advisor's words; those of `flag` are the student's.
    active_days
        Days with study in each of the last WEEKS weeks before the day of the flag,
        oldest first; None where activity is unknown, which is not zero.
    """

    flag: Flag
    rank: int
    policy: str | None
    band: str | None
    reasons: tuple[str, ...]
    active_days: tuple[int | None, ...]


# ---------------------------------------------------------------- in


def read_snapshots(connection: duckdb.DuckDBPyConnection) -> list[Snapshot]:
    """Read every flag with what was known before its day, most pressing first."""
    flags = read_flags(connection)
    order = ["flag_rank", "student_id"]
    rows = read_columns(connection, "main", "flagged_students", SHOWN_COLUMNS, order)
    days = _active_days(connection)
    unknown = (None,) * WEEKS
    return [
        Snapshot(
            flag=flag,
            rank=row["flag_rank"],
            policy=row["flag_policy"],
            band=row["risk_band"],
            reasons=tuple(
                row[name] for name in ("reason_1", "reason_2", "reason_3") if row[name]
            ),
            active_days=days.get((flag.student_id, flag.course_run_id), unknown),
        )
        for flag, row in zip(flags, rows, strict=True)
    ]


def _active_days(
    connection: duckdb.DuckDBPyConnection,
) -> dict[tuple[str, str], tuple[int | None, ...]]:
    """Active days per week by student and run, of those enrollments flagged."""
    if not table_exists(connection, "int_enrollment_activity", "intermediate"):
        return {}
    # A later fact or a later start of recording was not known on that day.
    known = connection.execute(
        """
        select
            flags.student_id, flags.course_run_id, flags.as_of_date,
            greatest(
                coverage.study_known_from, cast(enrollments.began_at as date)
            ) as known_from
        from main.flagged_students as flags
        inner join intermediate.int_enrollments as enrollments
            on
                flags.student_id = enrollments.student_id
                and flags.course_run_id = enrollments.course_run_id
        inner join intermediate.int_activity_coverage as coverage
            on enrollments.activity_scope_id = coverage.activity_scope_id
        where coverage.study_known_from < flags.as_of_date
        """
    ).fetchall()
    active = connection.execute(
        """
        select distinct
            flags.student_id, flags.course_run_id, activity.activity_date
        from main.flagged_students as flags
        inner join intermediate.int_enrollment_activity as activity
            on
                flags.student_id = activity.student_id
                and flags.course_run_id = activity.course_run_id
        where
            activity.study_facts > 0
            and activity.activity_date < flags.as_of_date
            and activity.known_date < flags.as_of_date
        """
    ).fetchall()
    days: dict[tuple[str, str], list[date]] = defaultdict(list)
    for student, run, day in active:
        days[student, run].append(day)
    return {
        (student, run): _by_week(days[student, run], as_of_date, known_from)
        for student, run, as_of_date, known_from in known
    }


def _by_week(
    days: list[date], as_of_date: date, known_from: date
) -> tuple[int | None, ...]:
    """Count days by week; a week that ended before anything was known is None."""
    counts: list[int | None] = []
    for weeks_ago in range(WEEKS, 0, -1):
        begin = as_of_date - timedelta(weeks=weeks_ago)
        end = begin + timedelta(weeks=1)
        active = sum(begin <= day < end for day in days)
        counts.append(active if known_from < end else None)
    return tuple(counts)


# ---------------------------------------------------------------- out


def save_snapshots(
    store: Store, snapshots: Iterable[Snapshot], source_system: str
) -> None:
    """Keep one snapshot per student and sitting: that of the newest day."""
    rows = [_to_row(snapshot, source_system) for snapshot in snapshots]
    if not rows:
        return
    rows.sort(key=lambda row: row["snapshot_id"])
    with store.writing() as connection:
        insert = INSERTS[connection.dialect.name](flag_snapshots)
        new = insert.excluded
        upsert = insert.on_conflict_do_update(
            index_elements=["snapshot_id"],
            set_={
                column.name: new[column.name]
                for column in flag_snapshots.c
                if not column.primary_key
            },
            where=flag_snapshots.c.as_of_date <= new.as_of_date,
        )
        is_forgotten = store.is_forgotten(connection)
        rows = [r for r in rows if not is_forgotten(source_system, r["student_id"])]
        if rows:
            connection.execute(upsert, rows)


def _to_row(snapshot: Snapshot, source_system: str) -> dict[str, Any]:
    flag = snapshot.flag
    sitting = {name: getattr(flag, name) for name in Sitting._fields}
    key = json.dumps([source_system, *sitting.values()], default=str)
    return sitting | {
        "snapshot_id": hashlib.sha256(key.encode()).hexdigest()[:32],
        "source_system": source_system,
        "as_of_date": flag.as_of_date,
        "flag_rank": snapshot.rank,
        "flag_policy": snapshot.policy,
        "risk_band": snapshot.band,
        "engagement_zone": flag.engagement_zone,
        "course_title": flag.course_title,
        "assessment_title": flag.assessment_title,
        "assessment_kind": flag.assessment_kind,
        "reasons": list(snapshot.reasons),
        "student_reasons": list(flag.reasons),
        "topics": list(flag.topics),
        "active_days": list(snapshot.active_days),
    }


def from_row(row: Any) -> Snapshot:
    """A snapshot as it was before it became a row of `flag_snapshots`."""
    titles = ("course_title", "assessment_title", "assessment_kind")
    flag = Flag(
        **{name: row[name] for name in (*Sitting._fields, *titles)},
        as_of_date=row["as_of_date"],
        engagement_zone=row["engagement_zone"],
        reasons=tuple(row["student_reasons"]),
        topics=tuple(row["topics"]),
    )
    return Snapshot(
        flag=flag,
        rank=row["flag_rank"],
        policy=row["flag_policy"],
        band=row["risk_band"],
        reasons=tuple(row["reasons"]),
        active_days=tuple(row["active_days"]),
    )


def same_sitting(columns: Any) -> sa.ColumnElement[bool]:
    """Whether a snapshot is about the sitting that these columns name."""
    mine = flag_snapshots.c
    names = ("source_system", *Sitting._fields[:-1])
    return sa.and_(
        *(mine[name] == columns[name] for name in names),
        mine.due_at.is_not_distinct_from(columns.due_at),
    )
