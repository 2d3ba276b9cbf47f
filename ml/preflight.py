"""Look at the raw data before anything is built and report all that is wrong.

`python -m ml.preflight` prints the report; `dbt build` asks for it at its start
through the plugin at the end of this file. What a source must hold is declared
in the YAML of its staging folder, `_<source>__sources.yml`.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import yaml
from dbt.adapters.duckdb.credentials import DuckDBCredentials
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt_common.exceptions import DbtRuntimeError

from ml.forgotten import Forgotten
from ml.settings import (
    PROJECT_ROOT,
    STAGING_FOLDER,
    Settings,
    UserError,
    load_limits,
    load_settings,
)

SUFFIXES = (".parquet", ".csv")
# Types are judged by the first rows; larger tables are not read to their end.
SAMPLE_ROWS = 10_000
READ_WHOLE_BYTES = 1_000_000_000
CSV_OPTIONS = (
    "header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"',"
    " comment = '', skip = 0, nullstr = '', union_by_name = true,"
    " hive_partitioning = false"
)

# Whether a text looks like a value of the type. Looser than the macros of
# parse.sql, which send single values to quarantine: this is about columns.
NUMBER = "isfinite(try_cast({text} as double))"
LOOKS_LIKE = {
    "timestamp": r"regexp_matches({text}, '^\d{{4}}[-/]\d{{1,2}}[-/]\d{{1,2}}')",
    "date": r"regexp_matches({text}, '^\d{{4}}[-/]\d{{1,2}}[-/]\d{{1,2}}')",
    "double": NUMBER,
    "integer": (
        f"{NUMBER} and try_cast({{text}} as double)"
        " = floor(try_cast({text} as double))"
    ),
    "boolean": (
        "lower({text}) in ('true', 'false', 't', 'f', 'yes', 'no', 'y', 'n',"
        " '1', '0', '1.0', '0.0')"
    ),
}
WHOLE_NUMBERS = r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER"
NUMBERS = rf"{WHOLE_NUMBERS}|FLOAT|DOUBLE|DECIMAL\(.*\)"
TIMES = r"DATE|TIMESTAMP.*"
# Native types that are as good as the declared one; text is judged by value.
FITTING_TYPES = {
    # An id that became a float would read 17.0 and match nothing.
    "varchar": rf"{WHOLE_NUMBERS}|{TIMES}|UUID|ENUM\(.*\)|BOOLEAN|DECIMAL\(\d+,0\)",
    "timestamp": TIMES,
    "date": TIMES,
    "double": NUMBERS,
    "integer": NUMBERS,
    "boolean": rf"BOOLEAN|{NUMBERS}",
}
EXPECTED = {
    "varchar": "text (or whole numbers)",
    "timestamp": "a time like 2024-03-31T14:05:00Z",
    "date": "a day like 2024-03-31",
    "double": "a number like 12.5",
    "integer": "a whole number",
    "boolean": "true or false",
}


@dataclass(frozen=True)
class Column:
    """One column of a contract."""

    name: str
    data_type: str
    is_optional: bool = False


@dataclass(frozen=True)
class Table:
    """One raw table of a contract."""

    name: str
    columns: tuple[Column, ...]
    is_optional: bool = False
    is_personal: bool = False


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where, what, and what to do."""

    table: str
    what: str
    todo: str
    column: str = ""

    def __str__(self) -> str:
        where = f"{self.table}.{self.column}" if self.column else self.table
        return f"{where}: {self.what}. {self.todo}."


@dataclass
class Found:
    """What there is of one table: something to select from, and its columns."""

    scan: str = ""
    columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


# ---------------------------------------------------------------- the contract


def read_contract(source_system: str) -> list[Table]:
    """Read what a source must hold from its staging folder.

    Raises
    ------
    UserError
        There is no such source, or it declares no raw tables.
    """
    path = STAGING_FOLDER / source_system / f"_{source_system}__sources.yml"
    if not path.exists():
        raise UserError(
            f"SOURCE_SYSTEM={source_system!r} has no contract: {path} does not "
            "exist. Use sample, platform or oulad, or write the file "
            "(docs/bring-your-own-data.md)."
        )
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        _read_table(entry)
        for source in document["sources"]
        if source["name"] == source_system
        for entry in source["tables"]
    ]


