"""One API under attack: its rows, what it says by itself, and where an attack comes in. Knows no attack."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from syncs_testing.server import Reply, Seen
from syncs_testing.styles import Row, Style

SECRET = "s3cret-t0ken"  # what must never be seen elsewhere
ROWS = 47

Expected = Literal["all", "error", "either"]


@dataclass
class View:
    """A page about to be said: its number, where it begins, its rows, what names the next one, what is announced."""

    page: int
    start: int
    rows: Any
    token: Any
    next: Any
    total: Any
    pages: Any


@dataclass
class Api:
    """One API under one attack: its rows now, and those that a client has to see."""

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
        view = View(start // size + 1, start, rows, token, following, total, math.ceil(len(self.rows) / size))
        if self.style.kind == "SinglePage":
            view.rows = [row for row in self.rows if row["n"] not in self.hidden]
        if self.attack.change is not None:
            self.attack.change(self, seen, view)
        reply = self.style.reply(
            view.rows, next_token=view.next, base=self.url, path=seen.path, total=view.total, pages=view.pages
        )  # fmt: skip
        return reply if self.attack.spoil is None else self.attack.spoil(self, seen, reply)

    def delete(self, index: int) -> None:
        """Take a row away; nobody has to see it any more."""
        row = self.rows.pop(index)
        self.must.discard(row["id"])


@dataclass(frozen=True)
class Attack:
    """One incident.

    Args:
        name: what the server does.
        incident: where it happened, or what it comes from.
        expected: `all` rows without an error, an `error`, or `either`; never rows lost without an error.
        fits: the styles it can be done to.
        slow: it is about time; a client gets `patience` seconds.
        wait: seconds that a rate limit asks for, where the client's error tells.
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
