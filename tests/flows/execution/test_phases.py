"""Jobs of several phases: each succeeds, fails and is resumed by itself (DS-04)."""

import threading
from typing import Any

import pytest

from flows.execution.job_executor import JobExecutor
from jobs import Failure, Gone, JobStore, Pause, Snooze, Unchanged
from jobs.job import Lane
from tests.support.job_bench import Bench, write

PHASES = ("fetch", "map", "save")


class Steps:
    """Notes which phases ran, and what each of them is told to come to, one answer for each call."""

    def __init__(self, bench: Bench, **answers: list[Any]) -> None:
        self.bench = bench
        self.ran: list[str] = []
        self.checkpoints: list[Any] = []
        self.answers = answers

    def declare(self, **options: Any) -> JobExecutor:
        """Declare the job type."""
        return self.bench.work_of(dict.fromkeys(PHASES, self.process), phases=PHASES, **options)

    def process(self, job: Any, connection: Any) -> Any:
        """Work a phase: write a row, save a checkpoint, and come to what was said."""
        self.ran.append(job.phase)
        self.checkpoints.append(job.checkpoint)
        answers = self.answers.get(job.phase, [])
        came = answers.pop(0) if answers else None
        write(job, f"{job.phase} {len(self.ran)}")
        if isinstance(came, Exception):
            raise came
        return came


@pytest.fixture
def bench(store: JobStore) -> Bench:
    """A bench on a fresh database."""
    return Bench(store)


@pytest.mark.rows("DS-04")
def test_phases_follow_one_another_under_one_claim(bench: Bench) -> None:
    """In order, by the worker that began; each is an attempt of its own, and one claim serves all."""
    steps = Steps(bench)
    work = steps.declare()
    bench.queue(work)
    settled = bench.turn(work)
    assert (settled.state, settled.job.claim_no) == ("success", 1)
    assert steps.ran == ["fetch", "map", "save"]
    tries = bench.query("SELECT phase, outcome, claim_no FROM attempt ORDER BY id")
    assert [tuple(one.values()) for one in tries] == [("fetch", "phase", 1), ("map", "phase", 1), ("save", "success", 1)]
    assert bench.tables() == ["fetch 1", "map 2", "save 3"]
    assert bench.store.views.job(settled.job.id).job.attempts == 1


@pytest.mark.rows("DS-04", "DS-08", "DS-09")
@pytest.mark.parametrize("came", [ZeroDivisionError("x"), Failure("no"), Snooze(0), Pause(0), ConnectionError("x")])
def test_a_phase_is_retried_alone(bench: Bench, came: Any) -> None:
    """The second phase comes to nothing once: its rows go, those of the first stay, and the first never runs again."""
    steps = Steps(bench, map=[came])
    work = steps.declare()
    job_id = bench.queue(work)
    settled = bench.turn(work)
    assert bench.tables() == ["fetch 1"]
    assert bench.query("SELECT phase FROM job") == [{"phase": "map"}]
    if settled.state == "failure":
        # An unknown exception is final until a person says otherwise (AQ-13).
        with bench.store.db.write() as connection:
            connection.exec_driver_sql("UPDATE job SET state = 'queued', finished_at = NULL")
    assert bench.turn(work).state == "success"
    assert steps.ran == ["fetch", "map", "map", "save"]
    assert [one.outcome for one in bench.store.views.job(job_id).attempts][-2:] == ["phase", "success"]


@pytest.mark.rows("DS-04", "T3")
def test_a_phase_is_resumed_after_a_crash(bench: Bench) -> None:
    """Three phases, the worker dies in the second: it is resumed there, with its checkpoint; the first ran once."""
    ran: list[tuple[str, Any]] = []

    class Killed(BaseException):
        """Stands for SIGKILL."""

    def process(job: Any, connection: Any) -> None:
        ran.append((job.phase, job.checkpoint))
        if job.phase == "map" and job.checkpoint is None:
            job.save_checkpoint("half")
            write(job, "dies with it")
            raise Killed

    work = bench.work_of(dict.fromkeys(PHASES, process), phases=PHASES)
    bench.queue(work)
    job = bench.claim(work)
    with pytest.raises(Killed):
        work.execute(job)
    with bench.store.db.write() as connection:
        connection.exec_driver_sql("UPDATE job SET lease_until = '2000-01-01 00:00:00.000000+00'")
    bench.store.rescues.run(["shop"])
    (again,) = bench.store.claim(
        [Lane("shop", "shop", "shop.order", one) for one in PHASES], 1, worker="other:1:1:1", lease=60, suspects=True
    )
    assert bench.finish(work, work.execute(again)).state == "success"
    assert ran == [("fetch", None), ("map", None), ("map", "half"), ("save", None)]
    assert bench.tables() == []


