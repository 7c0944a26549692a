"""Pauses, read again by somebody who had not written them: what was broken once stays mended."""

import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clients import GoneError, HttpClient, RateLimitedError, ServerError
from flows import Client, JobType, Window
from flows.pauses.client_health import Health
from flows.pauses.maintenance_windows import WindowPauses
from jobs import Failure, JobStore, Success
from jobs.job import JobResult, Lane, Verdict
from syncs_testing import Reply, Seen, serving
from tests.support.fake_remote import System, client, drain, orders, pauses, query, queue, run_out, states, until, working
from tests.support.job_bench import write

DOWN = ServerError("503 Service Unavailable", method="GET", url="https://shop.example/", status=503)


@pytest.mark.rows("SC-16")
def test_finishes_in_another_order_than_the_answers_lock_nobody_out(store: JobStore) -> None:
    """A success with a transaction of its own is committed after trouble that came later: no client is in doubt for ever."""
    system = System()
    turns = itertools.count()

    def process_(job: Any, found: System) -> None:
        if next(turns) in (100, 101, 102):
            raise DOWN
        found.ask(job.payload["n"])
        write(job, str(job.payload["n"]))

    kind = orders(client(system, durations=(0.3,)), process=process_, concurrency=1)
    queue(store, kind, 200)
    with working(store, kind):
        until(lambda: states(store) == {"success": 200})


@pytest.mark.rows("SC-16")
@pytest.mark.parametrize("slow", [0.0, 0.25], ids=["in one batch", "one by one"])
def test_trouble_behind_a_success_adds_up(store: JobStore, slow: float) -> None:
    """However the answers come to the store: three in a row pause, and what was well before does not count."""
    system, turns = System(slow=slow), itertools.count()
    system.ill = lambda: None if next(turns) < 3 else DOWN
    kind = orders(client(system), concurrency=1)
    queue(store, kind, 10)
    drain(store, kind)
    assert len(system.requests) == 6
    assert pauses(store) == [("level", 1, 0, None)]


def test_a_success_of_another_batch_counts_where_it_came(store: JobStore) -> None:
    """Two errors, a success, and one error are not three in a row, whichever batch is committed first."""
    shop = client(System())
    kind = orders(shop)
    queue(store, kind, 4)
    health = Health(store, {kind.id: shop}, worker="w1", retry_database=lambda work: work())
    jobs = store.claim([Lane("shop", "shop", kind.id)], 4, worker="w1", lease=60)
    verdicts = [Verdict(Success()) if number == 2 else Verdict(Failure("503"), trouble=True) for number in range(4)]
    dones = [health.on_result(JobResult(job, verdict, kind.retry)) for job, verdict in zip(jobs, verdicts, strict=True)]
    for numbers in ([0, 1], [3], [2]):
        health.report([dones[number]._replace(state="queued") for number in numbers])
    assert pauses(store) == []


@pytest.mark.rows("T15")
@pytest.mark.parametrize("late", [RateLimitedError("429", status=429, retry_after=60.0)], ids=str)
def test_a_person_resumes_while_the_probe_is_on_its_way(store: JobStore, late: Exception) -> None:
    """What the probe says after that is late: the client stays open."""
    sent, resumed = threading.Event(), threading.Event()

    def answer() -> Exception:
        sent.set()
        assert resumed.wait(60)
        return late

    kind = orders(client(System(answer)))
    queue(store, kind, 1)
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    run_out(store)
    with working(store, kind, max_jobs=1):
        assert sent.wait(60)
        store.pauses.resume("shop", by="bert")
        resumed.set()
        until(lambda: "processing" not in states(store))
    assert pauses(store) == [("person", 0, 1, "bert")]


