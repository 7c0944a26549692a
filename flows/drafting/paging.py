"""Finds out how a listing pages: tries what its first answer suggests until a second page is another one."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clients import Offset, PageAnswer, SinglePage
from clients.errors import PageError
from clients.listings.jmespaths import compile_path
from clients.page import Paginator
from flows.drafting.candidates import Attempt, First, attempts, resting
from flows.drafting.conversation import Conversation, Refused
from flows.drafting.draft import CERTAIN, GUESSED, OPEN
from flows.drafting.proof import Verdict, begins_with, judge, keys_of, overlap


@dataclass(frozen=True, slots=True)
class Paging:
    """How a listing pages.

    Args:
        paginator: `SinglePage` where nothing else was seen.
        sure: `certain` where a second page was another one.
        why: in a few words.
        second: the second page, with its items; None where there was none.
        is_lacking: the answer says that there is more, and no way to it was found.
    """

    paginator: Paginator
    sure: str
    why: str
    second: PageAnswer | None = None
    is_lacking: bool = False


def items_at(path: str | None, answer: PageAnswer) -> list[Any] | None:
    """Return the rows of an answer; None where no list is at their place."""
    body = answer.body
    try:
        found = body if path is None else compile_path(path)(body)
    except PageError:
        return None
    return found if isinstance(found, list) else None


def find_paging(talk: Conversation, first: First, *, items: str | None) -> Paging:
    """Try what the first answer suggests."""
    return _Search(talk, first, items).run()


class _Search:
    """The attempts that are left, and what the answers to earlier ones have shown."""

    def __init__(self, talk: Conversation, first: First, items: str | None) -> None:
        self._talk, self._first, self._items = talk, first, items
        self._told = first.counts.more_said(len(first.answer.items))
        self._queue = deque(attempts(first))
        #: It refuses parameters that it does not know: each is tried alone.
        self._is_strict = False
        self._tried = False

    def run(self) -> Paging:
        """Try until something is found, or nothing is left."""
        while self._queue and (self._talk.left > 0 or self._queue[0].proven is not None):
            attempt = self._queue.popleft()
            is_single = len(attempt.paginators) == 1
            if attempt.proven is not None and is_single:
                why = f"{attempt.why}, and the second page was another one"
                return Paging(attempt.paginators[0], CERTAIN, why, attempt.proven)
            if attempt.proven is not None:
                self._queue.extendleft(reversed(attempt.halves(attempt.proven)))
            elif self._is_strict and not is_single:
                self._queue.extendleft(reversed(attempt.singles()))
            elif (found := self._try(attempt)) is not None:
                return found
        return self._nothing()

    def _try(self, attempt: Attempt) -> Paging | None:
        """Send one request; return the paging if that ends the search."""
        request = attempt.request(self._first.answer)
        if request is None:
            return None
        self._tried = True
        answer = self._talk.page(without(self._first.params, attempt.paginators), request)
        if isinstance(answer, Refused):
            if answer.is_strict and len(attempt.paginators) > 1:
                self._queue.extendleft(reversed(attempt.singles()))
            self._is_strict = self._is_strict or answer.is_strict
            return None
        found = items_at(self._items, answer)
        second = replace(answer, items=found or (), keys=keys_of(found or (), self._first.key))
        verdict = Verdict.NO_LIST if found is None else judge(self._first.answer.keys, second.keys)
        if attempt.is_shifted:
            return self._after_shift(attempt, second, verdict)
        if verdict is Verdict.OTHER:
            self._queue.appendleft(replace(attempt, proven=second))
        return self._after_empty(attempt) if verdict is Verdict.EMPTY else None

    def _after_shift(self, attempt: Attempt, second: PageAnswer, verdict: Verdict) -> Paging | None:
        """Tell by the rows that came again which of the parameters it was."""
        if verdict is Verdict.EMPTY:
            return self._after_empty(attempt)
        shift = overlap(self._first.answer.keys, second.keys)
        if shift is not None and shift < len(attempt.paginators):
            before = attempt.paginators[shift - 1] if shift else None
            if isinstance(before, Offset):
                # One that counts from 1 shows one row more.
                self._queue.appendleft(Attempt((replace(before, start=1),), attempt.why, attempt.is_told))
            one = Attempt((attempt.paginators[shift],), attempt.why, attempt.is_told, second if shift == 0 else None)
            self._queue.appendleft(one)
        return None

    def _after_empty(self, attempt: Attempt) -> Paging | None:
        """Take a parameter that led behind the last row, unless it is a filter to the API."""
        if attempt.is_told or self._told:
            return None
        paginator = attempt.paginators[0]
        if len(attempt.paginators) == 1 and _is_first(self._talk, self._first, paginator, self._items):
            return Paging(paginator, GUESSED, "all rows were on the first page, and the next one is empty")
        self._queue.clear()
        return None

    def _nothing(self) -> Paging:
        """Return what is known where no second page was found."""
        counts, rows = self._first.counts, len(self._first.answer.items)
        if not self._told and (paginator := resting(self._first)) is not None:
            return Paging(paginator, GUESSED, "all rows came at once; the answer has a place for a next page")
        is_told = self._told or any(attempt.is_told for attempt in attempts(self._first))
        if counts.all_shown(rows) and (counts.more is not None or not is_told):
            return Paging(SinglePage(), CERTAIN, "the answer says that these are all rows")
        if is_told:
            return Paging(SinglePage(), OPEN, "the answer says that there is more, but no way to it was found", is_lacking=True)
        why = "no sign of further pages" + (", and the usual parameters change nothing" if self._tried else "")
        return Paging(SinglePage(), GUESSED, why)


def _is_first(talk: Conversation, first: First, paginator: Paginator, items: str | None) -> bool:
    """Ask for the first page by its number, and say whether it is the one that came without."""
    answer = talk.page(without(first.params, [paginator]), paginator.first())
    found = None if isinstance(answer, Refused) else items_at(items, answer)
    return bool(found) and begins_with(keys_of(found or (), first.key), first.answer.keys)


def without(params: Mapping[str, Any], paginators: Any) -> dict[str, Any]:
    """Return the parameters of the URL without those that a paginator sends itself."""
    own = {getattr(one, name, None) for one in paginators for name in ("param", "size_param", "limit_param")}
    return {name: value for name, value in params.items() if name not in own}
