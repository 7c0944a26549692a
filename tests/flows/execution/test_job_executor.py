"""`flows.execution.job_executor`: what becomes of one job of a job type, whatever its code does."""

import logging
import threading
import time
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from sqlalchemy import text

from clients import AuthRefusedError, GoneError, HttpClient, RateLimitedError, RejectedError, ServerError
from flows.enqueue import enqueue
from flows.events import subscribe
from flows.execution.failure_report import report_poisoned
from flows.execution.job_executor import JobExecutor
from jobs import Failure, Gone, JobStore, Pause, Retry, Snooze, Success, Unchanged
from jobs.claiming.poison import PoisonJob
from jobs.db.job_session import current_session
from jobs.job import Job, JobResult, Lane
from tests.support.job_bench import Bench, FixedConnections, serving, write


@pytest.fixture
def bench(store: JobStore) -> Bench:
    """A bench on a fresh database."""
    return Bench(store)


# -- outcomes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("came", "state", "outcome"),
    [
        (None, "success", "success"),
        (Success("42 rows"), "success", "success"),
        (Unchanged(), "success", "unchanged"),
        (Gone(), "success", "gone"),
        (Failure("no"), "queued", "retry"),
        (Failure("no", retry=False), "failure", "failure"),
        (Snooze(5, "later"), "queued", "snooze"),
        (Pause(60, "down"), "queued", "pause"),
    ],
)
@pytest.mark.rows("AQ-06", "AQ-07", "AQ-53")
def test_what_process_returns_is_stored(bench: Bench, came: Any, state: str, outcome: str) -> None:
    """Each outcome leads to its state and its attempt, with its message."""
    settled = bench.run(lambda job, connection: came)
    assert settled.state == state
    detail = bench.store.views.job(settled.job.id)
    assert [one.outcome for one in detail.attempts] == [outcome]
    assert detail.job.message == (getattr(came, "message", None) or getattr(came, "reason", None) or detail.job.message)


@pytest.mark.parametrize(
    ("error", "state", "outcome"),
    [
        (RateLimitedError("slow down", retry_after=7), "queued", "pause"),
        (AuthRefusedError("no", status=401), "queued", "pause"),
        (ServerError("oh", status=500), "queued", "retry"),
        (ConnectionResetError("oh"), "queued", "retry"),
        (TimeoutError("oh"), "queued", "retry"),
        (RejectedError("bad", status=422), "failure", "failure"),
        (GoneError("gone", status=404), "success", "gone"),
        (KeyError("x"), "queued", "retry"),
        (ZeroDivisionError("x"), "failure", "failure"),
        (SystemExit(3), "failure", "failure"),
    ],
)
@pytest.mark.rows("E-01", "AQ-13", "E-55", "E-56")
def test_what_process_raises_is_judged(bench: Bench, error: BaseException, state: str, outcome: str) -> None:
    """Trouble is retried, pauses pause, `Retry.on` is honoured, and everything else fails at once (contract)."""

    def process(job: Any, connection: Any) -> None:
        raise error

    settled = bench.run(process, retry=Retry(max_retries=3, delay=0, on=(LookupError,)))
    assert settled.state == state
    assert [one.outcome for one in bench.store.views.job(settled.job.id).attempts] == [outcome]
    assert bench.connections.dropped == (1 if isinstance(error, ServerError | ConnectionResetError | TimeoutError) else 0)


@pytest.mark.rows("AQ-11")
def test_tries_are_one_more_than_retries(bench: Bench) -> None:
    """Two retries make three attempts, and then it has failed."""
    seen: list[tuple[int, int]] = []

    def process(job: Any, connection: Any) -> Failure:
        seen.append((job.attempt, job.retries))
        return Failure("no")

    work = bench.work_of(process)
    bench.queue(work)
    assert [bench.turn(work).state for _ in range(3)] == ["queued", "queued", "failure"]
    assert seen == [(1, 0), (2, 1), (3, 2)]


