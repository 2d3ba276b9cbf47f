"""Score a day with a trained model: `python -m ml.score [--as-of 2014-06-01]`."""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

import duckdb
import numpy as np
import pandas as pd
import typer

from ml.boosting import contributions, margins, plain_matrix
from ml.calibrate import confidence
from ml.cli import clean_errors, start_logging
from ml.dataset import KEY, Points, read_points
from ml.dbt import run_dbt
from ml.explain import read_feature_docs, tell_reasons
from ml.features import contract_differences, encode
from ml.registry import REFUSED, Artifact, find_champion, load_artifact, read_runs
from ml.settings import Settings, UserError, load_settings
from ml.warehouse import (
    PipelineSettings,
    check_pipeline_settings,
    create_handback_tables,
    open_warehouse,
    read_pipeline_settings,
    read_rows,
    replace_rows,
    transaction,
    typed_rows,
)

SCORES = "ml.student_scores"
REASONS = "ml.score_reasons"
# A day's scores are worth waiting for whoever holds the warehouse.
WRITE_WAIT_SECONDS = 300.0
# Unit tests are about the code, which does not change from day to day.
BUILD = [
    "build",
    "--select",
    "+student_targets",
    "+student_features_14d",
    "+pipeline_settings",
    "+int_engagement_zones",
    "+int_weak_topics",
    "--exclude-resource-type",
    "unit_test",
]

log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False)


class ContractMismatch(UserError):
    """The feature table is not the one that the model was trained on."""


class NoChampion(UserError):
    """There is no model to score with."""


@dataclass(frozen=True)
class Scored:
    """Rows of `student_scores` and `score_reasons` of one run and day."""

    run_id: str
    as_of_date: date
    scores: pd.DataFrame
    reasons: pd.DataFrame


# ---------------------------------------------------------------- computing


def check_contract(artifact: Artifact, kinds: dict[str, str]) -> None:
    """Raise ContractMismatch naming each difference to the features of training."""
    differences = contract_differences(artifact.contract, kinds)
    if differences:
        raise ContractMismatch(
            f"student_features_14d does not match the model {artifact.run_id}: "
            f"{'; '.join(differences)}. Build the features as they were, or train a "
            "model on these with `python -m ml.train --promote`."
        )


def score_day(
    artifact: Artifact, points: Points, as_of_date: date, window_days: int
) -> Scored:
    """Score the scoring points of a day and say why.

    Raises
    ------
    ContractMismatch
        The features are not those of the model.
    """
    check_contract(artifact, points.kinds)
    day = points.take(points.targets["is_scoring_point"])
    if not len(day):
        return Scored(artifact.run_id, as_of_date, _no_scores(), _no_reasons())
    rows = encode(day.features, artifact.contract)
    matrix = plain_matrix(rows, artifact.contract)
    scores = score_table(artifact, day, all_probabilities(artifact, matrix))
    told = tell_reasons(
        contributions(artifact.model, matrix)[:, :-1],
        day.features,
        artifact.contract,
        read_feature_docs(),
        window_days,
    )
    keys = day.targets[KEY].iloc[told["point"].to_numpy()].reset_index(drop=True)
    reasons = keys.join(told.drop(columns="point")).assign(run_id=artifact.run_id)
    return Scored(artifact.run_id, as_of_date, scores, reasons)


def all_probabilities(artifact: Artifact, matrix: Any) -> np.ndarray:
    """Calibrated probabilities of the model (first column) and the fold models."""
    models = [artifact.model, *artifact.fold_models]
    return np.column_stack(
        [artifact.calibration.apply(margins(model, matrix)) for model in models]
    )


def score_table(
    artifact: Artifact, day: Points, probabilities: np.ndarray
) -> pd.DataFrame:
    """Rows of `student_scores` but for `scored_at`."""
    columns = [*KEY, "course_run_id", "due_at", "lead_days"]
    risk = probabilities[:, 0]
    return day.targets[columns].assign(
        run_id=artifact.run_id,
        risk_score=risk,
        risk_rank=rank_by_risk(risk, day),
        risk_band=artifact.bands.name(risk),
        confidence=confidence(probabilities),
    )


def rank_by_risk(risk: np.ndarray, day: Points) -> np.ndarray:
    """Ranks from 1; of equal risks the longer record of misses first, then the key."""
    missed = (
        day.features["record_assessments_missed"].fillna(-1)
        if "record_assessments_missed" in day.features
        else 0
    )
    table = day.targets[KEY].assign(risk=risk, missed=missed)
    order = table.sort_values(
        ["risk", "missed", *KEY], ascending=[False, False, *[True] * len(KEY)]
    ).index
    ranks = np.empty(len(table), dtype=np.int64)
    ranks[order] = np.arange(1, len(table) + 1)
    return ranks


def _no_scores() -> pd.DataFrame:
    columns = [
        *KEY,
        "course_run_id",
        "due_at",
        "lead_days",
        "run_id",
        "risk_score",
        "risk_rank",
        "risk_band",
        "confidence",
    ]
    return pd.DataFrame(columns=columns)


def _no_reasons() -> pd.DataFrame:
    columns = [
        *KEY,
        "run_id",
        "reason_rank",
        "feature",
        "feature_value",
        "peer_median",
        "contribution",
        "sentence",
        "sentence_student",
        "is_actionable",
    ]
    return pd.DataFrame(columns=columns)


# ---------------------------------------------------------------- writing


