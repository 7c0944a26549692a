"""jobs.pauses.pause: pauses are rows that the claim reads."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jobs import JobStore, NaiveTime
from jobs.pauses.pause import ClientState
from jobs.pauses.pause_length import ErrorCount, after_answers
from tests.support.store_helpers import LANE, ManualClock, change, end_probe, enqueue, probe, query, run_out, take

T, F = True, False


@pytest.mark.parametrize(
    ("error_count", "troubles", "expected"),
    [
        (ErrorCount(0, 0), [], (ErrorCount(0, 0), F)),
        (ErrorCount(2, 1), [], (ErrorCount(2, 1), F)),
        (ErrorCount(0, 0), [T, T], (ErrorCount(2, 0), F)),
        (ErrorCount(0, 0), [T, T, T], (ErrorCount(0, 0), T)),
        (ErrorCount(2, 1), [T], (ErrorCount(0, 1), T)),
        (ErrorCount(2, 3), [F], (ErrorCount(0, 0), F)),
        (ErrorCount(2, 3), [F, T], (ErrorCount(1, 0), F)),
        (ErrorCount(0, 2), [T, T, F, T, T], (ErrorCount(2, 0), F)),
        # A success after the trouble says that the client is well again.
        (ErrorCount(0, 2), [T, T, T, F], (ErrorCount(0, 0), F)),
        (ErrorCount(0, 2), [T, T, T, F, T], (ErrorCount(1, 0), F)),
        (ErrorCount(0, 2), [F, T, T, T], (ErrorCount(0, 0), T)),
        (ErrorCount(0, 0), [T] * 20, (ErrorCount(0, 0), T)),
    ],
)
def test_trouble_adds_up(error_count: ErrorCount, troubles: list[bool], expected: tuple[ErrorCount, bool]) -> None:
    """Three troubles in a row pause; a success forgets them and the level."""
    assert after_answers(error_count, troubles, after=3) == expected


def hear(store: JobStore, *troubles: bool, generation: int | None = None) -> Any:
    """Take note of answers."""
    return store.pauses.record_answers(
        "api", troubles, after=3, durations=[10, 60, 600], reason="timeouts", set_by="w", generation=generation
    )


def pause(store: JobStore, when: Any = 60, **options: Any) -> Any:
    """Pause."""
    return store.pauses.open("api", when, **{"cause": "asked", "reason": "", "set_by": "w", **options})


def client(store: JobStore) -> tuple[int, int, int]:
    """Return errors, level and generation."""
    (found,) = query(store, "SELECT errors, level, generation FROM client WHERE id = 'api'")
    return found["errors"], found["level"], found["generation"]


@pytest.mark.rows("SC-16")
def test_trouble_counts_over_batches(store: JobStore) -> None:
    """What one batch began another ends, and a success in between forgets it."""
    assert hear(store, T, T) is None
    assert hear(store, F) is None
    assert hear(store, T, T) is None
    found = hear(store, T)
    assert found.is_new
    assert (found.cause, found.reason, found.set_by, found.level) == ("level", "timeouts", "w", 1)
    assert round((found.until - found.started_at).total_seconds()) == 10


@pytest.mark.rows("SC-20")
def test_a_success_forgets_the_level(store: JobStore) -> None:
    """After a pause of level 3 and its probe it is 2; with the next success it is 0, and the next pause is a short one."""
    for _ in range(3):
        hear(store, T, T, T)
        run_out(store)
        end_probe(store, probe(store), True)
        change(store, "UPDATE client SET level = level + 1")
    assert client(store)[:2] == (0, 3)
    assert hear(store, T, T, T).level == 4
    run_out(store)
    assert end_probe(store, probe(store), True)
    assert client(store)[:2] == (0, 3)
    assert hear(store, F) is None
    assert client(store)[:2] == (0, 0)
    found = hear(store, T, T, T)
    assert round((found.until - found.started_at).total_seconds()) == 10


@pytest.mark.rows("E-92")
def test_answers_during_a_pause_are_no_further_trouble(store: JobStore) -> None:
    """What was under way when the pause began neither lengthens it nor raises the level; nor later, before the probe."""
    first = hear(store, T, T, T)
    assert hear(store, T, T, T) is None
    assert hear(store, F) is None
    assert store.pauses.current("api") == first
    run_out(store)
    assert hear(store, T, T, T) is None
    assert hear(store, F) is None
    assert client(store)[:2] == (0, 1)


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(3600, 60, 3600), (60, 3600, 3600), (None, 60, None), (60, None, None)]
)
def test_the_longer_pause_stays(store: JobStore, first: float | None, second: float | None, expected: float | None) -> None:
    """A short pause does not shorten a long one; waiting for a person is the longest."""
    store.pauses.open("api", first, cause="asked", reason="one", set_by="w")
    found = store.pauses.open("api", second, cause="asked", reason="two", set_by="w")
    if expected is None:
        assert found.until is None
    else:
        assert found.until is not None
        assert expected - 5 < (found.until - store.views.now()).total_seconds() <= expected
    assert query(store, "SELECT count(*) AS n FROM pause WHERE ended_at IS NULL") == [{"n": 1}]
    assert store.pauses.current("api") == found
    assert store.pauses.in_force() == [found]


@pytest.mark.parametrize(("person", "api", "expected"), [(60, 3600, 3600), (3600, 60, 3600), (None, 60, None), (60, None, None)])
def test_a_person_and_the_longer_pause(store: JobStore, person: float | None, api: float | None, expected: float | None) -> None:
    """A person's pause takes the place of any other, so that it shows; but nobody makes a pause shorter but by a resume."""
    before = pause(store, api)
    found = pause(store, person, cause="person", reason="we move", set_by="ada")
    assert found.is_new
    assert (found.cause, found.reason, found.set_by) == ("person", "we move", "ada")
    ends = [one.ended_by for one in store.pause_history.latest("api")]
    assert ends == [None, "ada"]
    assert (found.until is None) == (expected is None)
    if expected == api:
        assert found.until == before.until


