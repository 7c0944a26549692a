"""Renews the leases of claimed jobs in one statement, and releases jobs that were not worked."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.db.prepared_statements import PreparedStatement
from jobs.finishing.fence import FencedTransitions, is_held
from jobs.finishing.transition import Transition
from jobs.job import Job
from jobs.schema.job_tables import job
from jobs.schema.states import QUEUED


class Leases:
    """Leases of the jobs of one database. Any number of threads and processes may call it."""

    def __init__(self, db: Database, transitions: FencedTransitions) -> None:
        self._db = db
        self._transitions = transitions
        self._renewed = renewed = JsonRows(db, {"id": "id", "claim_no": "int"})
        self._renew = PreparedStatement(self._renew_statement(renewed))

    def _renew_statement(self, claims: JsonRows) -> Any:
        extend = update(job).values(lease_until=self._db.from_now("lease"))
        if self._db.dialect == "sqlite":
            return extend.where(is_held(claims)).returning(job.c.id)
        # A renewal skips rows that are locked, so that it cannot deadlock with a finish of the same rows. A locked row counts as
        # held: it is being finished here, or rescued, which the next renewal finds out.
        found = select(job.c.id).join_from(claims.table, job, is_held(claims))
        free = found.with_for_update(of=job, skip_locked=True).cte("free").prefix_with("MATERIALIZED")
        extended = extend.where(job.c.id.in_(select(free.c.id))).returning(job.c.id).cte("extended")
        return found.add_cte(extended)

    @retry_on_conflict
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

    @retry_on_conflict
    def release(self, jobs: Sequence[Job], *, reason: str) -> int:
        """Put unworked jobs back: available at once, no attempt used. Fenced like every other write.

        Returns:
            How many were still held.
        """
        released = [
            Transition(one.id, one.claim_no, one.fingerprint, QUEUED, "released", message=reason, phase=one.lane.phase)
            for one in jobs
        ]
        with self._db.write(prepared=True) as connection:
            return len(self._transitions.apply(connection, released))
