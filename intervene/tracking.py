"""One page about what became of the messages: `python -m intervene report`.

Read from the tables of `dbt_project/models/marts/interventions/` and from
`intervene.experiment_effects`. Nobody is named: no student, no advisor, no text.
"""

from dataclasses import dataclass

import duckdb
import pandas as pd

from ml.reporting.charts import bars, dots
from ml.reporting.page import (
    NOT_DEFINED,
    Page,
    Picture,
    Section,
    Table,
    Tile,
    Verdict,
    count,
    number,
    percent,
    render,
    with_interval,
)
from ml.settings import Settings
from ml.warehouse import (
    PipelineSettings,
    open_warehouse,
    read_pipeline_settings,
    require_tables,
    table_exists,
)

REPORT_FILE = "messages.html"
FUNNEL, TIMES, EDITS = "message_funnel", "review_times", "message_edit_rates"
REBUILD = "`dbt build --select source:intervene+`"
# Columns of the funnel, as the page calls them.
STAGES = {
    "drafted": "Drafted",
    "approved": "Approved",
    "sent": "Sent",
    "delivered": "Arrival reported",
    "replied": "Replied",
}
LOSSES = {
    "waiting_for_review": "Waiting now",
    "edited": "Edited",
    "rejected": "Rejected",
    "bounced": "Bounced",
    "complained": "Complained",
}
GROUPS = {
    "campaign": "Campaign",
    "arm": "Arm",
    "channel": "Channel",
    "tone": "Tone",
    "drafter": "Drafter",
}
KIND = ["drafter", "channel", "tone"]
WAITS = {1: "1 hour", 4: "4 hours", 24: "1 day", 72: "3 days"}
FEW = 20
GLOSSARY = {
    "Arm": "Which part of an experiment a student was drawn into; none where the "
    "campaign is not an experiment.",
    "Drafted": "Passed the checks and was stored.",
    "Approved": "By an advisor, at least once.",
    "Arrival reported": "The other side said that it arrived or was answered. Most "
    "channels say nothing, so a low number is no bad sign.",
    "Time to review": "From when a draft could be read to the first approval or "
    "rejection.",
    "Edited": "An advisor changed the text at least once.",
    "Effect": "Difference between an arm and the control arm, by intention to treat.",
    "95 % interval": "Where the figure would lie in 95 of 100 repetitions.",
}


@dataclass(frozen=True)
class Tracked:
    """What the page is about.

    Attributes
    ----------
    funnel, times, edits, effects
        The tables, in a fixed order.
    newer
        Messages that the tables do not have yet, or have no longer.
    """

    built: PipelineSettings
    funnel: pd.DataFrame
    times: pd.DataFrame
    edits: pd.DataFrame
    effects: pd.DataFrame
    newer: int

    def total(self, column: str) -> int:
        """Sum of a column of the funnel."""
        return int(self.funnel[column].sum())


def build_report(settings: Settings) -> str:
    """Read the warehouse, close it, and return the page as HTML.

    Equal tables give an equal page, to the last byte.

    Raises
    ------
    UserError
        The warehouse is missing, locked, or has not got the tables yet.
    """
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        return render(compose(read_tracked(connection)))


def read_tracked(connection: duckdb.DuckDBPyConnection) -> Tracked:
    """Read what the page needs."""
    require_tables(connection, [FUNNEL, TIMES, EDITS])
    funnel = connection.execute(f"from main.{FUNNEL} order by all").df()
    messages = 0
    if table_exists(connection, "messages", "intervene"):
        rows = connection.execute("select count(*) from intervene.messages").fetchall()
        messages = int(rows[0][0])
    effects = pd.DataFrame()
    if table_exists(connection, "experiment_effects", "intervene"):
        effects = connection.execute(
            "from intervene.experiment_effects where role = 'primary' order by all"
        ).df()
    return Tracked(
        built=read_pipeline_settings(connection),
        funnel=funnel,
        times=connection.execute(f"from main.{TIMES} order by all").df(),
        edits=connection.execute(f"from main.{EDITS} order by all").df(),
        effects=effects,
        newer=abs(messages - int(funnel["drafted"].sum())),
    )


def compose(tracked: Tracked) -> Page:
    """Everything the page shows, in its order."""
    built = tracked.built
    return Page(
        title="Student success: the messages",
        subtitle=f"Source {built.source_system}, day {built.as_of_date}",
        verdict=_verdict(tracked),
        sections=[
            _funnel(tracked),
            _reviews(tracked),
            _edits(tracked),
            _effects(tracked),
        ],
        glossary=GLOSSARY,
        command="python -m intervene report",
    )


