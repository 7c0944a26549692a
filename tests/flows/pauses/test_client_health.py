"""Pauses that lift themselves: what a worker sends before, during and after one, and who may go first."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clients import AuthRefusedError, RateLimitedError, RejectedError, ServerError, TransientError, UnknownOutcomeError
from flows import Window
from flows.pauses.blame import SPARED
from flows.project.registry import Registry
from flows.worker import claims
from flows.worker import heartbeat as lease
from flows.worker import single_job as process
from flows.worker.queue_processing import work
from jobs import Failure, JobStore, Pause, Queue, Retry, Snooze
from tests.support.fake_remote import (
    PAST,
    System,
    client,
    drain,
    orders,
    pauses,
    query,
    queue,
    registry,
    run_out,
    seconds_of,
    states,
    until,
    working,
)
from tests.support.store_helpers import change

DOWN = ServerError("503 Service Unavailable", method="GET", url="https://shop.example/", status=503)


def down() -> Exception:
    """The system is in trouble."""
    return DOWN


@pytest.fixture
def slowing_down(monkeypatch: pytest.MonkeyPatch) -> tuple[System, threading.Event, threading.Event]:
    """A system that answers at once, until it takes 150 ms for each request: much has been claimed ahead by then.

    The first slow request sets the first event, and is answered once the second one is set.
    """
    # All that there is, however slow the machine.
    monkeypatch.setattr(claims, "AHEAD", 600.0)
    system, is_slow, go = System(), threading.Event(), threading.Event()

    def slow_down() -> None:
        if len(system.requests) >= 150:
            system.slow = 0.15
            is_slow.set()
            assert go.wait(60)

    system.ill = slow_down
    return system, is_slow, go


@contextmanager
def both_working(stores: tuple[JobStore, JobStore], declared: Registry) -> Iterator[None]:
    """Have a worker on each of the two stores until the block ends."""
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(one, declared), kwargs={"stop": stop}) for one in stores]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.rows("SC-16", "SC-20", "T15")
def test_one_goes_first_and_then_all(store: JobStore) -> None:
    """Trouble pauses; at the end of the pause one request goes first, alone, and when it is answered all others go."""
    system = System(down, slow=0.05)
    kind = orders(client(system, durations=(600.0,)))
    queue(store, kind, 40)
    with working(store, kind):
        until(store.pauses.in_force)
        until(lambda: "processing" not in states(store))
        system.ill = lambda: None
        asked = len(system.requests)
        time.sleep(0.3)
        assert len(system.requests) == asked
        run_out(store)
        until(lambda: states(store) == {"success": 40})
    probe, *others = sorted(system.requests[asked:])
    assert all(one[0] >= probe[1] for one in others)
    assert len(others) == 39
    assert pauses(store) == [("level", 1, 1, "probe")]
    # The probe lowered the level, and the next success forgot the rest.
    assert query(store, "SELECT errors, level FROM client") == [{"errors": 0, "level": 0}]


@pytest.mark.rows("SC-17", "SC-21", "E-90")
def test_each_probe_that_fails_is_one_request_and_a_longer_pause(store: JobStore) -> None:
    """While the trouble lasts a pause costs one request; each is as long as its level says."""
    system = System(down)
    kind = orders(client(system, durations=(60, 300, 1800)))
    queue(store, kind, 40)
    drain(store, kind)
    before = len(system.requests)
    # Three in a row, and what the other threads had begun.
    assert 3 <= before <= 3 + 4
    for number in range(1, 4):
        run_out(store)
        drain(store, kind)
        assert len(system.requests) == before + number
    assert [round(seconds_of(one)) for one in reversed(store.pause_history.latest())][-1] == 1800
    assert pauses(store) == [("level", 1, 1, "level"), ("level", 2, 1, "level"), ("level", 3, 1, "level"), ("level", 4, 0, None)]
    assert states(store) == {"queued": 40}
    system.ill = lambda: None
    run_out(store)
    assert drain(store, kind).succeeded == 40
    assert query(store, "SELECT errors, level FROM client") == [{"errors": 0, "level": 0}]


@pytest.mark.parametrize("when", [0.0, datetime(2020, 1, 1, tzinfo=UTC)], ids=["no time", "the past"])
def test_a_pause_of_no_time_is_a_second(store: JobStore, when: float | datetime) -> None:
    """A job that asks for it again and again is no storm of probes."""
    system = System()

    def process_(job: Any, found: System) -> Any:
        found.ask(job.payload)
        return Pause(when, "busy")

    kind = orders(client(system), process=process_, concurrency=1)
    queue(store, kind, 3)
    for number in range(1, 4):
        before = store.views.now()
        drain(store, kind)
        assert len(system.requests) == number
        (found,) = store.pauses.in_force(run_out=True)
        assert found.until >= before + timedelta(seconds=1)  # type: ignore[operator]
        assert seconds_of(found) <= 1.001
        run_out(store)
    assert states(store) == {"queued": 3}


@pytest.mark.rows("E-97")
def test_a_job_is_no_worse_for_having_been_the_probe(store: JobStore) -> None:
    """A probe's job that meets trouble goes back without using an attempt, so often and no more: it could be its own trouble."""
    system = System(down)
    kind = orders(client(system), retry=Retry(max_retries=1, delay=0, jitter=False))
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    (job_id,) = queue(store, kind, 1)
    for number in range(1, SPARED + 1):
        run_out(store)
        drain(store, kind)
        assert query(store, "SELECT state, attempts, snoozes FROM job") == [{"state": "queued", "attempts": 0, "snoozes": number}]
    assert store.views.job(job_id).attempts[-1].error.startswith("as a probe, no attempt used: GET https://shop.example/: 503")  # type: ignore[union-attr]
    for attempts, state in ((1, "queued"), (2, "failure")):
        run_out(store)
        drain(store, kind)
        assert query(store, "SELECT state, attempts FROM job") == [{"state": state, "attempts": attempts}]
    assert len(system.requests) == SPARED + 2


