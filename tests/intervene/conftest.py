"""Fixtures: a small warehouse, and a way to run the commands."""

import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
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


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of an empty schema, which costs less than a database."""
    name = f"store_{uuid.uuid4().hex}"
    url = sa.make_url(postgresql_server).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"create schema {name}")
    engine.dispose()
    return f"{postgresql_server}?options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/each/store.sqlite"
    return request.getfixturevalue("postgresql_url")
