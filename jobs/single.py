"""Taking one job by its id, for a person who wants to see it worked. Knows no lane and no order."""

from typing import Any

from sqlalchemy import Row, bindparam, exists, literal_column, select, update
from sqlalchemy.exc import IntegrityError

from jobs.budget import Budget, Budgets
from jobs.contention import again
from jobs.database import Database
from jobs.errors import JobNotFound
from jobs.job import Job, Lane
from jobs.models import FAILURE, PROCESSING, job
from jobs.models import QUEUED as QUEUED_STATE
from jobs.probe import Probe, Probes
from jobs.ready import generation_of, is_open
from jobs.refusal import Refused
from jobs.settle import PROCESSING as IS_PROCESSING
from jobs.settle import QUEUED


class Singles:
    """Claims of single jobs in one database."""

    def __init__(self, db: Database, probes: Probes) -> None:
        self._db = db
        self._probes = probes
        self._budgets = Budgets(db)
        self._queue = select(job.c.queue).where(job.c.id == bindparam("of_job"))
        other = job.alias("other")
        of_key = (other.c.queue == job.c.queue, other.c.serial_key == job.c.serial_key, other.c.id != job.c.id)
        self._look = (
            select(
                job.c.state, job.c.client, job.c.serial_key, job.c.worker,
                (~is_open(job.c.client)).label("is_shut"),
                exists(literal_column("1")).where(*of_key, other.c.state == IS_PROCESSING).label("is_barred"),
                exists(literal_column("1")).where(*of_key, other.c.state == QUEUED, other.c.id < job.c.id).label("is_early"),
            )
            .where(job.c.id == bindparam("of_job"))
            .with_for_update(of=job)
        )  # fmt: skip
        self._take = (
            update(job)
            .where(job.c.id == bindparam("of_job"), job.c.state == QUEUED)
            .values(
                state=PROCESSING,
                claim_no=job.c.claim_no + 1,
                worker=bindparam("by"),
                started_at=db.now,
                lease_until=db.from_now("lease"),
            )
            .returning(
                job.c.queue, job.c.client, job.c.type, job.c.phase, job.c.id, job.c.key, job.c.fingerprint, job.c.payload,
                job.c.generation, job.c.claim_no, job.c.attempts, job.c.retries, job.c.rescues, job.c.checkpoint,
                generation_of(job.c.client).label("client_generation"),
            )
        )  # fmt: skip

    @again
    def claim_one(
        self, job_id: int, *, worker: str, lease: float, force: bool = False, probe: Probe | None = None
    ) -> Job | Refused:
        """Take this very job, due or delayed, whatever waits before it.

        It takes one of its queue's places, and counts as a start.

        Args:
            job_id: which.
            worker: who takes it, see `jobs.worker`.
            lease: seconds until others may take it back, unless renewed.
            force: also while its client is paused, beyond the limits of its queue, and before earlier jobs of its serial key.
            probe: the right to work a job of its client while that waits for a probe; this one is it then.

        Returns:
            The claim; or why there is none, and then nothing was written.

        Raises:
            JobNotFound: no job has this id.
        """
        try:
            with self._db.write() as connection:
                queue = connection.execute(self._queue, {"of_job": job_id}).scalar_one_or_none()
                if queue is None:
                    raise JobNotFound(f"no job has the id {job_id}")
                holds = probe is not None and self._probes.holds(connection, probe)
                # Before the job, as every claim does.
                budget = self._budgets.count(connection, queue, self._budgets.lock(connection, queue))
                found = connection.execute(self._look, {"of_job": job_id}).one()
                is_shut = found.is_shut and not (force or (holds and probe is not None and found.client == probe.client))
                reason = _refusal(found, budget, is_shut=is_shut, force=force)
                if reason is not None:
                    return Refused(job_id, found.state, reason)
                row = connection.execute(self._take, {"of_job": job_id, "by": worker, "lease": lease}).one()
                budget.taken = 1
                self._budgets.close(connection, budget, prune=False)
        except IntegrityError as error:
            if "job_alone" not in str(error.orig) and "job.queue, job.serial_key" not in str(error.orig):
                raise
            return Refused(job_id, QUEUED_STATE, _BARRED)
        return Job(row[4], Lane(*row[:4]), *row[5:])


_BARRED = "another job of its serial key is in processing, and they run one at a time"


def _refusal(found: Row[Any], budget: Budget, *, is_shut: bool, force: bool) -> str | None:
    if found.state == PROCESSING:
        return f"it is in processing by {found.worker}"
    if found.state == FAILURE:
        return "it has failed; `syncs retry` puts it back"
    if found.state != QUEUED_STATE:
        return f"only queued jobs can be processed, it is {found.state}"
    if found.is_barred:
        return _BARRED
    if is_shut:
        return f"its client {found.client} is paused, or waits for its probe; --force processes it all the same"
    if budget.room is not None and budget.room < 1 and not force:
        return f"its queue {budget.queue} may start nothing more just now; --force processes it all the same"
    if found.is_early and not force:
        return "an earlier job of its serial key waits; --force processes this one first"
    return None