def _read_table(entry: dict[str, Any]) -> Table:
    meta = _meta(entry)
    return Table(
        name=entry["name"],
        columns=tuple(
            Column(
                name=column["name"],
                data_type=column["data_type"],
                is_optional=bool(_meta(column).get("optional")),
            )
            for column in entry["columns"]
        ),
        is_optional=bool(meta.get("optional")),
        is_personal=bool(meta.get("personal")),
    )


def _meta(entry: dict[str, Any]) -> dict[str, Any]:
    return (entry.get("config") or {}).get("meta") or {}


def with_attributes(contract: list[Table], attributes: list[str]) -> list[Table]:
    """The contract with the attribute columns that `students` must have as well."""
    return [
        replace(
            table,
            columns=table.columns + tuple(Column(a, "varchar") for a in attributes),
        )
        if table.name == "students"
        else table
        for table in contract
    ]


# ---------------------------------------------------------------- the check


def check(
    connection: duckdb.DuckDBPyConnection, contract: list[Table], data_raw_path: str
) -> list[Problem]:
    """Compare the raw data with the contract.

    Parameters
    ----------
    connection
        Reads the files; where `data_raw_path` is empty, the tables in schema
        `raw` of its database are looked at instead.
    contract
        See `read_contract`.
    data_raw_path
        Folder with one file, or one folder of files, per table.

    Returns
    -------
    list[Problem]
        Everything that is wrong; empty where the build can start.
    """
    if not data_raw_path:
        return _check_tables(connection, contract, partial(_find_relation, connection))
    folder = Path(data_raw_path).expanduser()
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        what = "is not a folder" if folder.exists() else "does not exist"
        if isinstance(error, PermissionError):
            what = "may not be read"
        return [
            Problem(
                "DATA_RAW_PATH",
                f"{data_raw_path!r} {what}",
                "Point it at the folder that holds the raw files (a relative path "
                "counts from the project's folder), or leave it empty if the tables "
                "are in schema raw of the warehouse",
            )
        ]
    return _check_tables(
        connection, contract, partial(_find_files, connection, entries=entries)
    )


def _check_tables(
    connection: duckdb.DuckDBPyConnection,
    contract: list[Table],
    find: Callable[[Table], Found | None],
) -> list[Problem]:
    problems: list[Problem] = []
    for table in contract:
        found = find(table)
        if found is None:
            problems += _missing_table(table)
        else:
            problems += found.problems + _check_content(connection, table, found)
    return problems


def _missing_table(table: Table) -> list[Problem]:
    if table.is_optional:
        return []
    columns = ", ".join(c.name for c in table.columns if not c.is_optional)
    todo = (
        f"Add {table.name}.parquet, {table.name}.csv or a folder {table.name}/ of such "
        f"files to DATA_RAW_PATH, or leave that empty and load raw.{table.name} into "
        f"the warehouse, with the columns {columns}"
    )
    return [Problem(table.name, "the table is missing", todo)]


def _missing_columns(table: Table, names: list[str], where: str) -> list[Problem]:
    present = {_key(name) for name in names}
    return [
        Problem(
            table.name,
            f"the column is missing in {where}",
            f"Add it ({EXPECTED[column.data_type]}); there are {', '.join(names)}",
            column.name,
        )
        for column in table.columns
        if not column.is_optional and _key(column.name) not in present
    ]


def _key(name: str) -> str:
    """Names are matched whatever their case and surrounding blanks."""
    return name.strip().lower()


# ---------------------------------------------------------------- where it is


