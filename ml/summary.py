"""What a run of the pipeline came to, for a person: `python -m ml.summary`."""

from datetime import date
from typing import Any

import duckdb
import typer

from ml.cli import clean_errors
from ml.dataset import headline_lead
from ml.publish import DATABASE
from ml.report import REPORT_FILE
from ml.score import nothing_to_score, proposed_day
from ml.settings import Settings, load_settings
from ml.warehouse import open_warehouse, read_pipeline_settings, require_tables

SHOWN = 3
app = typer.Typer(add_completion=False)


def summarise(connection: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """The summary: points, figures, flags, drafts and where to look."""
    require_tables(connection, ["student_targets", "flagged_students"])
    built = read_pipeline_settings(connection)
    lines = [
        f"Source {built.source_system}, target {built.target_definition}, "
        f"scored for {built.as_of_date}",
        *_points(connection, built.as_of_date),
        *_figures(connection, settings),
        *_flags(connection),
        *_drafts(connection),
        f"Report:    {settings.warehouse_path.parent / REPORT_FILE}",
        f"Snapshot:  {settings.data_processed_path / DATABASE} (Parquet beside it)",
    ]
    return "\n".join(lines)


def _row(connection: duckdb.DuckDBPyConnection, query: str, *values: Any) -> Any:
    return connection.execute(query, list(values)).fetchone()


def _points(connection: duckdb.DuckDBPyConnection, built_for: date) -> list[str]:
    points, labelled, rate, scoring = _row(
        connection,
        "select count(*), count(at_risk), avg(at_risk),"
        " count(case when is_scoring_point then 1 end) from student_targets",
    )
    rate_text = f"{rate:.3f}" if rate is not None else "unknown"
    lines = [
        f"Points:    {points:,} prediction points, {labelled:,} with a label "
        f"(base rate {rate_text}), {scoring:,} to score"
    ]
    if not scoring:
        lines.append(f"  {nothing_to_score(built_for, proposed_day(connection))}")
    return lines


def _figures(connection: duckdb.DuckDBPyConnection, settings: Settings) -> list[str]:
    """The newest run's PR-AUC at the headline lead, beside the baselines'."""
    run = _row(
        connection,
        "select run_id, status, status_reason from ml.model_runs"
        " where source_system = ? and target_definition = ?"
        " order by created_at desc, run_id limit 1",
        settings.source_system,
        settings.target_definition,
    )
    if run is None:
        return ["Model:     none yet; train one with `python -m ml.train`"]
    lead = headline_lead(settings.prediction_leads)
    found = connection.execute(
        "select scorer, value, ci_low, ci_high from ml.model_metrics"
        " where run_id = ? and split = 'test' and lead_days = ? and segment = 'all'"
        " and metric = 'pr_auc' order by value desc nulls last",
        [run[0], lead],
    ).fetchall()
    figures = [
        f"  {scorer:<12} PR-AUC {value:.3f} ({low:.3f} to {high:.3f})"
        for scorer, value, low, high in found
        if value is not None
    ]
    head = f"Model:     run {run[0]} is {run[1]}; test period, lead {lead} days:"
    return [head, *figures, f"  {run[2]}"]


def _flags(connection: duckdb.DuckDBPyConnection) -> list[str]:
    policies = connection.execute(
        "select flag_policy, count(*) from flagged_students group by all order by all"
    ).fetchall()
    total = sum(count for _, count in policies)
    by_policy = ", ".join(f"{count} by {policy}" for policy, count in policies)
    lines = [f"Flagged:   {total} students" + (f" ({by_policy})" if total else "")]
    first = connection.execute(
        "select student_id, assessment_title, lead_days, risk_score,"
        " concat_ws('; ', reason_1, reason_2, reason_3)"
        " from flagged_students order by flag_rank limit ?",
        [SHOWN],
    ).fetchall()
    for student, title, lead, score, reasons in first:
        risk = f", risk {score:.2f}" if score is not None else ""
        why = f". {reasons}" if reasons else ""
        lines.append(f"  {student}: {title} in {lead} days{risk}{why}")
    return lines


def _drafts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    states = connection.execute(
        "select state, count(*) from intervene.messages group by all order by all"
    ).fetchall()
    counted = ", ".join(f"{count} {state}" for state, count in states)
    return [f"Messages:  {counted or 'none'}"]


@app.command(epilog="Example: python -m ml.summary")
def main() -> None:
    """Print what the last run of the pipeline came to."""
    with clean_errors():
        settings = load_settings()
        path = settings.warehouse_path
        with open_warehouse(path, read_only=True) as connection:
            print(summarise(connection, settings))


if __name__ == "__main__":
    app()
