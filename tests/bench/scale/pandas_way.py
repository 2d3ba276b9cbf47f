"""Features in pandas: python -m tests.bench.scale.pandas_way RAW POINTS OUT [--careful]

Reads the raw Parquet, leaves out what cannot be used, and merges the activity with the
prediction points and groups it, for each lead and window anew, as notebooks do. With
--careful ids are categories, and one merge serves both windows. Written from the rules
in docs/bring-your-own-data.md, apart from the SQL, so that the two check each other.
POINTS has one row per prediction point: key, began_date, next_began_date, lead. With
--facts the usable activity of each enrollment is written instead of features.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

KEY = ["student_id", "course_id", "assessment_id", "as_of_date"]
WINDOW_DAYS = 14
EARLIEST = pd.Timestamp("1990-01-01")
MOST = 1e12  # a larger quantity is a mistake
FEATURES = [
    "window_active_days",
    "window_events",
    "window_quantity",
    "window_minutes",
    "window_quiz_answers",
    "window_quiz_correct_rate",
    "to_date_active_days",
    "to_date_events",
    "to_date_quantity",
    "to_date_minutes",
    "to_date_quiz_answers",
    "days_since_last_activity",
    "days_from_enrolling_to_first_study",
]


# ---------- reading


def read(raw: Path, table: str, columns: list[str]) -> pd.DataFrame:
    """One raw table, a file or a folder of files; blank text is missing."""
    path = raw / table if (raw / table).is_dir() else raw / f"{table}.parquet"
    frame = pd.read_parquet(path, columns=columns)
    for column in columns:
        if pd.api.types.is_string_dtype(frame[column]):
            frame[column] = frame[column].str.strip(" ").replace("", None)
    return frame


def is_time(values: pd.Series) -> pd.Series:
    """Not missing, not before 1990, not in the future."""
    latest = pd.Timestamp.now("UTC").tz_localize(None) + pd.Timedelta(days=1)
    return (values >= EARLIEST) & (values <= latest)


def read_events(raw: Path, students: set[str], courses: set[str]) -> pd.DataFrame:
    """Usable rows of activity_events, each event once."""
    columns = ["event_id", "student_id", "course_id", "event_type", "quantity"]
    events = read(raw, "activity_events", [*columns, "occurred_at", "loaded_at"])
    usable = (
        events["student_id"].isin(students)
        & (events["course_id"].isna() | events["course_id"].isin(courses))
        & events["event_type"].notna()
        & is_time(events["occurred_at"])
        & (events["loaded_at"].isna() | is_time(events["loaded_at"]))
        & (events["quantity"].isna() | events["quantity"].between(0, MOST))
    )
    events = events[usable]
    loaded = events["loaded_at"].fillna(events["occurred_at"])
    events = events.assign(known_at=np.maximum(events["occurred_at"], loaded))
    events = first_of_each(events)
    return pd.DataFrame(
        {
            "student_id": events["student_id"],
            "course_id": events["course_id"],
            "day": events["occurred_at"].dt.floor("D"),
            "known_day": events["known_at"].dt.floor("D"),
            "event": 1.0,
            "quantity": events["quantity"],
            "minutes": events["quantity"].where(events["event_type"] == "minutes"),
        }
    )


def first_of_each(events: pd.DataFrame) -> pd.DataFrame:
    """Of the copies of an event the one that was known first."""
    ids = events["event_id"]
    repeated = ids.duplicated(keep=False) & ids.notna()
    order = ["known_at", "occurred_at", "loaded_at", "student_id", "course_id"]
    order += ["event_type", "quantity"]
    copies = events[repeated].sort_values(order)
    return pd.concat([events[~repeated], copies.drop_duplicates("event_id")])


def read_progress(
    raw: Path, students: set[str], course_of: dict[str, str]
) -> pd.DataFrame:
    """Usable rows of lesson_progresses."""
    columns = ["student_id", "lesson_id", "progress", "created_at"]
    rows = read(raw, "lesson_progresses", columns)
    usable = (
        rows["student_id"].isin(students)
        & rows["lesson_id"].isin(set(course_of))
        & is_time(rows["created_at"])
        & rows["progress"].between(0, 100)
    )
    rows = rows[usable]
    day = rows["created_at"].dt.floor("D")
    course = rows["lesson_id"].map(course_of)
    return pd.DataFrame(
        {
            "student_id": rows["student_id"],
            "course_id": course,
            "day": day,
            "known_day": day,
        }
    )


def read_answers(
    raw: Path, students: set[str], courses: set[str], lessons: set[str]
) -> pd.DataFrame:
    """Usable rows of quiz_question_answers."""
    ids = ["student_id", "course_id", "lesson_id", "quiz_question_id"]
    rows = read(
        raw, "quiz_question_answers", [*ids, "attempt", "verdict", "created_at"]
    )
    verdict = rows["verdict"].str.lower()
    usable = (
        rows["student_id"].isin(students)
        & rows["course_id"].isin(courses)
        & (rows["lesson_id"].isna() | rows["lesson_id"].isin(lessons))
        & rows["quiz_question_id"].notna()
        & is_time(rows["created_at"])
        & (rows["attempt"].isna() | rows["attempt"].between(0, 1e6))
        & (verdict.isna() | verdict.isin(["correct", "incorrect"]))
    )
    rows, verdict = rows[usable], verdict[usable]
    day = rows["created_at"].dt.floor("D")
    return pd.DataFrame(
        {
            "student_id": rows["student_id"],
            "course_id": rows["course_id"],
            "day": day,
            "known_day": day,
            "answer": 1.0,
            "judged": verdict.notna().astype(float),
            "correct": (verdict == "correct").astype(float),
        }
    )


def read_facts(raw: Path) -> pd.DataFrame:
    """All activity that counts as study, one row per fact."""
    students = set(read(raw, "students", ["student_id"])["student_id"].dropna())
    courses = set(read(raw, "courses", ["course_id"])["course_id"].dropna())
    lessons = read(raw, "lessons", ["lesson_id", "course_id"])
    lessons = lessons[lessons["course_id"].isin(courses) & lessons["lesson_id"].notna()]
    lessons = lessons.sort_values("course_id").drop_duplicates("lesson_id")
    course_of = dict(zip(lessons["lesson_id"], lessons["course_id"], strict=True))
    facts = [
        read_events(raw, students, courses),
        read_progress(raw, students, course_of),
        read_answers(raw, students, courses, set(course_of)),
    ]
    return pd.concat(facts, ignore_index=True)


# ---------- features


def known_from(facts: pd.DataFrame) -> dict[str, pd.Timestamp]:
    """The day on which each kind of activity was first known of."""
    days = facts["known_day"]
    return {
        "study": days.min(),
        "events": days[facts["event"].notna()].min(),
        "minutes": days[facts["minutes"].notna()].min(),
        "quiz": days[facts["answer"].notna()].min(),
    }


def features_of(
    points: pd.DataFrame, facts: pd.DataFrame, careful: bool
) -> pd.DataFrame:
    """The features of the prediction points at one lead."""
    seen = merged(points, facts)
    to_date = [sums(seen).add_prefix("to_date_"), recency(seen)]
    if not careful:
        seen = merged(points, facts)
    window = seen["day"] >= seen["as_of_date"] - pd.Timedelta(days=WINDOW_DAYS)
    made = pd.concat([sums(seen[window]).add_prefix("window_"), *to_date], axis=1)
    return made.reindex(points.index)


def merged(points: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """What each point may see: its course's facts, and those of no course."""
    ids = points[
        ["student_id", "course_id", "as_of_date", "began_date", "next_began_date"]
    ].assign(point=points.index)
    of_course = facts[facts["course_id"].notna()]
    everywhere = facts[facts["course_id"].isna()].drop(columns="course_id")
    return pd.concat(
        [
            visible(ids.merge(of_course, on=["student_id", "course_id"])),
            visible(ids.merge(everywhere, on="student_id")),
        ]
    )


