"""`python -m ml.train --engine spark`: train, evaluate and score on Spark's tables.

Nothing is published before everything is computed, and the run's row comes last. So a
command that ends half-way, for whatever reason, leaves the tables as they were, or
rows of a run that has no row in `model_runs` yet: the next command replaces them.
"""

import logging
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from ml import registry
from ml.dataset import headline_lead
from ml.dbt import run_dbt
from ml.decisions import TABLE as DECISIONS
from ml.decisions import decision_table
from ml.on_spark.boosting import first_line, wait_for_slots
from ml.on_spark.points import (
    SparkPoints,
    SparkSplit,
    fingerprint_points,
    read_points,
    split_points,
)
from ml.on_spark.scoring import score_on_spark
from ml.on_spark.tables import (
    Staged,
    check_pipeline_settings,
    create_handback_tables,
    publish,
    read_pipeline_settings,
    read_rows,
    read_staged,
    replace_rows,
    select_rows,
    stage_rows,
)
from ml.on_spark.training import (
    PREDICTIONS,
    TrainedOnSpark,
    collect_predictions,
    train_on_spark,
)
from ml.promote import GATE_MODELS, gate_words, objections_of
from ml.registry import Artifact, RunInputs
from ml.runs import Report, run_row, run_settings, status_of
from ml.score import (
    SCORES,
    ContractMismatch,
    refuse_other_build,
    warn_nothing_to_score,
)
from ml.search import CANDIDATES
from ml.settings import PROJECT_ROOT, Settings, UserError
from ml.spark import open_spark
from ml.warehouse import PipelineSettings, typed_rows

RUNS = "ml.model_runs"
WORKERS = 2
# Beside what all models are made with.
CODE = ("boosting", "logistic", "points", "scoring", "training")
LIBRARIES = ("pyspark",)

log = logging.getLogger(__name__)
# Where the package lies that each session was given, until this process ends: an
# executor that takes the place of a lost one asks for it again.
_sent: dict[str, tempfile.TemporaryDirectory[str]] = {}


@dataclass(frozen=True)
class Found:
    """What a training begins with; features are in the executors' care."""

    built: PipelineSettings
    runs: pd.DataFrame
    points: SparkPoints
    split: SparkSplit
    inputs: RunInputs
    headline: int


# ---------------------------------------------------------------- the session


@contextmanager
def open_for_training(settings: Settings) -> Iterator[SparkSession]:
    """The session, with this package on every executor, and errors in plain words."""
    # Executors that lie elsewhere have their own, by the same variable.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # What pandas 3 breaks in pyspark is not used here.
    unsupported = "PySpark does not yet fully support"
    warnings.filterwarnings("ignore", message=unsupported)
    os.environ.setdefault("PYTHONWARNINGS", f"ignore:{unsupported}:FutureWarning")
    with open_spark(settings) as spark, _plain_errors():
        spark.conf.set("spark.sql.execution.arrow.pyspark.enabled", "true")
        _send_package(spark)
        yield spark


def _send_package(spark: SparkSession) -> None:
    """Give the package `ml` to all executors, also to those that come later."""
    application = spark.sparkContext.applicationId
    if application not in _sent:
        _sent[application] = tempfile.TemporaryDirectory(prefix="student-success-")
        archive = _zip_package(Path(_sent[application].name))
        spark.sparkContext.addPyFile(str(archive))


def _zip_package(folder: Path) -> Path:
    archive = folder / "ml.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for source in sorted((PROJECT_ROOT / "ml").rglob("*.py")):
            packed.write(source, source.relative_to(PROJECT_ROOT))
    return archive


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (Py4JError, PySparkException, ConnectionError) as error:
        raise UserError(
            f"Spark ended with an error: {first_line(error)}\n"
            "No table was left half-written. See to its executors (their logs say "
            "more), and run the command again."
        ) from error


# ---------------------------------------------------------------- reading


def _find(
    settings: Settings, spark: SparkSession, candidates: int, workers: int
) -> Found:
    built = check_pipeline_settings(spark, settings)
    create_handback_tables(spark)
    points = read_points(spark)
    headline = headline_lead(settings.prediction_leads)
    split = split_points(points, settings.test_from, built.as_of_date, headline)
    inputs = RunInputs(
        data_fingerprint=fingerprint_points(split),
        code_fingerprint=registry.fingerprint_code(
            [f"on_spark/{name}" for name in CODE], LIBRARIES
        ),
        feature_fingerprint=registry.fingerprint_features(points.kinds),
        settings=run_settings(settings, split.sizes, candidates)
        # Sums of floats depend on how many share the rows.
        | {"engine": "spark", "workers": workers},
    )
    runs = runs_like(settings, read_rows(spark, RUNS, {}))
    return Found(built, runs, points, split, inputs, headline)


