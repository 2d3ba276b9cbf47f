"""Write the tables of the native contract for any number of synthetic students.

    python seeds/generate.py                    the small CSVs beside this file
    python seeds/generate.py --students 1000000 --format parquet --out data/big

The same arguments give the same bytes. Students are simulated and written in
chunks, so memory does not grow with their number. What the process knows and
no platform would, each enrollment's probability of failing and of buying
again, is written with --truth only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from dirt import soil
from people import contact_table, draw_students, student_table
from process import Chunk, happened
from world import assessment_table, course_table, ids, lesson_table

SEEDS = Path(__file__).resolve().parent
CHUNK = 20_000  # students simulated at once

TEXT, TIME, NUMBER = pa.string(), pa.timestamp("us"), pa.float64()
WHOLE, YES_NO = pa.int64(), pa.bool_()

# The native contract, in its order of tables and columns.
TABLES = {
    "students": {
        "student_id": TEXT,
        "registered_at": TIME,
        "age_band": TEXT,
        "gender": TEXT,
        "region": TEXT,
    },
    "student_contacts": {
        "student_id": TEXT,
        "first_name": TEXT,
        "email": TEXT,
        "phone": TEXT,
        "locale": TEXT,
        "timezone": TEXT,
        "preferred_channel": TEXT,
        "opted_out_at": TIME,
    },
    "courses": {
        "course_id": TEXT,
        "title": TEXT,
        "category": TEXT,
        "duration_minutes": WHOLE,
    },
    "lessons": {"lesson_id": TEXT, "course_id": TEXT, "topic": TEXT},
    "assessments": {
        "assessment_id": TEXT,
        "course_id": TEXT,
        "title": TEXT,
        "kind": TEXT,
        "due_at": TIME,
        "weight": NUMBER,
        "pass_mark": NUMBER,
    },
    "assessment_bookings": {
        "student_id": TEXT,
        "assessment_id": TEXT,
        "scheduled_at": TIME,
        "booked_at": TIME,
    },
    "subscriptions": {
        "subscription_id": TEXT,
        "student_id": TEXT,
        "course_id": TEXT,
        "tier": TEXT,
        "amount_cents": WHOLE,
        "created_at": TIME,
        "valid_from": TIME,
        "valid_to": TIME,
        "withdrawn_at": TIME,
    },
    "lesson_progresses": {
        "student_id": TEXT,
        "lesson_id": TEXT,
        "progress": NUMBER,
        "created_at": TIME,
        "updated_at": TIME,
    },
    "quiz_question_answers": {
        "student_id": TEXT,
        "course_id": TEXT,
        "lesson_id": TEXT,
        "quiz_question_id": TEXT,
        "attempt": WHOLE,
        "verdict": TEXT,
        "created_at": TIME,
    },
    "assessment_results": {
        "result_id": TEXT,
        "student_id": TEXT,
        "assessment_id": TEXT,
        "submitted_at": TIME,
        "graded_at": TIME,
        "score": NUMBER,
        "passed": YES_NO,
    },
    "signed_in_events": {"student_id": TEXT, "created_at": TIME},
    "activity_events": {
        "event_id": TEXT,
        "student_id": TEXT,
        "course_id": TEXT,
        "event_type": TEXT,
        "item_id": TEXT,
        "quantity": NUMBER,
        "occurred_at": TIME,
        "loaded_at": TIME,
    },
}
# What --truth writes: one row per enrollment and the exam it leads to.
#   due_at          null where the exam has no date that the tables know
#   exam_at         when it takes place all the same
#   p_repurchase    probability that the same course is bought again within 90
#                   days of the exam, given all that the tables hold at the
#                   start of the day 14 days before it (see truth.py)
#                   0 for who has withdrawn before that day
#   p_fail          the same for not passing the exam; 1 for the withdrawn
#   postpones       never studies at all: no model can know, evaluation omits it
#   repurchased, failed   what was drawn (for pending exams: will be)
TRUTH = {
    "student_id": TEXT,
    "course_id": TEXT,
    "subscription_id": TEXT,
    "assessment_id": TEXT,
    "due_at": TIME,
    "exam_at": TIME,
    "attempt_number": WHOLE,
    "all_courses": YES_NO,
    "postpones": YES_NO,
    "p_repurchase": NUMBER,
    "p_fail": NUMBER,
    "repurchased": WHOLE,
    "failed": WHOLE,
}
NUMBERED = {
    "assessment_results": ("result_id", "r"),
    "activity_events": ("event_id", "e"),
}

ROW_IDS = ("subscription_id", "result_id", "event_id")


class Writer(Protocol):
    """What Parquet's and CSV's writers have in common."""

    def write_table(self, table: pa.Table) -> None:
        """Append rows."""

    def close(self) -> None:
        """Finish the file."""


def open_writer(path: Path, schema: pa.Schema) -> Writer:
    """A writer of the format that the file's name says."""
    if path.suffix == ".parquet":
        # Times and row ids hardly repeat: a dictionary of them costs time only.
        repeats = [f.name for f in schema if f.type != TIME and f.name not in ROW_IDS]
        return pa.parquet.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=repeats
        )
    path.write_text(",".join(schema.names) + "\n")
    options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    return pa.csv.CSVWriter(path.open("ab"), schema, write_options=options)


