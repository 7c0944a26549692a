"""How batches are named and how failures are counted."""

import pytest

from flows.progress import Judged, Progress, SilentTracker, label


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (["aaa"], "aaa"),
        (["aaa", "abz"], "2 entities, aaa … abz"),
        ([f"k{n}" for n in range(100)], "100 entities, k0 … k99"),
        (["x" * 40], "x" * 40),
        (["x" * 41], "x" * 37 + "…"),
        (["x" * 41, "y"], "2 entities, " + "x" * 37 + "… … y"),
    ],
)
def test_label(keys: list[str], text: str) -> None:
    """A batch is named by its first and last key, a single entity by its own, long ones are cut."""
    assert label(keys) == text


def test_blame_is_bounded() -> None:
    """All bad items are counted, the first hundred are named."""
    progress = Progress(pages=3)
    progress.blame(f"item {n}" for n in range(150))
    assert (progress.failed, len(progress.failures), progress.failures[0]) == (150, 100, ("page 3", "item 0"))
    assert progress.worked == 150


def test_silent_tracker_runs_everything_once() -> None:
    """The tracker that shows nothing runs its work and hands the value on."""
    tracker, calls = SilentTracker(), []
    assert tracker.page(1, lambda: calls.append("page") or 7) == 7  # type: ignore[func-returns-value]
    for step in (lambda work: tracker.entity("k", work), lambda work: tracker.batch(["k"], work)):
        assert step(lambda: calls.append("x") or Judged(True, "ok")) == Judged(True, "ok")
    assert calls == ["page", "x", "x"]
    assert not tracker.shows_entities


@pytest.mark.parametrize("order", [["job", "page"], ["page", "job"], ["page", "page"]])
def test_a_failure_that_a_page_shows_counts_once(order: list[str]) -> None:
    """Whichever of the job and the page comes first; items of a page are no entities, and each counts."""
    progress = Progress()
    for who in order:
        (progress.fail if who == "job" else progress.fail_before)("k1", who)
    progress.blame(["no key", "no key"])
    assert progress.failed == 3
    progress.fail("k1", "again")
    assert progress.failed == (4 if "job" in order else 3)