def visible(pairs: pd.DataFrame) -> pd.DataFrame:
    """What belongs to the enrollment and was known before the day of the question."""
    day, known, as_of = pairs["day"], pairs["known_day"], pairs["as_of_date"]
    ends = pairs["next_began_date"]
    keep = (
        (day >= pairs["began_date"])
        & (ends.isna() | (day < ends))
        & (day < as_of)
        & (known < as_of)
    )
    return pairs[keep]


def sums(seen: pd.DataFrame) -> pd.DataFrame:
    """Counts and sums by point."""
    grouped = seen.groupby("point", sort=False)
    judged = grouped["judged"].sum()
    return pd.DataFrame(
        {
            "active_days": grouped["day"].nunique(),
            "events": grouped["event"].sum(),
            "quantity": grouped["quantity"].sum(),
            "minutes": grouped["minutes"].sum(),
            "quiz_answers": grouped["answer"].sum(),
            "quiz_correct_rate": grouped["correct"].sum() / judged.where(judged > 0),
        }
    )


def recency(seen: pd.DataFrame) -> pd.DataFrame:
    """Days from the last study, and to the first, by point."""
    grouped = seen.groupby("point", sort=False)
    dates = grouped[["as_of_date", "began_date"]].first()
    return pd.DataFrame(
        {
            "days_since_last_activity": (
                dates["as_of_date"] - grouped["day"].max()
            ).dt.days,
            "days_from_enrolling_to_first_study": (
                grouped["day"].min() - dates["began_date"]
            ).dt.days,
        }
    )