@pytest.mark.rows("AQ-12", "E-26")
def test_a_failure_may_say_when_and_whether(bench: Bench) -> None:
    """Its delay, in seconds, beats the type's; its word that it is final too."""
    started = time.time()
    settled = bench.run(lambda job, connection: Failure("no", delay=60))
    found = bench.store.views.job(settled.job.id).job
    assert found.available_at is not None
    assert 55 < found.available_at.timestamp() - started < 600
    assert bench.run(lambda job, connection: Failure("no", retry=False)).state == "failure"


@pytest.mark.rows("AQ-13")
def test_an_unknown_exception_fails_at_once_and_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """No retry although three are allowed; message, traceback and log name it, and no secret is in any of them."""

    def process(job: Any, connection: Any) -> None:
        raise ZeroDivisionError("by t0p-secret")

    with caplog.at_level(logging.ERROR):
        settled = bench.run(process, retry=Retry(max_retries=3))
    assert settled.state == "failure"
    (attempt,) = bench.store.views.job(settled.job.id).attempts
    assert attempt.error == "ZeroDivisionError: by ***"
    assert "in process" in str(attempt.traceback)
    assert "Traceback (most recent call last)" in caplog.text
    assert "t0p-secret" not in f"{attempt} {caplog.text}"


def test_outcomes_keep_no_secret(bench: Bench) -> None:
    """A message that quotes the token is masked before it is stored."""
    settled = bench.run(lambda job, connection: Failure("401 for t0p-secret", retry=False))
    assert bench.store.views.job(settled.job.id).job.message == "401 for ***"


def test_connecting_is_part_of_the_job(bench: Bench) -> None:
    """A remote side that cannot be reached is the job's trouble and not the worker's end."""

    def connect() -> Any:
        raise ConnectionRefusedError("nobody there")

    work = bench.work_of(lambda job, connection: None)
    work = JobExecutor(work.job_type, FixedConnections(connect), work.mask, bench.store)
    bench.queue(work)
    settled = bench.turn(work)
    assert (settled.state, settled.verdict.trouble) == ("queued", True)


# -- what it is handed ---------------------------------------------------------------------------------------------------------


class TaskSpec(BaseModel):
    """A payload."""

    number: int
    express: bool = False


@pytest.mark.rows("AQ-53")
def test_what_a_job_is_handed(bench: Bench) -> None:
    """Everything that the contract names, and the connection."""
    seen: dict[str, Any] = {}

    def process(job: Any, connection: Any) -> None:
        seen.update(
            {name: getattr(job, name) for name in ("id", "payload", "attempt", "phase", "checkpoint", "key", "type", "model")}
        )
        seen["connection"] = connection
        seen["lost"] = job.is_lost()

    settled = bench.run(process, {"a": [1]})
    assert seen == {
        "id": settled.job.id, "payload": {"a": [1]}, "attempt": 1, "phase": None, "checkpoint": None, "key": None,
        "type": "shop.order", "model": None, "connection": "connection", "lost": False,
    }  # fmt: skip


@pytest.mark.rows("AQ-66", "E-44")
def test_the_schema_is_checked_again(bench: Bench) -> None:
    """A row that does not fit any more, by whomever it was written, waits for a release that it fits, and names the field."""
    called: list[Any] = []
    loose = bench.work_of(lambda job, connection: called.append(job.payload))
    strict = bench.work_of(lambda job, connection: called.append((job.payload, job.model)), schema=TaskSpec)
    bench.queue(loose, {"number": "x"})
    settled = bench.turn(strict)
    assert (settled.state, called) == ("queued", [])
    waiting = bench.store.views.job(settled.job.id).job
    assert "waits for a release that it fits: job type 'shop.order': payload field 'number'" in waiting.message
    assert waiting.attempts == 0
    bench.queue(loose, {"number": "7"})
    assert bench.turn(strict).state == "success"
    assert called == [({"number": 7, "express": False}, TaskSpec(number=7))]


def test_a_payload_that_no_release_fits_fails_in_the_end(bench: Bench) -> None:
    """After seven days of a look in each quarter of an hour."""
    strict = bench.work_of(lambda job, connection: None, schema=TaskSpec)
    bench.queue(bench.work_of(lambda job, connection: None), {"number": "x"})
    with bench.store.db.write() as connection:
        connection.exec_driver_sql("UPDATE job SET snoozes = 671")
    assert bench.turn(strict).state == "queued"
    with bench.store.db.write() as connection:
        connection.exec_driver_sql("UPDATE job SET available_at = created_at")
    settled = bench.turn(strict)
    assert settled.state == "failure"
    assert "it has been put back 672 times" in bench.store.views.job(settled.job.id).job.message