def test_what_may_have_been_done_is_not_repeated_by_a_probe(store: JobStore) -> None:
    """A probe that was sent and got no answer is a failure for a person to look at, and trouble of the client."""
    system = System(lambda: UnknownOutcomeError("no answer", method="POST", url="https://shop.example/"))
    kind = orders(client(system))
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    queue(store, kind, 1)
    run_out(store)
    drain(store, kind)
    assert states(store) == {"failure": 1}
    assert pauses(store)[-1][:2] == ("level", 1)


def test_the_next_probe_is_another_job(store: JobStore) -> None:
    """One job that is the trouble itself does not keep the client shut."""
    system = System()

    def process_(job: Any, found: System) -> None:
        found.ask(job.payload["n"])
        if job.payload["n"] == 0:
            raise DOWN

    kind = orders(client(system), process=process_)
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    queue(store, kind, 3)
    for asked in ([0], [0, 1]):
        run_out(store)
        drain(store, kind, max_jobs=1)
        assert system.asked == asked
    assert pauses(store) == [("person", 0, 1, "level"), ("level", 1, 1, "probe")]


@pytest.mark.rows("E-27", "SC-18")
def test_the_apis_own_word_does_not_raise_the_level(store: JobStore) -> None:
    """429 with Retry-After pauses exactly so long; then one request, then all, and no level was raised."""
    system = System(lambda: RateLimitedError("429", status=429, retry_after=40.0))
    kind = orders(client(system))
    queue(store, kind, 30)
    drain(store, kind)
    (found,) = store.pause_history.latest()
    assert abs(seconds_of(found) - 40) < 0.1
    run_out(store)
    drain(store, kind)
    assert pauses(store) == [("asked", 0, 1, "asked"), ("asked", 0, 0, None)]
    assert query(store, "SELECT sum(attempts) AS n FROM job") == [{"n": 0}]
    system.ill = lambda: None
    system.slow = 0.05
    run_out(store)
    system.requests.clear()
    assert drain(store, kind).succeeded == 30
    assert all(one[0] >= system.requests[0][1] for one in system.requests[1:])