def test_a_pause_that_is_there_is_not_begun_again(store: JobStore) -> None:
    """Any number of processes may write down one window: one row, one generation, and one of them tells of it."""
    end = store.views.now() + timedelta(hours=2)
    found = [pause(store, end, cause="window", set_by=f"w{number}") for number in range(5)]
    assert [one.is_new for one in found] == [True, False, False, False, False]
    assert len({one.id for one in found}) == 1
    assert {one.set_by for one in found} == {"w0"}
    assert client(store) == (0, 0, 1)
    # What ends before it is part of it, what ends later goes on after it.
    assert not pause(store, 60, cause="enforced").is_new
    later = pause(store, end + timedelta(seconds=1), cause="enforced")
    assert later.is_new
    assert [(one.cause, one.ended_by) for one in store.pause_history.latest()] == [("enforced", None), ("window", "enforced")]


@pytest.mark.rows("M8", "SC-20")
def test_a_resume_by_hand_cannot_be_undone_by_a_late_answer(store: JobStore) -> None:
    """An answer counts in the generation in which its request began; every pause, resume and reopening begins a new one."""
    began = store.pauses.state("api").generation
    assert began == 0
    assert pause(store, 60, generation=began).is_new
    assert store.pauses.resume("api", by="ada")
    assert pause(store, None, cause="enforced", generation=began) is None
    assert hear(store, T, T, T, generation=began) is None
    assert store.pauses.state("api") == ClientState(2)
    assert client(store) == (0, 0, 2)
    # What begins after the resume counts again.
    assert hear(store, T, T, T, generation=2).is_new
    assert store.pauses.state("api").generation == 3


@pytest.mark.rows("M8")
def test_a_resume_counts_also_before_the_first_pause(store: JobStore) -> None:
    """Who resumes a client that nobody has paused yet means the pause that is about to come."""
    assert not store.pauses.resume("api", by="ada")
    assert pause(store, 60, cause="enforced", generation=0) is None
    assert store.pauses.current("api") is None


