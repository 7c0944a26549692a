"""Writes records as CSV and as JSON lines."""

import csv
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.cli.record_export.columns import TIMES, Columns, json_text
from jobs.db.json_codec import encode
from jobs.reading.records import RecordView

# A spreadsheet takes a text that begins so for a formula, which can call programs and send what stands in other cells. Phone
# numbers and signed numbers can do nothing: they have no letter.
_FORMULA = re.compile(r"[=@\t\r\n]|[+-](?![\d\s.,()/:-]*\Z)")


class CsvFile:
    """A CSV file (RFC 4180, UTF-8) with a line of names first.

    Args:
        path: of the file.
        columns: of the records.
        is_raw: leave texts that a spreadsheet would take for formulas as they are; else they begin with an apostrophe.
    """

    def __init__(self, path: Path, columns: Columns, *, is_raw: bool) -> None:
        self._columns, self._names, self._is_raw = columns, columns.names, is_raw
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow([self._text(name) for name in self._names])

    def write(self, records: Iterable[RecordView]) -> None:
        """Write a row for each of these."""
        for one in records:
            row = self._columns.row(one)
            self._rows.writerow([self._cell(row.get(name)) for name in self._names])

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._file.close()

    def _cell(self, value: Any) -> Any:
        match value:
            case None:
                return ""
            case bool():
                return "true" if value else "false"
            case str():
                return self._text(value)
            case datetime():
                return value.isoformat()
            case dict() | list():
                return self._text(json_text(value))
        return value if isinstance(value, int) else repr(value)

    def _text(self, text: str) -> str:
        text = text.encode("utf-8", "replace").decode()
        return text if self._is_raw or _FORMULA.match(text) is None else f"'{text}"


class JsonLinesFile:
    """A file with one JSON object on each line, as `syncs records --json` prints them.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, records: Iterable[RecordView]) -> None:
        """Write a line for each of these."""
        self._file.writelines(encode(_plain(one)) + b"\n" for one in records)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._file.close()


def _plain(one: RecordView) -> dict[str, Any]:
    # In place of `asdict`, which copies all data: a third of the time of an export.
    found = {name: getattr(one, name) for name in RecordView.__slots__}
    return found | {name: found[name].isoformat() for name in TIMES if found[name] is not None}