@pytest.mark.rows("SC-18", "E-93")
def test_a_refused_sign_in_costs_one_request_a_pause(store: JobStore) -> None:
    """An enforced pause comes at once, and again for as long after a probe that is refused, too."""
    system = System(lambda: AuthRefusedError("401 Unauthorized", status=401))
    kind = orders(client(system, enforced={401: 120}), concurrency=1)
    queue(store, kind, 30)
    drain(store, kind)
    for _ in range(3):
        run_out(store)
        drain(store, kind)
    assert len(system.requests) == 4
    assert {(cause, level) for cause, level, _, _ in pauses(store)} == {("enforced", 0)}
    assert round(seconds_of(store.pause_history.latest()[0])) == 120
    # With `None` it waits for a person.
    store.pauses.resume("shop", by="anna")
    kind = orders(client(system, enforced={401: None}), concurrency=1)
    drain(store, kind)
    assert [one.until for one in store.pauses.in_force()] == [None]


@pytest.mark.rows("SC-14", "SC-29", "SC-15")
def test_other_clients_in_the_same_queue_go_on(store: JobStore) -> None:
    """Two clients share a queue; what belongs to the one in trouble stays, unharmed, and the other is drained."""
    ill, well = System(down), System()
    broken = orders(client(ill, "broken", queue="shared"))
    sound = orders(client(well, "sound", queue="shared"))
    queue(store, broken, 30)
    queue(store, sound, 30)
    assert drain(store, broken, sound).succeeded == 30
    found = query(store, "SELECT client, state, count(*) AS n FROM job GROUP BY client, state")
    assert {(one["client"], one["state"], one["n"]) for one in found} == {("broken", "queued", 30), ("sound", "success", 30)}
    assert [one.client for one in store.pauses.in_force()] == ["broken"]


@pytest.mark.rows("E-92", "E-97", "SC-15")
def test_jobs_in_hand_go_back_when_somebody_pauses(
    store: JobStore, open_store: Callable[..., JobStore], slowing_down: tuple[System, threading.Event, threading.Event]
) -> None:
    """What is being worked ends, what was claimed ahead goes back within a moment, and no attempt is used."""
    system, is_slow, go = slowing_down
    kind = orders(client(system), concurrency=1)
    queue(store, kind, 300)
    other = open_store()
    with working(store, kind):
        assert is_slow.wait(60)
        until(lambda: states(store).get("processing", 0) > 100)
        other.pauses.open("shop", 3600, cause="person", reason="look first", set_by="anna")
        paused = time.monotonic()
        go.set()
        until(lambda: "processing" not in states(store))
    late = [one for one in system.requests if one[0] > paused]
    # A look each tenth of a second, and the request that began in between; a hundred were in hand.
    assert len(late) <= 30
    done = len(system.requests)
    assert states(store) == {"success": done, "queued": 300 - done}
    assert query(store, "SELECT sum(attempts) AS n, max(retries) AS r FROM job") == [{"n": done, "r": 0}]
    messages = query(store, "SELECT DISTINCT message FROM job WHERE state = 'queued' AND claim_no > 0")
    assert [one["message"] for one in messages] == ["put back by a worker that had not begun it when its client was paused"]


# -- the client's own check ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DOWN, ValueError("the page says maintenance"), RejectedError("400", status=400)])
def test_the_check_of_a_client_goes_first(store: JobStore, error: Exception) -> None:
    """Where a client says how to test it, no job is touched before that went well; whatever it raises is trouble."""
    system = System(lambda: error)
    kind = orders(client(system, check=True))
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    queue(store, kind, 5)
    run_out(store)
    drain(store, kind)
    assert system.asked == ["check"]
    assert pauses(store) == [("person", 0, 1, "level"), ("level", 1, 0, None)]
    assert str(error).split(":", maxsplit=1)[0] in store.pauses.in_force()[0].reason
    assert query(store, "SELECT max(claim_no) AS n FROM job") == [{"n": 0}]
    system.ill = lambda: None
    run_out(store)
    assert drain(store, kind).succeeded == 5
    assert system.asked[1] == "check"
    assert system.checks == 2


def test_a_check_needs_no_job(store: JobStore) -> None:
    """A client with a check reopens although nobody wants anything of it."""
    system = System()
    kind = orders(client(system, check=True))
    store.pauses.open("shop", 0.2, cause="person", reason="", set_by="anna")
    with working(store, kind):
        until(lambda: pauses(store) == [("person", 0, 1, "probe")])
    assert system.asked == ["check"]


