"""Train, evaluate and score: `python -m ml.train`."""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, cast

import duckdb
import pandas as pd
import typer

from ml import registry
from ml.cli import Engine, clean_errors, start_logging
from ml.dataset import (
    Points,
    Split,
    headline_lead,
    read_points,
    split_points,
)
from ml.decisions import TABLE as DECISIONS
from ml.decisions import decision_table
from ml.promote import gate_objections, gate_text
from ml.registry import Artifact, RunInputs
from ml.runs import Report, run_row, run_settings, status_of, summarise
from ml.score import (
    WRITE_WAIT_SECONDS,
    ContractMismatch,
    Scored,
    ScoringPoints,
    check_same_build,
    copy_points,
    proposed_day,
    score_day,
    warn_nothing_to_score,
    write_scores,
)
from ml.search import CANDIDATES
from ml.settings import Settings, UserError, load_settings
from ml.spark import import_session
from ml.studies import SPLITS, read_attributes, run_studies
from ml.training import Refitted, Trained, refit, train_model
from ml.warehouse import (
    PipelineSettings,
    check_pipeline_settings,
    create_handback_tables,
    open_warehouse,
    read_rows,
    replace_rows,
    transaction,
    typed_rows,
)

# Tables that hold what a run's training found; student_scores is apart.
RUN_TABLES = (
    "ml.evaluation_predictions",
    "ml.model_metrics",
    "ml.feature_importance",
    "ml.partial_dependence",
    "ml.calibration_curve",
    DECISIONS,
    "ml.search_results",
)
# Tasks that train a model together on Spark, unless told otherwise.
SPARK_WORKERS = 2
log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Inputs:
    """All that training reads from the warehouse."""

    built: PipelineSettings
    points: Points
    to_score: ScoringPoints
    attributes: pd.DataFrame
    runs: pd.DataFrame


# ---------------------------------------------------------------- reading


def read_inputs(settings: Settings) -> Inputs:
    """Read points and runs and let go of the warehouse; what is to be scored goes
    into a file."""
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        built = check_pipeline_settings(connection, settings)
        return Inputs(
            built=built,
            points=read_points(connection),
            to_score=copy_points(connection, settings.warehouse_path.parent),
            attributes=read_attributes(connection),
            runs=registry.read_runs(
                connection, settings.source_system, settings.target_definition
            ),
        )


def describe_run(
    settings: Settings,
    split: Split,
    kinds: dict[str, str],
    candidates: int = CANDIDATES,
) -> RunInputs:
    """What the run is known by; the day that is scored is no part of it."""
    return RunInputs(
        data_fingerprint=registry.fingerprint_points(split.known, split.test),
        code_fingerprint=registry.fingerprint_code(),
        feature_fingerprint=registry.fingerprint_features(kinds),
        settings=run_settings(settings, split.sizes, candidates),
    )


# ---------------------------------------------------------------- writing


def write_trained(
    connection: duckdb.DuckDBPyConnection,
    trained: Trained,
    split: Split,
    promote: bool,
    hold: bool,
) -> None:
    """Write everything that a training found, and the run's row."""
    artifact, reason = trained.artifact, trained.verdict.reason
    runs = _runs_like(connection, artifact)
    status = registry.choose_status(
        artifact.run_id, trained.verdict.refused, None, promote, runs, hold
    )
    if status == registry.CHALLENGER and not hold:
        reason += f" {registry.find_champion(runs)} stays champion until promotion."
    created_at = _created_at(runs, artifact.run_id)
    versions = registry.library_versions()
    row = run_row(artifact, split.sizes, status, reason, created_at, versions)
    _write_run(connection, row)
    for name, table in trained.tables.items():
        replace_rows(connection, name, table, {"run_id": artifact.run_id})


