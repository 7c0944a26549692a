"""Slowing down before the remote system has to say 429. Knows budgets and a clock, and no request."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from clients.errors import RateLimitedError
from clients.rates import budgets

PATIENCE = 5.0
"""Seconds that a request may be held back here; a longer wait is the job's, not a thread's (law 6)."""


class Pace:
    """What the last answers said is left.

    A budget of zero holds back the next requests until it is full again: for `PATIENCE` seconds by sleeping, beyond that by
    `RateLimitedError`, which pauses the client for exactly the rest.
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = 0.0

    def heed(self, raw_headers: Sequence[tuple[bytes, bytes]], headers: Mapping[str, str] | None = None) -> None:
        """Take in what an answer says.

        Args:
            raw_headers: looked through first, because most answers say nothing of it.
            headers: the same with names in lower case, where they are decoded already.
        """
        names = b" ".join([name for name, _ in raw_headers]).lower()
        if b"rate" not in names and b"-limit" not in names:
            return
        if headers is None:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw_headers}
        known = budgets(headers)
        if known:
            # The strictest comes first. One that is not used up takes nothing back: another thread's answer may be older.
            seconds = known[0].wait
            if seconds > 0:
                self._until = max(self._until, time.monotonic() + seconds)

    def hold(self, *, method: str, url: str) -> None:
        """Wait until the next request may go.

        Raises:
            RateLimitedError: that takes longer than `PATIENCE`.
        """
        until = self._until
        if until == 0.0:
            return
        left = until - time.monotonic()
        if left > PATIENCE:
            raise RateLimitedError(
                f"the remote system's budget is used up, it is full again in {left:.0f} s; nothing was sent",
                method=method, url=url, retry_after=left,
            )  # fmt: skip
        if left > 0:
            time.sleep(left)
        if self._until == until:
            # Not what another thread was told meanwhile.
            self._until = 0.0
