"""Budgets are used and not overdrawn: clients against simulated APIs in virtual time, and threads that wait."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from clients import AuthRefusedError, HttpClient, RateLimitedError
from clients.http.rate_limits.learned_pace import LearnedPace
from clients.http.rate_limits.throttle import MAX_LINE, Permit, Throttle, blocks_others
from clients.http.rate_limits.throttle_scope import Kind
from clients.http.response import HttpResponse
from jobs.db.database import BUSY_TIMEOUT
from tests.clients.http.rate_limits.simulated_apis import (
    ITEM,
    PAGE,
    Admit,
    Headers,
    Window,
    bucket,
    delta_reset,
    epoch_reset,
    nothing,
    retry_after,
    simulate,
    windows,
)


def jobs(items: int = 500, pages: int = 5) -> list[Kind]:
    """Pages and their items."""
    return [kind for number in range(items) for kind in ([PAGE, ITEM] if number % (items // pages) == 0 else [ITEM])]


def by_name(one: Window, now: float) -> Headers:
    """Budgets that bear the name of their window."""
    name = {1.0: "Second", 60.0: "Minute"}[one.length]
    return {
        f"X-RateLimit-Limit-{name}": str(one.limit),
        f"X-RateLimit-Remaining-{name}": str(one.left),
        f"X-RateLimit-Reset-{name}": str(math.ceil(one.ends_in(now))),
    }


def ideal(api: Admit, work: list[Kind], begin: float, latency: float) -> float:
    """The time in which the budget lets so much in, whoever asks."""
    left = {kind: work.count(kind) for kind in set(work)}
    now = last = begin
    while any(left.values()):
        for kind in (PAGE, ITEM):
            while left[kind] and api(now, kind)[0]:
                left[kind] -= 1
                last = now
        now += 0.01
    return last - begin + latency


TOLD: dict[str, Callable[[], Admit]] = {
    "window": lambda: windows(Window(100, 5), tell=epoch_reset, refuse=retry_after, date=False),
    "a clock a minute ahead": lambda: windows(Window(100, 5, skew=60), tell=epoch_reset, refuse=retry_after),
    "a clock a minute behind": lambda: windows(Window(100, 5, skew=-60), tell=epoch_reset, refuse=retry_after),
    "seconds from now, from the first request": lambda: windows(
        Window(100, 5, aligned=False), tell=delta_reset, refuse=retry_after
    ),
    "a clock a minute ahead, without Date": lambda: windows(
        Window(100, 5, skew=60), tell=epoch_reset, refuse=retry_after, date=False
    ),
    "a clock a minute behind, without Date": lambda: windows(
        Window(100, 5, skew=-60), tell=epoch_reset, refuse=retry_after, date=False
    ),
    "five units for each request": lambda: windows(Window(500, 5, cost=5), tell=epoch_reset, refuse=retry_after),
    "two windows at once": lambda: windows(Window(30, 1), Window(600, 60), tell=by_name, refuse=retry_after),
    "windows of a second": lambda: windows(Window(20, 1), tell=epoch_reset, refuse=retry_after),
    "a bucket": lambda: bucket(25, 25, tell=True, retry=True),
    "each endpoint its own": lambda: windows(
        Window(5, 5, kinds=(PAGE,)), Window(100, 5, kinds=(ITEM,)), tell=epoch_reset, refuse=retry_after
    ),
    "each endpoint its own, of one size": lambda: windows(
        Window(100, 5, kinds=(PAGE,)), Window(100, 5, kinds=(ITEM,)), tell=epoch_reset, refuse=retry_after
    ),
}

UNTOLD: dict[str, Callable[[], Admit]] = {
    "Retry-After alone": lambda: windows(Window(100, 5), tell=nothing, refuse=retry_after, date=False),
    "429 without a header": lambda: windows(Window(100, 5), tell=nothing, refuse=nothing, date=False),
    "a bucket with Retry-After": lambda: bucket(25, 25, tell=False, retry=True),
    "a bucket without a header": lambda: bucket(25, 25, tell=False, retry=False),
    "a long window": lambda: windows(Window(150, 30), tell=nothing, refuse=retry_after),
}


@pytest.mark.parametrize("begin", [3.3, 0.2], ids=["within a window", "at its beginning"])
@pytest.mark.parametrize("name", TOLD)
def test_what_headers_tell_is_used_and_not_overdrawn(name: str, begin: float) -> None:
    """Where headers tell, nothing is refused, and the time is what the budget allows."""
    random.seed(7)
    work = jobs()
    found = simulate(TOLD[name](), work, begin=begin, jitter=lambda: random.random() * 0.02)

    assert found.answered == len(work)

    assert found.refused_share <= 0.01

    assert found.took <= 1.05 * ideal(TOLD[name](), work, begin, 0.05) + 0.5


@pytest.mark.parametrize("name", UNTOLD)
def test_the_pace_is_learned_from_refusals(name: str) -> None:
    """Where headers tell nothing, few requests are refused, and the time is near what the budget allows."""
    work = jobs()
    found = simulate(UNTOLD[name](), work, begin=1.7)

    assert found.answered == len(work)

    assert found.refused_share <= 0.05

    assert found.took <= 1.15 * ideal(UNTOLD[name](), work, 1.7, 0.05) + 0.5


@pytest.mark.parametrize("name", ["a bucket", "windows of a second", "two windows at once"])
def test_clients_that_know_of_each_other_share_small_budgets(name: str) -> None:
    """A budget that is smaller than all threads together: 32 threads for 20 requests a second."""
    random.seed(7)
    work = jobs()
    found = simulate(TOLD[name](), work, clients=4, begin=1.7, jitter=lambda: random.random() * 0.02, told_of_each_other=True)

    assert found.answered == len(work)

    assert found.refused_share <= 0.03

    # The first refusals, while nothing is known yet, pause for a second or two of these few.
    assert found.took <= 1.1 * ideal(TOLD[name](), work, 1.7, 0.05)


def test_who_comes_later_asks_once_first() -> None:
    """Others use the budget: the first answer tells what they have left, and until then nothing else is sent."""
    throttle = still()
    throttle.adopt(None, 0.0)
    first = throttle.attempt(ITEM)

    assert isinstance(first, Permit)

    assert throttle.attempt(ITEM) == math.inf

    throttle.answered(first, answer(x_ratelimit_remaining="50", x_ratelimit_reset="4"))

    assert isinstance(throttle.attempt(ITEM), Permit)


@pytest.mark.parametrize("name", ["window", "five units for each request", "a clock a minute ahead"])
def test_equal_clients_share_without_asking_each_other(name: str) -> None:
    """What others take shows as a cost, so that four clients of eight threads each share one budget."""
    random.seed(7)
    work = jobs()
    found = simulate(TOLD[name](), work, clients=4, begin=1.7, jitter=lambda: random.random() * 0.02)

    assert found.answered == len(work)

    assert found.refused_share <= 0.03

    assert found.took <= 1.05 * ideal(TOLD[name](), work, 1.7, 0.05)

    assert min(found.by_client) > 0.5 * len(work) / 4


def answer(status: int = 200, **headers: str) -> HttpResponse:
    """An answer with these headers."""
    return HttpResponse(status, [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()], b"")


def still() -> Throttle:
    """A throttle whose clock stands still, so that what it says does not depend on the machine; who waits, waits for others."""
    return Throttle(clock=lambda: 100.0, wall=lambda: 1_900_000_000.0)


def until_waits(throttle: Throttle) -> None:
    """Wait until a thread waits for its turn."""
    waits = throttle._changed._waiters  # type: ignore[attr-defined]  # typeshed does not know them
    while not waits:
        time.sleep(0.005)


def acquire(throttle: Throttle, kind: Kind = ITEM) -> Permit:
    """Wait for a permit."""
    return throttle.acquire(kind, method="GET", url="http://h/a")


def test_an_operation_holds_back_itself() -> None:
    """A used up budget of one operation, told with each answer, holds back only requests that were seen to use it."""
    throttle = Throttle(clock=lambda: 100.0)
    join: Kind = ("POST", "/call", 3)

    def told(status: int, api: int, joins: int, kind: Kind) -> None:
        permit = throttle.attempt(kind)
        assert isinstance(permit, Permit)
        left = {"ratelimit-remaining-api": str(api), "ratelimit-remaining-call_join": str(joins)}
        resets = {"ratelimit-reset-api": "60", "ratelimit-reset-call_join": "587"}
        throttle.answered(permit, answer(status, **left, **resets))

    told(200, 60, 0, ITEM)
    told(200, 59, 0, ITEM)

    assert isinstance(throttle.attempt(ITEM), Permit)

    told(429, 58, 0, join)

    assert throttle.attempt(join) == pytest.approx(587, abs=0.1)

    assert isinstance(throttle.attempt(PAGE), Permit)

    with pytest.raises(RateLimitedError, match="for such requests") as caught:
        acquire(throttle, join)

    assert not caught.value.whole


def test_a_budget_of_all_asks_the_whole_client_to_wait() -> None:
    """The only budget is used up for a minute: that is so for every request."""
    throttle = still()
    throttle.answered(acquire(throttle), answer(x_ratelimit_remaining="0", x_ratelimit_reset="60"))
    with pytest.raises(RateLimitedError) as caught:
        acquire(throttle, PAGE)

    assert caught.value.whole

    assert caught.value.retry_after == pytest.approx(60, abs=0.5)


def test_who_keeps_others_waiting_waits_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget that is full again in 4 s: a caller that holds an open transaction is refused at once, and the client goes on."""
    throttle = still()
    throttle.answered(acquire(throttle), answer(x_ratelimit_remaining="0", x_ratelimit_reset="4"))
    token = blocks_others.set(lambda: True)
    # One that waited would wait for ever.
    monkeypatch.setattr(throttle._changed, "wait", lambda seconds: pytest.fail(f"it waits for {seconds} s"))
    try:
        with pytest.raises(RateLimitedError) as caught:
            acquire(throttle)
    finally:
        blocks_others.reset(token)

    assert not caught.value.whole

    assert caught.value.retry_after == pytest.approx(4, abs=0.5)