def write_refit(
    connection: duckdb.DuckDBPyConnection,
    refitted: Refitted,
    as_of_date: date,
    promote: bool,
    hold: bool,
) -> None:
    """Write a refit's row, with its predecessor's figures under its own name."""
    artifact, parent = refitted.artifact, refitted.parent
    runs = _runs_like(connection, artifact)
    status = registry.choose_status(artifact.run_id, False, parent, promote, runs, hold)
    changed = {
        "run_id": artifact.run_id,
        "status": status,
        "status_reason": f"Refit of {parent} on every label known before "
        f"{as_of_date}; the figures are those of {parent}.",
        "data_fingerprint": artifact.inputs.data_fingerprint,
        "settings": json.dumps(artifact.inputs.settings, sort_keys=True),
        "train_rows": refitted.rows,
        "artifact_path": artifact.run_id,
        "refitted": True,
        "created_at": _created_at(runs, artifact.run_id),
    }
    _write_run(connection, _row_of(runs, parent) | changed)
    for name in RUN_TABLES:
        table = read_rows(connection, name, {"run_id": parent})
        table = table.assign(run_id=artifact.run_id)
        replace_rows(connection, name, table, {"run_id": artifact.run_id})


def write_studies(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    runs: pd.DataFrame,
    table: pd.DataFrame,
) -> None:
    """Put the rows of the studies beside the other figures of the run, and of those
    of `runs` that are refits of it: its figures are theirs."""
    for owner in (run_id, *registry.find_refits(run_id, runs)):
        for name in SPLITS:
            rows = table[table["split"] == name].assign(run_id=owner)
            where = {"run_id": owner, "split": name}
            replace_rows(connection, "ml.model_metrics", rows, where)


def _runs_like(
    connection: duckdb.DuckDBPyConnection, artifact: Artifact
) -> pd.DataFrame:
    """The runs of the artifact's source and target, as they are now."""
    settings = artifact.inputs.settings
    return registry.read_runs(
        connection, settings["source_system"], settings["target_definition"]
    )


def _row_of(runs: pd.DataFrame, run_id: str) -> dict[str, Any]:
    row = runs[runs["run_id"] == run_id].iloc[0].to_dict()
    return cast(dict[str, Any], row)


