"""Scoring without training: the champion, its contract, and any day."""

from datetime import date

import duckdb
import pandas as pd
import pytest
from synthetic import AS_OF_DATE, Project, write_warehouse

import ml.score
from ml.dataset import KEY
from ml.score import ContractMismatch, NoChampion, run_score
from ml.scorer import RANK
from ml.settings import Settings, UserError

SCORES = "select * from ml.student_scores order by all"


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
