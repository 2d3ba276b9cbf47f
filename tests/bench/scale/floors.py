"""The least that the work can take: python -m tests.bench.scale.floors RAW OUT RUNS

Two floors, with the threads and the memory that the warehouse has: DuckDB reading the
events once, and one plain aggregation of them to student x course x day, written to a
table. Nothing is checked, nothing deduplicated. Prints the seconds of each run.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import duckdb

from ml.settings import load_limits

# Looks at every value; a count could be answered without reading.
READ = """
select
    sum(strlen(event_id)), sum(strlen(student_id)), sum(strlen(course_id)),
    sum(strlen(event_type)), sum(strlen(item_id)), sum(quantity),
    sum(epoch_us(occurred_at)), sum(epoch_us(loaded_at))
from read_parquet('{files}')
"""
# What int_daily_activity takes from activity_events.
AGGREGATE = """
create table daily as
select
    student_id,
    course_id,
    cast(occurred_at as date) as activity_date,
    count(*) as events,
    sum(quantity) as quantity,
    sum(case when event_type = 'minutes' then quantity end) as minutes,
    count(distinct item_id) as items,
    count(distinct event_type) as activity_kinds,
    sum(case when extract(hour from occurred_at) in (18, 19, 20, 21, 22, 23,
        0, 1, 2, 3, 4, 5) then 1 else 0 end) as evening_events,
    min(loaded_at) as first_loaded_at,
    max(loaded_at) as last_loaded_at
from read_parquet('{files}')
group by student_id, course_id, activity_date
"""


def time_reading(files: Path) -> float:
    """Seconds of one look at every value."""
    with duckdb.connect(config=load_limits(None)) as connection:
        began = time.perf_counter()
        connection.execute(READ.format(files=files)).fetchall()
        return time.perf_counter() - began


def time_aggregating(files: Path, out: Path) -> tuple[float, int]:
    """Seconds of the aggregation into a new file, and its rows."""
    out.unlink(missing_ok=True)
    began = time.perf_counter()
    with duckdb.connect(str(out), config=load_limits(None)) as connection:
        connection.execute("set preserve_insertion_order = false")
        connection.execute(AGGREGATE.format(files=files))
        rows = connection.execute("select count(*) from daily").fetchall()[0][0]
    seconds = time.perf_counter() - began
    out.unlink()
    return seconds, rows


def main(raw: Path, out: Path, runs: int) -> None:
    """Measure both; the first run of each only warms the cache."""
    files = raw / "activity_events" / "*.parquet"
    reading = [time_reading(files) for _ in range(runs + 1)][1:]
    aggregating = [time_aggregating(files, out) for _ in range(runs + 1)][1:]
    print(
        json.dumps(
            {
                "read": [round(seconds, 4) for seconds in reading],
                "aggregate": [round(seconds, 4) for seconds, _ in aggregating],
                "days": aggregating[0][1],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
