"""Declares queues: lease, concurrency, rate and retention."""

import math
from dataclasses import dataclass
from typing import Any


def _must(who: str, field: str, what: str, value: Any, is_right: bool) -> None:
    if not is_right:
        raise ValueError(f"{who} needs {field} {what}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `n` starts in any `per_seconds` seconds, wherever they begin, over all workers on the database's clock."""

    n: int
    per_seconds: float

    def __post_init__(self) -> None:
        _must("a rate", "n", ">= 1, a whole number", self.n, _is_count(self.n, 1))
        time = self.per_seconds
        _must("a rate", "per_seconds", "> 0, a finite number", time, _is_number(time) and time > 0)


@dataclass(frozen=True, slots=True)
class KeepPolicy:
    """How long finished jobs stay: days by state, and at most `max_items` of them."""

    success_days: float | None = 7
    failure_days: float | None = 30
    max_items: int | None = None

    def __post_init__(self) -> None:
        for field in ("success_days", "failure_days"):
            days = getattr(self, field)
            is_right = days is None or (_is_number(days) and days >= 0)
            _must("a keep policy", field, ">= 0, a finite number, or None", days, is_right)
        most = self.max_items
        _must("a keep policy", "max_items", ">= 0, a whole number, or None", most, most is None or _is_count(most, 0))


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of jobs.

    Args:
        id: its name.
        lease: seconds a claim is valid unless renewed; the worker renews it while it lives.
        concurrency: jobs of this queue in processing at once, over all workers on all machines. A queue that is not
            declared, the default of a client, has no such limit.
        time_limit: seconds after which a worker takes no further job; 0 means none.
        keep: retention of finished jobs.
        rate: starts per time, over all workers; a start is a claim, a retry's too.

    Raises:
        ValueError: a field is not of its type, or out of its range.
    """

    id: str
    lease: float = 60
    concurrency: int = 8
    time_limit: float = 90
    keep: KeepPolicy = KeepPolicy()
    rate: Rate | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise ValueError(f"a queue needs an id, a text, got {self.id!r}")
        name = f"queue {self.id!r}"
        _must(name, "lease", "> 0, a finite number", self.lease, _is_number(self.lease) and self.lease > 0)
        _must(name, "concurrency", ">= 1, a whole number", self.concurrency, _is_count(self.concurrency, 1))
        _must(name, "time_limit", ">= 0, a finite number", self.time_limit, _is_number(self.time_limit) and self.time_limit >= 0)
        _must(name, "keep", "as a KeepPolicy", self.keep, isinstance(self.keep, KeepPolicy))
        _must(name, "rate", "as a Rate, or None", self.rate, self.rate is None or isinstance(self.rate, Rate))
