"""Make the raw tables of one size: python -m tests.bench.scale.make_data EVENTS FOLDER

The generator writes student by student; a platform exports what was loaded, in the
order of loading, in several files: FOLDER/raw. The newest hundredth, by time of
loading, is kept apart in FOLDER/increment.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import duckdb

from ml.settings import PROJECT_ROOT, load_limits

# As dense as OULAD's click streams (18 clicks on an active day), on about half of the
# days of an enrollment.
DILIGENCE, DETAIL = 8, 44
EVENTS_PER_STUDENT = 990  # what this gives
FEWEST_STUDENTS = 20
EVENTS_PER_FILE = 5_000_000
INCREMENT = 0.01
# One delivered again of so many: of the increment's own events, of those before it.
AGAIN, AGAIN_FROM_BEFORE = 500, 1_000

# When a row came to be there.
TIMES = {
    "assessment_bookings": "booked_at",
    "subscriptions": "created_at",
    "lesson_progresses": "created_at",
    "quiz_question_answers": "created_at",
    "assessment_results": "submitted_at",
    "signed_in_events": "created_at",
    "activity_events": "coalesce(loaded_at, occurred_at)",
}


def make(events: int, folder: Path) -> None:
    """Write FOLDER/raw and FOLDER/increment, and FOLDER/about.json at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    generated = folder / "generated"
    generate(max(FEWEST_STUDENTS, round(events / EVENTS_PER_STUDENT)), generated)
    with duckdb.connect(config=load_limits(None)) as connection:
        # Without it rows are written as they come, and not in their order.
        connection.execute("set preserve_insertion_order = true")
        connection.execute(f"set temp_directory = '{folder / 'spill'}'")
        cut = find_cut(connection, generated)
        for source in sorted(generated.glob("*.parquet")):
            if source.stem in TIMES:
                split(connection, source, folder, cut)
            else:
                (folder / "raw").mkdir(exist_ok=True)
                source.rename(folder / "raw" / source.name)
        repeat_some(connection, folder, cut)
        about = describe(connection, folder)
    shutil.rmtree(generated)
    shutil.rmtree(folder / "spill", ignore_errors=True)
    (folder / "about.json").write_text(json.dumps(about))


def generate(students: int, out: Path) -> None:
    """Run the generator in a process of its own, so that its memory is given back."""
    command = [sys.executable, PROJECT_ROOT / "seeds" / "generate.py"]
    command += ["--students", students, "--format", "parquet", "--out", out]
    command += ["--diligence", DILIGENCE, "--detail", DETAIL]
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)


def loading_time(table: str, key: str = "student_id") -> str:
    """SQL for when a row was loaded; a broken time gets one that hangs on the key."""
    time = TIMES[table]
    spread = f"interval (cast(hash({key}) % 1800 as integer)) days"
    return (
        f"case when {time} between timestamp '2000-01-01' and timestamp '2100-01-01' "
        f"then {time} else timestamp '2021-01-04' + {spread} end"
    )


def find_cut(connection: duckdb.DuckDBPyConnection, generated: Path) -> str:
    """The time from which what is loaded is the increment, as an SQL literal."""
    found = connection.execute(
        f"select quantile_disc({loading_time('activity_events')}, {1 - INCREMENT}) "
        f"from '{generated / 'activity_events.parquet'}'"
    ).fetchall()
    return f"timestamp '{found[0][0]}'"


def split(
    connection: duckdb.DuckDBPyConnection, source: Path, folder: Path, cut: str
) -> None:
    """Write one table in the order of loading: files before the cut, one after it."""
    table = source.stem
    at = loading_time(table)
    bounds = file_bounds(connection, source, at, cut)
    for number, (low, high) in enumerate(bounds):
        part = folder / "raw" / table / f"part-{number:04}.parquet"
        copy(connection, source, f"{at} >= {low} and {at} < {high}", at, part)
    part = folder / "increment" / table / "increment.parquet"
    copy(connection, source, f"{at} >= {cut}", at, part)


def file_bounds(
    connection: duckdb.DuckDBPyConnection, source: Path, at: str, cut: str
) -> list[tuple[str, str]]:
    """Times between which files of about EVENTS_PER_FILE rows lie."""
    rows = connection.execute(f"select count(*) from '{source}'").fetchall()[0][0]
    files = -(-rows // EVENTS_PER_FILE)
    shares = [number / files for number in range(1, files)]
    inner: list[object] = []
    if shares:
        inner = connection.execute(
            f"select quantile_disc({at}, {shares}) from '{source}' where {at} < {cut}"
        ).fetchall()[0][0]
    times = [
        "timestamp '1900-01-01'",
        *(f"timestamp '{time}'" for time in dict.fromkeys(inner)),
        cut,
    ]
    return list(pairwise(times))


def copy(
    connection: duckdb.DuckDBPyConnection,
    source: Path,
    where: str,
    order: str,
    to: Path,
) -> None:
    """Write the rows of a file that meet a condition, in order, to another."""
    to.parent.mkdir(parents=True, exist_ok=True)
    connection.execute(
        f"copy (select * from '{source}' where {where} order by {order}) "
        f"to '{to}' (format parquet, compression zstd)"
    )


def repeat_some(connection: duckdb.DuckDBPyConnection, folder: Path, cut: str) -> None:
    """Deliver some events again with the increment: its own, and some from before,
    loaded now."""
    own = folder / "increment" / "activity_events" / "increment.parquet"
    newest = max((folder / "raw" / "activity_events").glob("*.parquet"))
    again = own.with_name("again.parquet")
    connection.execute(
        f"""
        copy (
            select * from '{own}' where hash(event_id) % {AGAIN} = 0
            union all
            select * replace (greatest({cut}, loaded_at) as loaded_at)
            from '{newest}' where hash(event_id) % {AGAIN_FROM_BEFORE} = 0
        ) to '{again}' (format parquet, compression zstd)
        """
    )


def describe(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, object]:
    """How much there is."""
    before = folder / "raw" / "activity_events" / "*.parquet"
    after = folder / "increment" / "activity_events" / "*.parquet"

    def value(query: str) -> int:
        return int(connection.execute(query).fetchall()[0][0])

    late = "loaded_at >= date_trunc('day', occurred_at) + interval 1 day"
    both = f"read_parquet(['{before}', '{after}'])"
    files = [*folder.glob("raw/**/*.parquet"), *folder.glob("increment/**/*.parquet")]
    apart = folder / "increment"
    return {
        "increment_files": sorted(
            str(path.relative_to(apart)) for path in apart.glob("*/*.parquet")
        ),
        "events": value(f"select count(*) from {both}"),
        "increment_events": value(f"select count(*) from '{after}'"),
        "increment_late": value(f"select count(*) from '{after}' where {late}"),
        "increment_again": value(
            f"select count(*) from '{after.with_name('again.parquet')}'"
        ),
        "students": value(f"select count(*) from '{folder / 'raw/students.parquet'}'"),
        "event_files": len(list(before.parent.glob("*.parquet"))),
        "bytes": sum(path.stat().st_size for path in files),
    }


if __name__ == "__main__":
    make(int(float(sys.argv[1])), Path(sys.argv[2]))