@pytest.mark.rows("T15", "E-97")
def test_what_was_in_hand_waits_for_the_probe_too(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """A pause that begins and runs out while a job is worked: those claimed with it are no second probe."""
    system = System()
    asked: list[int] = []

    def process_(job: Any, found: System) -> None:
        asked.append(job.payload["n"])
        if job.payload["n"] == 60:
            slow.set()
            go.wait(60)

    slow, go = threading.Event(), threading.Event()
    kind = orders(client(system), process=process_, concurrency=1)
    queue(store, kind, 200)
    other = open_store()
    with working(store, kind):
        assert slow.wait(60)
        other.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
        run_out(other)
        # Somebody else tests it, and takes a while.
        assert other.probes.begin("shop", worker="elsewhere:1:1:1", lease=60) is not None
        # As long as nobody looks again (GLANCE).
        time.sleep(0.2)
        go.set()
        time.sleep(0.5)
        assert asked[-1] == 60


# -- declared windows ---------------------------------------------------------------------------------------------------


def now_window(before: int = 60, after: int = 180) -> Window:
    """Return a window that began some seconds ago and ends in some."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    return Window(f"{now - timedelta(seconds=before):%H:%M}", f"{now + timedelta(seconds=after):%H:%M}")


def test_a_resume_in_a_window_is_not_forgotten_in_a_busy_one(store: JobStore) -> None:
    """However many pauses there were since: who is resumed in a window stays open until the next."""
    shop = client(System(), windows=(now_window(),))
    assert WindowPauses(store, [shop], worker="w1").apply()
    store.pauses.resume("shop", by="anna")
    for _ in range(30):
        store.pauses.open("shop", 0.001, cause="asked", reason="429", set_by="w1")
        time.sleep(0.002)
    assert WindowPauses(store, [shop], worker="w2").apply() == []


def test_a_pause_of_a_person_in_a_window_is_no_resume(store: JobStore) -> None:
    """Whoever pauses twice before anybody holds the window has resumed nothing: the window counts."""
    shop = client(System(), windows=(now_window(),))
    store.pauses.open("shop", 0.01, cause="person", reason="", set_by="anna")
    store.pauses.open("shop", 0.02, cause="person", reason="", set_by="anna")
    time.sleep(0.03)
    (held,) = WindowPauses(store, [shop], worker="w1").apply()
    assert held.cause == "window"


@pytest.mark.parametrize("how", ["a shorter pause", "a probe"])
def test_a_window_is_held_whatever_happens_in_that_moment(
    store: JobStore, open_store: Callable[..., JobStore], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker pauses for a moment, or reopens, just when the window begins: the next look holds it all the same."""
    shop = client(System(), windows=(now_window(),))
    other = open_store()
    probe = None
    if how == "a probe":
        other.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
        run_out(other)
        probe = other.probes.begin("shop", worker="w2", lease=60)
    standing = store.pauses.state

    def at_that_moment(name: str) -> Any:
        found = standing(name)
        monkeypatch.undo()
        if probe is None:
            other.pauses.open("shop", 1, cause="asked", reason="429", set_by="w2")
        else:
            other.probes.end(probe, True, durations=(60,), reason="", set_by="w2")
        return found

    monkeypatch.setattr(store.pauses, "state", at_that_moment)
    hours = WindowPauses(store, [shop], worker="w1")
    hours.apply()
    hours.apply()
    assert [one.cause for one in store.pauses.in_force()] == ["window"]


@pytest.mark.parametrize(
    ("error", "says"),
    [(GoneError("404 Not Found", status=404), "not there (404 or 410)"), (KeyError("status"), "KeyError: 'status'")],
)
def test_a_check_says_why(store: JobStore, error: Exception, says: str) -> None:
    """Whatever the check raises is trouble, with a reason that a person can read."""
    kind = orders(client(System(lambda: error), check=True))
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    run_out(store)
    drain(store, kind)
    (found,) = store.pauses.in_force()
    assert (found.cause, found.level) == ("level", 1)
    assert says in found.reason


# -- what a success says ------------------------------------------------------------------------------------------------


@pytest.mark.rows("SC-17")
def test_the_success_of_whoever_was_always_well_counts(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """A worker that saw no trouble itself works on after the pause of another one: the level falls to 0."""
    system = System()
    kind = orders(client(system), concurrency=1)
    other = open_store()
    queue(store, kind, 3)
    with working(store, kind):
        until(lambda: states(store) == {"success": 3})
        for _ in range(2):
            other.pauses.record_answers("shop", [True], after=1, durations=(60, 300), reason="503", set_by="elsewhere:1:1:1")
            run_out(other)
            probe = other.probes.begin("shop", worker="elsewhere:1:1:1", lease=60)
            assert probe is not None
            other.probes.end(probe, False, durations=(60, 300), reason="503", set_by="elsewhere:1:1:1")
            run_out(other)
        probe = other.probes.begin("shop", worker="elsewhere:1:1:1", lease=60)
        assert probe is not None
        other.probes.end(probe, True, durations=(60, 300), reason="", set_by="elsewhere:1:1:1")
        assert query(store, "SELECT level FROM client")[0]["level"] > 0
        queue(store, kind, 5)
        until(lambda: states(store) == {"success": 8})
    assert query(store, "SELECT errors, level FROM client") == [{"errors": 0, "level": 0}]


class Line:
    """A connection of which each thread needs its own."""

    opened = closed = 0

    def __enter__(self) -> "Line":
        Line.opened += 1
        return self

    def __exit__(self, *_: object) -> None:
        Line.closed += 1


def test_a_check_leaves_no_connection_open(store: JobStore) -> None:
    """Each test of a client has a thread of its own; its connection is closed with it, also where all was well."""
    Line.opened = Line.closed = 0
    line = Client("shop", connect=lambda _: Line(), check=lambda _: None)
    kind = orders(line, process=lambda job, _: None)
    with working(store, kind):
        for number in range(1, 4):
            store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
            run_out(store)
            until(lambda number=number: len([one for one in pauses(store) if one[3] == "probe"]) == number)
        until(lambda: Line.closed == Line.opened)
    assert Line.opened == 3


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_a_resume_outlasts_what_the_answer_asked_for(store: JobStore, is_late: bool) -> None:
    """A worker was told 429 and ten minutes, before a person resumed or after: its client remembers nothing that pauses again."""
    asked, answers, resumed = threading.Event(), [429], threading.Event()

    def respond(_: Seen) -> Reply:
        status = answers.pop() if answers else 200
        if status == 429:
            asked.set()
            if is_late:
                resumed.wait(60)
        return Reply({}, status, headers={"Retry-After": "600"} if status == 429 else {})

    with serving(respond) as server:
        shop = Client("shop", connect=lambda _: HttpClient(server.url))
        kind = JobType("shop.order", shop, process=lambda job, http: http.request("GET", "order") and None, concurrency=1)
        queue(store, kind, 5)
        with working(store, kind):
            assert asked.wait(60)
            if is_late:
                store.pauses.open("shop", 600, cause="person", reason="", set_by="anna")
            else:
                until(store.pauses.in_force)
            store.pauses.resume("shop", by="anna")
            resumed.set()
            until(lambda: states(store) == {"success": 5})
    assert [end for *_, end in pauses(store)] == ["anna"]
