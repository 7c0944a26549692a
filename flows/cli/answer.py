"""What a command answers with, and how values become text: tables, times, JSON. Pure; prints nothing."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a command.

    Args:
        document: what `--json` prints; dataclasses and datetimes in it become objects and ISO 8601 text.
        text: what people see on stdout.
        notes: lines for stderr, after the text.
        code: the exit code.
    """

    document: Any
    text: str
    notes: tuple[str, ...] = ()
    code: int = 0


def to_json(document: Any, *, ascii_only: bool = False) -> str:
    """Return the document as JSON."""
    return json.dumps(document, indent=2, ensure_ascii=ascii_only, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Align rows under their headers. Numbers and times get their usual form, `None` a dash."""
    cells = [list(headers), *([cell(value) for value in row] for row in rows)]
    numeric = [all(line[i][:1].isdigit() or line[i] == "-" for line in cells[1:]) and len(cells) > 1 for i in range(len(headers))]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headers))]
    lines = []
    for line in cells:
        parts = [
            text.rjust(width) if right else text.ljust(width) for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def cell(value: Any) -> str:
    """Return a value as one line of text."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return one_line(str(value))


def moment(when: datetime) -> str:
    """Return a time as people read it, in UTC and to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def one_line(text: str, *, limit: int = 200) -> str:
    """Return the first line of a text, cut to a length that a terminal can show, without control characters."""
    line = next((part for part in text.strip().splitlines() if part.strip()), "")
    line = "".join(character if character.isprintable() else "?" for character in line.strip())
    return line if len(line) <= limit else line[: limit - 1] + "…"
