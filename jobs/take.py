"""Taking jobs from one lane: the statements that turn `queued` into `processing`. Knows nothing of other lanes.

Every way asks for the serial key of a row (`jobs.ready.is_in_turn`), so that none can break its order; a row without one
costs that a look at a column. The ways differ in where they look. The usual one walks the lane in the order of claims, and is
right for every lane. Where jobs with serial keys wait, a long row of them may be out of turn, so the walk is limited to
`NEAR` jobs, and what it leaves is looked for from key to key.
"""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Integer, bindparam, exists, literal_column, or_, select, update

from jobs.database import Database
from jobs.heads import HIGHEST, LOWEST
from jobs.job import Job, Lane
from jobs.models import job, queue
from jobs.prepared import Prepared
from jobs.ready import BOUND, ORDER, generation_of, if_open, is_due, is_in_turn, is_open
from jobs.rows import Rows
from jobs.serial import SerialKeys
from jobs.settle import PROCESSING, QUEUED

NEAR = 500
"""Jobs of a lane that are walked in the order of claims, where serial keys are about."""


class By(NamedTuple):
    """Who takes, for how long, and what kind."""

    worker: str
    lease: float
    suspects: bool = False


class Takes:
    """Takes from the lanes of one database.

    Args:
        db: the database.
        probing: whoever takes has the right to a paused client's jobs.
    """

    def __init__(self, db: Database, *, probing: bool = False) -> None:
        self._db = db
        self._lane = BOUND
        self._gate = []
        if not probing and db.dialect == "sqlite":
            self._lane = BOUND._replace(client=if_open(BOUND.client))
        elif not probing:
            self._gate = [is_open(BOUND.client)]
        self._keys = SerialKeys(db)
        self._ids = ids = Rows(db, {"id": "id"})
        kinds = (False, True)
        self._any = {suspects: self._usual(suspects) for suspects in kinds}
        # SQLite makes a table of `IN (…)`, also for the one row that a claim of one job takes: 3 µs of 100.
        is_lone = db.dialect == "sqlite"
        self._first = {suspects: self._usual(suspects, is_lone=True) if is_lone else self._any[suspects] for suspects in kinds}
        self._between = {suspects: self._usual(suspects, _span()) for suspects in kinds}
        self._near = {suspects: self._from(self._walk(suspects), suspects) for suspects in kinds}
        self._these = {suspects: self._from(select(ids.id), suspects) for suspects in kinds}

    def _conditions(self, suspects: bool) -> list[ColumnElement[bool]]:
        has_limits = exists(literal_column("1")).where(
            queue.c.id == BOUND.queue, or_(queue.c.slots.is_not(None), queue.c.rate_n.is_not(None))
        )
        return [
            *self._lane.fits(),
            *is_due(self._db, suspects=suspects),
            *self._gate,
            # A process that has not heard of new limits yet takes nothing. A number, for a Boolean is checked each time.
            or_(bindparam("has_budget", type_=Integer) == 1, ~has_limits),
        ]

    def _usual(self, suspects: bool, *more: ColumnElement[bool], is_lone: bool = False) -> Prepared:
        ready = select(job.c.id).where(job.c.state == QUEUED, *self._conditions(suspects), *more, is_in_turn())
        return self._take(ready, is_lone=is_lone)

    def _walk(self, suspects: bool) -> Any:
        near = select(job.c.id).where(job.c.state == QUEUED, *self._conditions(suspects), _span())
        # The number stands there for PostgreSQL's planner, which takes a parameter for a tenth of the table.
        near = near.order_by(*ORDER).limit(literal_column(str(NEAR)))
        return select(near.cte("near").prefix_with("MATERIALIZED", dialect="postgresql").c.id)

    def _from(self, ids: Any, suspects: bool) -> Prepared:
        # The state is hidden from the planner, which is to use the primary key.
        is_queued = job.c.state.concat("") == QUEUED
        return self._take(
            select(job.c.id).where(job.c.id.in_(ids), is_queued, *self._conditions(suspects), _span(), is_in_turn())
        )

    def _take(self, ready: Any, *, is_lone: bool = False) -> Prepared:
        db = self._db
        ready = ready.order_by(*ORDER).limit(bindparam("n")).with_for_update(skip_locked=True)
        # Without the fence the planner may run the LIMIT again for each row and claim more than n (Oban's comment).
        fenced = ready.cte("ready").prefix_with("MATERIALIZED", dialect="postgresql")
        return Prepared(
            update(job)
            .where(job.c.id == ready.scalar_subquery() if is_lone else job.c.id.in_(select(fenced.c.id)))
            .values(
                state=PROCESSING,
                claim_no=job.c.claim_no + literal_column("1", Integer),
                worker=bindparam("by"),
                started_at=db.now,
                lease_until=db.from_now("lease"),
            )
            .returning(
                job.c.priority, literal_column("available_at"), job.c.id, job.c.key, job.c.fingerprint, job.c.payload,
                job.c.generation, job.c.claim_no, job.c.attempts, job.c.retries, job.c.rescues,
                job.c.checkpoint, generation_of(BOUND.client).label("client_generation"),
            )
        )  # fmt: skip

    def take(self, connection: Connection, lane: Lane, n: int, by: By, *, has_budget: bool = False) -> list[Job]:
        """Take up to `n` due jobs of a lane in the order of claims, in one statement.

        Args:
            connection: of a transaction that may write, or of a single statement.
            lane: which.
            n: at most so many.
            by: who.
            has_budget: the limits of the queue are known and kept; without that a queue with limits gives nothing.
        """
        statements = self._first if n == 1 else self._any
        return self._run(connection, statements[by.suspects], lane, n, by, {"has_budget": has_budget})

    def take_between(
        self, connection: Connection, lane: Lane, n: int, by: By, *, at_least: int = LOWEST, at_most: int = HIGHEST,
        has_budget: bool = False, has_serial: bool = False,
    ) -> list[Job]:  # fmt: skip
        """As `take`, in one transaction and if need be in several statements.

        Args:
            connection, lane, n, by, has_budget: as for `take`.
            at_least, at_most: only these priorities.
            has_serial: jobs with serial keys wait in the queue.
        """
        span = {"at_least": at_least, "at_most": at_most}
        values = {**span, "has_budget": has_budget}
        if not has_serial:
            return self._run(connection, self._between[by.suspects], lane, n, by, values)
        jobs = self._run(connection, self._near[by.suspects], lane, n, by, values)
        if len(jobs) < n:
            ids = self._keys.firsts(connection, lane, suspects=by.suspects, **span)
            if ids:
                values |= self._ids.bind([(job_id,) for job_id in ids])
                jobs += self._run(connection, self._these[by.suspects], lane, n - len(jobs), by, values)
        return jobs

    @staticmethod
    def _run(connection: Connection, statement: Prepared, lane: Lane, n: int, by: By, values: dict[str, Any]) -> list[Job]:
        bound = {**lane.parameters(), **values, "n": n, "by": by.worker, "lease": by.lease}
        rows = statement.rows(connection, bound)
        if len(rows) > 1:
            rows.sort(key=_order)  # RETURNING promises no order
        return [Job(row[2], lane, *row[3:]) for row in rows]


def _span() -> ColumnElement[bool]:
    return job.c.priority.between(bindparam("at_least"), bindparam("at_most"))


def _order(row: Any) -> tuple[int, Any, int]:
    return -row[0], row[1], row[2]
