"""One page about data and model that opens offline: `python -m ml.report`."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ml.cli import clean_errors, start_logging
from ml.reporting.audit_sections import audit_sections, settings_section
from ml.reporting.data_sections import data_sections
from ml.reporting.model_sections import model_sections
from ml.reporting.page import Page, render
from ml.reporting.read import Facts, read_facts
from ml.reporting.study_sections import study_sections
from ml.reporting.verdict import give_verdict
from ml.settings import Settings, UserError, load_settings

# Beside the warehouse, unless --out says otherwise.
REPORT_FILE = "report.html"
GLOSSARY = {
    "Case": "A prediction point: one student with one assessment, seen some days "
    "before it is due.",
    "Lead": "How many days before the due day a case is looked at.",
    "Rule": "Needs no model: students with the most missed assessments first, then "
    "those who have studied nothing so far.",
    "Precision": "Of those flagged, the share that fails.",
    "Recall": "Of those who fail, the share that is flagged.",
    "PR-AUC": "Mean precision over all cuts: how well the ranking puts the failing on "
    "top. 1 is perfect; a random order gets the share that fails.",
    "ROC-AUC": "How often a failing case is ranked above one that does not fail. 0.5 "
    "is chance.",
    "Brier score": "Mean squared distance between predicted risk and outcome; the "
    "lower the better.",
    "Expected calibration error": "By how much predicted risks are off on average, "
    "over ten groups of equal size.",
    "95 % interval": "Where the figure lies in 95 of 100 draws of the students.",
    "Reliability, resolution, uncertainty": "Parts of the Brier score: how far risks "
    "are from what happened (low is good), how far they tell groups apart (high is "
    "good), and what would be left to guess without any model.",
    "Net benefit": "Right flags, less the wrong ones at the price one has chosen.",
    "Expected gain": "Passes that contacts are assumed to bring about, at their value, "
    "less what all contacts cost.",
    "Still reachable": "Of the failing that could be asked about at the longest lead, "
    "the share that has not left the course by then.",
    "Cold start": "A student's first assessment in a course: nothing was due before.",
}

app = typer.Typer(add_completion=False)


def build_report(
    settings: Settings, explore: bool = False, run_id: str | None = None
) -> str:
    """Read the warehouse, close it, and return the page as HTML.

    Equal tables give an equal page, to the last byte.

    Parameters
    ----------
    explore
        The data alone; needs no model.
    run_id
        The run to show; None: the champion, else the newest.

    Raises
    ------
    UserError
        The warehouse is missing, locked or built under other settings, or the run
        is not there.
    """
    return render(compose(read_facts(settings, explore, run_id), explore))


def compose(facts: Facts, explore: bool = False) -> Page:
    """Everything the page shows, in its order."""
    if explore:
        sections = [*data_sections(facts), settings_section(facts)]
    else:
        sections = [
            *data_sections(facts),
            *model_sections(facts),
            *study_sections(facts),
            *audit_sections(facts),
        ]
    built = facts.built
    return Page(
        title="Student success: the data" if explore else "Student success: the model",
        subtitle=f"Source {built.source_system}, target "
        f"{built.target_definition.replace('_', ' ')}, day {built.as_of_date}",
        verdict=give_verdict(facts, explore),
        sections=sections,
        glossary=GLOSSARY,
    )


def write_report(html: str, path: Path) -> None:
    """Replace the file in one step: nobody opens half a page.

    Raises
    ------
    UserError
        The file cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".html.draft")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(html)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except OSError as error:
        raise UserError(
            f"The report cannot be written to {path}: {error.strerror}. Choose another "
            "place with --out."
        ) from None


@app.command(epilog="Example: python -m ml.report --explore --out data/explore.html")
def main(
    explore: Annotated[
        bool,
        typer.Option("--explore", help="The data alone; works before any model."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file; default: report.html by the warehouse."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="The run to show; default: the champion."),
    ] = None,
) -> None:
    """Write one self-contained HTML page about the data and the model."""
    with clean_errors():
        settings = load_settings()
        start_logging(settings)
        if explore and run:
            raise UserError("--explore shows no run: leave out --run or --explore.")
        path = out or settings.warehouse_path.parent / REPORT_FILE
        write_report(build_report(settings, explore, run), path)
        print(f"Report: {path}")


if __name__ == "__main__":
    app()
