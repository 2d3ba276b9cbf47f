"""Flags, contacts and a warehouse made by hand."""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

from intervene.handover import Contact, Flag

FLAG_DDL = """
create table flagged_students (
    student_id varchar, course_id varchar, course_run_id varchar,
    course_title varchar, assessment_id varchar, assessment_title varchar,
    assessment_kind varchar, as_of_date date, due_at timestamp,
    lead_days integer, risk_score double, risk_band varchar, confidence double,
    engagement_zone varchar, flag_policy varchar, flag_rank integer,
    reason_1 varchar, reason_2 varchar, reason_3 varchar,
    student_reason_1 varchar, student_reason_2 varchar, student_reason_3 varchar,
    weak_topics varchar, run_id varchar
)"""
CONTACT_DDL = """
create table personal.student_contacts (
    student_id varchar, first_name varchar, email varchar, phone varchar,
    locale varchar, timezone varchar, preferred_channel varchar,
    opted_out_at timestamp
)"""
PIPELINE_SETTINGS = """
create table pipeline_settings as
select
    'sample' as source_system, '' as data_raw_path,
    'course_repurchased' as target_definition, 14 as observation_window_days,
    '28,21,14,7' as prediction_leads, false as include_attributes,
    date '2026-03-04' as as_of_date, date '2026-03-03' as data_until"""
SETTINGS = {
    "SOURCE_SYSTEM": "sample",
    "DATA_RAW_PATH": "",
    "TARGET_DEFINITION": "course_repurchased",
    "OBSERVATION_WINDOW_DAYS": "14",
    "PREDICTION_LEADS": "28,21,14,7",
    "INCLUDE_ATTRIBUTES": "false",
    "AS_OF_DATE": "",
    "CAMPAIGNS": "",
}


def make_flag(**changes: Any) -> Flag:
    """Somebody with an exam in ten days; `changes` replace fields."""
    values: dict[str, Any] = {
        "student_id": "s1",
        "course_id": "c1",
        "course_run_id": "r1",
        "course_title": "Linear algebra",
        "assessment_id": "a1",
        "assessment_title": "Final exam",
        "assessment_kind": "exam",
        "as_of_date": date(2026, 3, 4),
        "due_at": datetime(2026, 3, 14, 12),
        "engagement_zone": "warning",
        "reasons": ("You have not opened a lesson for 12 days.",),
        "topics": (),
    }
    return Flag(**(values | changes))


def make_contact(**changes: Any) -> Contact:
    """Somebody with a name, an email and a phone; `changes` replace fields."""
    values: dict[str, Any] = {
        "student_id": "s1",
        "first_name": "Testname",
        "email": "s1@example.org",
        "phone": "+1 555 010 0001",
    }
    return Contact(**(values | changes))


@dataclass
class Warehouse:
    """A DuckDB file with the tables that `intervene` reads."""

    path: Path

    def run(self, sql: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement and close the file again."""
        with duckdb.connect(str(self.path)) as connection:
            return connection.execute(sql, values or []).fetchall()

    def flag(self, student_id: str, **changes: Any) -> None:
        """Add a row of flagged_students."""
        row = {
            "student_id": student_id,
            "course_id": "c1",
            "course_run_id": "r1",
            "course_title": "Linear algebra",
            "assessment_id": "a1",
            "assessment_title": "Final exam",
            "assessment_kind": "exam",
            "as_of_date": date(2026, 3, 4),
            "due_at": datetime(2026, 3, 14, 12),
            "engagement_zone": "warning",
            "flag_rank": 1,
            "student_reason_1": "You have not opened a lesson for 12 days.",
        } | changes
        self._insert("flagged_students", row)

    def contact(self, student_id: str, **values: Any) -> None:
        """Add a row of personal.student_contacts."""
        self._insert("personal.student_contacts", {"student_id": student_id} | values)

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        marks = ", ".join("?" for _ in row)
        names = ", ".join(row)
        self.run(f"insert into {table} ({names}) values ({marks})", list(row.values()))
