"""Stores checkpoints of claimed jobs, moves them to their next phase, and finishes jobs that wrote through their own session.

Each write is one fenced transaction.
"""

import time
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, insert, select, update

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.job_session import UnitOfWork
from jobs.db.json_codec import decode, document
from jobs.enqueueing.payload import PAYLOAD_LIMIT
from jobs.errors import LostLease, PayloadError
from jobs.finishing.fence import LONG_AGO, later_of
from jobs.finishing.finish import Finishes
from jobs.job import Job, JobResult
from jobs.schema.job_tables import attempt, job
from jobs.schema.states import PROCESSING_LITERAL

#: Outcomes of attempts that may have reached the remote side although nobody knows what they did: sent and not answered; its
#: worker died or went silent; taken from its worker.
_UNKNOWN_OUTCOMES = ("unknown", "rescued", "released")


class Checkpoints:
    """Checkpoints and phases of claimed jobs, and the finish of those that used their session, of one database."""

    def __init__(self, db: Database, finishes: Finishes) -> None:
        self._db = db
        self._finishes = finishes
        # As in `jobs.finishing.fence.is_held`: as an expression the state matches no partial index, so the primary key is used.
        mine = and_(
            job.c.id == bindparam("of_job"),
            job.c.state.concat("") == PROCESSING_LITERAL,
            job.c.claim_no == bindparam("of_claim"),
        )
        self._note = update(job).where(mine).values(checkpoint=bindparam("noted"))
        self._tried = insert(attempt).from_select(
            ["job_id", "claim_no", "worker", "started_at", "ended_at", "outcome", "phase", "exchanges"],
            select(
                job.c.id,
                job.c.claim_no,
                job.c.worker,
                later_of(db.from_now("began"), job.c.started_at),
                db.now,
                bindparam("came_to"),
                job.c.phase,
                bindparam("exchanged", type_=attempt.c.exchanges.type),
            ).where(mine),
        )
        self._step = update(job).where(mine).values(phase=bindparam("to_phase"), checkpoint=None, started_at=db.now)

        open_ends = exists().where(
            attempt.c.job_id == bindparam("of_job"),
            attempt.c.phase == bindparam("of_phase"),
            attempt.c.outcome.in_(_UNKNOWN_OUTCOMES),
        )
        self._has_unknown = select(open_ends)

    def unit_of_work(self, claimed: Job) -> UnitOfWork:
        """Return the unit of work of a claimed job: its session and transaction, opened by the first statement."""
        return UnitOfWork(self._db, f"job {claimed.id} ({claimed.lane.type})")

    def save(self, claimed: Job, value: Any, unit: UnitOfWork | None = None) -> Job:
        """Store a checkpoint, in one transaction with what the job's session wrote so far.

        Args:
            claimed: the claim.
            value: any JSON; `None` removes the one before.
            unit: of the job. It continues in a new transaction.

        Returns:
            The job with its new checkpoint.

        Raises:
            LostLease: another worker has the claim by now; nothing was stored, and the session was rolled back.
            PayloadError: the value is not JSON, or larger than a payload may be; nothing was stored, the session continues.
        """
        text = document(value)
        size = len(text.encode())
        if size > PAYLOAD_LIMIT:
            raise PayloadError(
                f"the checkpoint of job {claimed.id} has {size:,} bytes; at most {PAYLOAD_LIMIT:,} are kept, "
                "so note a position in place of what was read"
            )
        parameters = {**_fence(claimed), "noted": value}
        self._transact(unit, lambda connection: _must_hold(claimed, connection.execute(self._note, parameters).rowcount))
        # A copy, because the caller may change the value later.
        return claimed._replace(checkpoint=decode(text))

    def advance(
        self,
        claimed: Job,
        to_phase: str,
        unit: UnitOfWork | None = None,
        exchanges: str | None = None,
        *,
        began: float | None = None,
    ) -> Job:
        """Move a job to its next phase under the same claim; phase, checkpoint and the job's writes commit together.

        Args:
            claimed: the claim, in the phase that has succeeded.
            to_phase: the next one.
            unit: of the job.
            exchanges: JSON text for the row of the attempt that ends here.
            began: when that attempt began, by `time.monotonic`; `None`: at the claim.

        Returns:
            The job in its next phase.

        Raises:
            LostLease: another worker has the claim by now; everything was rolled back.
        """

        exchanged = None if exchanges is None else decode(exchanges)

        def step(connection: Connection) -> None:
            at = LONG_AGO if began is None else began - time.monotonic()
            connection.execute(self._tried, {**_fence(claimed), "came_to": "phase", "exchanged": exchanged, "began": at})
            _must_hold(claimed, connection.execute(self._step, {**_fence(claimed), "to_phase": to_phase}).rowcount)

        self._transact(unit, step)
        return claimed._replace(lane=claimed.lane._replace(phase=to_phase), checkpoint=None)

    def finish(self, done: JobResult, unit: UnitOfWork) -> JobResult:
        """Finish one job in the transaction of its session.

        Args:
            done: the worked job.
            unit: of the job.

        Returns:
            Its new state; `lost` if another worker has the claim by now, and then everything was rolled back.

        Raises:
            Exception: from the database, for what the session holds; everything was rolled back, and the job is unfinished.
        """

        def settle(connection: Connection) -> JobResult:
            (settled,) = self._finishes.finish_in(connection, [done])
            _must_hold(done.job, settled.state != "lost")
            return settled

        try:
            return unit.commit(settle)
        except LostLease:
            return done._replace(state="lost")

    def has_unknown_outcome(self, claimed: Job) -> bool:
        """Return whether an earlier attempt at this phase may have reached the remote side with an unknown result.

        One is enough, whatever came after it: a later failure does not undo what the first one may have done.
        """
        if claimed.rescues:
            # Includes those of a twin that it superseded.
            return True
        if claimed.claim_no == 1:
            return False
        with self._db.read() as connection:
            parameters = {"of_job": claimed.id, "of_phase": claimed.lane.phase}
            return bool(connection.execute(self._has_unknown, parameters).scalar_one())

    def _transact(self, unit: UnitOfWork | None, work: Any) -> None:
        if unit is not None:
            unit.check()
        if unit is not None and unit.is_open:
            unit.commit(work)
        else:
            self._write(work, unit)

    @retry_on_conflict
    def _write(self, work: Any, unit: UnitOfWork | None) -> None:
        with self._db.write() as connection:
            work(connection)
            if unit is not None:
                # Checked again, because waiting for the write lock or the row may have taken long enough to lose the job.
                unit.check()


def _fence(claimed: Job) -> dict[str, int]:
    return {"of_job": claimed.id, "of_claim": claimed.claim_no}


def _must_hold(claimed: Job, found: int) -> None:
    if not found:
        raise LostLease(f"job {claimed.id} belongs to another worker now, or was released or cancelled; what was done is dropped")
