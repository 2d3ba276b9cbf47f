"""Score a day with a trained model: `python -m ml.score [--as-of 2014-06-01]`.

The points to score are copied out of the warehouse into a file, scored from there
batch by batch into two more, and the rows brought back in one transaction: the
warehouse is open at the beginning and at the end, however long scoring takes, and
memory does not grow with the number of points.
"""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import duckdb
import pandas as pd
import pyarrow.compute as pc
import typer

from ml.cli import Engine, clean_errors, start_logging
from ml.dataset import (
    KEY,
    feature_column,
    feature_kinds,
    refuse_lost,
    scoring_points_query,
)
from ml.dbt import run_dbt
from ml.explain import read_feature_docs
from ml.features import CATEGORY, FeatureContract, contract_differences
from ml.registry import REFUSED, Artifact, find_champion, load_artifact, read_runs
from ml.scorer import (
    BATCH_ROWS,
    POINT_COLUMNS,
    RANK,
    REASONS,
    SCORES,
    Predicted,
    Scorer,
    median_query,
    reason_schema,
    score_schema,
)
from ml.settings import Settings, UserError, load_settings
from ml.spark import import_session
from ml.spool import Spool
from ml.warehouse import (
    PipelineSettings,
    WriteBackError,
    check_pipeline_settings,
    create_handback_tables,
    find_handback_table,
    limit_resources,
    open_warehouse,
    read_pipeline_settings,
    transaction,
)

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
class ScoringPoints:
    """The points to score, out of the warehouse, and the kinds of their features."""

    spool: Spool
    kinds: dict[str, str]
    folder: Path


@dataclass(frozen=True)
class Summary:
    """Who scored which day, and how many points of each risk band."""

    run_id: str
    as_of_date: date
    bands: dict[str, int]

    def __str__(self) -> str:
        bands = [f"{self.bands.get(b, 0)} {b}" for b in ("high", "medium", "low")]
        return (
            f"{sum(self.bands.values())} scores as of {self.as_of_date} "
            f"by {self.run_id}: {', '.join(bands)}"
        )


@dataclass(frozen=True)
class Scored(Summary):
    """Rows of one run and day that wait to be written."""

    scores: Spool
    reasons: Spool


# ---------------------------------------------------------------- reading


def copy_points(
    connection: duckdb.DuckDBPyConnection, folder: Path, batch_rows: int = BATCH_ROWS
) -> ScoringPoints:
    """Copy the scoring points out of the warehouse into a file in `folder`.

    Raises
    ------
    UserError
        A table is missing, a feature has a type that the model cannot take, or a
        point has no row of features.
    """
    kinds = feature_kinds(connection)
    query = scoring_points_query(POINT_COLUMNS, kinds)
    reader = connection.execute(query).to_arrow_reader(batch_rows)
    spool, lost = Spool(folder, reader.schema), 0
    for batch in reader:
        lost += pc.sum(pc.invert(batch["has_features"])).as_py()
        spool.write(batch)
    spool.finish()
    refuse_lost(lost)
    return ScoringPoints(spool, kinds, folder)


def peer_medians(spool: Spool, contract: FeatureContract) -> dict[str, float]:
    """Middle value of each number or boolean among all points; NaN for text."""
    medians = dict.fromkeys(contract.names, float("nan"))
    with duckdb.connect() as connection:
        limit_resources(connection)
        for name, kind in contract.kinds.items():
            if kind == CATEGORY:
                continue
            column = feature_column(name)
            query = median_query("points", column)
            with spool.as_view(connection, "points", [column]):
                ((median,),) = connection.execute(query).fetchall()
            medians[name] = float("nan") if median is None else median
    return medians


# ---------------------------------------------------------------- computing


def score_day(
    artifact: Artifact, points: ScoringPoints, as_of_date: date, window_days: int
) -> Scored:
    """Score the points of a day and say why; the rows wait to be written.

    Raises
    ------
    ContractMismatch
        The features are not those of the model.
    """
    check_contract(artifact, points.kinds)
    medians = peer_medians(points.spool, artifact.contract)
    scorer = Scorer(artifact, read_feature_docs(), medians, window_days)
    scores = Spool(points.folder, score_schema())
    reasons = Spool(points.folder, reason_schema())
    bands: Counter[str] = Counter()

    def keep(predicted: Predicted) -> None:
        rows = scorer.scores(predicted)
        scores.write(rows)
        reasons.write(scorer.reasons(predicted))
        bands.update(rows["risk_band"].to_pylist())

    # A batch is put into words while the next one is predicted.
    with ThreadPoolExecutor(1) as other:
        kept = None
        for batch in points.spool.read():
            predicted = scorer.predict(batch)
            if kept:
                kept.result()
            kept = other.submit(keep, predicted)
        if kept:
            kept.result()
    scores.finish()
    reasons.finish()
    return Scored(artifact.run_id, as_of_date, dict(bands), scores, reasons)


def check_contract(artifact: Artifact, kinds: dict[str, str]) -> None:
    """Raise ContractMismatch naming each difference to the features of training."""
    differences = contract_differences(artifact.contract, kinds)
    if differences:
        raise ContractMismatch(
            f"student_features_14d does not match the model {artifact.run_id}: "
            f"{'; '.join(differences)}. Build the features as they were, or train a "
            "model on these with `python -m ml.train --promote`."
        )


# ---------------------------------------------------------------- writing


