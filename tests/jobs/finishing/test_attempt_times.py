"""The times of attempts, and the bounds of putting a job back without using one."""

import time
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from jobs import Failure, JobStore, Pause, Retry, Snooze
from jobs.finishing.transition import finished
from jobs.job import Job, Lane, Verdict
from jobs.retry import FREE_SNOOZES, LEAST_SNOOZE
from tests.support.fake_remote import System, client, drain, orders, query, queue, states, until, working

LANE = Lane("q", "c", "t")


def job(snoozes: int) -> Job:
    """Return a claimed job that was put back so often."""
    return Job(7, LANE, None, None, None, None, 1, 0, 0, 0, snoozes=snoozes)


def test_an_attempt_starts_when_its_job_begins(store: JobStore) -> None:
    """Not when it was claimed: a job that waited for its thread was not worked meanwhile."""
    kind = orders(client(System(slow=0.05)), concurrency=1)
    queue(store, kind, 8)
    drain(store, kind)
    rows = query(store, "SELECT started_at, ended_at FROM attempt ORDER BY started_at")
    moments = [[datetime.fromisoformat(str(row[name])) for name in ("started_at", "ended_at")] for row in rows]
    # All were claimed at once, and each began when the one before it had ended.
    assert (moments[-1][0] - moments[0][0]).total_seconds() > 7 * 0.04
    assert all((end - begin).total_seconds() > 0.03 for begin, end in moments)


def test_phases_start_one_after_the_other(store: JobStore) -> None:
    """Each phase under one claim is an attempt with a start of its own."""

    def slow(job: Any, system: System) -> None:
        time.sleep(0.05)

    kind = orders(client(System()), process={"a": slow, "b": slow}, phases=("a", "b"), concurrency=1)
    queue(store, kind, 3)
    drain(store, kind)
    starts = [datetime.fromisoformat(str(row["started_at"])) for row in query(store, "SELECT started_at FROM attempt")]
    starts.sort()
    assert len(starts) == 6
    assert (starts[-1] - starts[0]).total_seconds() > 5 * 0.04


def test_a_job_that_is_put_back_at_once_again_and_again_is_slowed_down(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred times it is at once, as a job that does its work in small pieces needs it; then ten times a second at most."""
    assert (FREE_SNOOZES, LEAST_SNOOZE) == (100, 0.1)
    few = 20
    monkeypatch.setattr("jobs.finishing.transition.FREE_SNOOZES", few)
    passes: list[float] = []

    def process(job: Any, system: System) -> Any:
        passes.append(time.monotonic())
        return Snooze(0, "more") if len(passes) < few + 4 else None

    kind = orders(client(System()), process=process)
    queue(store, kind, 1)
    with working(store, kind):
        until(lambda: states(store) == {"success": 1})
    gaps = [later - earlier for earlier, later in pairwise(passes)]
    assert min(gaps[few:]) >= LEAST_SNOOZE * 0.9
    assert min(gaps[:few]) < LEAST_SNOOZE


@pytest.mark.parametrize("outcome", [Snooze(60, "not yet"), Pause(60, "not yet")])
def test_what_is_put_back_without_end_fails(outcome: Any) -> None:
    """`Retry(max_snoozes=…)`; the failure says so."""
    policy = Retry(max_snoozes=100)
    assert finished(job(99), Verdict(outcome), policy).state == "queued"
    change = finished(job(100), Verdict(outcome), policy)
    assert change.state == "failure"
    assert "100 times" in change.message
    assert "not yet" in change.message
    assert finished(job(100), Verdict(Failure("no")), policy).state == "queued"


def test_snoozes_are_read_with_the_claim(store: JobStore) -> None:
    """So that each worker knows how often a job was put back by others."""
    kind = orders(client(System()), process=lambda job, system: Snooze(0), retry=Retry(max_snoozes=3))
    queue(store, kind, 1)
    drain(store, kind)
    assert query(store, "SELECT state, snoozes, attempts FROM job") == [{"state": "failure", "snoozes": 3, "attempts": 1}]
