"""jobs.claiming.claim on both databases: who gets which job, and who gives it back."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs import Failure, JobStore, Snooze
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Lane
from tests.support.store_helpers import (
    AT_ONCE,
    ELSEWHERE,
    LANE,
    OTHER,
    ManualClock,
    bring_forward,
    change,
    done,
    end_probe,
    enqueue,
    expire,
    finish,
    outcomes,
    probe,
    query,
    row,
    run_out,
    run_python,
    states,
    take,
    take_one,
)

SLOW = Lane("slow", "api", "api.slow")
STRANGER = Lane("default", "other-api", "other.things")


def test_a_claim_marks_the_job(store: JobStore) -> None:
    """A claimed job is processing, names its worker and has a lease; the claim carries what the work needs."""
    enqueue(store, ["a"])
    job = take_one(store, lease=60)
    assert (job.key, job.lane, job.payload, job.claim_no, job.attempt) == ("a", LANE, {"version": None, "data": None}, 1, 1)
    detail = store.views.job(job.id)
    assert (detail.job.state, detail.worker, detail.claim_no) == ("processing", ELSEWHERE, 1)
    assert detail.lease_until is not None
    assert 50 < (detail.lease_until - store.views.now()).total_seconds() <= 60
    assert take(store) == []


@pytest.mark.rows("E-19", "QA-03")
def test_order_is_priority_then_due_then_first_come(store: JobStore) -> None:
    """Urgent first, then what is due longest, then what came first."""
    enqueue(store, ["low-late", "low-early", "low-also-late"])
    enqueue(store, ["high-late", "high-early"], priority=5)
    enqueue(store, ["lowest"], priority=-1)
    for key, second in (
        ("low-late", 5),
        ("low-early", 1),
        ("low-also-late", 5),
        ("high-late", 9),
        ("high-early", 8),
        ("lowest", 0),
    ):
        change(store, f"UPDATE job SET available_at = '2020-01-01 00:00:0{second}.000000+00' WHERE key = :key", key=key)
    expected = ["high-early", "high-late", "low-early", "low-late", "low-also-late", "lowest"]
    assert [job.key for job in take(store, 3) + take(store, 3)] == expected


def test_no_more_than_asked_for(store: JobStore) -> None:
    """A claim takes at most n; of nothing it takes nothing."""
    enqueue(store, range(10))
    assert [len(take(store, n)) for n in (0, -1, 3, 100, 1)] == [0, 0, 3, 7, 0]
    assert store.claim([], 5, worker=ELSEWHERE, lease=60) == []


def test_delayed_jobs_wait(store: JobStore) -> None:
    """A job is not claimed before its time, and is at its time."""
    enqueue(store, ["a", "b"])
    job = take_one(store)
    assert finish(store, done(job, Snooze(3600))) == ["queued"]
    assert [one.key for one in take(store)] == ["b"]
    assert store.views.lane(LANE).delayed == 1
    bring_forward(store)
    assert [one.key for one in take(store)] == ["a"]


def test_a_paused_client_waits_and_others_go_on(store: JobStore) -> None:
    """The claim reads the pause; jobs stay queued, and nobody has to end the pause but the clock or a person."""
    enqueue(store, ["a"])
    enqueue(store, ["s"], STRANGER)
    store.pauses.open("api", None, cause="person", reason="maintenance", set_by="me")
    assert [job.key for job in take(store, 10, LANE, STRANGER)] == ["s"]
    assert take(store) == []
    assert store.pauses.resume("api", by="me")
    assert [job.key for job in take(store, 10, LANE, STRANGER)] == ["a"]


@pytest.mark.rows("SC-29", "M8")
def test_urgent_jobs_of_a_paused_client_hide_nobody(store: JobStore) -> None:
    """However many and however urgent: a claim over both takes the other's at once, also while the pause waits for its probe."""
    store.enqueue([NewJob((LANE, OTHER)[priority % 2], {}, priority=priority) for priority in range(1, 40)])
    enqueue(store, ["s", "t"], STRANGER)
    store.pauses.open("api", 60, cause="asked", reason="", set_by="me")
    assert [job.key for job in take(store, 1, LANE, OTHER, STRANGER)] == ["s"]
    run_out(store)
    assert [job.key for job in take(store, 1, LANE, OTHER, STRANGER)] == ["t"]


def test_a_pause_ends_by_the_clock(store: JobStore) -> None:
    """Nobody has to end a pause; at its end one probe may go, and the others wait for what it finds."""
    enqueue(store, ["a", "b"])
    store.pauses.open("api", store.views.now() + timedelta(hours=1), cause="asked", reason="", set_by="me")
    assert take(store) == []
    run_out(store)
    assert store.pauses.current("api") is None
    assert take(store) == []
    of = probe(store)
    (job,) = store.probes.claim_job(of, [LANE], worker="w", lease=60)
    assert take(store) == []
    assert finish(store, done(job)) == ["success"]
    assert end_probe(store, of, True)
    assert len(take(store)) == 1