def fill(made: pd.DataFrame, points: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Zero where nothing was done, nothing where it was not recorded yet."""
    kinds = {
        "active_days": "study",
        "events": "events",
        "quantity": "events",
        "minutes": "minutes",
        "quiz_answers": "quiz",
    }
    first = known_from(facts)
    filled = made[FEATURES].astype(float)
    for name, kind in kinds.items():
        recorded = points["as_of_date"] > first[kind]
        for feature in (f"window_{name}", f"to_date_{name}"):
            filled[feature] = filled[feature].fillna(0.0).where(recorded)
    return filled


def make_features(
    raw: Path, points: pd.DataFrame, careful: bool = False
) -> pd.DataFrame:
    """Key and features of every point."""
    facts = read_facts(raw)
    ids = points
    if careful:
        ids, facts = as_categories(points, facts)
    parts = [features_of(part, facts, careful) for _, part in ids.groupby("lead")]
    made = fill(pd.concat(parts).reindex(points.index), points, facts)
    return pd.concat([points[KEY], made], axis=1)


def as_categories(*frames: pd.DataFrame) -> list[pd.DataFrame]:
    """The frames with ids as categories that they share."""
    shared = {}
    for column in ("student_id", "course_id"):
        values = pd.concat([frame[column].drop_duplicates() for frame in frames])
        kind = pd.CategoricalDtype(values.dropna().unique())
        shared[column] = kind
    return [frame.astype(shared) for frame in frames]


def facts_by_enrollment(raw: Path, points: pd.DataFrame) -> pd.DataFrame:
    """All activity of the enrollments that have points."""
    columns = ["student_id", "course_id", "course_run_id", "began_date"]
    enrollments = points[[*columns, "next_began_date"]].drop_duplicates()
    always = pd.Timestamp.max.floor("D").as_unit("us")
    seen = merged(enrollments.assign(as_of_date=always), read_facts(raw))
    run = enrollments["course_run_id"].reindex(seen["point"]).to_numpy()
    columns = ["student_id", "day", "known_day", "event", "quantity", "minutes"]
    return seen[[*columns, "answer"]].assign(course_run_id=run)


def main(raw: Path, points_path: Path, out: Path, how: str) -> None:
    """Make the features, write them, and print how long it took."""
    began = time.perf_counter()
    points = pd.read_parquet(points_path)
    if how == "--facts":
        made = facts_by_enrollment(raw, points)
    else:
        made = make_features(raw, points, careful=how == "--careful")
    seconds = time.perf_counter() - began
    made.to_parquet(out)
    print(json.dumps({"seconds": round(seconds, 3), "rows": len(made)}))


if __name__ == "__main__":
    raw, points, out = map(Path, sys.argv[1:4])
    main(raw, points, out, "".join(sys.argv[4:]))
