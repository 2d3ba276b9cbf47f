"""What decides who fails and who buys again, and how probable that was.

The outcome of an enrollment hangs on its *record*: facts that the tables hold
at the start of the day LEAD days before the exam. One thing is settled later:
whether the student pushes in the last two weeks (it shows in the activity, so
a later question is easier to answer). The hidden traits, ability and effort,
reach the outcome only through what they leave on record. The probability given
the record is therefore known in closed form: no model that stands at that day
can do better, and none needs to know a trait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from world import DAYS, logistic

LEAD = 14  # days before the exam at which the record is taken
HORIZON = 90  # days after the exam in which buying again counts
REBUY_OF_POSTPONERS = 0.20
REBUY_AFTER_PASSING = 0.004
WITHDRAWS = 0.04  # share that withdraws in the course of DAYS, on any day alike
WITHDRAWS_LATE = WITHDRAWS / DAYS * LEAD / (1 - WITHDRAWS / DAYS * (DAYS - LEAD))


@dataclass
class Record:
    """What the tables hold of an enrollment LEAD days before its exam.

    Study days in the last two weeks and so far, correct and all first answers
    so far, assignments and quizzes due and not handed in, mean known score
    (NaN: none), exams failed and passed earlier, in any course.
    """

    recent_days: np.ndarray
    days: np.ndarray
    correct: np.ndarray
    answers: np.ndarray
    missed: np.ndarray
    score: np.ndarray
    failed_before: np.ndarray
    passed_before: np.ndarray


@dataclass
class Truth:
    """Probabilities given the record.

    `push`: of pushing in the last two weeks; `fail_given`: of failing without
    and with the push (two rows); `again`: of buying again after failing.
    `fail` and `rebuy` are what a model at LEAD days could know at best: over
    the push, and over a withdrawal in the time left (which ends in not passing
    and not buying again). For one who postpones, which no record shows, they
    are what holds for all of these.
    """

    push: np.ndarray
    fail_given: np.ndarray
    again: np.ndarray
    fail: np.ndarray
    rebuy: np.ndarray


def step(x: np.ndarray, at: float, width: float) -> np.ndarray:
    """Rises from 0 to 1 around `at`."""
    return logistic((x - at) / width)


def judge(record: Record, postpones: np.ndarray, stays: np.ndarray) -> Truth:
    """The probabilities of failing and of buying again, given the record.

    Weak answers matter to those in the middle, who did study, but not enough:
    most likely to fail, and invested enough to try again. Having studied little
    in the last two weeks makes it worse. Who studied hardly at all fails, but
    gives up; who studied much passes. Two things are still open: the push, and
    chance.

    `postpones`: never studies at all. `stays`: probability of not withdrawing
    before the exam; 0 for who has withdrawn already.
    """
    weak = step(-(record.correct + 1.2) / (record.answers + 2), -0.56, 0.03)
    little = step(-record.days, -2.5, 0.4)
    much = step(record.days, 9.5, 0.7)
    middling = 1 - little - much
    fading = step(-record.recent_days, -1.5, 0.4)
    low_score = np.where(np.isnan(record.score), 0.3, step(-record.score, -50, 5))
    failed = np.minimum(record.failed_before, 1)
    passed = np.minimum(record.passed_before, 2)

    push = logistic(0.5 - 1.0 * fading + 0.3 * middling)
    push = np.where(record.days == 0, 1.0, push)  # who studies at all, now must
    risk = (
        -4.0
        + 2.4 * little
        + middling * (3.9 * weak + 0.9 * fading + 0.9 * weak * fading)
        + 0.8 * much * weak
        + 0.7 * low_score
        + 0.4 * record.missed
        + 1.2 * failed * weak
        - 0.7 * passed
    )
    fail_given = logistic(risk + np.array([[1.5], [-1.0]]))
    again = logistic(-3.4 + 4.2 * (1 - little) + 1.0 * weak + 0.8 * failed)
    fail_given = np.where(postpones, 1.0, fail_given)
    again = np.where(postpones, REBUY_OF_POSTPONERS, again)

    fail = (1 - push) * fail_given[0] + push * fail_given[1]
    rebuy = fail * again + (1 - fail) * REBUY_AFTER_PASSING
    return Truth(push, fail_given, again, fail * stays + 1 - stays, rebuy * stays)
