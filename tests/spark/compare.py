"""Tables of two engines beside each other, row by row."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
from pyspark.sql import SparkSession

TOLERANCE = 1e-9
# What Spark keeps for itself, and has no table of on DuckDB.
SPARKS_OWN = ("default", "raw_files")
# Whole numbers of other widths are as good: DuckDB sums them into 128 bits.
KINDS = {
    "VARCHAR": "text",
    "TINYINT": "whole number",
    "INTEGER": "whole number",
    "BIGINT": "whole number",
    "HUGEINT": "whole number",
    "DOUBLE": "double",
    "FLOAT": "float",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "time",
    "TIMESTAMP WITH TIME ZONE": "time",
}


@dataclass
class Content:
    """Columns with their kinds, and rows in any order."""

    columns: dict[str, str]
    rows: list[tuple[Any, ...]] = field(repr=False)


def duckdb_tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Tables and views as schema.name."""
    found = connection.execute(
        "select lower(table_schema || '.' || table_name) from information_schema.tables"
        " where table_catalog = current_database()"
    ).fetchall()
    return {name for (name,) in found}


def spark_tables(spark: SparkSession) -> set[str]:
    """The same of Spark, without what reads raw files."""
    return {
        f"{schema}.{table.name}"
        for schema in (found.name for found in spark.catalog.listDatabases())
        if schema not in SPARKS_OWN
        for table in spark.catalog.listTables(schema)
        if not table.isTemporary and not table.name.startswith("raw_file_")
    }


def read_duckdb(connection: duckdb.DuckDBPyConnection, query: str) -> Content:
    """The answer to a query."""
    answer = connection.execute(query)
    columns = {name: _kind(str(kind)) for name, kind, *_ in answer.description}
    return Content(columns, answer.fetchall())


def read_spark(spark: SparkSession, table: str) -> Content:
    """A table, by way of Arrow, as DuckDB would hold it."""
    rows = spark.table(table).toArrow()
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("rows", rows)
        names = [f'"{name}"' for name in rows.column_names]
        times = [
            f"cast({name} as timestamp) as {name}" if "timestamp" in str(kind) else name
            for name, kind in zip(names, rows.schema.types, strict=True)
        ]
        return read_duckdb(connection, f"select {', '.join(times)} from rows")


def _kind(duckdb_type: str) -> str:
    return "decimal" if duckdb_type.startswith("DECIMAL") else KINDS[duckdb_type]


def differences(expected: Content, actual: Content) -> list[str]:
    """What differs, in words; nothing where the same rows are there."""
    if expected.columns != actual.columns:
        return [f"columns: {expected.columns} became {actual.columns}"]
    actual = _in_order_of(expected.columns, actual)
    if len(expected.rows) != len(actual.rows):
        return [f"{len(expected.rows)} rows became {len(actual.rows)}"]
    pairs = zip(_sorted(expected.rows), _sorted(actual.rows), strict=True)
    return [
        f"{row} became {other}"
        for row, other in pairs
        if not all(map(_is_same, row, other))
    ]


def _in_order_of(columns: Iterable[str], content: Content) -> Content:
    """Columns in another order; Spark puts those of a partition last."""
    places = [list(content.columns).index(name) for name in columns]
    rows = [tuple(row[place] for place in places) for row in content.rows]
    return Content({name: content.columns[name] for name in columns}, rows)


def _sorted(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """In an order that the last digits of floats do not change."""
    return sorted(rows, key=_sort_key)


def _sort_key(row: tuple[Any, ...]) -> tuple[list[str], list[float]]:
    exact = [_text(value) for value in row if not isinstance(value, float)]
    return exact, [round(value, 6) for value in row if isinstance(value, float)]


def _text(value: Any) -> str:
    return f"{value.normalize():f}" if isinstance(value, Decimal) else repr(value)


def _is_same(value: Any, other: Any) -> bool:
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(value, datetime | date) or value is None:
        return type(value) is type(other) and value == other
    return bool(value == other)
