"""The published snapshot: whole, consistent, read-only, without personal data."""

import json
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from ml.publish import DATABASE, KEEP, publish
from ml.settings import UserError

PUBLICATIONS = 10

# Opens what is published again and again, and fails where it is not one whole
# version: every table of a version holds its number, as often as its number.
READER = """
import json, sys, duckdb
from pathlib import Path
folder, stop = Path(sys.argv[1]), Path(sys.argv[2])
seen = []
while not stop.exists() or not seen:
    with duckdb.connect(str(folder / "student_success.duckdb"), read_only=True) as db:
        a = db.execute("select min(version), count(*) from student_targets").fetchone()
        b = db.execute("select min(version), count(*) from ml.big").fetchone()
    snapshot = (folder / "current").resolve()
    with duckdb.connect() as db:
        c, d = (
            db.execute(
                "select min(version), count(*) from "
                f"'{snapshot}/parquet/{name}.parquet'"
            ).fetchone()
            for name in ("main.student_targets", "ml.big")
        )
    assert a[0] == b[0] and a[1] == a[0] and b[1] == 1000 * b[0], (a, b)
    assert c[0] == d[0] and c[1] == c[0] and d[1] == 1000 * d[0], (c, d)
    seen.append(a[0])
assert seen == sorted(seen), seen
print(json.dumps({"reads": len(seen), "versions": len(set(seen))}))
"""


def write_version(warehouse: Path, version: int) -> None:
    """A warehouse in which every table says which version it is of."""
    with duckdb.connect(str(warehouse)) as connection:
        for schema in ("ml", "personal", "staging", "intermediate", "raw"):
            connection.execute(f"create schema if not exists {schema}")
        rows = f"select {version} as version from range({version})"
        connection.execute(f"create or replace table student_targets as {rows}")
        rows = f"select {version} as version from range({1000 * version})"
        connection.execute(f"create or replace table ml.big as {rows}")
        for schema in ("personal", "staging", "intermediate", "raw"):
            connection.execute(
                f"create or replace table {schema}.private as select 'Ada' as name"
            )


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    path = tmp_path / "warehouse.duckdb"
    write_version(path, 1)
    return path


def test_a_reader_gets_a_whole_snapshot_through_ten_publications(
    warehouse: Path, tmp_path: Path
) -> None:
    folder, stop = tmp_path / "published", tmp_path / "stop"
    publish(warehouse, folder)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(folder), str(stop)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as reader:
        for version in range(2, PUBLICATIONS + 2):
            write_version(warehouse, version)
            publish(warehouse, folder)
            time.sleep(0.1)
        stop.touch()
        printed, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors
    counted = json.loads(printed)
    assert counted["versions"] > 1, counted


def test_an_open_reader_keeps_the_old_snapshot(warehouse: Path, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    publish(warehouse, folder)
    with duckdb.connect(str(folder / DATABASE), read_only=True) as old:
        for version in range(2, KEEP + 4):
            write_version(warehouse, version)
            publish(warehouse, folder)
        assert old.execute("select max(version) from ml.big").fetchone() == (1,)
    kept = sorted(path.name for path in (folder / ".snapshots").glob("0*"))
    assert len(kept) == KEEP
    assert json.loads((folder / "manifest.json").read_text())["snapshot"] == KEEP + 3


def test_nothing_personal_or_unfinished_is_published(
    warehouse: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    snapshot = publish(warehouse, folder)
    with duckdb.connect(str(folder / DATABASE), read_only=True) as connection:
        found = connection.execute(
            "select table_schema || '.' || table_name from information_schema.tables"
            " order by 1"
        ).fetchall()
    assert [name for (name,) in found] == ["main.student_targets", "ml.big"]
    for path in snapshot.rglob("*"):
        assert path.is_dir() or b"Ada" not in path.read_bytes(), path


def test_the_snapshot_cannot_be_written_to(warehouse: Path, tmp_path: Path) -> None:
    snapshot = publish(warehouse, tmp_path / "published")
    files = [path for path in snapshot.rglob("*") if path.is_file()]
    assert files
    assert all(path.stat().st_mode & 0o222 == 0 for path in files)


def test_a_publication_that_died_leaves_the_old_one_and_is_cleared_away(
    warehouse: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    publish(warehouse, folder)
    half = folder / ".snapshots" / "draft"
    (half / "parquet").mkdir(parents=True)
    (half / DATABASE).write_bytes(b"half")
    with duckdb.connect(str(folder / DATABASE), read_only=True) as connection:
        assert connection.execute("select count(*) from ml.big").fetchone() == (1000,)
    publish(warehouse, folder)
    assert not half.exists()


def test_what_somebody_else_put_there_is_not_overwritten(
    warehouse: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / DATABASE).write_text("mine")
    with pytest.raises(UserError, match="is in the way"):
        publish(warehouse, folder)
    assert (folder / DATABASE).read_text() == "mine"


def test_an_unbuilt_warehouse_says_what_to_do(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.duckdb"
    duckdb.connect(str(warehouse)).close()
    with pytest.raises(UserError, match="Run `dbt build` first"):
        publish(warehouse, tmp_path / "published")
