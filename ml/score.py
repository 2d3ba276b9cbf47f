"""Score a day with a trained model: `python -m ml.score [--as-of 2014-06-01]`.

The points to score are copied out of the warehouse into a scratch database, scored
there batch by batch, and the rows brought back in one transaction: the warehouse is
open at the beginning and at the end, however long scoring takes, and memory does not
grow with the number of points.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated

import duckdb
import pandas as pd
import typer

from ml.cli import clean_errors, start_logging
from ml.dataset import KEY, feature_kinds, refuse_lost, scoring_points_query
from ml.dbt import run_dbt
from ml.explain import read_feature_docs
from ml.features import CATEGORY, FeatureContract, contract_differences
from ml.registry import REFUSED, Artifact, find_champion, load_artifact, read_runs
from ml.scorer import BATCH_ROWS, POINT_COLUMNS, RANK, Scorer, median_query
from ml.settings import Settings, UserError, load_settings
from ml.warehouse import (
    PipelineSettings,
    WriteBackError,
    check_pipeline_settings,
    create_handback_tables,
    find_handback_table,
    limit_resources,
    open_scratch,
    open_warehouse,
    read_pipeline_settings,
    stream,
    transaction,
)

SCORES = "ml.student_scores"
REASONS = "ml.score_reasons"
# Tables of the scratch database.
POINTS = "points"
NEW_SCORES = "new_scores"
NEW_REASONS = "new_reasons"
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
    """Rows of one run and day that lie in the scratch database, by risk band."""

    run_id: str
    as_of_date: date
    bands: dict[str, int]

    @property
    def points(self) -> int:
        """How many points have a score."""
        return sum(self.bands.values())


# ---------------------------------------------------------------- reading


def copy_points(
    connection: duckdb.DuckDBPyConnection,
    scratch: duckdb.DuckDBPyConnection,
    kinds: dict[str, str],
) -> int:
    """Copy the scoring points into the scratch database; returns how many.

    Raises
    ------
    UserError
        A point has no row of features.
    """
    query = scoring_points_query(POINT_COLUMNS, kinds)
    create = f"create table {POINTS} as select * from streamed"
    stream(connection, query, scratch, create)
    ((points, lost),) = scratch.execute(
        f"select count(*), count(*) filter (not has_features) from {POINTS}"
    ).fetchall()
    refuse_lost(lost)
    return int(points)


def check_contract(artifact: Artifact, kinds: dict[str, str]) -> None:
    """Raise ContractMismatch naming each difference to the features of training."""
    differences = contract_differences(artifact.contract, kinds)
    if differences:
        raise ContractMismatch(
            f"student_features_14d does not match the model {artifact.run_id}: "
            f"{'; '.join(differences)}. Build the features as they were, or train a "
            "model on these with `python -m ml.train --promote`."
        )


def peer_medians(
    scratch: duckdb.DuckDBPyConnection, contract: FeatureContract
) -> dict[str, float]:
    """Middle value of each number or boolean among all points; NaN for text."""
    medians = dict.fromkeys(contract.names, float("nan"))
    for name, kind in contract.kinds.items():
        if kind != CATEGORY:
            found = scratch.execute(median_query(POINTS, name)).fetchall()[0][0]
            medians[name] = float("nan") if found is None else float(found)
    return medians


# ---------------------------------------------------------------- computing


def score_points(
    artifact: Artifact,
    scratch: duckdb.DuckDBPyConnection,
    as_of_date: date,
    window_days: int,
    batch_rows: int = BATCH_ROWS,
) -> Scored:
    """Score the points that `copy_points` has copied, and say why.

    The rows stay in the scratch database, beside those of other runs.
    """
    medians = peer_medians(scratch, artifact.contract)
    scorer = Scorer(artifact, read_feature_docs(), medians, window_days)
    for table, source in ((NEW_SCORES, SCORES), (NEW_REASONS, REASONS)):
        columns = find_handback_table(source).columns
        typed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        scratch.execute(f"create table if not exists {table} ({typed})")
    scratch.execute(f"alter table {NEW_SCORES} add column if not exists missed double")
    reader = scratch.cursor().execute(f"from {POINTS}").to_arrow_reader(batch_rows)
    with transaction(scratch):
        for batch in reader:
            scores, reasons = scorer.score(batch)
            for table, rows in ((NEW_SCORES, scores), (NEW_REASONS, reasons)):
                scratch.register("rows", rows)
                scratch.execute(f"insert into {table} by name select * from rows")
                scratch.unregister("rows")
    bands = scratch.execute(
        f"select risk_band, count(*) from {NEW_SCORES} where run_id = ? group by all",
        [artifact.run_id],
    ).fetchall()
    return Scored(artifact.run_id, as_of_date, dict(bands))


# ---------------------------------------------------------------- writing


def write_scores(
    connection: duckdb.DuckDBPyConnection,
    scratch: duckdb.DuckDBPyConnection,
    scored: Scored,
) -> None:
    """Put a run's scores of a day in the place of its earlier ones.

    Runs in the caller's transaction. A score that has not changed keeps its
    `scored_at`; where none has, nothing is written.
    """
    limit_resources(connection)
    where = f"run_id = '{scored.run_id}' and as_of_date = date '{scored.as_of_date}'"
    ranked = (
        f"select * exclude missed replace (row_number() over (order by {RANK})"
        f" as risk_rank) from {NEW_SCORES} where run_id = '{scored.run_id}'"
    )
    create = "create or replace temp table ranked as select * from streamed"
    stream(scratch, ranked, connection, create)
    _check_ranked(connection, scored)
    if _first_times(connection, where):
        connection.execute(f"delete from {SCORES} where {where}")
        connection.execute(f"insert into {SCORES} by name from ranked order by all")
    if _digest(connection, REASONS, where) != _digest(scratch, NEW_REASONS, where):
        connection.execute(f"delete from {REASONS} where {where}")
        reasons = f"from {NEW_REASONS} where {where}"
        insert = f"insert into {REASONS} by name select * from streamed"
        stream(scratch, reasons, connection, insert)
    connection.execute("drop table ranked")


def _check_ranked(connection: duckdb.DuckDBPyConnection, scored: Scored) -> None:
    """Raise WriteBackError where rows would not be replaced by the next scoring."""
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


def _first_times(connection: duckdb.DuckDBPyConnection, where: str) -> bool:
    """Fill in when each score was first computed as it is; whether any has changed."""
    names = [
        name for name in find_handback_table(SCORES).columns if name != "scored_at"
    ]
    same = " and ".join(
        f"ranked.{name} is not distinct from before.{name}" for name in names
    )
    connection.execute(
        f"update ranked set scored_at = before.scored_at"
        f" from (from {SCORES} where {where}) as before where {same}"
    )
    now = datetime.now(UTC).replace(tzinfo=None)
    ((before, kept, rows),) = connection.execute(
        f"select (select count(*) from {SCORES} where {where}),"
        " count(scored_at), count(*) from ranked"
    ).fetchall()
    connection.execute("update ranked set scored_at = ? where scored_at is null", [now])
    return not before == kept == rows


def _digest(connection: duckdb.DuckDBPyConnection, table: str, where: str) -> object:
    """A number that differs where a row does, whatever their order."""
    columns = ", ".join(find_handback_table(REASONS).columns)
    return connection.execute(
        f"select count(*), sum(hash({columns})) from {table} where {where}"
    ).fetchall()


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
    with open_scratch(settings.warehouse_path) as scratch:
        return _score_built(settings, scratch)


def _score_built(settings: Settings, scratch: duckdb.DuckDBPyConnection) -> Scored:
    path = settings.warehouse_path
    with open_warehouse(path, read_only=True) as connection:
        limit_resources(connection)
        built = check_pipeline_settings(connection, settings)
        runs = read_runs(connection, settings.source_system, settings.target_definition)
        artifact = champion_artifact(settings, runs)
        kinds = feature_kinds(connection)
        check_contract(artifact, kinds)
        if not copy_points(connection, scratch, kinds):
            warn_nothing_to_score(built.as_of_date, proposed_day(connection))
    window = settings.observation_window_days
    scored = score_points(artifact, scratch, built.as_of_date, window)
    with open_warehouse(path, wait_seconds=WRITE_WAIT_SECONDS) as connection:
        check_same_build(connection, built)
        create_handback_tables(connection, "ml")
        with transaction(connection):
            write_scores(connection, scratch, scored)
    return scored


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
        counts = scored.bands
        bands = ", ".join(f"{counts.get(b, 0)} {b}" for b in ("high", "medium", "low"))
        print(
            f"{scored.points} scores as of {scored.as_of_date} "
            f"by {scored.run_id}: {bands}"
        )


if __name__ == "__main__":
    app()
