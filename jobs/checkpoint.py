"""How far a claimed job has come: its checkpoint, and the step to its next phase. Both are durable at once, and fenced."""

from typing import Any

from sqlalchemy import Connection, and_, bindparam, insert, select, update

from jobs.contention import again
from jobs.database import Database
from jobs.errors import LostLease, PayloadError
from jobs.fingerprint import decode, encode
from jobs.finish import Finishes
from jobs.job import Done, Job, Settled
from jobs.models import attempt, job
from jobs.payload import PAYLOAD_LIMIT
from jobs.session import UnitOfWork
from jobs.settle import PROCESSING


class Checkpoints:
    """Checkpoints and phases of claimed jobs, and the finish of those that used their session, of one database."""

    def __init__(self, db: Database, finishes: Finishes) -> None:
        self._db = db
        self._finishes = finishes
        # As in `jobs.settle.held`: as an expression the state fits no partial index, so the primary key is used.
        mine = and_(
            job.c.id == bindparam("of_job"),
            job.c.state.concat("") == PROCESSING,
            job.c.claim_no == bindparam("of_claim"),
        )
        self._note = update(job).where(mine).values(checkpoint=bindparam("noted"))
        self._tried = insert(attempt).from_select(
            ["job_id", "claim_no", "worker", "started_at", "ended_at", "outcome", "phase", "exchanges"],
            select(
                job.c.id, job.c.claim_no, job.c.worker, job.c.started_at, db.now, bindparam("came_to"), job.c.phase,
                bindparam("exchanged", type_=attempt.c.exchanges.type),
            ).where(mine),
        )  # fmt: skip
        self._step = update(job).where(mine).values(phase=bindparam("to_phase"), checkpoint=None, started_at=db.now)

    def save(self, claimed: Job, value: Any, unit: UnitOfWork | None = None) -> Job:
        """Keep a checkpoint, together with what the job's session wrote so far: position and results move together (law 2).

        Args:
            claimed: the claim.
            value: any JSON; `None` forgets the one before.
            unit: what the job wrote. It goes on in a new transaction.

        Returns:
            The job with its new checkpoint.

        Raises:
            LostLease: the claim is another's by now; nothing was kept, and what the session wrote since the last commit is gone.
            PayloadError: the value is not JSON, or larger than a payload may be; nothing was kept, the session goes on.
        """
        document = encode(value)
        if len(document) > PAYLOAD_LIMIT:
            raise PayloadError(
                f"the checkpoint of job {claimed.id} has {len(document):,} bytes; at most {PAYLOAD_LIMIT:,} are kept, "
                "so note a position in place of what was read"
            )
        parameters = {**_fence(claimed), "noted": value}
        self._transact(unit, lambda connection: _must_hold(claimed, connection.execute(self._note, parameters).rowcount))
        # What was given may be changed later on; what was kept may not.
        return claimed._replace(checkpoint=decode(document))

    def advance(self, claimed: Job, to_phase: str, unit: UnitOfWork | None = None, exchanges: str | None = None) -> Job:
        """Go on to a further phase under the same claim: phase, checkpoint and the job's writes commit together.

        Args:
            claimed: the claim, in the phase that has succeeded.
            to_phase: the next one.
            unit: what the job wrote.
            exchanges: JSON text for the row of the attempt that ends here.

        Returns:
            The job in its next phase.

        Raises:
            LostLease: the claim is another's by now; nothing of it remains.
        """

        exchanged = None if exchanges is None else decode(exchanges)

        def step(connection: Connection) -> None:
            connection.execute(self._tried, {**_fence(claimed), "came_to": "phase", "exchanged": exchanged})
            _must_hold(claimed, connection.execute(self._step, {**_fence(claimed), "to_phase": to_phase}).rowcount)

        self._transact(unit, step)
        return claimed._replace(lane=claimed.lane._replace(phase=to_phase), checkpoint=None)

    def finish(self, done: Done, unit: UnitOfWork) -> Settled:
        """Finish one job in the transaction of its session (law 3).

        Args:
            done: what came of it.
            unit: what it wrote.

        Returns:
            Its new state; `lost` where the claim is another's by now, and then nothing that it wrote remains.

        Raises:
            Exception: what the database says to what the session holds; nothing of it remains, and the job is unfinished.
        """

        def settle(connection: Connection) -> Settled:
            (settled,) = self._finishes.within(connection, [done])
            _must_hold(done.job, settled.state != "lost")
            return settled

        try:
            return unit.commit(settle)
        except LostLease:
            return Settled(done.job, "lost", done.verdict)

    def _transact(self, unit: UnitOfWork | None, work: Any) -> None:
        if unit is not None:
            unit.check()
        if unit is not None and unit.is_open:
            unit.commit(work)
        else:
            self._write(work, unit)

    @again
    def _write(self, work: Any, unit: UnitOfWork | None) -> None:
        with self._db.write() as connection:
            work(connection)
            if unit is not None:
                # Here, too: SQLite's writer, or the row, may have been long in coming, and the job was given up meanwhile.
                unit.check()


def _fence(claimed: Job) -> dict[str, int]:
    return {"of_job": claimed.id, "of_claim": claimed.claim_no}


def _must_hold(claimed: Job, found: int) -> None:
    if not found:
        raise LostLease(f"job {claimed.id} belongs to another worker now, or was released or cancelled; what was done is dropped")
