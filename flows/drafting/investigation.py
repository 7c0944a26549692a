"""Drafts a declaration from a URL: asks, and decides what to ask next. The decisions themselves are in the other modules."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from clients import ODataLink, PageAnswer, SinglePage
from clients.auth import Auth
from clients.http.rate_limits.rate_limit_headers import budgets
from clients.listings.jmespaths import compile_path
from clients.page import PageRequest
from clients.urls import origin_of
from flows.drafting.candidates import First
from flows.drafting.conventions import since_names
from flows.drafting.conversation import Conversation, Refused
from flows.drafting.counts import Counts, read_counts
from flows.drafting.draft import CERTAIN, GUESSED, OPEN, Draft
from flows.drafting.fields import Field, find_key, find_version, zone_of
from flows.drafting.page_size import find_size
from flows.drafting.paging import Paging, find_paging, items_at
from flows.drafting.places import header_places, number, places
from flows.drafting.proof import filter_marks, filtered_by, keys_of
from flows.drafting.rows import Rows, find_rows
from flows.drafting.source import paginator_text, since_call
from flows.errors import UsageError

FETCH_AND_FILTER = 2
"""Requests that are kept for the fetch and the filter, while the size of a page is looked for."""


def split_url(url: str) -> tuple[str, str, dict[str, str]]:
    """Return the URL of a client, the path of its listing, and the parameters.

    Raises:
        UsageError: it is not an absolute http or https URL.
    """
    try:
        origin_of(url)
    except ValueError as error:
        raise UsageError(f"the URL is {error}") from None
    parts = urlsplit(url)
    folder, _, last = parts.path.rpartition("/")
    if not last and folder:
        # DRF and others end their collections with a slash.
        folder, _, last = folder.rpartition("/")
        last += "/"
    return f"{parts.scheme}://{parts.netloc}{folder}/", last, dict(parse_qsl(parts.query, keep_blank_values=True))


def investigate(name: str, url: str, *, auth: Auth | None = None) -> Draft:
    """Ask a URL and return the draft of its declaration.

    Args:
        name: of the client.
        auth: with the values of its variables.

    Raises:
        UsageError: there are no rows to draft from; the text is one line.
    """
    base, path, params = split_url(url)
    with Conversation(base, path, auth=auth) as talk:
        answer = talk.first(params)
        base, path = _moved(base, answer)
        collection = path.strip("/").partition(".")[0]
        rows = _rows(answer, collection)
        if rows.kind == "lists" and _columns(answer):
            answer, rows, params = _with_names(talk, answer, rows, params, collection)
        draft = Draft(name, base, path, items=rows.path, rows=rows.items, source=url.partition("?")[0])
        key = find_key(rows.items, collection=collection, columns=_columns(answer))
        first = _first(answer, rows, key, params)
        paging = find_paging(talk, first, items=rows.path)
        shown = [*rows.items, *(paging.second.items if paging.second is not None else ())]
        key = _key(draft, shown, key, collection, answer)
        size = find_size(talk, first, paging, items=rows.path, keep=FETCH_AND_FILTER)
        version = find_version(shown, key=draft.key)
        draft.rows, draft.paginator, draft.params = shown, size.paginator, size.params
        _say_rows(draft, rows)
        _say_key(draft, key, version)
        _say_total(draft, first, paging)
        draft.add("paging", paginator_text(size.paginator), paging.sure, paging.why)
        draft.add("page size", size.value, size.sure, size.why)
        _find_fetch(talk, draft, collection)
        _find_filter(talk, draft, version)
        _say_headers(draft, talk, paging)
        draft.requests = talk.requests
    return draft


def _moved(base: str, answer: PageAnswer) -> tuple[str, str]:
    """Return where redirects have led.

    Raises:
        UsageError: that is another origin, which gets no credentials.
    """
    there, at, _ = split_url(answer.url)
    if origin_of(there) != origin_of(base):
        raise UsageError(f"it leads to {there}{at}; call `syncs new` with that URL. Nothing was written")
    return there, at


def _rows(answer: PageAnswer, collection: str) -> Rows:
    found = find_rows(answer.body, collection=collection)
    if found is None:
        names = ", ".join(map(repr, list(answer.body)[:5])) if isinstance(answer.body, dict) else type(answer.body).__name__
        raise UsageError(
            f"the answer has no list of rows, but {names or 'nothing'}; is it the URL of a listing? Nothing was written"
        )
    if not found.items:
        where = "the answer is an empty list" if found.path is None else f"the list at {found.path!r} is empty"
        raise UsageError(f"{where}; a draft needs rows to look at. Nothing was written")
    return found


def _with_names(
    talk: Conversation, answer: PageAnswer, rows: Rows, params: dict[str, str], collection: str
) -> tuple[PageAnswer, Rows, dict[str, str]]:
    """Ask for objects in place of lists whose columns are named elsewhere, as Datasette gives them."""
    asked = {**params, "_shape": "objects"}
    named = talk.page(asked, PageRequest())
    found = None if isinstance(named, Refused) else find_rows(named.body, collection=collection)
    if found is None or isinstance(named, Refused) or found.kind != "objects" or len(found.items) != len(rows.items):
        return answer, rows, params
    return named, found, asked


def _columns(answer: PageAnswer) -> Sequence[str]:
    body = answer.body if isinstance(answer.body, dict) else {}
    found = body.get("columns")
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else ()


def _first(answer: PageAnswer, rows: Rows, key: Field | None, params: Mapping[str, str]) -> First:
    found = [*places(answer.body, rows=rows.path), *header_places(dict(answer.headers))]
    path = None if key is None else key.path
    whole = replace(answer, items=rows.items, keys=keys_of(rows.items, path))
    return First(whole, found, read_counts(found, rows=len(rows.items), path=rows.path), path, params)


def _key(draft: Draft, shown: Sequence[Any], key: Field | None, collection: str, answer: PageAnswer) -> Field:
    """Return the key of all rows that were seen.

    Raises:
        UsageError: no field tells them apart.
    """
    if key is None or len(set(keys_of(shown, key.path))) < len(shown):
        key = find_key(shown, collection=collection, columns=_columns(answer))
    if key is None:
        raise UsageError(
            "no field of the rows is text or a whole number that is different in each; a sync needs a key. Nothing was written"
        )
    draft.key = key.path
    return key


def _say_rows(draft: Draft, rows: Rows) -> None:
    is_only = not rows.others
    why = f"{len(rows.items)} {rows.kind} on the first page"
    draft.add("rows", rows.path or "the body itself", CERTAIN if is_only or rows.kind == "objects" else GUESSED, why)
    if rows.others:
        draft.look_at.append(f"other lists in the answer: {', '.join(rows.others)}")
    if rows.kind == "lists":
        draft.look_at.append("rows are lists of values without names; if the API also writes objects, use that URL")


def _say_key(draft: Draft, key: Field, version: Field | None) -> None:
    draft.add("key", key.path, key.sure, f"different in all {len(draft.rows)} rows")
    if key.sure != CERTAIN and key.others:
        draft.look_at.append(f"is {key.path} the key? It may be {' or '.join(key.others)}")
    if version is None:
        draft.add("version", None, OPEN, "no field looks like a time of change; each run compares whole rows")
        return
    draft.version = version.path
    draft.add("version", version.path, version.sure, version.why)
    if version.sure != CERTAIN:
        draft.look_at.append(f"does {version.path} change whenever the row does? If not, leave version= out")


def _say_total(draft: Draft, first: First, paging: Paging) -> None:
    """Take the total, if the second page does not contradict it."""
    total, rows = first.counts.total, len(first.answer.items)
    if total is not None and paging.second is not None:
        again = _counts(paging.second, draft).total
        is_same = again is not None and again.path == total.path and number(again.value) == number(total.value)
        if (number(total.value) or 0) <= rows or not is_same:
            total = None
    if total is None:
        draft.add("total", None, OPEN, "the answer does not say how many rows there are")
        return
    count = number(total.value)
    if total.is_header:
        draft.total_header = total.path
    else:
        draft.total = total.path
    seen = "the same on both pages" if paging.second is not None else "as many rows came" if count == rows else "its name"
    draft.add("total", total.path, CERTAIN if seen != "its name" else GUESSED, f"{count}, {seen}")


def _counts(answer: PageAnswer, draft: Draft) -> Counts:
    found = [*places(answer.body, rows=draft.items), *header_places(dict(answer.headers))]
    return read_counts(found, rows=len(answer.items), path=draft.items)


def _find_fetch(talk: Conversation, draft: Draft, collection: str) -> None:
    """Ask for the first row by its key; fetch is worth it where that has more than the row."""
    row = draft.rows[0]
    stem, dot, ending = draft.path.partition(".")
    slash = "/" if draft.path.endswith("/") else ""
    template = f"{draft.path.rstrip('/')}/{{key}}{slash}" if not dot else f"{stem}/{{key}}{dot}{ending}"
    key = compile_path(draft.key)(row)
    if isinstance(draft.paginator, ODataLink):
        template = f"{draft.path}({{key}})" if isinstance(key, int) else f"{draft.path}('{{key}}')"
    if not collection or ending == "php":
        draft.add("fetch", None, OPEN, "the listed rows are the records")
        return
    answer = talk.record(template, str(key))
    if isinstance(answer, Refused):
        draft.add(
            "fetch", None, OPEN, f"the listed rows are the records; {template.replace('{key}', str(key))}: {answer.why[:60]}"
        )
        return
    record, held = _with_key(answer.body, key), _size(row)
    if record is None:
        draft.add("fetch", None, OPEN, f"the listed rows are the records; {template} has another shape")
    elif _size(record) > held:
        draft.fetch, draft.record = template, answer.body
        draft.add("fetch", template, CERTAIN, f"{_size(record)} values, the listed row has {held}")
    else:
        draft.add("fetch", None, CERTAIN, f"the listed rows are the records; {template} has no more")


def _with_key(body: Any, key: Any, depth: int = 3) -> dict[str, Any] | None:
    """Return the object in an answer that has the key of the row."""
    if not isinstance(body, dict) or depth == 0:
        return None
    if any(type(value) in (str, int) and str(value) == str(key) for value in body.values()):
        return body
    return next((found for value in body.values() if (found := _with_key(value, key, depth - 1)) is not None), None)


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 1


def _find_filter(talk: Conversation, draft: Draft, version: Field | None) -> None:
    """Look for a parameter that lists only what has changed, and take it where it was seen to filter."""
    if version is None or (draft.fetch is None and isinstance(draft.paginator, SinglePage)):
        return
    versions = [compile_path(version.path)(row) for row in draft.rows]
    names = [name for name in since_names(version.path) if name != getattr(draft.paginator, "param", None)]
    marks = filter_marks(versions, len(names))
    if not marks or talk.left <= 0:
        draft.add("incremental", None, OPEN, "not tried" if marks else "not tried: the rows that came have one version")
        return
    # Each parameter has a mark of its own, so that the oldest row of the answer tells which of them filters.
    asked = dict(zip(names, marks, strict=False))
    found = _filtering(talk, draft, version.path, asked)
    if found is not None and (len(asked) == 1 or talk.left <= 0 or _filtering(talk, draft, version.path, {found: marks[-1]})):
        draft.since = (version.path, found, zone_of(version.path, versions))
        draft.add("incremental", since_call(draft.since).flat(), CERTAIN, f"{found}= left out what is older, and nothing else")
        return
    draft.add("incremental", None, OPEN, "no usual parameter was seen to filter by it")


def _filtering(talk: Conversation, draft: Draft, path: str, asked: Mapping[str, Any]) -> str | None:
    """Ask with filters, and return the one by which the answer is filtered."""
    assert draft.paginator is not None
    answer = talk.page({**draft.params, **asked}, draft.paginator.first())
    if isinstance(answer, Refused):
        # It may not know the others.
        first = dict(list(asked.items())[:1])
        return _filtering(talk, draft, path, first) if len(asked) > 1 and answer.is_strict else None
    shown = items_at(draft.items, answer) or ()
    number_of = filtered_by([compile_path(path)(row) for row in shown], list(asked.values()))
    return None if number_of is None else list(asked)[number_of]


def _say_headers(draft: Draft, talk: Conversation, paging: Paging) -> None:
    seen = [one for one in talk.inspector.observations if one.status == 200]
    told = [found[0] for one in seen if (found := budgets(one.headers, now=one.at))]
    if told:
        limit, left = told[-1].limit, told[-1].remaining
        draft.add(
            "rate",
            f"{'?' if left is None else f'{left:g}'}/{'?' if limit is None else f'{limit:g}'}",
            CERTAIN,
            "its headers; they are obeyed",
        )
    validators = [
        name for name, header in (("ETag", "etag"), ("Last-Modified", "last-modified")) if seen and header in seen[0].headers
    ]
    if validators:
        draft.add("validators", " and ".join(validators), CERTAIN, "its headers; conditional=True asks with those of a record")
    if paging.is_lacking:
        draft.look_at.insert(0, "there are further pages, and no usual parameter led to them: see the API's documentation")
