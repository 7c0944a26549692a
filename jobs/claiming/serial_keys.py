"""Finds the first job of each serial key.

Of a hundred thousand queued jobs of one key, one may be claimed at a time. Walking the lane in the order of claims would read
each of them; this walks the index job_serial from key to key, one step for each key.
"""

from typing import Any

from sqlalchemy import Connection, Integer, bindparam, func, literal_column, select

from jobs.claiming.eligibility import BOUND, is_declared, is_due, is_in_turn
from jobs.db.database import Database
from jobs.job import Lane
from jobs.schema.job_tables import job
from jobs.schema.states import QUEUED_LITERAL

KEYS = 500
"""Keys that one query reads; the next claim continues after them."""

QUERIES = 4
"""Queries of one claim at most, while none of the keys has a job for it."""


class SerialKeys:
    """Serial keys of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._firsts: dict[bool, Any] = {}
        #: Where the next query begins, for lanes with more keys than one query reads.
        self._after: dict[Lane, str] = {}

    @staticmethod
    def _statement(db: Database, suspects: bool) -> Any:
        waiting = job.alias("waiting")
        of_queue = (waiting.c.state == QUEUED_LITERAL, waiting.c.serial_key.is_not(None), waiting.c.queue == BOUND.queue)
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
        of_key = (*of_queue, waiting.c.serial_key == keys.c.key, is_declared(db, waiting.c.type))
        first = select(func.min(waiting.c.id)).where(*of_key).scalar_subquery()
        first_jobs = select(keys.c.key, keys.c.n, first.label("id")).where(keys.c.key.is_not(None)).cte("first_jobs")
        claimable = select(job.c.id).where(
            job.c.id == first_jobs.c.id,
            # As an expression the state matches no partial index, so that the primary key is used.
            job.c.state.concat("") == QUEUED_LITERAL,
            *BOUND.fits(),
            *is_due(db, suspects=suspects),
            job.c.priority.between(bindparam("at_least"), bindparam("at_most")),
            is_in_turn(db),
        )
        return select(first_jobs.c.key, first_jobs.c.n, claimable.scalar_subquery().label("id"))

    def firsts(self, connection: Connection, lane: Lane, *, suspects: bool, at_least: int, at_most: int) -> list[int]:
        """Return jobs of a lane that are the first of their keys, due, and free to be claimed; of up to `KEYS` keys of the queue.

        Of a lane with more keys each call reads the next ones.
        """
        statement = self._firsts.get(suspects)
        if statement is None:
            statement = self._firsts[suspects] = self._statement(self._db, suspects)
        values = {**lane.parameters(), "at_least": at_least, "at_most": at_most}
        after = self._after.pop(lane, "")
        begins = after
        for _ in range(QUERIES):
            rows = connection.execute(statement, {**values, "after": after}).all()
            found = [row.id for row in rows if row.id is not None]
            if len(rows) >= KEYS:
                after = self._after[lane] = next(row.key for row in rows if row.n == KEYS)
            elif begins:
                # After the last key comes the first one again.
                after = begins = ""
                self._after.pop(lane, None)
            else:
                break
            if found:
                break
        return found
