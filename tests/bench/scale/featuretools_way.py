"""Features with featuretools: PYTHON featuretools_way.py FACTS POINTS OUT

Runs in an environment of its own, so it imports nothing of the project. FACTS is the
usable activity by enrollment (`pandas_way --facts`): featuretools is spared reading,
checking and assigning it. A cutoff time is the day of a question; what was loaded
later than it happened is hidden until then by a secondary time index.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import featuretools as ft
import pandas as pd
from featuretools.primitives import NumUnique, Sum

SUMS = {"events": "event", "quantity": "quantity", "minutes": "minutes"}
SUMS["quiz_answers"] = "answer"


def entity_set(facts: pd.DataFrame) -> ft.EntitySet:
    """Enrollments and their facts."""
    facts = facts.assign(study_day=facts["day"].dt.strftime("%Y%m%d"))
    found = ft.EntitySet("study")
    found.add_dataframe(
        dataframe_name="enrollments",
        dataframe=facts[["enrollment"]].drop_duplicates(),
        index="enrollment",
    )
    found.add_dataframe(
        dataframe_name="facts",
        dataframe=facts,
        index="fact",
        make_index=True,
        time_index="day",
        secondary_time_index={"known_day": ["study_day", *SUMS.values()]},
        logical_types={"study_day": "Categorical"}
        | dict.fromkeys(SUMS.values(), "Double"),
    )
    found.add_relationship("enrollments", "enrollment", "facts", "enrollment")
    return found


def definitions(entities: ft.EntitySet, prefix: str) -> list[ft.Feature]:
    """What is computed for the window as well as to date."""
    facts = entities["facts"].ww
    columns = {"active_days": ("study_day", NumUnique)}
    columns |= {name: (column, Sum) for name, column in SUMS.items()}
    return [
        ft.Feature(
            facts[column], parent_dataframe_name="enrollments", primitive=primitive
        ).rename(prefix + name)
        for name, (column, primitive) in columns.items()
    ]


def calculate(entities: ft.EntitySet, cutoffs: pd.DataFrame) -> pd.DataFrame:
    """The features at each cutoff, within the window and to date."""
    parts = []
    for prefix, window in (("window_", "14 days"), ("to_date_", None)):
        matrix = ft.calculate_feature_matrix(
            definitions(entities, prefix),
            entities,
            cutoff_time=cutoffs,
            training_window=window,
            include_cutoff_time=False,
            cutoff_time_in_index=True,
        )
        parts.append(matrix.astype(float).fillna(0.0))
    return pd.concat(parts, axis=1).reset_index()


def main(facts_path: Path, points_path: Path, out: Path) -> None:
    """Make the features, write them with the points' keys, and print the time."""
    facts, points = pd.read_parquet(facts_path), pd.read_parquet(points_path)
    for frame in (facts, points):
        frame["enrollment"] = frame.pop("course_run_id") + " " + frame["student_id"]
    facts = facts.drop(columns="student_id")
    cutoffs = points[["enrollment", "as_of_date"]].drop_duplicates()
    cutoffs = cutoffs.rename(columns={"as_of_date": "time"})
    # Who has done nothing at all is not in the entity set.
    cutoffs = cutoffs[cutoffs["enrollment"].isin(facts["enrollment"].unique())]
    began = time.perf_counter()
    made = calculate(entity_set(facts), cutoffs)
    seconds = time.perf_counter() - began
    made = points.merge(
        made, left_on=["enrollment", "as_of_date"], right_on=["enrollment", "time"]
    )
    key = ["student_id", "course_id", "assessment_id", "as_of_date"]
    features = [*made.filter(regex="^(window|to_date)_")]
    made[[*key, *features]].to_parquet(out)
    print(json.dumps({"seconds": round(seconds, 3), "rows": len(made)}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*(Path(argument) for argument in sys.argv[1:4]))
