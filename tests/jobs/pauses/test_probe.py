"""jobs.pauses.probe: when a pause has run out, one goes first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from jobs import JobStore, Queue, Rate, Snooze
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Job, Lane
from jobs.pauses.pause import ClientState
from jobs.pauses.probe import Probe
from tests.support.store_helpers import (
    ELSEWHERE,
    LANE,
    OTHER,
    bring_forward,
    change,
    done,
    end_probe,
    enqueue,
    environment,
    expire,
    finish,
    probe,
    query,
    row,
    run_out,
    take,
)

STRANGER = Lane("default", "b", "b.things")


@pytest.fixture
def reopening(store: JobStore) -> JobStore:
    """Return a store with three jobs of a client whose pause of level 1 has run out, and one of another client."""
    enqueue(store, "abc")
    enqueue(store, ["s"], STRANGER)
    trouble(store)
    run_out(store)
    return store


def trouble(store: JobStore) -> Any:
    """Let trouble add up to a pause."""
    return store.pauses.record_answers("api", [True] * 3, after=3, durations=[10, 60, 600], reason="timeouts", set_by="w")


def claim(store: JobStore, of: Probe, *lanes: Lane) -> list[Job]:
    """Claim the job of a probe."""
    return store.probes.claim_job(of, lanes or (LANE,), worker=ELSEWHERE, lease=60)


def level(store: JobStore) -> int:
    """Return the error level."""
    (found,) = query(store, "SELECT level FROM client WHERE id = 'api'")
    return int(found["level"])


def late(store: JobStore) -> None:
    """Let the lease of a probe have ended."""
    change(store, "UPDATE pause SET probe_until = '2000-01-01 00:00:00.000000+00' WHERE ended_at IS NULL")


@pytest.mark.rows("M8", "SC-20")
def test_one_goes_first(reopening: JobStore) -> None:
    """Of any number who ask one may try, with one job; the others wait, and go on when it went well."""
    (waiting,) = reopening.probes.due()
    assert (waiting.client, waiting.cause, waiting.probes) == ("api", "level", 0)
    of = probe(reopening)
    assert (of.client, of.pause_id, of.token, of.generation) == ("api", waiting.id, 1, 1)
    assert reopening.probes.due() == []
    assert reopening.probes.begin("api", worker="other", lease=60) is None
    assert take(reopening) == []
    (job,) = claim(reopening, of)
    assert (job.key, job.client_generation) == ("a", 1)
    assert take(reopening, 10, LANE, STRANGER)[0].key == "s"
    finish(reopening, done(job))
    over = end_probe(reopening, of, True)
    assert over is not None
    assert (over.id, over.is_new) == (waiting.id, False)
    assert reopening.pauses.state("api") == ClientState(2)
    assert level(reopening) == 0
    jobs = take(reopening)
    assert [(one.key, one.client_generation) for one in jobs] == [("b", 2), ("c", 2)]


def test_who_may_not_probe(store: JobStore) -> None:
    """Nobody probes a client that is open, paused or unknown."""
    assert store.probes.begin("api", worker="w", lease=60) is None
    enqueue(store, "a")
    store.pauses.open("api", 60, cause="asked", reason="", set_by="w")
    assert store.probes.begin("api", worker="w", lease=60) is None
    assert store.probes.due() == []
    store.pauses.open("api", None, cause="person", reason="", set_by="me")
    assert store.probes.begin("api", worker="w", lease=60) is None
    run_out(store)
    assert store.probes.begin("b", worker="w", lease=60) is None
    assert [one.client for one in store.probes.due(["api", "b"])] == ["api"]
    assert store.probes.due(["b"]) == store.probes.due([]) == []


@pytest.mark.rows("SC-17")
def test_each_pause_in_a_row_is_longer(store: JobStore) -> None:
    """The level rises with each probe that goes badly; its last duration serves all higher ones."""
    found = trouble(store)
    lengths = []
    for _ in range(4):
        lengths.append(round((found.until - found.started_at).total_seconds()))
        run_out(store)
        found = end_probe(store, probe(store), False, reason="still away")
        assert found.is_new
        assert (found.cause, found.reason, found.set_by) == ("level", "still away", "w")
    assert lengths == [10, 60, 600, 600]
    assert found.level == level(store) == 5
    assert store.pauses.state("api") == ClientState(5, pausing=found)


@pytest.mark.rows("SC-18")
@pytest.mark.parametrize(("cause", "when", "seconds"), [("asked", 90.0, 90), ("enforced", 900, 900), ("enforced", None, None)])
def test_a_probe_hears_how_long(store: JobStore, cause: str, when: float | None, seconds: float | None) -> None:
    """Where the API or the policy says how long, it is that long, and the level stays."""
    trouble(store)
    run_out(store)
    found = end_probe(store, probe(store), False, when=when, cause=cause)
    assert found is not None
    assert (found.cause, found.level, level(store)) == (cause, 1, 1)
    if seconds is None:
        assert found.until is None
    else:
        assert found.until is not None
        assert round((found.until - found.started_at).total_seconds()) == seconds
    moment = store.views.now() + timedelta(hours=5)
    run_out(store)
    if seconds is not None:
        found = end_probe(store, probe(store), False, when=moment, cause=cause)
        assert found is not None
        assert found.until == moment


def test_the_level_falls_step_by_step(store: JobStore) -> None:
    """A good probe takes one level off, and none where there is none; the errors are forgotten."""
    store.pauses.record_answers("api", [True], after=3, durations=[10], reason="", set_by="w")
    store.pauses.open("api", 0, cause="asked", reason="", set_by="w")
    assert end_probe(store, probe(store), True)
    assert query(store, "SELECT errors, level FROM client") == [{"errors": 0, "level": 0}]
    trouble(store)
    for _ in range(3):
        run_out(store)
        end_probe(store, probe(store), False)
    run_out(store)
    assert level(store) == 4
    end_probe(store, probe(store), True)
    assert level(store) == 3


def test_nobody_answered(reopening: JobStore) -> None:
    """The right is free at once, and nothing else has changed."""
    of = probe(reopening)
    (job,) = claim(reopening, of)
    assert finish(reopening, done(job, Snooze(60))) == ["queued"]
    assert end_probe(reopening, of, None) is None
    standing = reopening.pauses.state("api")
    assert standing.reopening is not None
    assert (standing.generation, level(reopening)) == (1, 1)
    assert take(reopening) == []
    # What it says after that is nobody's word any more.
    assert claim(reopening, of) == []
    assert end_probe(reopening, of, True) is None
    assert reopening.pauses.state("api") == standing
    second = probe(reopening)
    assert second.token == 2
    assert [one.key for one in claim(reopening, second)] == ["b"]


@pytest.mark.rows("T15", "M8")
def test_a_silent_prober_loses_its_right(reopening: JobStore) -> None:
    """When its lease has ended the next one may try; what the first one says then, changes nothing (fence)."""
    first = probe(reopening, lease=30)
    assert len(claim(reopening, first)) == 1
    late(reopening)
    assert [one.probes for one in reopening.probes.due()] == [1]
    second = probe(reopening, lease=30)
    assert (second.pause_id, second.token, second.generation) == (first.pause_id, 2, first.generation)
    assert claim(reopening, first) == []
    assert not reopening.probes.renew(first, lease=60)
    for well in (None, False, True):
        assert end_probe(reopening, first, well) is None
    assert reopening.probes.due() == [], "the second one has lost its right to the first"
    assert [one.key for one in claim(reopening, second)] == ["b"]
    assert end_probe(reopening, second, True) is not None
    assert end_probe(reopening, second, False) is None
    assert reopening.pauses.state("api") == ClientState(2)


def test_a_lease_that_nobody_took(reopening: JobStore) -> None:
    """A probe that took longer than its lease counts all the same, as long as no other was begun."""
    of = probe(reopening, lease=30)
    late(reopening)
    assert len(claim(reopening, of)) == 1
    assert reopening.probes.renew(of, lease=30)
    assert reopening.probes.due() == []
    late(reopening)
    assert end_probe(reopening, of, True) is not None
    assert not reopening.probes.renew(of, lease=30)


_PROBER = """
import sys, time
from jobs import Database, JobStore
from jobs.job import Lane
from jobs.process_identity import this_worker
store = JobStore(Database(sys.argv[1]))
of = store.probes.begin("api", worker=this_worker(), lease=3600)
assert of is not None
assert len(store.probes.claim_job(of, [Lane("default", "api", "api.things")], worker=this_worker(), lease=3600)) == 1
print("probing", flush=True)
time.sleep(60)
"""


@pytest.mark.rows("T15", "E-03")
def test_a_dead_prober_loses_its_right_at_once(reopening: JobStore, database_url: str) -> None:
    """On its own host nobody waits for the lease of a process that was killed; its job is taken back and tried again."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROBER, database_url], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "probing\n"
        assert reopening.probes.begin("api", worker="w", lease=60) is None
        assert reopening.probes.due() == []
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [one.client for one in reopening.probes.due()] == ["api"]
    of = probe(reopening)
    assert of.token == 2
    # The job that was in the dead one's hands comes back as a suspect, and waits until the others were tried.
    assert [claim(reopening, of)[0].key for _ in range(3)] == ["b", "c", "a"]
    assert claim(reopening, of) == []


