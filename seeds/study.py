"""How students study, and the rows that this leaves in the activity tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from world import (
    DAY,
    DAYS,
    HOUR,
    LESSONS,
    NO_TIME,
    NOBODY,
    QUESTIONS,
    ids,
    lesson_ids,
    logistic,
    numbers,
    times,
    words,
)


@dataclass
class Enrollments:
    """The enrollments of one round: at most one per student.

    Days are days since 1970, times (`start`, `valid_to`: of the original
    purchase) seconds. Who never withdraws does so on day NEVER. `who` is the
    position in the chunk's students, `shared` an enrollment by a subscription
    to all courses.
    """

    who: np.ndarray
    student: np.ndarray
    course: np.ndarray
    attempt: int
    start: np.ndarray
    exam_day: np.ndarray
    valid_to: np.ndarray
    monthly: np.ndarray
    shared: np.ndarray
    withdrawn_day: np.ndarray
    postpones: np.ndarray
    subscription: np.ndarray

    @property
    def exam_at(self) -> np.ndarray:
        """When the exam is due, in seconds."""
        return self.exam_day * DAY + 16 * HOUR


@dataclass
class Study:
    """What one stretch of study leaves behind: rows by table, and counters."""

    rows: dict[str, pa.Table]
    days: np.ndarray
    correct: np.ndarray
    answers: np.ndarray


def within(counts: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each of consecutive groups of these sizes."""
    starts = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(starts, counts)


