"""The tables with the published rows: their types, and how they are filled."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.csv
from psycopg import sql

from ml.cli import progress
from ml.publish import tables_to_publish
from ml.serving.connection import Connection, NotPublished, words_of

log = logging.getLogger(__name__)

# Where the rows are; readers have no business there.
HELD_IN = "student_success_data"
# What BI tools filter by; every published table that has such a column is indexed.
INDEXED = ("student_id", "as_of_date")
BATCH_ROWS = 20_000
# DuckDB would keep what it has read, up to most of the machine; beyond this it spills.
READING_MEMORY = "512MB"
LONGEST_NAME = 63  # bytes; PostgreSQL cuts off the rest

# By DuckDB's type; as PostgreSQL itself writes them, because they are compared.
TYPES = {
    "BOOLEAN": "boolean",
    "TINYINT": "smallint",
    "SMALLINT": "smallint",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "UTINYINT": "smallint",
    "USMALLINT": "integer",
    "UINTEGER": "bigint",
    "UBIGINT": "numeric(20,0)",
    "HUGEINT": "numeric(39,0)",
    "UHUGEINT": "numeric(39,0)",
    "FLOAT": "real",
    "DOUBLE": "double precision",
    "VARCHAR": "text",
    "JSON": "json",
    "UUID": "uuid",
    "BLOB": "bytea",
    "DATE": "date",
    "TIME": "time without time zone",
    "TIMESTAMP": "timestamp without time zone",
    "TIMESTAMP_S": "timestamp without time zone",
    "TIMESTAMP_MS": "timestamp without time zone",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    "INTERVAL": "interval",
}


@dataclass(frozen=True)
class Table:
    """A published table: its name for readers, its columns with their types."""

    schema: str
    name: str
    columns: dict[str, str]

    @property
    def full_name(self) -> str:
        """As people write it."""
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        """As SQL writes it."""
        return f"{_quoted(self.schema)}.{_quoted(self.name)}"

    @property
    def view(self) -> sql.Identifier:
        """What readers open."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True)
class Stored:
    """A published table, and the name of the table of HELD_IN that has its rows."""

    table: Table
    held_in: str

    @classmethod
    def of(cls, table: Table, number: int, index: int) -> "Stored":
        """Where the rows of a snapshot's table go; both numbers make it unique."""
        name = f"{number}_{index}_{table.schema}_{table.name}".encode()
        return cls(table, name[:LONGEST_NAME].decode(errors="ignore"))

    @property
    def rows_at(self) -> sql.Identifier:
        """The table with the rows."""
        return sql.Identifier(HELD_IN, self.held_in)


# What is published, for readers that want to check.
MANIFEST = Table(
    "main",
    "published_tables",
    {
        "snapshot": "bigint",
        "published_at": "timestamp with time zone",
        "table_schema": "text",
        "table_name": "text",
        "row_count": "bigint",
    },
)


def tables_of(source: duckdb.DuckDBPyConnection) -> list[Table]:
    """What is published, with PostgreSQL's types."""
    tables, wrong = [], []
    for schema, name in tables_to_publish(source):
        described = source.execute(
            f"describe {_quoted(schema)}.{_quoted(name)}"
        ).fetchall()
        columns = {column: _postgres_type(kind) for column, kind, *_ in described}
        wrong += [
            f"  {schema}.{name}.{column}: {kind} has no counterpart"
            for column, kind, *_ in described
            if not columns[column]
        ]
        wrong += [
            f"  {schema}.{name}: {long} has more than {LONGEST_NAME} bytes"
            for long in (name, *columns)
            if len(long.encode()) > LONGEST_NAME
        ]
        tables.append(Table(schema, name, columns))
    if wrong:
        raise NotPublished(
            "Cannot be published to PostgreSQL:\n"
            + "\n".join(wrong)
            + "\nCast or rename them in the model. What readers see is as it was."
        )
    return tables


def _postgres_type(kind: str) -> str:
    """The type that holds every value of DuckDB's type; empty where there is none."""
    if kind.startswith("DECIMAL(") and not kind.endswith("]"):
        return "numeric" + kind.removeprefix("DECIMAL")
    if kind.startswith("ENUM(") and not kind.endswith("]"):
        return "text"
    return TYPES.get(kind, "")


