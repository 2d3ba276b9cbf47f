"""Look into a warehouse that was built: python -m tests.bench.scale.tables WHAT ...

    counts WAREHOUSE            rows of the tables that matter
    trained WAREHOUSE           points of the newest training run
    scored WAREHOUSE            rows of the newest scores
    points WAREHOUSE OUT        prediction points as Parquet, for the other ways
    same WAREHOUSE OTHER        rows of two tables that only one of them has
    compare WAREHOUSE OTHER     features in a Parquet that differ from the warehouse's

Each prints JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from ml.settings import load_limits

COUNTED = {
    "enrollments": "intermediate.int_enrollments",
    "days": "intermediate.int_daily_activity",
    "points": "main.student_features_14d",
}
TOLERANCE = 1e-9


def opened(path: Path) -> duckdb.DuckDBPyConnection:
    """The warehouse, for reading."""
    return duckdb.connect(str(path), read_only=True, config=load_limits(None))


def counts(warehouse: Path) -> dict[str, int]:
    """Rows of the tables that matter."""
    with opened(warehouse) as connection:
        return {
            name: connection.execute(f"select count(*) from {table}").fetchall()[0][0]
            for name, table in COUNTED.items()
        }


def trained(warehouse: Path) -> dict[str, Any]:
    """The newest training run: points trained on, points judged, and its status."""
    query = (
        "select train_rows, test_rows, status from ml.model_runs"
        " order by created_at desc limit 1"
    )
    with opened(warehouse) as connection:
        found = connection.execute(query).fetchall()[0]
    return dict(zip(("points", "test_points", "status"), found, strict=True))


def scored(warehouse: Path) -> dict[str, int]:
    """Rows of the newest scores."""
    with opened(warehouse) as connection:
        query = "select count(*) from ml.current_scores"
        return {"scored": connection.execute(query).fetchall()[0][0]}


def points(warehouse: Path, out: Path) -> dict[str, int]:
    """Write the prediction points; those at no configured lead are one group."""
    with opened(warehouse) as connection:
        connection.execute(
            f"""
            copy (
                select
                    points.student_id, points.course_id, points.assessment_id,
                    points.course_run_id,
                    cast(points.as_of_date as timestamp) as as_of_date,
                    cast(cast(enrollments.began_at as date) as timestamp)
                        as began_date,
                    cast(cast(enrollments.next_began_at as date) as timestamp)
                        as next_began_date,
                    case when features.lead_days in (28, 21, 14, 7)
                        then features.lead_days else -1 end as lead
                from intermediate.int_prediction_points as points
                inner join student_features_14d as features
                    using (student_id, course_id, assessment_id, as_of_date)
                inner join intermediate.int_enrollments as enrollments
                    using (student_id, course_run_id)
                order by
                    points.student_id, points.course_id, points.assessment_id,
                    points.as_of_date
            ) to '{out}' (format parquet)
            """
        )
        rows = connection.execute(f"select count(*) from '{out}'").fetchall()[0][0]
    return {"points": rows}


def same(warehouse: Path, other: Path) -> dict[str, int]:
    """Rows of the daily activity and the features that one warehouse has alone."""
    with opened(warehouse) as connection:
        connection.execute(f"attach '{other}' as other (read_only)")
        return {
            table: _only_in_one(connection, table, f"other.{table}")
            for table in (
                "intermediate.int_daily_activity",
                "main.student_features_14d",
            )
        }


def _only_in_one(connection: duckdb.DuckDBPyConnection, here: str, there: str) -> int:
    alone = 0
    for one, two in ((here, there), (there, here)):
        query = f"select count(*) from (from {one} except all from {two})"
        alone += connection.execute(query).fetchall()[0][0]
    return alone


def compare(warehouse: Path, other: Path) -> dict[str, Any]:
    """How many values of each shared feature differ beyond rounding."""
    with opened(warehouse) as connection:
        connection.execute(f"create temp view theirs as from '{other}'")
        columns = [row[0] for row in connection.execute("describe theirs").fetchall()]
        features = [c for c in columns if c not in KEY]
        differences = ", ".join(
            f"count(*) filter (not ({_close(name)})) as {name}" for name in features
        )
        found = connection.execute(
            f"select count(*), {differences} from student_features_14d as ours "
            f"inner join theirs using ({', '.join(KEY)})"
        ).fetchall()[0]
        rows = connection.execute("select count(*) from theirs").fetchall()[0][0]
    different = dict(zip(features, found[1:], strict=True))
    return {
        "rows": rows,
        "unmatched": rows - found[0],
        "features": len(features),
        "different": {name: count for name, count in different.items() if count},
    }


KEY = ["student_id", "course_id", "assessment_id", "as_of_date"]


def _close(name: str) -> str:
    ours, theirs = f"ours.{name}", f"theirs.{name}"
    near = f"abs({ours} - {theirs}) <= {TOLERANCE} * greatest(1, abs({ours}))"
    return f"coalesce({near}, {ours} is null and {theirs} is null)"


WHAT: dict[str, Callable[..., dict[str, Any]]] = {
    "counts": counts,
    "trained": trained,
    "scored": scored,
    "points": points,
    "same": same,
    "compare": compare,
}

if __name__ == "__main__":
    print(json.dumps(WHAT[sys.argv[1]](*map(Path, sys.argv[2:]))))
