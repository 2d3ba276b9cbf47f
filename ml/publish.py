"""Publish a read-only snapshot for BI tools: `python -m ml.publish`.

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
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from ml.settings import UserError, load_settings
from ml.warehouse import open_warehouse

DATABASE = "student_success.duckdb"
# What analysts read. Schema `personal` is not among them and never will be.
SCHEMAS = ("main", "ml", "intervene", "quarantine")
KEEP = 3


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
        number = 1 + max((int(path.name) for path in _finished(snapshots)), default=0)
        draft = snapshots / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "parquet").mkdir(parents=True)
        _write_manifest(draft, number, _copy_tables(warehouse, draft))
        for file in draft.rglob("*.*"):
            file.chmod(0o444)
        snapshot = draft.rename(snapshots / f"{number:06d}")
        _link(folder / "current", Path(".snapshots") / snapshot.name)
        for name in (DATABASE, "parquet", "manifest.json"):
            _link(folder / name, Path("current") / name)
        for old in _finished(snapshots)[:-KEEP]:
            shutil.rmtree(old)
    return snapshot


@contextmanager
def _one_at_a_time(snapshots: Path) -> Iterator[None]:
    """A second publisher waits until the first has finished, or has died."""
    with (snapshots / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _finished(snapshots: Path) -> list[Path]:
    """Snapshots that are whole, oldest first."""
    return sorted(path for path in snapshots.iterdir() if path.name.isdigit())


def _copy_tables(warehouse: Path, draft: Path) -> dict[str, int]:
    """Copy every published table or view; returns rows by `schema.table`."""
    with open_warehouse(warehouse) as connection:
        names = connection.execute(
            "select table_schema, table_name from information_schema.tables"
            " where table_catalog = current_database()"
            " and list_contains(?, table_schema) order by all",
            [list(SCHEMAS)],
        ).fetchall()
        if ("main", "student_targets") not in names:
            raise UserError(
                f"{warehouse} has nothing to publish yet. Run `dbt build` first."
            )
        connection.execute(f"attach '{_quoted(draft / DATABASE)}' as published")
        rows = {}
        for schema, table in names:
            connection.execute(f"create schema if not exists published.{schema}")
            connection.execute(
                f'create table published.{schema}."{table}" as'
                f' select * from {schema}."{table}" order by all'
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
        f"copy published.{schema}.\"{table}\" to '{_quoted(file)}' (format parquet)"
    ).fetchone()
    return int(found[0]) if found else 0


def _quoted(value: object) -> str:
    return str(value).replace("'", "''")


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


def main() -> int:
    """Publish under the current settings; returns the exit code."""
    try:
        settings = load_settings()
        snapshot = publish(settings.warehouse_path, settings.data_processed_path)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"Cannot publish to DATA_PROCESSED_PATH={settings.data_processed_path}: "
            f"{error.strerror}. Point it at a folder that can be written to.",
            file=sys.stderr,
        )
        return 1
    manifest = json.loads((snapshot / "manifest.json").read_text(encoding="utf-8"))
    print(
        f"Published {len(manifest['rows'])} tables to "
        f"{settings.data_processed_path / DATABASE} (snapshot {manifest['snapshot']})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