def test_a_late_answer_hears_of_the_pause(store: JobStore) -> None:
    """During a pause a late answer learns of it, and changes nothing; after its end it learns nothing."""
    first = pause(store, 60, generation=0)
    second = pause(store, 3600, cause="enforced", generation=0)
    assert second == first
    assert not second.is_new
    run_out(store)
    assert pause(store, 3600, cause="enforced", generation=0) is None
    assert client(store) == (0, 0, 1)


@pytest.mark.rows("M8")
def test_generations_of_reopening(store: JobStore) -> None:
    """An answer to a request from before the pause is late after the probe, too, and takes back neither trouble nor success."""
    hear(store, T, T, T, generation=0)
    run_out(store)
    of = probe(store)
    assert of.generation == 1
    assert end_probe(store, of, True)
    assert store.pauses.state("api") == ClientState(2)
    for late in (0, 1):
        assert hear(store, T, T, T, generation=late) is None
        assert pause(store, 60, generation=late) is None
    assert hear(store, T, T, generation=2) is None
    assert hear(store, F, generation=1) is None
    assert client(store) == (2, 0, 2)


def test_standing(store: JobStore) -> None:
    """Open, paused, reopening, open."""
    assert store.pauses.state("api") == ClientState(0)
    found = pause(store, 60, cause="enforced", reason="401")
    assert store.pauses.state("api") == ClientState(1, pausing=found)
    assert store.pauses.state("b") == ClientState(0)
    run_out(store)
    standing = store.pauses.state("api")
    assert (standing.generation, standing.pausing) == (1, None)
    assert standing.reopening is not None
    assert (standing.reopening.id, standing.reopening.cause, standing.reopening.reason) == (found.id, "enforced", "401")
    store.pauses.resume("api", by="me")
    assert store.pauses.state("api") == ClientState(2)


def test_history(store: JobStore) -> None:
    """Every pause with who, why, from, until, its end and its probes, the newest first."""
    hear(store, T, T, T)
    run_out(store)
    assert store.pause_history.latest()[0].state == "reopening"
    of = probe(store)
    assert store.pause_history.latest()[0].state == "probing"
    end_probe(store, of, False, reason="still 503")
    run_out(store)
    end_probe(store, probe(store), None)
    end_probe(store, probe(store), True)
    store.pauses.open("b", None, cause="person", reason="we move", set_by="ada")
    b, second, first = store.pause_history.latest()
    assert (first.client, first.state, first.cause, first.reason, first.level, first.set_by) == (
        "api", "ended", "level", "timeouts", 1, "w",
    )  # fmt: skip
    assert (first.ended_by, first.probes) == ("level", 1)
    assert (second.level, second.reason, second.ended_by, second.probes) == (2, "still 503", "probe", 2)
    assert second.ended_at is not None
    assert (b.state, b.until, b.ended_at, b.probes) == ("paused", None, None, 0)
    assert [one.id for one in store.pause_history.latest("api")] == [second.id, first.id]
    assert store.pause_history.latest(limit=1) == [b]
    assert store.pause_history.latest("none") == []


def test_a_pause_until_a_moment(store: JobStore) -> None:
    """A moment is kept as it is, in UTC."""
    moment = store.views.now() + timedelta(hours=3, microseconds=1)
    found = store.pauses.open("api", moment, cause="asked", reason="", set_by="w")
    assert found.until == moment
    assert found.started_at < moment


@pytest.mark.parametrize("seconds", [1e15, 1e300])
def test_a_pause_of_any_length(store: JobStore, seconds: float) -> None:
    """A server may ask for any wait."""
    found = store.pauses.open("api", seconds, cause="asked", reason="", set_by="w")
    assert found.until is not None
    assert found.until - store.views.now() > timedelta(days=3000)