def test_without_a_check_nobody_asks_for_nothing(store: JobStore) -> None:
    """A client without a check, of which nobody wants anything, waits for its first job."""
    system = System()
    kind = orders(client(system))
    store.pauses.open("shop", 0.05, cause="person", reason="", set_by="anna")
    with working(store, kind):
        time.sleep(0.5)
        assert pauses(store) == [("person", 0, 0, None)]
        queue(store, kind, 5)
        until(lambda: states(store) == {"success": 5})
    assert pauses(store) == [("person", 0, 1, "probe")]


# -- who may go first ---------------------------------------------------------------------------------------------------


@pytest.mark.rows("T15")
def test_of_many_workers_one_goes_first(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """However many workers wait for the end of a pause, one request is sent, and the others wait for its answer."""
    system = System(slow=0.4)
    kind = orders(client(system))
    queue(store, kind, 20)
    store.pauses.open("shop", 0.5, cause="person", reason="", set_by="anna")
    stores = [store, open_store(), open_store()]
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(one, registry(kind)), kwargs={"stop": stop}) for one in stores]
    for thread in threads:
        thread.start()
    try:
        until(lambda: states(store) == {"success": 20})
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    first, *others = sorted(system.requests)
    assert all(one[0] >= first[1] for one in others)
    assert pauses(store) == [("person", 0, 1, "probe")]


def test_a_prober_that_dies_loses_its_right(store: JobStore) -> None:
    """The right to try ends with its lease; then the next one tries."""
    system = System()
    kind = orders(client(system))
    queue(store, kind, 5)
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    run_out(store)
    began = time.monotonic()
    assert store.probes.begin("shop", worker="elsewhere:1:1:1", lease=0.6) is not None
    with working(store, kind):
        until(lambda: states(store) == {"success": 5})
    assert system.requests[0][0] - began >= 0.5
    assert pauses(store) == [("person", 0, 2, "probe")]


def until_of(store: JobStore) -> Any:
    """Return the end of the right to probe."""
    return query(store, "SELECT probe_until FROM pause")[0]["probe_until"]