def test_line_and_head_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who came to the head late has no second time to wait: all waits together stay below what writers of SQLite wait."""
    assert MAX_LINE < BUSY_TIMEOUT
    monkeypatch.setattr("clients.http.rate_limits.throttle.MAX_LINE", 0.002)
    # Its four seconds take 400, the longest wait a fifth of one.
    throttle = Throttle(clock=lambda: time.monotonic() / 100)
    throttle.answered(acquire(throttle), answer(x_ratelimit_remaining="0", x_ratelimit_reset="4"))
    began, ended = time.monotonic(), list[float]()

    def wait() -> None:
        with pytest.raises(RateLimitedError):
            acquire(throttle)
        ended.append(time.monotonic() - began)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ended) == 4

    assert max(ended) < 60


@pytest.mark.parametrize("headers", [{"retry_after": "600"}, {"x_ratelimit_remaining": "0", "x_ratelimit_reset": "600"}])
def test_a_forgotten_refusal_lets_one_request_ask(headers: dict[str, str]) -> None:
    """A person has ended the pause: one request finds out, and the others wait for its answer."""
    throttle = still()
    throttle.answered(acquire(throttle), answer(429, **headers))
    throttle.forget_refusals()
    first = acquire(throttle)

    assert throttle.attempt(ITEM) == math.inf

    throttle.answered(first, answer())

    assert isinstance(throttle.attempt(ITEM), Permit)


def test_a_short_wait_is_not_forgotten() -> None:
    """A budget that is full again in 3 s is used up all the same."""
    throttle = still()
    throttle.answered(acquire(throttle), answer(x_ratelimit_remaining="0", x_ratelimit_reset="3"))
    throttle.forget_refusals()
    left = throttle.attempt(ITEM)

    assert isinstance(left, float)
    assert 1 < left < 5


def test_what_another_thread_is_told_is_not_forgotten() -> None:
    """A thread that waits for a short time learns that it has become a long one."""
    throttle = still()
    first, second = acquire(throttle), acquire(throttle)
    throttle.answered(first, answer(x_ratelimit_remaining="0", x_ratelimit_reset="3"))
    errors: list[Exception] = []

    def wait() -> None:
        try:
            acquire(throttle)
        except RateLimitedError as error:
            errors.append(error)

    sleeper = threading.Thread(target=wait)
    sleeper.start()
    until_waits(throttle)
    throttle.answered(second, answer(429, retry_after="60"))
    sleeper.join()

    assert "nothing was sent" in str(errors[0])


def test_a_stop_ends_waits() -> None:
    """Whoever waits gives up at once when the process is to end, and says for how long the budget is used up."""
    throttle = still()
    throttle.answered(acquire(throttle), answer(x_ratelimit_remaining="0", x_ratelimit_reset="4"))
    errors: list[RateLimitedError] = []

    def wait() -> None:
        try:
            acquire(throttle)
        except RateLimitedError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    until_waits(throttle)
    throttle.stop()
    for thread in threads:
        thread.join()

    assert len(errors) == 3

    assert all(1 < (error.retry_after or 0) <= 4.1 for error in errors)


def test_a_request_without_an_answer_gives_its_place_back() -> None:
    """The only request that may find out whether more are let in got no answer: the next one goes."""
    throttle = still()
    throttle.answered(acquire(throttle), answer(x_ratelimit_remaining="1"))
    lost = acquire(throttle)

    assert throttle.attempt(ITEM) == math.inf

    throttle.failed(lost)

    assert isinstance(throttle.attempt(ITEM), Permit)


def test_a_retry_after_on_every_answer_makes_no_refusal_a_rate_limit(serve: Callable[..., Any]) -> None:
    """FreshBooks sends `Retry-After` with good answers, too: its 403 is a refusal, and its 429 still a rate limit."""
    statuses = iter([403, 200, 403, 429])
    server = serve(lambda seen: (next(statuses), {"Retry-After": "7"}, {}))
    with HttpClient(server.url) as http:
        with pytest.raises(RateLimitedError):
            http.get_json("a")
        throttle = next(iter(http.throttles.values()))
        throttle._main.blocked_until = 0.0
        throttle._main.pace = LearnedPace()
        http.get_json("b")
        with pytest.raises(AuthRefusedError):
            http.get_json("a")
        with pytest.raises(RateLimitedError) as caught:
            http.get_json("a")

    assert caught.value.retry_after == 7


def test_budgets_of_other_resources_do_not_bind() -> None:
    """GitHub's search is used up, as the answers to searches say; what is told for others goes on."""
    throttle = still()
    search: Kind = ("GET", "/search", 3)
    throttle.answered(acquire(throttle), answer(x_ratelimit_remaining="59", x_ratelimit_resource="core", x_ratelimit_reset="60"))
    throttle.answered(
        acquire(throttle, search), answer(x_ratelimit_remaining="0", x_ratelimit_resource="search", x_ratelimit_reset="60")
    )

    assert isinstance(throttle.attempt(ITEM), Permit)

    assert throttle.attempt(search) == pytest.approx(60, abs=0.5)


def test_where_nothing_is_told_nothing_is_held_back() -> None:
    """A thousand requests that tell nothing are let through, at a few microseconds each."""
    throttle, plain = Throttle(), answer(content_type="application/json", date="x", content_length="17")
    began = time.thread_time()
    for _ in range(10_000):
        throttle.answered(acquire(throttle), plain)

    assert (time.thread_time() - began) / 10_000 < 30e-6