# ---------------------------------------------------------------- in short


def _verdict(tracked: Tracked) -> Verdict:
    warnings = []
    if tracked.newer:
        warnings.append(
            f"The tables differ by {tracked.newer:,} messages from the copy of the "
            f"store. Run {REBUILD} and make this page again."
        )
    drafted, sent = tracked.total("drafted"), tracked.total("sent")
    if not drafted:
        return Verdict("neutral", "No message was drafted yet", [], warnings)
    unwanted = tracked.total("complained")
    if unwanted:
        warnings.append(
            f"Marked as unwanted: {unwanted:,}. Mail servers begin to refuse a sender "
            "of whom many complain."
        )
    headline = (
        f"{sent:,} of {drafted:,} messages sent" if sent else "No message sent yet"
    )
    return Verdict("neutral", headline, [], warnings, _tiles(tracked))


def _tiles(tracked: Tracked) -> list[Tile]:
    drafted, sent = tracked.total("drafted"), tracked.total("sent")
    hours = tracked.times["hours_to_decision"]
    edited = tracked.total("edited")
    return [
        Tile(count(tracked.total("waiting_for_review")), "wait for an advisor"),
        Tile(_duration(hours.median()), "time to review", "half took less"),
        Tile(percent(edited / drafted), "edited", f"{edited:,} of {drafted:,} drafts"),
        Tile(
            percent(tracked.total("bounced") / (sent or float("nan"))),
            "bounced",
            f"{tracked.total('bounced'):,}, beside {sent:,} sent",
        ),
    ]


def _duration(hours: float) -> str:
    """`40 min`, `3.5 h` or `2.1 days`, or a dash where there is none."""
    if pd.isna(hours):
        return NOT_DEFINED
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


# ---------------------------------------------------------------- sections


def _funnel(tracked: Tracked) -> Section:
    section = ("funnel", "How far the messages came")
    if not tracked.total("drafted"):
        return Section(*section, missing=_nothing("drafted", "draft"))
    totals = [tracked.total(name) for name in STAGES]
    shares = [total / totals[0] for total in totals]
    picture = Picture(
        "All messages",
        bars(
            "funnel",
            "How many messages were drafted, approved, sent, arrived and answered",
            list(STAGES.values()),
            totals,
            [count(total) for total in totals],
            "Messages",
        ),
        "Messages by what they reached",
        "A message counts in every state that it was ever in: one that was sent was "
        "approved before.",
        Table(
            "All messages",
            ["Reached", "Messages", "Share of drafted"],
            [
                [name, count(total), percent(share)]
                for name, total, share in zip(
                    STAGES.values(), totals, shares, strict=True
                )
            ],
        ),
    )
    tables = [
        _by_group(tracked.funnel, "How far, by group", STAGES),
        _by_group(tracked.funnel, "What else became of them, by group", LOSSES),
    ]
    return Section(*section, pictures=[picture], tables=tables)


def _by_group(funnel: pd.DataFrame, caption: str, columns: dict[str, str]) -> Table:
    rows = [
        [str(row[name]) for name in GROUPS] + [count(row[name]) for name in columns]
        for row in funnel.to_dict("records")
    ]
    return Table(caption, [*GROUPS.values(), *columns.values()], rows, len(GROUPS))


def _reviews(tracked: Tracked) -> Section:
    section = ("review", "How long drafts wait for an advisor")
    hours = tracked.times["hours_to_decision"]
    if hours.empty:
        return Section(*section, missing="Nobody has decided on a draft yet.")
    shares = [float((hours <= limit).mean()) for limit in WAITS]
    picture = Picture(
        "Decided within",
        bars(
            "review",
            "Share of the reviewed drafts decided within an hour, a day, three days",
            list(WAITS.values()),
            shares,
            [percent(share) for share in shares],
            "Share of the reviewed drafts",
            percent=True,
        ),
        "Share decided within a time",
        f"Of the {len(hours):,} drafts that were decided on; "
        f"{tracked.total('waiting_for_review'):,} still wait and are not among them.",
    )
    rows = [
        [*map(str, key), *_times_of(group)]
        for key, group in tracked.times.groupby(KIND, sort=True)
    ]
    table = Table(
        "By drafter, channel and tone",
        [
            "Drafter",
            "Channel",
            "Tone",
            "Decided",
            "Approved",
            "Half within",
            "90 % within",
        ],
        rows,
        len(KIND),
    )
    return Section(*section, pictures=[picture], tables=[table])