def _find_relation(connection: duckdb.DuckDBPyConnection, table: Table) -> Found | None:
    rows = connection.execute(
        "select column_name, data_type from information_schema.columns"
        " where table_catalog = current_database() and table_schema = 'raw'"
        " and lower(table_name) = ? order by ordinal_position",
        [table.name.lower()],
    ).fetchall()
    if not rows:
        return None
    names = [name for name, _ in rows]
    return Found(
        scan=f"raw.{_quoted(table.name)}",
        columns=_by_key(rows),
        problems=_missing_columns(table, names, f"raw.{table.name}"),
    )


def _find_files(
    connection: duckdb.DuckDBPyConnection, table: Table, entries: list[Path]
) -> Found | None:
    name = table.name.lower()
    candidates = [
        path
        for path in entries
        if path.name.lower() in {name + suffix for suffix in SUFFIXES}
        or (path.name.lower() == name and path.is_dir())
    ]
    if not candidates:
        return None
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        return _refused(
            table, f"there is more than one of it ({names})", "Keep one of them"
        )
    if candidates[0].is_dir():
        return _open_folder(connection, table, candidates[0])
    return _open_files(connection, table, candidates)


def _open_folder(
    connection: duckdb.DuckDBPyConnection, table: Table, folder: Path
) -> Found:
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    except OSError as error:
        what = f"the folder {folder.name}/ cannot be read ({error.strerror})"
        return _refused(table, what, "Let this user read it")
    formats = {path.suffix.lower() for path in files}
    if len(formats) == 1:
        return _open_files(connection, table, files)
    holds = "CSV and Parquet files" if formats else "no .parquet or .csv file"
    return _refused(
        table,
        f"the folder {folder.name}/ holds {holds}",
        "Put files of one format there",
    )


def _refused(table: Table, what: str, todo: str) -> Found:
    return Found(problems=[Problem(table.name, what, todo)])


def _open_files(
    connection: duckdb.DuckDBPyConnection, table: Table, files: list[Path]
) -> Found:
    """Look at every file on its own, then give them as one table."""
    found = Found(files=files)
    damaged: list[Problem] = []
    for path in files:
        # A file without the column would give nulls in silence.
        names, problems = _read_names(connection, table, path)
        damaged += problems
        if not problems:
            found.problems += _missing_columns(table, names, path.name)
    found.problems += damaged
    if not damaged:
        found.scan = _scan(files)
        try:
            rows = connection.execute(f"describe select * from {found.scan}").fetchall()
            found.columns = _by_key([(row[0], row[1]) for row in rows])
        except duckdb.Error:
            found.scan = ""
            found.problems += _unreadable(connection, table, files)
    return found


def _read_names(
    connection: duckdb.DuckDBPyConnection, table: Table, path: Path
) -> tuple[list[str], list[Problem]]:
    """Names of the columns of one file, or what keeps them from being read."""
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        what = f"{path.name} cannot be read ({error.strerror})"
        return [], [Problem(table.name, what, "Let this user read it")]
    if is_empty:
        what = f"{path.name} is empty (0 bytes)"
        return [], [Problem(table.name, what, "Export it again")]
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as text:
                names = next(csv.reader(text, strict=True), [])
            return names, _check_header(table, path, names)
        rows = connection.execute(f"describe select * from {_scan([path])}").fetchall()
        return [row[0] for row in rows], []
    except (UnicodeDecodeError, csv.Error, duckdb.Error):
        return [], _unreadable(connection, table, [path])


def _check_header(table: Table, path: Path, header: list[str]) -> list[Problem]:
    names = [_key(name) for name in header]
    blank = [str(number) for number, name in enumerate(names, 1) if not name]
    problems = []
    if blank or not names:
        what = f"the header of {path.name} names no column {', '.join(blank) or 1}"
        problems.append(
            Problem(table.name, what, "Name every column in the first line")
        )
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        what = f"the header of {path.name} has the name {names.count(name)} times"
        problems.append(Problem(table.name, what, "Keep one of the columns", name))
    return problems


# ---------------------------------------------------------------- what is in it


