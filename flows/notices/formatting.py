"""Formats durations, moments, counts and causes for messages to people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def names_text(names: Sequence[str], most: int = 8) -> str:
    """Return names separated by commas, at most so many."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun; the plural is by default the noun with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def causes_text(causes: Sequence[Mapping[str, Any]]) -> str:
    """Return causes with their counts and first keys, one below the other."""
    lines = []
    for cause in causes:
        lines.append(f"{cause['count']:,} times: {cause['text']}" if cause["count"] > 1 else cause["text"])
        if cause["keys"]:
            more = ", …" if cause["count"] > len(cause["keys"]) else ""
            lines.append(f"    {', '.join(cause['keys'])}{more}")
    return "\n".join(lines)


def body_text(parts: Iterable[tuple[str, str]]) -> str:
    """Return the body of a message: each part below its heading, without parts that have no text."""
    return "\n\n".join(f"{head}\n" + "\n".join(f"  {line}" for line in text.splitlines()) for head, text in parts if text) + "\n"
