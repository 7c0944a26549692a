"""Decides whether and when a failed job is tried again."""

import random
from dataclasses import dataclass

FREE_SNOOZES, LEAST_SNOOZE = 100, 0.1
"""A job may be put back at once so often; from then on a snooze lasts at least so many seconds."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and after what delay a failed job is tried again.

    The wait before retry n (from 1) is `delay * factor ** (n - 1)`, at most `max_delay`. With `jitter` it is
    multiplied by a random number from 0.5 to 1, so that jobs that failed together are not retried together.

    Args:
        max_retries: tries after the first one; 0 means none.
        delay: seconds before the first retry.
        factor: each further wait is this many times longer.
        max_delay: seconds; no wait is longer.
        jitter: whether to spread the waits.
        on: exception types that are retried besides the adapters' transient errors.
        max_snoozes: times that a job may be put back without using an attempt; the next one is a failure.

    Raises:
        ValueError: a number is out of range.
    """

    max_retries: int = 3
    delay: float = 10
    factor: float = 2
    max_delay: float = 3600
    jitter: bool = True
    on: tuple[type[BaseException], ...] = ()
    max_snoozes: int = 10_000

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ValueError(f"max_retries must not be negative, got {self.max_retries}")
        if self.max_snoozes < 0:
            raise ValueError(f"max_snoozes must not be negative, got {self.max_snoozes}")
        if self.delay < 0 or self.max_delay < 0:
            raise ValueError(f"delay and max_delay must not be negative, got {self.delay} and {self.max_delay}")
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, got {self.factor}")

    def wait(self, retries: int, *, dice: float | None = None) -> float | None:
        """Return the seconds before the next try of a job that was retried `retries` times, or `None` for no more.

        Args:
            retries: retries used so far, 0 after the first failure.
            dice: a number from 0 to 1 in place of a random one.
        """
        if retries >= self.max_retries:
            return None
        # The exponent is bounded because 2.0 ** 1024 overflows long after max_delay has won.
        wait = min(self.delay * self.factor ** min(retries, 64), self.max_delay)
        if self.jitter:
            wait *= 0.5 + 0.5 * (random.random() if dice is None else dice)  # noqa: S311  # spreads load, hides nothing
        return wait
