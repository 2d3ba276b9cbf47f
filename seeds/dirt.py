"""The dirt of the native contract: a few broken copies of good rows.

Every broken row is added, with an id of its own unless the double id is the
point, so that the good rows stay as they are. Small tables stay clean.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa

SHARE = 0.0008  # of a table's rows, for each of its kinds
SMALLEST = 150  # rows of a table that can have dirt

LONG_AGO = datetime(2019, 1, 1)
FAR_FUTURE = datetime(2199, 1, 1)
NOWHERE = "unknown"  # an id that no table has

# Table -> (kind, column, value). Kinds: unparsable (text only), no_time,
# future, orphan, blank, range (progress beyond 0-100), negative, reversed
# (the end before the start), twice (an id, all values equal), conflict (an id,
# one value not equal).
DIRT: dict[str, list[tuple[str, str, object]]] = {
    "students": [
        ("unparsable", "registered_at", "31/02/2023 25:61"),
        ("blank", "student_id", ""),
        ("twice", "", None),
        ("conflict", "registered_at", LONG_AGO),
    ],
    "student_contacts": [
        ("orphan", "student_id", NOWHERE),
        ("blank", "student_id", " "),
        ("twice", "", None),
        ("conflict", "first_name", "Toni"),
    ],
    "assessment_bookings": [
        ("unparsable", "scheduled_at", "next Tuesday"),
        ("orphan", "assessment_id", NOWHERE),
    ],
    "subscriptions": [
        ("unparsable", "created_at", "2023-13-45 10:00:00"),
        ("no_time", "created_at", None),
        ("future", "created_at", FAR_FUTURE),
        ("orphan", "student_id", NOWHERE),
        ("orphan", "course_id", NOWHERE),
        ("blank", "student_id", ""),
        ("reversed", "valid_to", LONG_AGO),
        ("negative", "amount_cents", -4900),
        ("twice", "", None),
        ("conflict", "amount_cents", 1),
    ],
    "lesson_progresses": [
        ("unparsable", "created_at", "yesterday"),
        ("no_time", "created_at", None),
        ("future", "created_at", FAR_FUTURE),
        ("orphan", "student_id", NOWHERE),
        ("orphan", "lesson_id", NOWHERE),
        ("blank", "lesson_id", " "),
        ("range", "progress", 250.0),
        ("range", "progress", -25.0),
    ],
    "quiz_question_answers": [
        ("unparsable", "created_at", "2023-02-30 10:00:00"),
        ("no_time", "created_at", None),
        ("future", "created_at", FAR_FUTURE),
        ("orphan", "student_id", NOWHERE),
        ("orphan", "course_id", NOWHERE),
        ("blank", "student_id", " "),
        ("negative", "attempt", -1),
    ],
    "assessment_results": [
        ("unparsable", "submitted_at", "24.12.2023 kl. 10"),
        ("no_time", "submitted_at", None),
        ("future", "submitted_at", FAR_FUTURE),
        ("orphan", "student_id", NOWHERE),
        ("orphan", "assessment_id", NOWHERE),
        ("blank", "assessment_id", ""),
        ("reversed", "graded_at", LONG_AGO),
        ("negative", "score", -10.0),
        ("twice", "", None),
        ("conflict", "score", 1.0),
    ],
    "signed_in_events": [
        ("unparsable", "created_at", "0000-00-00 00:00:00"),
        ("no_time", "created_at", None),
        ("future", "created_at", FAR_FUTURE),
        ("orphan", "student_id", NOWHERE),
        ("blank", "student_id", " "),
    ],
    "activity_events": [
        ("unparsable", "occurred_at", "n/a"),
        ("no_time", "occurred_at", None),
        ("future", "occurred_at", FAR_FUTURE),
        ("orphan", "student_id", NOWHERE),
        ("orphan", "course_id", NOWHERE),
        ("blank", "event_type", ""),
        ("negative", "quantity", -3.0),
        ("twice", "", None),
        ("conflict", "quantity", 777.0),
    ],
}
ID_OF = {
    "students": "student_id",
    "subscriptions": "subscription_id",
    "assessment_results": "result_id",
    "activity_events": "event_id",
}


def soil(rng: np.random.Generator, name: str, table: pa.Table) -> pa.Table:
    """Append this table's kinds of dirt to a chunk of its rows.

    Columns that are not all text have types, and cannot hold unparsable times.
    """
    size = table.num_rows
    if name not in DIRT or size < SMALLEST:
        return table
    is_text = all(pa.types.is_string(field.type) for field in table.schema)
    count = max(1, round(SHARE * size))
    parts = [table]
    for nth, (kind, column, value) in enumerate(DIRT[name]):
        picks = np.sort(rng.choice(size, count, replace=False))
        if kind == "unparsable" and not is_text:
            continue
        part = table.take(pa.array(picks))
        if kind not in ("twice", "conflict") and name in ID_OF:
            part = replaced(part, ID_OF[name], renamed(part[ID_OF[name]], nth))
        if kind != "twice":
            part = replaced(part, column, constant(value, count, part, column))
        parts.append(part)
    return pa.concat_tables(parts)


def renamed(ids: pa.ChunkedArray, nth: int) -> pa.Array:
    """Ids that no other row has."""
    return pa.array([f"{text}d{nth}" for text in ids.to_pylist()], pa.string())


def constant(value: object, count: int, table: pa.Table, column: str) -> pa.Array:
    """The same value, of the column's type, in every row."""
    kind = table.schema.field(column).type
    if value is not None and pa.types.is_string(kind):
        value = str(value)
    return pa.array([value] * count, kind)


def replaced(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    """The table with other values in one column."""
    return table.set_column(table.schema.get_field_index(column), column, values)
