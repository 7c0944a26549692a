"""How urgent the first jobs of lanes are, and how long they have waited. Reads only.

Both questions go to the index job_ready, one step for each lane or for each priority in it, however many jobs there are.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, literal_column, select

from jobs.clock import UTCDateTime
from jobs.database import Database
from jobs.job import Lane
from jobs.models import job
from jobs.prepared import Prepared
from jobs.ready import ORDER, LaneColumns, is_due, is_open
from jobs.rows import Rows
from jobs.settle import QUEUED

LOWEST, HIGHEST = -(2**31), 2**31 - 1
"""Priorities, as the column can hold them."""

LEVELS = 100
"""Priorities of one lane that are looked at, from the lowest: these are the ones that wait."""


class Level(NamedTuple):
    """The jobs of one priority in a lane."""

    lane: Lane
    priority: int
    #: Seconds that the first of them has been due.
    waited: float


class Heads:
    """First jobs of the lanes of one database.

    Args:
        db: the database.
        probing: as for `Takes`.
    """

    def __init__(self, db: Database, *, probing: bool = False) -> None:
        columns = {"n": "int", "queue": "text", "client": "text", "type": "text", "phase": "text", "at_most": "int"}
        self._lanes = Rows(db, columns, name="lane")
        self._gate = [] if probing else [is_open(self._lanes.client)]
        self._firsts = {suspects: Prepared(self._first_statement(db, suspects)) for suspects in (False, True)}
        self._levels = Prepared(self._level_statement(db))

    def _first_statement(self, db: Database, suspects: bool) -> Any:
        lanes = self._lanes
        first = (
            select(job.c.priority)
            .where(
                job.c.state == QUEUED,
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
            query = select(job.c.priority).where(job.c.state == QUEUED, *lane.fits(), *conditions)
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
                job.c.state == QUEUED,
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

    def firsts(self, connection: Connection, lanes: Sequence[Lane], *, suspects: bool, at_most: int = HIGHEST) -> dict[Lane, int]:
        """Return the priority of the first due job of each lane, below a bound; lanes without one, or paused, are missing."""
        rows = self._firsts[suspects].rows(connection, self._bind(lanes, at_most))
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
