"""A whole training, and what it promises about the tables that it writes."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import AS_OF_DATE, TEST_FROM, Project, World, make_project, make_tables

from ml import registry
from ml.calibrate import Scored, fit_map
from ml.dataset import Points, Split, split_points
from ml.explain import REASONS
from ml.settings import PROJECT_ROOT, UserError
from ml.train import RUN_TABLES, describe_run, read_inputs, run_train, summarise
from ml.training import _calibration_curves
from ml.warehouse import SettingsMismatch

KEY = "student_id, course_id, assessment_id, as_of_date"
TABLES = (*RUN_TABLES, "ml.model_runs", "ml.student_scores", "ml.score_reasons")


def _all_tables(project: Project) -> dict[str, pd.DataFrame]:
    return {name: project.rows(f"select * from {name} order by all") for name in TABLES}


def _scores(project: Project) -> pd.DataFrame:
    return project.rows(
        f"select * exclude (run_id, scored_at) from ml.student_scores order by {KEY}"
    )


# ---------------------------------------------------------------- what is written


def test_every_scoring_point_has_a_score_a_rank_and_a_band(
    trained_once: Project,
) -> None:
    scores = trained_once.rows("select * from ml.student_scores order by risk_rank")
    targets = trained_once.tables.targets
    assert len(scores) == int(targets["is_scoring_point"].sum()) > 20
    assert scores["risk_rank"].tolist() == list(range(1, len(scores) + 1))
    assert scores["risk_score"].is_monotonic_decreasing
    assert scores["risk_score"].between(0, 1, inclusive="neither").all()
    assert scores["confidence"].between(0, 1).all()
    assert set(scores["risk_band"]) <= {"high", "medium", "low"}
    assert (scores["as_of_date"] == pd.Timestamp(AS_OF_DATE)).all()


def test_every_reason_belongs_to_a_score_and_raises_the_risk(
    trained_once: Project,
) -> None:
    lost = trained_once.rows(
        f"select * from ml.score_reasons anti join ml.student_scores"
        f" using (run_id, {KEY})"
    )
    assert lost.empty
    reasons = trained_once.rows(f"select * from ml.score_reasons order by {KEY}")
    assert (reasons["contribution"] > 0).all()
    assert reasons["reason_rank"].between(1, REASONS).all()
    assert reasons["sentence"].str.len().gt(0).all()


def test_evaluation_holds_the_test_period_and_nothing_else(
    trained_once: Project,
) -> None:
    predictions = trained_once.rows("select * from ml.evaluation_predictions")
    run = trained_once.rows("select * from ml.model_runs").iloc[0]
    assert predictions["as_of_date"].min() >= pd.Timestamp(TEST_FROM)
    assert len(predictions) == run["test_rows"]
    assert predictions["run_began_in_test"].nunique() == 2


def test_the_figures_can_be_recomputed_from_the_predictions(
    trained_once: Project,
) -> None:
    from sklearn.metrics import average_precision_score

    part = trained_once.rows(
        "select * from ml.evaluation_predictions where lead_days = 14"
        " and run_began_in_test and is_first_sitting and not contacted_before_due"
    )
    figure = trained_once.rows(
        "select value from ml.model_metrics where lead_days = 14 and metric = 'pr_auc'"
        " and segment = 'new_runs:first' and scorer = 'model' and split = 'test'"
    )["value"].item()
    expected = average_precision_score(part["at_risk"], part["risk_score"])
    assert figure == pytest.approx(expected)


def test_the_search_table_has_15_candidates_and_the_run_the_best(
    trained_once: Project,
) -> None:
    table = trained_once.rows("select * from ml.search_results order by candidate")
    assert table["candidate"].tolist() == list(range(15))
    run = trained_once.rows("select * from ml.model_runs").iloc[0]
    best = table[table["rank_test_score"] == 1]["params"].iloc[0]
    assert json.loads(run["parameters"]) == json.loads(best)
    assert json.loads(best)["max_depth"] == 3


def test_nothing_is_pickled_and_numbers_are_json(trained_once: Project) -> None:
    folder = next(trained_once.settings.models_path.iterdir())
    names = {path.name for path in folder.iterdir()}
    models = {"model.ubj", "fold_0.ubj", "fold_1.ubj", "fold_2.ubj"}
    assert names == {"artifact.json", *models}
    found = json.loads((folder / "artifact.json").read_text())
    assert set(found["files"]) == models


# ---------------------------------------------------------------- the same again


def test_running_again_changes_nothing_and_does_not_train(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*_: object) -> None:
        raise AssertionError("trained again")

    before = _all_tables(trained)
    monkeypatch.setattr("ml.train.train_model", no_training)
    run_train(trained.settings)
    for name, table in _all_tables(trained).items():
        pd.testing.assert_frame_equal(table, before[name], obj=name)


def test_forced_training_gives_the_same_bits(trained: Project) -> None:
    before = _all_tables(trained)
    run_train(trained.settings, force=True)
    for name, table in _all_tables(trained).items():
        # How long a fit took is the one thing that no seed decides.
        columns = [c for c in table.columns if not c.endswith("_time")]
        pd.testing.assert_frame_equal(
            table[columns], before[name][columns], check_exact=True, obj=name
        )


def test_shuffled_tables_give_the_same_scores(
    trained_once: Project, tmp_path: Path
) -> None:
    shuffled = make_project(tmp_path, World(shuffle=11))
    run_train(shuffled.settings)
    pd.testing.assert_frame_equal(
        _scores(shuffled), _scores(trained_once), check_exact=True
    )
    reasons = f"select * from ml.score_reasons order by {KEY}, reason_rank"
    pd.testing.assert_frame_equal(shuffled.rows(reasons), trained_once.rows(reasons))


def test_a_lost_or_damaged_model_is_trained_again(trained: Project) -> None:
    folder = next(trained.settings.models_path.iterdir())
    before = (folder / "model.ubj").read_bytes()
    (folder / "model.ubj").write_bytes(before[:-1])
    with pytest.raises(registry.ArtifactError, match=r"model\.ubj was changed"):
        registry.load_artifact(trained.settings.models_path, folder.name)
    run_train(trained.settings)
    assert (folder / "model.ubj").read_bytes() == before


def test_a_score_keeps_its_time_until_it_changes(trained: Project) -> None:
    query = f"select scored_at from ml.student_scores order by {KEY}"
    before = trained.rows(query)["scored_at"]
    trained.run(
        f"update student_features_14d set window_active_days = 0"
        f" where (student_id, as_of_date) in (select (student_id, as_of_date)"
        f" from student_targets where is_scoring_point order by {KEY} limit 1)"
    )
    run_train(trained.settings)
    after = trained.rows(query)["scored_at"]
    changed = after != before
    assert changed.iloc[0]
    # Another student's rank may move, and a rank is part of a score.
    assert not changed.all()


def test_a_failing_write_leaves_everything_as_it_was(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    before = _all_tables(trained)
    monkeypatch.setattr("ml.train.write_scores", fail)
    with pytest.raises(RuntimeError):
        run_train(trained.settings, force=True)
    for name, table in _all_tables(trained).items():
        pd.testing.assert_frame_equal(table, before[name], obj=name)


# ---------------------------------------------------------------- what a run is


# Reached by a training, and no part of what it finds: commands, reading and writing,
# and what is computed anew each time (docs/architecture.md, Decisions).
NO_PART_OF_A_RUN = {
    "cli",
    "dbt",
    "decisions",
    "promote",
    "registry",
    "runs",
    "settings",
    "spark",
    "spool",
    "train",
    "warehouse",
}


def _imported(module: str) -> set[str]:
    """Modules of the package ml that a module imports, anywhere in its file."""
    source = (PROJECT_ROOT / "ml" / f"{module}.py").read_text(encoding="utf-8")
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "ml":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ml."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("ml.")}
    # Another engine, with a list of its own.
    return found - {"on_spark"}


def test_the_code_of_a_run_is_all_that_its_training_reaches() -> None:
    reached, left = set(), {"train"}
    while left:
        reached |= left
        left = set().union(*map(_imported, left)) - reached
    assert len(reached) > 15
    assert set(registry.CODE) == reached - NO_PART_OF_A_RUN


@pytest.mark.parametrize("part", ["search", "between", "calibration", "test"])
def test_every_label_that_is_learned_or_judged_names_the_run(
    trained_once: Project, part: str
) -> None:
    """Also those known before the test period that neither searched nor calibrated."""
    settings = trained_once.settings
    points = read_inputs(settings).points
    day, known_at = points.targets["as_of_date"], points.targets["label_known_at"]
    # Some answers from before the calibration period arrive late in it.
    late = (day < "2023-03-01") & (day.dt.month == 2)
    late_by = pd.to_timedelta(late * 120, unit="D")
    targets = points.targets.assign(label_known_at=known_at + late_by)
    points = replace(points, targets=targets)

    def divided(points: Points) -> Split:
        return split_points(points, settings.test_from, AS_OF_DATE, 14)

    def run_id(points: Points) -> str:
        return describe_run(settings, divided(points), points.kinds).run_id

    split = divided(points)
    key = split.matured.targets.loc[split.part == part, KEY.split(", ")].iloc[0]
    flipped = (targets[key.index] == key).all(axis=1)
    assert flipped.sum() == 1
    at_risk = targets["at_risk"].mask(flipped, 1 - targets["at_risk"])
    changed = replace(points, targets=targets.assign(at_risk=at_risk))
    assert run_id(changed) != run_id(points)


@pytest.mark.parametrize(
    ("method", "split_name"),
    [
        ("none", "calibration"),
        ("sigmoid", "calibration_in_sample"),
        ("isotonic", "calibration_in_sample"),
    ],
)
def test_a_curve_of_the_points_that_made_the_map_says_so(
    trained_once: Project, method: str, split_name: str
) -> None:
    settings = trained_once.settings
    found = read_inputs(settings)
    split = split_points(found.points, settings.test_from, AS_OF_DATE, 14)
    artifact = registry.load_artifact(
        settings.models_path, trained_once.rows("from ml.model_runs")["run_id"][0]
    )
    calibration = fit_map(method, Scored(np.arange(9.0), np.arange(9) % 2, KEY), 1.0)
    artifact = replace(artifact, calibration=calibration)
    predictions = trained_once.rows("from ml.evaluation_predictions")
    curves = _calibration_curves(artifact, artifact.model, split, predictions)
    assert set(curves["split"]) == {"test", split_name}


# ---------------------------------------------------------------- which run serves


def _new_run(project: Project) -> Project:
    """The same warehouse under a setting that makes another run."""
    return project.with_settings(model_max_depth=2)


def _statuses(project: Project) -> list[str]:
    runs = project.rows("select status from ml.model_runs order by created_at")
    return runs["status"].tolist()


def test_the_first_run_is_champion_and_the_next_a_challenger(trained: Project) -> None:
    assert _statuses(trained) == ["champion"]
    report = run_train(_new_run(trained).settings)
    assert _statuses(trained) == ["champion", "challenger"]
    assert len(report.scored) == 2


def test_promotion_retires_the_champion_and_can_be_taken_back(
    trained: Project,
) -> None:
    run_train(_new_run(trained).settings)
    run_train(_new_run(trained).settings, promote=True)
    assert _statuses(trained) == ["retired", "champion"]
    run_train(trained.settings, promote=True)
    assert _statuses(trained) == ["champion", "retired"]


def test_noise_is_refused_and_gets_no_scores(tmp_path: Path) -> None:
    project = make_project(tmp_path, World(noise_labels=True))
    report = run_train(project.settings, promote=True)
    assert report.run["status"] == "refused"
    assert "is not better than" in report.run["status_reason"]
    assert project.rows("select * from ml.student_scores").empty
    assert len(project.rows("select * from ml.evaluation_predictions")) > 0
    assert "refused" in summarise(report)
    run_train(project.settings)
    assert _statuses(project) == ["refused"]


def test_a_refused_run_leaves_the_champion_serving(trained: Project) -> None:
    noise = make_tables(World(noise_labels=True))
    trained.run("delete from ml.student_scores")
    noise_path = trained.folder / "noise"
    other = make_project(noise_path, World(noise_labels=True))
    assert len(noise.targets) == len(other.tables.targets)
    source = other.settings.warehouse_path
    trained.run(
        f"attach '{source}' as other (read_only)",
        "create or replace table student_targets as from other.main.student_targets",
    )
    report = run_train(trained.settings)
    assert _statuses(trained) == ["champion", "refused"]
    champion = trained.rows("select run_id from ml.model_runs where status='champion'")
    assert list(report.scored) == champion["run_id"].tolist()


def test_a_refit_takes_the_place_of_its_predecessor(trained: Project) -> None:
    predecessor = trained.rows("select * from ml.model_runs").iloc[0]
    report = run_train(trained.settings, with_refit=True)
    runs = trained.rows("select * from ml.model_runs order by created_at")
    assert runs["status"].tolist() == ["retired", "champion"]
    assert runs["refitted"].tolist() == [False, True]
    refitted = runs.iloc[1]
    assert f"figures are those of {predecessor['run_id']}" in refitted["status_reason"]
    known = trained.rows(
        "select count(*) as rows from student_targets where is_training_point"
        f" and label_status = 'matured' and label_known_at < '{AS_OF_DATE}'"
    )["rows"].item()
    assert refitted["train_rows"] == known > predecessor["train_rows"]
    assert list(report.scored) == [refitted["run_id"]]
    figures = "select value from ml.model_metrics where run_id = '{}' order by all"
    assert trained.rows(figures.format(refitted["run_id"])).equals(
        trained.rows(figures.format(predecessor["run_id"]))
    )
    run_train(trained.settings, with_refit=True)
    assert _statuses(trained) == ["retired", "champion"]


def test_the_day_that_is_scored_does_not_make_another_run(trained: Project) -> None:
    other_day = TEST_FROM.replace(day=20)
    trained.run(
        f"update pipeline_settings set as_of_date = date '{other_day}'",
        "update student_targets set is_scoring_point = as_of_date ="
        " (select max(as_of_date) from student_targets where is_training_point"
        f" and as_of_date <= date '{other_day}')",
    )
    trained.run(
        "update pipeline_settings set as_of_date ="
        " (select max(as_of_date) from student_targets where is_scoring_point)"
    )
    run_train(trained.settings)
    assert _statuses(trained) == ["champion"]
    days = trained.rows("select distinct as_of_date from ml.student_scores")
    assert len(days) == 2


# ---------------------------------------------------------------- the edges


def test_nothing_to_score_is_said_loudly_with_a_day_that_has_something(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project(tmp_path, World(scoring=False))
    report = run_train(project.settings)
    assert report.run["status"] == "champion"
    assert list(report.scored.values()) == [0]
    assert "NOTHING TO SCORE" in caplog.text
    day = caplog.text.split("AS_OF_DATE=")[1][:10]
    found = project.rows(
        "select count(*) as points from student_targets"
        f" where is_training_point and as_of_date = '{day}'"
    )
    assert found["points"].item() > 0


def test_contacted_students_are_measured_apart(tmp_path: Path) -> None:
    project = make_project(tmp_path, World(contacted=True))
    run_train(project.settings)
    counts = project.rows(
        "select segment, max(rows) as rows from ml.model_metrics where split = 'test'"
        " and lead_days = -1 and segment in ('all', 'contacted') group by segment"
    ).set_index("segment")["rows"]
    predictions = project.rows("select * from ml.evaluation_predictions")
    contacted = int(predictions["contacted_before_due"].sum())
    assert counts["contacted"] == contacted > 0
    assert counts["all"] == len(predictions) - contacted


def test_other_settings_than_the_tables_were_built_with_are_refused(
    project: Project,
) -> None:
    other = project.with_settings(prediction_leads=(14,), observation_window_days=7)
    with pytest.raises(SettingsMismatch, match="PREDICTION_LEADS") as error:
        run_train(other.settings)
    assert "OBSERVATION_WINDOW_DAYS" in str(error.value)


def test_missing_baseline_columns_are_named(project: Project) -> None:
    project.run("alter table student_features_14d drop record_assessments_missed")
    with pytest.raises(UserError, match="record_assessments_missed"):
        run_train(project.settings)


def _command(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = project.settings
    environment = {
        "WAREHOUSE_PATH": str(settings.warehouse_path),
        "MODELS_PATH": str(settings.models_path),
        "PREDICTION_LEADS": settings.leads_text,
        "TEST_FROM": str(settings.test_from),
        "MODEL_N_ESTIMATORS": "20",
        "MODEL_MAX_DEPTH": "3",
        "SOURCE_SYSTEM": "sample",
        "TARGET_DEFINITION": "course_repurchased",
    }
    return subprocess.run(
        [sys.executable, "-m", "ml.train", *arguments],
        cwd=PROJECT_ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_tells_results_on_stdout_and_the_rest_on_stderr(
    trained: Project,
) -> None:
    finished = _command(trained)
    assert finished.returncode == 0, finished.stderr
    assert "PR-AUC with 95 % interval" in finished.stdout
    assert "champion" in finished.stdout
    assert "is there already" in finished.stderr
    assert "is there already" not in finished.stdout


def test_the_command_fails_with_a_clean_message(project: Project) -> None:
    project.run("drop table student_targets")
    finished = _command(project)
    assert finished.returncode == 1
    assert "student_targets" in finished.stderr
    assert "dbt build" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""


def test_importance_covers_every_feature_once(trained_once: Project) -> None:
    table = trained_once.rows("select * from ml.feature_importance order by 1, 5")
    features = set(trained_once.tables.features.columns) - set(KEY.split(", "))
    assert set(table["feature"]) == features
    assert table["importance_rank"].tolist() == list(range(1, len(features) + 1))
    assert (np.diff(table["mean_abs_contribution"]) <= 0).all()
