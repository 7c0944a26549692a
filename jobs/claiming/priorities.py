"""Reads the priorities that wait in lanes, and how long they have waited.

Both queries walk the index job_ready, one step for each lane or each priority in it, however many jobs there are.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, literal_column, select

from jobs.claiming.eligibility import ORDER, LaneColumns, is_due, is_open
from jobs.db.clock import UTCDateTime
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.db.prepared_statements import PreparedStatement
from jobs.job import Lane
from jobs.schema.job_tables import job
from jobs.schema.states import QUEUED_LITERAL

LOWEST, HIGHEST = -(2**31), 2**31 - 1
"""The range of the column."""

LEVELS = 100
"""Priorities of one lane that are read, from the lowest: these wait the longest."""


class Level(NamedTuple):
    """The jobs of one priority in a lane."""

    lane: Lane
    priority: int
    #: Seconds that the first of them has been due.
    waited: float


class LanePriorities:
    """Priorities of the lanes of one database.

    Args:
        db: the database.
        probing: as for `ClaimStatements`.
    """

    def __init__(self, db: Database, *, probing: bool = False) -> None:
        columns = {"n": "int", "queue": "text", "client": "text", "type": "text", "phase": "text", "at_most": "int"}
        self._lanes = JsonRows(db, columns, name="lane")
        self._gate = [] if probing else [is_open(self._lanes.client)]
        self._highest = {suspects: PreparedStatement(partial(self._first_statement, db, suspects)) for suspects in (False, True)}
        self._levels = PreparedStatement(partial(self._level_statement, db))

    def _first_statement(self, db: Database, suspects: bool) -> Any:
        lanes = self._lanes
        first = (
            select(job.c.priority)
            .where(
                job.c.state == QUEUED_LITERAL,
                *LaneColumns(lanes.queue, lanes.client, lanes.type, lanes.phase).fits(),
                job.c.priority <= lanes.at_most,
                *is_due(db, suspects=suspects),
            )
            .order_by(*ORDER)
            .limit(1)
        )
        return select(lanes.n, first.scalar_subquery().label("priority")).where(*self._gate)

    def _level_statement(self, db: Database) -> Any:
        lanes = self._lanes
        names = ("queue", "client", "type", "phase")

        def lowest(of: Any, *conditions: Any) -> Any:
            lane = LaneColumns(*(getattr(of, name) for name in names))
            query = select(job.c.priority).where(job.c.state == QUEUED_LITERAL, *lane.fits(), *conditions)
            return query.order_by(job.c.priority).limit(1).scalar_subquery()

        level = (
            select(
                lanes.n,
                *(getattr(lanes, name).label(name) for name in names),
                lowest(lanes).label("priority"),
                literal_column("1", Integer).label("depth"),
            )
            .where(*self._gate)
            .cte("level", recursive=True)
        )
        of = level.c
        level = level.union_all(
            select(
                of.n, *(of[name] for name in names), lowest(of, job.c.priority > of.priority), of.depth + literal_column("1")
            ).where(of.priority.is_not(None), of.depth < literal_column(str(LEVELS)))
        )
        of = level.c
        first = (
            select(job.c.available_at)
            .where(
                job.c.state == QUEUED_LITERAL,
                *LaneColumns(of.queue, of.client, of.type, of.phase).fits(),
                job.c.priority == of.priority,
                *is_due(db, suspects=False),
            )
            .order_by(job.c.available_at, job.c.id)
            .limit(1)
        )
        return select(of.n, of.priority, first.scalar_subquery().label("since"), db.now.label("now")).where(
            of.priority.is_not(None)
        )

    def _bind(self, lanes: Sequence[Lane], at_most: int = HIGHEST) -> dict[str, Any]:
        return self._lanes.bind([(n, lane.queue, lane.client, lane.type, lane.phase, at_most) for n, lane in enumerate(lanes)])

    def highest(
        self, connection: Connection, lanes: Sequence[Lane], *, suspects: bool, at_most: int = HIGHEST
    ) -> dict[Lane, int]:
        """Return the priority of the first due job of each lane, below a bound; lanes without one, or paused, are missing."""
        rows = self._highest[suspects].rows(connection, self._bind(lanes, at_most))
        return {lanes[n]: priority for n, priority in rows if priority is not None}

    def levels(self, connection: Connection, lanes: Sequence[Lane]) -> list[Level]:
        """Return each priority that has a due job in a lane, and since when it has."""
        rows = self._levels.rows(connection, self._bind(lanes))
        return [Level(lanes[n], priority, _seconds(since, now)) for n, priority, since, now in rows if since is not None]


def _seconds(since: Any, now: Any) -> float:
    kind = UTCDateTime()
    begin, end = kind.process_result_value(since, None), kind.process_result_value(now, None)
    assert begin is not None
    assert end is not None
    return (end - begin).total_seconds()
