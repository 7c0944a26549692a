"""One told rate limit as a state with pure steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import RateBudget
from clients.http.rate_limits.told_budget import MARGIN, ToldBudget, aligned_end


def sent(budget: ToldBudget, count: int) -> None:
    """Send so many requests."""
    for _ in range(count):
        budget.take(budget.sent + 1)


def test_what_was_sent_since_is_subtracted() -> None:
    """An answer says what was left when the remote side looked; three requests were sent after its own."""
    budget = ToldBudget()
    sent(budget, 4)
    budget.hear(RateBudget(remaining=5, limit=10, resets_in=9), 1, 0.0, in_flight=3)

    assert budget.left == 2

    sent(budget, 2)

    assert budget.wait(0.0, in_flight=5) > 0


def test_an_older_answer_says_nothing_new() -> None:
    """Answers overtake each other: the newest request's counts."""
    budget = ToldBudget()
    sent(budget, 2)
    budget.hear(RateBudget(remaining=3, resets_in=9), 2, 0.0, in_flight=1)
    budget.hear(RateBudget(remaining=4, resets_in=9), 1, 0.0, in_flight=0)

    assert budget.told == 3


def test_one_goes_first_until_windows_begin_on_time() -> None:
    """After the first announced end a single request finds out; after that all go at once."""
    budget = ToldBudget()
    sent(budget, 1)
    budget.hear(RateBudget(remaining=0, limit=10, resets_in=5), 1, 0.0, in_flight=0)

    assert budget.wait(4.0, in_flight=0) == pytest.approx(1 + MARGIN)

    assert budget.wait(5.1, in_flight=0) == 0

    sent(budget, 1)

    assert budget.wait(5.1, in_flight=1) == math.inf

    budget.hear(RateBudget(remaining=9, limit=10, resets_in=5), 2, 5.2, in_flight=0)
    sent(budget, 9)
    budget.hear(RateBudget(remaining=0, limit=10, resets_in=4), 11, 6.0, in_flight=0)

    assert budget.wait(10.5, in_flight=0) == 0

    sent(budget, 9)

    assert budget.wait(10.5, in_flight=9) == 0


def test_a_window_that_begins_late_is_known_to_from_then_on() -> None:
    """Whole seconds may be rounded down: the one that went first was refused, and the next windows are waited for longer."""
    budget = ToldBudget(is_aligned=False)
    sent(budget, 1)
    budget.hear(RateBudget(remaining=0, limit=10, resets_in=5), 1, 0.0, in_flight=0)
    budget.wait(5.1, in_flight=0)
    sent(budget, 1)
    budget.refused(2, 5.1)
    budget.hear(RateBudget(remaining=0, limit=10, resets_in=0), 2, 5.1, in_flight=0)

    assert 0.9 < budget.wait(5.1, in_flight=0) < 1.1


@pytest.mark.parametrize(
    ("told", "window", "expected"),
    [
        (None, 60, 20),
        (20.5, 60, 20),
        (20, 60, 20),
        (19, 60, 19),
        (45, 60, 45),
        (None, None, None),
        (7, None, 7),
        (None, 2.6e6, None),
    ],
)
def test_windows_begin_at_multiples_of_their_length(told: float | None, window: float | None, expected: float | None) -> None:
    """A minute may end when that of the remote clock does, if what is told in whole seconds fits to it."""
    assert aligned_end(RateBudget(remaining=0, resets_in=told, window=window), 1_780_000_000.0) == expected


def test_a_window_that_is_not_aligned_is_known_to_from_then_on() -> None:
    """A sliding minute: the one that went at the full minute was refused."""
    budget = ToldBudget()
    sent(budget, 1)
    budget.hear(RateBudget(remaining=0, limit=10, window=60), 1, 0.0, in_flight=0, remote_now=1_780_000_050.0)

    assert budget.wait(0.0, in_flight=0) == pytest.approx(30 + MARGIN)

    budget.wait(31.0, in_flight=0)
    sent(budget, 1)
    budget.refused(2, 31.0)
    budget.hear(RateBudget(remaining=0, limit=10, window=60), 2, 31.0, in_flight=0, remote_now=1_780_000_081.0)

    assert budget.wait(31.0, in_flight=0) == pytest.approx(60 + MARGIN)


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 40),
    length=st.floats(0.5, 20),
    threads=st.integers(1, 16),
    cost=st.integers(1, 5),
    late=st.floats(0, 1),
)
def test_one_client_alone_never_overdraws(limit: int, length: float, threads: int, cost: int, late: float) -> None:
    """Answers in order, a budget of any size: after the first answers at most what is left is sent, and no wait is endless."""
    budget, now, used, ends = ToldBudget(), 0.0, 0, length
    limit += cost * threads
    flying: list[tuple[float, int, float]] = []
    refused, done = 0, 0
    while done < 200:
        if flying and flying[0][0] <= now:
            _, number, remaining = flying.pop(0)
            if remaining < 0:
                refused += 1
                budget.refused(number, now)
            else:
                done += 1
            told = RateBudget(remaining=max(0.0, remaining), limit=limit, resets_in=max(0.0, ends - now))
            budget.hear(told, number, now, in_flight=len(flying))
            continue
        wait = budget.wait(now, in_flight=len(flying)) if len(flying) < threads else math.inf
        if wait > 0:
            assert wait < math.inf or flying
            now = min(now + wait, flying[0][0] if flying else math.inf)
            continue
        if now >= ends:
            ends, used = now - (now - ends) % length + length, 0
        used += cost if used + cost <= limit else 0
        budget.take(budget.sent + 1)
        over = used + cost > limit and limit - used < cost and budget.left < 0
        flying.append((now + 0.05 * (1 + late), budget.sent, limit - used if not over else -1.0))
        now += 0.001

    assert refused <= 0.1 * done + threads


def test_a_stale_answer_lets_one_go_where_others_are() -> None:
    """Of a budget that others use, an answer of a while ago says little: one request finds out what is left."""
    budget = ToldBudget()
    budget.share(2, 0)
    sent(budget, 1)
    budget.hear(RateBudget(remaining=50, limit=100, resets_in=9), 1, 0.0, in_flight=0)

    assert budget.wait(0.1, in_flight=0) == 0

    assert budget.left == 50

    assert budget.wait(1.0, in_flight=0) == 0

    sent(budget, 1)

    assert budget.wait(1.0, in_flight=1) > 0


def test_who_waits_for_an_answer_does_not_wait_for_the_window() -> None:
    """What is left may suffice when the answers under way are there: nobody gives up until the end of a long window."""
    budget = ToldBudget()
    budget.share(4, 0)
    sent(budget, 8)
    budget.hear(RateBudget(remaining=30, limit=100, resets_in=60), 1, 0.0, in_flight=7)

    assert budget.wait(0.0, in_flight=7) == math.inf
