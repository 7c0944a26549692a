"""Finds out how many rows of a page an API really gives, and with that, where its pages begin."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clients import Continue, Cursor, HeaderCursor, ODataLink, Offset, PageAnswer, PageNumber, SinglePage, TotalPages
from clients.errors import PageError
from clients.listings.jmespaths import compile_path
from clients.page import Paginator
from flows.drafting.candidates import First
from flows.drafting.conventions import SIZE, size_names
from flows.drafting.conversation import Conversation, Refused
from flows.drafting.draft import CERTAIN, GUESSED, OPEN
from flows.drafting.paging import Paging, items_at, without
from flows.drafting.places import number
from flows.drafting.proof import begins_with, keys_of

ASKED_SIZE = 100
"""Rows of a page that are asked for."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a page.

    Args:
        paginator: that asks for it, if it is one that counts.
        params: of every request.
        value: how it is asked for; None where the API's own size stays.
        sure, why: as for a finding.
    """

    paginator: Paginator
    params: Mapping[str, Any]
    value: str | None
    sure: str
    why: str


def find_size(talk: Conversation, first: First, paging: Paging, *, items: str | None, keep: int) -> Size:
    """Ask for a larger page, and for the first one by its number.

    Args:
        keep: requests that are left for other questions.
    """
    paginator, rows = paging.paginator, len(first.answer.items)
    params = without(first.params, [paginator])
    counts = first.counts
    given = next((name for name in first.params if name in size_names(getattr(paginator, "param", ""))), None)
    own = f"{rows} rows a page, the API's own size"
    if isinstance(paginator, SinglePage) or (given is None and paging.second is None):
        return Size(paginator, params, None, OPEN, "all rows came at once" if paging.second is None else own)
    if given is not None:
        asked = number(first.params[given]) or rows
        sure, why = (CERTAIN, "as in the URL") if asked == rows else (GUESSED, f"{asked} are asked for, {rows} came")
        sized, params = _sized(paginator, params, given, asked)
        started = _with_start(talk, first, sized, params, items)
        return Size(started, params, f"{given}={asked}", sure, why)
    if isinstance(paginator, ODataLink):
        # `$top` is how many rows there are in all.
        return Size(paginator, params, None, CERTAIN, own)
    for name in _names(paginator, counts.size.name if counts.size else "", first)[:2]:
        if talk.left <= keep:
            break
        sized, sized_params = _sized(paginator, params, name, ASKED_SIZE)
        answer = talk.page(sized_params, sized.first())
        found = None if isinstance(answer, Refused) else items_at(items, answer)
        if not found or isinstance(answer, Refused):
            continue
        if not begins_with(keys_of(found, first.key), first.answer.keys):
            sized = _with_start(talk, first, sized, sized_params, items)
            if getattr(sized, "start", 1) == 0:
                return Size(sized, sized_params, f"{name}={ASKED_SIZE}", GUESSED, "pages are counted from 0")
            continue
        if len(found) > rows and _goes_on(sized, replace(answer, items=found, keys=keys_of(found, first.key)), len(found)):
            is_capped = len(found) < ASKED_SIZE and counts.total is not None and (number(counts.total.value) or 0) > len(found)
            size = len(found) if is_capped else ASKED_SIZE
            sized, sized_params = _sized(paginator, params, name, size)
            why = f"{ASKED_SIZE} were asked for, {len(found)} came"
            return Size(sized, sized_params, f"{name}={size}", CERTAIN, why)
    return Size(paginator, params, None, CERTAIN, own)


def _goes_on(paginator: Paginator, answer: PageAnswer, rows: int) -> bool:
    """Say whether a larger page is still followed by another one, if it may not be all: `limit` may mean all pages together."""
    try:
        following = paginator.next(paginator.first(), answer)
    except (PageError, ValueError):
        return False
    return following is not None or rows != ASKED_SIZE


def _with_start(
    talk: Conversation, first: First, paginator: Paginator, params: Mapping[str, Any], items: str | None
) -> Paginator:
    """Return the paginator that counts from 0, if its first page is then the first one."""
    if not isinstance(paginator, PageNumber | TotalPages) or first.counts.page is not None or paginator.start == 0:
        return paginator
    if paginator.param in first.params:
        return paginator
    zero = replace(paginator, start=0)
    answer = talk.page(params, zero.first())
    found = None if isinstance(answer, Refused) else items_at(items, answer)
    is_zero = bool(found) and begins_with(keys_of(found or (), first.key), first.answer.keys)
    if is_zero:
        one = talk.page(params, paginator.first())
        shown = None if isinstance(one, Refused) else items_at(items, one)
        is_zero = not (shown and begins_with(keys_of(shown, first.key), first.answer.keys))
    return zero if is_zero else paginator


def _names(paginator: Paginator, echo: str, first: First) -> tuple[str, ...]:
    if isinstance(paginator, Continue):
        members = compile_path(paginator.path)(first.answer.body) or {}
        return tuple(name.replace("continue", "limit") for name in members if name != "continue" and name.endswith("continue"))
    param = getattr(paginator, "param", "")
    names = size_names(param, echo)
    # What the answer calls it is likelier than what goes with the name of the other parameter.
    return (echo, *names) if echo in SIZE else names


def _sized(paginator: Paginator, params: Mapping[str, Any], name: str, size: int) -> tuple[Paginator, dict[str, Any]]:
    if isinstance(paginator, PageNumber | TotalPages):
        return replace(paginator, size_param=name, size=size), {one: value for one, value in params.items() if one != name}
    if isinstance(paginator, Offset):
        return replace(paginator, limit_param=name, limit=size), {one: value for one, value in params.items() if one != name}
    if isinstance(paginator, Cursor | HeaderCursor) and paginator.param == name:
        return paginator, dict(params)
    return paginator, {**params, name: size}
