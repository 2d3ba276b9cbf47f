"""A small synthetic warehouse, written straight into the tables that ml reads."""

import shutil
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from ml.settings import Settings

LEADS = (14, 7)
FIRST_DUE = date(2022, 2, 1)
AS_OF_DATE = date(2024, 1, 15)
TEST_FROM = date(2023, 7, 1)
FAST = {"model_n_estimators": 20, "model_max_depth": 3}


@dataclass(frozen=True)
class World:
    """What the synthetic tables are made from."""

    students: int = 400
    noise_labels: bool = False
    scoring: bool = True
    shuffle: int | None = None
    contacted: bool = False
    seed: int = 7


@dataclass(frozen=True)
class Tables:
    """The tables of schema main as frames."""

    targets: pd.DataFrame
    features: pd.DataFrame


def make_tables(world: World) -> Tables:
    """Students with a constant tendency to fail meet an assessment a month."""
    random = np.random.default_rng(world.seed)
    tendency = random.normal(0, 1.5, world.students)
    months = [FIRST_DUE + timedelta(days=30 * month) for month in range(26)]
    rows = []
    for student in range(world.students):
        start = int(random.integers(0, 20))
        missed = 0
        for number, due in enumerate(months[start : start + 7]):
            effort = random.normal(0, 1)
            # Too little and too much are both bad signs: no straight line tells.
            strain = 2.5 * (abs(effort) > 1) - 1.5
            chance = 1 / (1 + np.exp(1 - tendency[student] - strain))
            fails = int(random.random() < chance)
            rows += _points(student, start, number, due, missed, effort, fails)
            missed += fails
    frame = pd.DataFrame(rows)
    if world.noise_labels:
        frame["at_risk"] = random.permutation(frame["at_risk"].to_numpy())
    return _tables(frame, world, random)


def _points(
    student: int,
    start: int,
    number: int,
    due: date,
    missed: int,
    effort: float,
    fails: int,
) -> list[dict[str, object]]:
    course = student % 3
    leads = {*LEADS, (due - AS_OF_DATE).days}
    return [
        {
            "student_id": f"s{student:05d}",
            "course_id": f"c{course}",
            "assessment_id": f"a{course}-{due:%Y%m}",
            "as_of_date": due - timedelta(days=lead),
            "course_run_id": f"r{course}-{start}",
            "due_at": pd.Timestamp(due),
            "lead_days": lead,
            "run_started_at": pd.Timestamp(FIRST_DUE + timedelta(days=30 * start)),
            "assessment_kind": "assignment",
            "is_first_sitting": number == 0,
            "at_risk": fails,
            "label_known_at": pd.Timestamp(due + timedelta(days=3)),
            "missed": missed,
            "due": number,
            "active": max(0.0, round(7 + 3 * effort)),
        }
        for lead in sorted(leads)
        if lead in LEADS or 0 <= lead <= max(LEADS)
    ]


def _tables(frame: pd.DataFrame, world: World, random: np.random.Generator) -> Tables:
    scoring = frame["as_of_date"] == AS_OF_DATE
    key = ["student_id", "course_id", "assessment_id", "as_of_date"]
    matured = frame["label_known_at"] <= pd.Timestamp(AS_OF_DATE)
    targets = frame[
        [
            *key,
            "course_run_id",
            "due_at",
            "lead_days",
            "run_started_at",
            "assessment_kind",
            "is_first_sitting",
            "label_known_at",
        ]
    ].assign(
        is_training_point=frame["lead_days"].isin(LEADS),
        is_scoring_point=scoring & world.scoring,
        at_risk=frame["at_risk"].where(matured).astype("Int64"),
        label_status=np.where(matured, "matured", "pending"),
        target_definition="course_repurchased",
        contacted_before_due=world.contacted & (random.random(len(frame)) < 0.1),
    )
    features = frame[key].assign(
        lead_days=frame["lead_days"],
        record_assessments_missed=frame["missed"],
        record_assessments_due=frame["due"],
        to_date_active_days=frame["active"].where(random.random(len(frame)) > 0.1),
        context_course_failure_rate=0.3 + 0.05 * frame["course_id"].str[1:].astype(int),
        window_active_days=frame["active"],
        opened_anything=(frame["active"] > 5).astype("boolean"),
        weekday_habit=pd.Series(np.where(frame["active"] > 7, "weekday", "weekend")),
    )
    kept = targets["is_training_point"] | targets["is_scoring_point"]
    targets, features = targets[kept], features[kept]
    if world.shuffle is not None:
        targets = targets.sample(frac=1, random_state=world.shuffle)
        features = features.sample(frac=1, random_state=world.shuffle + 1)
    return Tables(targets, features)


def write_warehouse(path: Path, tables: Tables, as_of_date: date = AS_OF_DATE) -> None:
    """Write the tables that dbt would have built."""
    with duckdb.connect(str(path)) as connection:
        for name, frame in (
            ("student_targets", tables.targets),
            ("student_features_14d", tables.features),
        ):
            connection.register("frame", frame)
            connection.execute(
                f"create or replace table main.{name} as select * replace"
                " (cast(as_of_date as date) as as_of_date) from frame"
            )
            connection.unregister("frame")
        connection.execute(
            "create or replace table main.pipeline_settings as select"
            " 'sample' as source_system, '' as data_raw_path,"
            " 'course_repurchased' as target_definition,"
            " 14 as observation_window_days, '14,7' as prediction_leads,"
            f" false as include_attributes, date '{as_of_date}' as as_of_date,"
            f" date '{as_of_date}' as data_until"
        )


def make_settings(folder: Path, **changes: object) -> Settings:
    """Settings that agree with the synthetic warehouse in `folder`."""
    values = {
        "warehouse_path": folder / "warehouse.duckdb",
        "models_path": folder / "models",
        "prediction_leads": LEADS,
        "test_from": TEST_FROM,
        **FAST,
        **changes,
    }
    return Settings(_env_file=None, **values)


@dataclass(frozen=True)
class Project:
    """A folder with a warehouse and the settings to run on it."""

    folder: Path
    settings: Settings
    tables: Tables

    def rows(self, query: str) -> pd.DataFrame:
        """The answer to a query of the warehouse."""
        path = str(self.settings.warehouse_path)
        with duckdb.connect(path, read_only=True) as connection:
            return connection.execute(query).df()

    def run(self, *statements: str) -> None:
        """Change the warehouse."""
        with duckdb.connect(str(self.settings.warehouse_path)) as connection:
            for statement in statements:
                connection.execute(statement)

    def copy_to(self, folder: Path) -> "Project":
        """The same warehouse and models in another folder, to change them."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        paths = {
            "warehouse_path": folder / self.settings.warehouse_path.name,
            "models_path": folder / self.settings.models_path.name,
        }
        return replace(self, folder=folder).with_settings(**paths)

    def with_settings(self, **changes: object) -> "Project":
        """The same warehouse under other settings."""
        return replace(self, settings=self.settings.model_copy(update=changes))


def make_project(folder: Path, world: World = World()) -> Project:
    """Write a warehouse into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = make_tables(world)
    settings = make_settings(folder)
    write_warehouse(settings.warehouse_path, tables)
    return Project(folder, settings, tables)