def _check_content(
    connection: duckdb.DuckDBPyConnection, table: Table, found: Found
) -> list[Problem]:
    if not found.scan:
        return []
    try:
        if 0 < sum(path.stat().st_size for path in found.files) <= READ_WHOLE_BYTES:
            _read_all(connection, found.scan)
        return _check_sample(connection, table, found)
    except duckdb.Error:
        return _unreadable(connection, table, found.files)


def _check_sample(
    connection: duckdb.DuckDBPyConnection, table: Table, found: Found
) -> list[Problem]:
    present = [c for c in table.columns if _key(c.name) in found.columns]
    counts = ["count(*)"]
    for column in present:
        text = _text(found, column)
        fits = _fits(found, column)
        counts += [f"count({text})", f"count(case when {fits} then {text} end)"]
    sample = f"(select * from {found.scan} limit {SAMPLE_ROWS})"
    row = connection.execute(f"select {', '.join(counts)} from {sample}").fetchone()
    rows, *values = row or [0]
    if not rows and not table.is_optional:
        todo = "Export it again, with its rows"
        return [Problem(table.name, "the table has no rows", todo)]
    pairs = zip(present, values[::2], values[1::2], strict=True)
    return [
        _wrong_type(connection, table, found, column, filled, fitting, sample)
        for column, filled, fitting in pairs
        if filled and fitting * 2 < filled
    ]


def _text(found: Found, column: Column) -> str:
    """SQL of a value as text, null where nothing is in it."""
    name, _ = found.columns[_key(column.name)]
    return f"nullif(trim(cast({_quoted(name)} as varchar), e' \\t\\r\\n'), '')"


def _fits(found: Found, column: Column) -> str:
    """SQL of whether a value can be taken as the declared type."""
    _, native = found.columns[_key(column.name)]
    if native == "VARCHAR":
        pattern = LOOKS_LIKE.get(column.data_type, "true")
        return pattern.format(text=_text(found, column))
    return str(bool(re.fullmatch(FITTING_TYPES[column.data_type], native))).lower()


def _wrong_type(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    found: Found,
    column: Column,
    filled: int,
    fitting: int,
    sample: str,
) -> Problem:
    _, native = found.columns[_key(column.name)]
    expected = EXPECTED[column.data_type]
    if native != "VARCHAR":
        what = f"the type is {native}, expected {expected}"
        return Problem(table.name, what, "Export it as that", column.name)
    what = f"{filled - fitting} of the first {filled} values are not {expected}"
    if not table.is_personal:
        text = _text(found, column)
        example = connection.execute(
            f"select min({text}) from {sample} where not ({_fits(found, column)})"
        ).fetchone()
        what += f", such as {str(example[0])[:60]!r}" if example else ""
    todo = "Convert the column, or check whether columns are swapped"
    return Problem(table.name, what, todo, column.name)


def _unreadable(
    connection: duckdb.DuckDBPyConnection, table: Table, files: list[Path]
) -> list[Problem]:
    """Say which files are damaged and where; never shows a line of them."""
    problems = []
    for path in files:
        if path.suffix.lower() == ".csv":
            what = _first_bad_line(path)
        elif _is_damaged(connection, path):
            what = "is damaged or cut off, or no Parquet file"
        else:
            continue
        problems.append(Problem(table.name, f"{path.name} {what}", "Export it again"))
    names = ", ".join(path.name for path in files)
    what = f"{names} cannot be read together"
    todo = "Export them again with the same columns and types"
    return problems or [Problem(table.name, what, todo)]


