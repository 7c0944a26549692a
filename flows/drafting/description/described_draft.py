"""Drafts a declaration from a description of the API, without asking it: by an answer that is made up from its schema."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clients import LinkHeader, Offset, PageAnswer, PageNumber, SinglePage, TotalPages
from clients.page import Paginator
from flows.drafting.candidates import First, attempts
from flows.drafting.conventions import since_names, size_names
from flows.drafting.counts import read_counts
from flows.drafting.description.api_description import Described
from flows.drafting.draft import GUESSED, OPEN, Draft
from flows.drafting.fields import find_key, find_version
from flows.drafting.places import places, words_of
from flows.drafting.proof import keys_of
from flows.drafting.rows import find_rows
from flows.drafting.source import paginator_text
from flows.errors import UsageError

ROWS = 3
"""Rows of the answer that is made up."""

_DESCRIBED = "as described; nothing was asked"


def draft_described(name: str, url: str, listing: Described, *, source: str) -> Draft:
    """Return the draft of one listing of a description.

    Args:
        name: of the client.
        url: the address of the API.
        listing: of the description.
        source: the description, for the docstring.

    Raises:
        UsageError: no field of the rows can be a key.
    """
    collection = listing.path.rstrip("/").rpartition("/")[2]
    url = url if url.endswith("/") else f"{url}/"
    body = _made(listing.schema, url=f"{url}{listing.path.lstrip('/')}")
    rows = find_rows(body, collection=collection)
    key = None if rows is None else find_key(rows.items, collection=collection)
    if rows is None or key is None:
        raise UsageError(f"the description of {listing.path} says no key of the rows. Nothing was written")
    named = listing.fetch_name if rows.items and isinstance(rows.items[0], dict) and listing.fetch_name in rows.items[0] else ""
    draft = Draft(name, url, listing.path.lstrip("/"), items=rows.path, rows=rows.items, source=source, key=named or key.path)
    found = list(places(body, rows=rows.path))
    whole = PageAnswer(body, f"{url}{draft.path}", items=rows.items, keys=keys_of(rows.items, draft.key))
    first = First(whole, found, read_counts(found, rows=len(rows.items), path=rows.path), draft.key, {})
    paginator = LinkHeader() if listing.has_link_header else _paginator(first, listing.params)
    draft.paginator, size = _sized(paginator, listing.params, draft)
    version = find_version(rows.items, key=draft.key)
    draft.version = None if version is None else version.path
    total = first.counts.total
    draft.total = None if total is None or isinstance(paginator, SinglePage) else total.path
    draft.fetch = listing.fetch
    draft.add("rows", rows.path or "the body itself", GUESSED, _DESCRIBED)
    draft.add("key", draft.key, GUESSED, _DESCRIBED)
    draft.add("version", draft.version, GUESSED if version else OPEN, _DESCRIBED)
    draft.add("total", draft.total, GUESSED if draft.total else OPEN, _DESCRIBED)
    draft.add("paging", paginator_text(draft.paginator), GUESSED, _DESCRIBED)
    draft.add("page size", size, GUESSED if size else OPEN, _DESCRIBED)
    draft.add("fetch", draft.fetch, GUESSED if draft.fetch else OPEN, _DESCRIBED)
    _say_more(draft, listing.params)
    return draft


def _paginator(first: First, params: Mapping[str, Any]) -> Paginator:
    """Return the likeliest paginator whose parameter is described."""
    for attempt in attempts(first):
        for one in attempt.paginators:
            param = getattr(one, "param", None)
            if param is None or param in params:
                return one
    for name in params:
        words = set(words_of(name))
        if words & {"page"} and not words & {"size", "per", "limit"}:
            return PageNumber(name)
        if words & {"offset", "skip"}:
            return Offset(name, limit_param=None, limit=100)
    return SinglePage()


def _sized(paginator: Paginator, params: Mapping[str, Any], draft: Draft) -> tuple[Paginator, str | None]:
    """Ask for the largest page that is described."""
    names = [one for one in size_names(getattr(paginator, "param", "")) if one in params]
    if not names or isinstance(paginator, SinglePage):
        return paginator, None
    largest = params[names[0]].get("maximum")
    if type(largest) is not int or largest < 1:
        return paginator, None
    size = min(largest, 1000)
    if isinstance(paginator, PageNumber | TotalPages):
        return replace(paginator, size_param=names[0], size=size), f"{names[0]}={size}"
    if isinstance(paginator, Offset):
        return replace(paginator, limit_param=names[0], limit=size), f"{names[0]}={size}"
    draft.params = {names[0]: size}
    return paginator, f"{names[0]}={size}"


def _say_more(draft: Draft, params: Mapping[str, Any]) -> None:
    needed = [name for name, one in params.items() if one.get("required")]
    if needed:
        draft.look_at.append(f"it needs params= with {', '.join(needed)}")
    if draft.version is not None:
        usual = since_names(draft.version)
        likely = [one for one in params if one in usual or {"since", "after"} & set(words_of(one)) & {"since"}]
        if likely:
            draft.look_at.append(
                f"{likely[0]} may list only what has changed: incremental=Since({draft.version!r}, {likely[0]!r})"
            )
    draft.look_at.append(f"nothing was asked: `syncs check {draft.name}` tries it")


def _made(schema: Mapping[str, Any], *, url: str, name: str = "", row: int = 1, in_row: bool = False) -> Any:
    """Make up a value for a schema, such that the answer is the first of several pages."""
    kind = schema.get("type")
    kind = next((one for one in kind if one != "null"), None) if isinstance(kind, list) else kind
    if kind == "array":
        inner = schema.get("items") or {}
        return [_made(inner, url=url, name=name, row=one, in_row=True) for one in range(1, ROWS + 1)]
    if kind == "object" or "properties" in schema:
        members = schema.get("properties") or {}
        return {one: _made(inner, url=url, name=one, row=row, in_row=in_row) for one, inner in members.items()}
    words = set(words_of(name))
    if kind == "boolean":
        return not words & {"last", "end", "complete", "done", "final"}
    if kind in ("integer", "number"):
        return row if in_row else _made_number(words)
    if schema.get("format") == "date-time" or (in_row and words & {"updated", "modified", "created", "changed"}):
        return f"2025-01-{row:02}T{10 + len(words & {'updated', 'modified', 'changed'})}:00:00Z"
    if in_row:
        return f"{name or 'value'}-{row}"
    is_link = schema.get("format") in ("uri", "url") or words & {"url", "link", "href"}
    return f"{url}?cursor=2" if is_link else "cursor-2" if words & {"next", "cursor", "token", "after"} else "text"


def _made_number(words: set[str]) -> int:
    if words & {"offset", "skip", "start"}:
        return 0
    if words & {"per", "size", "limit"}:
        return ROWS
    if words & {"pages"} or ("page" in words and words & {"total", "last", "count"}):
        return 10
    return 1 if "page" in words else 10 * ROWS