class Files:
    """One open file per table, and the running number of its rows."""

    def __init__(
        self, out: Path, file_format: str, truth: Path | None, dirt: bool
    ) -> None:
        self.as_text = file_format == "csv"
        self.dirt = dirt
        self.written = dict.fromkeys([*TABLES, "truth"], 0)
        self.writers = {
            name: open_writer(out / f"{name}.{file_format}", self.schema(columns))
            for name, columns in TABLES.items()
        }
        if truth is not None:
            self.writers["truth"] = open_writer(truth, pa.schema(TRUTH))

    def schema(self, columns: dict[str, pa.DataType]) -> pa.Schema:
        """CSV is text throughout, or it could not hold what does not parse."""
        return pa.schema({c: TEXT if self.as_text else t for c, t in columns.items()})

    def write(self, rng: np.random.Generator, name: str, table: pa.Table) -> None:
        """Number, type, soil and append the rows of one table."""
        if name not in self.writers or table.num_rows == 0:
            return
        if name in NUMBERED:
            table = self.numbered(name, table)
        columns = TRUTH if name == "truth" else TABLES[name]
        table = table.select(list(columns)).cast(pa.schema(columns))
        self.written[name] += table.num_rows
        if name != "truth":
            table = as_text(table) if self.as_text else table
            table = soil(rng, name, table) if self.dirt else table
        self.writers[name].write_table(table)

    def numbered(self, name: str, table: pa.Table) -> pa.Table:
        """Give ids to rows that have no other."""
        column, prefix = NUMBERED[name]
        first = self.written[name] + 1
        numbers = ids(prefix, np.arange(first, first + table.num_rows))
        return table.set_column(table.schema.get_field_index(column), column, numbers)

    def close(self) -> None:
        """Finish all files."""
        for writer in self.writers.values():
            writer.close()


def as_text(table: pa.Table) -> pa.Table:
    """Every column as text; times to the second."""
    return pa.table({field.name: text(table[field.name]) for field in table.schema})


def text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """One column as text."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("s"))
    return column.cast(TEXT)


def generate(
    students: int,
    seed: int,
    file_format: str,
    out: Path,
    dirt: bool = True,
    truth: Path | None = None,
    detail: float = 1.0,
    diligence: float = 1.0,
) -> dict[str, int]:
    """Write every table; return the number of good rows by table.

    Parameters
    ----------
    students
        How many; ids run from s1.
    seed
        Of every random choice; the same seed and size give the same bytes.
    file_format
        "csv" (text) or "parquet" (typed); also the ending of the files.
    out
        Folder for one file per table; made if missing.
    dirt
        Whether to add broken rows of each kind.
    truth
        File for the probabilities, CSV or Parquet by its ending.
    detail
        Factor on the number of activity_events; nothing else changes by it
        but the random choices.
    diligence
        Factor on the chance of studying on a day. Whoever studies more also
        answers and passes more, so above 1 the base rates are not the sample's.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = Files(out, file_format, truth, dirt)
    rng = np.random.default_rng([seed])
    files.write(rng, "courses", course_table())
    files.write(rng, "lessons", lesson_table())
    files.write(rng, "assessments", assessment_table())
    next_id = 1
    for number, first in enumerate(range(1, students + 1, CHUNK)):
        rng = np.random.default_rng([seed, number])
        drawn = draw_students(rng, first, min(CHUNK, students + 1 - first))
        chunk = Chunk(rng, drawn, detail, diligence, next_id)
        chunk.run()
        next_id = chunk.next_id
        chunk.rows["students"].append(student_table(rng, drawn))
        chunk.rows["student_contacts"].append(contact_table(rng, drawn))
        for name in [*TABLES, "truth"]:
            if chunk.rows[name]:
                table = pa.concat_tables(chunk.rows.pop(name))
                files.write(rng, name, happened(name, table))
    files.close()
    return {name: files.written[name] for name in TABLES}


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--students", type=positive, default=1_270, help="how many (default 1270)")
    add("--seed", type=int, default=3, help="of every random choice (default 3)")
    add("--format", choices=["csv", "parquet"], default="csv")
    add("--out", type=Path, default=SEEDS, help="folder (default: beside this file)")
    add("--dirt", action=argparse.BooleanOptionalAction, default=True)
    add("--truth", type=Path, help="file for the probabilities, outside seeds/")
    add("--detail", type=float, default=1.0, help="factor on activity_events")
    add("--diligence", type=float, default=1.0, help="factor on the chance to study")
    arguments = parser.parse_args()
    truth = arguments.truth
    if truth is not None and truth.suffix not in (".csv", ".parquet"):
        parser.error(f"--truth {truth}: the name must end in .csv or .parquet.")
    if truth is not None and SEEDS in truth.resolve().parents:
        parser.error(f"--truth {truth}: write it outside {SEEDS}, no model may see it.")
    return arguments


def positive(value: str) -> int:
    """A whole number from 1."""
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a whole number from 1")
    return number


def main() -> None:
    """Write the files that the command line asks for, and say what they hold."""
    arguments = read_arguments()
    written = generate(
        arguments.students,
        arguments.seed,
        arguments.format,
        arguments.out,
        arguments.dirt,
        arguments.truth,
        arguments.detail,
        arguments.diligence,
    )
    for name, rows in written.items():
        print(f"{rows:>12,} {name}")


if __name__ == "__main__":
    main()
