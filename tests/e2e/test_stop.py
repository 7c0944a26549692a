"""Stopping a worker: real processes of `syncs work`, signals at bad moments, and what is left in the tables (T18, M18)."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import JobStore
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Lane
from tests import ROOT
from tests.support import store_helpers
from tests.support.fake_things_api import query, states

pytestmark = pytest.mark.slow

LANE = Lane("shop", "shop", "shop.order")

FILE = """
import time
from contextlib import contextmanager
from pathlib import Path
from flows import Client, JobType
from jobs import Retry

@contextmanager
def connect(_):
    yield None

def process(job, _):
    Path("begun").open("a").write(f"{job.id}\\n")
    if job.payload["how"] == "busy":
        until = time.monotonic() + job.payload["seconds"]
        while time.monotonic() < until:
            pass
    elif job.payload["how"] == "gate":
        while not Path("go").exists():
            time.sleep(0.01)
    else:
        time.sleep(job.payload["seconds"])

shop = Client("shop", connect=connect)
order = JobType("shop.order", shop, process=process, retry=Retry(max_retries=0))
"""


class Worker:
    """`syncs work` as a process."""

    def __init__(self, folder: Path, url: str, *arguments: str) -> None:
        self._stderr = tempfile.TemporaryFile("w+", dir=folder)  # noqa: SIM115  # `close`
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SYNCS_", "PREFECT_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows", "work", *arguments], cwd=folder, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self._stderr,
            env={**environment, "PYTHONPATH": str(ROOT), "SYNCS_DATABASE_URL": url},
        )  # fmt: skip

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    @property
    def said(self) -> str:
        """What it has written to stderr so far."""
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode()

    def end(self, *, seconds: float = 100) -> tuple[int, str, str]:
        """Wait for the end; return exit code, stdout and stderr."""
        out, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, self.said

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._stderr.close()


class Shop:
    """A project with a job type whose jobs take as long as they are told to."""

    def __init__(self, folder: Path, url: str, store: JobStore) -> None:
        self.folder, self.url, self.store = folder, url, store
        (folder / "syncs").mkdir()
        (folder / "syncs" / "shop.py").write_text(FILE)
        self.workers: list[Worker] = []

    def add(self, n: int, seconds: float, *, how: str = "sleep") -> None:
        """Queue jobs."""
        self.store.enqueue([NewJob(LANE, {"how": how, "seconds": seconds})] * n)

    def work(self, *arguments: str) -> Worker:
        """Start a worker."""
        self.workers.append(Worker(self.folder, self.url, *arguments))
        return self.workers[-1]

    @property
    def begun(self) -> int:
        """How many jobs were begun."""
        file = self.folder / "begun"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def go(self) -> None:
        """Let the jobs come to their end that wait for it."""
        (self.folder / "go").touch()

    def wait_for_begun(self, n: int) -> None:
        """Wait until so many jobs were begun."""
        self.wait_for(lambda: self.begun >= n)

    def wait_for(self, condition: Callable[[], Any], *, seconds: float = 60) -> None:
        """Wait for a condition."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            for worker in self.workers:
                assert worker.process.poll() in (None, 0, -signal.SIGKILL), worker.end()
            time.sleep(0.02)

    def attempts(self) -> int:
        """Attempts that counted."""
        return int(query(self.store, "SELECT coalesce(sum(attempts), 0) AS n FROM job")[0]["n"])


@pytest.fixture
def shop(tmp_path: Path, database_url: str, store: JobStore) -> Iterator[Shop]:
    """A project, whose database writes down every change of a job."""
    store_helpers.start_audit(store)
    folder = tmp_path / "project"
    folder.mkdir()
    found = Shop(folder, database_url, store)
    yield found
    for worker in found.workers:
        worker.close()


@pytest.mark.rows("T18", "M18", "AQ-51", "AQ-56")
def test_short_jobs_are_finished(shop: Shop) -> None:
    """SIGTERM in the first of five jobs: exit 0, one success, four queued, none in processing."""
    shop.add(5, 0, how="gate")
    worker = shop.work("shop", "--concurrency", "1")
    shop.wait_for_begun(1)
    worker.signal()
    shop.wait_for(lambda: "finishing the running jobs" in worker.said)
    shop.go()
    code, out, err = worker.end()
    assert (code, shop.begun) == (0, 1), err
    assert re.fullmatch(r"Processed 1 jobs from the shop queue in \d+\.\d\d seconds: 1 succeeded, 0 failed\.\n", out)
    assert states(shop.store) == {"success": 1, "queued": 4}
    assert shop.attempts() == 1


@pytest.mark.rows("T18", "M18")
@pytest.mark.parametrize("how", ["sleep", "busy"])
def test_second_signal_puts_long_jobs_back(shop: Shop, how: str) -> None:
    """A second signal ends at once with exit 0, although the threads are busy; their jobs are queued, no attempt used."""
    shop.add(8, 600, how=how)
    worker = shop.work("--concurrency", "3")
    shop.wait_for_begun(3)
    worker.signal()
    shop.wait_for(lambda: "finishing the running jobs" in worker.said)
    time.sleep(0.3)
    assert worker.process.poll() is None
    assert states(shop.store)["processing"] == 3
    worker.signal()
    code, _, err = worker.end()
    assert code == 0, err
    assert states(shop.store) == {"queued": 8}
    assert shop.attempts() == 0
    assert query(shop.store, "SELECT count(*) AS n FROM job WHERE available_at > finished_at OR rescues > 0") == [{"n": 0}]
    assert "Traceback" not in err
    # They may be worked at once.
    assert shop.store.due_times.is_due([LANE])