def _times_of(group: pd.DataFrame) -> list[str]:
    hours = group["hours_to_decision"]
    return [
        count(len(group)),
        percent((group["decision"] == "approved").mean()),
        _duration(float(hours.median())),
        _duration(float(hours.quantile(0.9))),
    ]


def _edits(tracked: Tracked) -> Section:
    section = ("edits", "What advisors change")
    if tracked.edits.empty:
        none = "Nobody has edited a draft that was decided on yet."
        return Section(*section, missing=none)
    reviewed = len(tracked.times)
    parts = tracked.edits[tracked.edits["part"] != "any"]
    by_part = parts.groupby("part", sort=True)["edited_messages"].sum() / reviewed
    by_part = by_part.sort_values(ascending=False, kind="stable")
    picture = Picture(
        "Parts that were changed",
        bars(
            "edits",
            "Share of the reviewed drafts in which each part was changed",
            [str(name).capitalize() for name in by_part.index],
            list(by_part),
            [percent(share) for share in by_part],
            "Share of the reviewed drafts",
            percent=True,
        ),
        "Share of drafts by the part that was changed",
        f"Of {reviewed:,} drafts that were decided on. What is changed most is where "
        "the drafts are weakest: templates, prompts or tone.",
    )
    rows = [
        [
            *(str(row[name]) for name in [*KIND, "part"]),
            f"{row['edited_messages']:,} of {row['reviewed_messages']:,}",
            percent(row["edited_share"]),
            number(row["words_removed"] / row["edited_messages"], 1),
            number(row["words_added"] / row["edited_messages"], 1),
        ]
        for row in tracked.edits.to_dict("records")
    ]
    table = Table(
        "By drafter, channel, tone and part; words are means over the edited drafts",
        [
            "Drafter",
            "Channel",
            "Tone",
            "Part",
            "Edited",
            "Share",
            "Words out",
            "Words in",
        ],
        rows,
        len(KIND) + 1,
    )
    paragraphs = []
    if reviewed < FEW:
        paragraphs = [f"Only {reviewed:,} drafts were decided on: a share says little."]
    return Section(*section, paragraphs=paragraphs, pictures=[picture], tables=[table])


def _effects(tracked: Tracked) -> Section:
    section = ("effect", "Effect so far")
    effects = tracked.effects
    if effects.empty:
        return Section(
            *section,
            missing="No experiment was analysed yet. Without a control arm nobody "
            "knows whether messages help; docs/experiments.md says how to declare one.",
        )
    known = effects[effects["estimate"].notna()]
    pictures = [_effect_picture(known)] if len(known) else []
    rows = [
        [
            str(row["campaign"]),
            str(row["arm"]),
            str(row["metric"]).replace("_", " "),
            str(row["verdict"]).replace("_", " "),
            f"{row['assigned']:,} / {row['assigned_control']:,}",
            with_interval(row["estimate"], row["ci_low"], row["ci_high"]),
        ]
        for row in effects.to_dict("records")
    ]
    table = Table(
        "Each arm against its control",
        ["Campaign", "Arm", "Metric", "Verdict", "Students / control", "Effect"],
        rows,
        4,
    )
    notes = [
        f"{row['campaign']}, {row['arm']}: {row['note']}"
        for row in effects.to_dict("records")
        if row["note"]
    ]
    return Section(*section, paragraphs=notes, pictures=pictures, tables=[table])


def _effect_picture(known: pd.DataFrame) -> Picture:
    labels = [
        f"{row['campaign']}, {row['arm']}: {str(row['metric']).replace('_', ' ')}"
        for row in known.to_dict("records")
    ]
    return Picture(
        "Difference from the control arm",
        dots(
            "effects",
            "Effect of each arm with its interval",
            labels,
            list(known["estimate"]),
            list(known["ci_low"]),
            list(known["ci_high"]),
            "Arm minus control",
            levels={"no difference": 0.0},
        ),
        "Effects with their 95 % intervals",
        "An interval that holds 0 does not tell help from harm. Being at risk is what "
        "messages are to prevent: below 0 is better there.",
    )


def _nothing(done: str, command: str) -> str:
    return f"No message was {done} yet: `python -m intervene {command}` writes drafts."
