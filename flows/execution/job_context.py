"""A job as `process` and `on_failure` see it."""

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from clients.exchange_recorder import Recorder
from flows.declarations.job_type import JobType
from jobs.db.job_session import JobSession
from jobs.fingerprint import fingerprint
from jobs.job import Job
from jobs.store import JobStore


class JobContext:
    """What `process(job, connection)` gets. Only the job's own thread may use it.

    Args:
        job: the claim.
        job_type: its declaration.
        store: where it is.
        is_lost: tells whether another worker has the claim by now.
        payload: the validated payload; a copy of its own.
        recorder: records its requests.
    """

    def __init__(
        self,
        job: Job,
        job_type: JobType,
        *,
        store: JobStore,
        is_lost: Callable[[Job], bool],
        payload: Any,
        recorder: Recorder,
    ) -> None:
        self._job = job
        self._job_type = job_type
        self._store = store
        self._is_lost = is_lost
        self._model: Any = None
        #: Plain JSON, as it was queued; with a schema in the schema's own form, defaults filled in.
        self.payload = payload
        #: Whether its idempotency key was read: then what it sends may be sent again.
        self.is_keyed = False
        self.recorder = recorder
        #: Its database session.
        self.unit = store.checkpoints.unit_of_work(job)

    def __repr__(self) -> str:
        return f"<job {self.id} of {self.type}, attempt {self.attempt}>"

    @property
    def claim(self) -> Job:
        """The claim, with the newest checkpoint."""
        return self._job

    @property
    def id(self) -> int:
        """Its number."""
        return self._job.id

    @property
    def type(self) -> str:
        """The id of its job type."""
        return self._job.lane.type

    @property
    def client(self) -> str:
        """The id of its client."""
        return self._job.lane.client

    @property
    def queue(self) -> str:
        """The queue it waited in."""
        return self._job.lane.queue

    @property
    def key(self) -> str | None:
        """The entity's key, if it is about one."""
        return self._job.key

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1. Snoozes and the deaths of workers do not count."""
        return self._job.attempt

    @property
    def retries(self) -> int:
        """Attempts after the first, so far."""
        return self._job.retries

    @property
    def phase(self) -> str | None:
        """The phase it is in; `None` for a job type without phases."""
        return self._job.lane.phase or None

    @property
    def idempotency_key(self) -> str:
        """A UUID in text form (36 characters) for the header `Idempotency-Key`, by which the remote side recognises a repetition.

        It is the same for every attempt at this phase of this job, and differs for another job, even of the same content, and
        for a payload that replaced this one.
        """
        self.is_keyed = True
        job = self._job
        return str(UUID(fingerprint(job.lane.type, [job.fingerprint, job.id, job.lane.phase, job.payload])))

    @property
    def model(self) -> Any:
        """The payload as an instance of the job type's schema; `None` without a schema."""
        if self._model is None and self._job_type.schema is not None:
            self._model = self._job_type.schema.model_validate(self.payload)
        return self._model

    @property
    def checkpoint(self) -> Any:
        """What this attempt or an earlier one saved last in this phase; `None` if nothing was."""
        return self._job.checkpoint

    def save_checkpoint(self, value: Any) -> None:
        """Store how far the job has come. Commits at once, together with what `session` wrote so far.

        Args:
            value: any JSON, at most 1 MiB; `None` forgets the one before.

        Raises:
            LostLease: another worker has the job by now; stop, nothing that this attempt still does counts.
            PayloadError: the value is not JSON, or too large.
        """
        self._job = self._store.checkpoints.save(self._job, value, self.unit)

    @property
    def session(self) -> JobSession:
        """A SQLModel session on the database of the jobs, which the job's success commits; see `jobs.db.job_session`."""
        return self.unit.session

    def is_lost(self) -> bool:
        """Tell whether to stop: another worker has the lease, or the job was given up after its timeout or was cancelled."""
        return self.unit.is_abandoned or self._is_lost(self._job)


class FailedJob(NamedTuple):
    """What `on_failure(job)` gets: a job that has failed for good."""

    id: int
    #: The id of its job type.
    type: str
    client: str
    queue: str
    key: str | None
    payload: Any
    #: The number of the last attempt, from 1.
    attempt: int
    retries: int
    phase: str | None
    #: What it saved last.
    checkpoint: Any
    #: Why it failed, in one line.
    message: str