@pytest.mark.rows("AQ-08", "BA-05")
def test_a_job_goes_on_from_its_checkpoint(bench: Bench) -> None:
    """What it noted is there on the retry; what it did to its payload is not."""
    seen: list[Any] = []

    def process(job: Any, connection: Any) -> Failure | None:
        seen.append((job.checkpoint, dict(job.payload)))
        if job.checkpoint is None:
            job.payload["cursor"] = 2
            job.save_checkpoint({"cursor": 2})
            seen.append(job.checkpoint)
            return Failure("half")
        return None

    work = bench.work_of(process)
    bench.queue(work, {})
    assert [bench.turn(work).state for _ in range(2)] == ["queued", "success"]
    assert seen == [(None, {}), {"cursor": 2}, ({"cursor": 2}, {})]


@pytest.mark.rows("BA-05", "BA-06", "BA-07", "T3")
def test_a_batch_that_is_killed_between_its_passes(bench: Bench) -> None:
    """Ten items, three a pass, the worker dies in each pass but the last, before or after it wrote: each item once."""
    died: set[str] = set()

    class Killed(BaseException):
        """Stands for SIGKILL: nothing of ours runs after it."""

    def die(where: str) -> None:
        if where not in died:
            died.add(where)
            raise Killed

    def process(job: Any, connection: Any) -> Success | None:
        first = job.checkpoint or 0
        while first < 10:
            die(f"before {first}")
            for item in range(first, min(first + 3, 10)):
                write(job, f"item {item}")
            die(f"written {first}")
            first = min(first + 3, 10)
            job.save_checkpoint(first)
            die(f"noted {first}")
        return Success("10 items")

    work = bench.work_of(process)
    job_id = bench.queue(work)
    for _ in range(30):
        claimed = bench.store.single_jobs.claim(job_id, worker="elsewhere:1:1:1", lease=60)
        assert isinstance(claimed, Job)
        try:
            bench.finish(work, work.execute(claimed))
        except Killed:
            bench.store.release([claimed], reason="killed")
        else:
            break
    assert len(died) == 12
    assert bench.store.views.job(job_id).job.state == "success"
    assert bench.tables() == sorted(f"item {item}" for item in range(10))


# -- its session ---------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("DS-08")
def test_what_a_success_wrote_stays(bench: Bench) -> None:
    """Rows and state commit together; the finish is the job's own, not the batch's."""
    work = bench.work_of(lambda job, connection: write(job, "a"))
    bench.queue(work)
    done = work.execute(bench.claim(work))
    assert done.finish is not None
    assert bench.finish(work, done).state == "success"
    assert bench.tables() == ["a"]


@pytest.mark.parametrize("came", [ZeroDivisionError("x"), Failure("no"), Snooze(1), Pause(1), LookupError("x")])
@pytest.mark.rows("DS-08", "DS-09")
def test_what_a_failure_wrote_goes(bench: Bench, came: Any) -> None:
    """Whatever ends the attempt but a success leaves none of its rows, and nobody is kept waiting."""

    def process(job: Any, connection: Any) -> Any:
        write(job, "a")
        if isinstance(came, Exception):
            raise came
        return came

    settled = bench.run(process, retry=Retry(max_retries=3, delay=30, on=(LookupError,)))
    assert settled.state in ("queued", "failure")
    assert bench.tables() == []
    if settled.state == "queued" and not isinstance(came, Pause):
        # Rescheduled (DS-09).
        available = bench.store.views.job(settled.job.id).job.available_at
        assert available is not None
        assert available > bench.store.views.now()


@pytest.mark.rows("DS-08")
def test_what_the_database_refuses_fails_the_job(bench: Bench) -> None:
    """The flush at the end is a part of the job: its error is the job's, and nothing remains."""
    bench.run(lambda job, connection: write(job, "a"))

    def process(job: Any, connection: Any) -> None:
        write(job, "b")
        write(job, "a")

    settled = bench.run(process)
    assert settled.state == "failure"
    assert "IntegrityError" in bench.store.views.job(settled.job.id).job.message
    assert bench.tables() == ["a"]


