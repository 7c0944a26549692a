"""The state of a run."""

import pytest

from flows.sync.run_state import nothing_stored, run_state


@pytest.mark.parametrize(
    ("failed", "worked", "listing_failed", "paused", "state"),
    [
        (0, 0, False, False, "success"),
        (0, 100, False, False, "success"),
        (1, 100, False, False, "partial"),
        (10, 100, False, False, "partial"),
        (11, 100, False, False, "failed"),
        (1, 1, False, False, "failed"),
        (1, 9, False, False, "failed"),
        (1, 10, False, False, "partial"),
        (3, 0, False, False, "failed"),
        (0, 100, True, False, "failed"),
        (0, 100, False, True, "paused"),
        (50, 100, True, True, "paused"),
    ],
)
def test_run_state(failed: int, worked: int, listing_failed: bool, paused: bool, state: str) -> None:
    """A pause says more than failures; more than a tenth of the entities fails the run, fewer make it partial."""
    assert run_state(failed=failed, worked=worked, listing_failed=listing_failed, paused=paused) == state


@pytest.mark.parametrize(
    ("listed", "good", "gone", "retrying", "put_off", "says"),
    [
        (0, 0, 0, 0, 0, ""),
        (1, 0, 1, 0, 0, ""),
        (2, 0, 2, 0, 0, "2 of 2 listed entities are gone"),
        (100, 80, 20, 0, 0, ""),
        (100, 79, 21, 0, 0, "21 of 100 listed entities are gone"),
        (100, 98, 0, 2, 0, ""),
        (2, 0, 0, 2, 0, "none of 2 entities was stored; 2 failed and will be tried again"),
        (5, 0, 0, 0, 5, "none of 5 entities was stored; 5 were put off"),
        (5, 0, 0, 2, 3, "none of 5 entities was stored; 2 failed and will be tried again, 3 were put off"),
        (5, 1, 0, 0, 4, ""),
        (5, 0, 1, 0, 4, ""),
        # Other workers have them.
        (5, 0, 0, 0, 0, ""),
    ],
)
def test_nothing_stored(listed: int, good: int, gone: int, retrying: int, put_off: int, says: str) -> None:
    """The share of those that are gone has at least one; where all wait for a retry or are put off, nothing was stored."""
    found = nothing_stored(listed=listed, good=good, gone=gone, retrying=retrying, put_off=put_off, max_gone_share=0.2)
    assert found.startswith(says)
    assert bool(found) is bool(says)