def test_a_slow_probe_keeps_its_right(
    store: JobStore, open_store: Callable[..., JobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe that takes long is the only one all the same: whoever lives renews its right."""
    monkeypatch.setattr(lease, "RENEWALS", 600)
    turns = itertools.count()

    def wait_for_renewals() -> None:
        if next(turns) == 0:
            for _ in range(3):
                before = until_of(store)
                until(lambda before=before: until_of(store) != before)

    system = System(wait_for_renewals)
    kind = orders(client(system))
    declared = registry(kind)
    declared.queues["shop"] = Queue("shop", lease=60)
    queue(store, kind, 6)
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    run_out(store)
    with both_working((store, open_store()), declared):
        until(lambda: len(system.requests) >= 3)
    first, *others = sorted(system.requests)
    assert all(one[0] >= first[1] for one in others)
    assert pauses(store) == [("person", 0, 1, "probe")]


def test_a_probe_that_hangs_does_not_keep_the_client_shut(
    store: JobStore, open_store: Callable[..., JobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker lives, but renews the right only for so long; then another one tries, and the late answer changes nothing."""
    monkeypatch.setattr(lease, "LONGEST_PROBE", 0.3)
    monkeypatch.setattr(lease, "RENEWALS", 600)
    halt, hangs = threading.Event(), threading.Event()
    system = System()
    hanging = iter([True])

    def process_(job: Any, found: System) -> None:
        if next(hanging, False):
            hangs.set()
            halt.wait(60)
            raise DOWN
        found.ask(job.payload)

    kind = orders(client(system, after=1), process=process_)
    declared = registry(kind)
    declared.queues["shop"] = Queue("shop", lease=60)
    queue(store, kind, 6)
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    run_out(store)

    def is_renewed() -> bool:
        before = until_of(store)
        time.sleep(0.5)
        return bool(until_of(store) != before)

    with both_working((store, open_store()), declared):
        try:
            assert hangs.wait(60)
            until(lambda: not is_renewed())
            change(store, f"UPDATE pause SET probe_until = '{PAST}'")
            until(lambda: len(system.requests) == 5)
            until(lambda: pauses(store) == [("person", 0, 2, "probe")])
            halt.set()
            until(lambda: states(store) == {"success": 6})
        finally:
            halt.set()
    assert len(pauses(store)) == 1


@pytest.mark.parametrize("error", [DOWN, AuthRefusedError("401", status=401), RateLimitedError("429", status=429)], ids=str)
def test_a_person_has_the_last_word(store: JobStore, error: Exception) -> None:
    """A resume by hand cannot be undone by an answer to a request that had begun before it."""
    sent, resumed = threading.Barrier(5, timeout=60), threading.Event()

    def answer() -> Exception:
        sent.wait()
        assert resumed.wait(60)
        return error

    system = System(answer)
    kind = orders(client(system, after=1), concurrency=4, retry=Retry(max_retries=3, delay=60))
    queue(store, kind, 4)
    with working(store, kind, max_jobs=4):
        sent.wait()
        store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
        store.pauses.resume("shop", by="anna")
        resumed.set()
        until(lambda: len(system.requests) == 4)
    assert [cause for cause, *_ in pauses(store)] == ["person"]
    assert store.pauses.state("shop").pausing is None
    assert "processing" not in states(store)


def test_a_probes_late_answer_changes_nothing(store: JobStore) -> None:
    """A person pauses while the probe is on its way; its success does not open the client."""
    sent, paused = threading.Event(), threading.Event()

    def answer() -> None:
        sent.set()
        assert paused.wait(60)

    system = System(answer)
    kind = orders(client(system))
    queue(store, kind, 4)
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    run_out(store)
    with working(store, kind):
        assert sent.wait(60)
        store.pauses.open("shop", None, cause="person", reason="hands off", set_by="bert")
        paused.set()
        until(lambda: states(store).get("success") == 1)
        time.sleep(0.3)
    assert [one.reason for one in store.pauses.in_force()] == ["hands off"]
    assert states(store) == {"success": 1, "queued": 3}


def test_a_probe_that_says_nothing_frees_the_way(store: JobStore) -> None:
    """A job that snoozes has asked nobody; the next one tries."""
    system = System()
    turns = iter([Snooze(3600, "not yet")])
    kind = orders(client(system), process=lambda job, found: next(turns, None) or found.ask(job.payload))
    queue(store, kind, 3)
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    run_out(store)
    drain(store, kind)
    assert states(store) == {"success": 2, "queued": 1}
    assert pauses(store) == [("person", 0, 2, "probe")]


def test_a_job_that_fails_by_itself_says_that_the_client_answers(store: JobStore) -> None:
    """A rejection is an answer: the client is open, and the job has failed."""
    system = System()
    kind = orders(client(system), process=lambda job, found: found.ask(job.payload) or Failure("no", retry=False))
    queue(store, kind, 2)
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    run_out(store)
    drain(store, kind)
    assert states(store) == {"failure": 2}
    assert pauses(store) == [("person", 0, 1, "probe")]


# -- one job by hand ----------------------------------------------------------------------------------------------------


def test_a_forced_job_opens_nothing(store: JobStore) -> None:
    """`syncs process --force` works a job of a paused client; neither its success nor its failure changes the pause."""
    system = System()
    kind = orders(client(system, after=1))
    first, second = queue(store, kind, 2)
    store.pauses.open("shop", 600, cause="person", reason="", set_by="anna")
    assert process.process(store, registry(kind), first, force=True).outcome == "success"
    system.ill = down
    assert process.process(store, registry(kind), second, force=True).outcome == "failure"
    assert pauses(store) == [("person", 0, 0, None)]
    assert query(store, "SELECT errors, level FROM client") == [{"errors": 0, "level": 0}]


@pytest.mark.parametrize("is_well", [True, False])
def test_one_job_by_hand_is_a_probe(store: JobStore, is_well: bool) -> None:
    """Where the pause has run out and nobody tests the client, the job that a person processes does."""
    system = System((lambda: None) if is_well else down)
    kind = orders(client(system))
    first, second = queue(store, kind, 2)
    store.pauses.open("shop", 600, cause="person", reason="", set_by="anna")
    assert "paused" in process.process(store, registry(kind), first).refused
    run_out(store)
    assert process.process(store, registry(kind), second).outcome == ("success" if is_well else "snooze")
    assert pauses(store)[0] == ("person", 0, 1, "probe" if is_well else "level")
    assert (store.pauses.state("shop").pausing is None) == is_well


# -- declared windows ---------------------------------------------------------------------------------------------------


def now_window(before: int = 60, after: int = 180) -> Window:
    """Return a window that began some seconds ago and ends in some."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    return Window(f"{now - timedelta(seconds=before):%H:%M}", f"{now + timedelta(seconds=after):%H:%M}")


def test_no_request_in_a_declared_window(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """A worker that comes into a window pauses its client up to the end; two of them write one row."""
    system = System()
    kind = orders(client(system, windows=(now_window(),)))
    queue(store, kind, 5)
    for one in (store, open_store()):
        drain(one, kind)
    assert not system.requests
    (found,) = store.pauses.in_force()
    assert (found.cause, found.reason.split()[:2]) == ("window", ["declared", "window"])
    assert found.until is not None
    assert found.until.second == 0
    assert len(pauses(store)) == 1


def test_who_is_resumed_in_a_window_stays_open_until_the_next(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """A person may know better than the declaration; no process that comes later in the same window knows better again."""
    system = System()
    kind = orders(client(system, windows=(now_window(),)))
    queue(store, kind, 5)
    drain(store, kind)
    assert store.pauses.resume("shop", by="anna")
    assert drain(store, kind).succeeded == 5
    queue(store, kind, 5)
    assert drain(open_store(), kind).succeeded == 5
    assert len(pauses(store)) == 1


@pytest.mark.parametrize(("seconds", "cause"), [(3600, "person"), (30, "window"), (None, "person")])
def test_of_a_window_and_another_pause_the_longer_counts(store: JobStore, seconds: float | None, cause: str) -> None:
    """Whoever paused a client for longer is not cut short by the window, and the window not by a shorter pause."""
    system = System()
    kind = orders(client(system, windows=(now_window(),)))
    queue(store, kind, 1)
    before = store.pauses.open("shop", seconds, cause="person", reason="", set_by="anna")
    drain(store, kind)
    (found,) = store.pauses.in_force()
    assert found.cause == cause
    assert (found.until == before.until) == (cause == "person")  # type: ignore[union-attr]
    assert not system.requests


def test_a_window_that_begins_while_jobs_are_in_hand(
    store: JobStore, slowing_down: tuple[System, threading.Event, threading.Event]
) -> None:
    """When its begin comes, what is not begun goes back, without a claim in between."""
    if store.db.dialect != "sqlite":
        pytest.skip("needs a clock that can be set")
    system, is_slow, go = slowing_down
    minute = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    window = Window(f"{minute:%H:%M}", f"{minute + timedelta(minutes=5):%H:%M}")
    kind = orders(client(system, windows=(window,)), concurrency=1)
    begins = [float("inf")]
    store.db.clock = lambda: minute + timedelta(seconds=max(-60.0, time.monotonic() - begins[0]))
    own = JobStore(store.db)
    queue(own, kind, 300)
    with working(own, kind):
        assert is_slow.wait(60)
        until(lambda: states(store).get("processing", 0) > 100)
        begins[0] = time.monotonic()
        go.set()
        until(lambda: "processing" not in states(store))
    assert len([one for one in system.requests if one[0] > begins[0]]) <= 30
    (found,) = store.pause_history.latest()
    assert (found.cause, found.until) == ("window", minute + timedelta(minutes=5))


def test_an_error_that_is_no_trouble_pauses_nobody(store: JobStore) -> None:
    """Rejections in a row are the jobs' own; transient errors fewer than the policy says pause nobody either."""
    system = System(lambda: RejectedError("422", status=422))
    kind = orders(client(system), concurrency=1)
    queue(store, kind, 10)
    drain(store, kind)
    assert not pauses(store)
    errors = iter([TransientError("t"), TransientError("t"), None] * 20)
    system.ill = lambda: next(errors, None)
    queue(store, kind, 10)
    drain(store, kind)
    assert not pauses(store)
