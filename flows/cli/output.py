"""`CommandOutput`, what a command returns, and how its values become tables and JSON."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from typing import Any

import click

from flows.project.printable_text import printable, printable_json
from flows.time_text import moment_text
from jobs.db.json_codec import ExactNumber


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """What a command returns: the same result as a document and as text, and the exit code.

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


def echo(text: str, *, err: bool = False) -> None:
    """Print a text without control characters; all that commands print goes through here.

    Args:
        text: what to print, with or without line feeds.
        err: on stderr.
    """
    click.echo(printable(text), err=err)


def to_json(document: Any, *, ascii_only: bool = False) -> str:
    """Return the document as JSON, numbers with all their digits."""
    text = json.dumps(_marked(document), indent=2, ensure_ascii=ascii_only, default=_plain)
    return printable_json(_MARKED.sub(r"\1", text))


_MARKED = re.compile(r'"\\u001a(-?\d[\d.eE+-]*)\\u001a"')


def _marked(value: Any) -> Any:
    """Mark numbers that a float cannot hold, which the module `json` would round."""
    if isinstance(value, dict):
        return {key: _marked(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(one) for one in value]
    return f"\x1a{value}\x1a" if isinstance(value, ExactNumber) else value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return _marked(asdict(value))
    return str(value)


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return the rows aligned below their headers; numbers to the right. Cells are formatted by `cell`."""
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
    """Return a value as one line of text; `None` and empty text as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return moment_text(value, seconds=True)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return first_line(str(value))


def first_line(text: str, *, limit: int = 200) -> str:
    """Return the first line of a text, cut to a length that a terminal can show, without control characters."""
    line = next((part for part in text.strip().splitlines() if part.strip()), "")
    line = printable(line.strip(), instead="?")
    return line if len(line) <= limit else line[: limit - 1] + "…"
