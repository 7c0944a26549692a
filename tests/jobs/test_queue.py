"""jobs.queue: the declaration of a queue."""

import pytest

from jobs import KeepPolicy, Queue, Rate


def test_defaults() -> None:
    """A queue needs only an id."""
    queue = Queue("default")
    assert (queue.lease, queue.concurrency, queue.time_limit, queue.rate) == (60, 8, 90, None)
    assert queue.keep == KeepPolicy(success_days=7, failure_days=30, max_items=None)


@pytest.mark.parametrize(
    "wrong", [{"id": ""}, {"id": "q", "lease": 0}, {"id": "q", "concurrency": 0}, {"id": "q", "time_limit": -1}]
)
def test_wrong_numbers_are_refused(wrong: dict[str, float | str]) -> None:
    """A queue that cannot work is a ValueError."""
    with pytest.raises(ValueError, match="queue"):
        Queue(**wrong)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("wrong", [(0, 1), (1, 0), (-1, 5), (1, -5)])
def test_wrong_rates_are_refused(wrong: tuple[int, float]) -> None:
    """A rate needs a count and a time."""
    with pytest.raises(ValueError, match="rate"):
        Rate(*wrong)