class Studying:
    """Turns study days into rows; remembers how far each student has come."""

    def __init__(
        self,
        rng: np.random.Generator,
        enrolled: Enrollments,
        ability: np.ndarray,
        quarters: np.ndarray,
        asked: np.ndarray,
        detail: float,
    ) -> None:
        self.rng = rng
        self.enrolled = enrolled
        self.quarters = quarters  # of lessons done, of this course, by student
        self.asked = asked  # questions met, of this course, by student
        self.detail = detail
        # Some topics suit a student, others do not.
        by_lesson = rng.normal(0, 0.35, (len(ability), LESSONS))
        self.knows = 0.75 + 1.05 * ability[:, None] + by_lesson

    def stretch(self, studies: np.ndarray, first_column: int) -> Study:
        """Rows of the study days marked in a slice of the matrix."""
        e, column = np.nonzero(studies)
        day = self.enrolled.exam_day[e] - DAYS + first_column + column
        at = day * DAY + self.rng.integers(6 * HOUR, 21 * HOUR, len(e))
        days = studies.sum(axis=1)
        lesson, progress = self.read(e, at, days)
        answered, correct, answers = self.answer(e, at)
        rows = {
            "lesson_progresses": progress,
            "quiz_question_answers": answered,
            "signed_in_events": self.sign_in(e, at),
            "activity_events": self.click(e, at, lesson),
        }
        return Study(rows, days, correct, answers)

    def read(
        self, e: np.ndarray, at: np.ndarray, days: np.ndarray
    ) -> tuple[np.ndarray, pa.Table]:
        """Progress: up to three quarters of a lesson a day, in order."""
        student = self.enrolled.who[e]
        total = np.cumsum(self.rng.integers(0, 4, len(e)))
        earlier = np.concatenate([[0], total])[np.cumsum(days) - days]
        after = np.minimum(self.quarters[student] + total - earlier[e], 4 * LESSONS)
        before = np.roll(after, 1)
        opens = within(days) == 0
        before[opens] = self.quarters[student[opens]]
        last = np.cumsum(days)[days > 0] - 1
        self.quarters[self.enrolled.who[days > 0]] = after[last]

        moved = after > before
        lesson = np.maximum(after - 1, 0) // 4
        finishes = moved & (before % 4 != 0) & (before // 4 < lesson)
        # Yesterday's lesson is finished before the next is begun.
        who = np.concatenate([e[finishes], e[moved]])
        in_lesson = np.concatenate([before[finishes] // 4, lesson[moved]])
        done = np.concatenate(
            [np.full(finishes.sum(), 4), after[moved] - 4 * lesson[moved]]
        )
        when = np.concatenate([at[finishes] + 300, at[moved] + 900])
        written = times(when)
        table = pa.table(
            {
                "student_id": ids("s", self.enrolled.student[who]),
                "lesson_id": lesson_ids(self.enrolled.course[who], in_lesson),
                "progress": numbers(done * 25),
                "created_at": written,
                "updated_at": written,
            }
        )
        return lesson, table

    def answer(
        self, e: np.ndarray, at: np.ndarray
    ) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        """One or two new questions a day; some wrong ones are tried again."""
        size = len(self.enrolled.who)
        count = 1 + (self.rng.random(len(e)) < 0.15)
        nth = within(count)
        who, when = np.repeat(e, count), np.repeat(at, count) + 1_200 + 120 * nth
        per_enrollment = np.bincount(who, minlength=size)
        asked = self.asked[self.enrolled.who[who]] + within(per_enrollment)
        self.asked[self.enrolled.who] += per_enrollment
        question = asked % (LESSONS * QUESTIONS)
        lesson = question // QUESTIONS
        chance = logistic(self.knows[who, lesson])
        correct = self.rng.random(len(who)) < chance
        tries = ~correct & (self.rng.random(len(who)) < 0.25)
        corrects = self.rng.random(tries.sum()) < chance[tries] + 0.1

        def both(first: np.ndarray, again: np.ndarray) -> np.ndarray:
            return np.concatenate([first, again])

        # Who has met every question starts over: not a first attempt any more.
        attempt = 2 * (asked // (LESSONS * QUESTIONS))
        everyone = both(who, who[tries])
        course = self.enrolled.course[everyone]
        number = course * 100 + both(question, question[tries])
        table = pa.table(
            {
                "student_id": ids("s", self.enrolled.student[everyone]),
                "course_id": ids("c", course + 1),
                "lesson_id": lesson_ids(course, both(lesson, lesson[tries])),
                "quiz_question_id": ids("q", 100 + number),
                "attempt": pa.array(both(attempt, attempt[tries] + 1)),
                "verdict": words(
                    ["incorrect", "correct"], both(correct, corrects).astype(int)
                ),
                "created_at": times(both(when, when[tries] + 60)),
            }
        )
        first = attempt == 0
        rights = np.bincount(who[first], correct[first], minlength=size)
        return table, rights, np.bincount(who[first], minlength=size)

    def sign_in(self, e: np.ndarray, at: np.ndarray) -> pa.Table:
        """A sign-in before some study days; the others were still signed in."""
        signs = self.rng.random(len(e)) < 0.4
        return sign_ins(self.enrolled.student[e[signs]], at[signs] - 60)

    def click(self, e: np.ndarray, at: np.ndarray, lesson: np.ndarray) -> pa.Table:
        """Videos, minutes and page views, `detail` times the usual number."""
        count = self.rng.poisson(0.4 * self.detail, len(e))
        who, lesson = np.repeat(e, count), np.repeat(lesson, count)
        size = len(who)
        when = np.repeat(at, count) + self.rng.integers(0, 2 * HOUR, size)
        kind = np.searchsorted([0.3, 0.65], self.rng.random(size))
        quantity = self.rng.integers(1, np.array([2, 46, 9])[kind], size)
        course = self.enrolled.course[who]
        nowhere = (kind == 2) & (self.rng.random(size) < 0.2)
        late = self.rng.random(size) < 0.04  # a phone that was offline
        loaded = when + self.rng.integers(DAY, 3 * DAY, size)
        return pa.table(
            {
                "event_id": pa.nulls(size, pa.string()),  # numbered when written
                "student_id": ids("s", self.enrolled.student[who]),
                "course_id": ids("c", np.where(nowhere, NOBODY, course + 1)),
                "event_type": words(["video", "minutes", "page_view"], kind),
                "item_id": lesson_ids(course, np.where(kind < 2, lesson, NOBODY)),
                "quantity": numbers(quantity),
                "occurred_at": times(when),
                "loaded_at": times(np.where(late, loaded, NO_TIME)),
            }
        )


def sign_ins(student: np.ndarray, at: np.ndarray) -> pa.Table:
    """Rows of signed_in_events."""
    return pa.table({"student_id": ids("s", student), "created_at": times(at)})


def study_days(
    rng: np.random.Generator,
    enrolled: Enrollments,
    effort: np.ndarray,
    diligence: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Chance of studying and the draw it is held against, by day (matrices).

    Effort is persistent, differs by enrollment and by week, and grows towards
    the exam, for procrastinators more; `diligence` multiplies everybody's
    chance. Nobody studies on the day of the purchase, nor from the withdrawal on.
    """
    size = len(enrolled.who)
    effort = (effort + rng.normal(0, 0.45, size)).astype(np.float32)
    putting_off = rng.exponential(0.8, size).astype(np.float32)
    weeks = rng.normal(0, 0.55, (size, DAYS // 7)).astype(np.float32)
    nearness = (np.arange(DAYS, dtype=np.float32) / DAYS) - 0.7
    rate = np.exp(np.repeat(weeks, 7, axis=1) + putting_off[:, None] * nearness)
    rate *= 0.080 * diligence * np.exp(effort)[:, None]
    day = enrolled.exam_day[:, None] - DAYS + np.arange(DAYS)
    open_days = (day > enrolled.start[:, None] // DAY) & (
        day < enrolled.withdrawn_day[:, None]
    )
    rate *= open_days & ~enrolled.postpones[:, None]
    return np.minimum(rate, 0.8), rng.random((size, DAYS), dtype=np.float32)