def _write_run(connection: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> None:
    run_id = row["run_id"]
    runs = registry.read_runs(
        connection, row["source_system"], row["target_definition"]
    )
    row = row | {"promoted_at": registry.promotion_time(run_id, row["status"], runs)}
    if row["status"] == registry.RETIRED:
        # What it was retired for, not what was found when it was trained again.
        row = row | {"status_reason": _row_of(runs, run_id)["status_reason"]}
    replace_rows(connection, "ml.model_runs", pd.DataFrame([row]), {"run_id": run_id})
    if row["status"] == registry.CHAMPION:
        registry.retire_others(
            connection, run_id, row["source_system"], row["target_definition"]
        )


def _created_at(runs: pd.DataFrame, run_id: str) -> datetime:
    """When the run was first written: now, unless it was there before."""
    before = runs.loc[runs["run_id"] == run_id, "created_at"]
    if len(before):
        return before.iloc[0]
    return datetime.now(UTC).replace(tzinfo=None)


# ---------------------------------------------------------------- command


def run_train(
    settings: Settings,
    force: bool = False,
    with_refit: bool = False,
    promote: bool = False,
    with_studies: bool = False,
    candidates: int = CANDIDATES,
) -> Report:
    """Train unless this very run is there already, score the day, write it all.

    Parameters
    ----------
    force
        Train even where a run with the same inputs and an intact model exists.
    with_refit
        Serve the chosen parameters trained on every label known before AS_OF_DATE.
    promote
        Make the run champion, unless it is refused.
    with_studies
        Run the studies too, unless the run has them already.
    candidates
        How many the search draws.
    """
    found = read_inputs(settings)
    headline = headline_lead(settings.prediction_leads)
    as_of_date = found.built.as_of_date
    split = split_points(found.points, settings.test_from, as_of_date, headline)
    inputs = describe_run(settings, split, found.points.kinds, candidates)
    trained = None
    if not force and _is_done(settings, found.runs, inputs.run_id):
        log.info("Run %s is there already (--force trains again).", inputs.run_id)
        artifact = registry.load_artifact(settings.models_path, inputs.run_id)
        refused = status_of(found.runs, inputs.run_id) == registry.REFUSED
    else:
        trained = train_model(
            split, inputs, settings.fixed_parameters, headline, candidates
        )
        artifact, refused = trained.artifact, trained.verdict.refused
        registry.save_artifact(settings.models_path, artifact)
    studied = None
    if not with_studies:
        log.info("No studies (--no-studies); a later `python -m ml.train` adds them.")
    elif trained or not _is_studied(settings, artifact.run_id):
        studied = run_studies(split, artifact, found.attributes, headline)
    refitted = None
    if with_refit and not refused:
        refitted = refit(artifact, found.points, as_of_date)
        registry.save_artifact(settings.models_path, refitted.artifact)
    if refused and (promote or with_refit):
        log.warning("The run is refused: it is neither promoted nor refitted.")
    serving = refitted.artifact if refitted else artifact
    promote = promote and not refused
    takes_charge = _takes_charge(found.runs, serving, refused, promote)
    hold = takes_charge and settings.fairness_max_gap is not None
    scored = _score_all(settings, found, serving, refused, promote, hold)
    decisions = _decide(settings, found.runs, trained, artifact.run_id, headline)
    path = settings.warehouse_path
    with open_warehouse(path, wait_seconds=WRITE_WAIT_SECONDS) as connection:
        check_same_build(connection, found.built)
        create_handback_tables(connection, "ml")
        with transaction(connection):
            if trained:
                write_trained(
                    connection, trained, split, promote, hold or refitted is not None
                )
            elif takes_charge and not hold and not refitted:
                registry.promote(connection, artifact.run_id, "Promoted.")
            if studied is not None:
                write_studies(connection, artifact.run_id, found.runs, studied)
            for run_id, table in decisions.items():
                replace_rows(connection, DECISIONS, table, {"run_id": run_id})
            if refitted:
                write_refit(connection, refitted, as_of_date, promote, hold)
            for each in scored:
                write_scores(connection, each)
        if not found.to_score.spool.rows:
            proposal = proposed_day(connection, split.test_from)
            warn_nothing_to_score(as_of_date, proposal)
    if hold:
        ask_gate(settings, serving.run_id)
    with open_warehouse(path, read_only=True) as connection:
        return _report(connection, serving.run_id, scored, headline)


def _takes_charge(
    runs: pd.DataFrame, serving: Artifact, refused: bool, promote: bool
) -> bool:
    """Whether the run would become champion that is not champion yet."""
    refit_of = serving.inputs.settings.get("refit_of")
    status = registry.choose_status(serving.run_id, refused, refit_of, promote, runs)
    champion = registry.find_champion(runs)
    return status == registry.CHAMPION and serving.run_id != champion


def ask_gate(settings: Settings, run_id: str) -> None:
    """Make a run that was written as challenger champion if the gate lets it pass."""
    objections = gate_objections(settings, run_id)
    said = gate_text(settings, run_id, objections)
    path = settings.warehouse_path
    with (
        open_warehouse(path, wait_seconds=WRITE_WAIT_SECONDS) as connection,
        transaction(connection),
    ):
        if not objections:
            registry.promote(connection, run_id, "Promoted.")
        registry.note_gate(connection, run_id, said)
    if objections:
        log.warning("The run stays challenger. %s", said)


def _decide(
    settings: Settings,
    runs: pd.DataFrame,
    trained: Trained | None,
    run_id: str,
    headline: int,
) -> dict[str, pd.DataFrame]:
    """Decision tables of this run and of the champion, under the costs of today.

    Costs, capacity and thresholds are no part of a run: a run that is there already
    gets its table anew from its `evaluation_predictions`.
    """
    name = "ml.evaluation_predictions"
    predictions = {}
    if trained:
        predictions[run_id] = typed_rows(name, trained.tables[name])
    wanted = {run_id, registry.find_champion(runs)} - {None, *predictions}
    if wanted:
        with open_warehouse(settings.warehouse_path, read_only=True) as connection:
            for other in sorted(map(str, wanted)):
                predictions[other] = read_rows(connection, name, {"run_id": other})
    return {
        each: decision_table(rows, settings, headline).assign(run_id=each)
        for each, rows in predictions.items()
    }


def _is_done(settings: Settings, runs: pd.DataFrame, run_id: str) -> bool:
    known = status_of(runs, run_id) is not None
    return known and registry.has_artifact(settings.models_path, run_id)


def _is_studied(settings: Settings, run_id: str) -> bool:
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        metrics = read_rows(connection, "ml.model_metrics", {"run_id": run_id})
    return bool(metrics["split"].isin(SPLITS).any())


def _score_all(
    settings: Settings,
    found: Inputs,
    serving: Artifact,
    refused: bool,
    promote: bool,
    hold: bool,
) -> list[Scored]:
    """Scores of this run, and of the champion where that is another one."""
    as_of_date = found.built.as_of_date
    window = settings.observation_window_days
    scored = []
    if not refused:
        scored.append(score_day(serving, found.to_score, as_of_date, window))
    status = registry.choose_status(
        serving.run_id,
        refused,
        serving.inputs.settings.get("refit_of"),
        promote,
        found.runs,
        hold,
    )
    champion = registry.find_champion(found.runs)
    if status == registry.CHAMPION or champion in (None, serving.run_id):
        return scored
    try:
        artifact = registry.load_artifact(settings.models_path, str(champion))
        scored.append(score_day(artifact, found.to_score, as_of_date, window))
    except (registry.ArtifactError, ContractMismatch) as error:
        log.warning("The champion did not score: %s", error)
    return scored


def _report(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    scored: list[Scored],
    headline: int,
) -> Report:
    where = {"run_id": run_id}
    run = _row_of(read_rows(connection, "ml.model_runs", where), run_id)
    metrics = read_rows(connection, "ml.model_metrics", where)
    counts = {each.run_id: each.scores.rows for each in scored}
    return Report(run, metrics, counts, headline)


@app.command(epilog="Example: TEST_FROM=2014-01-01 python -m ml.train")
def main(
    with_refit: Annotated[
        bool,
        typer.Option(
            "--refit",
            help="Score with the chosen parameters trained again on every label "
            "known before AS_OF_DATE.",
        ),
    ] = False,
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Make this run the champion."),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Train again even if nothing has changed."),
    ] = False,
    with_studies: Annotated[
        bool,
        typer.Option(
            "--studies/--no-studies",
            help="Measure what the model is worth under other questions: backtest, "
            "ablation and the like. A run without them gets them later.",
        ),
    ] = True,
    candidates: Annotated[
        int, typer.Option(min=1, max=1000, help="Candidates that the search draws.")
    ] = CANDIDATES,
    engine: Annotated[
        Engine, typer.Option(help="Whose tables to train on (docs/spark-training.md).")
    ] = Engine.DUCKDB,
    workers: Annotated[
        int,
        typer.Option(
            min=1, max=10_000, help="Spark: tasks that train a model together."
        ),
    ] = SPARK_WORKERS,
) -> None:
    """Train a model, evaluate it once, and score the day of the tables."""
    with clean_errors():
        settings = load_settings()
        start_logging(settings)
        if engine == Engine.SPARK:
            if with_refit:
                raise UserError(
                    "--refit trains on DuckDB only, not with --engine spark."
                )
            report = _train_on_spark(settings, force, promote, candidates, workers)
        else:
            report = run_train(
                settings, force, with_refit, promote, with_studies, candidates
            )
        print(summarise(report))


def _train_on_spark(
    settings: Settings, force: bool, promote: bool, candidates: int, workers: int
) -> Report:
    import_session()
    # Not before it is known that pyspark is there.
    from ml.on_spark.train import run_train_on_spark

    log.info("No studies on Spark: they are left to DuckDB.")
    return run_train_on_spark(settings, force, promote, candidates, workers)


if __name__ == "__main__":
    app()