def test_lanes_of_equal_priority_share(store: JobStore) -> None:
    """A long lane does not hide a short one, in whichever order they are asked for."""
    enqueue(store, range(50))
    enqueue(store, ["x", "y"], OTHER)
    assert Counter(job.lane for job in take(store, 10, OTHER, LANE)) == {OTHER: 2, LANE: 8}
    enqueue(store, range(100, 150), OTHER)
    assert Counter(job.lane for job in take(store, 10, LANE, OTHER)) == {LANE: 5, OTHER: 5}
    for _ in range(2):
        # Who began the last claim does not begin the next one.
        assert sorted(Counter(job.lane for job in take(store, 3, LANE, OTHER)).values()) == [1, 2]
    assert Counter(take(store, 1, LANE, OTHER)[0].lane for _ in range(4)) == {LANE: 2, OTHER: 2}


def test_priority_counts_across_lanes(store: JobStore) -> None:
    """The lane whose first job is more urgent goes first."""
    enqueue(store, range(20))
    enqueue(store, ["x", "y"], OTHER, priority=1)
    assert [job.key for job in take(store, 1, LANE, OTHER)] == ["x"]
    assert Counter(job.lane for job in take(store, 5, LANE, OTHER)) == {OTHER: 1, LANE: 4}


def test_suspects_are_claimed_apart(store: JobStore) -> None:
    """What was in a dying worker's hands is not taken with the others."""
    enqueue(store, range(5))
    expire(store, *take(store, 2))
    assert store.rescues.run(["default"]) == 2
    assert [job.key for job in take(store)] == ["2", "3", "4"]
    assert [job.key for job in take(store, 1, suspects=True)] == ["0"]
    assert [(job.key, job.rescues) for job in take(store, suspects=True)] == [("1", 1)]


@pytest.mark.rows("QA-05", "E-50", "QA-02")
def test_an_expired_lease_goes_back_with_the_next_claim(open_store: Any) -> None:
    """Rescue is part of claiming: no leader, no restart; the attempt is written, and none is used (law 4)."""
    store = open_store()
    enqueue(store, ["a"])
    job = take_one(store)
    expire(store)
    other = open_store()
    (again,) = take(other, suspects=True, worker="elsewhere:4712:1:1")
    assert (again.id, again.claim_no, again.attempts, again.rescues) == (job.id, 2, 0, 1)
    assert outcomes(store, job.id) == ["rescued"]
    assert store.views.job(job.id).attempts[0].worker == ELSEWHERE
    assert finish(store, done(job)) == ["lost"]
    assert finish(other, done(again)) == ["success"]


def test_every_queue_is_looked_at(open_store: Any) -> None:
    """A process that claims from two queues in turn rescues in both."""
    store, other = open_store(), open_store()
    enqueue(store, ["a"])
    enqueue(store, ["s"], SLOW)
    for lane in (LANE, SLOW):
        job = take_one(store, lane)
        expire(store, job)
        assert len(take(other, 1, lane, suspects=True)) == 1


def test_a_lease_that_runs_is_left_alone(store: JobStore) -> None:
    """Another host's job is nobody's business before its lease has ended."""
    enqueue(store, ["a"])
    take_one(store, lease=60)
    assert store.rescues.run(["default"]) == 0


def test_jobs_of_a_dead_process_of_this_host_go_back_at_once(store: JobStore) -> None:
    """A process that is known to be gone holds no lease, however long it runs."""
    gone = run_python("from jobs.process_identity import this_worker; print(this_worker())").stdout.strip()
    enqueue(store, ["a"])
    job = take_one(store, worker=gone, lease=3600)
    assert store.rescues.run(["default"]) == 1
    assert row(store, job.id)["state"] == "queued"


@pytest.mark.rows("AQ-39", "E-04")
def test_a_job_that_takes_its_workers_along_is_poison(store: JobStore) -> None:
    """After k rescues the job ends as a failure, though it has retries left."""
    enqueue(store, ["a", "b"])
    for rescue in range(1, 4):
        (job,) = take(store, 1, suspects=rescue > 1)
        expire(store)
        assert store.rescues.run(["default"]) == 1
        assert row(store, job.id)["rescues"] == rescue
    found = row(store, job.id)
    assert (found["state"], found["attempts"]) == ("failure", 0)
    assert found["message"].startswith("poison: 3 workers died")
    assert found["finished_at"] is not None
    assert outcomes(store, job.id) == ["rescued"] * 3
    assert [one.key for one in take(store)] == ["b"]


