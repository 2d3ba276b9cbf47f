"""Raw data as platforms really hand it over, to be read alike by both engines."""

import csv
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from ml.warehouse import sql_text

TIMES = (
    """
2024-03-31 14:05:06|2024-3-1|2024/03/31|2024 03 31|2024-03-31 (BC)|epoch|now|infinity
2024-03-31 14:05:06 Europe/Oslo|2024-03-31 14:05:06 UTC|2024-03-31 14:05:06 PST
2024-03-31T24:00:00|2024-03-31 14:05:60|2024-03-31 14:5:6|2024-03-31 14|2024-03-31 14:
2024-03-31 14:05:06.|2024-03-31T| 2024-03-31 |2024-03-31  14:05|20240331T140506|2024-03
2024|14:05|2024-03-31T14:05:06+2|2024-03-31T14:05:06+02|2024-03-31T14:05:06+0200
2024-03-31T14:05:06+02:60|2024-03-31T14:05:06+99|2024-03-31T14:05 +0200|02024-03-31
2024-03-31T14:05:06 Z|2024-03-31T14:05:06ZZ|12024-03-31|-2024-03-31|0999-01-01
1900-01-01|1899-12-31 23:59:59|1899-12-31 23:59:59-01|2024-03-31 14:05:06,5
2024-03-31t14:05|2024-03-31 14:05z|2024-03-31 02:05:06 PM|2024-02-29|2023-02-29
2024-00-10|2024-04-31|9999-12-30 23:59:59.9999999|9999-12-31 00:30+01:00
2024-03-31T14:05:06+02:00[Europe/Paris]|2024-03-31 14:05:06.1234567|31/03/2024
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

NUMBERS = (
    """
1e5| 3 |3.0|NaN|inf|-Infinity|0x1F|1_000|1d|1f|1e400|1e-400|+5|5.|.5|-.5e3|.|e5|1e|--1
1 2|1,5|1e300|-1e300|9007199254740993|2147483647.0|-2147483649|2147483647.5|-0|00012
123456789012345678901234567890|0.3333333333333333333|4.9e-324|2.2250738585072011e-308
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

WORDS = ["true", "TRUE", " t ", "y", "Yes", "NO", "0.0", "1.0", "1.00", "on", "maybe"]
BLANKS = ["", "  ", "\t", " \t ", "\u00a07", "7\u00a0", "\u3000x", " a b ", "\n8\r\n"]
LETTERS = "0123456789-/:. TZtz+eE,_xUC\t"
# The name of a file in which a path and a URI differ.
PART = "part {}, 50%20 + #1 ü.parquet"


def odd_values(changed: int = 5000) -> Iterator[str]:
    """Values that engines may take for a time, a number or a word, or may not."""
    chance = random.Random(5)
    known = [*TIMES, *NUMBERS, *WORDS, *BLANKS]
    yield from known
    for _ in range(changed):
        letters = list(chance.choice(known))
        for _ in range(chance.choice([1, 1, 2, 3])):
            place = chance.randint(0, len(letters))
            letters[place : place + chance.randint(0, 1)] = chance.choice(LETTERS)
        yield "".join(letters)
    for _ in range(changed):
        yield repr(float(f"{chance.uniform(-1, 1)}e{chance.randint(-320, 307)}"))


def make_odd(folder: Path) -> None:
    """Write tables of the native contract anew, in other formats and shapes."""
    # Of a line break of Windows inside quotes Spark keeps the second half.
    values = [value for value in odd_values(300) if "\r" not in value]
    with duckdb.connect() as connection:
        for table in ("students", "courses", "subscriptions", "signed_in_events"):
            path = folder / f"{table}.parquet"
            connection.execute(f"create table {table} as from {_scan(path)}")
            path.unlink()
        _write_students(folder / "students", connection)
        _write_courses(folder / "courses.csv", connection)
        _write_odd(folder / "Subscriptions.CSV", connection, "subscriptions", values)
        _write_odd(
            folder / "signed_in_events.csv", connection, "signed_in_events", values
        )
        for table, statement in RETYPED.items():
            _retype(folder, connection, table, statement)
    # No raw file, and no partition either.
    older = folder / "lesson_progresses" / "student_id=older"
    older.mkdir()
    shutil.copy2(folder / "lesson_progresses" / PART.format(0), older)
    _write_as_arrow_does(folder / "quiz_question_answers.parquet")


def _scan(path: Path) -> str:
    name = sql_text(str(path).replace("[", "[[]"))
    return f"read_parquet({name}, hive_partitioning = false)"


def _write_students(folder: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Files whose columns differ in order, case and number, one written by hand."""
    folder.mkdir()
    half = "hash(student_id) % 2"
    connection.execute(
        "copy (select region, student_id, registered_at, gender, age_band from students"
        f" where {half} = 0) to {sql_text(folder / 'part 1.csv')}"
    )
    connection.execute(
        'copy (select student_id as "Student_ID", strftime(registered_at,'
        " '%Y-%m-%dT%H:%M:%S+01:00') as registered_at, age_band as \" age_band\","
        f" region from students where {half} = 1) to {sql_text(folder / 'part-2.csv')}"
    )
    (folder / "part 3.csv").write_text(
        'student_id,registered_at, region, "more, of it"\n'
        '"by hand 1", "2024-01-01", "a, b",x\n"by hand 2", 2024-01-02,  c ,\n'
    )


def _write_courses(path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """With a mark of its encoding, line breaks of Windows and inside quotes."""
    rows = connection.execute("select * from courses").fetchall()
    names = [column[0] for column in connection.description or []]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
        writer.writerow(names)
        for number, (course, title, category, minutes) in enumerate(rows):
            title = f'{title}, "{number}"\nsecond \\ line' if number % 2 else ""
            writer.writerow([course, title, category, minutes])


def _write_odd(
    path: Path, connection: duckdb.DuckDBPyConnection, table: str, values: list[str]
) -> None:
    """As CSV, with an odd value in some column of every eighth row."""
    rows = connection.execute(f"select * from {table} order by all").fetchall()
    names = [column[0] for column in connection.description or []]
    chance = random.Random(9)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            cells = ["" if value is None else str(value) for value in row]
            if chance.random() < 1 / 8:
                cells[chance.randrange(len(cells))] = chance.choice(values)
            writer.writerow(cells)


# Types that Parquet has and the contract does not name; a list is one file each.
RETYPED = {
    "lessons": [
        "select * replace (lesson_id || ' ' as lesson_id),"
        " {'a b': 1, 'c`d': 2} as \"not `asked` for\" from raw"
    ],
    "lesson_progresses": [
        "select * replace (cast(created_at as timestamptz) as created_at,"
        " cast(progress as decimal(9, 4)) + 0.12345 as progress) from raw"
        f" where hash(lesson_id) % 2 = {half}"
        for half in range(2)
    ],
    "quiz_question_answers": [
        "select * replace (cast(created_at as timestamp_ns) as created_at,"
        " case when hash(quiz_question_id) % 10 = 0 then cast('nan' as double)"
        " else attempt end as attempt,"
        " case when attempt = 0 then replace(verdict, 'in', 'İN') else verdict end"
        " as verdict) from raw"
    ],
    "assessment_results": [
        "select * replace (cast(submitted_at as timestamp_ms) as submitted_at,"
        " cast(score as float) as score, cast(passed as integer) as passed,"
        " cast(null as boolean) as graded_at) from raw where hash(result_id) % 2 = 0",
        "select * replace (cast(null as boolean) as graded_at,"
        " cast(null as boolean) as score) from raw where hash(result_id) % 2 = 1",
    ],
    "activity_events": [
        "select * from raw where hash(event_id) % 3 = 0",
        "select student_id, occurred_at, event_type, item_id, course_id, event_id,"
        " cast(quantity as integer) as quantity from raw where hash(event_id) % 3 = 1",
        "select * replace (hash(event_id) % 1000000 as event_id,"
        " cast(occurred_at as varchar) || 'Z' as occurred_at,"
        " quantity + 0.0000005 as quantity) from raw where hash(event_id) % 3 = 2",
    ],
}


def _retype(
    folder: Path,
    connection: duckdb.DuckDBPyConnection,
    table: str,
    statements: list[str],
) -> None:
    path = folder / f"{table}.parquet"
    connection.execute(f"create or replace table raw as from {_scan(path)}")
    path.unlink()
    if len(statements) > 1:
        (folder / table).mkdir()
    for number, statement in enumerate(statements):
        target = folder / table / PART.format(number) if statements[1:] else path
        connection.execute(f"copy ({statement}) to {sql_text(target)} (format parquet)")


def _write_as_arrow_does(path: Path) -> None:
    """Its statistics leave NaN out, where DuckDB's do not."""
    pq.write_table(pq.read_table(path), path)
