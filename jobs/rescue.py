"""Taking back what dead and silent workers have in hand (law 4, M4). Decides nothing about outcomes."""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select, update

from jobs import transition
from jobs.contention import again
from jobs.database import Database
from jobs.job import Move
from jobs.models import FAILURE, SUPERSEDED, job
from jobs.payload import is_same
from jobs.poison import Poisoned, Poisons
from jobs.rows import Rows
from jobs.settle import PROCESSING, Settlement
from jobs.worker import is_gone

RESCUE_BATCH = 500
"""Rescues in one claim at most, so that a claim stays short after a disaster (M4)."""

OnPoison = Callable[[Poisoned], None]
"""Told of each job that ended as poison."""


class Rescues:
    """Rescues in one database. Any number of threads and processes may call it."""

    def __init__(self, db: Database, settlement: Settlement, *, max_rescues: int) -> None:
        self._db = db
        self._settlement = settlement
        self._max_rescues = max_rescues
        self._poisons = Poisons(db)
        self._gave_way = Rows(db, {"id": "id"})
        self._inherit = self._inherit_statement()
        self._workers = select(job.c.worker).distinct().where(job.c.state == PROCESSING, job.c.queue == bindparam("queue"))
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
                job.c.state == PROCESSING,
                job.c.queue == bindparam("queue"),
                or_(job.c.lease_until < db.now, job.c.worker.in_(bindparam("gone", expanding=True))),
            )
            .order_by(job.c.id)
            .limit(RESCUE_BATCH)
            .with_for_update(skip_locked=True)
        )

    def _inherit_statement(self) -> Any:
        """Hand a rescued job's count on to the twin that it gave way to: else poison that is listed again would never end.

        Only where the content is the same: that of a sync's job is its entity, that of any other its payload.
        """
        old = job.alias("old")
        same = or_(job.c.key == old.c.key, is_same(job.c.payload, old.c.payload, self._db.dialect))
        return (
            update(job)
            .where(old.c.id == self._gave_way.id, job.c.id == old.c.superseded_by, job.c.rescues < old.c.rescues, same)
            .values(rescues=old.c.rescues)
        )

    @again
    def rescue(self, queues: Iterable[str], *, on_poison: OnPoison | None = None) -> int:
        """Take back jobs whose lease has ended or whose process on this host is known to be gone.

        Args:
            queues: where to look.
            on_poison: told of jobs that ended because they keep killing their workers, once that is committed.

        Returns:
            How many went back, gave way to a twin, or ended as poison.
        """
        with self._db.write() as connection:
            count, poisoned = self.within(connection, queues)
        tell(poisoned, on_poison)
        return count

    def within(self, connection: Connection, queues: Iterable[str]) -> tuple[int, list[Poisoned]]:
        """Rescue inside a transaction of the caller, who tells of the poison after its commit."""
        count = 0
        poisoned: list[Poisoned] = []
        for queue in sorted(queues):
            workers = connection.execute(self._workers, {"queue": queue}).scalars().all()
            gone = [worker for worker in workers if worker is not None and is_gone(worker)]
            expired = connection.execute(self._expired, {"queue": queue, "gone": gone}).all()
            moves: list[Move] = [
                transition.rescued(
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
            states = self._settlement.settle(connection, moves)
            count += len(states)
            superseded = [(job_id,) for job_id, state in states.items() if state == SUPERSEDED]
            if superseded:
                connection.execute(self._inherit, self._gave_way.bind(superseded))
            ended = [
                _poisoned(queue, row, move)
                for row, move in zip(expired, moves, strict=True)
                if move.state == FAILURE and row.id in states
            ]
            if ended:
                ended += self._poisons.end(connection, ended)
            poisoned += ended
        return count, poisoned


def _poisoned(queue: str, row: Any, move: Move) -> Poisoned:
    return Poisoned(
        row.id, queue, row.client, row.type, row.phase, row.key, row.fingerprint, row.payload, row.generation, row.attempts,
        move.message,
    )  # fmt: skip


def tell(poisoned: Iterable[Poisoned], on_poison: OnPoison | None) -> None:
    """Tell of each."""
    if on_poison is not None:
        for one in poisoned:
            on_poison(one)
