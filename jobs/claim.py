"""Taking jobs: claim, rescue, renew, release. Decides nothing about outcomes."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, exists, literal_column, or_, select, update

from jobs import transition
from jobs.contention import again
from jobs.database import Database
from jobs.job import Job, Lane, Move
from jobs.models import FAILURE, SUPERSEDED, job, pause
from jobs.models import QUEUED as QUEUED_STATE
from jobs.poison import Poisoned, Poisons
from jobs.rows import Rows
from jobs.settle import PROCESSING, QUEUED, Settlement, held
from jobs.worker import is_gone

RESCUE_EVERY = 1.0
"""Seconds between two looks of one process for expired leases in a queue."""

RESCUE_BATCH = 500
"""Rescues in one claim at most, so that a claim stays short after a disaster (M4)."""


OnPoison = Callable[[Poisoned], None]
"""Told of each job that ended as poison."""


class Claims:
    """Claims of one database. Any number of threads and processes may call it."""

    def __init__(self, db: Database, settlement: Settlement, *, max_rescues: int) -> None:
        self._db = db
        self._settlement = settlement
        self._max_rescues = max_rescues
        self._rescued_at: dict[str, float] = {}
        self._claim = {suspects: self._claim_statement(suspects) for suspects in (False, True)}
        self._head = self._head_statement()
        self._renewed = renewed = Rows(db, {"id": "id", "claim_no": "int"})
        self._renew = self._renew_statement(renewed)
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
        """Hand a rescued job's count on to the twin that it gave way to: else poison that is listed again would never end."""
        old = job.alias("old")
        return (
            update(job)
            .where(old.c.id == self._gave_way.id, job.c.id == old.c.superseded_by, job.c.rescues < old.c.rescues)
            .values(rescues=old.c.rescues)
        )

    def _waiting(self) -> list[ColumnElement[bool]]:
        db = self._db
        is_paused = exists(literal_column("1")).where(
            pause.c.client == bindparam("of_client"),
            pause.c.ended_at.is_(None),
            or_(pause.c.until.is_(None), pause.c.until > db.now),
        )
        return [
            job.c.state == QUEUED,
            job.c.queue == bindparam("in_queue"),
            job.c.client == bindparam("of_client"),
            job.c.type == bindparam("of_type"),
            job.c.phase == bindparam("of_phase"),
            job.c.available_at <= db.now,
            ~is_paused,
        ]

    def _claim_statement(self, suspects: bool) -> Any:
        db = self._db
        ready = (
            select(job.c.id)
            .where(*self._waiting(), job.c.rescues > 0 if suspects else job.c.rescues == 0)
            .order_by(job.c.priority.desc(), job.c.available_at, job.c.id)
            .limit(bindparam("n"))
            .with_for_update(skip_locked=True)
            .cte("ready")
            # Without the fence the planner may run the LIMIT again for each row and claim more than n (Oban's comment).
            .prefix_with("MATERIALIZED", dialect="postgresql")
        )
        return (
            update(job)
            .where(job.c.id.in_(select(ready.c.id)))
            .values(
                state="processing",
                claim_no=job.c.claim_no + 1,
                worker=bindparam("by"),
                started_at=db.now,
                lease_until=db.from_now("lease"),
            )
            .returning(
                job.c.priority, literal_column("available_at"), job.c.id, job.c.key, job.c.fingerprint, job.c.payload,
                job.c.generation, job.c.claim_no, job.c.attempts, job.c.retries, job.c.rescues,
                job.c.checkpoint,
            )
        )  # fmt: skip

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

    def _head_statement(self) -> Any:
        return (
            select(job.c.priority).where(*self._waiting()).order_by(job.c.priority.desc(), job.c.available_at, job.c.id).limit(1)
        )

    @again
    def claim(
        self, lanes: Sequence[Lane], n: int, *, worker: str, lease: float, suspects: bool = False,
        on_poison: OnPoison | None = None,
    ) -> list[Job]:  # fmt: skip
        """Take up to `n` jobs that are due, and rescue expired ones on the way (law 4).

        Among lanes the highest priority goes first; lanes of equal priority share the claim, so that a long lane does
        not hide a short one. Jobs of a paused client stay where they are (law 5).

        Args:
            lanes: what the caller can work.
            n: at most so many.
            worker: who takes them, see `jobs.worker`.
            lease: seconds until others may take them back, unless renewed.
            suspects: take the jobs that were in a dying worker's hands instead of the others. Worked one at a time,
                they show which of them kills its worker, and the rest of its batch is spared.
            on_poison: told of jobs that ended because they keep killing their workers, once that is committed.

        Returns:
            Claimed jobs, urgent first, then due first, then first come.
        """
        if n < 1:
            return []
        due = self._due_for_rescue({lane.queue for lane in lanes})
        with self._db.write(single=not due and len(lanes) == 1) as connection:
            _, poisoned = self._rescue(connection, due)
            jobs = self._claim_lanes(connection, lanes, n, worker, lease, suspects)
        _tell(poisoned, on_poison)
        return jobs

    def _claim_lanes(
        self, connection: Connection, lanes: Sequence[Lane], n: int, worker: str, lease: float, suspects: bool
    ) -> list[Job]:
        if len(lanes) == 1:
            return self._claim_lane(connection, lanes[0], n, worker, lease, suspects)
        jobs: list[Job] = []
        for tier in self._tiers(connection, lanes):
            for left, lane in zip(range(len(tier), 0, -1), tier, strict=True):
                share = -(-(n - len(jobs)) // left)
                if share > 0:
                    jobs += self._claim_lane(connection, lane, share, worker, lease, suspects)
            if len(jobs) >= n:
                break
        return jobs

    def _tiers(self, connection: Connection, lanes: Sequence[Lane]) -> list[list[Lane]]:
        """Group the lanes that have work by the priority of their first job, highest first."""
        tiers: dict[int, list[Lane]] = {}
        for lane in lanes:
            priority = connection.execute(self._head, lane.parameters()).scalar()
            if priority is not None:
                tiers.setdefault(priority, []).append(lane)
        return [tiers[priority] for priority in sorted(tiers, reverse=True)]

    def _claim_lane(self, connection: Connection, lane: Lane, n: int, worker: str, lease: float, suspects: bool) -> list[Job]:
        rows = connection.execute(self._claim[suspects], {**lane.parameters(), "n": n, "by": worker, "lease": lease}).all()
        # RETURNING promises no order.
        rows = sorted(rows, key=_order)
        return [Job(row[2], lane, *row[3:]) for row in rows]

    def _due_for_rescue(self, queues: Iterable[str]) -> list[str]:
        now = time.monotonic()
        due = [queue for queue in queues if now - self._rescued_at.get(queue, -RESCUE_EVERY) >= RESCUE_EVERY]
        self._rescued_at.update(dict.fromkeys(due, now))
        return due

    @again
    def rescue(self, queues: Iterable[str], *, on_poison: OnPoison | None = None) -> int:
        """Take back jobs whose lease has ended or whose process on this host is known to be gone.

        Args:
            queues: where to look.
            on_poison: as for `claim`.

        Returns:
            How many went back, gave way to a twin, or ended as poison.
        """
        with self._db.write() as connection:
            count, poisoned = self._rescue(connection, queues)
        _tell(poisoned, on_poison)
        return count

    def _rescue(self, connection: Connection, queues: Iterable[str]) -> tuple[int, list[Poisoned]]:
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
                self._poisons.end(connection, ended)
            poisoned += ended
        return count, poisoned

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
            found = connection.execute(self._renew, {**self._renewed.bind(sorted(claims)), "lease": lease})
            return set(found.scalars())

    @again
    def release(self, jobs: Sequence[Job], *, reason: str) -> int:
        """Put unworked jobs back: available at once, no attempt used. Fenced like every other write.

        Returns:
            How many were still held.
        """
        moves = [
            Move(one.id, one.claim_no, one.fingerprint, QUEUED_STATE, "released", reason, phase=one.lane.phase) for one in jobs
        ]
        with self._db.write() as connection:
            return len(self._settlement.settle(connection, moves))


def _poisoned(queue: str, row: Any, move: Move) -> Poisoned:
    return Poisoned(
        row.id, queue, row.client, row.type, row.phase, row.key, row.fingerprint, row.payload, row.generation, row.attempts,
        move.message,
    )  # fmt: skip


def _tell(poisoned: list[Poisoned], on_poison: OnPoison | None) -> None:
    if on_poison is not None:
        for one in poisoned:
            on_poison(one)


def _order(row: Any) -> tuple[int, Any, int]:
    return -row[0], row[1], row[2]
