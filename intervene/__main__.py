"""Commands of `python -m intervene`: results on stdout, progress on stderr."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from intervene.draft import Drafted, Policy, Refused, draft
from intervene.drafter import CHANNELS, TONES, TemplateDrafter
from intervene.handover import (
    Contact,
    Flag,
    copy_to_warehouse,
    read_contacts,
    read_flags,
    why_nobody,
)
from intervene.store import Store, open_store, store_url
from ml.settings import Settings, UserError, load_settings
from ml.warehouse import (
    WarehouseLocked,
    check_pipeline_settings,
    open_warehouse,
    read_pipeline_settings,
)

MOST_REFUSALS_SHOWN = 10

app = typer.Typer(
    help="Messages to flagged students: drafted, checked, kept in their own store.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class DraftsRefused(UserError):
    """Some drafts did not pass their checks; the others are stored."""


@app.command("draft")
def draft_command(
    campaign: Annotated[str, typer.Option(help="Name of the campaign.")] = (
        Policy.campaign
    ),
    tone: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(TONES)}; else by policy.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(CHANNELS)}; else by policy.")
    ] = None,
    all_variants: Annotated[
        bool, typer.Option("--all-variants", help="Every tone for every channel.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many flags, by rank.")
    ] = None,
) -> None:
    """Draft a message for every flagged student who has none yet.

    Example: python -m intervene draft --tone supportive --limit 10
    """
    settings = load_settings()
    policy = Policy(
        campaign=campaign,
        tone=_one_of("--tone", tone, TONES),
        channel=_one_of("--channel", channel, CHANNELS),
        all_variants=all_variants,
    )
    flags, contacts, nobody, source = _read_warehouse(settings)
    flags = flags[:limit]
    if not flags:
        typer.echo(f"No student is flagged: {nobody}")
    _progress(f"Drafting for {len(flags):,} flagged students …")
    drafted = draft(flags, contacts, policy, TemplateDrafter(), source)
    with open_store(store_url(settings)) as store:
        stored = store.add(drafted.messages, datetime.now(UTC), policy.asked_for)
        if flags:
            _print_summary(len(flags), len(stored), drafted)
        _copy(store, settings, source)
    if drafted.refused:
        raise DraftsRefused(_describe_refusals(drafted.refused))


@app.command("sync")
def sync_command() -> None:
    """Copy the store into schema intervene of the warehouse.

    Example: python -m intervene sync
    """
    settings = load_settings()
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        source = read_pipeline_settings(connection).source_system
    with open_store(store_url(settings)) as store:
        _copy(store, settings, source)


def _one_of(option: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value not in allowed:
        raise UserError(f"{option} {value!r}: use one of {', '.join(allowed)}.")
    return value


def _read_warehouse(
    settings: Settings,
) -> tuple[list[Flag], dict[str, Contact], str, str]:
    """Flags, contacts, why there may be no flags, and the source; then let go."""
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        source = check_pipeline_settings(connection, settings).source_system
        flags, contacts = read_flags(connection), read_contacts(connection)
        nobody = "" if flags else why_nobody(connection)
    return flags, contacts, nobody, source


def _copy(store: Store, settings: Settings, source: str) -> None:
    _progress("Copying messages into the warehouse …")
    try:
        with open_warehouse(settings.warehouse_path) as connection:
            copied = copy_to_warehouse(connection, store, source)
    except WarehouseLocked as error:
        raise WarehouseLocked(
            f"{error}\nThe drafts are safe in the store. Copy them into the "
            "warehouse later with `python -m intervene sync`."
        ) from None
    typer.echo(f"messages in the warehouse: {copied:,}")


def _print_summary(flags: int, stored: int, drafted: Drafted) -> None:
    there = len(drafted.messages) - stored
    typer.echo(f"flags:         {flags:,}")
    typer.echo(f"drafted:       {stored:,}")
    typer.echo(f"already there: {there:,}")
    for reason, count in sorted(drafted.skipped.items()):
        typer.echo(f"skipped:       {count:,} ({reason})")
    if drafted.refused:
        typer.echo(f"refused:       {len(drafted.refused):,} (checks)")


def _describe_refusals(refused: list[Refused]) -> str:
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


def _progress(text: str) -> None:
    typer.echo(text, err=True)


def main() -> None:
    """Run a command; what the user can put right is printed without a traceback."""
    try:
        app(prog_name="python -m intervene")
    except UserError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
