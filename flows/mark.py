"""How far an incremental listing has come: what to ask from, and how far the mark may move. Knows no page and no table.

The bound is inclusive: what has the mark's own value comes again, and is found unchanged. The mark moves to the highest value
that a complete listing has shown, but not past what could be missed:

- what changes on a page that was read already gets a later time than that at which the listing began. So a time does not move
  past that moment, by our clock or, where that is behind, by the remote one's (the first answer's `Date` tells). That also holds
  back a single row with a date in the future, which would hide everything until then;
- a number that is no time knows no such moment. It moves to the highest one where the listing is in its order, or where an
  `overlap` is declared that covers what changes meanwhile; else to the highest one of the first page.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from clients.paths import compile_path
from flows.moment import Moment
from flows.policy import Since
from jobs.listing import Marked

AHEAD = timedelta(hours=1)
"""Clocks differ by less; what lies further in the future is worth a word."""

BEHIND = timedelta(days=3650)
"""A clock that was never set; no `Date` takes more than this back."""


class Marker:
    """Follows one listing.

    Args:
        since: the declaration.
        mark: what the listing is asked from; `None` lists all.
        kept: what an interrupted listing has noted.
        now: the time.
    """

    def __init__(self, since: Since, *, mark: Any, kept: Any, now: datetime) -> None:
        self._since = since
        self._find = compile_path(since.field)
        self._mark = Moment.of(mark)
        noted = kept if isinstance(kept, dict) else {}
        self._began = datetime.fromisoformat(noted["began"]) if "began" in noted else now
        self._high = Moment.of(noted.get("high")) or self._mark
        self._first = Moment.of(noted.get("first"))
        self._last = Moment.of(noted.get("last"))
        self._is_sorted = bool(noted.get("sorted", True))
        self._is_first = "began" not in noted
        self._start = now
        self._seen = self._missing = self._other = 0
        #: Something is left for later, so that the mark stays where it is.
        self.holds = bool(noted.get("holds"))

    @property
    def ask(self) -> dict[str, Any] | None:
        """The parameters that ask for what is new; `None` asks for all."""
        return None if self._mark is None else {self._since.param: self._mark.before(self._since.overlap)}

    def heed(self, skew: float | None) -> None:
        """Take in by how many seconds the remote side's clock is ahead: rows that change get their times from that one."""
        if skew is not None and skew < 0 and self._is_first:
            self._began = min(self._began, self._start - min(timedelta(seconds=-skew), BEHIND))

    def look(self, items: Iterable[Any]) -> None:
        """Take in the listed items of a page, in their order."""
        for item in items:
            self._seen += 1
            value = self._find(item)
            found = Moment.of(value)
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

    def marked(self) -> Marked:
        """Return what to keep with the page, and the mark should it be the last one."""
        first, high, last = (None if one is None else one.value for one in (self._first, self._high, self._last))
        kept = {
            "began": self._began.astimezone(UTC).isoformat(), "first": first, "high": high, "last": last,
            "sorted": self._is_sorted, "holds": self.holds,
        }  # fmt: skip
        moved = self._mark if self.holds else self._moved()
        return Marked(kept, None if moved is None else {"of": self._since.field, "value": moved.value})

    def _moved(self) -> Moment | None:
        high, floor = self._high, self._mark
        if high is None:
            return None
        if high.is_time:
            began = high.at(self._began)
            found = high if high.order <= began.order else began
        elif self._is_sorted or self._since.overlap > 0:
            found = high
        else:
            found = self._first or floor or high
        return floor if floor is not None and floor.order > found.order else found

    def warning(self) -> str:
        """Say what a person should know of the values that were listed; empty where all is well."""
        name = self._since.field
        unusable = self._missing + self._other
        if unusable:
            what = [f"{self._missing} have none"] if self._missing else []
            what += [f"{self._other} have another kind of value"] if self._other else []
            told = f"of {self._seen} listed items, {' and '.join(what)} at {name!r}"
            moves = "so the next run lists everything again" if self._high is None else "and the mark moves without them"
            return f"incremental: {told}, {moves}"
        moved = self._moved()
        if moved is None or self._high is None or moved.order >= self._high.order:
            return ""
        if not self._high.is_time:
            return (
                f"incremental: the listing is not in order of {name!r}, so the mark is {moved.value} and not {self._high.value}; "
                "sort it, or declare an overlap"
            )
        if self._high.order > self._high.at(self._began + AHEAD).order:
            return f"incremental: {self._high.value} at {name!r} lies in the future, so the mark moves to {moved.value} only"
        return ""