def write_scores(connection: duckdb.DuckDBPyConnection, scored: Scored) -> None:
    """Put a run's scores of a day in the place of its earlier ones.

    Runs in the caller's transaction. A score that has not changed keeps its
    `scored_at`; where none has, nothing is written.
    """
    where = {"run_id": scored.run_id, "as_of_date": scored.as_of_date}
    now = datetime.now(UTC).replace(tzinfo=None)
    scores = typed_rows(SCORES, scored.scores.assign(scored_at=now))
    before = read_rows(connection, SCORES, where)
    scores["scored_at"] = _first_times(scores, before)
    if not scores.equals(before):
        replace_rows(connection, SCORES, scores, where)
    reasons = typed_rows(REASONS, scored.reasons)
    if not reasons.equals(read_rows(connection, REASONS, where)):
        replace_rows(connection, REASONS, reasons, where)


def _first_times(scores: pd.DataFrame, before: pd.DataFrame) -> pd.Series:
    """When each score was first computed as it is."""
    key = ["run_id", *KEY]
    both = scores.merge(before, on=key, how="left", suffixes=("", "_before"))
    same = both["scored_at_before"].notna()
    for name in scores.columns.drop([*key, "scored_at"]):
        old, new = both[f"{name}_before"], both[name]
        same &= (old == new) | (old.isna() & new.isna())
    return both["scored_at_before"].where(same, both["scored_at"])


# ---------------------------------------------------------------- command


def proposed_day(
    connection: duckdb.DuckDBPyConnection, from_day: date | None = None
) -> date | None:
    """Newest day, not before `from_day`, on which a training point stands."""
    found = connection.execute(
        "select max(as_of_date) from main.student_targets"
        " where is_training_point and as_of_date >= ?",
        [from_day or date.min],
    ).fetchone()
    return found[0] if found else None


def nothing_to_score(as_of_date: date, proposal: date | None) -> str:
    """That the day has no scoring points, and which day has some."""
    advice = (
        f"Set AS_OF_DATE={proposal} and run `dbt build` (or `python -m ml.score "
        f"--as-of {proposal}`) to score a day on which something was coming up."
        if proposal
        else "No day of the test period has any either."
    )
    return f"NOTHING TO SCORE: no assessment is due soon after {as_of_date}. {advice}"


def warn_nothing_to_score(as_of_date: date, proposal: date | None) -> None:
    """Say so loudly."""
    log.warning(nothing_to_score(as_of_date, proposal))


def build_day(settings: Settings, as_of_date: date) -> None:
    """Build the feature tables as of a day, under these settings."""
    log.info("Building the features as of %s.", as_of_date)
    of_day = settings.model_copy(update={"as_of_date": as_of_date})
    run_dbt(of_day, BUILD, f"Nothing was scored for AS_OF_DATE={as_of_date}.")


def champion_artifact(settings: Settings, runs: pd.DataFrame) -> Artifact:
    """Load the champion, or say why there is none."""
    champion = find_champion(runs)
    if champion is None:
        refused = runs[runs["status"] == REFUSED]
        why = (
            f" The last model was refused: {refused['status_reason'].iloc[-1]}"
            if len(refused)
            else ""
        )
        raise NoChampion(
            f"There is no champion for {settings.source_system} and "
            f"{settings.target_definition}.{why} Train one with `python -m ml.train`."
        )
    return load_artifact(settings.models_path, champion)


def run_score(settings: Settings, as_of_date: date | None) -> Scored:
    """Score a day with the champion and write the rows.

    Parameters
    ----------
    as_of_date
        Where it differs from the day of the tables, dbt builds that day first.
    """
    if as_of_date:
        settings = settings.model_copy(update={"as_of_date": as_of_date})
        with open_warehouse(settings.warehouse_path, read_only=True) as connection:
            built_day = read_pipeline_settings(connection).as_of_date
            runs = read_runs(
                connection, settings.source_system, settings.target_definition
            )
        # Without a champion the day would be built for nothing.
        champion_artifact(settings, runs)
        if built_day != as_of_date:
            build_day(settings, as_of_date)
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        built = check_pipeline_settings(connection, settings)
        runs = read_runs(connection, settings.source_system, settings.target_definition)
        points = read_points(connection)
        proposal = proposed_day(connection)
    artifact = champion_artifact(settings, runs)
    scored = score_day(
        artifact, points, built.as_of_date, settings.observation_window_days
    )
    if scored.scores.empty:
        warn_nothing_to_score(built.as_of_date, proposal)
    _write(settings, built, scored)
    return scored


def _write(settings: Settings, built: PipelineSettings, scored: Scored) -> None:
    path = settings.warehouse_path
    with open_warehouse(path, wait_seconds=WRITE_WAIT_SECONDS) as connection:
        check_same_build(connection, built)
        create_handback_tables(connection, "ml")
        with transaction(connection):
            write_scores(connection, scored)


def check_same_build(
    connection: duckdb.DuckDBPyConnection, built: PipelineSettings
) -> None:
    """Raise UserError if dbt built other tables since they were read."""
    if read_pipeline_settings(connection) != built:
        raise UserError(
            "The warehouse was built again under other settings while this command "
            "was running, so nothing was written. Run the command again."
        )


@app.command(
    epilog="Example: python -m ml.score --as-of 2014-06-01",
)
def main(
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Day to score; dbt builds its features first if need be.",
        ),
    ] = None,
) -> None:
    """Score every student with an assessment coming up, without training."""
    with clean_errors():
        settings = load_settings()
        start_logging(settings)
        scored = run_score(settings, as_of.date() if as_of else None)
        counts = scored.scores["risk_band"].value_counts()
        bands = ", ".join(f"{counts.get(b, 0)} {b}" for b in ("high", "medium", "low"))
        print(
            f"{len(scored.scores)} scores as of {scored.as_of_date} "
            f"by {scored.run_id}: {bands}"
        )


if __name__ == "__main__":
    app()
