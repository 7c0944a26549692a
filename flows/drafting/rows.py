"""Finds where the rows are in an answer: by what the lists of the answer hold, and only then by their names."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log2
from typing import Any

from flows.drafting.places import DEPTH, joined, words_of

_BESIDE = frozenset(
    words_of(
        "links link errors warnings included facets facet aggregations actions permissions columns fields headers messages sort "
        "filters breadcrumbs tags schema"
    )
)
"""Names of lists that come beside the rows."""

_USUAL = frozenset(
    words_of("data items results result value records rows entries entry content hits docs list objects members resources")
)

_OBJECTS, _LISTS, _VALUES = 6.0, 3.0, 1.0


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a first page.

    Args:
        path: JMESPath in the body; None where the body is the list.
        items: the rows.
        kind: `objects`, `lists` or `values`.
        others: paths of other lists that may be the rows.
    """

    path: str | None
    items: list[Any]
    kind: str
    others: tuple[str, ...] = ()


def find_rows(body: Any, *, collection: str = "") -> Rows | None:
    """Return the rows of a body; None where it has no list.

    Args:
        collection: the last part of the URL's path, without an ending: a list of that name is the rows.
    """
    found = sorted(_candidates(body, collection), key=lambda one: -one[0])
    if not found:
        return None
    _, path, items, kind = found[0]
    return Rows(path, items, kind, tuple(other or "the body" for _, other, rows, _ in found[1:4] if rows))


def _candidates(body: Any, collection: str) -> Iterator[tuple[float, str | None, list[Any], str]]:
    if isinstance(body, list):
        yield 100.0, None, body, _kind(body)
        return
    for path, name, items, depth in _lists(body):
        kind = _kind(items)
        if kind is None:
            continue
        score = {"objects": _OBJECTS, "lists": _LISTS, "values": _VALUES}[kind] + log2(len(items) + 1) - depth / 2
        words = set(words_of(name))
        score += 4 * (name.lower() == collection.lower() != "") + 2 * bool(words & _USUAL) - 5 * bool(words & _BESIDE)
        if kind == "objects" and all(_is_link(item) for item in items):
            score -= 8
        score -= 2 * path.startswith("values(")
        yield score, path, items, kind


def _kind(items: list[Any]) -> Any:
    """Return what a list holds: `objects`, `lists` or `values`; None where it is mixed. An empty one may hold objects."""
    if all(isinstance(item, dict) for item in items):
        return "objects"
    if all(isinstance(item, list) for item in items):
        return "lists"
    return "values" if all(isinstance(item, str | int) and not isinstance(item, bool) for item in items) else None


def _lists(body: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str, list[Any], int]]:
    """Yield each list of a body that is in no other list, and each object whose members are rows by their keys."""
    if not isinstance(body, dict) or depth == DEPTH:
        return
    for name, value in body.items():
        at = joined(path, name)
        if isinstance(value, list):
            if value and all(isinstance(one, dict) and isinstance(one.get("node"), dict) for one in value):
                yield f"{at}[].node", name, [one["node"] for one in value], depth
            else:
                yield at, name, value, depth
        elif isinstance(value, dict):
            inner = list(value.values())
            if len(inner) > 1 and all(isinstance(one, dict) for one in inner) and _alike(inner):
                yield f"values({at})", name, inner, depth
            yield from _lists(value, at, depth + 1)


def _alike(objects: list[dict[str, Any]]) -> bool:
    """Say whether objects have most of their names in common, as rows have."""
    shared, every = set.intersection(*map(set, objects)), set.union(*map(set, objects))
    return len(shared) >= 2 and len(shared) * 2 >= len(every)


def _is_link(item: Any) -> bool:
    names = {name.lower() for name in item} if isinstance(item, dict) else set()
    return bool(names & {"rel", "relation"}) and bool(names & {"href", "url", "uri"})
