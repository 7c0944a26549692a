"""The statements that claim jobs of one lane: they set `queued` jobs to `processing`.

Each checks the serial key of a row (`jobs.claiming.eligibility.is_in_turn`), so that none breaks the order of a key; for a row
without a key that costs one look at a column. The statements differ in how they find rows. The usual one walks the lane
in the order of claims, and is right for every lane. Where jobs with serial keys wait, many of the first may not be in turn; there
the walk is limited to `NEAR` jobs, and the rest is found from key to key (`jobs.claiming.serial_keys`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Integer, bindparam, exists, literal_column, or_, select, update

from jobs.claiming.eligibility import BOUND, ORDER, generation_of, if_open, is_due, is_in_turn, is_open
from jobs.claiming.priorities import HIGHEST, LOWEST
from jobs.claiming.serial_keys import SerialKeys
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.db.prepared_statements import PreparedStatement
from jobs.job import Job, Lane
from jobs.schema.job_tables import job, queue
from jobs.schema.states import PROCESSING_LITERAL, QUEUED_LITERAL

NEAR = 500
"""Jobs of a lane that are walked in the order of claims, where jobs with serial keys wait."""


ANY = 2**31 - 1
"""More often than any job is put back or retried."""


class ClaimedBy(NamedTuple):
    """Who claims, for how many seconds, and whether rescued jobs are meant."""

    worker: str
    lease: float
    suspects: bool = False
    #: Only of a claim for a probe: jobs that were put back at least so often, and were put back or retried at most so often.
    least: int = 0
    most: int = ANY


class ClaimStatements:
    """Claims from the lanes of one database.

    Args:
        db: the database.
        probing: the caller has the right to claim jobs of a paused client.
    """

    def __init__(self, db: Database, *, probing: bool = False) -> None:
        self._db = db
        self._probing = probing
        self._lane = BOUND
        self._gate = []
        if not probing and db.dialect == "sqlite":
            self._lane = BOUND._replace(client=if_open(BOUND.client))
        elif not probing:
            self._gate = [is_open(BOUND.client)]
        self._keys = SerialKeys(db)
        self._ids = ids = JsonRows(db, {"id": "id"})
        kinds = (False, True)
        self._plain_statements = {suspects: self._plain(suspects) for suspects in kinds}
        # SQLite makes a table of `IN (…)` even for one row: 3 µs of the 100 that a claim of one job takes.
        is_lone = db.dialect == "sqlite"
        self._single_statements = {
            suspects: self._plain(suspects, is_lone=True) if is_lone else self._plain_statements[suspects] for suspects in kinds
        }
        self._between = {suspects: self._plain(suspects, _span()) for suspects in kinds}
        self._near = {suspects: self._from(partial(self._walk, suspects), suspects) for suspects in kinds}
        self._these = {suspects: self._from(lambda: select(ids.id), suspects) for suspects in kinds}

    def _conditions(self, suspects: bool) -> list[ColumnElement[bool]]:
        has_limits = exists(literal_column("1")).where(
            queue.c.id == BOUND.queue, or_(queue.c.slots.is_not(None), queue.c.rate_n.is_not(None))
        )
        history = (job.c.snoozes >= bindparam("least"), job.c.snoozes + job.c.retries <= bindparam("most"))
        return [
            *self._lane.fits(),
            *is_due(self._db, suspects=suspects),
            *self._gate,
            *(history if self._probing else ()),
            # A process that has not read new limits yet claims nothing. An integer: SQLAlchemy checks each value of a Boolean.
            or_(bindparam("keeps_limits", type_=Integer) == 1, ~has_limits),
        ]

    def _plain(self, suspects: bool, *more: ColumnElement[bool], is_lone: bool = False) -> PreparedStatement:
        return PreparedStatement(
            lambda: self._claim_statement(
                select(job.c.id).where(job.c.state == QUEUED_LITERAL, *self._conditions(suspects), *more, is_in_turn(self._db)),
                is_lone=is_lone,
            )
        )

    def _walk(self, suspects: bool) -> Any:
        near = select(job.c.id).where(job.c.state == QUEUED_LITERAL, *self._conditions(suspects), _span())
        # A literal: PostgreSQL's planner takes a parameter for a tenth of the table.
        near = near.order_by(*ORDER).limit(literal_column(str(NEAR)))
        return select(near.cte("near").prefix_with("MATERIALIZED", dialect="postgresql").c.id)

    def _from(self, ids: Callable[[], Any], suspects: bool) -> PreparedStatement:
        # As an expression the state matches no partial index, so that the primary key is used.
        return PreparedStatement(
            lambda: self._claim_statement(
                select(job.c.id).where(
                    job.c.id.in_(ids()),
                    job.c.state.concat("") == QUEUED_LITERAL,
                    *self._conditions(suspects),
                    _span(),
                    is_in_turn(self._db),
                )
            )
        )

    def _claim_statement(self, ready: Any, *, is_lone: bool = False) -> Any:
        db = self._db
        ready = ready.order_by(*ORDER).limit(bindparam("n")).with_for_update(skip_locked=True)
        # Without MATERIALIZED the planner may run the LIMIT again for each row and claim more than n.
        fenced = ready.cte("ready").prefix_with("MATERIALIZED", dialect="postgresql")
        return (
            update(job)
            .where(job.c.id == ready.scalar_subquery() if is_lone else job.c.id.in_(select(fenced.c.id)))
            .values(
                state=PROCESSING_LITERAL,
                claim_no=job.c.claim_no + literal_column("1", Integer),
                worker=bindparam("by"),
                started_at=db.now,
                lease_until=db.from_now("lease"),
            )
            .returning(
                job.c.priority, literal_column("available_at"), job.c.id, job.c.key, job.c.fingerprint, job.c.payload,
                job.c.generation, job.c.claim_no, job.c.attempts, job.c.retries, job.c.rescues,
                job.c.checkpoint, generation_of(BOUND.client).label("client_generation"), job.c.snoozes,
            )
        )  # fmt: skip

    def claim(self, connection: Connection, lane: Lane, n: int, by: ClaimedBy, *, keeps_limits: bool = False) -> list[Job]:
        """Claim up to `n` due jobs of a lane in the order of claims, in one statement.

        Args:
            connection: of a transaction that may write, or of a single statement.
            lane: which.
            n: at most so many.
            by: the caller.
            keeps_limits: the caller respects the limits of the queue; otherwise a queue with limits gives nothing.
        """
        statements = self._single_statements if n == 1 else self._plain_statements
        return self._run(
            connection, statements[by.suspects], {**lane.parameters(), "n": n, "keeps_limits": keeps_limits}, lane=lane, by=by
        )

    def claim_between(
        self, connection: Connection, lane: Lane, n: int, by: ClaimedBy, *, at_least: int = LOWEST, at_most: int = HIGHEST,
        keeps_limits: bool = False, has_serial: bool = False,
    ) -> list[Job]:  # fmt: skip
        """Claim jobs of a range of priorities; where serial keys matter, in several statements of one transaction.

        Args:
            connection, lane, n, by, keeps_limits: as for `claim`.
            at_least, at_most: only these priorities.
            has_serial: jobs with serial keys wait in the queue.
        """
        span = {"at_least": at_least, "at_most": at_most}
        values = {**lane.parameters(), **span, "n": n, "keeps_limits": keeps_limits}
        if not has_serial:
            return self._run(connection, self._between[by.suspects], values, lane=lane, by=by)
        jobs = self._run(connection, self._near[by.suspects], values, lane=lane, by=by)
        if len(jobs) < n:
            ids = self._keys.firsts(connection, lane, suspects=by.suspects, **span)
            if ids:
                values |= self._ids.bind([(job_id,) for job_id in ids])
                jobs += self._run(connection, self._these[by.suspects], {**values, "n": n - len(jobs)}, lane=lane, by=by)
        return jobs

    def _run(
        self, connection: Connection, statement: PreparedStatement, values: dict[str, Any], *, lane: Lane, by: ClaimedBy
    ) -> list[Job]:
        if self._probing:
            values = {**values, "least": by.least, "most": by.most}
        rows = statement.rows(connection, {**values, "by": by.worker, "lease": by.lease})
        if len(rows) > 1:
            rows.sort(key=_order)  # RETURNING promises no order
        return [Job(row[2], lane, *row[3:]) for row in rows]


def _span() -> ColumnElement[bool]:
    return job.c.priority.between(bindparam("at_least"), bindparam("at_most"))


def _order(row: Any) -> tuple[int, Any, int]:
    return -row[0], row[1], row[2]
