"""Decides what an answer proves about its listing, by its status, its headers and its position: one table (law 8).

Rows that a listing does not show are deleted here, so the end of a listing needs a proof, and each other answer is a doubt (what
came is used, nothing is deleted because of it) or an error (the listing stops).

A refusal is the delicate case. An API that pages by numbers may refuse the page behind its last one, but the same refusal is how
a search engine says that it shows no more than so many rows, however many there are. What tells them apart is the page before: if
that was not full, there was nothing more to show. An answer without rows (`weigh_empty`) is the usual end of pages that are
counted up; where rows were announced, it is also how a proxy or a broken page answers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from clients.http.status import NOT_ALL, NOT_YET, ContentRange
from clients.listings.single_page import ROUND

REFUSALS = frozenset({400, 404, 410, 416, 422})
"""Statuses that may say that a page does not exist. Others are about sign-in (401, 403), limits (429) or the request's form."""

CAP_STEP = 100
"""Limits of searches are round: 500, 1,000, 2,500, 10,000 rows. A listing of so many may be cut off in the middle of a page."""


class Position(Enum):
    """Where in its listing an answer came."""

    ONLY = "the only page"
    FIRST = "the first page"
    PROMISED = "a page that a cursor, a link or a flag has announced"
    NUMBERED = "a page that a number of pages has announced"
    BEHIND_FULL = "behind a full page"
    BEHIND_SHORT = "behind a page that was not full"
    BEHIND_END = "behind a page that was not full and had the last of the announced rows"
    BEHIND_EMPTY = "behind an empty page"


class Evidence(Enum):
    """What an answer proves."""

    PROOF = "what it shows is what there is: the rows of a page, or the end"
    DOUBT = "there may be more"
    ERROR = "it is no page, and no end"


@dataclass(frozen=True, slots=True)
class Finding:
    """What an answer proves, and in case of a doubt why not more."""

    evidence: Evidence
    why: str = ""


_EXPECTED = frozenset({Position.ONLY, Position.FIRST, Position.PROMISED, Position.NUMBERED})
_PROOF = Finding(Evidence.PROOF)
_ERROR = Finding(Evidence.ERROR)


def weigh(
    status: int | None,
    position: Position,
    *,
    shown: int = 0,
    waits: bool = False,
    covers: ContentRange | None = None,
    is_stale: bool = False,
) -> Finding:
    """Decide what one answer proves.

    Args:
        status: of HTTP; None for a refusal of another protocol, which understood the request.
        position: of the answer in the listing.
        shown: how many entities the listing has shown, before this answer.
        waits: the headers say when to ask again, or that a rate limit is used up.
        covers: what `Content-Range` says.
        is_stale: a `Warning` says that a cache answered with something old (RFC 7234, 5.5).
    """
    if status is not None and 200 <= status < 300:
        return _of_answer(status, position, covers, is_stale=is_stale)
    if waits or (status is not None and status not in REFUSALS):
        return _ERROR
    if position in _EXPECTED:
        return _ERROR
    refused = "the request for a further page was refused" + ("" if status is None else f" ({status})")
    length = None if covers is None else covers.length
    if length is not None:
        return _PROOF if length == shown else Finding(Evidence.DOUBT, f"{refused}, and there are {length} rows")
    if position is Position.BEHIND_FULL:
        return Finding(Evidence.DOUBT, f"{refused} after {shown} entities, and the page before was full: there may be more")
    if position is not Position.BEHIND_EMPTY and is_like_a_limit(shown):
        return Finding(Evidence.DOUBT, f"{refused} after exactly {shown} entities: that may be a limit, and not the end")
    return _PROOF


def weigh_empty(position: Position, *, has_list: bool) -> Finding:
    """Decide what a good answer proves that has no rows, or none that are new. A total that was reached outweighs any doubt.

    Args:
        position: of the answer in the listing.
        has_list: the body has a list where the items should be, empty or null. An answer without a body (204) has none, and
            neither has `{}`.
    """
    if position is Position.NUMBERED:
        return Finding(Evidence.DOUBT, "a page without rows came, which the number of pages had announced: there may be more")
    if position is Position.PROMISED and not has_list:
        return Finding(Evidence.DOUBT, "a page that was announced came without a list of items: rows may be missing")
    return _PROOF


def _of_answer(status: int, position: Position, covers: ContentRange | None, *, is_stale: bool) -> Finding:
    if status in NOT_YET:
        return _ERROR
    if is_stale:
        return Finding(Evidence.DOUBT, "a page came from a cache that could not ask whether it is still right")
    if covers is not None and not covers.is_whole and covers.unit == "bytes":
        # A part of the text of a page.
        return _ERROR
    if status == 206:
        # A page is a part by its nature; where there is only one, it has to be all.
        if position is not Position.ONLY or (covers is not None and covers.is_whole):
            return _PROOF
        return Finding(Evidence.DOUBT, "the answer is only a part (206), and does not say that it is all")
    if status in NOT_ALL or status > 206:
        return Finding(Evidence.DOUBT, f"a page was answered with {status}, which does not say that it is whole")
    return _PROOF


def is_full(rows: int, *, largest: int, sizes: Collection[int] = ()) -> bool:
    """Say whether a page may have been cut off at its size.

    Args:
        rows: of the page.
        largest: rows of the largest page before it; 0 if there was none. Servers limit pages below the size that was asked for,
            so nothing else says what their size is; of a first page only a round number does.
        sizes: that were asked for.
    """
    return rows > 0 and (rows >= largest if largest else rows in ROUND or rows in sizes)


def is_like_a_limit(shown: int) -> bool:
    """Say whether so many entities may be a limit of what an API shows."""
    return shown > 0 and shown % CAP_STEP == 0
