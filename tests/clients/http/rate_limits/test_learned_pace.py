"""The learned pace as a state with pure steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.http.rate_limits.learned_pace import FORGETTING, LONGEST_GUESS, LearnedPace


def refused_after(let_in: int, seconds: float, *, retry_after: float | None = None) -> LearnedPace:
    """Return a pace after so many answers and a refusal."""
    pace = LearnedPace()
    for number in range(1, let_in + 1):
        pace.answered(number, number * 0.001)
    pace.refused(let_in + 1, let_in + 1, seconds, retry_after=retry_after)
    return pace


def test_nothing_is_known_of_a_refusal_before_anything_was_let_in() -> None:
    """The first request of all is refused without a word: that may be anything, and the client's policy decides."""
    assert LearnedPace().refused(1, 1, 0.0, retry_after=None) is None


def test_guesses_grow() -> None:
    """A refusal that does not say for how long is asked again after 1 s, then ever later, and never later than a minute."""
    pace = refused_after(10, 1.0)
    waits = [pace.refused(number, number, 10.0 * number, retry_after=None) for number in range(20, 40)]

    assert waits[:3] == [1.5, 2.25, 3.375]

    assert waits[-1] == LONGEST_GUESS


def test_what_we_wait_longer_makes_the_pace_no_lower() -> None:
    """The end of a pause is seen a second late by some processes: the API would have let requests in meanwhile."""
    prompt, late = refused_after(100, 0.7, retry_after=4.3), refused_after(100, 0.7, retry_after=4.3)
    prompt.answered(102, 5.0)
    late.answered(102, 6.5)

    assert late.rate(6.5) == pytest.approx(prompt.rate(5.0), rel=0.02)


def test_refusals_of_requests_that_were_under_way_are_one() -> None:
    """Eight threads are refused at once: that is one refusal, and one of them finds out when it is over."""
    pace = refused_after(10, 1.0)
    pace._number = 18
    waits = {pace.refused(number, 18, 1.0, retry_after=None) for number in range(12, 19)}

    assert waits == {1.0}

    assert pace.wait(2.0, in_flight=0) == 0

    assert pace.wait(2.0, in_flight=1) == math.inf


def test_the_pace_is_what_was_let_in() -> None:
    """A hundred in five seconds: twenty a second, evenly, with a little to make up for."""
    pace = refused_after(100, 0.7, retry_after=4.3)
    pace.answered(102, 5.0)

    assert pace.rate(5.0) == pytest.approx(20, rel=0.02)

    taken = 0
    for step in range(1000):
        now = 5.0 + step * 0.002
        if pace.wait(now, in_flight=0) <= 0:
            pace.take(now)
            taken += 1

    assert 38 <= taken <= 50


@pytest.mark.parametrize(("told", "reached"), [(None, 20.0), (1.0, 4.9)])
def test_a_pace_after_a_guess_is_looked_for_quickly(told: float | None, reached: float) -> None:
    """A bucket of 20 a second with room for 5 has had room for the next one long before a guess of a second was over.

    How much of the second was too much is unknown, so that the pace rises by that much and no further; not if it was told.
    """
    pace = LearnedPace()
    for number in range(1, 7):
        pace.answered(number, number * 0.05)
    pace.refused(7, 7, 0.36, retry_after=told)
    pace.answered(8, 1.37)

    assert pace.rate(1.37) == pytest.approx(6 / 1.32, rel=0.01)

    assert pace.rate(1.37 + 4) == pytest.approx(reached, rel=0.1)

    # Found once, it is kept: the next refusal costs 5 %.
    pace.since = pace.counting_at = 0.0
    pace.let_in, pace._number, before = 100, 10, pace.rate(10.0)
    pace.refused(11, 11, 10.0, retry_after=None)
    pace.answered(12, 11.0)

    assert pace.rate(15.0) == pytest.approx(max(0.95 * before, 100 / 11), rel=0.05)


def test_a_pace_a_little_too_high_is_lowered_a_little() -> None:
    """One refusal after a long time at our own pace costs 5 %, whatever was waited for too long."""
    pace = LearnedPace(base=20.0, since=0.0, let_in=200, counting_at=0.0, ever=True, last_at=9.9)
    before = pace.rate(10.0)
    pace.refused(5, 5, 10.0, retry_after=1.0)
    pace.answered(6, 11.1)

    assert 0.94 * before <= pace.rate(11.1) < before


@given(base=st.floats(0.01, 1000), age=st.floats(0, 10_000), is_found=st.booleans())
def test_it_is_forgotten_slowly(base: float, age: float, is_found: bool) -> None:
    """The pace only rises while nothing is refused: a quarter in the first half minute where it was found, later quickly."""
    pace = LearnedPace(base=base, since=100.0, is_found=is_found)

    assert pace.rate(100.0 + age) <= pace.rate(101.0 + age)

    if is_found and age <= 30:
        assert pace.rate(100.0 + age) <= 1.3 * base

    if age > 5 * FORGETTING:
        assert pace.rate(100.0 + age) > 100 * base


@given(
    events=st.lists(
        st.tuples(st.booleans(), st.floats(0, 30), st.none() | st.floats(0, 100), st.integers(0, 8)), min_size=1, max_size=60
    )
)
def test_no_wait_is_endless(events: list[tuple[bool, float, float | None, int]]) -> None:
    """Whatever comes, the next request may be sent after what the last refusal asked for, or a minute."""
    pace, now, longest = LearnedPace(), 0.0, LONGEST_GUESS
    for number, (is_good, passed, asked, behind) in enumerate(events, 1):
        now += passed
        if is_good:
            pace.answered(number, now)
        else:
            pace.refused(number, number + behind, now, retry_after=asked)
            longest = max(longest, asked or 0.0)

        assert 0 <= pace.wait(now, in_flight=0) <= longest + 0.001


def test_a_refusal_that_others_pass_by_teaches_nothing() -> None:
    """Eight were under way, the second of them was refused, and those sent after it were let in: it was about that one thing."""
    pace = refused_after(20, 0.1)
    pace._number = 28
    for number in range(22, 29):
        pace.answered(number, 0.12)
    pace.answered(29, 1.2)

    assert pace.rate(1.2) == 0
    assert pace.wait(1.2, in_flight=3) == 0

    # If another one is refused meanwhile, it was the number of requests.
    pace = refused_after(20, 0.1)
    pace._number = 28
    for number in range(22, 28):
        pace.answered(number, 0.12)
    pace.refused(28, 28, 0.13, retry_after=None)
    pace.answered(29, 1.2)

    assert pace.rate(1.2) > 0
