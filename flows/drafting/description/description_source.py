"""Gets a description of an API from a file or a URL, and lets a person choose one of its listings."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clients.urls import is_absolute
from flows.drafting.conversation import Conversation
from flows.drafting.places import words_of
from flows.errors import UsageError

SHOWN = 15
"""Paths that one line lists."""


def read_description(place: str) -> Any:
    """Return the document, JSON or YAML.

    Args:
        place: a path or a URL.

    Raises:
        UsageError: it cannot be read.
    """
    if is_absolute(place):
        folder, _, last = place.partition("?")[0].rpartition("/")
        if last.endswith((".yaml", ".yml")):
            raise UsageError(f"--openapi: download {place} and give the file; only JSON is read from a URL. Nothing was written")
        with Conversation(f"{folder}/", last, most=3) as talk:
            return talk.document()
    try:
        text = Path(place).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--openapi: {place} cannot be read: {getattr(error, 'strerror', None) or error}. Nothing was written"
        ) from None
    try:
        return json.loads(text)
    except ValueError:
        return _yaml(place, text)


def _yaml(place: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--openapi: {place} is neither JSON nor YAML. Nothing was written") from None


def choose(paths: Iterable[str], *, url: str, wanted: str | None) -> str | None:
    """Return the listing that a person means; None where that is open.

    Args:
        paths: of the description.
        url: the second argument, which may be the URL of a listing.
        wanted: what `--path` says.

    Raises:
        UsageError: there is none, or none of that name.
    """
    known = list(paths)
    if not known:
        raise UsageError("--openapi: no GET of the description has a list in its answer. Nothing was written")
    if wanted is not None:
        found = [one for one in known if one.strip("/") == wanted.strip("/")]
        if not found:
            raise UsageError(f"--path {wanted}: not a listing of the description; {listed(known)}. Nothing was written")
        return found[0]
    at = url.partition("?")[0].rstrip("/")
    ends = [one for one in known if at.endswith(one.rstrip("/")) and words_of(one)]
    if ends:
        return max(ends, key=len)
    return known[0] if len(known) == 1 else None


def listed(paths: Iterable[str]) -> str:
    """Return the choices on one line."""
    known = list(paths)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return f"its listings are {', '.join(known[:SHOWN])}{more}"


def address_of(url: str, path: str) -> str:
    """Return the address of the API, where the URL may be that of a listing."""
    return url.partition("?")[0].rstrip("/").removesuffix(path.rstrip("/"))