@pytest.mark.rows("M8")
def test_a_person_against_a_probe(reopening: JobStore) -> None:
    """Who resumes or pauses during a probe has the last word: its answer is late, whatever it says."""
    of = probe(reopening)
    (job,) = claim(reopening, of)
    assert reopening.pauses.resume("api", by="ada")
    assert end_probe(reopening, of, False) is None
    assert (
        reopening.pauses.record_answers(
            "api", [True] * 3, after=3, durations=[9], reason="", set_by="w", generation=job.client_generation
        )
        is None
    )
    assert reopening.pauses.state("api") == ClientState(2)
    assert level(reopening) == 0

    reopening.pauses.open("api", 0, cause="asked", reason="", set_by="w")
    of = probe(reopening)
    paused = reopening.pauses.open("api", None, cause="person", reason="we move", set_by="ada")
    assert claim(reopening, of) == []
    assert end_probe(reopening, of, True) is None
    assert reopening.pauses.current("api") == paused
    assert [one.ended_by for one in reopening.pause_history.latest()] == [None, "ada", "ada"]


def test_a_window_that_begins_before_the_probe(reopening: JobStore) -> None:
    """A pause that has run out does not count against a shorter one that begins now; the level waits for the probe after it."""
    of = probe(reopening)
    found = reopening.pauses.open("api", 5, cause="window", reason="nightly", set_by="w", generation=None)
    assert found is not None
    assert (found.is_new, found.level) == (True, 1)
    assert end_probe(reopening, of, True) is None
    run_out(reopening)
    assert end_probe(reopening, probe(reopening), True) is not None
    assert level(reopening) == 0


