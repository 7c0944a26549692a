"""Law 14: whatever Prefect does, work runs exactly once, and its value or exception comes back. No server here at all."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)

from flows.orchestration.tracking.run_tracker import PrefectTracker
from flows.progress import Judged, Progress
from tests.support.prefect_project import free_port


@pytest.fixture
def tracker() -> Iterator[PrefectTracker]:
    """Return a tracker whose server is not there."""
    updates = {
        PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api",
        PREFECT_CLIENT_MAX_RETRIES: 0,
        PREFECT_LOGGING_TO_API_ENABLED: False,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False,
    }
    with temporary_settings(updates=updates), PrefectTracker("x", key="x-progress") as made:
        yield made


def test_work_runs_once_and_its_value_comes_back(tracker: PrefectTracker) -> None:
    """From many threads, with nobody to record it."""
    ran: list[str] = []
    lock = threading.Lock()

    def work(key: str) -> Judged:
        with lock:
            ran.append(key)
        return Judged(True, key)

    keys = [f"k{i}" for i in range(50)]
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda key: tracker.entity(key, lambda: work(key)), keys))
    assert [value.message for value in values] == keys
    assert sorted(ran) == sorted(keys)
    assert tracker.page(1, lambda: 42) == 42
    assert tracker.batch(["a", "b"], lambda: Judged(False, "2 failed")) == Judged(False, "2 failed")


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_exceptions_of_the_work_come_back(tracker: PrefectTracker, error: BaseException) -> None:
    """The very exception, once, also those that end a process."""
    ran = []

    def work() -> int:
        ran.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        tracker.page(1, work)
    assert caught.value is error
    assert ran == [1]


def test_numbers_reach_the_caller(tracker: PrefectTracker) -> None:
    """`on_progress` sees what the engine reports."""
    seen: list[int] = []
    watched = PrefectTracker("x", key="x", on_progress=lambda progress: seen.append(progress.listed))
    watched.progress(Progress(listed=3))
    assert seen == [3]
