"""Commands of `python -m intervene`: results on stdout, progress on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from textwrap import indent
from typing import Annotated

import typer

from intervene.delivery.channels import make_channels
from intervene.delivery.inbox import read_inbox
from intervene.delivery.outbox import release, resolve, unknown
from intervene.delivery.send import (
    Rules,
    Sender,
    describe_line,
    describe_unknown,
    summarise,
)
from intervene.drafting.command import (
    describe_refusals,
    draft_batch,
    print_summary,
    progress,
)
from intervene.drafting.draft import Drafted, Policy, plan
from intervene.drafting.drafter import CHANNELS, TONES
from intervene.experiments.analysis import (
    Evidence,
    analyse_campaigns,
    describe_assigned,
    describe_effects,
    divide,
    draw_arms,
    overview,
    read_evidence,
)
from intervene.experiments.campaigns import DRAFTERS, CampaignError, read_campaigns
from intervene.handover import (
    Contact,
    copy_to_warehouse,
    read_contacts,
    read_outcomes,
    record_outcomes,
    why_nobody,
)
from intervene.review.actions import (
    Result,
    Seen,
    approve,
    reject,
    undo,
    why_not_a_reason,
)
from intervene.review.snapshot import Snapshot, read_snapshots, save_snapshots
from intervene.rights import (
    describe_everything,
    find_everything,
    forget,
    retain,
    write_export,
)
from intervene.store import IllegalMove, Message, Store, open_store_of
from ml.cli import start_logging
from ml.settings import Settings, UserError, load_settings
from ml.warehouse import (
    WarehouseLocked,
    check_pipeline_settings,
    open_warehouse,
    read_pipeline_settings,
)

DECISIONS = {
    "sent": "sent",
    "retry": "will be sent again",
    "release": "can be sent",
}
RECORDED = ("delivered", "bounced", "replied", "complained")

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
    declared = read_campaigns(settings)
    only = campaign if campaign in {item.name for item in declared} else None
    if only and (policy.asked_for or all_variants):
        raise UserError(
            f"--campaign {only} is declared in CAMPAIGNS: its arms say tone and "
            "channel. Leave --tone, --channel and --all-variants out."
        )
    snapshots, contacts, nobody, source, evidence = _read_warehouse(settings)
    snapshots = snapshots[:limit]
    flags = [snapshot.flag for snapshot in snapshots]
    if not flags:
        typer.echo(f"No student is flagged: {nobody}")
    with open_store_of(settings) as store:
        # Before anything is drafted: what is written must not decide who is where.
        assigned = draw_arms(
            store,
            declared,
            evidence,
            settings,
            source,
            datetime.now(UTC),
            keep=not estimate,
            limit=limit,
        )
        batches, without = divide(flags, assigned, policy, drafter, only)
        if not estimate:
            progress(f"Drafting for {len(flags):,} flagged students …")
        drafted, stored, planned = Drafted([], without, []), 0, list[Message]()
        for batch in batches:
            plans = plan(batch.flags, contacts, batch.policy, source)
            found, new = draft_batch(batch, plans, store, settings, source, estimate)
            planned += plans.messages
            stored += new
            drafted.skipped.update(found.skipped)
            drafted.refused.extend(found.refused)
        if estimate:
            return
        written_to = {message.student_id for message in planned}
        save_snapshots(
            store, [s for s in snapshots if s.flag.student_id in written_to], source
        )
        for line in describe_assigned(assigned):
            typer.echo(line)
        if flags:
            there = len(planned) - stored - len(drafted.refused)
            print_summary(len(flags), stored, there, drafted)
        _copy(store, settings, source)
    if drafted.refused:
        raise DraftsRefused(describe_refusals(drafted.refused))


@app.command("campaigns")
def campaigns_command(
    analyse: Annotated[
        bool, typer.Option("--analyse", help="Measure what they brought.")
    ] = False,
) -> None:
    """Check the declared campaigns, or measure the effects of those that have begun.

    Example: python -m intervene campaigns --analyse
    """
    settings = load_settings()
    if analyse:
        progress("Analysing campaigns …")
        with open_warehouse(settings.warehouse_path) as connection:
            check_pipeline_settings(connection, settings)
            effects = analyse_campaigns(connection, settings)
        typer.echo(describe_effects(effects))
        return
    declared = read_campaigns(settings)
    *_, source, evidence = _read_warehouse(settings)
    with open_store_of(settings) as store:
        told, trouble = overview(declared, store, evidence, settings, source)
    typer.echo(told)
    if trouble:
        raise CampaignError(trouble)


@app.command("sync")
def sync_command() -> None:
    """Give messages the outcome of their sitting, and copy the store to the warehouse.

    Example: python -m intervene sync
    """
    settings = load_settings()
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        source = read_pipeline_settings(connection).source_system
        outcomes = read_outcomes(connection)
    with open_store_of(settings) as store:
        recorded = record_outcomes(store, outcomes, source, datetime.now(UTC))
        typer.echo(f"outcomes recorded: {recorded:,}")
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
        typer.Option("--resolve", metavar="MESSAGE_ID", help="Decide about one."),
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
    with open_store_of(settings) as store:
        if list_unknown:
            typer.echo(describe_unknown(unknown(store, now)))
        elif resolve_id is not None:
            chosen = _one_of("--resolve", decision or "", tuple(DECISIONS)) or ""
            by = actor or getuser()
            with _illegal_moves_explained():
                if chosen == "release":
                    release(store, resolve_id, by, now)
                else:
                    resolve(store, resolve_id, chosen == "sent", by, now)
            typer.echo(f"{resolve_id}: {DECISIONS[chosen]}")
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
    wrong = why_not_a_reason(reason) if reason else None
    if wrong:
        raise UserError(f"--reason: {wrong}.")
    with (
        open_store_of(load_settings()) as store,
        _illegal_moves_explained(),
    ):
        store.record(message_id, event, actor or getuser(), datetime.now(UTC), reason)
    typer.echo(f"{message_id}: {event}")


@app.command("review")
def review_command(
    host: Annotated[
        str | None, typer.Option(help="Where to listen; else REVIEW_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Else REVIEW_PORT.")
    ] = None,
) -> None:
    """Serve the page on which advisors read, edit, approve and reject messages.

    Example: python -m intervene review
    """
    # Only here: the other commands need no web server, and start sooner without.
    from intervene.review.server import serve

    settings = load_settings()
    start_logging(settings)
    with open_store_of(settings) as store:
        serve(
            store,
            settings,
            host=host or settings.review_host,
            port=settings.review_port if port is None else port,
            announce=typer.echo,
        )


MessageIds = Annotated[list[str], typer.Argument(metavar="MESSAGE_ID...")]
By = Annotated[
    str | None, typer.Option("--by", help="Who decides; else the system's user.")
]


@app.command("approve")
def approve_command(message_ids: MessageIds, actor: By = None) -> None:
    """Approve messages; other variants of each are rejected.

    Example: python -m intervene approve MESSAGE_ID --by anna
    """
    _decide("approved", message_ids, actor, approve)


@app.command("reject")
def reject_command(
    message_ids: MessageIds,
    reason: Annotated[str, typer.Option(help="Why; no names, no addresses.")],
    actor: By = None,
) -> None:
    """Reject messages that have not gone out.

    Example: python -m intervene reject MESSAGE_ID --reason "already in contact"
    """

    def decide(store: Store, chosen: list[Seen], by: str, now: datetime) -> Result:
        return reject(store, chosen, reason, by, now)

    _decide("rejected", message_ids, actor, decide)


@app.command("undo")
def undo_command(message_ids: MessageIds, actor: By = None) -> None:
    """Put approved or rejected messages back to be decided, before they are sent.

    Example: python -m intervene undo MESSAGE_ID
    """
    _decide("put back", message_ids, actor, undo)


def _decide(
    verb: str,
    message_ids: list[str],
    actor: str | None,
    decide: Callable[[Store, list[Seen], str, datetime], Result],
) -> None:
    chosen = [Seen(message_id) for message_id in message_ids]
    with open_store_of(load_settings()) as store:
        result = decide(store, chosen, actor or getuser(), datetime.now(UTC))
    for message_id in result.done:
        typer.echo(f"{message_id}: {verb}")
    if result.refused:
        lines = [f"  {key}: {why}" for key, why in result.refused.items()]
        raise UserError("\n".join([f"Could not be {verb}:", *lines]))


@app.command("inbox")
def inbox_command() -> None:
    """Record the bounces and replies that lie in MAIL_FOLDER.

    Example: python -m intervene inbox
    """
    settings = load_settings()
    with open_store_of(settings) as store:
        counts = read_inbox(store, settings, datetime.now(UTC))
    for event, count in sorted(counts.items()):
        typer.echo(f"{event + ':':<14} {count:,}")
    if not counts:
        typer.echo("No mail about a message.")


@app.command("report")
def report_command(
    out: Annotated[
        Path | None, typer.Option(help="The file; else messages.html by the warehouse.")
    ] = None,
) -> None:
    """Write one page about what became of the messages; it opens offline.

    Example: python -m intervene report
    """
    # Imported here: it brings matplotlib, which no other command waits for.
    from intervene.tracking import REPORT_FILE, build_report
    from ml.report import write_report

    settings = load_settings()
    path = out or settings.warehouse_path.with_name(REPORT_FILE)
    write_report(build_report(settings), path)
    typer.echo(f"report: {path}")


@app.command("export")
def export_command(
    student_id: Annotated[str, typer.Argument(metavar="STUDENT_ID")],
    to: Annotated[
        Path | None, typer.Option(help="A new file, for its owner alone; else stdout.")
    ] = None,
) -> None:
    """Write everything that is held about a student, as JSON.

    Example: python -m intervene export STUDENT_ID --to export.json
    """
    settings = load_settings()
    with open_store_of(settings) as store:
        everything = find_everything(store, settings, student_id)
    if to is None:
        typer.echo(everything.as_json())
    else:
        write_export(everything, to)
    progress(describe_everything(everything))


@app.command("forget")
def forget_command(
    student_id: Annotated[str, typer.Argument(metavar="STUDENT_ID")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete everything that is held about a student, for good.

    Example: python -m intervene forget STUDENT_ID
    """
    settings = load_settings()
    with open_store_of(settings) as store:
        everything = find_everything(store, settings, student_id)
        progress(describe_everything(everything))
        if not yes:
            typer.confirm("Delete this for good?", abort=True, err=True)
        is_new = forget(store, settings, everything)
    rows = sum(count for *_, count in everything.counts())
    typer.echo(f"deleted: {rows:,} rows, files and mails" if rows else "nothing found")
    if everything.places.get("warehouse"):
        typer.echo("next: `dbt build`, because counts and means still hold the student")
    typer.echo(
        "remembered: no build, draft or message will have this student"
        if is_new
        else "remembered before"
    )


