"""Commands of `python -m intervene`: results on stdout, progress on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from getpass import getuser
from textwrap import indent
from typing import Annotated

import typer

from intervene.channels import make_channels
from intervene.draft import Drafted, Plan, Policy, Refused, only_missing, plan, write
from intervene.drafter import CHANNELS, TONES, Drafter, TemplateDrafter
from intervene.gemini import GeminiDrafter
from intervene.handover import (
    Contact,
    Flag,
    copy_to_warehouse,
    read_contacts,
    read_flags,
    why_nobody,
)
from intervene.inbox import read_inbox
from intervene.ledger import Ledger
from intervene.limits import Usage
from intervene.outbox import resolve, unknown
from intervene.send import Rules, Sender, describe_line, describe_unknown, summarise
from intervene.store import IllegalMove, Store, open_store, store_url
from ml.settings import Settings, UserError, load_settings
from ml.warehouse import (
    WarehouseLocked,
    check_pipeline_settings,
    open_warehouse,
    read_pipeline_settings,
)

MOST_REFUSALS_SHOWN = 10
SECONDS_BETWEEN_PROGRESS = 2.0
DRAFTERS = ("template", "gemini")
DECISIONS = ("sent", "retry")
RECORDED = ("delivered", "bounced", "replied")

app = typer.Typer(
    help="Messages to flagged students: drafted, checked, kept in their own store.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class DeliveryTrouble(UserError):
    """Something about sending needs a person."""


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
    drafter: Annotated[
        str, typer.Option(help=f"One of {', '.join(DRAFTERS)}.")
    ] = DRAFTERS[0],
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Show what gemini would use, and stop.")
    ] = False,
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
    _one_of("--drafter", drafter, DRAFTERS)
    flags, contacts, nobody, source = _read_warehouse(settings)
    flags = flags[:limit]
    if not flags:
        typer.echo(f"No student is flagged: {nobody}")
    with open_store(store_url(settings)) as store:
        planned = plan(flags, contacts, policy, source)
        missing = _missing(planned, store, policy, source)
        writer = _make_drafter(drafter, settings, store, source, policy, planned)
        if isinstance(writer, GeminiDrafter):
            _print_estimate(writer, missing)
        if estimate:
            return
        _progress(f"Drafting for {len(flags):,} flagged students …")
        drafted = write(missing, writer, _counter(len(missing.orders)))
        stored = store.add(drafted.messages, datetime.now(UTC), policy.asked_for)
        if flags:
            there = len(planned.orders) - len(stored) - len(drafted.refused)
            _print_summary(len(flags), len(stored), there, drafted)
        if isinstance(writer, GeminiDrafter):
            _print_report(writer)
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


@app.command("send")
def send_command(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show everything, send nothing.")
    ] = False,
    list_unknown: Annotated[
        bool, typer.Option("--unknown", help="List what may or may not have gone out.")
    ] = False,
    resolve_id: Annotated[
        str | None,
        typer.Option("--resolve", metavar="MESSAGE_ID", help="Decide an unknown one."),
    ] = None,
    decision: Annotated[
        str | None, typer.Argument(help=f"With --resolve: {', '.join(DECISIONS)}.")
    ] = None,
    actor: Annotated[
        str | None, typer.Option("--by", help="Who decides; else the system's user.")
    ] = None,
) -> None:
    """Send the approved messages whose time has come.

    Example: python -m intervene send --dry-run
    """
    settings, now = load_settings(), datetime.now(UTC)
    if decision is not None and resolve_id is None:
        raise UserError(f"{decision!r} belongs to --resolve MESSAGE_ID.")
    with open_store(store_url(settings)) as store:
        if list_unknown:
            typer.echo(describe_unknown(unknown(store, now)))
        elif resolve_id is not None:
            went_out = _one_of("--resolve", decision or "", DECISIONS) == "sent"
            with _illegal_moves_explained():
                resolve(store, resolve_id, went_out, actor or getuser(), now)
            typer.echo(f"{resolve_id}: {'sent' if went_out else 'will be sent again'}")
        else:
            _send(store, settings, dry_run)


@app.command("record")
def record_command(
    event: Annotated[str, typer.Argument(help=f"One of {', '.join(RECORDED)}.")],
    message_id: Annotated[str, typer.Argument(metavar="MESSAGE_ID")],
    reason: Annotated[
        str | None, typer.Option(help="Why; no names, no addresses.")
    ] = None,
    actor: Annotated[
        str | None, typer.Option("--by", help="Who says so; else the system's user.")
    ] = None,
) -> None:
    """Record what became of a message that was sent.

    Example: python -m intervene record bounced MESSAGE_ID --reason "mailbox full"
    """
    event = _one_of("EVENT", event, RECORDED) or event
    with (
        open_store(store_url(load_settings())) as store,
        _illegal_moves_explained(),
    ):
        store.record(message_id, event, actor or getuser(), datetime.now(UTC), reason)
    typer.echo(f"{message_id}: {event}")


@app.command("inbox")
def inbox_command() -> None:
    """Record the bounces and replies that lie in MAIL_FOLDER.

    Example: python -m intervene inbox
    """
    settings = load_settings()
    with open_store(store_url(settings)) as store:
        counts = read_inbox(store, settings, datetime.now(UTC))
    for event, count in sorted(counts.items()):
        typer.echo(f"{event + ':':<14} {count:,}")
    if not counts:
        typer.echo("No mail about a message.")


def _send(store: Store, settings: Settings, dry_run: bool) -> None:
    channels, rules = make_channels(settings), Rules.from_settings(settings)
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        source = read_pipeline_settings(connection).source_system
        contacts = read_contacts(connection)
    sender = Sender(
        store, contacts, channels, rules, lambda: datetime.now(UTC), dry_run
    )
    lines = []
    for line in sender.run(source):
        lines.append(line)
        typer.echo(describe_line(line), err=not dry_run)
        if dry_run:
            typer.echo(indent(line.text, "    ") + "\n")
    typer.echo(summarise(lines))
    if not dry_run and lines:
        _copy(store, settings, source)
    trouble = sender.trouble(unknown(store, datetime.now(UTC)))
    if trouble:
        raise DeliveryTrouble(trouble)


@contextmanager
def _illegal_moves_explained() -> Iterator[None]:
    """A move that the store refuses is the user's to put right."""
    try:
        yield
    except IllegalMove as error:
        raise UserError(str(error)) from None


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
            f"{error}\nThe messages are safe in the store. Copy them into the "
            "warehouse later with `python -m intervene sync`."
        ) from None
    typer.echo(f"messages in the warehouse: {copied:,}")


def _make_drafter(
    name: str,
    settings: Settings,
    store: Store,
    source: str,
    policy: Policy,
    planned: Plan,
) -> Drafter:
    if name == "template":
        return TemplateDrafter()
    days = {message.as_of_date.isoformat() for message in planned.messages}
    run = " ".join([source, policy.campaign, *sorted(days)])
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
            _progress(f"  {count:,} of {total:,} drafts")

    return done


def _print_estimate(drafter: GeminiDrafter, missing: Plan) -> None:
    usage = drafter.estimate(missing.orders)
    kept = drafter.report.kept
    _progress(
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


def _print_summary(flags: int, stored: int, there: int, drafted: Drafted) -> None:
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
