"""A remote system in memory, listed page by page in the order of its rows, and the syncs of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from clients import Entity, Page
from flows import Client, Since, Sync
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import JobStore, Retry

CLIENT = Client("shop", connect=lambda settings: nullcontext(object()))
SYNC = "shop.rows"
AT_ONCE = Retry(max_retries=0)


@dataclass
class Rows:
    """Rows with `id`, `at` and whatever else; `since` filters by `at`, its bound inclusive."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 2
    #: What each listing was asked from, in order.
    asked: list[Any] = field(default_factory=list)
    #: Called before each page but the first, with its number.
    between: Callable[[int], None] = lambda number: None
    total: int | None = None
    fetched: Counter[str] = field(default_factory=Counter)
    failing: set[str] = field(default_factory=set)

    def __call__(self, conn: Any, since: Mapping[str, Any] | None = None) -> Iterator[Page]:
        """List from the start."""
        return self.pages(conn, since=since)

    def pages(self, conn: Any, *, cursor: Any = None, since: Mapping[str, Any] | None = None) -> Iterator[Page]:
        """List behind the cursor."""
        bound = None if since is None else since["since"]
        self.asked.append(bound)
        start = cursor or 0
        while True:
            shown = [row for row in self.rows if bound is None or row.get("at") is None or row["at"] >= bound]
            part = shown[start : start + self.page_size]
            start += self.page_size
            yield Page(
                [Entity(row["id"], row.get("v"), row) for row in part], start if start < len(shown) else None, total=self.total
            )
            if start >= len(shown):
                return
            self.between(start // self.page_size + 1)

    def fetch(self, conn: Any, entity: Entity) -> Any:
        """Return a row, unless it is told to fail."""
        self.fetched[entity.key] += 1
        if entity.key in self.failing:
            raise ValueError(f"{entity.key} fails")
        return next(row for row in self.rows if row["id"] == entity.key)

    def sync(self, **fields: Any) -> Sync:
        """Declare the sync."""
        fields = {"incremental": Since("at", "since"), "fetch": self.fetch, "retry": AT_ONCE, **fields}
        return Sync(SYNC, CLIENT, listing=fields.pop("listing", self), **fields)

    def run(
        self, store: JobStore, *, full: bool = False, limit: int | None = None, allow: bool = False, **fields: Any
    ) -> RunResult:
        """Run it."""
        return engine.run(self.sync(**fields), store, full=full, limit=limit, allow_deletes=allow)
