"""jobs.pause: pauses are rows that the claim reads."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from kit import HandClock, change, enqueue, query, take

from jobs import JobStore
from jobs.pause import Mood, after_answers

T, F = True, False


@pytest.mark.parametrize(
    ("mood", "troubles", "expected"),
    [
        (Mood(0, 0), [], (Mood(0, 0), F)),
        (Mood(2, 1), [], (Mood(2, 1), F)),
        (Mood(0, 0), [T, T], (Mood(2, 0), F)),
        (Mood(0, 0), [T, T, T], (Mood(0, 0), T)),
        (Mood(2, 1), [T], (Mood(0, 1), T)),
        (Mood(2, 3), [F], (Mood(0, 0), F)),
        (Mood(2, 3), [F, T], (Mood(1, 0), F)),
        (Mood(0, 2), [T, T, F, T, T], (Mood(2, 0), F)),
        # A success after the trouble says that the client is well again.
        (Mood(0, 2), [T, T, T, F], (Mood(0, 0), F)),
        (Mood(0, 2), [T, T, T, F, T], (Mood(1, 0), F)),
        (Mood(0, 2), [F, T, T, T], (Mood(0, 0), T)),
        (Mood(0, 0), [T] * 20, (Mood(0, 0), T)),
    ],
)
def test_trouble_adds_up(mood: Mood, troubles: list[bool], expected: tuple[Mood, bool]) -> None:
    """Three troubles in a row pause; a success forgets them and the level."""
    assert after_answers(mood, troubles, after=3) == expected


def hear(store: JobStore, *troubles: bool) -> Any:
    """Take note of answers."""
    return store.hear("api", troubles, after=3, durations=[10, 60, 600], reason="timeouts", set_by="w")


def end(store: JobStore) -> None:
    """Let the pause have ended by the clock."""
    change(store, "UPDATE pause SET until = '2000-01-01 00:00:00.000000+00' WHERE ended_at IS NULL")


def test_each_pause_in_a_row_is_longer(store: JobStore) -> None:
    """The level rises with each pause, its last duration serves all higher ones, and a success forgets it."""
    lengths = []
    for _ in range(4):
        found = hear(store, T, T, T)
        lengths.append(round((found.until - found.started_at).total_seconds()))
        assert (found.cause, found.reason) == ("level", "timeouts")
        end(store)
    assert lengths == [10, 60, 600, 600]
    assert hear(store, F) is None
    found = hear(store, T, T, T)
    assert round((found.until - found.started_at).total_seconds()) == 10


def test_trouble_counts_over_batches(store: JobStore) -> None:
    """What one batch began another ends."""
    assert hear(store, T, T) is None
    assert hear(store, T) is not None


def test_answers_during_a_pause_are_no_further_trouble(store: JobStore) -> None:
    """What was under way when the pause began neither lengthens it nor raises the level."""
    first = hear(store, T, T, T)
    assert hear(store, T, T, T) is None
    assert store.paused("api") == first
    end(store)
    second = hear(store, T, T, T)
    assert (first.level, second.level) == (1, 2)


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(3600, 60, 3600), (60, 3600, 3600), (None, 60, None), (60, None, None)]
)
def test_the_longer_pause_stays(store: JobStore, first: float | None, second: float | None, expected: float | None) -> None:
    """A short pause does not shorten a long one; waiting for a person is the longest."""
    store.pause("api", first, cause="asked", reason="one", set_by="w")
    found = store.pause("api", second, cause="asked", reason="two", set_by="w")
    if expected is None:
        assert found.until is None
    else:
        assert found.until is not None
        assert expected - 5 < (found.until - store.now()).total_seconds() <= expected
    assert query(store, "SELECT count(*) AS n FROM pause WHERE ended_at IS NULL") == [{"n": 1}]
    assert store.paused("api") == found
    assert store.pauses() == [found]


def test_a_pause_until_a_moment(store: JobStore) -> None:
    """A moment is kept as it is, in UTC."""
    moment = store.now() + timedelta(hours=3, microseconds=1)
    found = store.pause("api", moment, cause="asked", reason="", set_by="w")
    assert found.until == moment
    assert found.started_at < moment


@pytest.mark.parametrize("seconds", [1e15, 1e300])
def test_a_pause_of_any_length(store: JobStore, seconds: float) -> None:
    """A server may ask for any wait."""
    found = store.pause("api", seconds, cause="asked", reason="", set_by="w")
    assert found.until is not None
    assert found.until - store.now() > timedelta(days=3000)


def test_resume_ends_the_pause_and_counts(store: JobStore) -> None:
    """A resume by hand ends it at once, forgets the level and bumps the generation."""
    assert not store.resume("api", by="me")
    hear(store, T, T, T)
    assert store.resume("api", by="me")
    assert store.paused("api") is None
    assert store.pauses() == []
    assert query(store, "SELECT errors, level, generation FROM client") == [{"errors": 0, "level": 0, "generation": 2}]
    assert query(store, "SELECT ended_by FROM pause") == [{"ended_by": "me"}]


def test_pauses_are_of_one_client(store: JobStore) -> None:
    """Another client's pause is no matter."""
    store.pause("api", 60, cause="asked", reason="", set_by="w")
    store.pause("b", None, cause="person", reason="", set_by="w")
    assert store.paused("c") is None
    assert [one.client for one in store.pauses()] == ["api", "b"]
    store.resume("b", by="me")
    assert [one.client for one in store.pauses()] == ["api"]


def test_a_pause_is_over_at_its_end(tmp_path: Any) -> None:
    """By the clock, to the moment, with nobody about."""
    clock = HandClock()
    store = JobStore.open(f"sqlite:///{tmp_path}/a.db", clock=clock)
    enqueue(store, ["a"])
    store.pause("api", 60, cause="asked", reason="", set_by="w")
    clock.forward(59.999)
    assert take(store) == []
    clock.forward(0.001)
    assert store.paused("api") is None
    assert len(take(store)) == 1
    store.close()


def test_pausing_resuming_and_hearing_at_once(store: JobStore) -> None:
    """Workers and people may all act on one client at the same moment; at most one pause is open."""
    errors: list[BaseException] = []

    def act(number: int) -> None:
        try:
            for turn in range(25):
                if (number + turn) % 3 == 0:
                    store.pause("api", 5, cause="asked", reason="", set_by="w")
                elif (number + turn) % 3 == 1:
                    store.resume("api", by="me")
                else:
                    hear(store, T, T, T)
        except BaseException as error:  # noqa: BLE001  # the test must see it
            errors.append(error)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert query(store, "SELECT count(*) AS n FROM pause WHERE ended_at IS NULL")[0]["n"] <= 1
