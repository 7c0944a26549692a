"""The first job of each serial key. Reads only.

A backlog of a hundred thousand jobs of one key offers one job at a time. Walking the lane in the order of claims would look at
each of them to find it; here the index job_serial is walked from key to key instead, one step for each key.
"""

from typing import Any

from sqlalchemy import Connection, Integer, bindparam, func, literal_column, select

from jobs.database import Database
from jobs.job import Lane
from jobs.models import job
from jobs.ready import BOUND, is_due, is_in_turn
from jobs.settle import QUEUED

KEYS = 500
"""Keys that are looked at in one go; the next claim goes on behind them."""

LOOKS = 4
"""Goes of one claim at most, while none of the keys has a job for it."""


class SerialKeys:
    """Serial keys of one database."""

    def __init__(self, db: Database) -> None:
        self._firsts = {suspects: self._statement(db, suspects) for suspects in (False, True)}
        #: Where the next look begins, for lanes with more keys than one look sees.
        self._after: dict[Lane, str] = {}

    @staticmethod
    def _statement(db: Database, suspects: bool) -> Any:
        waiting = job.alias("waiting")
        of_queue = (waiting.c.state == QUEUED, waiting.c.serial_key.is_not(None), waiting.c.queue == BOUND.queue)
        first_key = select(waiting.c.serial_key).where(*of_queue).order_by(waiting.c.serial_key).limit(1)
        keys = select(
            first_key.where(waiting.c.serial_key >= bindparam("after")).scalar_subquery().label("key"),
            literal_column("1", Integer).label("n"),
        ).cte("keys", recursive=True)
        keys = keys.union_all(
            select(first_key.where(waiting.c.serial_key > keys.c.key).scalar_subquery(), keys.c.n + 1).where(
                keys.c.key.is_not(None), keys.c.n < KEYS
            )
        )
        first = select(func.min(waiting.c.id)).where(*of_queue, waiting.c.serial_key == keys.c.key).scalar_subquery()
        heads = select(keys.c.key, keys.c.n, first.label("id")).where(keys.c.key.is_not(None)).cte("heads")
        claimable = select(job.c.id).where(
            job.c.id == heads.c.id,
            # Hidden from the planner, which is to use the primary key.
            job.c.state.concat("") == QUEUED,
            *BOUND.fits(),
            *is_due(db, suspects=suspects),
            job.c.priority.between(bindparam("at_least"), bindparam("at_most")),
            is_in_turn(),
        )
        return select(heads.c.key, heads.c.n, claimable.scalar_subquery().label("id"))

    def firsts(self, connection: Connection, lane: Lane, *, suspects: bool, at_least: int, at_most: int) -> list[int]:
        """Return jobs of a lane that are the first of their keys, due, and free to be claimed; of up to `KEYS` keys of the queue.

        A lane with more keys is looked through from call to call, so that each key has its turn.
        """
        values = {**lane.parameters(), "at_least": at_least, "at_most": at_most}
        after = self._after.pop(lane, "")
        begins = after
        for _ in range(LOOKS):
            rows = connection.execute(self._firsts[suspects], {**values, "after": after}).all()
            found = [row.id for row in rows if row.id is not None]
            if len(rows) >= KEYS:
                after = self._after[lane] = next(row.key for row in rows if row.n == KEYS)
            elif begins:
                # Behind the last key comes the first one again.
                after = begins = ""
                self._after.pop(lane, None)
            else:
                break
            if found:
                break
        return found
