"""A bench for job types: declares them, queues jobs, and works them one at a time as a worker would."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import BaseModel, SecretStr
from sqlalchemy import text

from flows import Client, JobType, PausePolicy
from flows.enqueue import enqueue, using
from flows.execution.executor_protocol import JobControl
from flows.execution.job_executor import JobExecutor
from flows.project.redaction import Mask
from jobs import JobStore, Retry
from jobs.job import Job, JobResult, Lane

NOW = Retry(max_retries=2, delay=0, jitter=False)


class Secrets(BaseModel):
    """The settings of a client."""

    token: SecretStr = SecretStr("t0p-secret")


@contextmanager
def _connection(_: Any) -> Iterator[str]:
    yield "connection"


CLIENT = Client("shop", connect=_connection, pause=PausePolicy())


class FixedConnections:
    """Gives every thread what `connect` returns, and counts how often it was dropped."""

    shared = None
    settings = None

    def __init__(self, connect: Callable[[], Any] = lambda: "connection") -> None:
        self.get = connect
        self.dropped = 0

    def drop(self) -> None:
        """Count."""
        self.dropped += 1


class Bench:
    """A store, and job types that are worked on it, one job at a time."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.connections = FixedConnections()

    def work_of(self, process: Any, **options: Any) -> JobExecutor:
        """Declare a job type and say how its jobs are worked."""
        served = options.pop("phases_served", None)
        names = ("is_lost", "may_continue", "restart_timeout")
        control = JobControl(**{name: options.pop(name) for name in names if name in options})
        options = {"retry": NOW, "client": CLIENT, **options}
        job_type = JobType("shop.order", process=process, **options)
        return JobExecutor(job_type, self.connections, Mask(Secrets()), self.store, served, control)

    def queue(self, work: JobExecutor, payload: Any = None, **options: Any) -> int:
        """Queue a job of this type."""
        with using(self.store):
            return enqueue(work.job_type, payload, **options).id

    def claim(self, work: JobExecutor, phase: str | None = None) -> Job:
        """Claim a job, which must be there."""
        kind = work.job_type
        lanes = [Lane(kind.queue_id, kind.client.id, kind.id, one) for one in ((phase,) if phase else kind.phases or ("",))]
        (job,) = self.store.claim(lanes, 1, worker="elsewhere:1:1:1", lease=60)
        return job

    def finish(self, work: JobExecutor, done: JobResult) -> JobResult:
        """Finish a job as `flows.worker.batch_runner` does."""
        settled = done.finish(done) if done.finish is not None else self.store.finish([done])[0]
        work.on_settled([settled])
        return settled

    def turn(self, work: JobExecutor) -> JobResult:
        """Claim, work and finish a job."""
        with using(self.store):
            return self.finish(work, work.execute(self.claim(work)))

    def run(self, process: Any, payload: Any = None, **options: Any) -> JobResult:
        """Queue one job and work it once."""
        work = self.work_of(process, **options)
        self.queue(work, payload)
        return self.turn(work)

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Return rows."""
        with self.store.db.read() as connection:
            return [dict(row) for row in connection.execute(text(statement)).mappings()]

    def tables(self) -> list[str]:
        """Return what was written with `write`."""
        return sorted(row["name"] for row in self.query("SELECT name FROM maintenance"))


def write(job: Any, name: str) -> None:
    """Write a row through a job's session; some table that is there already serves."""
    job.session.execute(text(f"INSERT INTO maintenance (name, next_at) VALUES ('{name}', '2030-01-01 00:00:00.000000+00')"))


@contextmanager
def serving(seconds: float) -> Iterator[tuple[str, threading.Event]]:
    """A server on loopback that answers `{}` after so many seconds, or when it is closed.

    Yields:
        Its URL, and an event that is set when it is asked.
    """
    asked, closed = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1

        def do_GET(self) -> None:
            asked.set()
            closed.wait(seconds)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", asked
        finally:
            closed.set()
            server.shutdown()
