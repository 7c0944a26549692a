"""A bench for job types: declares them, queues jobs, and works them one at a time as a worker would."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import BaseModel, SecretStr
from sqlalchemy import text

from flows import Client, JobType, PausePolicy
from flows.enqueue import enqueue, using
from flows.job_work import JobWork
from flows.mask import Mask
from jobs import JobStore, Retry
from jobs.job import Done, Job, Lane, Settled

NOW = Retry(max_retries=2, delay=0, jitter=False)


class Secrets(BaseModel):
    """The settings of a client."""

    token: SecretStr = SecretStr("t0p-secret")


@contextmanager
def _connection(_: Any) -> Iterator[str]:
    yield "connection"


CLIENT = Client("shop", connect=_connection, pause=PausePolicy())


class Bench:
    """A store, and job types that are worked on it, one job at a time."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.dropped = 0

    def work_of(self, process: Any, **options: Any) -> JobWork:
        """Declare a job type and say how its jobs are worked."""
        given = {name: options.pop(name) for name in ("phases_served", "goes_on", "is_lost", "restart") if name in options}
        if "phases_served" in given:
            given["phases"] = given.pop("phases_served")
        options = {"retry": NOW, "client": CLIENT, **options}
        job_type = JobType("shop.order", process=process, **options)
        return JobWork(job_type, lambda: "connection", Mask(Secrets()), self._drop, self.store, **given)

    def _drop(self) -> None:
        self.dropped += 1

    def queue(self, work: JobWork, payload: Any = None, **options: Any) -> int:
        """Queue a job of this type."""
        with using(self.store):
            return enqueue(work.job_type, payload, **options).id

    def claim(self, work: JobWork, phase: str | None = None) -> Job:
        """Claim a job, which must be there."""
        kind = work.job_type
        lanes = [Lane(kind.queue_id, kind.client.id, kind.id, one) for one in ((phase,) if phase else kind.phases or ("",))]
        (job,) = self.store.claim(lanes, 1, worker="elsewhere:1:1:1", lease=60)
        return job

    def finish(self, work: JobWork, done: Done) -> Settled:
        """Finish a job as `flows.hands` does."""
        settled = done.finish(done) if done.finish is not None else self.store.finish([done])[0]
        work.settled(settled)
        return settled

    def turn(self, work: JobWork) -> Settled:
        """Claim, work and finish a job."""
        with using(self.store):
            return self.finish(work, work.work(self.claim(work)))

    def run(self, process: Any, payload: Any = None, **options: Any) -> Settled:
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
