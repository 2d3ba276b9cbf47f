"""Publish a read-only snapshot for BI tools: `python -m ml.publish`.

`--target postgres` publishes to PostgreSQL instead (ml/serving).

Layout of DATA_PROCESSED_PATH (default `data/published`):

    student_success.duckdb   -> current/student_success.duckdb
    parquet                  -> current/parquet   (<schema>.<table>.parquet)
    manifest.json            -> current/manifest.json
    current                  -> .snapshots/<number>

Everything a reader opens goes through `current`, a link that is replaced in one
step, so nobody ever sees half a snapshot. Whoever has an old one open keeps it:
the newest `KEEP` snapshots stay on disk.
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import duckdb
import typer

from ml.cli import clean_errors, start_logging
from ml.settings import Settings, UserError, load_settings
from ml.warehouse import open_warehouse, sql_text

DATABASE = "student_success.duckdb"
# What analysts read. Schema `personal` is not among them and never will be.
SCHEMAS = ("main", "ml", "intervene", "quarantine")
KEEP = 3

app = typer.Typer(add_completion=False)


class Target(StrEnum):
    """Where readers look."""

    files = "files"
    postgres = "postgres"


def publish(warehouse: Path, folder: Path) -> Path:
    """Write a snapshot of the warehouse and make it the current one.

    Parameters
    ----------
    warehouse
        The DuckDB file of the pipeline; nobody may be writing to it.
    folder
        Where readers look; made if it does not exist.

    Returns
    -------
    Path
        Folder of the new snapshot.
    """
    snapshots = folder / ".snapshots"
    snapshots.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(snapshots):
        snapshot = _write(folder, lambda draft: _copy_warehouse(warehouse, draft))
        _remove(_finished(snapshots)[:-KEEP])
    return snapshot


def withdraw(folder: Path, conditions: dict[str, str], values: dict[str, Any]) -> None:
    """Publish the current snapshot again without some rows; remove all older ones.

    Parameters
    ----------
    folder
        Where readers look, with a snapshot in it.
    conditions
        By table, as `"schema"."table"`, the SQL condition of the rows to leave out.
    values
        Parameters of the conditions.
    """
    snapshots = folder / ".snapshots"
    with _one_at_a_time(snapshots):
        older = _finished(snapshots)
        source = older[-1] / DATABASE

        def copy(draft: Path) -> dict[str, int]:
            with duckdb.connect(str(source), read_only=True) as connection:
                return _copy_tables(connection, draft, conditions, values)

        _write(folder, copy)
        _remove(older)


def remove_older(folder: Path, before: datetime) -> int:
    """Remove snapshots published before then, but never the current one."""
    if not snapshots_of(folder):
        return 0
    with _one_at_a_time(folder / ".snapshots"):
        old = [
            path for path in snapshots_of(folder)[:-1] if published_at(path) < before
        ]
        _remove(old)
    return len(old)


def snapshots_of(folder: Path) -> list[Path]:
    """Folders of the snapshots that are kept, oldest first."""
    snapshots = folder / ".snapshots"
    return _finished(snapshots) if snapshots.is_dir() else []


def published_at(snapshot: Path) -> datetime:
    """When a snapshot was published."""
    manifest = json.loads((snapshot / "manifest.json").read_text(encoding="utf-8"))
    return datetime.fromisoformat(manifest["published_at"])


def _write(folder: Path, copy: Callable[[Path], dict[str, int]]) -> Path:
    """Let `copy` write the tables of a new snapshot, and make it the current one."""
    snapshots = folder / ".snapshots"
    number = 1 + max((int(path.name) for path in _finished(snapshots)), default=0)
    draft = snapshots / "draft"
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "parquet").mkdir(parents=True)
    _write_manifest(draft, number, copy(draft))
    for file in draft.rglob("*.*"):
        file.chmod(0o444)
    snapshot = draft.rename(snapshots / f"{number:06d}")
    _link(folder / "current", Path(".snapshots") / snapshot.name)
    for name in (DATABASE, "parquet", "manifest.json"):
        _link(folder / name, Path("current") / name)
    return snapshot


def _remove(snapshots: list[Path]) -> None:
    for snapshot in snapshots:
        shutil.rmtree(snapshot)


@contextmanager
def _one_at_a_time(snapshots: Path) -> Iterator[None]:
    """A second publisher waits until the first has finished, or has died."""
    with (snapshots / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _finished(snapshots: Path) -> list[Path]:
    """Snapshots that are whole, oldest first."""
    return sorted(path for path in snapshots.iterdir() if path.name.isdigit())


def _copy_warehouse(warehouse: Path, draft: Path) -> dict[str, int]:
    """Copy every published table or view; returns rows by `schema.table`."""
    with open_warehouse(warehouse) as connection:
        return _copy_tables(connection, draft, {}, {})


def tables_to_publish(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Schema and name of everything that is published.

    Raises
    ------
    UserError
        Nothing was built yet.
    """
    found = connection.execute(
        "select table_schema, table_name from information_schema.tables"
        " where table_catalog = current_database()"
        " and list_contains(?, table_schema) order by all",
        [list(SCHEMAS)],
    ).fetchall()
    if ("main", "student_targets") not in found:
        raise UserError("There is nothing to publish yet. Run `dbt build` first.")
    return found


