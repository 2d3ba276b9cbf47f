"""One run of drafting: what is missing is written, stored and told about."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import typer

from intervene.drafting.draft import Drafted, Plan, Policy, Refused, only_missing, write
from intervene.drafting.drafter import Drafter, TemplateDrafter
from intervene.drafting.gemini import GeminiDrafter
from intervene.drafting.ledger import Ledger
from intervene.drafting.limits import Usage
from intervene.experiments.analysis import Batch
from intervene.store import Store
from ml.settings import Settings

MOST_REFUSALS_SHOWN = 10
SECONDS_BETWEEN_PROGRESS = 2.0


def draft_batch(
    batch: Batch,
    planned: Plan,
    store: Store,
    settings: Settings,
    source: str,
    estimate: bool,
) -> tuple[Drafted, int]:
    """Write and store what is missing; returns it, and how many were stored."""
    missing = _missing(planned, store, batch.policy, source)
    writer = _make_drafter(batch, settings, store, source, planned)
    if isinstance(writer, GeminiDrafter):
        _print_estimate(writer, missing)
    if estimate:
        return Drafted([], Counter(), []), 0
    drafted = write(missing, writer, _counter(len(missing.orders)))
    stored = store.add(drafted.messages, datetime.now(UTC), batch.policy.asked_for)
    if isinstance(writer, GeminiDrafter):
        _print_report(writer)
    return drafted, len(stored)


def _make_drafter(
    batch: Batch,
    settings: Settings,
    store: Store,
    source: str,
    planned: Plan,
) -> Drafter:
    if batch.drafter == "template":
        return TemplateDrafter()
    days = {message.as_of_date.isoformat() for message in planned.messages}
    run = " ".join([source, batch.policy.campaign, *sorted(days)])
    return GeminiDrafter(settings, Ledger(store), run)


def _missing(planned: Plan, store: Store, policy: Policy, source: str) -> Plan:
    """What is not in the store yet, so that nothing is written, or paid, twice."""
    texts: dict[str, tuple[str, ...]] = {}
    for row in store.messages(source):
        student = row["student_id"]
        texts[student] = (*texts.get(student, ()), row["body"])
    return only_missing(
        planned, store.missing(planned.messages, policy.asked_for), texts
    )


def _counter(total: int) -> Callable[[int], None]:
    """Tell now and then on stderr how many drafts are written."""
    told = time.monotonic()

    def done(count: int) -> None:
        nonlocal told
        if time.monotonic() - told >= SECONDS_BETWEEN_PROGRESS:
            told = time.monotonic()
            progress(f"  {count:,} of {total:,} drafts")

    return done


def _print_estimate(drafter: GeminiDrafter, missing: Plan) -> None:
    usage = drafter.estimate(missing.orders)
    kept = drafter.report.kept
    progress(
        f"Gemini, estimate: {_describe_usage(usage)}; refused drafts are written again."
        + (f" {kept:,} answers are kept from before." if kept else "")
    )


def _print_report(drafter: GeminiDrafter) -> None:
    for name, count in sorted(drafter.report.drafted.items()):
        typer.echo(f"written by:    {name} {count:,}")
    for reason, count in sorted(drafter.report.reasons.items()):
        typer.echo(f"template for:  {count:,} ({reason})")
    typer.echo(f"used:          {_describe_usage(drafter.budget.spent)}")


def _describe_usage(usage: Usage) -> str:
    cost = "price unknown" if usage.cost is None else f"{usage.cost:.4f} USD"
    return f"{usage.requests:,} requests, {usage.tokens:,} tokens, {cost}"


def print_summary(flags: int, stored: int, there: int, drafted: Drafted) -> None:
    """Tell on stdout what came of the flags."""
    typer.echo(f"flags:         {flags:,}")
    typer.echo(f"drafted:       {stored:,}")
    typer.echo(f"already there: {there:,}")
    for reason, count in sorted(drafted.skipped.items()):
        typer.echo(f"skipped:       {count:,} ({reason})")
    if drafted.refused:
        typer.echo(f"refused:       {len(drafted.refused):,} (checks)")


def describe_refusals(refused: list[Refused]) -> str:
    """Which drafts did not pass, and why."""
    lines = [
        f"  student {item.student_id}, template {item.template}: "
        + "; ".join(f"{problem.check}: {problem.reason}" for problem in item.problems)
        for item in refused[:MOST_REFUSALS_SHOWN]
    ]
    if len(refused) > MOST_REFUSALS_SHOWN:
        lines.append(f"  and {len(refused) - MOST_REFUSALS_SHOWN:,} more")
    return (
        f"{len(refused):,} drafts did not pass their checks and were not stored:\n"
        + "\n".join(lines)
        + "\nThe others are stored. Put the template, or the title that it quotes, "
        "right and draft again."
    )


def progress(text: str) -> None:
    """Tell on stderr what is going on."""
    typer.echo(text, err=True)
