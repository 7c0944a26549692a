"""Places in an answer: values outside its rows, with their JMESPath and the words of their names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DEPTH = 4
"""Objects within objects that are looked into."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JOINED = re.compile(
    r"(total|next|page|per|last|num|item|has|current)(pages?|count|items|results|token|number|size|found|more|cursor)"
)
"""Headers come in lower case."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True, slots=True)
class Place:
    """One value of an answer.

    Args:
        path: JMESPath in the body, or the name of a header.
        name: the last name of the path, as it is.
        words: of the name, in lower case.
        around: the words of the names before it.
        value: what is there.
        is_header: it is a header, not in the body.
    """

    path: str
    name: str
    words: tuple[str, ...]
    around: tuple[str, ...]
    value: Any
    is_header: bool = False


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name, however they are joined: `nextPageToken`, `next_page_token`, `x-wp-totalpages`."""
    found: list[str] = []
    for word in _WORD.findall(name):
        joined_word = _JOINED.fullmatch(word.lower())
        found += joined_word.groups() if joined_word else [word.lower()]
    return tuple(found)


def quoted(name: str) -> str:
    """Return a name as JMESPath writes it."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def joined(path: str, name: str) -> str:
    """Return the path of a member of what is at `path`."""
    return f"{path}.{quoted(name)}" if path else quoted(name)


def places(body: Any, *, rows: str | None, path: str = "", around: tuple[str, ...] = (), depth: int = DEPTH) -> Iterator[Place]:
    """Yield each value and each object of a body, outermost first, without lists.

    Args:
        rows: the path of the rows, which are left out.
    """
    if not isinstance(body, dict) or depth == 0:
        return
    found = [
        Place(joined(path, name), name, words_of(name), around, value)
        for name, value in body.items()
        if joined(path, name) != rows and not isinstance(value, list)
    ]
    yield from found
    for place in found:
        if isinstance(place.value, dict) and rows not in (f"values({place.path})", place.path):
            yield from places(place.value, rows=rows, path=place.path, around=(*around, *place.words), depth=depth - 1)


def header_places(headers: dict[str, str]) -> list[Place]:
    """Return the headers that are the API's own."""
    return [
        Place(name, name, words_of(name), (), value.strip(), is_header=True)
        for name, value in headers.items()
        if name.startswith("x-")
    ]


def number(value: Any) -> int | None:
    """Return a whole number from 0, also one that is written as text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        return int(value)
    return value if type(value) is int and value >= 0 else None
