"""Holding on to claims and letting go of them unworked: renew, release. Decides nothing about outcomes."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from jobs.contention import again
from jobs.database import Database
from jobs.job import Job, Move
from jobs.models import QUEUED, job
from jobs.prepared import Prepared
from jobs.rows import Rows
from jobs.settle import Settlement, held


class Leases:
    """Leases of the jobs of one database. Any number of threads and processes may call it."""

    def __init__(self, db: Database, settlement: Settlement) -> None:
        self._db = db
        self._settlement = settlement
        self._renewed = renewed = Rows(db, {"id": "id", "claim_no": "int"})
        self._renew = Prepared(self._renew_statement(renewed))

    def _renew_statement(self, claims: Rows) -> Any:
        extend = update(job).values(lease_until=self._db.from_now("lease"))
        if self._db.dialect == "sqlite":
            return extend.where(held(claims)).returning(job.c.id)
        # A renewal waits for nobody, so that it cannot wait crosswise with the finish of the same rows. What another transaction
        # has in hand counts as held: it is being finished here, or rescued, which the next renewal tells.
        found = select(job.c.id).join_from(claims.table, job, held(claims))
        free = found.with_for_update(of=job, skip_locked=True).cte("free").prefix_with("MATERIALIZED")
        extended = extend.where(job.c.id.in_(select(free.c.id))).returning(job.c.id).cte("extended")
        return found.add_cte(extended)

    @again
    def renew(self, claims: Sequence[tuple[int, int]], *, lease: float) -> set[int]:
        """Extend leases, in one statement.

        Args:
            claims: pairs of job id and claim number.
            lease: seconds from now.

        Returns:
            The ids that are still held; the others are lost, and their work must stop.
        """
        if not claims:
            return set()
        with self._db.write(single=True) as connection:
            found = self._renew.rows(connection, {**self._renewed.bind(sorted(claims)), "lease": lease})
        return {row[0] for row in found}

    @again
    def release(self, jobs: Sequence[Job], *, reason: str) -> int:
        """Put unworked jobs back: available at once, no attempt used. Fenced like every other write.

        Returns:
            How many were still held.
        """
        moves = [Move(one.id, one.claim_no, one.fingerprint, QUEUED, "released", reason, phase=one.lane.phase) for one in jobs]
        with self._db.write(prepared=True) as connection:
            return len(self._settlement.settle(connection, moves))
