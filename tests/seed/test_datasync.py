"""DataSync, row by row: job types on many servers, in phases, at intervals, with their defaults overridden."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobs import JobStore, Retry, Snooze, Success
from jobs.job import JobResult, Verdict
from tests.support.seed_helpers import AT_ONCE, Log, Project, add, drain, kind, lane, states, take, together, wait

TYPE = """
from contextlib import nullcontext
from flows import Client, JobType

def process(job, _):
    with open("worked", "a") as file:
        print(job.type, job.payload["feed"], file=file)

feeds = Client("feeds", connect=lambda _: nullcontext())
for name in ("news", "blogs"):
    globals()[name] = JobType(f"feeds.{name}", feeds, process=process, queue=name)
"""


@pytest.mark.rows("DS-02", "DS-16")
def test_jobs_come_back_at_their_intervals(store: JobStore) -> None:
    """Each source has its own interval: one is due in a minute, another in an hour; an interval of 0 is as fast as possible."""
    log = Log(answer=lambda job: Snooze(job.payload["every"]) if len(log.payloads) < 7 else None)
    feeds = kind(log)
    minute, hour, none = (add(store, feeds, {"every": every})[0] for every in (60, 3600, 0))
    drain(store, feeds)
    assert 0 < wait(store, minute) <= 60
    assert 3500 < wait(store, hour) <= 3600
    assert log.payloads == [{"every": 60}, {"every": 3600}, *[{"every": 0}] * 5]
    assert store.views.job(none).job.state == "success"


@pytest.mark.rows("DS-03", "DS-17", "E-64", "E-68")
def test_job_types_are_registered_added_and_run(here: Project) -> None:
    """A file that makes job types in a loop, `enqueue`, and `work --until-empty` from any cron: all queues are worked."""
    here.write(TYPE)
    for name in ("news", "blogs"):
        assert here.syncs("enqueue", f"feeds.{name}", '{"feed": "daily"}')[0] == 0
    code, out, _ = here.syncs("work", "--until-empty")
    assert (code, out.split(" jobs")[0]) == (0, "Processed 2")
    assert sorted((here.folder / "worked").read_text().splitlines()) == ["feeds.blogs daily", "feeds.news daily"]
    assert here.syncs("work", "--until-empty")[1].startswith("Processed 0 jobs")


@pytest.mark.rows("DS-05", "E-41")
def test_defaults_are_overridden_without_a_subclass(store: JobStore) -> None:
    """What happens at an error, after a timeout, which phase is next and who is claimed first: each is a field of the type."""

    def fails(job: Any, _: Any) -> None:
        calls.append(job.phase or job.payload)
        if job.payload == "error":
            raise KeyError("x")
        if job.payload == "hang":
            over.wait(60)

    calls: list[str] = []
    over = threading.Event()
    base = kind(fails)
    (plain,) = add(store, base, "error")
    drain(store, base)
    assert (calls, store.views.job(plain).job.state) == (["error"], "failure")
    retry_database = replace(base, retry=replace(AT_ONCE, on=(KeyError,)))
    add(store, retry_database, "error")
    drain(store, retry_database)
    assert calls == ["error"] * 4
    quick = replace(base, timeout=0.2, retry=Retry(1, delay=600, jitter=False))
    (hung,) = add(store, quick, "hang")
    drain(store, quick)
    over.set()
    assert store.views.job(hung).job.message == "timed out after 0.2 s"
    assert 500 < wait(store, hung) <= 600

    calls.clear()
    phased = replace(base, phases=("fetch", "save"), process={"fetch": fails, "save": fails})
    for one in (phased, replace(phased, phases=("save", "fetch"))):
        add(store, one, "phases")
        drain(store, one)
    assert calls == ["fetch", "save", "save", "fetch"]

    calls.clear()
    add(store, base, "normal")
    add(store, replace(base, priority=5), "urgent")
    drain(store, base)
    assert calls == ["urgent", "normal"]


@pytest.mark.rows("DS-15")
def test_nothing_is_said_to_be_nothing(here: Project) -> None:
    """Where a list is empty it says so, and what to do."""
    said = {
        "list": "nothing is declared",
        "queues": "no jobs yet",
        "jobs": "no such jobs",
        "pauses": "no client is paused",
        "locks": "no lock is held",
    }
    for command, words in said.items():
        code, out, err = here.syncs(command)
        assert (code, out, len(err.splitlines())) == (0, "", 1), command
        assert words in err


@pytest.mark.rows("DS-18", "E-100")
def test_a_singleton_is_worked_on_one_machine_at_a_time(store: JobStore, open_store: Callable[..., JobStore]) -> None:
    """While one machine has a job of the type, another gets none; together they never work two at once."""
    log = Log(0.02)
    only = kind(log, serial=lambda _: "one")
    add(store, only, *range(12))
    second = open_store()
    (held,) = take(store, only, 10)
    assert take(second, only, 10, worker="other:1:1:1") == []
    store.finish([JobResult(held, Verdict(Success()), Retry())])
    results = together(*[lambda own=own: drain(own, only, concurrency=4) for own in (store, second)])  # type: ignore[misc]
    # Who finds the place taken does not wait for it: it is the other's job.
    assert sum(result.processed for result in results) == 11
    assert (log.most, log.payloads) == (1, list(range(1, 12)))


@pytest.mark.slow
@pytest.mark.rows("DS-19")
def test_a_long_queue_is_worked_to_its_end_and_claims_stay_quick(store: JobStore, chaos: Any) -> None:
    """Many jobs are all worked, and a claim from them takes no longer than one from few; 180,000 with `--long`."""

    def claims() -> float:
        times = []
        for _ in range(15):
            began = time.perf_counter()
            jobs = store.claim([lane(trivial)], 20, worker="elsewhere:1:1:1", lease=60)
            times.append(time.perf_counter() - began)
            store.finish([JobResult(job, Verdict(Success()), Retry()) for job in jobs])
        return min(times)

    trivial = kind(Log())
    many = chaos.scaled(12_000, 180_000)
    add(store, trivial, *range(400))
    few = claims()
    for _ in range(many // 6000):
        add(store, trivial, *range(6000))
    assert claims() < 6 * few
    drain(store, trivial, concurrency=8)
    assert [(view.queued, view.success) for view in store.views.queues()] == [(0, many + 400)]
    chaos.tell("a long queue", jobs=many + 400, trouble=0)


@pytest.mark.rows("DS-11")
def test_parallel_jobs_on_one_counter(store: JobStore) -> None:
    """Twenty jobs at once add one each to one row: it is twenty."""
    from sqlalchemy import text

    def process(job: Any, _: Any) -> None:
        job.session.execute(text("UPDATE lock SET token = token + 1 WHERE name = 'counter'"))

    store.locks.acquire("counter", owner="x", lease=600)
    counting = kind(process, concurrency=20, retry=Retry(20, delay=0))
    add(store, counting, *range(20))
    drain(store, counting, concurrency=20)
    assert states(store) == {"success": 20}
    assert [one.token for one in store.locks.all()] == [21]
