"""Trying a failed connection again, at most twice (law 7). Knows no protocol."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 3


def dial(connect: Callable[[], T], *, again: Callable[[OSError], bool]) -> T:
    """Return what `connect` returns, trying it again where nothing was sent yet.

    Args:
        connect: raises OSError where there is no connection.
        again: tells whether another attempt may help.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return connect()
        except OSError as error:
            if not again(error):
                raise
        time.sleep(0.2 * attempt * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
    return connect()
