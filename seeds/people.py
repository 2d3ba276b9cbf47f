"""Who the students are, and which courses they plan to buy when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from world import DAY, END_DAY, FIRST_DAY, NO_TIME, SITTINGS, ids, times, words

COURSES_MAX = 3  # different courses that one student buys at most
ALL_COURSES_DAYS = 180  # validity of a subscription to all courses

# Generic first names, reserved domains, a telephone range kept for fiction.
FIRST_NAMES = ["Alex", "Sam", "Kim", "Robin", "Chris", "Charlie", "Jo", "Max"]
DOMAINS = ["example.com", "example.org"]
FIRST_PHONE, PHONES = 447_700_900_000, 1_000


@dataclass
class Students:
    """Traits and plans of a chunk of students, one entry each.

    `number` is the global number behind the id; `exam_day[:, k]` is the exam
    day of the k-th course bought, or 0 where fewer were bought.
    """

    number: np.ndarray
    ability: np.ndarray
    effort: np.ndarray
    age_band: np.ndarray
    all_courses: np.ndarray
    course: np.ndarray
    start_day: np.ndarray
    exam_day: np.ndarray


def draw_students(rng: np.random.Generator, first: int, size: int) -> Students:
    """Draw the students numbered from `first`, and the purchases they plan."""
    age_band = rng.choice(4, size, p=[0.35, 0.3, 0.22, 0.13])
    course = np.argsort(rng.random((size, 5)) / [1.3, 1, 0.9, 0.8, 0.7], axis=1)
    students = Students(
        number=np.arange(first, first + size),
        ability=rng.normal(0, 1, size),
        effort=rng.normal(0, 0.6, size) - 0.1 * age_band,
        age_band=age_band,
        all_courses=rng.random(size) < 0.05,
        course=course[:, :COURSES_MAX],
        start_day=np.zeros((size, COURSES_MAX), np.int64),
        exam_day=np.zeros((size, COURSES_MAX), np.int64),
    )
    wanted = rng.choice([1, 2, 3], size, p=[0.5, 0.3, 0.2])
    # More students every year.
    earliest = FIRST_DAY + 30 + 1_800 * rng.random(size) ** 0.75
    for k in range(COURSES_MAX):
        start, exam = plan_purchase(rng, students.course[:, k], earliest)
        bought = (k < wanted) & (start < END_DAY)
        students.start_day[:, k] = np.where(bought, start, 0)
        students.exam_day[:, k] = np.where(bought, exam, 0)
        # Two courses at once, or the next one some terms later.
        pause = np.where(rng.random(size) < 0.3, 0, rng.exponential(150, size) + 30)
        earliest = np.maximum(exam + pause - 10, earliest)
        wanted = np.where(bought, wanted, 0)
    fit_all_courses(students)
    return students


def fit_all_courses(students: Students) -> None:
    """Keep what lies within the one subscription to all courses."""
    begins = students.start_day[:, :1]
    outside = students.exam_day > begins + ALL_COURSES_DAYS
    students.exam_day[students.all_courses[:, None] & outside] = 0
    later = np.maximum(students.start_day, begins)
    students.start_day = np.where(
        students.all_courses[:, None], later, students.start_day
    )


def plan_purchase(
    rng: np.random.Generator, course: np.ndarray, earliest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Start and exam day of a purchase whose exam is not before `earliest`."""
    ahead = rng.integers(30, 106, len(course))
    exam = np.maximum(earliest, FIRST_DAY + 110).astype(np.int64)
    exam = next_sitting(course, exam)
    return exam - ahead, exam


def next_sitting(course: np.ndarray, day: np.ndarray) -> np.ndarray:
    """First exam at or after a day; the day itself in the self-paced course."""
    exam = day.copy()
    for c, days in enumerate(SITTINGS):
        of_course = course == c
        at = np.searchsorted(days, day[of_course])
        days = np.append(days, END_DAY + 400)  # not announced: never bought
        exam[of_course] = days[at]
    return exam


def student_table(rng: np.random.Generator, students: Students) -> pa.Table:
    """Rows of students: when they registered, and their attributes."""
    size = len(students.number)
    first = np.where(students.exam_day > 0, students.start_day, END_DAY).min(axis=1)
    day = first - rng.integers(1, 30, size)
    gender = chosen(rng, size, 0.48, 0.47, 0.03)
    region = chosen(rng, size, 0.2, 0.4, 0.25)
    return pa.table(
        {
            "student_id": ids("s", students.number),
            "registered_at": times(day * DAY + rng.integers(0, DAY, size)),
            "age_band": words(["16-20", "21-30", "31-45", "46+"], students.age_band),
            "gender": words(["f", "m", "x", None], gender),
            "region": words(["north", "south", "east", "west"], region),
        }
    )


def contact_table(rng: np.random.Generator, students: Students) -> pa.Table:
    """Rows of student_contacts, for all but a few students."""
    number = students.number[rng.random(len(students.number)) < 0.97]
    size = len(number)
    domain = words(DOMAINS, chosen(rng, size, 0.6))
    phone = ids("+", FIRST_PHONE + number % PHONES)
    no_phone = pa.array(rng.random(size) < 0.15)
    home = chosen(rng, size, 0.5, 0.3)
    zones = ["Europe/London", "Europe/Oslo", "Europe/Madrid"]
    channel = chosen(rng, size, 0.7, 0.15)
    opted_out = END_DAY * DAY - rng.integers(DAY, 400 * DAY, size)
    opted_out = np.where(rng.random(size) < 0.04, opted_out, NO_TIME)
    return pa.table(
        {
            "student_id": ids("s", number),
            "first_name": words(FIRST_NAMES, rng.integers(0, len(FIRST_NAMES), size)),
            "email": pc.binary_join_element_wise(ids("s", number), domain, "@"),
            "phone": pc.if_else(no_phone, pa.scalar(None, pa.string()), phone),
            "locale": words(["en", "nb", "es"], home),
            "timezone": words(zones, home),
            "preferred_channel": words(["email", "sms", "in_app"], channel),
            "opted_out_at": times(opted_out),
        }
    )


def chosen(rng: np.random.Generator, size: int, *shares: float) -> np.ndarray:
    """Positions drawn with these shares; the last position has the rest."""
    return np.searchsorted(np.cumsum(shares), rng.random(size))
