"""Fixtures: a small warehouse, and a way to run the commands."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from intervene_examples import (
    CONTACT_DDL,
    FLAG_DDL,
    PIPELINE_SETTINGS,
    SETTINGS,
    Warehouse,
)

from intervene.__main__ import main


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """An empty warehouse, and an environment that points at it."""
    made = Warehouse(tmp_path / "warehouse.duckdb")
    for sql in (FLAG_DDL, "create schema personal", CONTACT_DDL, PIPELINE_SETTINGS):
        made.run(sql)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WAREHOUSE_PATH", str(made.path))
    monkeypatch.setenv("INTERVENE_STORE", f"sqlite:///{tmp_path}/store.sqlite")
    return made


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run `python -m intervene …` in this process."""

    def command(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["intervene", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return command