def _is_damaged(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    try:
        _read_all(connection, _scan([path]))
    except duckdb.Error:
        return True
    return False


def _read_all(connection: duckdb.DuckDBPyConnection, scan: str) -> None:
    """Decode every value. Of Parquet, a count alone would read the statistics."""
    values = "columns(*)" if scan.startswith("read_csv") else "hash(columns(*))"
    connection.execute(f"select count({values}) from {scan}").fetchall()


def _first_bad_line(path: Path) -> str:
    """What is wrong with a CSV that DuckDB refused; slow, but only then."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"is not UTF-8 (line {number})"
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            header = next(reader, [])
            for row in reader:
                if row and len(row) != len(header):
                    return (
                        f"has {len(row)} values in line {reader.line_num}, "
                        f"but {len(header)} columns"
                    )
        except csv.Error:
            return f"has unbalanced quotes (line {reader.line_num})"
    return "cannot be read as CSV (UTF-8, commas, double quotes)"


def _scan(files: list[Path]) -> str:
    """SQL that reads files of one format as one table."""
    literals = ", ".join(_literal(re.sub(r"([*?[])", r"[\1]", str(f))) for f in files)
    if files[0].suffix.lower() == ".csv":
        return f"read_csv([{literals}], {CSV_OPTIONS})"
    options = "union_by_name = true, hive_partitioning = false"
    return f"read_parquet([{literals}], {options})"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _by_key(rows: list[Any]) -> dict[str, tuple[str, str]]:
    """Actual name and type of each column by the name it is matched under."""
    return {_key(name): (name, kind) for name, kind in rows}


# ---------------------------------------------------------------- who asks


def report(
    connection: duckdb.DuckDBPyConnection,
    source_system: str,
    data_raw_path: str,
    attributes: str = "[]",
) -> str:
    """Return everything wrong as text; empty where the build can start.

    Parameters
    ----------
    attributes
        JSON list of the attribute columns that `students` must have.
    """
    if source_system == "sample":
        return ""
    try:
        contract = read_contract(source_system)
    except UserError as error:
        return str(error)
    if source_system == "platform":
        contract = with_attributes(contract, json.loads(attributes))
    problems = check(connection, contract, data_raw_path)
    if not problems:
        return ""
    where = data_raw_path or "schema raw of the warehouse"
    lines = "\n".join(f"  {problem}" for problem in problems)
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    return (
        f"Nothing was built: the raw data of {source_system} in {where} has "
        f"{count}.\n{lines}"
    )


class Plugin(BasePlugin):
    """Gives dbt the limits, and lets it ask for the report and the forgotten in SQL."""

    def update_connection_config(
        self, creds: DuckDBCredentials, config: dict[str, Any]
    ) -> None:
        """Open the warehouse within its limits; dbt does not read `.env`."""
        try:
            config.update(load_limits(env_file=None))
        except UserError as error:
            raise DbtRuntimeError(str(error)) from None

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Register the functions on a connection that dbt has opened."""

        def raw_data_report(source: str, path: str, attributes: str) -> str:
            # A cursor of its own: this one is busy with the calling query.
            with conn.cursor() as cursor:
                return report(cursor, source, path, attributes)

        conn.create_function(
            "raw_data_report",
            raw_data_report,
            ["VARCHAR", "VARCHAR", "VARCHAR"],
            "VARCHAR",
            side_effects=True,
        )
        # The folder with the hashes of forgotten students, made where it is missing.
        conn.create_function(
            "forgotten_folder",
            lambda path: str(Forgotten(PROJECT_ROOT / path).prepare()),
            ["VARCHAR"],
            "VARCHAR",
            side_effects=True,
        )


def _report_under(settings: Settings) -> str:
    source, path = settings.source_system, settings.data_raw_path
    if path or source == "sample":
        with duckdb.connect() as connection:
            return report(connection, source, path)
    # Imported here: it brings pandas, which every dbt command would wait for.
    from ml.warehouse import open_warehouse

    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        return report(connection, source, path)


def main() -> int:
    """Print the report of the source that the settings choose."""
    parser = argparse.ArgumentParser(
        prog="python -m ml.preflight",
        description="Check the raw data (SOURCE_SYSTEM, DATA_RAW_PATH) before a build.",
        epilog="example: SOURCE_SYSTEM=oulad DATA_RAW_PATH=data/oulad "
        "python -m ml.preflight",
    )
    parser.parse_args()
    try:
        settings = load_settings()
        Forgotten.from_settings(settings).prepare()
        text = _report_under(settings)
    except UserError as error:
        text = str(error)
    print(text or f"The raw data of {settings.source_system} can be built from.")
    return 1 if text else 0


if __name__ == "__main__":
    sys.exit(main())