@app.command("retain")
def retain_command() -> None:
    """Remove the text that is older than RETENTION_DAYS.

    Example: python -m intervene retain
    """
    settings = load_settings()
    with open_store_of(settings) as store:
        removed = retain(store, settings, datetime.now(UTC))
    for what, count in sorted(removed.items()):
        typer.echo(f"{what + ':':<21} {count:,}")


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
) -> tuple[list[Snapshot], dict[str, Contact], str, str, Evidence]:
    """Flags, contacts, why there may be no flags, and the source; then let go."""
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        source = check_pipeline_settings(connection, settings).source_system
        snapshots, contacts = read_snapshots(connection), read_contacts(connection)
        nobody = "" if snapshots else why_nobody(connection)
        evidence = read_evidence(connection, contacts)
    return snapshots, contacts, nobody, source, evidence


def _copy(store: Store, settings: Settings, source: str) -> None:
    progress("Copying messages into the warehouse …")
    try:
        with open_warehouse(settings.warehouse_path) as connection:
            copied = copy_to_warehouse(connection, store, source)
    except WarehouseLocked as error:
        raise WarehouseLocked(
            f"{error}\nThe messages are safe in the store. Copy them into the "
            "warehouse later with `python -m intervene sync`."
        ) from None
    typer.echo(f"messages in the warehouse: {copied:,}")


def main() -> None:
    """Run a command; what the user can put right is printed without a traceback."""
    try:
        app(prog_name="python -m intervene")
    except UserError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
