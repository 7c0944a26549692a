"""Requeues the last failed job of entities, for incremental listings, which list a changed entity only once.

The failed job itself is queued again, so that an entity that fails for ever leaves one job and not one for each run. A person who
cancels or deletes that job ends this.
"""

from typing import Any

from sqlalchemy import Select, and_, bindparam, exists, func, literal_column, or_, select, update

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.job import Lane
from jobs.schema import states
from jobs.schema.job_tables import job, record
from jobs.schema.states import FAILURE_LITERAL, PROCESSING_LITERAL, QUEUED_LITERAL

REQUEUED = 1000
"""Entities that one run requeues at most, those first that failed the longest time ago."""


class FailedEntities:
    """Failed entities of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        failed = self._failed()
        self._requeue = (
            update(job)
            .where(job.c.id.in_(failed), job.c.state == FAILURE_LITERAL)
            .values(state=states.QUEUED, available_at=db.now, finished_at=None, retries=0, rescues=0)
        )
        self._count = select(func.count()).select_from(failed.subquery())

    def _failed(self) -> Select[Any]:
        """Return the ids of jobs after which nothing else has happened to their entity."""
        one: Any = literal_column("1")
        other = job.alias("other")
        newer = exists(one).where(
            other.c.state == FAILURE_LITERAL, other.c.type == job.c.type, other.c.key == job.c.key, other.c.id > job.c.id
        )
        queued = exists(one).where(
            other.c.state == QUEUED_LITERAL, other.c.fingerprint.is_not(None), other.c.fingerprint == job.c.fingerprint,
            other.c.queue == job.c.queue,
        )  # fmt: skip
        # Without reference to the outer row, so that it is evaluated once and not for each failure.
        in_processing = job.c.key.in_(
            select(other.c.key).where(
                other.c.state == PROCESSING_LITERAL, other.c.queue == bindparam("in_queue"), other.c.type == bindparam("of_type"),
                other.c.key.is_not(None),
            )
        )  # fmt: skip
        generation = func.coalesce(job.c.generation, 0)
        # Written by a later job since, or poison.
        is_newer = exists(one).where(
            record.c.sync == job.c.type,
            record.c.key == job.c.key,
            or_(
                record.c.is_poison,
                record.c.job_generation > generation,
                and_(record.c.job_generation == generation, record.c.job_id > job.c.id),
            ),
        )
        return (
            select(job.c.id)
            .where(
                job.c.state == FAILURE_LITERAL, job.c.type == bindparam("of_type"), job.c.key.is_not(None),
                job.c.queue == bindparam("in_queue"), job.c.client == bindparam("of_client"),
                ~newer, ~queued, ~in_processing, ~is_newer,
            )
            .order_by(job.c.finished_at, job.c.id)
            .limit(REQUEUED)
        )  # fmt: skip

    @retry_on_conflict
    def requeue(self, lane: Lane) -> int:
        """Queue the failed jobs of entities again, with all their retries, and return how many.

        Args:
            lane: of a sync's jobs.
        """
        with self._db.write() as connection:
            return connection.execute(self._requeue, lane.parameters()).rowcount

    def count(self, lane: Lane) -> int:
        """Count the jobs that `requeue` would queue."""
        with self._db.read() as connection:
            return int(connection.execute(self._count, lane.parameters()).scalar_one())
