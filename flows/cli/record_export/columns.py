"""The columns of an export: what is known of each record, and the fields of its data, found by reading all of it once."""

from collections.abc import Iterable
from typing import Any

from jobs.db.json_codec import ExactNumber, encode
from jobs.reading.records import RecordView

OWN = ("key", "version", "first_seen_at", "changed_at", "synced_at", "deleted_at", "last_error", "last_error_at")
TIMES = frozenset({"first_seen_at", "changed_at", "synced_at", "deleted_at", "last_error_at"})
DATA = "data"
"""The column of data that is no object."""

_WHOLE = range(-(2**63), 2**63)


class Columns:
    """Names and kinds of the columns, in the order in which they were first seen.

    A field of the data that is called as one of our own columns stands in `data.NAME`.
    """

    def __init__(self) -> None:
        #: Name of a field -> kinds of its values: `bool`, `int`, `float`, `str`, `json`.
        self._kinds: dict[str, set[str]] = {}
        self._is_plain = False

    def see(self, records: Iterable[RecordView]) -> None:
        """Take note of the fields of these records."""
        for one in records:
            if isinstance(one.data, dict):
                for name, value in one.data.items():
                    kinds = self._kinds.setdefault(name, set())
                    if value is not None:
                        kinds.add(_kind(value))
            elif one.data is not None:
                self._is_plain = True

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return [*OWN, *(_column(name) for name in self._kinds), *([DATA] if self._is_plain else [])]

    def kinds(self) -> dict[str, str]:
        """Return the kind of each column: `bool`, `int`, `float`, `str`, `time` or `json`; `json` also where kinds are mixed."""
        found = {name: "time" if name in TIMES else "str" for name in OWN}
        for name, kinds in self._kinds.items():
            one = "float" if kinds == {"int", "float"} else next(iter(kinds)) if len(kinds) == 1 else "json" if kinds else "str"
            found[_column(name)] = one
        return found | ({DATA: "json"} if self._is_plain else {})

    def row(self, one: RecordView) -> dict[str, Any]:
        """Return the values of a record by column; what it does not have is missing."""
        row = {name: getattr(one, name) for name in OWN}
        if isinstance(one.data, dict):
            row.update((_column(name), value) for name, value in one.data.items())
        elif one.data is not None:
            row[DATA] = one.data
        return row


def json_text(value: Any) -> str:
    """Return a value as compact JSON."""
    return encode(value).decode()


def _column(name: str) -> str:
    return f"data.{name}" if name in OWN or name == DATA else name


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if value in _WHOLE else "json"
    if isinstance(value, ExactNumber):
        return "json"
    return "float" if isinstance(value, float) else "str" if isinstance(value, str) else "json"