@pytest.mark.rows("E-05")
def test_what_a_stale_worker_wrote_goes(bench: Bench) -> None:
    """Its claim was taken while it worked: its finish is lost, with its rows; nobody is told of a success."""
    told: list[Any] = []
    work: JobExecutor

    def process(job: Any, connection: Any) -> None:
        if job.attempt == 1 and not told:
            told.append("stolen")
            bench.store.release([job.claim], reason="a person did it")
            assert bench.store.claim([job.claim.lane], 1, worker="other:1:1:1", lease=60)
        write(job, f"row {len(bench.tables())}")

    work = bench.work_of(process, on_failure=told.append)
    bench.queue(work)
    assert bench.turn(work).state == "lost"
    assert bench.tables() == []
    assert told == ["stolen"]


def test_a_job_queues_another_one_while_it_writes(bench: Bench) -> None:
    """On SQLite it holds the one writer; the new job joins it, and is committed with it."""
    follow_up = bench.work_of(lambda job, connection: None)

    def process(job: Any, connection: Any) -> Any:
        write(job, f"a{job.payload}")
        enqueue(follow_up.job_type, "next")
        return Failure("no", retry=False) if job.payload == 1 else None

    assert bench.run(process, 1).state == "failure"
    assert bench.run(process, 2).state == "success"
    # On PostgreSQL a job that is queued by itself is committed by itself.
    queued = bench.query("SELECT count(*) AS n FROM job WHERE state = 'queued'")[0]["n"]
    assert queued == (1 if bench.store.db.dialect == "sqlite" else 2)
    assert current_session(bench.store.db) is None