def test_the_job_of_a_probe_is_the_one_that_is_next(reopening: JobStore) -> None:
    """In the order of every claim: urgent first, over all lanes; not of another client, and not before its time."""
    reopening.enqueue([NewJob(OTHER, {"n": n}, priority=n) for n in (1, 7, 3)] + [NewJob(STRANGER, {}, priority=99)])
    of = probe(reopening)
    (job,) = claim(reopening, of, LANE, OTHER, STRANGER)
    assert (job.lane, job.payload) == (OTHER, {"n": 7})
    assert claim(reopening, of, STRANGER) == claim(reopening, of, Lane("q", "api", "t")) == []
    change(reopening, "UPDATE job SET available_at = '2999-01-01 00:00:00.000000+00' WHERE state = 'queued'")
    assert claim(reopening, of, LANE, OTHER) == []
    bring_forward(reopening)
    assert [claim(reopening, of, LANE, OTHER)[0].payload for _ in range(2)] == [{"n": 3}, {"n": 1}]


@pytest.mark.parametrize("queue", [Queue("default", concurrency=1), Queue("default", concurrency=9, rate=Rate(1, 3600))])
def test_the_limits_of_the_queue_hold(store: JobStore, queue: Queue) -> None:
    """A probe's job takes a place and counts as a start; where there is none, the probe has no job, and keeps its right."""
    enqueue(store, "abc")
    enqueue(store, ["s"], STRANGER)
    store.queues.register(queue, declared=True)
    trouble(store)
    run_out(store)
    (stranger,) = take(store, 5, STRANGER)
    of = probe(store)
    assert claim(store, of) == []
    assert store.probes.due() == []
    if queue.rate is None:
        finish(store, done(stranger))
        assert len(claim(store, of)) == 1
        assert claim(store, of) == []


def test_serial_keys_hold(store: JobStore) -> None:
    """A job that is out of turn is no probe's either."""
    store.enqueue([NewJob(LANE, {"n": n}, serial_key="k") for n in range(2)])
    (first,) = take(store)
    trouble(store)
    run_out(store)
    of = probe(store)
    assert claim(store, of) == []
    finish(store, done(first))
    assert [job.payload for job in claim(store, of)] == [{"n": 1}]


def test_a_probe_rescues_too(reopening: JobStore) -> None:
    """A job whose worker went silent is taken back by the claim of a probe, as by any other."""
    of = probe(reopening)
    (job,) = claim(reopening, of)
    expire(reopening)
    assert [claim(reopening, of)[0].key for _ in range(3)] == ["b", "c", "a"]
    assert row(reopening, job.id)["rescues"] == 1


