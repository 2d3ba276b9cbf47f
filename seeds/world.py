"""What the parts of the generator share: the calendar, the courses, columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DAY = 86_400
HOUR = 3_600
NO_TIME = np.iinfo(np.int64).min  # becomes null
NEVER = 1_000_000  # a day beyond all others
NOBODY = -1  # as an id: becomes null

DAYS = 112  # days before an exam in which students study for it
LESSONS = 8  # per course; progress is written in quarters of a lesson
QUESTIONS = 4  # per lesson


def epoch_day(text: str) -> int:
    """Days from 1970-01-01 to a day written YYYY-MM-DD."""
    return int(np.datetime64(text, "D").astype(np.int64))


FIRST_DAY = epoch_day("2021-01-04")
END_DAY = epoch_day("2026-01-01")  # nothing at or after it has happened yet

# ---------- the courses

TITLES = ["Mathematics", "Physics", "Accounting", "Public law", "Computing basics"]
CATEGORIES = ["science", "science", "business", "law", "computing"]
TOPICS = [
    ["numbers", "algebra", "functions", "geometry"],
    ["motion", "energy", "waves", "electricity"],
    ["ledgers", "statements", "costing", "tax"],
    ["constitution", "administration", "procedure", "rights"],
    ["hardware", "data", "networks", "programming"],
]
EXAM_MONTHS = [(1, 5, 9), (1, 5, 9), (1, 6), (1, 6)]  # of the courses with terms
SELF_PACED = 4  # the last course: its exam is sat when the student chooses
HAS_QUIZ = np.array([True, True, True, False, False])
ASSIGNMENT_BEFORE, QUIZ_BEFORE = 40, 18  # days before the exam


def exam_days(course: int) -> np.ndarray:
    """All exam days of a course with terms, ascending."""
    days = [
        epoch_day(f"{year}-{month:02d}-{13 + 2 * course:02d}")
        for year in range(2021, 2027)
        for month in EXAM_MONTHS[course]
    ]
    # A later term than the one under way has not been announced.
    return np.array([d for d in days if FIRST_DAY + 90 < d < END_DAY + 40])


SITTINGS = [exam_days(course) for course in range(SELF_PACED)]

# ---------- columns


def ids(prefix: str, numbers: np.ndarray) -> pa.Array:
    """Short ids such as s12; NOBODY becomes null."""
    if len(numbers) == 0:
        return pa.array([], pa.string())
    low, high = int(numbers.min()), int(numbers.max())
    if 2 * (high - low + 1) < len(numbers):  # write each id once, look it up
        names = ids(prefix, np.arange(low, high + 1))
        return names.take(pa.array(numbers - low))
    digits = pa.array(numbers).cast(pa.string())
    text = pc.binary_join_element_wise(pa.scalar(prefix), digits, "")
    return pc.if_else(pa.array(numbers >= 0), text, pa.scalar(None, pa.string()))


def times(seconds: np.ndarray) -> pa.Array:
    """Seconds since 1970 as timestamps; NO_TIME becomes null."""
    known = seconds != NO_TIME
    stamps = np.where(known, seconds, 0) * 1_000_000
    return pa.array(stamps, mask=~known).cast(pa.timestamp("us"))


def numbers(values: np.ndarray) -> pa.Array:
    """Numbers as doubles; NaN becomes null."""
    return pa.array(values.astype(np.float64), from_pandas=True)


def words(choices: Sequence[str | None], picks: np.ndarray) -> pa.Array:
    """One of a few words per row, by position."""
    return pa.array(choices, pa.string()).take(pa.array(picks))


def logistic(x: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


# ---------- the tables that do not depend on students


def course_table() -> pa.Table:
    """Rows of courses."""
    return pa.table(
        {
            "course_id": ids("c", np.arange(1, len(TITLES) + 1)),
            "title": pa.array(TITLES),
            "category": pa.array(CATEGORIES),
            "duration_minutes": pa.array([1_800, 1_500, 1_200, 1_500, 900]),
        }
    )


def lesson_table() -> pa.Table:
    """Rows of lessons: two lessons to a topic."""
    course = np.repeat(np.arange(len(TITLES)), LESSONS)
    lesson = np.tile(np.arange(LESSONS), len(TITLES))
    return pa.table(
        {
            "lesson_id": lesson_ids(course, lesson),
            "course_id": ids("c", course + 1),
            "topic": pa.array(
                [TOPICS[c][n // 2] for c, n in zip(course, lesson, strict=True)]
            ),
        }
    )


def lesson_ids(course: np.ndarray, lesson: np.ndarray) -> pa.Array:
    """Lesson ids such as l203: the third lesson of course c2."""
    number = 100 * (course + 1) + lesson + 1
    return ids("l", np.where(lesson < 0, NOBODY, number))


def assessment_table() -> pa.Table:
    """Rows of assessments: exams re-issued each term, assignments and quizzes."""
    rows = [assessment("x", "exam", SELF_PACED, SELF_PACED + 1, NO_TIME)]
    for course, days in enumerate(SITTINGS):
        for term, day in enumerate(days, start=1):
            number = 100 * (course + 1) + term
            at = (day - ASSIGNMENT_BEFORE) * DAY + 20 * HOUR
            rows.append(assessment("a", "assignment", course, number, at))
            if HAS_QUIZ[course]:
                at = (day - QUIZ_BEFORE) * DAY + 20 * HOUR
                rows.append(assessment("z", "quiz", course, number, at))
            at = day * DAY + 16 * HOUR
            rows.append(assessment("x", "exam", course, course + 1, at))
    due = times(np.array([row.pop("due") for row in rows]))
    return pa.Table.from_pylist(rows).append_column("due_at", due)


def assessment(
    prefix: str, kind: str, course: int, number: int, due: int
) -> dict[str, object]:
    """One row of assessments; `due` in seconds."""
    return {
        "assessment_id": f"{prefix}{number}",
        "course_id": f"c{course + 1}",
        "title": f"{TITLES[course]} {kind}",
        "kind": kind,
        "due": due,
        "weight": {"exam": 70.0, "assignment": 20.0, "quiz": 10.0}[kind],
        "pass_mark": 50.0,
    }
