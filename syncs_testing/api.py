"""One API under attack: its rows, its normal replies, and the points where an attack changes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from syncs_testing.server import Reply, Seen
from syncs_testing.styles import Row, Style

SECRET = "s3cret-t0ken"  # must never be sent to another origin
ROWS = 47

Expected = Literal["all", "error", "either"]


@dataclass
class View:
    """A page before it becomes a reply: its number, start, rows and token, the next token, and announced totals."""

    page: int
    start: int
    rows: Any
    token: Any
    next: Any
    total: Any
    pages: Any


@dataclass
class Api:
    """One API under one attack: its current rows, and those that a client must list."""

    style: Style
    attack: Attack
    url: str = ""
    other: str = ""
    rows: list[Row] = field(default_factory=lambda: [row_of(n) for n in range(1, ROWS + 1)])
    hidden: set[int] = field(default_factory=set)
    asked: int = 0
    gone: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.attack.prepare is not None:
            self.attack.prepare(self)
        self.must = {row["id"] for row in self.rows if row["n"] not in self.hidden}

    def respond(self, seen: Seen) -> Reply:
        """Answer one request."""
        self.asked += 1
        if self.attack.answer is not None and (reply := self.attack.answer(self, seen)) is not None:
            return reply
        size = self.style.size
        start, token = self.style.start(seen, self.rows)
        rows: Any = [dict(row) for row in self.rows[start : start + size] if row["n"] not in self.hidden]
        more = start + size < len(self.rows)
        # The token is the number of the row to go on with.
        following = self.rows[start + size]["n"] if more and self.style.announcing else None
        total = len(self.rows) - len(self.hidden)
        view = View(
            page=start // size + 1,
            start=start,
            rows=rows,
            token=token,
            next=following,
            total=total,
            pages=math.ceil(len(self.rows) / size),
        )
        if self.style.kind == "SinglePage":
            view.rows = [row for row in self.rows if row["n"] not in self.hidden]
        if self.attack.change is not None:
            self.attack.change(self, seen, view)
        reply = self.style.reply(
            view.rows, next_token=view.next, base=self.url, path=seen.path, total=view.total, pages=view.pages
        )
        return reply if self.attack.spoil is None else self.attack.spoil(self, seen, reply)

    def delete(self, index: int) -> None:
        """Delete a row; a client need not list it any more."""
        row = self.rows.pop(index)
        self.must.discard(row["id"])


@dataclass(frozen=True)
class Attack:
    """One incident.

    Args:
        name: what the server does.
        incident: where it happened.
        expected: `all` rows without an error, an `error`, or `either`; rows must never be lost without an error.
        fits: says whether it can be done to a style.
        slow: it takes time; a client gets `patience` seconds.
        wait: the seconds that a rate limit asks for (from, to), where the client's error has them.
    """

    name: str
    incident: str
    expected: Expected
    fits: Callable[[Style], bool] = lambda style: True
    prepare: Callable[[Api], None] | None = None
    answer: Callable[[Api, Seen], Reply | None] | None = None
    change: Callable[[Api, Seen, View], None] | None = None
    spoil: Callable[[Api, Seen, Reply], Reply] | None = None
    slow: bool = False
    wait: tuple[float, float] | None = None


def row_of(n: int) -> Row:
    """Return the row with a number."""
    return {"n": n, "id": f"k{n:04}", "at": f"t{n:04}", "version": f"v{n}"}
