"""Follows the high-water mark of an incremental listing: what to ask from, and how far the mark may move.

The bound is inclusive: an entity with the mark's own value is listed again, and found unchanged. The mark moves to the highest
value that a complete listing has shown, but not past values that could still be missed:

- An entity that changes on a page that was read already gets a later time than the beginning of the listing. So a time does not
  move past that beginning, by our clock or, where that is behind, by the remote side's (the `Date` of the first answer). This
  also holds back a single row with a date in the future, which would hide everything until then.
- A time without a zone is one of the zone that is declared; else that beginning is written as in the zone where it is earliest.
- For a number that is no time there is no such moment. The mark moves to the highest number if the listing is in its order, or if
  an `overlap` is declared that covers the changes in between; else to the highest number of the first page.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from clients import Page
from clients.listings.jmespaths import compile_path
from flows.declarations.since import Since
from flows.sync.timestamps import Timestamp
from jobs.listing.listing_claim import MarkUpdate
from jobs.listing.page_plan import Item

AHEAD = timedelta(hours=1)
"""Clocks differ by less; a value further in the future is worth a warning."""

WESTERNMOST, EASTERNMOST = timedelta(hours=-12), timedelta(hours=14)
"""The zones of the earth, as differences from UTC: where a time says no zone, it may be of any of them."""

BEHIND = timedelta(days=3650)
"""The most that a `Date` moves the mark back: a clock that was never set may be wrong by decades."""


class Watermark:
    """Follows one listing.

    Args:
        since: the declaration.
        mark: what the listing is asked from; `None` lists all.
        kept: the `kept` of an interrupted listing.
        now: the time.
    """

    def __init__(self, since: Since, *, mark: Any, kept: Any, now: datetime) -> None:
        self._since = since
        self._find = compile_path(since.field)
        self._mark = self._read(mark)
        noted = kept if isinstance(kept, dict) else {}
        self._began = datetime.fromisoformat(noted["began"]) if "began" in noted else now
        self._high = self._read(noted.get("high")) or self._mark
        self._first = self._read(noted.get("first"))
        self._last = self._read(noted.get("last"))
        self._is_sorted = bool(noted.get("sorted", True))
        self._is_first = "began" not in noted
        self._start = now
        self._seen = self._missing = self._other = 0
        self._is_held = bool(noted.get("holds"))

    def _read(self, value: Any) -> Timestamp | None:
        return Timestamp.of(value, self._since.zone)

    def _as_listed(self, high: Timestamp, when: datetime, *, latest: bool = False) -> Timestamp:
        """Return a moment, written as the highest value is; if no zone is known, as in the one where it is earliest or latest."""
        if high.has_zone or self._since.zone is not None:
            return high.at(when)
        return high.at(when + (EASTERNMOST if latest else WESTERNMOST))

    @property
    def ask(self) -> dict[str, Any] | None:
        """The parameters that ask for what is new; `None` asks for all."""
        return None if self._mark is None else {self._since.param: self._mark.before(self._since.overlap)}

    def allow_skew(self, skew: float | None) -> None:
        """Allow for the remote side's clock, from which changed rows get their times.

        Args:
            skew: by how many seconds it is ahead.
        """
        if skew is not None and skew < 0 and self._is_first:
            self._began = min(self._began, self._start - min(timedelta(seconds=-skew), BEHIND))

    def see(self, page: Page, items: Sequence[Item]) -> None:
        """See a page that is about to be stored, with its items."""
        if page.later or page.doubt:
            # What this listing may not have shown is asked for again by the next one.
            self.hold()
        self.allow_skew(page.skew)
        self.observe([item.data for item in items])

    def hold(self) -> None:
        """Keep the mark where it is: a page has left something for later."""
        self._is_held = True

    def observe(self, items: Iterable[Any]) -> None:
        """Look at the listed items of a page, in their order."""
        for item in items:
            self._seen += 1
            value = self._find(item)
            found = self._read(value)
            if found is None or (self._high is not None and found.kind != self._high.kind):
                self._missing += value is None
                self._other += value is not None
                continue
            if self._last is not None and found.order < self._last.order:
                self._is_sorted = False
            self._last = found
            if self._high is None or found.order > self._high.order:
                self._high = found
            if self._is_first and (self._first is None or found.order > self._first.order):
                self._first = found
        self._is_first = self._is_first and not self._seen

    def value(self) -> MarkUpdate:
        """Return what to keep with the page, and the mark should it be the last one."""
        first, high, last = (None if one is None else one.value for one in (self._first, self._high, self._last))
        kept = {
            "began": self._began.astimezone(UTC).isoformat(),
            "first": first,
            "high": high,
            "last": last,
            "sorted": self._is_sorted,
            "holds": self._is_held,
        }
        moved = self._mark if self._is_held else self._moved()
        return MarkUpdate(kept, None if moved is None else {"of": self._since.field, "value": moved.value})

    def _moved(self) -> Timestamp | None:
        high, floor = self._high, self._mark
        if high is None:
            return None
        if high.is_time:
            began = self._as_listed(high, self._began)
            found = high if high.order <= began.order else began
        elif self._is_sorted or self._since.overlap > 0:
            found = high
        else:
            found = self._first or floor or high
        return floor if floor is not None and floor.order > found.order else found

    def warning(self) -> str:
        """Return what a person should know about the listed values; empty if there is nothing."""
        name = self._since.field
        unusable = self._missing + self._other
        if unusable:
            what = [f"{self._missing} have none"] if self._missing else []
            what += [f"{self._other} have another kind of value"] if self._other else []
            found = f"of {self._seen} listed items, {' and '.join(what)} at {name!r}"
            moves = "so the next run lists everything again" if self._high is None else "and the mark moves without them"
            return f"incremental: {found}, {moves}"
        moved = self._moved()
        if moved is None or self._high is None:
            return ""
        if self._mark is None and self._since.zone is None and not self._high.has_zone:
            return (
                f"incremental: times at {name!r} say no zone, so each run asks for 12 to 26 hours more than it needs; "
                "if they are all of one zone, declare Since(…, zone=…)"
            )
        if moved.order >= self._high.order:
            return ""
        if not self._high.is_time:
            return (
                f"incremental: the listing is not in order of {name!r}, so the mark is {moved.value} and not {self._high.value}; "
                "sort it, or declare an overlap"
            )
        if self._high.order > self._as_listed(self._high, self._began + AHEAD, latest=True).order:
            return f"incremental: {self._high.value} at {name!r} lies in the future, so the mark moves to {moved.value} only"
        return ""
