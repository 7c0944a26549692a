"""The declaration of a queue. Knows no row and no worker."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `n` starts in any `per_seconds` seconds, wherever they begin, over all workers on the database's clock."""

    n: int
    per_seconds: float

    def __post_init__(self) -> None:
        if self.n < 1 or self.per_seconds <= 0:
            raise ValueError(f"a rate needs n >= 1 and per_seconds > 0, got {self.n} per {self.per_seconds}")


@dataclass(frozen=True, slots=True)
class KeepPolicy:
    """How long finished jobs stay: days by state, and at most `max_items` of them."""

    success_days: float | None = 7
    failure_days: float | None = 30
    max_items: int | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """Where jobs wait.

    Args:
        id: its name.
        lease: seconds a claim is valid unless renewed; the worker renews it while it lives.
        concurrency: jobs of this queue in processing at once, over all workers on all machines. A queue that nobody declares,
            the default of a client, has no such limit.
        time_limit: seconds after which a worker takes no further job; 0 means none.
        keep: retention of finished jobs.
        rate: starts per time, over all workers; a start is a claim, a retry's too.
    """

    id: str
    lease: float = 60
    concurrency: int = 8
    time_limit: float = 90
    keep: KeepPolicy = KeepPolicy()
    rate: Rate | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("a queue needs an id")
        if self.lease <= 0 or self.concurrency < 1 or self.time_limit < 0:
            raise ValueError(f"queue {self.id!r} needs lease > 0, concurrency >= 1 and time_limit >= 0")
