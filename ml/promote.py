"""Which run is in charge: `python -m ml.promote RUN_ID`, `--rollback` or `--list`.

A promotion is refused where the model cannot score the tables as they are, or where
a fairness gate is set (FAIRNESS_MAX_GAP) and the run does not pass it. A rollback is
for emergencies: it does not ask the gate again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated

import duckdb
import pandas as pd
import typer

from ml import registry
from ml.cli import clean_errors, start_logging
from ml.dataset import feature_kinds, headline_lead
from ml.dbt import run_dbt
from ml.score import WRITE_WAIT_SECONDS, check_contract, check_same_build
from ml.settings import Settings, UserError, load_settings
from ml.warehouse import (
    PipelineSettings,
    check_handback_tables,
    check_pipeline_settings,
    create_handback_tables,
    open_warehouse,
    replace_rows,
    table_exists,
    transaction,
)

GATE_MODELS = [
    "int_monitored_runs",
    "int_fairness_rates",
    "fairness_groups",
    "fairness_gate",
]
FLAGS = "dbt build --select source:ml+"
ELSEWHERE = "Trained in another warehouse, which has its figures."

app = typer.Typer(add_completion=False)


class NotPromoted(UserError):
    """The run cannot be put in charge; the message says why."""


@dataclass(frozen=True)
class Change:
    """Who is in charge now, who was, and how much of the day the new one has scored."""

    champion: str
    before: str | None
    as_of_date: date
    scored: int


# ---------------------------------------------------------------- the gate


def gate_objections(settings: Settings, run_id: str) -> list[str]:
    """Measure the groups with dbt, and say what the fairness gate has against a run.

    Returns
    -------
    list of str
        A sentence per attribute and rate that is not passed; empty without a gate,
        or where all of it is passed.

    Raises
    ------
    UserError
        dbt failed.
    """
    if settings.fairness_max_gap is None:
        return []
    run_dbt(
        settings,
        ["run", "--select", *GATE_MODELS],
        f"Run {run_id} was not promoted; `python -m ml.promote {run_id}` tries again.",
        # However old the run is.
        {"ALSO_MONITORED": run_id},
    )
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        return read_objections(connection, run_id)


def read_objections(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[str]:
    """What `fairness_gate` has against a run; nothing to compare is no pass."""
    rows = connection.execute(
        "select passes, words from main.fairness_gate"
        " where run_id = ? and is_gated order by attribute, rate",
        [run_id],
    ).fetchall()
    return objections_of(rows)


def objections_of(rows: Sequence[tuple[bool | None, str]]) -> list[str]:
    """The same, from what the gate says of each attribute and rate: passed, words."""
    failed = [words for passes, words in rows if passes is False]
    if failed or any(passes for passes, _ in rows):
        return failed
    if rows:
        return ["No two groups are large enough to compare (fairness_min_group)."]
    return [
        "Nothing was measured: the students have no attributes (student_attributes "
        "in dbt_project.yml), or ml.evaluation_predictions has no rows of the run "
        "(`python -m ml.train --force` writes them)."
    ]


def read_doubts(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[str]:
    """What the gate lets pass without being sure of it: wide gaps that may be chance,
    and groups that are too small to be measured."""
    rows = connection.execute(
        "select doubt from main.fairness_gate"
        " where run_id = ? and doubt is not null order by attribute, rate",
        [run_id],
    ).fetchall()
    return [doubt for (doubt,) in rows]


def gate_text(settings: Settings, run_id: str, objections: list[str]) -> str:
    """What the gate has just said, as `status_reason` tells it."""
    doubts = []
    if not objections:
        with open_warehouse(settings.warehouse_path, read_only=True) as connection:
            doubts = read_doubts(connection, run_id)
    return gate_words(settings, objections, doubts)


def gate_words(settings: Settings, objections: list[str], doubts: list[str]) -> str:
    """The same, from what was found."""
    gate = f"the fairness gate (FAIRNESS_MAX_GAP={settings.fairness_max_gap})"
    if objections:
        return f"Not passed: {gate}. {' '.join(objections)}"
    return " ".join([f"Passed {gate}.", *doubts])


# ---------------------------------------------------------------- changing


def promote(settings: Settings, run_id: str) -> Change:
    """Make a run champion.

    A run of another warehouse, such as Spark's, of which this one has only the model,
    is taken over; its figures stay where they are.

    Raises
    ------
    NotPromoted
        There is no such run, it was refused, or it does not pass the gate.
    ArtifactError, ContractMismatch
        Its model is missing or damaged, or not for the features there are.
    """
    built, runs = _read(settings)
    if run_id not in set(runs["run_id"]) and _take_over(settings, built, run_id):
        built, runs = _read(settings)
    _require_known(run_id, runs)
    status, reason = runs.set_index("run_id").loc[run_id, ["status", "status_reason"]]
    if status == registry.CHAMPION:
        raise NotPromoted(f"Run {run_id} is champion already.")
    if status == registry.REFUSED:
        raise NotPromoted(f"Run {run_id} was refused: {reason}")
    _check_model(settings, run_id)
    objections = gate_objections(settings, run_id)
    if objections:
        listed = "\n".join(f"  {words}" for words in objections)
        raise NotPromoted(
            f"Run {run_id} does not pass the fairness gate "
            f"(FAIRNESS_MAX_GAP={settings.fairness_max_gap}):\n{listed}\n"
            "main.fairness_groups has the groups. Train a model that treats them more "
            "alike, or decide on another FAIRNESS_MAX_GAP."
        )
    words = "Promoted."
    if settings.fairness_max_gap is not None:
        words += " " + gate_text(settings, run_id, [])
    return _put_in_charge(settings, built, run_id, words, registry.promote)


def roll_back(settings: Settings) -> Change:
    """Put the champion before this one back in charge.

    Raises
    ------
    NotPromoted
        No run was champion before.
    ArtifactError, ContractMismatch
        Its model is missing or damaged, or not for the features there are.
    """
    built, runs = _read(settings)
    previous = registry.find_previous_champion(runs)
    if previous is None:
        raise NotPromoted(
            "There is no earlier champion to go back to. `python -m ml.promote --list` "
            "shows the runs, `python -m ml.promote RUN_ID` promotes one."
        )
    _check_model(settings, previous)
    champion = registry.find_champion(runs)
    words = (
        f"Rolled back from {champion}."
        if champion
        else "Put back: no run was champion."
    )
    return _put_in_charge(settings, built, previous, words, registry.roll_back)


def _read(settings: Settings) -> tuple[PipelineSettings, pd.DataFrame]:
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        built = check_pipeline_settings(connection, settings)
        return built, _runs(connection, settings)


def _runs(connection: duckdb.DuckDBPyConnection, settings: Settings) -> pd.DataFrame:
    return registry.read_runs(
        connection, settings.source_system, settings.target_definition
    )


def _take_over(settings: Settings, built: PipelineSettings, run_id: str) -> bool:
    """Record a run whose model is there, as challenger, if it is of this source and
    target; whether it was."""
    row = registry.load_run(settings.models_path, run_id)
    if row is None or (row["source_system"], row["target_definition"]) != (
        settings.source_system,
        settings.target_definition,
    ):
        return False
    if row["status"] != registry.REFUSED:
        row["status"] = registry.CHALLENGER
    row |= {"promoted_at": None, "status_reason": f"{row['status_reason']} {ELSEWHERE}"}
    path = settings.warehouse_path
    with open_warehouse(path, wait_seconds=WRITE_WAIT_SECONDS) as connection:
        check_same_build(connection, built)
        create_handback_tables(connection, "ml")
        where = {"run_id": run_id}
        replace_rows(connection, "ml.model_runs", pd.DataFrame([row]), where)
    return True


def _require_known(run_id: str, runs: pd.DataFrame) -> None:
    if run_id not in set(runs["run_id"]):
        known = ", ".join(runs["run_id"]) or "none"
        raise NotPromoted(
            f"There is no run {run_id} of this source and target. Known runs: {known}."
        )


def _check_model(settings: Settings, run_id: str) -> None:
    """The model must be whole, and made for the features as they are."""
    artifact = registry.load_artifact(settings.models_path, run_id)
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        check_contract(artifact, feature_kinds(connection))


def _put_in_charge(
    settings: Settings,
    built: PipelineSettings,
    run_id: str,
    reason: str,
    change: registry.ChampionChange,
) -> Change:
    path = settings.warehouse_path
    with open_warehouse(path, wait_seconds=WRITE_WAIT_SECONDS) as connection:
        check_same_build(connection, built)
        before = registry.find_champion(_runs(connection, settings))
        with transaction(connection):
            change(connection, run_id, reason)
        scored = connection.execute(
            "select count(*) from ml.student_scores"
            " where run_id = ? and as_of_date = ?",
            [run_id, built.as_of_date],
        ).fetchone()
    return Change(run_id, before, built.as_of_date, scored[0] if scored else 0)


# ---------------------------------------------------------------- telling


def describe_change(change: Change) -> str:
    """What has changed, and what to run so that scores and flags follow."""
    head = f"Run {change.champion} is champion"
    head += f"; {change.before} is retired." if change.before else "."
    if change.scored:
        return (
            f"{head}\nIt has scored {change.scored:,} points of {change.as_of_date}: "
            f"current_scores shows them. Run `{FLAGS}` so that the flags follow."
        )
    return (
        f"{head}\nIt has not scored {change.as_of_date}, the day of the tables. Run "
        f"`python -m ml.score`, then `{FLAGS}`: until then the flags are those of the "
        "champion before."
    )


def list_runs(settings: Settings) -> str:
    """The runs of this source and target, newest first, a line each."""
    lead = headline_lead(settings.prediction_leads)
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        check_handback_tables(connection)
        if not table_exists(connection, "model_runs", "ml"):
            return "No run yet. Train one with `python -m ml.train`."
        rows = connection.execute(
            "select runs.run_id, runs.status, strftime(runs.created_at, '%Y-%m-%d'),"
            " coalesce(printf('%.3f', metrics.value), '-'), runs.status_reason"
            " from ml.model_runs as runs left join ml.model_metrics as metrics"
            " on metrics.run_id = runs.run_id and metrics.split = 'test'"
            " and metrics.scorer = 'model' and metrics.metric = 'pr_auc'"
            " and metrics.segment = 'all' and metrics.lead_days = ?"
            " where runs.source_system = ? and runs.target_definition = ?"
            " order by runs.created_at desc, runs.run_id",
            [lead, settings.source_system, settings.target_definition],
        ).fetchall()
    if not rows:
        return "No run yet. Train one with `python -m ml.train`."
    head = ("run", "status", "trained", f"PR-AUC at {lead}", "why")
    return "\n".join(
        f"{run:<17} {status:<10} {day:<10} {figure:>12}  {why}"
        for run, status, day, figure, why in [head, *rows]
    )


@app.command(epilog="Example: python -m ml.promote accd33ce8b932955")
def main(
    run_id: Annotated[
        str | None, typer.Argument(help="The run to make champion.")
    ] = None,
    rollback: Annotated[
        bool,
        typer.Option("--rollback", help="Go back to the champion before this one."),
    ] = False,
    show: Annotated[
        bool, typer.Option("--list", help="Show the runs, newest first.")
    ] = False,
) -> None:
    """Promote a run, go back to the one before, or list them."""
    with clean_errors():
        settings = load_settings()
        start_logging(settings)
        if (run_id is not None) + rollback + show != 1:
            raise UserError(
                "Say one thing: a RUN_ID, --rollback or --list. For example "
                "`python -m ml.promote --list`."
            )
        if show:
            print(list_runs(settings))
        elif rollback:
            print(describe_change(roll_back(settings)))
        elif run_id:
            print(describe_change(promote(settings, run_id)))


if __name__ == "__main__":
    app()
