"""Finds the key and the version among the fields of rows: by their values, and by their names where values say too little."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clients.listings.jmespaths import compile_path
from flows.drafting.places import joined, words_of
from flows.sync.timestamps import EPOCHS, Timestamp

_NAMES = {
    "id": 10, "_id": 10, "@id": 8, "uuid": 9, "guid": 9, "uid": 8, "key": 8, "pk": 8, "gid": 7, "code": 6, "slug": 6, "symbol": 6,
    "sku": 6, "iid": 5, "handle": 5, "number": 5, "login": 5, "username": 5, "isbn": 5, "email": 2, "name": 3, "path": 3,
    "self": 2, "href": 2, "url": 2, "title": 1,
}  # fmt: skip
_ENVELOPES = frozenset({"resource", "node", "attributes", "_source", "sys", "metadata", "meta", "fields", "properties", "data"})
_CHANGED = frozenset(words_of("updated update modified modify changed change edited revised touched mtime lastmod modification"))
_REVISION = frozenset(words_of("rev revision version etag revid lastrevid sequence seq changeset checksum hash sha digest"))
_NOT_CHANGE = frozenset(
    words_of("created create added by user author login email id url uri href due expires deleted start end birth")
)

CERTAIN, GUESSED = "certain", "guessed"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of rows that was chosen.

    Args:
        path: JMESPath in a row.
        sure: `certain` or `guessed`.
        why: it was chosen.
        others: that may be meant.
    """

    path: str
    sure: str
    why: str
    others: tuple[str, ...] = ()


def find_key(rows: Sequence[Any], *, collection: str = "", columns: Sequence[str] = ()) -> Field | None:
    """Return the field that tells rows apart; None where no field does.

    Args:
        rows: of all pages that were seen.
        collection: what the URL calls them; `pet_id` is a key of `pets`.
        columns: names of the values, where rows are lists, the key's first.
    """
    found = sorted(_keys(rows, collection), key=lambda one: -one[0])
    if not found:
        return None
    score, path = found[0]
    others = tuple(other for _, other in found[1:4])
    why = f"different in all {len(rows)} rows"
    is_named = score >= 7 or path == "@" or (path == "[0]" and bool(columns))
    return Field(path, CERTAIN if is_named and len(rows) > 1 else GUESSED, why, others)


def _keys(rows: Sequence[Any], collection: str) -> Iterator[tuple[float, str]]:
    columns = _columns(rows)
    for position, (path, values) in enumerate(columns):
        if len(values) < len(rows) or any(isinstance(one, bool) or not isinstance(one, str | int) or one == "" for one in values):
            continue
        if len({str(one) for one in values}) < len(values) or max(len(str(one)) for one in values) > 300:
            continue
        yield _key_score(path, values, collection) - position / 20, path


def _key_score(path: str, values: Sequence[Any], collection: str) -> float:
    *parents, name = path.split(".")
    words = words_of(name)
    score = float(_NAMES.get(name.strip('"').lower(), 0))
    if not score and words and words[-1] in ("id", "uuid", "guid", "code", "key", "number"):
        score = 5 + 3 * ("".join(words[:-1]) in _singulars(collection)) - 2 * ("parent" in words)
    elif not score and words and words[0] == "id":
        score = 5
    elif len(words) == 1 and name.lower() == "pageid":
        score = 7
    if parents:
        score -= 1.5 if parents[0].strip('"') in _ENVELOPES else 5
    if name.lower().endswith(("id", "Id")) and not score:
        score = 4
    texts = [one for one in values if isinstance(one, str)]
    if texts and (_is_time(texts[0]) or set(words) & _CHANGED):
        return score - 20
    if any(any(letter.isspace() for letter in one) for one in texts):
        score -= 3
    elif len(values) > 1 and len({len(one) for one in texts}) == 1 and len(texts) == len(values) and len(texts[0]) <= 40:
        score += 1.5
    return score + 1 - 4 * bool(set(words) & _REVISION)


