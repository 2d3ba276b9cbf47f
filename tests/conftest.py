"""What tests share: a clone in which `make run` has been run, a browser, a server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from ml.settings import PROJECT_ROOT
from tests.pipeline import environment, is_setting
from tests.postgresql import find_postgresql, postgresql

# Begun last, they would run on while the other core has nothing to do.
LONGEST_FIRST = ("test_end_to_end.py", "test_leakage.py", "test_oulad_staging.py")


def pytest_configure() -> None:
    """Take settings out of the environment, also for tests in this process."""
    for name in filter(is_setting, list(os.environ)):
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; `--no-loadscope-reorder` keeps it so."""
    items.sort(key=lambda item: item.path.name not in LONGEST_FIRST)


def make_clone(folder: Path) -> Path:
    """Copy what git tracks, or would, with this environment as its .venv."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT_ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = PROJECT_ROOT / name
        if source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def shell(clone: Path, command: str, **settings: str) -> str:
    """Run a line as a user in the activated environment would; returns stdout."""
    inherited = environment(clone / "unused")
    # The clone's own defaults are what is tested.
    for name in ("WAREHOUSE_PATH", "MODELS_PATH", "DATA_PROCESSED_PATH"):
        inherited.pop(name)
    for name in ("INTERVENE_STORE", "DBT_TARGET_PATH", "DBT_LOG_PATH"):
        inherited.pop(name)
    inherited["PATH"] = f"{clone}/.venv/bin:{inherited['PATH']}"
    # The environment is there: make must not touch the one that runs the tests.
    command = command.replace("make ", "make --old-file .venv/installed ")
    done = subprocess.run(
        command,
        shell=True,
        cwd=clone,
        env=inherited | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        f"`{command}` ended with {done.returncode}:\n"
        f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    )
    return done.stdout


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the project before anything was run."""
    return make_clone(tmp_path_factory.mktemp("clone") / "project")


@pytest.fixture(scope="session")
def made(clone: Path) -> str:
    """What `make run` printed in the clone."""
    return shell(clone, "make run")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A PostgreSQL server of this test session; yields a URL."""
    programs = find_postgresql()
    if programs is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: postgresql)")
    with postgresql(programs) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_second_database(postgresql_server: str) -> str:
    """The URL of a database in which nothing is kept from test to test."""
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("create database emptied")
    return postgresql_server.removesuffix("postgres") + "emptied"


@pytest.fixture
def postgresql_database(postgresql_second_database: str) -> str:
    """The URL of a database without tables; emptied, as making one takes longer."""
    with psycopg.connect(postgresql_second_database) as connection:
        for (schema,) in connection.execute(
            "select nspname::regnamespace::text from pg_namespace"
            " where nspname !~ '^(pg_.*|information_schema|public)$'"
        ).fetchall():
            connection.execute(f"drop schema {schema} cascade")
    return postgresql_second_database


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail(
            "This test needs a browser: install the Debian package chromium "
            "(apt-get install --no-install-recommends chromium)."
        )
    # Spark may have the other core, and this one's share of memory bandwidth.
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        yield opened
        opened.close()
