"""Writes records as Parquet, with pyarrow, which is an extra."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flows.cli.record_export.columns import Columns, json_text
from flows.errors import UsageError
from jobs.reading.records import RecordView

GROUP = 20_000
"""Rows of a row group, which are kept in memory."""


def check_pyarrow() -> None:
    """Check that pyarrow is installed.

    Raises:
        UsageError: it is not.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError("Parquet files need pyarrow: pip install 'sync-clients[export]', or write .csv or .jsonl") from error


class ParquetFile:
    """A Parquet file with typed columns: what is nested, or of several kinds, is JSON text.

    Args:
        path: of the file.
        columns: of the records.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        kinds = {
            "bool": pa.bool_(),
            "int": pa.int64(),
            "float": pa.float64(),
            "str": pa.string(),
            "json": pa.string(),
            "time": pa.timestamp("us", tz="UTC"),
        }
        self._columns, self._kinds, self._pa = columns, columns.kinds(), pa
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in self._kinds.items()])
        self._file = parquet.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, records: Iterable[RecordView]) -> None:
        """Write a row for each of these."""
        self._rows += [self._row(one) for one in records]
        if len(self._rows) >= GROUP:
            self._write_group()

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._rows:
            self._write_group()
        self._file.close()

    def _row(self, one: RecordView) -> dict[str, Any]:
        row = self._columns.row(one)
        for name, value in row.items():
            kind = self._kinds[name]
            if value is None:
                continue
            if kind == "json":
                row[name] = json_text(value)
            elif kind == "str":
                row[name] = value.encode("utf-8", "replace").decode()
        return row

    def _write_group(self) -> None:
        self._file.write_table(self._pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []
