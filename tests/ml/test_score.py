"""Scoring without training: the champion, its contract, and any day."""

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from synthetic import AS_OF_DATE, Project, write_warehouse

import ml.score
from ml.boosting import contributions, plain_matrix
from ml.calibrate import confidence
from ml.dataset import KEY, feature_column
from ml.explain import REASONS, FeatureDoc, format_value, read_feature_docs
from ml.features import BOOLEAN, CATEGORY, FeatureContract, encode
from ml.registry import load_artifact
from ml.score import (
    ContractMismatch,
    NoChampion,
    copy_points,
    peer_medians,
    run_score,
    score_day,
    write_scores,
)
from ml.scorer import RANK, all_probabilities
from ml.settings import Settings, UserError
from ml.spool import Spool
from ml.warehouse import WriteBackError, open_warehouse, transaction

SCORES = "select * from ml.student_scores order by all"
CHAMPION = "select run_id from ml.model_runs where status = 'champion'"


def test_scoring_twice_gives_the_same_rows(trained: Project) -> None:
    before = trained.rows(SCORES)
    run_score(trained.settings, None)
    run_score(trained.settings, AS_OF_DATE)
    pd.testing.assert_frame_equal(trained.rows(SCORES), before)


def test_scores_come_back_after_they_were_lost(trained: Project) -> None:
    columns = "select * exclude scored_at from ml.student_scores order by all"
    before = trained.rows(columns)
    trained.run("delete from ml.student_scores", "delete from ml.score_reasons")
    run_score(trained.settings, None)
    pd.testing.assert_frame_equal(trained.rows(columns), before, check_exact=True)


def test_a_category_that_training_never_met_is_scored(trained: Project) -> None:
    trained.run("update student_features_14d set weekday_habit = 'never on a day'")
    scored = run_score(trained.settings, None)
    assert scored.scores.rows > 0
    assert trained.rows(SCORES)["risk_score"].notna().all()


def test_features_that_do_not_match_are_refused_naming_each_difference(
    trained: Project,
) -> None:
    before = trained.rows(SCORES)
    trained.run(
        "alter table student_features_14d drop opened_anything",
        "alter table student_features_14d add column brand_new integer",
        "alter table student_features_14d alter window_active_days type varchar",
    )
    with pytest.raises(ContractMismatch) as error:
        run_score(trained.settings, None)
    for told in (
        "opened_anything is missing",
        "brand_new is new",
        "window_active_days is a category, it was a number",
    ):
        assert told in str(error.value)
    pd.testing.assert_frame_equal(trained.rows(SCORES), before)


def test_without_a_champion_it_says_so_and_why(trained: Project) -> None:
    trained.run(
        "update ml.model_runs set status = 'refused', status_reason = 'Too bad.'"
    )
    with pytest.raises(NoChampion, match=r"refused: Too bad\..*ml\.train"):
        run_score(trained.settings, None)


def test_before_any_training_it_says_what_to_run(project: Project) -> None:
    with pytest.raises(NoChampion, match=r"python -m ml\.train"):
        run_score(project.settings, None)


