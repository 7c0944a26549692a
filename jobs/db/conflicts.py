"""Runs a transaction again when it conflicted with another one."""

import functools
import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

P = ParamSpec("P")
T = TypeVar("T")

MAX_TRIES = 10
"""Tries of one transaction. With five, eight writers of sixty entities used all of them up once in some minutes."""

# PostgreSQL, Appendix A: serialization_failure, deadlock_detected. Both mean that nothing was written and a retry may succeed.
_SQLSTATES = ("40001", "40P01")
# A job returned to `queued` while another transaction queued a job of the same fingerprint: the next try applies the duplicate
# policy.
_TWIN = ("job_twin", "job.fingerprint, job.queue")
# Another job of the same serial key went into processing after this claim had checked: the next try sees it.
_ALONE = ("job_alone", "job.queue, job.serial_key")


def is_conflict(error: DBAPIError) -> bool:
    """Tell whether the same transaction may succeed when it is run again."""
    if isinstance(error, IntegrityError):
        return any(name in str(error.orig) for name in (*_TWIN, *_ALONE))
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) in _SQLSTATES


def retry_on_conflict(work: Callable[P, T]) -> Callable[P, T]:
    """Run the whole transaction again after a conflict, at most `MAX_TRIES` times in all."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(1, MAX_TRIES):
            try:
                return work(*args, **kwargs)
            except DBAPIError as error:
                if not is_conflict(error):
                    raise
            _wait(attempt)
        return work(*args, **kwargs)

    return run


def _wait(attempt: int) -> None:
    time.sleep(random.uniform(0.01, 0.05) * attempt)  # noqa: S311  # spreads load, hides nothing
