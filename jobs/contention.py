"""Doing a transaction again when another one got in its way. Knows no table."""

import functools
import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 10
"""Tries of one transaction; with five, eight writers of sixty entities ran out of them once in some minutes."""

# PostgreSQL, Appendix A: serialization_failure, deadlock_detected. Both say "try again"; nothing was written.
_SQLSTATES = ("40001", "40P01")
# A job went back to `queued` in the moment that another transaction queued its twin: on the next try it gives way (M2).
_TWIN = ("job_twin", "job.fingerprint, job.queue")
# Another job of the serial key went into processing after this claim had looked: on the next try it is seen (M11).
_ALONE = ("job_alone", "job.queue, job.serial_key")


def is_contention(error: DBAPIError) -> bool:
    """Tell whether the same transaction may succeed when it is done again."""
    if isinstance(error, IntegrityError):
        return any(name in str(error.orig) for name in (*_TWIN, *_ALONE))
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) in _SQLSTATES


def again(work: Callable[P, T]) -> Callable[P, T]:
    """Do the whole transaction again when it ran into another one, at most `TRIES` times in all."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            # Nearly always this is all.
            return work(*args, **kwargs)
        except DBAPIError as error:
            if not is_contention(error):
                raise
        for attempt in range(1, TRIES - 1):
            _wait(attempt)
            try:
                return work(*args, **kwargs)
            except DBAPIError as error:
                if not is_contention(error):
                    raise
        _wait(TRIES - 1)
        return work(*args, **kwargs)

    return run


def _wait(attempt: int) -> None:
    time.sleep(random.uniform(0.01, 0.05) * attempt)  # noqa: S311  # spreads load, hides nothing
