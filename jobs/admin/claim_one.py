"""Claims one job by its id, for a person who wants to process exactly that job."""

from typing import Any

from sqlalchemy import Row, bindparam, exists, literal_column, select, update
from sqlalchemy.exc import IntegrityError

from jobs.admin.command_refusals import Refused
from jobs.claiming.eligibility import generation_of, is_declared, is_open
from jobs.claiming.limits import QueueCapacity, QueueLimits
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.errors import JobNotFound
from jobs.job import Job, Lane
from jobs.pauses.probe import Probe, Probes
from jobs.schema.job_tables import job
from jobs.schema.states import FAILURE, PROCESSING, PROCESSING_LITERAL, QUEUED, QUEUED_LITERAL


class SingleJobs:
    """Claims single jobs of one database."""

    def __init__(self, db: Database, probes: Probes, queues: QueueLimits) -> None:
        self._db = db
        self._probes = probes
        self._queues = queues
        self._queue = select(job.c.queue).where(job.c.id == bindparam("of_job"))
        other = job.alias("other")
        of_key = (other.c.queue == job.c.queue, other.c.serial_key == job.c.serial_key, other.c.id != job.c.id)
        self._find = (
            select(
                job.c.state,
                job.c.client,
                job.c.serial_key,
                job.c.worker,
                (~is_open(job.c.client)).label("is_paused"),
                exists(literal_column("1")).where(*of_key, other.c.state == PROCESSING_LITERAL).label("is_key_taken"),
                exists(literal_column("1"))
                .where(*of_key, other.c.state == QUEUED_LITERAL, other.c.id < job.c.id, is_declared(db, other.c.type))
                .label("has_earlier"),
            )
            .where(job.c.id == bindparam("of_job"))
            .with_for_update(of=job)
        )
        self._take = (
            update(job)
            .where(job.c.id == bindparam("of_job"), job.c.state == QUEUED_LITERAL)
            .values(
                state=PROCESSING_LITERAL,
                claim_no=job.c.claim_no + 1,
                worker=bindparam("by"),
                started_at=db.now,
                lease_until=db.from_now("lease"),
            )
            .returning(
                job.c.queue,
                job.c.client,
                job.c.type,
                job.c.phase,
                job.c.id,
                job.c.key,
                job.c.fingerprint,
                job.c.payload,
                job.c.generation,
                job.c.claim_no,
                job.c.attempts,
                job.c.retries,
                job.c.rescues,
                job.c.checkpoint,
                generation_of(job.c.client).label("client_generation"),
                job.c.snoozes,
            )
        )

    @retry_on_conflict
    def claim(self, job_id: int, *, worker: str, lease: float, force: bool = False, probe: Probe | None = None) -> Job | Refused:
        """Claim this job, due or delayed, whatever is queued before it.

        It counts against the limits of its queue: as a job in processing, and as a start.

        Args:
            job_id: the job.
            worker: identity of this process, see `jobs.process_identity`.
            lease: seconds until others may rescue it, unless renewed.
            force: also while its client is paused, beyond the limits of its queue, and before earlier jobs of its serial key.
            probe: the caller's probe of the client; then the job is claimed although the client waits for a probe.

        Returns:
            The claimed job, or why it was not claimed; then nothing was written.

        Raises:
            JobNotFound: no job has this id.
        """
        try:
            with self._db.write() as connection:
                queue = connection.execute(self._queue, {"of_job": job_id}).scalar_one_or_none()
                if queue is None:
                    raise JobNotFound(f"no job has the id {job_id}")
                holds = probe is not None and self._probes.holds(connection, probe)
                # The queue is locked before the job, as in every claim, so that two claims cannot deadlock.
                capacity = self._queues.capacity(connection, queue, self._queues.lock(connection, queue))
                found = connection.execute(self._find, {"of_job": job_id}).one()
                is_paused = found.is_paused and not (force or (holds and probe is not None and found.client == probe.client))
                reason = _refusal(found, capacity, is_paused=is_paused, force=force)
                if reason is not None:
                    return Refused(job_id, found.state, reason)
                row = connection.execute(self._take, {"of_job": job_id, "by": worker, "lease": lease}).one()
                capacity.taken = 1
                self._queues.record_starts(connection, capacity, prune=False)
        except IntegrityError as error:
            if "job_alone" not in str(error.orig) and "job.queue, job.serial_key" not in str(error.orig):
                raise
            return Refused(job_id, QUEUED, _KEY_TAKEN)
        return Job(row[4], Lane(*row[:4]), *row[5:])


_KEY_TAKEN = "another job of its serial key is in processing, and they run one at a time"


def _refusal(found: Row[Any], capacity: QueueCapacity, *, is_paused: bool, force: bool) -> str | None:
    if found.state == PROCESSING:
        return f"it is in processing by {found.worker}"
    if found.state == FAILURE:
        return "it has failed; `syncs retry` puts it back"
    if found.state != QUEUED:
        return f"only queued jobs can be processed, it is {found.state}"
    if found.is_key_taken:
        return _KEY_TAKEN
    if is_paused:
        return f"its client {found.client} is paused, or waits for its probe; --force processes it all the same"
    if capacity.room is not None and capacity.room < 1 and not force:
        return f"its queue {capacity.queue} may start nothing more just now; --force processes it all the same"
    if found.has_earlier and not force:
        return "an earlier job of its serial key waits; --force processes this one first"
    return None