@pytest.mark.rows("DS-11")
def test_jobs_of_one_batch_that_all_write(bench: Bench) -> None:
    """Eight threads with open sessions do not wait for one another for ever."""
    work = bench.work_of(lambda job, connection: (write(job, f"row {job.payload}"), time.sleep(0.01))[0])
    for number in range(16):
        bench.queue(work, number)
    jobs = [bench.claim(work) for _ in range(16)]
    dones: list[JobResult] = []

    def drain() -> None:
        while jobs:
            try:
                job = jobs.pop()
            except IndexError:
                return
            dones.append(work.execute(job))

    threads = [threading.Thread(target=drain) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # Only now, as a batch is finished.
    assert [bench.finish(work, done).state for done in dones] == ["success"] * 16
    assert len(bench.tables()) == 16


# -- timeouts ------------------------------------------------------------------------------------------------------------------


class Hanging:
    """A job whose code wrote and hangs, in a thread of its own, until it is let go."""

    def __init__(self, bench: Bench, **options: Any) -> None:
        self.bench = bench
        self.wrote, self.go = threading.Event(), threading.Event()
        self.noticed: list[bool] = []
        self.dones: list[JobResult] = []
        self.work = bench.work_of(self.process, timeout=5, **options)
        bench.queue(self.work, "x")
        self.job = bench.claim(self.work)
        self.thread = threading.Thread(target=lambda: self.dones.append(self.work.execute(self.job)))
        self.thread.start()
        assert self.wrote.wait(20)

    def process(self, job: Any, connection: Any) -> None:
        """Write, hang, write again."""
        if job.attempt > 1:
            return
        write(job, "early")
        self.wrote.set()
        self.go.wait(20)
        self.noticed.append(job.is_lost())
        write(job, "late")

    def come_back(self) -> JobResult:
        """Let it go on and return what it came to."""
        self.go.set()
        self.thread.join(20)
        return self.dones[0]


@pytest.mark.rows("DS-07", "E-36")
def test_a_job_that_hangs_is_given_up(bench: Bench) -> None:
    """State and reason are recorded, none of its rows remain, others go on, and what its thread still does comes to nothing."""
    hanging = Hanging(bench)
    heard: list[str] = []
    subscribe(lambda event: heard.append(event.message), "after")
    done = hanging.work.timed_out(hanging.job, 5)
    assert heard == ["timed out after 5 s"]
    assert bench.finish(hanging.work, done).state == "queued"
    detail = bench.store.views.job(hanging.job.id)
    assert (detail.job.message, detail.job.retries) == ("timed out after 5 s", 1)
    assert bench.run(lambda job, connection: write(job, "other")).state == "success"
    late = hanging.come_back()
    assert hanging.noticed == [True]
    assert bench.finish(hanging.work, late).state == "lost"
    assert bench.tables() == ["other"]


def test_a_job_that_is_put_back_while_it_works(bench: Bench) -> None:
    """A stop that waits no longer gives it up without a word to subscribers, and the job goes back as it was."""
    hanging = Hanging(bench)
    heard: list[Any] = []
    subscribe(heard.append)
    hanging.work.timed_out(hanging.job, 0.0)
    assert heard == []
    assert bench.store.release([hanging.job], reason="stop") == 1
    assert bench.finish(hanging.work, hanging.come_back()).state == "lost"
    assert bench.tables() == []


def test_a_job_that_waits_for_an_answer_says_for_which(bench: Bench) -> None:
    """The request that it hangs on is in the message, without its query, and among its exchanges."""

    def process(job: Any, connection: Any) -> None:
        with HttpClient(url) as http:
            http.get_json("orders/7", {"token": "abc"})

    work = bench.work_of(process, timeout=5)
    bench.queue(work)
    job = bench.claim(work)
    thread = threading.Thread(target=lambda: work.execute(job))
    with serving(20) as (url, asked):
        thread.start()
        assert asked.wait(20)
        done = work.timed_out(job, 5)
    assert done.verdict.outcome == Failure(f"timed out after 5 s, waiting for GET {url}orders/7")
    assert done.verdict.trouble
    assert "no answer yet" in str(done.exchanges)
    assert "abc" not in str(done)
    thread.join(20)


def test_a_timeout_that_comes_too_late(bench: Bench) -> None:
    """The job was done in the same moment: its success stands."""
    work = bench.work_of(lambda job, connection: write(job, "a"))
    bench.queue(work)
    job = bench.claim(work)
    done = work.execute(job)
    late = work.timed_out(job, 5)
    assert bench.finish(work, late).state == "lost"
    assert bench.finish(work, done).state == "success"
    assert bench.tables() == ["a"]


# -- the end -------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E-28")
def test_on_failure_is_called_once_at_the_end(bench: Bench) -> None:
    """Not for retries; after the commit; with the job and why."""
    told: list[Any] = []

    def on_failure(job: Any) -> None:
        told.append((job, bench.store.views.job(job.id).job.state))

    work = bench.work_of(lambda job, connection: Failure(f"no {job.attempt}"), on_failure=on_failure)
    job_id = bench.queue(work, {"n": 1})
    for _ in range(3):
        bench.turn(work)
    ((job, state),) = told
    assert state == "failure"
    assert (job.id, job.type, job.payload, job.attempt, job.message) == (job_id, "shop.order", {"n": 1}, 3, "no 3")


@pytest.mark.rows("E-28")
@pytest.mark.parametrize("way", ["final", "schema", "timeout"])
def test_on_failure_of_every_way_to_fail(bench: Bench, way: str) -> None:
    """A failure that is final, a payload that has not fitted for seven days, and the last timeout."""
    told: list[Any] = []
    options: dict[str, Any] = {"schema": TaskSpec} if way == "schema" else {}
    work = bench.work_of(lambda job, connection: Failure("no", retry=False), on_failure=told.append, retry=Retry(0), **options)
    bench.queue(bench.work_of(lambda job, connection: None), {"x": 1})
    with bench.store.db.write() as connection:
        connection.exec_driver_sql("UPDATE job SET snoozes = 672")
    job = bench.claim(work)
    bench.finish(work, work.timed_out(job, 5) if way == "timeout" else work.execute(job))
    assert [one.id for one in told] == [job.id]


@pytest.mark.rows("E-28", "E-04")
def test_on_failure_of_poison(bench: Bench) -> None:
    """Whoever finds the job poisonous tells."""
    told: list[Any] = []
    work = bench.work_of(lambda job, connection: None, on_failure=told.append)
    bench.queue(work, 5)
    found: list[PoisonJob] = []
    for _ in range(3):
        _claim_any(bench, work)
        with bench.store.db.write() as connection:
            connection.execute(text("UPDATE job SET lease_until = '2000-01-01 00:00:00.000000+00'"))
        bench.store.rescues.run(["shop"], on_poison=found.append)
    report_poisoned(found[0], work.job_type)
    assert [(one.payload, one.message.partition(":")[0]) for one in told] == [(5, "poison")]


def _claim_any(bench: Bench, work: JobExecutor) -> None:
    lane = Lane("shop", "shop", "shop.order")
    for suspects in (False, True):
        if bench.store.claim([lane], 1, worker="elsewhere:1:1:1", lease=60, suspects=suspects):
            return
    raise AssertionError("nothing to claim")


@pytest.mark.rows("E-28", "E-10")
def test_on_failure_may_fail_itself(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the job has failed as it had."""

    def on_failure(job: Any) -> None:
        raise LookupError("nobody to tell")

    settled = bench.run(lambda job, connection: Failure("no", retry=False), on_failure=on_failure)
    assert settled.state == "failure"
    assert "on_failure of job" in caplog.text
    assert "nobody to tell" in caplog.text


# -- requests ------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("SC-32", "E-24")
def test_attempts_show_what_was_asked(bench: Bench) -> None:
    """Also those of a success; the client's secrets are masked wherever they stand."""

    def process(job: Any, connection: Any) -> None:
        with HttpClient(url) as http:
            http.get_json("orders/t0p-secret")

    with serving(0) as (url, _):
        settled = bench.run(process)
    (found,) = bench.query("SELECT exchanges FROM attempt")
    assert f"GET {url}orders/***" in str(found)
    assert "200, 2 B, 0." in str(found)
    assert settled.state == "success"


@pytest.mark.rows("AQ-06", "AQ-07")
@pytest.mark.parametrize(
    ("came", "said"),
    [
        (Success, "the class Success; return Success(…)"),
        (Gone, "the class Gone; return Gone(…)"),
        (False, "False; return Failure(…)"),
    ],
)
def test_a_slip_is_a_failure(bench: Bench, came: Any, said: str) -> None:
    """A slip such as `return Failure` or `return False` must not pass for a success; nothing that the job wrote stays."""

    def process(job: Any, connection: Any) -> Any:
        write(job, "a")
        return came

    settled = bench.run(process)
    assert settled.state == "failure"
    assert f"process returned {said}" in str(bench.store.views.job(settled.job.id).job.message)
    assert bench.tables() == []


@pytest.mark.rows("E-10")
@pytest.mark.parametrize("poisonous", [False, True])
def test_on_failure_tells_no_secret(bench: Bench, caplog: pytest.LogCaptureFixture, poisonous: bool) -> None:
    """What it raises may quote the token (law 9); the log says who raised what, and where."""

    def on_failure(job: Any) -> None:
        raise LookupError("https://hook/?token=t0p-secret")

    if poisonous:
        found = PoisonJob(1, "shop", "shop", "shop.order", "", None, None, 5, None, 3, "poison")
        report_poisoned(found, bench.work_of(lambda job, connection: None, on_failure=on_failure).job_type)
    else:
        bench.run(lambda job, connection: Failure("no", retry=False), on_failure=on_failure)
    assert "on_failure of job" in caplog.text
    assert "LookupError" in caplog.text
    assert "in on_failure" in caplog.text
    assert "t0p-secret" not in caplog.text


def test_a_schema_that_raises_fails_its_own_job(bench: Bench) -> None:
    """What a validator of somebody's raises, whatever it is, is that job's own outcome."""
    bad: list[bool] = []

    class TaskSpec(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def _check(cls, value: int) -> int:
            if bad:
                raise LookupError("no such table")
            return value

    work = bench.work_of(lambda job, connection: None, schema=TaskSpec)
    bench.queue(work, {"number": 1})
    bad.append(True)
    settled = bench.turn(work)
    assert settled.state == "failure"
    assert bench.store.views.job(settled.job.id).job.message == "LookupError: no such table"
