"""The outcomes of a job: what its function may return."""

import math
from dataclasses import dataclass
from datetime import datetime

from jobs.errors import NaiveTime

MESSAGE_LIMIT = 500
"""Characters of a message that are kept with the job; the traceback has the rest."""


def one_line(text: str, *, limit: int = MESSAGE_LIMIT) -> str:
    """Return the text on one line, cut to `limit` characters."""
    if not text:
        return ""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _check_time(when: float | datetime | None, what: str) -> None:
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise NaiveTime(f"{what} needs an aware datetime, got {when.isoformat()} without a zone")
    elif when is not None and not 0 <= when < math.inf:
        raise ValueError(f"{what} needs a number of seconds that is finite and not negative, got {when}")


@dataclass(frozen=True, slots=True)
class Success:
    """The job is done. `message` is kept on the job."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The remote side has nothing new; nothing was saved."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The remote side no longer has this entity; its record is marked as deleted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The attempt failed.

    Args:
        message: one line for a person.
        retry: whether the job type's `Retry` may give it another try.
        delay: seconds until that try; `None` takes them from `Retry`.

    Raises:
        ValueError: `delay` is not a number of seconds to wait.
    """

    message: str
    retry: bool = True
    delay: float | None = None

    def __post_init__(self) -> None:
        _check_time(self.delay, "Failure")


@dataclass(frozen=True, slots=True)
class Snooze:
    """Requeue the job for later without using an attempt.

    Args:
        when: seconds from now, or an aware datetime.
        reason: one line for a person.

    Raises:
        NaiveTime: `when` has no zone.
        ValueError: `when` is negative or not finite.
    """

    when: float | datetime
    reason: str = ""

    def __post_init__(self) -> None:
        _check_time(self.when, "Snooze")


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause the whole client and requeue the job without using an attempt.

    Args:
        when: seconds from now, an aware datetime, or `None` until a person resumes the client.
        reason: one line for a person.

    Raises:
        NaiveTime: `when` has no zone.
        ValueError: `when` is negative or not finite.
    """

    when: float | datetime | None
    reason: str = ""

    def __post_init__(self) -> None:
        _check_time(self.when, "Pause")


Outcome = Success | Unchanged | Gone | Failure | Snooze | Pause
