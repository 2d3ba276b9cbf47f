"""The world behind the sample: who buys, studies, hands in, fails, buys again.

Students are simulated in chunks, all students of a chunk at once. Each buys up
to COURSES_MAX courses; for each of them a round of enrollments runs to its
exam, and those who buy the course again make up the next round. One enrollment
is seen from its exam: its study days are columns of a matrix that ends the day
before.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from people import ALL_COURSES_DAYS, COURSES_MAX, Students, next_sitting
from study import Enrollments, Study, Studying, sign_ins, study_days
from truth import (
    HORIZON,
    LEAD,
    REBUY_AFTER_PASSING,
    WITHDRAWS,
    WITHDRAWS_LATE,
    Record,
    Truth,
    judge,
)
from world import (
    ASSIGNMENT_BEFORE,
    DAY,
    DAYS,
    END_DAY,
    HAS_QUIZ,
    HOUR,
    NEVER,
    NO_TIME,
    NOBODY,
    QUIZ_BEFORE,
    SELF_PACED,
    SITTINGS,
    ids,
    logistic,
    numbers,
    times,
    words,
)

ATTEMPTS_MAX = 3  # purchases of one course at most
POSTPONERS = 0.05  # share of enrollments in which nothing is ever studied
COLUMN = DAYS - LEAD  # first column of the study matrix after the record
TIERS = ["basic", "plus", "premium", "monthly", "all"]
CENTS = np.array([4_900, 9_900, 19_900, 2_900, 24_900])


class History:
    """Exam results of a chunk's students, and when each became known."""

    def __init__(self, size: int) -> None:
        rounds = COURSES_MAX * ATTEMPTS_MAX
        self.known_at = np.full((size, rounds), np.iinfo(np.int64).max)
        self.failed = np.zeros((size, rounds), bool)
        self.round = 0

    def add(self, who: np.ndarray, known_at: np.ndarray, failed: np.ndarray) -> None:
        """Add one round; a result that nobody learns has NO_TIME."""
        learnt = known_at != NO_TIME
        self.known_at[who[learnt], self.round] = known_at[learnt]
        self.failed[who, self.round] = failed
        self.round += 1

    def before(self, who: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exams failed and passed, as known before a time."""
        known = self.known_at[who] < at[:, None]
        failed = self.failed[who]
        return (known & failed).sum(axis=1), (known & ~failed).sum(axis=1)


@dataclass
class Tasks:
    """Assignments and quizzes of one kind: how many missed, the known score."""

    missed: np.ndarray
    score: np.ndarray


class Chunk:
    """One chunk of students: simulates them and collects the rows."""

    def __init__(
        self,
        rng: np.random.Generator,
        students: Students,
        detail: float,
        diligence: float,
        next_id: int,
    ) -> None:
        size = len(students.number)
        self.rng = rng
        self.students = students
        self.detail = detail
        self.diligence = diligence
        self.next_id = next_id  # of the next subscription
        self.history = History(size)
        self.shared_id = np.full(size, NOBODY)
        self.shared_until = np.zeros(size, np.int64)
        self.rows: dict[str, list[pa.Table]] = defaultdict(list)

    def run(self) -> None:
        """Simulate every course of every student, with all its attempts."""
        for k in range(COURSES_MAX):
            size = len(self.students.number)
            quarters, asked = np.zeros(size, np.int64), np.zeros(size, np.int64)
            enrolled = self.first_attempts(k)
            while len(enrolled.who) and enrolled.attempt <= ATTEMPTS_MAX:
                enrolled = self.attempt(enrolled, quarters, asked)

    # ---------- buying

    def first_attempts(self, k: int) -> Enrollments:
        """Purchases of the students' k-th course."""
        who = np.flatnonzero(self.students.exam_day[:, k])
        start = self.students.start_day[who, k] * DAY
        start += self.rng.integers(7 * HOUR, 22 * HOUR, len(who))
        enrolled = self.enroll(
            who,
            self.students.course[who, k],
            1,
            start,
            self.students.exam_day[who, k],
            self.students.all_courses[who],
        )
        shared = enrolled.shared
        if k == 0:
            self.share(enrolled)
        else:
            enrolled.subscription[shared] = self.shared_id[who[shared]]
            enrolled.valid_to[shared] = self.shared_until[who[shared]]
        self.sell(enrolled, ~shared)
        return enrolled

    def enroll(
        self,
        who: np.ndarray,
        course: np.ndarray,
        attempt: int,
        start: np.ndarray,
        exam_day: np.ndarray,
        shared: np.ndarray,
    ) -> Enrollments:
        """Draw what is settled at the purchase, and number the subscriptions."""
        size = len(who)
        monthly = ~shared & (self.rng.random(size) < 0.12)
        until = (exam_day + self.rng.integers(1, 5, size)) * DAY
        until = np.where(monthly, np.minimum(start + 30 * DAY, until), until)
        column = np.floor(self.rng.random(size) * DAYS / WITHDRAWS).astype(np.int64)
        day = exam_day - DAYS + column
        withdraws = (column < DAYS) & (day > start // DAY) & ~shared
        first = self.next_id
        self.next_id += size
        return Enrollments(
            who=who,
            student=self.students.number[who],
            course=course,
            attempt=attempt,
            start=start,
            exam_day=exam_day,
            valid_to=until,
            monthly=monthly,
            shared=shared,
            withdrawn_day=np.where(withdraws, day, NEVER),
            postpones=self.rng.random(size) < POSTPONERS,
            subscription=np.arange(first, first + size),
        )

    def share(self, enrolled: Enrollments) -> None:
        """Sell the subscriptions to all courses; some are two that touch."""
        of = np.flatnonzero(enrolled.shared)
        who, start = enrolled.who[of], enrolled.start[of]
        halves = self.rng.random(len(of)) < 0.3
        days = np.where(halves, ALL_COURSES_DAYS // 2, ALL_COURSES_DAYS)
        until = start + days * DAY
        enrolled.valid_to[of] = self.shared_until[who] = until
        self.shared_id[who] = enrolled.subscription[of]
        course = np.full(len(of), NOBODY)
        tier = np.full(len(of), 4)
        number, student = enrolled.subscription[of], enrolled.student[of]
        self.subscribe(number, student, course, tier, start, start, until)
        renewed = np.arange(self.next_id, self.next_id + halves.sum())
        self.next_id += len(renewed)
        self.subscribe(
            renewed,
            student[halves],
            course[halves],
            tier[halves],
            until[halves] - 5 * HOUR,
            until[halves],
            until[halves] + ALL_COURSES_DAYS // 2 * DAY,
        )

    def sell(self, enrolled: Enrollments, sold: np.ndarray) -> None:
        """Subscriptions to one course; monthly ones are renewed up to the exam."""
        e = enrolled
        tier = np.searchsorted([0.5, 0.85], self.rng.random(len(e.who)))
        tier[e.monthly] = 3
        withdrawn = e.withdrawn_day * DAY + 10 * HOUR
        withdrawn = np.where(e.withdrawn_day < NEVER, withdrawn, NO_TIME)
        self.subscribe(
            e.subscription[sold],
            e.student[sold],
            e.course[sold],
            tier[sold],
            e.start[sold],
            e.start[sold],
            e.valid_to[sold],
            withdrawn[sold],
        )
        overlap = np.where(self.rng.random(len(e.who)) < 0.5, 0, 2 * DAY)
        last = (e.exam_day + 3) * DAY
        for month in range(1, 5):
            due = e.start + 30 * month * DAY
            renews = e.monthly & (due < e.exam_day * DAY)
            renews &= due < e.withdrawn_day * DAY
            begins = (due - overlap)[renews]
            number = np.arange(self.next_id, self.next_id + renews.sum())
            self.next_id += len(number)
            self.subscribe(
                number,
                e.student[renews],
                e.course[renews],
                tier[renews],
                begins - 600,
                begins,
                np.minimum(due + 30 * DAY, last)[renews],
                withdrawn[renews],
            )

    def subscribe(
        self,
        number: np.ndarray,
        student: np.ndarray,
        course: np.ndarray,
        tier: np.ndarray,
        created: np.ndarray,
        begins: np.ndarray,
        until: np.ndarray,
        withdrawn: np.ndarray | None = None,
    ) -> None:
        """Add rows of subscriptions."""
        if withdrawn is None:
            withdrawn = np.full(len(number), NO_TIME)
        withdrawn = np.where(withdrawn < END_DAY * DAY, withdrawn, NO_TIME)
        columns = {
            "subscription_id": ids("p", number),
            "student_id": ids("s", student),
            "course_id": ids("c", np.where(course == NOBODY, NOBODY, course + 1)),
            "tier": words(TIERS, tier),
            "amount_cents": pa.array(CENTS[tier]),
            "created_at": times(created),
            "valid_from": times(begins),
            "valid_to": times(until),
            "withdrawn_at": times(withdrawn),
        }
        self.rows["subscriptions"].append(pa.table(columns))

    # ---------- one attempt, from the purchase to the next one

    def attempt(
        self, enrolled: Enrollments, quarters: np.ndarray, asked: np.ndarray
    ) -> Enrollments:
        """Run enrollments to their exams; return those who buy again.

        `quarters` and `asked` say how far each student of the chunk has come
        in this course; they are brought up to date.
        """
        e, students = enrolled, self.students
        effort = students.effort[e.who] + (0.2 if e.attempt > 1 else 0.0)
        rate, draw = study_days(self.rng, e, effort, self.diligence)
        studying = Studying(
            self.rng, e, students.ability[e.who], quarters, asked, self.detail
        )
        early = draw[:, :COLUMN] < rate[:, :COLUMN]
        so_far = studying.stretch(early, 0)
        # Who has bought all courses does not withdraw.
        stays = np.where(e.shared, 1.0, 1 - WITHDRAWS_LATE)
        stays[e.withdrawn_day < e.exam_day - LEAD] = 0.0
        truth = judge(self.record(e, early, effort, so_far), e.postpones, stays)

        pushes = self.rng.random(len(e.who)) < truth.push
        rate[:, COLUMN:] *= np.where(pushes, 2.2, 0.2)[:, None]
        late = draw[:, COLUMN:] < rate[:, COLUMN:]
        self.wake(e, so_far.days, late)
        self.keep(so_far.rows, studying.stretch(late, COLUMN).rows)
        self.look_in(e)
        return self.outcome(e, truth, pushes, so_far.days)

    def keep(self, *stretches: dict[str, pa.Table]) -> None:
        """Collect rows by table."""
        for rows in stretches:
            for name, table in rows.items():
                self.rows[name].append(table)

    def record(
        self, e: Enrollments, early: np.ndarray, effort: np.ndarray, so_far: Study
    ) -> Record:
        """Hand in assignments and quizzes, and take stock LEAD days ahead."""
        ability = self.students.ability[e.who]
        begun = e.start.copy()
        # A subscription to all courses becomes an enrollment at the first touch.
        touched = np.where(so_far.days > 0, early.argmax(axis=1), DAYS)
        first_day = (e.exam_day - DAYS + touched) * DAY
        begun[e.shared] = first_day[e.shared]
        done = [
            self.hand_in(kind, e, early, begun, effort, ability) for kind in ("a", "z")
        ]
        scores = np.array([tasks.score for tasks in done])
        known = (~np.isnan(scores)).sum(axis=0)
        total = np.nansum(scores, axis=0)
        failed, passed = self.history.before(e.who, (e.exam_day - LEAD) * DAY)
        return Record(
            recent_days=early[:, -14:].sum(axis=1),
            days=so_far.days,
            correct=so_far.correct,
            answers=so_far.answers,
            missed=done[0].missed.astype(int) + done[1].missed,
            score=np.where(known > 0, total / np.maximum(known, 1), np.nan),
            failed_before=failed,
            passed_before=passed,
        )

    def hand_in(
        self,
        kind: str,
        e: Enrollments,
        early: np.ndarray,
        begun: np.ndarray,
        effort: np.ndarray,
        ability: np.ndarray,
    ) -> Tasks:
        """Results of the term's assignment ("a") or quiz ("z")."""
        size = len(e.who)
        before = ASSIGNMENT_BEFORE if kind == "a" else QUIZ_BEFORE
        due = (e.exam_day - before) * DAY + 20 * HOUR
        meets = (e.course != SELF_PACED) & (begun <= due) & (due <= e.valid_to)
        meets &= due < e.withdrawn_day * DAY
        if kind == "z":
            meets &= HAS_QUIZ[e.course]
        studied = early[:, : DAYS - before].any(axis=1)
        hands_in = meets & studied
        hands_in &= self.rng.random(size) < logistic(1.0 + 0.9 * effort)
        early_by = self.rng.integers(HOUR, 4 * DAY, size)
        late_by = self.rng.integers(HOUR, 2 * DAY, size)
        late = self.rng.random(size) < 0.06
        submitted = np.where(late, due + late_by, np.maximum(due - early_by, begun))
        wait = self.rng.integers(HOUR, 20 * HOUR, size)
        if kind == "a":
            wait += self.rng.integers(2 * DAY, 9 * DAY, size)
        graded = self.rng.random(size) > 0.015
        score = np.round(60 + 13 * ability + self.rng.normal(0, 11, size)).clip(0, 100)
        score = np.where(hands_in & graded, score, np.nan)
        number = (e.course + 1) * 100 + sitting_number(e.course, e.exam_day)
        self.result(kind, e, number, submitted, submitted + wait, score, hands_in)
        if kind == "a":  # some of those who failed hand in once more
            again = hands_in & (score < 50) & (self.rng.random(size) < 0.4)
            better = np.minimum(score + self.rng.integers(0, 25, size), 100)
            when = submitted + wait + self.rng.integers(DAY, 2 * DAY, size)
            self.result(kind, e, number, when, when + 3 * DAY, better, again)
        return Tasks(meets & ~hands_in, score)

    def result(
        self,
        kind: str,
        e: Enrollments,
        number: np.ndarray,
        submitted: np.ndarray,
        graded: np.ndarray,
        score: np.ndarray,
        there: np.ndarray,
    ) -> None:
        """Add rows of assessment_results; a score of NaN is not graded yet."""
        known = ~np.isnan(score) & (graded < END_DAY * DAY)
        # Quizzes never say whether they are passed, others sometimes do not.
        says = known & (self.rng.random(len(score)) < (0.0 if kind == "z" else 0.85))
        columns = {
            "result_id": pa.nulls(len(score), pa.string()),  # numbered when written
            "student_id": ids("s", e.student),
            "assessment_id": ids(kind, number),
            "submitted_at": times(submitted),
            "graded_at": times(np.where(known, graded, NO_TIME)),
            "score": numbers(np.where(known, score, np.nan)),
            "passed": pa.array(score >= 50, mask=~says),
        }
        table = pa.table(columns).filter(pa.array(there))
        self.rows["assessment_results"].append(table)

    def wake(self, e: Enrollments, days: np.ndarray, late: np.ndarray) -> None:
        """Who has not studied yet and does not postpone begins in time."""
        asleep = (days == 0) & ~late.any(axis=1) & ~e.postpones
        asleep &= e.withdrawn_day == NEVER
        column = self.rng.integers(0, LEAD, asleep.sum())
        late[np.flatnonzero(asleep), column] = True

    def look_in(self, e: Enrollments) -> None:
        """Sign-ins without study, also by those who never study."""
        size = len(e.who)
        count = self.rng.poisson(np.where(e.postpones, 1.0, 0.15))
        who = np.repeat(np.arange(size), count)
        length = np.maximum(e.exam_day - e.start // DAY - 1, 1)[who]
        day = e.start[who] // DAY + 1 + self.rng.integers(0, length)
        at = day * DAY + self.rng.integers(6 * HOUR, 22 * HOUR, len(who))
        open_still = day < e.withdrawn_day[who]
        self.rows["signed_in_events"].append(
            sign_ins(e.student[who[open_still]], at[open_still])
        )

    # ---------- the exam and after

    def outcome(
        self, e: Enrollments, truth: Truth, pushes: np.ndarray, days: np.ndarray
    ) -> Enrollments:
        """Sit the exam, write it down, and enroll those who buy again."""
        size = len(e.who)
        withdrawn = e.withdrawn_day < NEVER
        chance = truth.fail_given[pushes.astype(int), np.arange(size)]
        fails = (self.rng.random(size) < chance) | withdrawn
        absent = self.rng.random(size) < np.where(days == 0, 0.5, 0.2)
        sits = ~(fails & absent) & ~e.postpones & ~withdrawn
        scheduled = self.book(e)
        graded = self.sit(e, sits, fails)
        self.history.add(e.who, np.where(sits, graded, NO_TIME), fails)

        chance = np.where(fails, truth.again, REBUY_AFTER_PASSING)
        rebuys = (self.rng.random(size) < chance) & ~withdrawn
        self.tell(e, truth, scheduled, rebuys, fails)
        return self.buy_again(e, rebuys, fails & ~withdrawn)

    def book(self, e: Enrollments) -> np.ndarray:
        """Book exams that have no date of their own; return who has a date."""
        booked = (e.course == SELF_PACED) & (self.rng.random(len(e.who)) < 0.6)
        of = np.flatnonzero(booked)
        size = len(of)
        exam_at, start = e.exam_at[of], e.start[of]
        late = self.rng.random(size) < 0.15
        ahead = self.rng.integers(16 * DAY, 45 * DAY, size)
        ahead = np.where(late, self.rng.integers(3 * DAY, 13 * DAY, size), ahead)
        at = np.maximum(exam_at - ahead, start + 2 * HOUR)
        self.booking(e.student[of], exam_at, at)
        # Some had booked another day before.
        moved = self.rng.random(size) < 0.25
        shift = np.where(late, 7, self.rng.choice([-5, 7, 12], size)) * DAY
        before = np.maximum(at - self.rng.integers(DAY, 6 * DAY, size), start + HOUR)
        self.booking(e.student[of[moved]], (exam_at + shift)[moved], before[moved])
        return (e.course != SELF_PACED) | booked

    def booking(
        self, student: np.ndarray, scheduled: np.ndarray, booked: np.ndarray
    ) -> None:
        """Add rows of assessment_bookings."""
        columns = {
            "student_id": ids("s", student),
            "assessment_id": ids("x", np.full(len(student), SELF_PACED + 1)),
            "scheduled_at": times(scheduled),
            "booked_at": times(booked),
        }
        self.rows["assessment_bookings"].append(pa.table(columns))

    def sit(self, e: Enrollments, sits: np.ndarray, fails: np.ndarray) -> np.ndarray:
        """Write the results of an exam; return when each was graded."""
        size = len(e.who)
        ability = self.students.ability[e.who]
        fine = np.round(68 + 8 * ability + self.rng.normal(0, 8, size)).clip(50, 100)
        poor = np.round(38 + 4 * ability + self.rng.normal(0, 7, size)).clip(0, 49)
        score = np.where(fails, poor, fine)
        score = np.where(self.rng.random(size) < 0.01, np.nan, score)
        submitted = e.exam_at - self.rng.integers(HOUR // 2, 5 * HOUR, size)
        graded = submitted + self.rng.integers(7 * DAY, 18 * DAY, size)
        self.result("x", e, e.course + 1, submitted, graded, score, sits)
        return np.where(np.isnan(score), NO_TIME, graded)

    def tell(
        self,
        e: Enrollments,
        truth: Truth,
        scheduled: np.ndarray,
        rebuys: np.ndarray,
        fails: np.ndarray,
    ) -> None:
        """Add rows of the truth."""
        columns = {
            "student_id": ids("s", e.student),
            "course_id": ids("c", e.course + 1),
            "subscription_id": ids("p", e.subscription),
            "assessment_id": ids("x", e.course + 1),
            "due_at": times(np.where(scheduled, e.exam_at, NO_TIME)),
            "exam_at": times(e.exam_at),
            "attempt_number": pa.array(np.full(len(e.who), e.attempt)),
            "all_courses": pa.array(e.shared),
            "postpones": pa.array(e.postpones),
            "p_repurchase": pa.array(truth.rebuy),
            "p_fail": pa.array(truth.fail),
            "repurchased": pa.array(rebuys.astype(np.int64)),
            "failed": pa.array(fails.astype(np.int64)),
        }
        self.rows["truth"].append(pa.table(columns))

    def buy_again(
        self, e: Enrollments, rebuys: np.ndarray, fails: np.ndarray
    ) -> Enrollments:
        """The next attempts: within HORIZON, and a few returns much later."""
        size = len(e.who)
        delay = 8 * DAY + self.rng.gamma(2, 11 * DAY, size).astype(np.int64)
        delay = np.minimum(delay, (HORIZON - 2) * DAY)
        returns = ~rebuys & fails & (self.rng.random(size) < 0.03)
        much_later = self.rng.integers((HORIZON + 5) * DAY, (HORIZON + 40) * DAY, size)
        start = e.exam_at + np.where(rebuys, delay, much_later)
        back = (rebuys | returns) & (start < END_DAY * DAY)
        start, course = start[back], e.course[back]
        paced = start // DAY + self.rng.integers(35, 101, len(start))
        exam_day = np.where(
            course == SELF_PACED, paced, next_sitting(course, start // DAY + 1)
        )
        nobody = np.zeros(len(start), bool)
        following = self.enroll(
            e.who[back], course, e.attempt + 1, start, exam_day, nobody
        )
        self.sell(following, ~nobody)
        return following


def sitting_number(course: np.ndarray, exam_day: np.ndarray) -> np.ndarray:
    """Number of the term within its course, from 1."""
    number = np.zeros(len(course), np.int64)
    for c, days in enumerate(SITTINGS):
        of_course = course == c
        number[of_course] = np.searchsorted(days, exam_day[of_course]) + 1
    return number


def happened(name: str, table: pa.Table) -> pa.Table:
    """Leave out what comes after the end of the sample."""
    if name not in TIME_OF:
        return table
    at = pc.coalesce(*[table[column] for column in TIME_OF[name]])
    return table.filter(pc.less(at, END))


# When a row came to be known.
TIME_OF = {
    "assessment_bookings": ["booked_at"],
    "subscriptions": ["created_at"],
    "lesson_progresses": ["created_at"],
    "quiz_question_answers": ["created_at"],
    "assessment_results": ["submitted_at"],
    "signed_in_events": ["created_at"],
    "activity_events": ["loaded_at", "occurred_at"],
}
END = times(np.array([END_DAY * DAY]))[0]