def test_another_day_is_built_first_and_the_old_rows_stay(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = trained.tables.targets["as_of_date"].mode()[0]
    built = []

    def build(settings: Settings, as_of_date: date) -> None:
        built.append(settings.environment()["AS_OF_DATE"])
        targets = trained.tables.targets
        moved = targets.assign(is_scoring_point=targets["as_of_date"] == as_of_date)
        tables = type(trained.tables)(moved, trained.tables.features)
        write_warehouse(settings.warehouse_path, tables, as_of_date)

    monkeypatch.setattr(ml.score, "build_day", build)
    before = trained.rows(SCORES)
    run_score(trained.settings, day)
    assert built == [str(day)]
    after = trained.rows(SCORES)
    old = after[after["as_of_date"] == pd.Timestamp(AS_OF_DATE)]
    pd.testing.assert_frame_equal(old.reset_index(drop=True), before)
    assert len(after) > len(before)


def test_the_build_of_a_day_runs_dbt_under_the_same_settings(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Finished:
        returncode = 1

    def run(command: list[str], **options: object) -> Finished:
        calls.append((command, options["env"]))
        return Finished()

    monkeypatch.setattr("ml.dbt.subprocess.run", run)
    with pytest.raises(UserError, match=r"failed.*AS_OF_DATE=2024-02-01"):
        ml.score.build_day(project.settings, date(2024, 2, 1))
    command, environment = calls[0]
    assert command[1] == "build"
    assert {"+student_targets", "+student_features_14d"} <= set(command)
    assert environment["AS_OF_DATE"] == "2024-02-01"
    assert environment["WAREHOUSE_PATH"] == str(project.settings.warehouse_path)
    assert environment["PREDICTION_LEADS"] == "14,7"


def test_ties_go_to_the_longer_record_then_to_the_key() -> None:
    rows = pd.DataFrame(
        {name: ["x"] * 4 for name in KEY}
        | {"student_id": ["d", "a", "b", "c"], "risk_score": [0.9, 0.5, 0.5, 0.5]}
        | {"missed": [0.0, 2.0, -1.0, 2.0]}
    )
    query = f"select student_id from rows order by {RANK}"
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        ranked = connection.execute(query).fetchall()
    assert ranked == [("d",), ("a",), ("c",), ("b",)]


# ---------------------------------------------------------------- by batches


def _score(project: Project, batch_rows: int) -> None:
    """As the command does, with batches of another size."""
    settings = project.settings
    with open_warehouse(settings.warehouse_path) as connection:
        points = copy_points(connection, project.folder, batch_rows)
    artifact = load_artifact(settings.models_path, project.rows(CHAMPION).iloc[0, 0])
    scored = score_day(artifact, points, AS_OF_DATE, settings.observation_window_days)
    with (
        open_warehouse(settings.warehouse_path) as connection,
        transaction(connection),
    ):
        write_scores(connection, scored)


def _all_at_once(project: Project) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and reasons, each point by itself, with everything in memory."""
    query = (
        "select targets.* exclude lead_days, targets.lead_days as lead, features.*"
        " exclude (student_id, course_id, assessment_id, as_of_date)"
        f" from student_targets as targets inner join student_features_14d as features"
        f" using ({', '.join(KEY)}) where is_scoring_point"
    )
    points = project.rows(query)
    run_id = project.rows(CHAMPION).iloc[0, 0]
    artifact = load_artifact(project.settings.models_path, run_id)
    contract, docs = artifact.contract, read_feature_docs()
    matrix = plain_matrix(encode(points, contract), contract)
    probabilities = all_probabilities(artifact, matrix)
    missed = points["record_assessments_missed"].fillna(-1)
    scores = (
        points[[*KEY, "course_run_id", "due_at", "lead"]]
        .rename(columns={"lead": "lead_days"})
        .assign(run_id=run_id, risk_score=probabilities[:, 0], missed=missed)
        .assign(risk_band=artifact.bands.name(probabilities[:, 0]))
        .assign(confidence=confidence(probabilities))
        .sort_values(["risk_score", "missed", *KEY], ascending=[False] * 2 + [True] * 4)
        .assign(risk_rank=range(1, len(points) + 1))
    )
    values = contributions(artifact.model, matrix)[:, :-1]
    reasons = [
        {**dict(point[KEY]), "run_id": run_id, "reason_rank": rank}
        | {"feature": name, "contribution": value}
        | _words(name, point[name], points[name], contract.kinds[name], docs)
        for (_, point), row in zip(points.iterrows(), values, strict=True)
        for rank, (negative, name) in enumerate(
            sorted(zip(-row, contract.names, strict=True))[:REASONS], start=1
        )
        if (value := -negative) > 0
    ]
    return scores.drop(columns="missed"), pd.DataFrame(reasons)


def _words(
    name: str,
    value: Any,
    column: pd.Series,
    kind: str,
    docs: dict[str, FeatureDoc],
) -> dict[str, Any]:
    doc = docs.get(name, FeatureDoc(description=name.replace("_", " ")))
    peer = float("nan") if kind == CATEGORY else column.astype(float).median()
    first = doc.description.split(". ")[0].rstrip(".")
    words = {"feature_value": None, "peer_median": peer, "sentence_student": None}
    if pd.isna(value):
        unknown = f"Not known so far: {first[:1].lower()}{first[1:]}"
        return {**words, "sentence": unknown, "is_actionable": False}
    unit = "boolean" if kind == BOOLEAN else doc.unit
    text = format_value(value if kind == CATEGORY else float(value), unit)
    placed = {"value": text, "peer": format_value(peer, unit), "window": "14"}
    said = (doc.reason or first + ": {value}").format(**placed)
    worse = {"low": lambda: value < peer, "high": lambda: value > peer}
    act = doc.actionable and doc.worrying is not None and bool(worse[doc.worrying]())
    student = act and doc.reason_student and doc.reason_student.format(**placed)
    words |= {"sentence_student": student or None}
    return {**words, "feature_value": text, "sentence": said, "is_actionable": act}


def test_batches_give_what_everything_at_once_gives(trained: Project) -> None:
    """Also each point alone, and with values that are not known."""
    trained.run(
        "update student_features_14d set window_active_days = null,"
        " weekday_habit = null, opened_anything = null"
        " where student_id like '%1' or student_id like '%2'"
    )
    scores, reasons = _all_at_once(trained)
    assert len(reasons) > len(scores) > 30
    for batch_rows in (1, 7, 100_000):
        trained.run("delete from ml.student_scores", "delete from ml.score_reasons")
        _score(trained, batch_rows)
        _assert_written(trained, scores, reasons)


def test_only_what_has_changed_is_written_and_it_is_replaced(trained: Project) -> None:
    run_score(trained.settings, None)
    before = trained.settings.warehouse_path.read_bytes()
    run_score(trained.settings, None)
    assert trained.settings.warehouse_path.read_bytes() == before
    trained.run(
        "update student_features_14d set window_active_days = 0"
        " where student_id like '%3'"
    )
    run_score(trained.settings, None)
    _assert_written(trained, *_all_at_once(trained))


def _assert_written(
    project: Project, scores: pd.DataFrame, reasons: pd.DataFrame
) -> None:
    for table, expected in (
        ("ml.student_scores", scores),
        ("ml.score_reasons", reasons),
    ):
        found = project.rows(f"select * from {table}")
        found = found.drop(columns="scored_at", errors="ignore")
        pd.testing.assert_frame_equal(
            _in_order(found), _in_order(expected[found.columns]), check_dtype=False
        )


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    key = [*KEY, "reason_rank"] if "reason_rank" in rows else KEY
    rows = rows.assign(as_of_date=pd.to_datetime(rows["as_of_date"]))
    return rows.sort_values(key, ignore_index=True)


def test_the_middle_value_is_that_of_pandas(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "odd": random.normal(size=101).round(1),
            "even": [*random.normal(size=100), np.nan],
            "unknown": [np.nan] * 101,
        }
    )
    points = pa.Table.from_pandas(frame.rename(columns=feature_column))
    spool = Spool(tmp_path, points.schema)
    for batch in points.to_batches(max_chunksize=20):
        spool.write(batch)
    spool.finish()
    contract = FeatureContract(dict.fromkeys(frame, "number"), {})
    found = peer_medians(spool, contract)
    assert found["odd"] == frame["odd"].median()
    assert found["even"] == frame["even"].median()
    assert np.isnan(found["unknown"])


def test_what_is_spooled_has_no_name(tmp_path: Path) -> None:
    """So that nothing of a student is left behind by a command that is killed."""
    rows = pa.table({"a": [1, 2]})
    spool = Spool(tmp_path, rows.schema)
    spool.write(rows)
    spool.finish()
    assert spool.read().read_all() == rows
    assert not list(tmp_path.iterdir())


def test_points_without_features_are_refused(trained: Project) -> None:
    before = trained.rows(SCORES)
    trained.run(
        "delete from student_features_14d where (student_id, as_of_date) in"
        " (select (student_id, as_of_date) from student_targets"
        " where is_scoring_point limit 3)"
    )
    with pytest.raises(UserError, match=r"^3 points of student_targets"):
        run_score(trained.settings, None)
    pd.testing.assert_frame_equal(trained.rows(SCORES), before)


def test_a_point_that_is_there_twice_is_not_written(trained: Project) -> None:
    before = trained.rows(SCORES)
    trained.run(
        "insert into student_features_14d select features.* from student_targets"
        " inner join student_features_14d as features"
        f" using ({', '.join(KEY)}) where is_scoring_point limit 2"
    )
    with pytest.raises(WriteBackError, match="2 rows repeat a key"):
        run_score(trained.settings, None)
    pd.testing.assert_frame_equal(trained.rows(SCORES), before)


def test_a_point_of_another_day_is_not_written(trained: Project) -> None:
    for table in ("student_targets", "student_features_14d"):
        trained.run(
            f"update {table} set as_of_date = '2024-01-16'"
            f" where as_of_date = '{AS_OF_DATE}'"
        )
    with pytest.raises(WriteBackError, match="lie outside as_of_date = 2024-01-15"):
        run_score(trained.settings, None)


def test_a_write_that_fails_half_way_leaves_the_old_rows(trained: Project) -> None:
    before = trained.rows(SCORES)
    columns = trained.rows("describe ml.score_reasons")
    typed = ", ".join(columns["column_name"] + " " + columns["column_type"])
    trained.run(
        "update student_features_14d set window_active_days = 0",
        "drop table ml.score_reasons",
        # Scores are written before it.
        f"create table ml.score_reasons ({typed}, check (reason_rank < 3))",
    )
    with pytest.raises(duckdb.ConstraintException):
        run_score(trained.settings, None)
    pd.testing.assert_frame_equal(trained.rows(SCORES), before)
    trained.run("drop table ml.score_reasons")
    run_score(trained.settings, None)
    assert not trained.rows(SCORES).equals(before)


def test_while_it_scores_the_warehouse_is_free(trained: Project) -> None:
    """What is scored lies in a file of its own from the first moment."""
    settings = trained.settings
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        points = copy_points(connection, trained.folder)
    trained.run("drop table student_targets", "drop table student_features_14d")
    artifact = load_artifact(settings.models_path, trained.rows(CHAMPION).iloc[0, 0])
    scored = score_day(artifact, points, AS_OF_DATE, 14)
    assert scored.scores.rows == points.spool.rows > 0
