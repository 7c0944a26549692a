"""jobs.queue: the declaration of a queue."""

from typing import Any

import pytest

from jobs import KeepPolicy, Queue, Rate


def test_defaults() -> None:
    """A queue needs only an id."""
    queue = Queue("default")
    assert (queue.lease, queue.concurrency, queue.time_limit, queue.rate) == (60, 8, 90, None)
    assert queue.keep == KeepPolicy(success_days=7, failure_days=30, max_items=None)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.rows("AQ-23")
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("id", ["", None, 7]),
        ("lease", [0, -1, NAN, INFINITE, "60", None, True]),
        ("concurrency", [0, -1, 1.5, "8", None, True]),
        ("time_limit", [-1, NAN, INFINITE, "90", None, False]),
        ("keep", [None, 7, Rate(1, 1), (7, 30, None)]),
        ("rate", [5, (5, 60), "5/60", KeepPolicy()]),
    ],
)
def test_wrong_fields_are_refused(field: str, values: list[Any]) -> None:
    """A queue that cannot work is a ValueError of one line, which names the queue and the field."""
    for value in values:
        with pytest.raises(ValueError, match="queue") as caught:
            Queue(**{"id": "shop", field: value})
        assert field in str(caught.value)
        assert "\n" not in str(caught.value)
        assert field == "id" or "'shop'" in str(caught.value)


@pytest.mark.rows("AQ-23")
@pytest.mark.parametrize(
    ("field", "values"),
    [("n", [0, -1, 1.5, "5", None, True]), ("per_seconds", [0, -5, NAN, INFINITE, "60", None, True])],
)
def test_wrong_rates_are_refused(field: str, values: list[Any]) -> None:
    """A rate needs a count and a time."""
    for value in values:
        with pytest.raises(ValueError, match=f"rate needs {field}"):
            Rate(**{"n": 5, "per_seconds": 60, field: value})


@pytest.mark.rows("AQ-43")
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("success_days", [-1, -0.001, NAN, INFINITE, "7", True]),
        ("failure_days", [-1, NAN, INFINITE, "7", False]),
        ("max_items", [-1, 1.5, "10", True]),
    ],
)
def test_wrong_keep_policies_are_refused(field: str, values: list[Any]) -> None:
    """Days and numbers of jobs; a slip must not remove what was to stay."""
    for value in values:
        with pytest.raises(ValueError, match=f"keep policy needs {field}"):
            KeepPolicy(**{field: value})


def test_what_a_queue_may_be() -> None:
    """The ends of the ranges."""
    assert KeepPolicy(0, 0.5, 0).max_items == 0
    assert KeepPolicy(None, None, None).success_days is None
    assert Queue("q", lease=0.5, concurrency=1, time_limit=0, keep=KeepPolicy(0, 0, 0), rate=Rate(1, 0.1)).rate == Rate(1, 0.1)