def _singulars(collection: str) -> set[str]:
    words = words_of(collection)
    last = words[-1] if words else ""
    return {"".join(words), last, last.removesuffix("s"), last.removesuffix("es"), last.removesuffix("ies") + "y"}


def find_version(rows: Sequence[Any], *, key: str) -> Field | None:
    """Return the field that changes when its row does; None where nothing looks like that."""
    columns = [(path, values) for path, values in _columns(rows) if path != key and len(values) * 10 >= len(rows) * 9 > 0]
    named = sorted(_versions(columns), key=lambda one: -one[0])
    if named:
        score, path = named[0]
        why = "its name, and its values are times" if score >= 7 else "its name"
        return Field(path, CERTAIN if score >= 7 else GUESSED, why, tuple(other for _, other in named[1:3]))
    times = {path: _orders(values) for path, values in columns}
    moments = {path: orders for path, orders in times.items() if orders and len(orders) == len(rows)}
    for path, orders in moments.items():
        others = [other for name, other in moments.items() if name != path]
        is_last = others and all(all(a >= b for a, b in zip(orders, other, strict=True)) for other in others)
        if is_last and any(orders != other for other in others):
            return Field(path, GUESSED, "the latest of the times in each row")
    return None


def zone_of(path: str, versions: Sequence[Any]) -> str | None:
    """Return `UTC` for times that say no zone, but whose name does; None for all others."""
    read = [Timestamp.of(one) for one in versions]
    is_local = bool(read) and all(one is not None and one.kind == "local" for one in read)
    return "UTC" if is_local and {"gmt", "utc"} & set(words_of(path)) else None


def _versions(columns: Sequence[tuple[str, Sequence[Any]]]) -> Iterator[tuple[float, str]]:
    for position, (path, values) in enumerate(columns):
        words = set(words_of(path))
        if words & _NOT_CHANGE or not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values):
            continue
        is_time = _orders(values) is not None
        if words & _CHANGED:
            # Of two times, the one whose zone is known; `pushed_at` and the like are not the row's own.
            yield (8 if is_time else 5) + bool(words & {"gmt", "utc"}) - path.count(".") / 4 - position / 100, path
        elif words & _REVISION or path == "lastModified":
            yield 6 - path.count(".") / 4 - position / 100, path
        elif words & {"timestamp"} and is_time:
            yield 4 - position / 100, path


def _orders(values: Sequence[Any]) -> list[Any] | None:
    """Return what orders a column of times; None where one is no time, or is still to come."""
    orders = [_moment(one) for one in values]
    return None if not orders or None in orders else orders


def _moment(value: Any) -> float | None:
    try:
        found = Timestamp.of(value)
    except (ValueError, OverflowError):
        return None
    if found is None:
        return None
    if found.kind in ("number", "digits"):
        order = float(found.order)
        seconds = next((order / scale for scale, low, high in EPOCHS if low <= order <= high), None)
    else:
        seconds = found.order.timestamp()
    return seconds if seconds is not None and seconds < datetime.now(UTC).timestamp() + 86400 else None


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and _moment(value) is not None


def _columns(rows: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return the path of each field, in the order of the fields, with its values."""
    if rows and not isinstance(rows[0], dict | list):
        return [("@", list(rows))]
    seen: Counter[str] = Counter()
    for row in rows:
        seen.update(dict.fromkeys(_paths(row), 1))
    return [(path, [value for row in rows if (value := compile_path(path)(row)) is not None]) for path in seen]


def _paths(row: Any, path: str = "", depth: int = 3) -> Iterator[str]:
    if isinstance(row, list):
        yield from (f"[{position}]" for position, value in enumerate(row) if not isinstance(value, dict | list))
        return
    for name, value in row.items():
        if isinstance(value, dict):
            if depth > 1:
                yield from _paths(value, joined(path, name), depth - 1)
        elif not isinstance(value, list):
            yield joined(path, name)