def write_scores(connection: duckdb.DuckDBPyConnection, scored: Scored) -> None:
    """Put a run's scores of a day in the place of its earlier ones.

    Runs in the caller's transaction. A score that has not changed keeps its
    `scored_at`; where none has, nothing is written.
    """
    limit_resources(connection)
    where = f"run_id = '{scored.run_id}' and as_of_date = date '{scored.as_of_date}'"
    _rank(connection, scored)
    if _fill_in_times(connection, where):
        connection.execute(f"delete from {SCORES} where {where}")
        connection.execute(f"insert into {SCORES} by name from ranked")
    connection.execute("drop table ranked")
    if not _has_reasons(connection, where, scored.reasons):
        connection.execute(f"delete from {REASONS} where {where}")
        with scored.reasons.as_view(connection, "reasons"):
            connection.execute(f"insert into {REASONS} by name from reasons")


def _rank(connection: duckdb.DuckDBPyConnection, scored: Scored) -> None:
    """Make the temporary table `ranked`: the rows to write, but for `scored_at`.

    Raises
    ------
    WriteBackError
        A key is there twice, or a row would stay when the day is scored again.
    """
    with scored.scores.as_view(connection, "scores"):
        connection.execute(
            "create temp table ranked as select * exclude missed, cast(row_number()"
            f" over (order by {RANK}) as integer) as risk_rank,"
            " cast(null as timestamp) as scored_at from scores"
        )
    ((rows, keys, elsewhere),) = connection.execute(
        f"select count(*), count(distinct ({', '.join(KEY)})),"
        " count(*) filter (as_of_date <> ?) from ranked",
        [scored.as_of_date],
    ).fetchall()
    if rows != keys:
        raise WriteBackError(f"{SCORES}: {rows - keys} rows repeat a key.")
    if elsewhere:
        raise WriteBackError(
            f"{SCORES}: {elsewhere} rows lie outside as_of_date = {scored.as_of_date}."
        )


def _fill_in_times(connection: duckdb.DuckDBPyConnection, where: str) -> bool:
    """Say in `ranked` when each score was first computed as it is.

    Returns whether it differs from the rows that are there.
    """
    names = [
        name for name in find_handback_table(SCORES).columns if name != "scored_at"
    ]
    same = " and ".join(
        f"ranked.{name} is not distinct from old.{name}" for name in names
    )
    connection.execute(
        "update ranked set scored_at = old.scored_at"
        f" from (from {SCORES} where {where}) as old where {same}"
    )
    ((before, kept, rows),) = connection.execute(
        f"select (select count(*) from {SCORES} where {where}),"
        " count(scored_at), count(*) from ranked"
    ).fetchall()
    connection.execute(
        "update ranked set scored_at = ? where scored_at is null",
        [datetime.now(UTC).replace(tzinfo=None)],
    )
    return not before == kept == rows


def _has_reasons(
    connection: duckdb.DuckDBPyConnection, where: str, reasons: Spool
) -> bool:
    """Whether the rows that are there are these, in whatever order."""
    columns = ", ".join(find_handback_table(REASONS).columns)
    digest = f"select count(*), sum(hash({columns}))"
    before = connection.execute(f"{digest} from {REASONS} where {where}").fetchall()
    if before[0][0] != reasons.rows:
        return False
    with reasons.as_view(connection, "reasons"):
        now = connection.execute(f"{digest} from reasons").fetchall()
    return before == now


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


def build_day(settings: Settings, as_of_date: date, target: str | None = None) -> None:
    """Build the feature tables as of a day, under these settings."""
    log.info("Building the features as of %s.", as_of_date)
    of_day = settings.model_copy(update={"as_of_date": as_of_date})
    command = [*BUILD, "--target", target] if target else BUILD
    run_dbt(of_day, command, f"Nothing was scored for AS_OF_DATE={as_of_date}.")


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
    path = settings.warehouse_path
    with open_warehouse(path, read_only=True) as connection:
        limit_resources(connection)
        built = check_pipeline_settings(connection, settings)
        runs = read_runs(connection, settings.source_system, settings.target_definition)
        artifact = champion_artifact(settings, runs)
        points = copy_points(connection, path.parent)
        if not points.spool.rows:
            warn_nothing_to_score(built.as_of_date, proposed_day(connection))
    window = settings.observation_window_days
    scored = score_day(artifact, points, built.as_of_date, window)
    with open_warehouse(path, wait_seconds=WRITE_WAIT_SECONDS) as connection:
        check_same_build(connection, built)
        create_handback_tables(connection, "ml")
        with transaction(connection):
            write_scores(connection, scored)
    return scored


def check_same_build(
    connection: duckdb.DuckDBPyConnection, built: PipelineSettings
) -> None:
    """Raise UserError if dbt built other tables since they were read."""
    refuse_other_build(built, read_pipeline_settings(connection))


def refuse_other_build(built: PipelineSettings, now: PipelineSettings) -> None:
    """The same, whatever engine read them."""
    if now != built:
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
    engine: Annotated[
        Engine, typer.Option(help="Whose tables to score (docs/spark.md).")
    ] = Engine.DUCKDB,
) -> None:
    """Score every student with an assessment coming up, without training."""
    with clean_errors():
        settings = load_settings()
        start_logging(settings)
        day = as_of.date() if as_of else None
        if engine == Engine.SPARK:
            print(_score_on_spark(settings, day))
        else:
            print(run_score(settings, day))


def _score_on_spark(settings: Settings, as_of_date: date | None) -> Summary:
    import_session()
    # Not before it is known that pyspark is there.
    from ml.on_spark.score import run_score_on_spark

    return run_score_on_spark(settings, as_of_date)


if __name__ == "__main__":
    app()
