"""Which run is in charge: promotion, rollback, and the fairness gate before them."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import confusion_matrix
from synthetic import Project, make_project
from typer.testing import CliRunner

from ml.promote import (
    NotPromoted,
    app,
    describe_change,
    gate_objections,
    list_runs,
    promote,
    read_objections,
    roll_back,
)
from ml.registry import ArtifactError
from ml.score import ContractMismatch
from ml.train import run_train
from ml.warehouse import SettingsMismatch, WarehouseOutdated

STATUS = "select run_id, status, status_reason, promoted_at from ml.model_runs"


@pytest.fixture(scope="module")
def two_runs_once(
    trained_once: Project, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, str, str]:
    """A project with a champion and a challenger, and their ids."""
    folder = tmp_path_factory.mktemp("two")
    project = trained_once.copy_to(folder)
    champion = project.rows(STATUS)["run_id"].iloc[0]
    shallow = project.with_settings(model_max_depth=2)
    challenger = run_train(shallow.settings).run["run_id"]
    return project, champion, challenger


@pytest.fixture
def two_runs(
    two_runs_once: tuple[Project, str, str], tmp_path: Path
) -> tuple[Project, str, str]:
    """The same, for a test that changes it."""
    project, champion, challenger = two_runs_once
    return project.copy_to(tmp_path / "two"), champion, challenger


def statuses(project: Project) -> dict[str, str]:
    return dict(project.rows(STATUS)[["run_id", "status"]].to_numpy().tolist())


# ---------------------------------------------------------------- changing


def test_a_promotion_retires_the_champion_and_says_what_comes_next(two_runs) -> None:
    project, champion, challenger = two_runs
    change = promote(project.settings, challenger)
    assert statuses(project) == {champion: "retired", challenger: "champion"}
    told = describe_change(change)
    assert f"{champion} is retired" in told
    assert "dbt build --select source:ml+" in told and "ml.score" not in told


def test_a_champion_without_scores_of_the_day_says_how_to_get_them(two_runs) -> None:
    project, _, challenger = two_runs
    project.run(f"delete from ml.student_scores where run_id = '{challenger}'")
    told = describe_change(promote(project.settings, challenger))
    assert "has not scored 2024-01-15" in told and "python -m ml.score" in told


def test_rollback_goes_back_one_by_one_and_never_forward(two_runs) -> None:
    project, first, second = two_runs
    promote(project.settings, second)
    # A third champion: rolling back from it leads to the second, then to the first.
    project.run(
        "insert into ml.model_runs select * replace ('third' as run_id,"
        f" 'challenger' as status) from ml.model_runs where run_id = '{second}'",
        f"update ml.model_runs set status = 'retired' where run_id = '{second}'",
        "update ml.model_runs set status = 'champion', promoted_at ="
        " promoted_at + interval 1 second where run_id = 'third'",
    )
    assert roll_back(project.settings).champion == second
    assert statuses(project) == {
        first: "retired",
        second: "champion",
        "third": "retired",
    }
    assert roll_back(project.settings).champion == first
    with pytest.raises(NotPromoted, match="no earlier champion"):
        roll_back(project.settings)
    assert statuses(project)[first] == "champion"


def test_a_run_that_was_rolled_back_from_can_be_promoted_again(two_runs) -> None:
    project, first, second = two_runs
    promote(project.settings, second)
    roll_back(project.settings)
    reasons = project.rows(STATUS).set_index("run_id")["status_reason"]
    assert reasons[first] == f"Rolled back from {second}."
    # Training it again does not make it one to go back to.
    run_train(project.with_settings(model_max_depth=2).settings, force=True)
    assert project.rows(STATUS).set_index("run_id")["status_reason"][second] == (
        f"Rolled back to {first}."
    )
    with pytest.raises(NotPromoted, match="no earlier champion"):
        roll_back(project.settings)
    promote(project.settings, second)
    assert roll_back(project.settings).champion == first


def test_a_champion_of_an_older_version_can_be_gone_back_to(two_runs) -> None:
    """That version did not keep when a run was promoted."""
    project, first, second = two_runs
    project.run("update ml.model_runs set promoted_at = null")
    promote(project.settings, second)
    assert roll_back(project.settings).champion == first


def test_going_back_where_no_run_is_champion_names_none(two_runs) -> None:
    project, _, second = two_runs
    promote(project.settings, second)
    project.run(f"delete from ml.model_runs where run_id = '{second}'")
    assert roll_back(project.settings).before is None
    assert "None" not in project.rows(STATUS)["status_reason"].item()


def test_after_a_promoted_refit_one_can_go_back_to_its_parent(two_runs) -> None:
    project, parent, _ = two_runs
    refit = run_train(project.settings, with_refit=True, promote=True).run["run_id"]
    assert statuses(project)[refit] == "champion"
    change = roll_back(project.settings)
    assert (change.champion, change.before) == (parent, refit)
    assert statuses(project)[refit] == "retired"


# ---------------------------------------------------------------- refusing


def test_runs_that_cannot_be_promoted_are_named_with_the_reason(two_runs) -> None:
    project, champion, challenger = two_runs
    with pytest.raises(NotPromoted, match=rf"no run nosuch.*{champion}"):
        promote(project.settings, "nosuch")
    with pytest.raises(NotPromoted, match="champion already"):
        promote(project.settings, champion)
    project.run(
        "update ml.model_runs set status = 'refused', status_reason = 'Too weak.'"
        f" where run_id = '{challenger}'"
    )
    with pytest.raises(NotPromoted, match="refused: Too weak"):
        promote(project.settings, challenger)
    assert statuses(project)[champion] == "champion"


def test_a_model_that_cannot_score_is_not_promoted(two_runs) -> None:
    project, champion, challenger = two_runs
    project.run("alter table student_features_14d add column new_one double")
    with pytest.raises(ContractMismatch, match="new_one is new"):
        promote(project.settings, challenger)
    folder = project.settings.models_path / challenger
    (folder / "model.ubj").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=r"model\.ubj was changed"):
        promote(project.settings, challenger)
    (folder / "artifact.json").unlink()
    with pytest.raises(ArtifactError, match=challenger):
        promote(project.settings, challenger)
    assert statuses(project) == {champion: "champion", challenger: "challenger"}


def test_rollback_checks_the_model_too(two_runs) -> None:
    project, champion, challenger = two_runs
    promote(project.settings, challenger)
    (project.settings.models_path / champion / "model.ubj").unlink()
    with pytest.raises(ArtifactError, match=champion):
        roll_back(project.settings)
    assert statuses(project)[challenger] == "champion"


def test_other_settings_than_those_of_the_tables_are_refused(two_runs) -> None:
    project, _, challenger = two_runs
    other = project.with_settings(observation_window_days=7)
    with pytest.raises(SettingsMismatch, match="OBSERVATION_WINDOW_DAYS"):
        promote(other.settings, challenger)


def test_a_warehouse_of_an_older_version_is_told_what_it_lacks(two_runs) -> None:
    project, _, challenger = two_runs
    project.run(
        "alter table ml.model_runs drop column promoted_at",
        "alter table ml.evaluation_predictions drop column confidence",
        "alter table ml.evaluation_predictions drop column baseline_logistic",
    )
    for command in (
        lambda: run_train(project.settings),
        lambda: promote(project.settings, challenger),
        lambda: roll_back(project.settings),
        lambda: list_runs(project.settings),
    ):
        with pytest.raises(WarehouseOutdated) as error:
            command()
        assert "ml.model_runs has no column promoted_at\n" in str(error.value)
        assert "predictions has no column confidence, baseline_logistic\n" in str(
            error.value
        )
        assert "dbt build" in str(error.value)


# ---------------------------------------------------------------- command


def test_the_list_shows_every_run_with_its_figure(two_runs) -> None:
    project, champion, challenger = two_runs
    head, *lines = list_runs(project.settings).splitlines()
    assert head.split()[:2] == ["run", "status"]
    assert {tuple(line.split()[:2]) for line in lines} == {
        (champion, "champion"),
        (challenger, "challenger"),
    }
    assert all(0 < float(line.split()[3]) < 1 for line in lines)


@pytest.mark.parametrize("arguments", [[], ["--list", "--rollback"], ["run", "--list"]])
def test_the_command_wants_to_be_told_one_thing(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and "Say one thing" in done.output


# ---------------------------------------------------------------- the gate


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Trained under a strict gate; students who fail often and seldom are groups."""
    folder = tmp_path_factory.mktemp("gated")
    project = make_project(folder)
    project.run(
        "create table student_attributes as select student_id,"
        " cast(null as varchar) as course_run_id, 'habit' as attribute,"
        " case when avg(at_risk) >= 0.35 then 'often' else 'seldom' end as value"
        " from student_targets group by student_id"
        " union all select distinct student_id, null, 'everybody', 'the same'"
        " from student_targets"
    )
    project = project.with_settings(fairness_max_gap=0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBT_TARGET_PATH", str(folder / "target"))
        patch.setenv("DBT_LOG_PATH", str(folder / "logs"))
        run_train(project.settings)
        yield project


def test_the_first_run_waits_for_the_gate_and_is_not_let_through(gated) -> None:
    run = gated.rows(STATUS).iloc[0]
    assert run["status"] == "challenger" and pd.isna(run["promoted_at"])
    assert "FAIRNESS_MAX_GAP=0.05" in run["status_reason"]
    failed = gated.rows(
        "select attribute, rate, words from fairness_gate where passes is false"
    )
    assert set(failed["attribute"]) == {"habit"}
    assert "calibration_gap" in set(failed["rate"])
    assert all(words in run["status_reason"] for words in failed["words"])


def test_the_rates_of_a_group_agree_with_scikit_learn_and_their_interval(gated) -> None:
    """The same figures another way: residuals by student, Wilson by its equation."""
    points = gated.rows(
        "select predictions.*, value from ml.evaluation_predictions as predictions"
        " inner join student_attributes using (student_id)"
        " where attribute = 'habit' and lead_days = 14"
        " order by student_id, as_of_date"
    )
    cut = points["risk_score"].nlargest(int(len(points) * 0.1)).min()
    points["flag"] = (points["risk_score"] >= cut).astype(int)
    group = points[points["value"] == "often"]
    passed, in_vain, missed, found = confusion_matrix(
        group["at_risk"], group["flag"]
    ).ravel()
    rate = missed / (missed + found)
    failing = group[group["at_risk"] == 1]
    residual = (1 - failing["flag"] - rate).groupby(failing["student_id"]).sum()
    variance = len(residual) * residual.var(ddof=1) / len(failing) ** 2
    effective = min(len(failing), rate * (1 - rate) / variance)
    z = norm.ppf(0.975)

    def off_by(p: float) -> float:
        return (rate - p) ** 2 - z**2 * p * (1 - p) / effective

    row = gated.rows(
        "select * from fairness_groups where attribute = 'habit' and value = 'often'"
        " and lead_days = 14"
    ).iloc[0]
    assert effective < len(failing)
    assert (row["points"], row["positives"]) == (len(group), len(failing))
    assert row["students"] == group["student_id"].nunique()
    expected = {
        "false_negative_rate": rate,
        "false_negative_rate_low": brentq(off_by, 0, rate),
        "false_negative_rate_high": brentq(off_by, rate, 1),
        "false_positive_rate": in_vain / (in_vain + passed),
        "precision": found / (found + in_vain),
        "flag_rate": group["flag"].mean(),
        "calibration_gap": (group["risk_score"] - group["at_risk"]).mean(),
    }
    measured = row[list(expected)].astype(float)
    np.testing.assert_allclose(measured, list(expected.values()), atol=1e-6)


def test_training_again_and_promoting_ask_the_gate_again(gated) -> None:
    """A wider gate lets the same run through; what it said before is replaced. The
    run is asked about although there are more newer ones than are monitored."""
    run_id = gated.rows(STATUS)["run_id"].iloc[0]
    gated.run(
        "insert into ml.model_runs select runs.* replace ('newer' || n as run_id,"
        " 'refused' as status, created_at + interval 1 day as created_at)"
        " from ml.model_runs as runs cross join range(5) as numbers(n)"
    )
    with pytest.raises(NotPromoted) as refused:
        promote(gated.settings, run_id)
    failed = gated.rows("from fairness_gate where not passes")
    assert set(failed["run_id"]) == {run_id}
    for words in failed["words"]:
        assert words in str(refused.value)
    gated.run("delete from ml.model_runs where run_id like 'newer%'")
    assert statuses(gated) == {run_id: "challenger"}

    wide = gated.with_settings(fairness_max_gap=1.0)
    report = run_train(wide.settings)
    assert report.run["status"] == "champion"
    assert "Passed the fairness gate" in report.run["status_reason"]
    assert "0.05" not in report.run["status_reason"]
    assert report.run["status_reason"].startswith("Promoted.")
    doubts = gated.rows("select doubt from fairness_gate where doubt is not null")
    assert doubts["doubt"].str.contains("By everybody, .*one group").any()
    assert all(doubt in report.run["status_reason"] for doubt in doubts["doubt"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("('m', null, true, 'One group.')", ["No two groups are large enough"]),
        ("('m', null, false, 'Not asked.')", ["Nothing was measured"]),
        ("('other', true, true, 'Fine.')", ["Nothing was measured"]),
        ("('m', true, true, 'Fine.'), ('m', null, true, 'One group.')", []),
        (
            "('m', true, true, 'Fine.'), ('m', false, true, 'Too wide.'),"
            " ('m', false, true, 'This too.'), ('m', null, false, 'Not asked.')",
            ["Too wide.", "This too."],
        ),
    ],
)
def test_a_gate_that_can_compare_nothing_lets_nobody_through(
    rows: str, said: list[str]
) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "create table fairness_gate as select *, 'habit' as attribute, 'r' as rate"
            f" from (values {rows}) as t(run_id, passes, is_gated, words)"
        )
        found = read_objections(connection, "m")
    assert len(found) == len(said)
    assert all(text.startswith(words) for text, words in zip(found, said, strict=True))


def test_without_a_gate_nothing_is_asked(trained_once: Project) -> None:
    reason = trained_once.rows(STATUS)["status_reason"].iloc[0]
    assert gate_objections(trained_once.settings, "any") == []
    assert "airness" not in reason
