"""What the commands share: progress on stderr, results on stdout, clean errors."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from ml.settings import Settings, UserError

console = Console(stderr=True)


class Engine(StrEnum):
    """Where the tables are, and who computes."""

    DUCKDB = "duckdb"
    SPARK = "spark"


@contextmanager
def clean_errors() -> Iterator[None]:
    """Print what a user can put right without a traceback, and exit with 1."""
    try:
        yield
    except UserError as error:
        console.print(f"[bold red]Error:[/] {_escape(str(error))}", soft_wrap=True)
        raise typer.Exit(code=1) from None


def _escape(text: str) -> str:
    """Brackets in a message are no markup."""
    return text.replace("[", r"\[")


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, and the function that moves it on."""
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=total)
        yield lambda: bar.advance(task)


def start_logging(settings: Settings) -> None:
    """Log to stderr from LOG_LEVEL up."""
    handler = RichHandler(console=console, show_path=False, show_time=False)
    logging.basicConfig(
        level=settings.log_level, handlers=[handler], format="%(message)s", force=True
    )
