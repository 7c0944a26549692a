"""The right of a process to run a sync, and from where and how its listing goes on."""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class ListingClaim:
    """The right to run a sync; its writes are fenced like those of a claimed job."""

    sync: str
    claim_no: int
    generation: int
    #: Where to resume; `None` starts at the first page.
    cursor: Any
    #: Whether it continues an interrupted listing.
    resumed: bool
    pages: int
    listed: int
    #: The high-water mark to list from; `None` lists everything.
    mark: Any
    #: Every entity is queued, changed or not.
    full: bool = False
    #: It lists only what is new since the mark.
    is_filtered: bool = False
    #: The `MarkUpdate.next` of an interrupted listing.
    next_mark: Any = None
    #: Items listed before the interruption that could not become entities or were left for later.
    flawed: int = 0
    #: Tries in a row that brought no page behind the cursor, and how often the listing went back to the first page.
    failures: int = 0
    restarts: int = 0


class MarkUpdate(NamedTuple):
    """How a page changes the high-water mark; both values are JSON."""

    #: State for the next page; kept until the listing is complete.
    next: Any
    #: The mark, if the listing is complete with this page; with `None` the next listing is not incremental.
    mark: Any


@dataclass(frozen=True, slots=True)
class ListingBusy:
    """Another process runs this sync."""

    worker: str
    since: Any