@pytest.mark.rows("SC-20")
def test_resume_ends_the_pause_and_counts(store: JobStore) -> None:
    """A resume by hand ends it at once, also one that waits for its probe, forgets the level and begins a generation."""
    hear(store, T, T, T)
    assert store.pauses.resume("api", by="me")
    assert store.pauses.current("api") is None
    assert store.pauses.in_force() == []
    assert client(store) == (0, 0, 2)
    assert query(store, "SELECT ended_by FROM pause") == [{"ended_by": "me"}]
    assert not store.pauses.resume("api", by="me")
    hear(store, T, T, T)
    run_out(store)
    assert store.pauses.resume("api", by="me")
    assert store.pauses.state("api") == ClientState(5)


def test_a_moment_without_a_zone_is_refused(store: JobStore) -> None:
    """Also where a pause is in force or probed, and nothing changes (law 13)."""
    naive = (store.views.now() + timedelta(hours=1)).replace(tzinfo=None)
    for _ in range(2):
        with pytest.raises(NaiveTime):
            pause(store, naive)
        pause(store, 60)
    run_out(store)
    of = probe(store)
    with pytest.raises(NaiveTime):
        end_probe(store, of, False, when=naive)
    assert client(store) == (0, 0, 2)


def test_pauses_are_of_one_client(store: JobStore) -> None:
    """Another client's pause is no matter."""
    store.pauses.open("api", 60, cause="asked", reason="", set_by="w")
    store.pauses.open("b", None, cause="person", reason="", set_by="w")
    assert store.pauses.current("c") is None
    assert [one.client for one in store.pauses.in_force()] == ["api", "b"]
    store.pauses.resume("b", by="me")
    assert [one.client for one in store.pauses.in_force()] == ["api"]


@pytest.mark.rows("SC-20", "M8")
def test_a_pause_is_over_at_its_end(tmp_path: Any) -> None:
    """By the clock, to the moment, with nobody about: before it no probe, from it on one."""
    clock = ManualClock()
    store = JobStore.open(f"sqlite:///{tmp_path}/a.db", clock=clock)
    enqueue(store, ["a"])
    store.pauses.open("api", 60, cause="asked", reason="", set_by="w")
    clock.forward(59.999)
    assert take(store) == []
    assert store.probes.due() == []
    assert store.probes.begin("api", worker="w", lease=60) is None
    clock.forward(0.001)
    assert store.pauses.current("api") is None
    assert [one.client for one in store.probes.due()] == ["api"]
    of = probe(store, lease=60)
    assert len(store.probes.claim_job(of, [LANE], worker="w", lease=60)) == 1
    store.close()


def test_pausing_resuming_and_hearing_at_once(store: JobStore) -> None:
    """Workers, probes and people may all act on one client at the same moment; at most one pause is open."""
    errors: list[BaseException] = []

    def act(number: int) -> None:
        try:
            for turn in range(25):
                kind = (number + turn) % 4
                if kind == 0:
                    store.pauses.open("api", turn % 2, cause="asked", reason="", set_by="w")
                elif kind == 1:
                    store.pauses.resume("api", by="me")
                elif kind == 2:
                    hear(store, T, T, T)
                elif (of := store.probes.begin("api", worker="w", lease=60)) is not None:
                    end_probe(store, of, (True, False, None)[turn % 3], durations=[0])
        except BaseException as error:  # noqa: BLE001  # the test must see it
            errors.append(error)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert query(store, "SELECT count(*) AS n FROM pause WHERE ended_at IS NULL")[0]["n"] <= 1
    # Each pause began a generation, and so did each end that no pause followed.
    begun = query(store, "SELECT count(*) AS n FROM pause")[0]["n"]
    assert client(store)[2] > begun


@pytest.mark.rows("SC-16")
def test_many_workers_hear_at_once(open_store: Callable[..., JobStore]) -> None:
    """No trouble is lost, and when it adds up one of them begins the pause."""
    stores = [open_store() for _ in range(3)]
    begun: list[Any] = []

    def act(number: int) -> None:
        for _ in range(20):
            found = stores[number % 3].pauses.record_answers(
                "api", [T], after=120, durations=[60], reason="", set_by=f"w{number}", generation=0
            )
            begun.extend([found] if found else [])

    threads = [threading.Thread(target=act, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1
    assert client(stores[0]) == (0, 1, 1)
