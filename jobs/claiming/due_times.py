"""Reads when the next job of a lane may begin, and whether one is due now.

Both queries walk the index job_ready, one step for each priority in a lane, however many jobs wait there.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CTE, ColumnElement, Integer, and_, case, exists, func, literal_column, or_, select

from jobs.claiming.eligibility import ORDER, LaneColumns, is_in_turn, is_open
from jobs.db.clock import UTCDateTime
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.job import Lane
from jobs.schema.job_tables import job, pause
from jobs.schema.states import QUEUED_LITERAL

LEVELS = 20
"""Priorities of one lane that are read for the first delayed job; a later query reads further ones."""

_NAMES = ("queue", "client", "type", "phase")


class DueTimes:
    """When jobs of one database are due."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lanes = JsonRows(db, {"n": "int", "queue": "text", "client": "text", "type": "text", "phase": "text"}, name="lane")
        client = self._lanes.client
        # While a client is paused or probed, none of its jobs may begin.
        ends = case((pause.c.until > db.now, pause.c.until), else_=pause.c.probe_until)
        is_blocked = and_(pause.c.ended_at.is_(None), or_(pause.c.until.is_(None), ends > db.now))
        self._ends = select(pause.c.client, ends.label("until"), db.now.label("now")).where(
            pause.c.ended_at.is_(None), ends > db.now
        )
        level = self._levels(~exists(literal_column("1")).where(pause.c.client == client, is_blocked)).c
        later = select(job.c.available_at).where(*_of(level), job.c.available_at > db.from_now("since"))
        later = later.order_by(job.c.available_at).limit(1)
        self._next = select(func.min(later.scalar_subquery()).label("at"), db.now.label("now")).where(level.priority.is_not(None))
        # Jobs that were claimed before: one that somebody queued for later is no retry.
        lane = LaneColumns(*(getattr(self._lanes, name) for name in _NAMES))
        self._next_retry = (
            select(func.min(job.c.available_at).label("at"), db.now.label("now"))
            .select_from(self._lanes.table)
            .join(job, and_(*lane.fits()))
            .where(job.c.state == QUEUED_LITERAL, job.c.claim_no > literal_column("0"))
        )
        self._is_due = {False: self._due_statement(db, is_open(client)), True: self._due_statement(db)}

    def _due_statement(self, db: Database, *gate: ColumnElement[bool]) -> Any:
        level = self._levels(*gate).c
        due = select(job.c.id).where(*_of(level), job.c.available_at <= db.now, is_in_turn(db))
        due = due.order_by(job.c.available_at).limit(1)
        return select(exists(select(level.priority).where(due.scalar_subquery().is_not(None))))

    def _levels(self, *gate: ColumnElement[bool]) -> CTE:
        """Each priority of each lane that meets the conditions, the highest first: one step in the index for each."""
        lanes = self._lanes

        def highest(of: Any, *conditions: Any) -> Any:
            lane = LaneColumns(*(getattr(of, name) for name in _NAMES))
            query = select(job.c.priority).where(job.c.state == QUEUED_LITERAL, *lane.fits(), *conditions)
            return query.order_by(*ORDER).limit(1).scalar_subquery()

        columns = [getattr(lanes, name).label(name) for name in _NAMES]
        level = (
            select(*columns, highest(lanes).label("priority"), literal_column("1", Integer).label("depth"))
            .where(*gate)
            .cte("level", recursive=True)
        )
        of = level.c
        return level.union_all(
            select(
                *(of[name] for name in _NAMES), highest(of, job.c.priority < of.priority), of.depth + literal_column("1")
            ).where(of.priority.is_not(None), of.depth < literal_column(str(LEVELS)))
        )

    def _bind(self, lanes: Sequence[Lane]) -> dict[str, Any]:
        return self._lanes.bind([(n, *lane) for n, lane in enumerate(lanes)])

    def next(self, lanes: Sequence[Lane], *, since: float = 0.0) -> float | None:
        """Return the seconds until it makes sense to claim again.

        Args:
            lanes: which.
            since: seconds since the caller looked for due jobs; one that became due after that counts, as due now.

        Returns:
            Seconds until the first delayed job of these lanes is due, or the first pause of their clients ends, or the lease of
            its probe does; `None` if nothing of that is known.
        """
        if not lanes:
            return None
        clients = {lane.client for lane in lanes}
        with self._db.read() as connection:
            row = connection.execute(self._next, {**self._bind(lanes), "since": -since}).one()
            waits = [_seconds(row.at, row.now)] if row.at is not None else []
            waits += [_seconds(end.until, end.now) for end in connection.execute(self._ends) if end.client in clients]
        return min(waits, default=None)

    def next_retry(self, lanes: Sequence[Lane]) -> float | None:
        """Return the seconds until the first job of these lanes is due that was begun before; `None` if there is none."""
        with self._db.read() as connection:
            row = connection.execute(self._next_retry, self._bind(lanes)).one()
        return None if row.at is None else _seconds(row.at, row.now)

    def is_due(self, lanes: Sequence[Lane], *, probing: bool = False) -> bool:
        """Tell whether a job of these lanes could begin if its queue has capacity: it is due, in turn, and its client open.

        Args:
            lanes: which.
            probing: pauses of clients do not count.
        """
        if not lanes:
            return False
        with self._db.read() as connection:
            return bool(connection.execute(self._is_due[probing], self._bind(lanes)).scalar_one())


def _of(level: Any) -> list[ColumnElement[bool]]:
    """The queued jobs of a priority of a lane."""
    lane = LaneColumns(*(level[name] for name in _NAMES))
    return [job.c.state == QUEUED_LITERAL, *lane.fits(), job.c.priority == level.priority]


def _seconds(then: Any, now: Any) -> float:
    return max(0.0, (_moment(then) - _moment(now)).total_seconds())


def _moment(found: Any) -> datetime:
    value = UTCDateTime().process_result_value(found, None)
    assert value is not None
    return value
