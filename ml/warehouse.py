"""The one place that opens the warehouse: late, closed early, never in silence.

The tables that Python writes back have one DDL, the YAML file of the sources
`ml` and `intervene` in dbt; it is read here.
"""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ml.settings import PROJECT_ROOT, Settings, UserError, load_limits

HANDBACK_DDL = (
    PROJECT_ROOT / "dbt_project" / "models" / "marts" / "_handback__sources.yml"
)
HANDBACK_SOURCES = ("ml", "intervene")
LOCK_POLL_SECONDS = 0.25
# What DuckDB may use where much goes through it once: more would only be a cache.
STREAM_MEMORY = "256MB"
# Each thread holds its own unfinished piece of a table that is written.
STREAM_THREADS = 2
ARROW_TYPES = {
    "varchar": pa.string(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}


class WarehouseMissing(UserError):
    """The warehouse, or a table in it, has not been built yet."""


class WarehouseLocked(UserError):
    """Another process holds the warehouse."""


class WarehouseOutdated(UserError):
    """A hand-back table was made by an older version and lacks columns."""


class SettingsMismatch(UserError):
    """The tables were built under other settings than this command runs under."""


class WriteBackError(Exception):
    """A frame does not fit the table that it is written to: a bug, not a typo."""


@dataclass(frozen=True)
class HandbackTable:
    """One table that Python writes: its name, columns (in order) and key."""

    schema: str
    name: str
    columns: dict[str, str]
    key: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """Schema and name, as SQL writes it."""
        return f"{self.schema}.{self.name}"

    @property
    def ddl(self) -> str:
        """The statement that creates the table where it does not exist."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        return f"create table if not exists {self.full_name} ({columns})"

    @property
    def arrow_schema(self) -> pa.Schema:
        """The columns with their Arrow types."""
        return pa.schema(
            [(name, ARROW_TYPES[kind]) for name, kind in self.columns.items()]
        )


@dataclass(frozen=True)
class PipelineSettings:
    """The row of `pipeline_settings`: what dbt built the tables with."""

    source_system: str
    data_raw_path: str
    target_definition: str
    observation_window_days: int
    prediction_leads: str
    include_attributes: bool
    as_of_date: date
    data_until: date


# ---------------------------------------------------------------- opening


@contextmanager
def open_warehouse(
    path: Path | str, read_only: bool = False, wait_seconds: float = 10.0
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the DuckDB file and close it again, whatever happens.

    Parameters
    ----------
    path
        The file; it has to exist, because dbt makes it.
    read_only
        Readers do not block each other, but a writer blocks them.
    wait_seconds
        How long to wait for another process to let go of the file.

    Raises
    ------
    WarehouseMissing
        There is no such file.
    WarehouseLocked
        Another process still holds it after the wait; the message says which.
    """
    path = Path(path)
    if not path.exists():
        raise WarehouseMissing(
            f"There is no warehouse at {path}. Make it with `dbt build` "
            "(or `make run`), or point WAREHOUSE_PATH at the one you have."
        )
    connection = _connect(path, read_only, wait_seconds)
    try:
        yield connection
    finally:
        connection.close()


def _connect(
    path: Path, read_only: bool, wait_seconds: float
) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + wait_seconds
    limits = load_limits()
    while True:
        try:
            return duckdb.connect(str(path), read_only=read_only, config=limits)
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise
            if time.monotonic() >= deadline:
                raise WarehouseLocked(_describe_lock(path, str(error))) from None
            time.sleep(LOCK_POLL_SECONDS)


def _describe_lock(path: Path, message: str) -> str:
    found = re.search(r"PID (\d+)", message)
    holder = f"process {found[1]}{_command_of(found[1])}" if found else "a process"
    return (
        f"The warehouse {path} is in use by {holder}. Wait until that has "
        "finished, or end it, and run this command again. To query while the "
        "pipeline runs, open the published copy (DATA_PROCESSED_PATH) instead."
    )


def _command_of(pid: str) -> str:
    """The command line of a process where the system tells it (Linux)."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    command = raw.replace(b"\0", b" ").decode(errors="replace").strip()
    return f" (`{command[:160]}`)" if command else ""


def limit_resources(connection: duckdb.DuckDBPyConnection) -> None:
    """Lower what DuckDB may use to what rows in passing need; never raise it."""
    ((memory, threads),) = connection.execute(
        "select parse_formatted_bytes(current_setting('memory_limit'))"
        " > parse_formatted_bytes(?), current_setting('threads') > ?",
        [STREAM_MEMORY, STREAM_THREADS],
    ).fetchall()
    if memory:
        connection.execute(f"set memory_limit = '{STREAM_MEMORY}'")
    if threads:
        connection.execute(f"set threads = {STREAM_THREADS}")
    # Otherwise rows are written twice, and the file is twice as large.
    connection.execute("set preserve_insertion_order = false")


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All statements inside happen, or none does."""
    connection.execute("begin transaction")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def rewrite_warehouse(path: Path) -> None:
    """Write the file anew: deleted rows stay in one until their blocks are reused.

    Raises
    ------
    WarehouseLocked
        Another process writes to it.
    UserError
        DuckDB cannot copy it; the file is as it was.
    """
    draft = path.with_name(f".{path.name}-rewritten")
    draft.unlink(missing_ok=True)
    # Reading keeps writers out until the new file has taken the place of the old.
    with open_warehouse(path, read_only=True) as connection:
        try:
            connection.execute(f"attach {sql_text(draft)} as rewritten (read_write)")
            name = connection.execute("select current_database()").fetchall()[0][0]
            connection.execute(f'copy from database "{name}" to rewritten')
            connection.execute("detach rewritten")
        except duckdb.Error as error:
            draft.unlink(missing_ok=True)
            raise UserError(
                f"The rows are deleted, but {path} could not be written anew, so that "
                f"their bytes are still in it: {str(error).splitlines()[0]}. Drop the "
                "view or table that this names, and run the command again."
            ) from None
        shutil.copymode(path, draft)
        draft.replace(path)


def sql_text(value: object) -> str:
    """A value as an SQL literal, for statements that take no parameters."""
    return "'" + str(value).replace("'", "''") + "'"


# ---------------------------------------------------------------- reading


def table_exists(
    connection: duckdb.DuckDBPyConnection, name: str, schema: str = "main"
) -> bool:
    """Whether the warehouse has this table or view."""
    found = connection.execute(
        "select 1 from information_schema.tables"
        " where table_schema = ? and table_name = ?",
        [schema, name],
    ).fetchone()
    return found is not None


def require_tables(connection: duckdb.DuckDBPyConnection, names: list[str]) -> None:
    """Raise WarehouseMissing naming every table of schema main that is not there."""
    missing = [name for name in names if not table_exists(connection, name)]
    if missing:
        raise WarehouseMissing(
            f"The warehouse has no table {', '.join(missing)}. "
            "Build it with `dbt build`."
        )


def read_pipeline_settings(connection: duckdb.DuckDBPyConnection) -> PipelineSettings:
    """Return what dbt built the tables with."""
    require_tables(connection, ["pipeline_settings"])
    names = list(PipelineSettings.__dataclass_fields__)
    row = connection.execute(
        f"select {', '.join(names)} from main.pipeline_settings"
    ).fetchone()
    if row is None:
        raise WarehouseMissing(
            "Table pipeline_settings is empty. Build it with `dbt build`."
        )
    return PipelineSettings(**dict(zip(names, row, strict=True)))


def check_pipeline_settings(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> PipelineSettings:
    """Return what the tables were built with, if this command runs under the same.

    An AS_OF_DATE that is not set agrees with any day.

    Raises
    ------
    WarehouseOutdated
        A hand-back table lacks columns of this version.
    SettingsMismatch
        Naming every difference and what to do.
    """
    check_handback_tables(connection)
    built = read_pipeline_settings(connection)
    compare_settings(built, settings)
    return built


def compare_settings(
    built: PipelineSettings, settings: Settings, build: str = "dbt build"
) -> None:
    """Raise SettingsMismatch naming every difference; `build` is what to run then."""
    pairs: dict[str, tuple[Any, Any]] = {
        "SOURCE_SYSTEM": (built.source_system, settings.source_system),
        "DATA_RAW_PATH": (
            _full_path(built.data_raw_path),
            _full_path(settings.data_raw_path),
        ),
        "TARGET_DEFINITION": (built.target_definition, settings.target_definition),
        "OBSERVATION_WINDOW_DAYS": (
            built.observation_window_days,
            settings.observation_window_days,
        ),
        "PREDICTION_LEADS": (built.prediction_leads, settings.leads_text),
        "INCLUDE_ATTRIBUTES": (built.include_attributes, settings.include_attributes),
        "AS_OF_DATE": (built.as_of_date, settings.as_of_date or built.as_of_date),
    }
    different = [
        f"  {name}: the tables were built with {was}, this command has {now}"
        for name, (was, now) in pairs.items()
        if was != now
    ]
    if different:
        raise SettingsMismatch(
            "The warehouse was built under other settings:\n"
            + "\n".join(different)
            + f"\nRun `{build}` under the settings of this command, or run this "
            "command under those of the build (environment or .env; dbt itself "
            f"does not read .env, `dotenv run --no-override -- {build}` does)."
        )


def _full_path(raw: str | None) -> str:
    return str((PROJECT_ROOT / raw).resolve()) if raw else "(none)"


# ---------------------------------------------------------------- writing


@cache
def handback_tables(source: str) -> dict[str, HandbackTable]:
    """Tables of source `ml` or `intervene`, by name, as the DDL file states them."""
    document = yaml.safe_load(HANDBACK_DDL.read_text(encoding="utf-8"))
    found = {entry["name"]: entry for entry in document["sources"]}
    return {
        table["name"]: HandbackTable(
            schema=found[source]["schema"],
            name=table["name"],
            columns={
                column["name"]: column["data_type"] for column in table["columns"]
            },
            key=tuple(_key_of(table)),
        )
        for table in found[source]["tables"]
    }


def _key_of(table: dict[str, Any]) -> list[str]:
    """`meta.key`, which newer dbt versions want under `config`."""
    meta = table.get("meta") or table.get("config", {}).get("meta", {})
    return list(meta["key"])


def create_handback_tables(connection: duckdb.DuckDBPyConnection, source: str) -> None:
    """Create the tables of source `ml` or `intervene` that do not exist yet."""
    for table in handback_tables(source).values():
        connection.execute(f"create schema if not exists {table.schema}")
        connection.execute(table.ddl)


def check_handback_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Raise WarehouseOutdated naming every column that a hand-back table lacks.

    A table that is not there lacks nothing: it is made when it is first written.
    """
    found = connection.execute(
        "select table_schema || '.' || table_name, list(column_name)"
        " from information_schema.columns group by all"
    ).fetchall()
    present = dict(found)
    lacking = [
        f"  {table.full_name} has no column {', '.join(missing)}"
        for source in HANDBACK_SOURCES
        for table in handback_tables(source).values()
        if table.full_name in present
        and (missing := [c for c in table.columns if c not in present[table.full_name]])
    ]
    if lacking:
        raise WarehouseOutdated(
            "The warehouse was made by an older version:\n"
            + "\n".join(lacking)
            + "\nRun `dbt build`: it adds them and keeps the rows."
        )


def find_handback_table(full_name: str) -> HandbackTable:
    """Return the table called `schema.name` in the DDL file."""
    source, _, name = full_name.partition(".")
    return handback_tables(source)[name]


def replace_rows(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    frame: pd.DataFrame,
    where: dict[str, Any],
) -> None:
    """Put `frame` in the place of the rows that match `where`.

    Runs in the caller's transaction. Columns go by name, types are enforced.

    Parameters
    ----------
    table
        A hand-back table with its schema, such as `ml.student_scores`.
    frame
        Exactly the table's columns, in any order; every row matches `where`.
    where
        Column and value; empty replaces the whole table.

    Raises
    ------
    WriteBackError
        Columns, types or keys do not fit: nothing was deleted.
    """
    target = find_handback_table(table)
    rows = as_arrow(target, frame)
    _check_key(target, frame)
    _check_where(target, rows, where)
    connection.execute(
        f"delete from {table}" + _where_clause(where), list(where.values())
    )
    connection.register("rows_to_insert", rows)
    try:
        connection.execute(f"insert into {table} by name select * from rows_to_insert")
    finally:
        connection.unregister("rows_to_insert")
    if not set(where) <= set(target.key):
        _check_key_in_table(connection, target)


def read_rows(
    connection: duckdb.DuckDBPyConnection, table: str, where: dict[str, Any]
) -> pd.DataFrame:
    """Rows of a hand-back table in key order, typed as the DDL says."""
    target = find_handback_table(table)
    frame = connection.execute(
        f"select {', '.join(target.columns)} from {table}"
        + _where_clause(where)
        + f" order by {', '.join(target.key)}",
        list(where.values()),
    ).df()
    return as_arrow(target, frame).to_pandas()


def typed_rows(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` as `read_rows` would give it back after it was written."""
    target = find_handback_table(table)
    rows = as_arrow(target, frame).to_pandas()
    return rows.sort_values(list(target.key), ignore_index=True)


def _where_clause(where: dict[str, Any]) -> str:
    matches = " and ".join(f"{name} is not distinct from ?" for name in where)
    return f" where {matches}" if where else ""


def as_arrow(target: HandbackTable, frame: pd.DataFrame) -> pa.Table:
    """`frame` with the columns and types of the table.

    Raises
    ------
    WriteBackError
        Columns or types do not fit.
    """
    missing = [name for name in target.columns if name not in frame.columns]
    unknown = [str(name) for name in frame.columns if name not in target.columns]
    if missing or unknown:
        raise WriteBackError(
            f"{target.full_name}: missing columns {missing}, unknown columns {unknown}."
        )
    try:
        return pa.Table.from_pandas(
            frame, schema=target.arrow_schema, preserve_index=False
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise WriteBackError(f"{target.full_name}: wrong type: {error}") from error


def _check_key(target: HandbackTable, frame: pd.DataFrame) -> None:
    key = list(target.key)
    empty = [name for name in key if frame[name].isna().any()]
    if empty:
        raise WriteBackError(f"{target.full_name}: key columns {empty} hold nulls.")
    repeated = int(frame.duplicated(key).sum())
    if repeated:
        raise WriteBackError(
            f"{target.full_name}: {repeated} rows repeat a key ({', '.join(key)})."
        )


def _check_where(target: HandbackTable, rows: pa.Table, where: dict[str, Any]) -> None:
    """Rows outside `where` would stay when the next call replaces its rows."""
    for name, value in where.items():
        if name not in target.columns:
            raise WriteBackError(f"{target.full_name} has no column {name}.")
        if value is None:
            outside = rows.num_rows - rows[name].null_count
        else:
            same = pc.equal(rows[name], pa.scalar(value, type=rows[name].type))
            outside = rows.num_rows - int(pc.sum(same).as_py() or 0)
        if outside:
            raise WriteBackError(
                f"{target.full_name}: {outside} rows lie outside {name} = {value}."
            )


def _check_key_in_table(
    connection: duckdb.DuckDBPyConnection, target: HandbackTable
) -> None:
    key = ", ".join(target.key)
    found = connection.execute(
        f"select count(*) from (select {key} from {target.full_name}"
        f" group by {key} having count(*) > 1)"
    ).fetchone()
    if found and found[0]:
        raise WriteBackError(
            f"{target.full_name}: {found[0]} keys ({key}) would be there twice."
        )