@pytest.mark.rows("T18", "M18")
def test_grace_that_is_exceeded(shop: Shop) -> None:
    """After the grace the long jobs go back and the short ones are done; exit 0."""
    shop.add(1, 0, how="gate")
    shop.add(1, 600)
    worker = shop.work("--concurrency", "2", "--grace", "5")
    shop.wait_for_begun(2)
    told = time.monotonic()
    worker.signal()
    shop.wait_for(lambda: "finishing the running jobs" in worker.said)
    shop.go()
    code, _, err = worker.end()
    assert code == 0, err
    assert time.monotonic() - told > 4.5
    assert states(shop.store) == {"success": 1, "queued": 1}
    assert shop.attempts() == 1


@pytest.mark.rows("T18", "M18")
@pytest.mark.parametrize("pause", [0, 0.05, 0.3])
def test_five_times_term(shop: Shop, pause: float) -> None:
    """A supervisor that sends SIGTERM five times gets exit 0 all the same, and nothing is left in processing."""
    shop.add(6, 600)
    # Signals that come all at once may be one; then the grace ends it.
    worker = shop.work("--concurrency", "4", "--grace", "5")
    shop.wait_for_begun(4)
    for _ in range(5):
        if worker.process.poll() is None:
            worker.signal()
        time.sleep(pause)
    code, _, err = worker.end()
    assert code == 0, err
    assert states(shop.store) == {"queued": 6}
    assert shop.attempts() == 0


@pytest.mark.rows("T18", "M18")
def test_interrupt_and_then_kill(shop: Shop) -> None:
    """Ctrl-C, and then SIGKILL: the next worker takes the jobs back at once, because it sees that this one is gone."""
    shop.add(3, 600)
    worker = shop.work("--concurrency", "3")
    shop.wait_for_begun(3)
    worker.signal(signal.SIGINT)
    time.sleep(0.5)
    assert worker.process.poll() is None
    worker.signal(signal.SIGKILL)
    assert worker.end()[0] == -signal.SIGKILL
    assert states(shop.store) == {"processing": 3}
    with shop.store.db.write() as connection:
        connection.exec_driver_sql('UPDATE job SET payload = \'{"how": "sleep", "seconds": 0}\'')
    second = shop.work("--until-empty")
    code, out, err = second.end()
    assert (code, out[:16]) == (0, "Processed 3 jobs"), err
    assert states(shop.store) == {"success": 3}
    assert query(shop.store, "SELECT max(attempts) AS a, max(rescues) AS r FROM job") == [{"a": 1, "r": 1}]


@pytest.mark.rows("T18", "M18", "AQ-51")
def test_signal_at_any_moment(shop: Shop) -> None:
    """Stopped again and again in the middle of many short jobs, each worker exits 0; at the end all is done, once."""
    for seconds in (0.0, 0.1, 0.3, 0.5):
        # Each worker has something to begin with, however far the one before it came.
        shop.add(100, 0.01)
        worker = shop.work("--concurrency", "4")
        before = shop.begun
        shop.wait_for_begun(before + 1)
        time.sleep(seconds)
        worker.signal()
        if seconds == 0.3:
            worker.signal()
        code, _, err = worker.end()
        assert (code, "Traceback" in err) == (0, False), err
        assert "processing" not in states(shop.store)
    code, _, err = shop.work("--until-empty", "--concurrency", "4").end()
    assert code == 0, err
    assert states(shop.store) == {"success": 400}
    store_helpers.assert_invariants(shop.store)


@pytest.mark.rows("T18", "E-31")
def test_idle_worker_stops_at_once(shop: Shop) -> None:
    """A daemon that waits for jobs does not end by itself, and ends soon when told to."""
    worker = shop.work()
    shop.wait_for(lambda: [view.queue for view in shop.store.views.queues()] == ["shop"])
    time.sleep(1.5)
    assert worker.process.poll() is None
    worker.signal(signal.SIGINT)
    code, out, err = worker.end()
    assert (code, out[:16]) == (0, "Processed 0 jobs"), err


@pytest.mark.rows("AQ-52")
def test_several_workers_on_one_queue(shop: Shop) -> None:
    """Processes share a queue: each job is done once, by whoever has room."""
    shop.add(200, 0.02)
    workers = [shop.work("--until-empty", "--concurrency", "2") for _ in range(3)]
    for worker in workers:
        code, _, err = worker.end()
        assert code == 0, err
    assert (states(shop.store), shop.begun) == ({"success": 200}, 200)
    store_helpers.assert_invariants(shop.store)


@pytest.mark.rows("T5")
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_database_that_goes_away_is_exit_1(shop: Shop, postgres: Any) -> None:
    """A one-shot worker whose database stays away gives up with one line and exit 1; a database that never was is exit 2."""
    name = query(shop.store, "SELECT current_database() AS name")[0]["name"]
    shop.add(3, 0, how="gate")
    worker = shop.work("--until-empty", "--concurrency", "1")
    shop.wait_for_begun(1)
    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    try:
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        shop.go()
        code, _, err = worker.end()
        assert code == 1, err
        assert "syncs: the database went away" in err
        assert "Traceback" not in err
        code, _, err = shop.work("--until-empty").end()
        assert code == 2, err
    finally:
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