def runs_like(settings: Settings, runs: pd.DataFrame) -> pd.DataFrame:
    """Those of this source and target."""
    same = (runs["source_system"] == settings.source_system) & (
        runs["target_definition"] == settings.target_definition
    )
    return runs[same].reset_index(drop=True)


# ---------------------------------------------------------------- computing


def _decide(
    settings: Settings,
    spark: SparkSession,
    found: Found,
    trained: TrainedOnSpark | None,
) -> dict[str, pd.DataFrame]:
    """Decision tables of this run and of the champion, under the costs of today."""
    run_id = found.inputs.run_id
    predictions = {run_id: trained.judged} if trained else {}
    for other in {run_id, registry.find_champion(found.runs)} - {None, *predictions}:
        rows = select_rows(spark, PREDICTIONS, {"run_id": other})
        predictions[str(other)] = collect_predictions(rows, rows.count())
    return {
        each: decision_table(rows, settings, found.headline).assign(run_id=each)
        for each, rows in sorted(predictions.items())
    }


def _score_all(
    settings: Settings,
    spark: SparkSession,
    found: Found,
    artifact: Artifact,
    refused: bool,
    status: str,
) -> list[Staged]:
    """Scores of this run, and of the champion where that is another one."""
    day, window = found.built.as_of_date, settings.observation_window_days
    staged = []
    if not refused:
        staged += score_on_spark(spark, artifact, found.points, day, window)
    champion = registry.find_champion(found.runs)
    if status == registry.CHAMPION or champion in (None, artifact.run_id):
        return staged
    try:
        other = registry.load_artifact(settings.models_path, str(champion))
        staged += score_on_spark(spark, other, found.points, day, window)
    except (registry.ArtifactError, ContractMismatch) as error:
        log.warning("The champion did not score: %s", error)
    return staged


# ---------------------------------------------------------------- writing


def _row_of_run(
    found: Found, trained: TrainedOnSpark, status: str, hold: bool
) -> dict[str, Any]:
    artifact, verdict = trained.trained.artifact, trained.trained.verdict
    reason = verdict.reason
    if status == registry.CHALLENGER and not hold:
        champion = registry.find_champion(found.runs)
        reason += f" {champion} stays champion until promotion."
    before = found.runs[found.runs["run_id"] == artifact.run_id]
    created_at = before["created_at"].iloc[0] if len(before) else _now()
    versions = registry.library_versions(LIBRARIES)
    row = run_row(artifact, found.split.sizes, status, reason, created_at, versions)
    if status == registry.RETIRED:
        # What it was retired for, not what was found when it was trained again.
        row["status_reason"] = before["status_reason"].iloc[0]
    promoted_at = registry.promotion_time(artifact.run_id, status, found.runs)
    return row | {"promoted_at": promoted_at}


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def put_run(runs: pd.DataFrame, row: dict[str, Any]) -> pd.DataFrame:
    """All runs with this one in its place; a champion retires the one before."""
    others = runs[runs["run_id"] != row["run_id"]]
    if row["status"] == registry.CHAMPION:
        replaced = (
            (others["status"] == registry.CHAMPION)
            & (others["source_system"] == row["source_system"])
            & (others["target_definition"] == row["target_definition"])
        )
        reason = f"{registry.REPLACED}{row['run_id']}."
        others = others.assign(
            status=others["status"].mask(replaced, registry.RETIRED),
            status_reason=others["status_reason"].mask(replaced, reason),
        )
    return typed_rows(RUNS, pd.concat([others, pd.DataFrame([row])], ignore_index=True))


def _promote(runs: pd.DataFrame, run_id: str, reason: str) -> pd.DataFrame:
    found = runs[runs["run_id"] == run_id].iloc[0]
    row = {str(name): value for name, value in found.items()}
    promoted = {
        "status": registry.CHAMPION,
        "status_reason": reason,
        "promoted_at": _now(),
    }
    return put_run(runs, row | promoted)


# ---------------------------------------------------------------- command


def run_train_on_spark(
    settings: Settings,
    force: bool = False,
    promote: bool = False,
    candidates: int = CANDIDATES,
    workers: int = WORKERS,
) -> Report:
    """Train unless this very run is there already, score the day, write it all.

    Parameters
    ----------
    force
        Train even where a run with the same inputs and an intact model exists.
    promote
        Make the run champion, unless it is refused.
    candidates
        How many the search draws.
    workers
        Tasks that train a model together; another number is another run.
    """
    with open_for_training(settings) as spark:
        wait_for_slots(spark, workers)
        report, hold = _train(settings, spark, force, promote, candidates, workers)
    # Outside, because dbt opens the same tables.
    return _ask_gate(settings, report) if hold else report