def _copy_tables(
    connection: duckdb.DuckDBPyConnection,
    draft: Path,
    left_out: dict[str, str],
    values: dict[str, Any],
) -> dict[str, int]:
    """Copy the tables of an open database, less the rows that a condition names."""
    connection.execute(f"attach {sql_text(draft / DATABASE)} as published (read_write)")
    rows = {}
    for schema, table in tables_to_publish(connection):
        condition = left_out.get(f'"{schema}"."{table}"', "false")
        connection.execute(f"create schema if not exists published.{schema}")
        connection.execute(
            f'create table published.{schema}."{table}" as'
            f' select * from {schema}."{table}"'
            f" where ({condition}) is not true order by all",
            {name: value for name, value in values.items() if f"${name}" in condition},
        )
        rows[f"{schema}.{table}"] = _export(connection, schema, table, draft)
    connection.execute("detach published")
    return rows


def _export(
    connection: duckdb.DuckDBPyConnection, schema: str, table: str, draft: Path
) -> int:
    """Write one published table as Parquet and return its number of rows."""
    file = draft / "parquet" / f"{schema}.{table}.parquet"
    found = connection.execute(
        f'copy published.{schema}."{table}" to {sql_text(file)} (format parquet)'
    ).fetchone()
    return int(found[0]) if found else 0


def _write_manifest(draft: Path, number: int, rows: dict[str, int]) -> None:
    """Say what is in the snapshot, for readers that want to check."""
    manifest = {
        "snapshot": number,
        "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": rows,
    }
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (draft / "manifest.json").write_text(text, encoding="utf-8")


def _link(link: Path, target: Path) -> None:
    """Point `link` at `target` in one step; anything real in its place is kept."""
    if link.exists() and not link.is_symlink():
        raise UserError(
            f"{link} is in the way: it is not a link made by publishing. "
            "Move it, or set DATA_PROCESSED_PATH to another folder."
        )
    temporary = link.with_name(f".{link.name}-new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _publish_files(settings: Settings) -> str:
    try:
        snapshot = publish(settings.warehouse_path, settings.data_processed_path)
    except OSError as error:
        raise UserError(
            f"Cannot publish to DATA_PROCESSED_PATH={settings.data_processed_path}: "
            f"{error.strerror}. Point it at a folder that can be written to."
        ) from None
    manifest = json.loads((snapshot / "manifest.json").read_text(encoding="utf-8"))
    return (
        f"Published {len(manifest['rows'])} tables to "
        f"{settings.data_processed_path / DATABASE} (snapshot {manifest['snapshot']})"
    )


def _publish_postgres(settings: Settings) -> str:
    url = settings.publish_postgres_url.get_secret_value()
    if not url:
        raise UserError(
            "PUBLISH_POSTGRES_URL is empty. Set it to the database that readers use, "
            "as postgresql://user:password@host:port/database."
        )
    # Imported here: its driver is an extra.
    from ml.serving import postgres

    done = postgres.publish(settings.warehouse_path, url)
    return (
        f"Published {len(done.rows)} tables with {sum(done.rows.values()):,} rows to "
        f"{done.place} (snapshot {done.snapshot})"
    )


@app.command(epilog="Example: python -m ml.publish --target postgres")
def main(
    target: Annotated[
        Target,
        typer.Option(help="DuckDB and Parquet files, or PUBLISH_POSTGRES_URL."),
    ] = Target.files,
) -> None:
    """Publish a read-only snapshot of the warehouse for BI tools."""
    with clean_errors():
        settings = load_settings()
        start_logging(settings)
        targets = {Target.files: _publish_files, Target.postgres: _publish_postgres}
        print(targets[target](settings))


if __name__ == "__main__":
    app()
