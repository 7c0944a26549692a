"""Processes share budgets through the database: who is there, and what pace was learned."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest

from clients import HttpClient, RateLimitedError
from clients.http.rate_limits import throttle as throttles_of
from clients.http.rate_limits.throttle import Permit, Throttle
from clients.http.rate_limits.throttle_scope import Kind
from clients.http.response import HttpResponse
from flows.pauses import pace_exchange
from flows.pauses.pace_exchange import PaceExchange
from jobs import JobStore
from jobs.pauses.paces import Pace
from tests.support.fake_remote import until
from tests.support.store_helpers import change

ITEM: Kind = ("GET", "/items", 3)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody counts as gone because the machine was busy elsewhere, and a request would wait for minutes."""
    monkeypatch.setattr(pace_exchange, "PRESENT", 120.0)
    monkeypatch.setattr(throttles_of, "USED_WITHIN", 120.0)
    monkeypatch.setattr(throttles_of, "MAX_SLEEP", 600.0)
    monkeypatch.setattr(throttles_of, "MAX_LINE", 600.0)


def throttle_of(http: HttpClient) -> Throttle:
    """Return the throttle of a client's own origin."""
    (throttle,) = http.throttles.values()
    return throttle


def answered(throttle: Throttle, status: int = 200, **headers: str) -> None:
    """Send one request and get this answer."""
    permit = throttle.attempt(ITEM)
    assert isinstance(permit, Permit)
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    throttle.answered(permit, HttpResponse(status, raw, b""))


def test_two_processes_know_of_each_other(store: JobStore) -> None:
    """Both say once a second that they are limited, and each then takes a request of its own for one of each."""
    with ExitStack() as stack:
        throttles = []
        for name in ("w1", "w2"):
            exchange = PaceExchange(store, stop=threading.Event(), worker=name)
            stack.callback(exchange.close)
            http = stack.enter_context(HttpClient("http://127.0.0.1:9/"))
            exchange.opened("api", http)
            throttles.append(throttle_of(http))
            answered(throttles[-1], x_ratelimit_remaining="5", x_ratelimit_reset="600")
        until(lambda: [throttle._main.members for throttle in throttles] == [2, 2])

        assert [throttle._main.rank for throttle in throttles] == [0, 1]

        assert isinstance(throttles[0].attempt(ITEM), Permit)

    assert store.paces.of(["api"]) == []


def test_nothing_is_written_where_nothing_limits(store: JobStore) -> None:
    """A client whose answers tell nothing leaves no trace in the database."""
    exchange = PaceExchange(store, stop=threading.Event())
    with HttpClient("http://127.0.0.1:9/") as http:
        exchange.opened("api", http)
        answered(throttle_of(http))
        exchange.exchange()

        assert store.paces.of(["api"]) == []

    exchange.close()


@pytest.mark.parametrize(("idle", "expected"), [(0.0, 10.0), (60.0, 20.0)], ids=["beside it", "after it"])
def test_a_new_process_begins_with_what_others_learned(store: JobStore, idle: float, expected: float) -> None:
    """It takes its share of the pace that a process has learned, or all of it where that one is gone."""
    store.paces.put([Pace("api", "http://127.0.0.1:9", "w0", 20.0, age=10.0)])
    if idle:
        change(store, "UPDATE pace SET seen_at = '2020-01-01 00:00:00.000000'")
    exchange = PaceExchange(store, stop=threading.Event())
    with HttpClient("http://127.0.0.1:9/") as http:
        exchange.opened("api", http)
        throttle = throttle_of(http)

        pace = throttle._main.pace
        assert pace.rate(pace.since) == pytest.approx(expected)
        # It was measured ten seconds ago.
        assert time.monotonic() - pace.since >= 9.9

    exchange.close()


def test_a_stop_ends_waits(store: JobStore) -> None:
    """Ctrl-C: whoever waits for the next window gives up within a fraction of a second."""
    stop = threading.Event()
    exchange = PaceExchange(store, stop=stop)
    with HttpClient("http://127.0.0.1:9/") as http:
        exchange.opened("api", http)
        answered(throttle_of(http), x_ratelimit_remaining="0", x_ratelimit_reset="300")
        threading.Timer(0.05, stop.set).start()
        began = time.monotonic()
        with pytest.raises(RateLimitedError):
            throttle_of(http).acquire(ITEM, method="GET", url="http://127.0.0.1:9/items/1")

        assert time.monotonic() - began < 60

    exchange.close()


def test_a_stop_does_not_wait_for_the_database(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the one writer: Ctrl-C ends the waits all the same."""
    stop, writes, free = threading.Event(), threading.Event(), threading.Event()
    exchange = PaceExchange(store, stop=stop)

    def put(mine: object) -> None:
        writes.set()
        free.wait(120)

    monkeypatch.setattr(store.paces, "put", put)
    with HttpClient("http://127.0.0.1:9/") as http:
        exchange.opened("api", http)
        answered(throttle_of(http), x_ratelimit_remaining="0", x_ratelimit_reset="300")
        assert writes.wait(60)
        stop.set()
        began = time.monotonic()
        with pytest.raises(RateLimitedError):
            throttle_of(http).acquire(ITEM, method="GET", url="http://127.0.0.1:9/items/1")

        assert time.monotonic() - began < 60

    free.set()
    exchange.close()


def test_two_exchanges_of_one_process_share_the_budget(store: JobStore) -> None:
    """A worker continues a listing: each has connections of its own, knows of the other, and leaves without taking it along."""
    first, second = (PaceExchange(store, stop=threading.Event()) for _ in range(2))
    with ExitStack() as stack:
        stack.callback(first.close)
        for exchange in (first, second):
            http = stack.enter_context(HttpClient("http://127.0.0.1:9/"))
            exchange.opened("api", http)
            answered(throttle_of(http), x_ratelimit_remaining="5", x_ratelimit_reset="600")
            if exchange is first:
                one = throttle_of(http)
        until(lambda: len(store.paces.of(["api"])) == 2 and one._main.members == 2)
        second.close()

        assert len(store.paces.of(["api"])) == 1


def test_who_goes_leaves_its_pace_to_the_others(store: JobStore) -> None:
    """A process that measured 15 of 20 requests a second ends; the one that stays goes on at 20, and not at its 5."""
    exchange = PaceExchange(store, stop=threading.Event(), worker="w1")
    with HttpClient("http://127.0.0.1:9/") as http:
        exchange.opened("api", http)
        throttle = throttle_of(http)
        throttle.inherit(5.0)
        throttle.adopt(5.0, 0.0)
        answered(throttle)
        store.paces.put([Pace("api", "http://127.0.0.1:9", "w2", 15.0)])
        until(lambda: throttle._main.pace.base == pytest.approx(10.0))
        change(store, "UPDATE pace SET seen_at = '2020-01-01 00:00:00.000000' WHERE worker = 'w2'")
        answered(throttle)
        until(lambda: throttle._main.pace.base == pytest.approx(20.0))

    exchange.close()