def test_renew_returns_what_is_still_held(store: JobStore) -> None:
    """One statement extends all leases; those of other claims, ended jobs and unknown ids are missing from the answer."""
    enqueue(store, range(4))
    held, lost, ended, stale = jobs = take(store, 4, lease=30)
    assert len(jobs) == 4
    finish(store, done(ended))
    expire(store, lost)
    store.rescues.run(["default"])
    claims = [(stale.id, stale.claim_no + 1), (99_999, 1), (ended.id, 1), (lost.id, 1), (held.id, 1)]
    assert store.renew(claims, lease=600) == {held.id}
    assert store.renew([], lease=600) == set()
    assert (store.views.job(held.id).lease_until - store.views.now()).total_seconds() > 590  # type: ignore[operator]  # it has one
    assert (store.views.job(stale.id).lease_until - store.views.now()).total_seconds() <= 30  # type: ignore[operator]  # it has one


def test_release_gives_back_without_an_attempt(store: JobStore) -> None:
    """Unworked jobs are available at once; what is another's by now stays there."""
    enqueue(store, ["a", "b"])
    mine, lost = take(store, 2)
    expire(store, lost)
    store.rescues.run(["default"])
    (new,) = take(store, suspects=True)
    assert store.release([mine, lost], reason="shutting down") == 1
    assert row(store, new.id)["state"] == "processing"
    found = row(store, mine.id)
    assert (found["state"], found["attempts"], found["message"]) == ("queued", 0, "shutting down")
    assert outcomes(store, mine.id) == ["released"]
    (again,) = take(store)
    assert (again.id, again.claim_no) == (mine.id, 2)


def test_sqlite_takes_its_time_from_the_clock_it_was_given(tmp_path: Any) -> None:
    """An injected clock decides what is due and what has expired; a step back delays, and doubles nothing (T8)."""
    clock = ManualClock()
    store = JobStore.open(f"sqlite:///{tmp_path}/a.db", clock=clock)
    enqueue(store, ["a"])
    assert store.views.now() == clock()
    clock.forward(-600)
    assert take(store) == []
    clock.forward(600)
    job = take_one(store, lease=60)
    clock.forward(-600)
    assert store.rescues.run(["default"]) == 0
    clock.forward(600 + 59)
    assert store.rescues.run(["default"]) == 0
    clock.forward(2)
    assert store.rescues.run(["default"]) == 1
    assert finish(store, done(job)) == ["lost"]
    assert finish(store, done(take_one(store, suspects=True), Snooze(clock() + timedelta(hours=1)))) == ["queued"]
    clock.forward(3599)
    assert take(store, suspects=True) == []
    clock.forward(1)
    assert take_one(store, suspects=True).key == "a"
    store.close()


def test_postgresql_asks_no_host_for_the_time(open_store: Any, dialect: str) -> None:
    """The clock of a worker's host does not matter there: a wrong one neither claims early nor rescues (T8)."""
    store = open_store(clock=ManualClock())
    enqueue(store, ["a"])
    job = take_one(store, lease=60)
    away = abs((store.views.now() - datetime.now(UTC)).total_seconds())
    assert (away < 60) == (dialect == "postgresql")
    other = open_store(clock=lambda: store.db.clock() + timedelta(minutes=10))
    assert other.rescues.run(["default"]) == (dialect == "sqlite")
    assert finish(store, done(job)) == ["success" if dialect == "postgresql" else "lost"]


def test_eight_threads_share_four_thousand_jobs(store: JobStore) -> None:
    """Each job is claimed and finished exactly once, however many claim at the same time."""
    enqueue(store, range(4000))
    seen: list[int] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while jobs := take(store, 50):
                settled = store.finish([done(job) for job in jobs])
                seen.extend(one.job.id for one in settled if one.state == "success")
        except BaseException as error:  # noqa: BLE001  # the test must see it
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(seen) == len(set(seen)) == 4000
    assert states(store) == {"success": 4000}
    assert query(store, "SELECT max(claim_no) AS n FROM job") == [{"n": 1}]


def test_a_claim_takes_no_more_than_n_under_contention(store: JobStore) -> None:
    """The limit holds while others claim, too."""
    enqueue(store, range(600))
    sizes: list[int] = []

    def work() -> None:
        while jobs := take(store, 7):
            sizes.append(len(jobs))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(sizes) <= 7
    assert sum(sizes) == 600


@pytest.mark.parametrize("retry", [AT_ONCE])
def test_a_retry_is_claimed_again_with_the_next_number(store: JobStore, retry: Any) -> None:
    """Each claim has its own number, and the retry knows what went before."""
    enqueue(store, ["a"])
    for number in range(1, 5):
        job = take_one(store)
        assert (job.claim_no, job.attempts, job.retries) == (number, number - 1, number - 1)
        state = finish(store, done(job, Failure("no"), retry=retry))
        assert state == ["queued" if number < 4 else "failure"]
    assert outcomes(store, job.id) == ["retry", "retry", "retry", "failure"]