def test_clients_have_probes_of_their_own(reopening: JobStore) -> None:
    """Two clients in one queue reopen side by side."""
    reopening.pauses.open("b", 0, cause="asked", reason="", set_by="w")
    assert [one.client for one in reopening.probes.due()] == ["api", "b"]
    one, other = probe(reopening), probe(reopening, "b")
    assert claim(reopening, one, LANE, STRANGER)[0].key == "a"
    assert claim(reopening, other, LANE, STRANGER)[0].key == "s"
    end_probe(reopening, one, False)
    end_probe(reopening, other, True)
    assert (reopening.pauses.current("api") is None, reopening.pauses.state("b")) == (False, ClientState(2))


def together(executors: list[Callable[[], object]]) -> list[object]:
    """Do all at the same moment; return the results."""
    barrier = threading.Barrier(len(executors))
    found: list[object] = []

    def run(work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001  # the test must see it
            found.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in executors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [one for one in found if isinstance(one, BaseException)]
    assert not errors, errors
    return found


@pytest.mark.rows("T15", "M8")
def test_many_probers_race(open_store: Callable[..., JobStore]) -> None:
    """Eight ask at the same moment, from two processes' worth of stores: one gets it each time, a new one or one that ran out."""
    stores = [open_store() for _ in range(2)]
    store = stores[0]
    trouble(store)
    run_out(store)
    tokens = []
    for turn in range(15):
        executors = [lambda n=n: stores[n % 2].probes.begin("api", worker=f"w{n}", lease=60) for n in range(8)]
        found = [one for one in together(executors) if one is not None]
        assert len(found) == 1, f"turn {turn}: {found}"
        tokens.append(found[0].token)
        if turn % 2:
            late(store)
        else:
            end_probe(store, found[0], None)
    assert tokens == list(range(1, 16))


@pytest.mark.rows("T15", "M8")
def test_answers_race(open_store: Callable[..., JobStore]) -> None:
    """A probe's end, both ways, a person's resume and a late answer at the same moment: one of them has ended the pause."""
    stores = [open_store() for _ in range(2)]
    store = stores[0]
    for _ in range(20):
        store.pauses.resume("api", by="me")
        before = store.pauses.state("api").generation
        pausing = trouble(store)
        run_out(store)
        of = probe(store)
        ended: dict[str, bool] = {}

        def well(of: Probe = of, ended: dict[str, bool] = ended) -> None:
            ended["probe"] = end_probe(store, of, True) is not None

        def bad(of: Probe = of, ended: dict[str, bool] = ended) -> None:
            ended["level"] = end_probe(stores[1], of, False) is not None

        def late_answer(before: int = before) -> object:
            return stores[1].pauses.open("api", 9, cause="asked", reason="", set_by="w", generation=before)

        together([well, bad, lambda: store.pauses.resume("api", by="ada"), late_answer])
        rows = store.pause_history.latest("api")
        (mine,) = [one for one in rows if one.id == pausing.id]
        assert [name for name, it_did in ended.items() if it_did] == ([] if mine.ended_by == "ada" else [mine.ended_by])
        assert len([one for one in rows if one.ended_at is None]) <= 1
        assert not [one for one in rows if one.cause == "asked"], "a late answer began a pause"


@pytest.mark.rows("I9", "M8")
def test_a_person_pauses_in_the_middle_of_a_probes_claim(open_store: Callable[..., JobStore]) -> None:
    """The pause waits for the claim that was there first; after its commit no probe takes a job, however far it had come."""
    store, other = open_store(), open_store()
    enqueue(store, "ab")
    store.pauses.open("api", 0, cause="asked", reason="", set_by="w")
    of = probe(store)
    is_paused = threading.Event()
    came_first: list[bool] = []

    def pauses() -> None:
        other.pauses.open("api", None, cause="person", reason="", set_by="ada")
        is_paused.set()

    person = threading.Thread(target=pauses)

    def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "UPDATE job" in statement and not person.ident:
            person.start()
            came_first.append(is_paused.wait(0.5))

    event.listen(store.db.engine, "before_cursor_execute", before)
    assert len(claim(store, of)) == 1
    person.join()
    event.remove(store.db.engine, "before_cursor_execute", before)
    assert came_first == [False], "a job was taken after the commit of the pause"
    assert claim(store, of) == []
