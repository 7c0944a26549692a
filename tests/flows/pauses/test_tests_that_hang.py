"""A client's test that does not end: it fails after its time limit, with one line, and no run hangs."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from clients import HttpClient
from flows import Client, PausePolicy
from flows.checks import client_check as checking
from flows.execution import client_test
from flows.execution.client_test import CHECK_TIMEOUT, PAGE_TIMEOUT
from flows.project.registry import Registry
from flows.sync import run as engine
from flows.user_code import NotEnded, within
from jobs import JobStore
from tests.support.fake_remote import run_out
from tests.support.fake_things_api import CLIENT, Fault, Remote, declare, serving, states

LIMIT = 0.5


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system with things."""
    with serving(Remote()) as found:
        found.fill(20)
        yield found


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """What sleeps for ever waits for this; the end of the test lets its threads go."""
    until = threading.Event()
    yield until
    until.set()


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a minute and five."""
    monkeypatch.setattr(client_test, "CHECK_TIMEOUT", LIMIT)
    monkeypatch.setattr(client_test, "PAGE_TIMEOUT", LIMIT)
    monkeypatch.setattr(checking, "CHECK_TIMEOUT", LIMIT)


def test_a_check_that_sleeps_for_ever_is_a_failed_test(store: JobStore, remote: Remote, hang: threading.Event) -> None:
    """An entity is refused, so the client tests itself: the run ends with a pause that says why."""
    remote.faults["k7"] = Fault(403)
    result = engine.run(declare(remote.url, client={"check": lambda _: hang.wait()}), store)
    assert (result.state, result.failed) == ("paused", 0)
    (pausing,) = store.pauses.in_force()
    assert pausing.reason.endswith("403 Forbidden; and the client's test: the client's `check` has not ended after 0.5 s")
    assert "\n" not in pausing.reason


def test_a_first_page_that_never_comes_is_one(store: JobStore, remote: Remote, hang: threading.Event) -> None:
    """The same for a listing of the user's own, which tests a client that has no check."""
    remote.faults["k7"] = Fault(403)
    calls: list[int] = []

    def listing(http: HttpClient, since: Any) -> Iterator[Any]:
        calls.append(1)
        if len(calls) > 1:
            hang.wait()
        yield from declare(remote.url).listing(http, since)

    result = engine.run(declare(remote.url, listing=listing), store)
    assert (result.state, result.failed) == ("paused", 0)
    (pausing,) = store.pauses.in_force()
    assert "the first page of a listing has not ended after 0.5 s" in pausing.reason


def test_a_probe_that_sleeps_for_ever_leaves_the_client_paused(store: JobStore, remote: Remote, hang: threading.Event) -> None:
    """The next pause is longer, as after any failed probe; a check that ends then opens the client."""
    sync = declare(remote.url, client={"check": lambda _: hang.wait()}, pause=PausePolicy(durations=(60,)))
    store.pauses.open(CLIENT, 60, cause="level", reason="", set_by="anna")
    run_out(store)
    assert engine.run(sync, store, wait=0).state == "paused"
    (pausing,) = store.pauses.in_force()
    assert (pausing.cause, pausing.reason) == ("level", "the client's `check` has not ended after 0.5 s")
    hang.set()
    run_out(store)
    assert engine.run(sync, store, wait=0).state == "success"
    assert states(store) == {"success": 20}


def test_a_stop_does_not_wait_for_it(hang: threading.Event) -> None:
    """Ctrl-C is answered at once."""
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(NotEnded, match="this has not ended"):
        within(600, hang.wait, what="this", stop=stop)
    assert time.monotonic() - began < 60


def test_what_it_raises_and_returns_comes_through() -> None:
    """As if it were called directly."""
    assert within(60, lambda: 7, what="this") == 7
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0, what="this")


@pytest.mark.parametrize("timeouts", [(), (3.0,), (3.0, 90.0)])
def test_the_limit_is_that_of_the_jobs(timeouts: tuple[float, ...]) -> None:
    """The longest time-out of the client's jobs, else a default."""

    class Made:
        connections = judge = None

        def __init__(self, timeout: float | None) -> None:
            self.client, self.timeout = Client("shop", connect=lambda _: HttpClient("https://h"), check=len), timeout

    tests = client_test.tests_of({str(n): Made(limit) for n, limit in enumerate((None, *timeouts))}, [])  # type: ignore[dict-item, misc]
    assert tests["shop"].timeout == (max(timeouts) if timeouts else None)
    assert (CHECK_TIMEOUT, PAGE_TIMEOUT) == (60, 300)


def test_syncs_check_ends(remote: Remote, hang: threading.Event) -> None:
    """It names the check."""
    sync = declare(remote.url, client={"check": lambda _: hang.wait()})
    found = checking.check_client(sync.client, Registry(clients={CLIENT: sync.client}, syncs={sync.id: sync}))
    assert (found.ok, found.connection, found.message) == (False, "FAIL", "the client's `check` has not ended after 0.5 s")
