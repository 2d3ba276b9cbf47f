"""Rows on disk for the time of a command, written and read a batch at a time."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

# Fast enough that writing less is a gain.
COMPRESSION = "lz4"


class Spool:
    """Arrow batches in a file that has no name: it is gone with the process.

    Read after `finish`, by one reader at a time.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - outlives this
        self._schema = schema
        self._writer = pa.ipc.new_file(
            pa.PythonFile(self._file, "w"),
            schema,
            options=pa.ipc.IpcWriteOptions(compression=COMPRESSION),
        )
        self.rows = 0

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add rows; what a record batch holds stays together."""
        self._writer.write(rows)
        self.rows += rows.num_rows

    def finish(self) -> None:
        """Make what is written readable; there will be no more."""
        self._writer.close()

    def read(self, columns: list[str] | None = None) -> pa.RecordBatchReader:
        """The batches in order, all columns or these, one in memory at a time."""
        names = self._schema.names if columns is None else columns
        wanted = [self._schema.get_field_index(name) for name in names]
        opened = pa.ipc.open_file(
            pa.PythonFile(self._file, "r"),
            options=pa.ipc.IpcReadOptions(included_fields=wanted),
        )

        def batches() -> Iterator[pa.RecordBatch]:
            for number in range(opened.num_record_batches):
                yield opened.get_batch(number)

        return pa.RecordBatchReader.from_batches(opened.schema, batches())

    @contextmanager
    def as_view(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str,
        columns: list[str] | None = None,
    ) -> Iterator[None]:
        """Let one statement of the block read the rows by this name, once."""
        # Given the reader itself, DuckDB would have pyarrow read far ahead of it.
        connection.register(name, self.read(columns).__arrow_c_stream__())
        try:
            yield
        finally:
            connection.unregister(name)
