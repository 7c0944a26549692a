"""`quoted_path`, which puts keys into paths, and the check that finds a key that was put into one as it is.

`C#` as it is asks for `C`, `p1?` for `p1`, and `..` for what is above the collection: a good answer, of something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

from clients.errors import RejectedError
from clients.page import Entity
from clients.urls import is_absolute

# Other characters are quoted by the HTTP library, or mean the same with and without.
_CHANGED_IN_PATH = re.compile(r"[/?#%;\\]")
_CHANGED_IN_QUERY = re.compile(r"[#%&+;]")
_CHANGED = re.compile(r"[/?#%;\\&+]|\A\.+\Z")
_TAIL = re.compile(r"[?#].*", re.DOTALL)
_UNCHECKED: AbstractContextManager[None] = nullcontext()


class QuotedPath(str):
    """A path in which all parts are quoted."""

    __slots__ = ()


def quoted_path(template: str, /, *parts: str | int, keep_slashes: bool = False) -> str:
    """Return `template` with a part in place of each `{}`; whatever is not a letter, a digit or one of `-._~` is quoted in it.

    `quoted_path("pets/{}", "a/b#c")` is `pets/a%2Fb%23c`. The parts `.` and `..` become `%2E` and `%2E%2E`, which no client
    resolves as a folder.

    Args:
        template: a path, with or without a query.
        parts: keys, as they are.
        keep_slashes: a slash in a part separates folders of the remote system, and stays as it is.

    Raises:
        ValueError: there are more or fewer parts than places; or one is neither text nor a whole number, or empty: then the path
            would be that of the collection.
    """
    texts = template.split("{}")
    if len(texts) != len(parts) + 1:
        raise ValueError(f"quoted_path: {template!r} has {len(texts) - 1} places ({{}}) for {len(parts)} parts")
    quoted = (_quoted_folders(part) if keep_slashes else quoted_part(part) for part in parts)
    return QuotedPath(texts[0] + "".join(part + text for part, text in zip(quoted, texts[1:], strict=True)))


def quoted_part(part: str | int) -> str:
    """Return one part of a path, quoted; see `quoted_path`."""
    if isinstance(part, bool) or not isinstance(part, str | int):
        raise ValueError(  # noqa: TRY004 - one error for all that is no part
            f"a part of a path must be text or a whole number, not {type(part).__name__}"
        )
    text = str(part)
    if not text:
        raise ValueError("a part of a path is empty")
    quoted = quote(text, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def _quoted_folders(part: str | int) -> str:
    if part in ("", "/"):
        raise ValueError("a part of a path is empty")
    return "/".join(quoted_part(folder) if folder else "" for folder in str(part).split("/"))


class _Watched(NamedTuple):
    """The keys that no path may hold as they are."""

    keys: Sequence[str]
    #: What was listed: the links in it are as the remote system wrote them.
    data: Any


_watched: ContextVar[_Watched | None] = ContextVar("clients_watched_keys", default=None)

watched_keys = _watched.get
"""Returns the keys that `check_path` looks for in this thread (or context), or `None`."""


def watching(entity: Entity) -> AbstractContextManager[None]:
    """Refuse requests of this thread whose path holds the entity's key as it is, where that asks for something else.

    A link in what was listed of the entity is sent as it is.
    """
    for key in entity.path or (entity.key,):
        # Most keys are plain, and then nothing is checked at all.
        if _CHANGED.search(key) is not None:
            return _watch(_Watched(tuple(filter(None, {*entity.path, entity.key})), entity.data))
    return _UNCHECKED


@contextmanager
def _watch(watched: _Watched) -> Iterator[None]:
    token = _watched.set(watched)
    try:
        yield
    finally:
        _watched.reset(token)


def check_path(path: str, *, method: str) -> None:
    """Refuse a path with a key that is not quoted; see `watching`.

    Raises:
        RejectedError: it has one.
    """
    watched = _watched.get()
    if watched is None or type(path) is QuotedPath:
        return
    for key in watched.keys:
        if key not in path or not _is_changed(key, path):
            continue
        # A key may be a link itself.
        is_link = key.startswith("/") or is_absolute(key) if key == path else _holds(watched.data, path)
        if not is_link:
            hint = 'quoted_path("…/{}", key) quotes it'
            if "/" in key:
                hint += ", with keep_slashes=True where it is a path itself"
            raise RejectedError(
                f"not sent: the path holds the key {key[:200]!r} as it is, which asks for something else; {hint}", method=method
            )


def _is_changed(key: str, path: str) -> bool:
    """Say whether the key stands in the path as it is, at a place where quoting changes what is asked for."""
    if not any(map(str.isalnum, key)):
        # `?` or `..` are in many paths; only as a whole part it is the key.
        whole = path if {*key} & {*"?#"} else _TAIL.sub("", path)
        return f"/{key}/" in f"/{whole}/"
    forms = (quote(key, safe="", errors="replace"), quote(key, errors="replace"), quote_plus(key, errors="replace"))
    quoted = tuple(form.lower() for form in forms if form != key)
    for found in re.finditer(re.escape(key), path):
        start, end = found.span()
        before = key[0].isalnum() and path[start - 1 : start].isalnum()
        after = key[-1].isalnum() and path[end : end + 1].isalnum()
        if before or after or path[start:].lower().startswith(quoted):
            continue
        changed = _CHANGED_IN_QUERY if "?" in path[:start] else _CHANGED_IN_PATH
        # In a link of the remote system, of which an absolute URL is most often one, slashes are as they should be.
        if changed.search(key.replace("/", "") if is_absolute(path) else key):
            return True
    return False


def _holds(data: Any, path: str) -> bool:
    """Say whether the listed item has this very text."""
    if isinstance(data, dict):
        return any(_holds(one, path) for one in data.values())
    return any(_holds(one, path) for one in data) if isinstance(data, list) else data == path