@pytest.mark.rows("DS-12")
def test_a_worker_that_serves_some_phases(bench: Bench) -> None:
    """It puts the job back for the next phase, with its rows; whoever serves that one goes on."""
    steps = Steps(bench)
    fetcher, saver = steps.declare(phases_served={"fetch"}), steps.declare(phases_served=("map", "save"))
    job_id = bench.queue(fetcher)
    settled = bench.finish(fetcher, fetcher.execute(bench.claim(fetcher, "fetch")))
    assert settled.state == "queued"
    assert bench.query("SELECT phase, attempts, state FROM job") == [{"phase": "map", "attempts": 0, "state": "queued"}]
    assert bench.tables() == ["fetch 1"]
    assert bench.finish(saver, saver.execute(bench.claim(saver, "map"))).state == "success"
    assert steps.ran == ["fetch", "map", "save"]
    assert [one.outcome for one in bench.store.views.job(job_id).attempts] == ["phase", "phase", "success"]


def test_a_checkpoint_ends_with_its_phase(bench: Bench) -> None:
    """The next phase begins without the notes of the one before, here and on another worker."""
    seen: list[Any] = []

    def process(job: Any, connection: Any) -> None:
        seen.append(job.checkpoint)
        job.save_checkpoint(job.phase)

    work = bench.work_of(dict.fromkeys(PHASES, process), phases=PHASES, phases_served=("fetch", "map"))
    bench.queue(work)
    bench.turn(work)
    bench.finish(work, work.execute(bench.claim(work, "save")))
    assert seen == [None, None, None]


def test_nothing_more_is_begun_when_the_worker_stops(bench: Bench) -> None:
    """Between two phases it asks whether to go on; a no puts the job back for the next one."""
    steps = Steps(bench)
    work = steps.declare(may_continue=lambda job: len(steps.ran) < 2)
    bench.queue(work)
    assert bench.turn(work).state == "queued"
    assert steps.ran == ["fetch", "map"]
    assert bench.query("SELECT phase FROM job") == [{"phase": "save"}]


def test_what_is_gone_has_no_next_phase(bench: Bench) -> None:
    """`Gone` ends the job; `Unchanged` leads on, as a success does."""
    steps = Steps(bench, fetch=[Unchanged()], map=[Gone()])
    work = steps.declare()
    bench.queue(work)
    assert bench.turn(work).state == "success"
    assert steps.ran == ["fetch", "map"]


def test_a_lost_claim_goes_no_further(bench: Bench) -> None:
    """The first phase's end is refused: no later one runs here, and none of its rows remain."""
    ran: list[str] = []

    def process(job: Any, connection: Any) -> None:
        ran.append(job.phase)
        if len(ran) == 1:
            bench.store.release([job.claim], reason="a person did it")
            write(job, "late")

    work = bench.work_of(dict.fromkeys(PHASES, process), phases=PHASES)
    bench.queue(work)
    assert bench.turn(work).state == "lost"
    assert ran == ["fetch"]
    assert bench.tables() == []
    assert bench.turn(work).state == "success"
    assert ran == ["fetch", "fetch", "map", "save"]


@pytest.mark.rows("DS-07")
def test_the_time_of_each_phase_counts_anew(bench: Bench) -> None:
    """The watch is told when a phase begins, and a timeout names the phase that the job had reached."""
    restarted: list[str] = []
    reached, go = threading.Event(), threading.Event()

    def process(job: Any, connection: Any) -> None:
        restarted.append(job.phase)
        if job.phase == "map":
            write(job, "hangs")
            reached.set()
            go.wait(20)

    work = bench.work_of(
        dict.fromkeys(PHASES, process), phases=PHASES, timeout=5, restart_timeout=lambda: restarted.append("restart")
    )
    bench.queue(work)
    job = bench.claim(work)
    thread = threading.Thread(target=lambda: work.execute(job))
    thread.start()
    assert reached.wait(20)
    done = work.timed_out(job, 5)
    assert bench.finish(work, done).state == "queued"
    go.set()
    thread.join(20)
    assert restarted == ["fetch", "restart", "map"]
    assert bench.query("SELECT phase, state, message FROM job") == [
        {"phase": "map", "state": "queued", "message": "timed out after 5 s in phase map"}
    ]
    assert [one.outcome for one in bench.store.views.job(job.id).attempts] == ["phase", "retry"]
    assert bench.tables() == []


def test_a_phase_that_is_no_longer_declared(bench: Bench) -> None:
    """A job that waits in it fails in words when a person processes it by hand; no worker claims it."""
    old = bench.work_of({phase: lambda job, connection: None for phase in PHASES}, phases=PHASES, phases_served=("fetch",))
    bench.queue(old)
    bench.turn(old)
    new = bench.work_of({"save": lambda job, connection: None}, phases=("save",))
    settled = bench.finish(new, new.execute(bench.claim(old, "map")))
    assert settled.state == "failure"
    assert "no phase is called 'map'; its phases: save" in bench.store.views.job(settled.job.id).job.message
