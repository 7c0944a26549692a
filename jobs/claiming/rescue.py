"""Requeues jobs whose lease has expired or whose worker is known to be dead; ends those that keep killing their workers."""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select, update

from jobs.claiming.poison import PoisonEntities, PoisonJob
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.enqueueing.payload import is_same
from jobs.finishing.fence import FencedTransitions
from jobs.finishing.transition import Transition, rescued
from jobs.process_identity import is_gone
from jobs.schema.job_tables import job
from jobs.schema.states import FAILURE, PROCESSING_LITERAL, SUPERSEDED

RESCUE_BATCH = 500
"""Rescues in one claim at most, so that a claim stays short after many workers have died."""

OnPoison = Callable[[PoisonJob], None]
"""Called with each job that ended as poison."""


class Rescues:
    """Rescues in one database. Any number of threads and processes may call it."""

    def __init__(self, db: Database, transitions: FencedTransitions, *, max_rescues: int) -> None:
        self._db = db
        self._transitions = transitions
        self._max_rescues = max_rescues
        self._poisons = PoisonEntities(db)
        self._superseded = JsonRows(db, {"id": "id"})
        self._inherit = self._inherit_statement()
        self._workers = (
            select(job.c.worker).distinct().where(job.c.state == PROCESSING_LITERAL, job.c.queue == bindparam("queue"))
        )
        self._expired = (
            select(
                job.c.id,
                job.c.claim_no,
                job.c.fingerprint,
                job.c.rescues,
                job.c.worker,
                job.c.type,
                job.c.key,
                job.c.payload,
                job.c.generation,
                job.c.phase,
                job.c.client,
                job.c.attempts,
            )
            .where(
                job.c.state == PROCESSING_LITERAL,
                job.c.queue == bindparam("queue"),
                or_(job.c.lease_until < db.now, job.c.worker.in_(bindparam("gone", expanding=True))),
            )
            .order_by(job.c.id)
            .limit(RESCUE_BATCH)
            .with_for_update(skip_locked=True)
        )

    def _inherit_statement(self) -> Any:
        """Copy the rescues of a superseded job to its twin: else a poison entity that is listed again would never end.

        Only where the content is the same: for the job of a sync its entity, for any other its payload.
        """
        old = job.alias("old")
        same = or_(job.c.key == old.c.key, is_same(job.c.payload, old.c.payload, self._db.dialect))
        return (
            update(job)
            .where(old.c.id == self._superseded.id, job.c.id == old.c.superseded_by, job.c.rescues < old.c.rescues, same)
            .values(rescues=old.c.rescues)
        )

    @retry_on_conflict
    def run(self, queues: Iterable[str], *, on_poison: OnPoison | None = None) -> int:
        """Take back jobs whose lease has ended or whose process on this host is known to be gone.

        Args:
            queues: where to look.
            on_poison: called for each job that ended because it keeps killing its workers, after the commit.

        Returns:
            How many were requeued, superseded by a twin, or ended as poison.
        """
        with self._db.write() as connection:
            count, poisoned = self.run_in(connection, queues)
        report(poisoned, on_poison)
        return count

    def run_in(self, connection: Connection, queues: Iterable[str]) -> tuple[int, list[PoisonJob]]:
        """Rescue inside a transaction of the caller, who must `report` the poison jobs after its commit."""
        count = 0
        poisoned: list[PoisonJob] = []
        for queue in sorted(queues):
            workers = connection.execute(self._workers, {"queue": queue}).scalars().all()
            gone = [worker for worker in workers if worker is not None and is_gone(worker)]
            expired = connection.execute(self._expired, {"queue": queue, "gone": gone}).all()
            changes: list[Transition] = [
                rescued(
                    row.id,
                    row.claim_no,
                    row.fingerprint,
                    row.rescues,
                    worker=row.worker,
                    max_rescues=self._max_rescues,
                    phase=row.phase,
                )
                for row in expired
            ]
            states = self._transitions.apply(connection, changes)
            count += len(states)
            superseded = [(job_id,) for job_id, state in states.items() if state == SUPERSEDED]
            if superseded:
                connection.execute(self._inherit, self._superseded.bind(superseded))
            ended = [
                _poisoned(queue, row, change)
                for row, change in zip(expired, changes, strict=True)
                if change.state == FAILURE and row.id in states
            ]
            if ended:
                ended += self._poisons.end(connection, ended)
            poisoned += ended
        return count, poisoned


def _poisoned(queue: str, row: Any, change: Transition) -> PoisonJob:
    return PoisonJob(
        id=row.id,
        queue=queue,
        client=row.client,
        type=row.type,
        phase=row.phase,
        key=row.key,
        fingerprint=row.fingerprint,
        payload=row.payload,
        generation=row.generation,
        attempts=row.attempts,
        message=change.message,
    )


def report(poisoned: Iterable[PoisonJob], on_poison: OnPoison | None) -> None:
    """Call `on_poison` with each of these jobs."""
    if on_poison is not None:
        for one in poisoned:
            on_poison(one)