def _train(
    settings: Settings,
    spark: SparkSession,
    force: bool,
    promote: bool,
    candidates: int,
    workers: int,
) -> tuple[Report, bool]:
    """What a training has to tell, and whether the fairness gate is still to be asked
    about its run."""
    found = _find(settings, spark, candidates, workers)
    run_id = found.inputs.run_id
    trained = None
    if not force and _is_done(settings, found):
        log.info("Run %s is there already (--force trains again).", run_id)
        artifact = registry.load_artifact(settings.models_path, run_id)
        refused = status_of(found.runs, run_id) == registry.REFUSED
    else:
        trained = train_on_spark(
            found.split,
            found.inputs,
            settings.fixed_parameters,
            found.headline,
            candidates,
            workers,
        )
        artifact = trained.trained.artifact
        refused = trained.trained.verdict.refused
        registry.save_artifact(settings.models_path, artifact)
    if refused and promote:
        log.warning("The run is refused: it is not promoted.")
    promote = promote and not refused
    status = registry.choose_status(run_id, refused, None, promote, found.runs)
    takes_charge = run_id != registry.find_champion(found.runs)
    takes_charge = takes_charge and status == registry.CHAMPION
    hold = takes_charge and settings.fairness_max_gap is not None
    status = registry.choose_status(run_id, refused, None, promote, found.runs, hold)
    staged = _score_all(settings, spark, found, artifact, refused, status)
    counts = {
        str(each.partition["run_id"]): read_staged(spark, each).count()
        for each in staged
        if each.table == SCORES
    }
    for owner, table in _decide(settings, spark, found, trained).items():
        staged.append(stage_rows(spark, DECISIONS, table, {"run_id": owner}))
    if trained:
        staged.append(trained.predictions)
        for name, table in trained.trained.tables.items():
            staged.append(stage_rows(spark, name, table, {"run_id": run_id}))
    _publish(settings, spark, found, staged, trained, status, hold)
    if not any(counts.values()):
        proposal = _proposed_day(found)
        warn_nothing_to_score(found.built.as_of_date, proposal)
    return _report(spark, run_id, counts, found.headline), hold


def _is_done(settings: Settings, found: Found) -> bool:
    run_id = found.inputs.run_id
    known = status_of(found.runs, run_id) is not None
    return known and registry.has_artifact(settings.models_path, run_id)


def _publish(
    settings: Settings,
    spark: SparkSession,
    found: Found,
    staged: list[Staged],
    trained: TrainedOnSpark | None,
    status: str,
    hold: bool,
) -> None:
    refuse_other_build(found.built, read_pipeline_settings(spark))
    for each in staged:
        publish(spark, each)
    run_id = found.inputs.run_id
    runs = read_rows(spark, RUNS, {})
    if trained:
        row = _row_of_run(found, trained, status, hold)
        replace_rows(spark, RUNS, put_run(runs, row), {})
        registry.save_run(settings.models_path, row)
    elif status == registry.CHAMPION and status != status_of(runs, run_id):
        replace_rows(spark, RUNS, _promote(runs, run_id, "Promoted."), {})


def _ask_gate(settings: Settings, report: Report) -> Report:
    """Make a run that was written as challenger champion if the gate lets it pass."""
    run_id = str(report.run["run_id"])
    run_dbt(
        settings,
        ["run", "--target", "spark", "--select", *GATE_MODELS],
        f"Run {run_id} stays challenger; the same command with --promote tries again.",
        # However old the run is.
        {"ALSO_MONITORED": run_id},
    )
    with open_for_training(settings) as spark:
        gate = spark.table("main.fairness_gate").where(F.col("run_id") == run_id)
        rows = gate.orderBy("attribute", "rate").collect()
        objections = objections_of([(r.passes, r.words) for r in rows if r.is_gated])
        doubts = [row.doubt for row in rows if row.doubt is not None]
        said = registry.GATE_NOTE + gate_words(settings, objections, doubts)
        runs = read_rows(spark, RUNS, {})
        if not objections:
            runs = _promote(runs, run_id, "Promoted.")
        own = runs["run_id"] == run_id
        reason = runs["status_reason"].str.split(registry.GATE_NOTE).str[0] + said
        runs["status_reason"] = runs["status_reason"].mask(own, reason)
        replace_rows(spark, RUNS, runs, {})
        if objections:
            log.warning("The run stays challenger.%s", said)
        return _report(spark, run_id, report.scored, report.headline)


def _proposed_day(found: Found) -> date | None:
    """Newest day of the test period on which a training point stands."""
    days = found.split.part("test").agg(F.max("as_of_date")).first()
    return days[0] if days else None


def _report(
    spark: SparkSession, run_id: str, scored: dict[str, int], headline: int
) -> Report:
    where = {"run_id": run_id}
    run = read_rows(spark, RUNS, where).iloc[0].to_dict()
    metrics = read_rows(spark, "ml.model_metrics", where)
    return Report({str(k): v for k, v in run.items()}, metrics, scored, headline)