def copy_all(
    connection: Connection,
    source: duckdb.DuckDBPyConnection,
    tables: list[Table],
    number: int,
) -> tuple[list[Stored], dict[str, int]]:
    """Fill a new table for each; returns them, and their rows by name."""
    source.execute(f"set memory_limit = '{READING_MEMORY}'")
    source.execute("set TimeZone = 'UTC'")
    stored, rows = [], {}
    with progress("Publishing", len(tables)) as on_table:
        for index, table in enumerate(tables):
            new = Stored.of(table, number, index)
            counted = _count(source, table)
            copied = store(connection, new, _rows_of(source, table))
            if copied != counted:
                raise NotPublished(
                    f"{table.full_name}: {copied:,} of {counted:,} rows arrived. What "
                    "readers see is as it was; run this again."
                )
            stored.append(new)
            rows[table.full_name] = copied
            on_table()
    return stored, rows


def _count(source: duckdb.DuckDBPyConnection, table: Table) -> int:
    """Rows of a table, and a warning where PostgreSQL cannot hold all of its text."""
    texts = [name for name, kind in table.columns.items() if kind == "text"]
    nul = " or ".join(f"contains({_quoted(name)}::varchar, chr(0))" for name in texts)
    found = source.execute(
        f"select count(*), count(*) filter ({nul or 'false'}) from {table.quoted}"
    ).fetchone()
    assert found is not None
    if found[1]:
        log.warning(
            "%s: %s rows have a NUL character in their text, which PostgreSQL cannot "
            "hold: it becomes U+FFFD there.",
            table.full_name,
            f"{found[1]:,}",
        )
    return int(found[0])


def _rows_of(source: duckdb.DuckDBPyConnection, table: Table) -> Iterator[bytes]:
    """The rows as CSV, a batch at a time, every value in DuckDB's own words."""
    values = ", ".join(_as_text(name, kind) for name, kind in table.columns.items())
    cursor = source.execute(f"select {values} from {table.quoted}")
    for batch in cursor.to_arrow_reader(BATCH_ROWS):
        yield _csv(batch)


def _as_text(name: str, kind: str) -> str:
    value = f"cast({_quoted(name)} as varchar)"
    if kind == "text":
        return f"replace({value}, chr(0), '\ufffd')"
    if kind == "bytea":
        return f"'\\x' || hex({_quoted(name)})"
    return value


def _csv(batch: pa.RecordBatch | pa.Table) -> bytes:
    """Text is quoted, and nothing else is: an empty text is not a null."""
    out = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False)
    pyarrow.csv.write_csv(batch, out, options)
    return bytes(out.getvalue().to_pybytes())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def store(
    connection: Connection, new: Stored, rows: Iterable[bytes], form: str = "csv"
) -> int:
    """Make a table and fill it; returns how many rows it has."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, kind in new.table.columns.items()
    )
    try:
        connection.execute(sql.SQL("create table {} ({})").format(new.rows_at, columns))
        # Frozen: a transaction that began before sees the rows too, and not none.
        copy = sql.SQL("copy {} from stdin (format {}, freeze)").format(
            new.rows_at, sql.SQL(form)
        )
        with connection.cursor() as cursor, cursor.copy(copy) as target:
            for chunk in rows:
                target.write(chunk)
        for name in INDEXED:
            if name in new.table.columns:
                connection.execute(
                    sql.SQL("create index on {} ({})").format(
                        new.rows_at, sql.Identifier(name)
                    )
                )
        connection.execute(sql.SQL("analyze {}").format(new.rows_at))
        found = connection.execute(
            sql.SQL("select count(*) from {}").format(new.rows_at)
        ).fetchone()
    except psycopg.Error as error:
        raise NotPublished(
            f"{new.table.full_name}: PostgreSQL: {words_of(error)}. What readers see "
            "is as it was. Put that right and run this again."
        ) from None
    assert found is not None
    return int(found[0])


def write_manifest(connection: Connection, number: int, rows: dict[str, int]) -> Stored:
    """Store what is in the snapshot."""
    names = [name.split(".", 1) for name in rows]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = pa.table(
        {
            "snapshot": [number] * len(rows),
            "published_at": [now] * len(rows),
            "table_schema": [schema for schema, _ in names],
            "table_name": [name for _, name in names],
            "row_count": list(rows.values()),
        }
    )
    stored = Stored.of(MANIFEST, number, len(rows))
    store(connection, stored, [_csv(lines)])
    return stored
