"""What a queue may start: slots and rate, kept by all workers of all machines together. Knows no lane and no order.

Counting and then claiming admits too many, unless one does it at a time (M10). The serial point is the queue's row: a claim
from a limited queue locks it before it counts and holds it until its commit, so that the next one counts what this one took.
SQLite needs no lock, its writers are one at a time. Nothing is remembered outside the tables, so a worker that is killed leaves
nothing behind that its transaction did not commit; its jobs keep their slots until they are rescued.

A claim is a start, of a suspect or after a retry too, and stays one when the job is released unworked.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Connection, Select, bindparam, delete, func, insert, literal_column, select

from jobs.clock import UTCDateTime
from jobs.database import Database
from jobs.models import job, queue, start
from jobs.settle import PROCESSING, QUEUED

PRUNE = 1000
"""Old starts deleted at once, or a few more, so that the claim that does it stays short."""

IDLE_IN_TRANSACTION = "10s"
"""After so long PostgreSQL ends a claim that went silent with the queue's row locked: a stopped process, a frozen machine."""


class Limits(NamedTuple):
    """What the row of a queue says, and whether jobs with serial keys wait in it."""

    slots: int | None = None
    rate_n: int | None = None
    rate_seconds: float | None = None
    #: At the last look; a hint that only decides which way is the faster one.
    has_serial: bool = False

    @property
    def are_limits(self) -> bool:
        """Whether there is anything to keep to."""
        return self.slots is not None or self.rate_n is not None


NONE = Limits()


class Budget:
    """What one claim may take from one queue, while it holds the queue's row."""

    def __init__(self, name: str, limits: Limits, running: int, recent: int) -> None:
        self.queue = name
        self.limits = limits
        self.taken = 0
        free = []
        if limits.slots is not None:
            free.append(limits.slots - running)
        if limits.rate_n is not None:
            free.append(limits.rate_n - recent)
        self._free = max(0, min(free)) if free else None

    @property
    def room(self) -> int | None:
        """How many more; `None` for any number."""
        return None if self._free is None else self._free - self.taken


class Budgets:
    """Limits of the queues of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        of_queue: BindParameter[str] = bindparam("of_queue")
        # In the order of its index: asked for any row, PostgreSQL expects one soon and reads the table.
        keyed = select(job.c.serial_key).where(job.c.state == QUEUED, job.c.serial_key.is_not(None), job.c.queue == of_queue)
        columns = (queue.c.slots, queue.c.rate_n, queue.c.rate_seconds)
        self._limits = select(*columns).where(queue.c.id == of_queue)
        self._has_serial = keyed.order_by(job.c.serial_key).limit(1)
        lock: Select[Any] = select(*columns).where(queue.c.id == of_queue).with_for_update()
        if db.dialect == "postgresql":
            setting = func.set_config("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION, literal_column("true"))
            lock = lock.add_columns(setting)
        self._lock = lock
        in_window = (start.c.queue == of_queue, start.c.at > db.from_now("back"))
        # Expressions of a statement of their own, sent when the lock is held: PostgreSQL takes its snapshot and its time from
        # the beginning of the statement, and in the statement that waited for the lock both would be old.
        running = select(func.count()).select_from(job).where(job.c.queue == of_queue, job.c.state == PROCESSING)
        recent = select(func.coalesce(func.sum(start.c.count), 0)).where(*in_window)
        self._running = running
        self._used = select(running.scalar_subquery(), recent.scalar_subquery())
        self._oldest = select(func.min(start.c.at), recent.scalar_subquery(), db.now.label("now")).where(*in_window)
        self._start = insert(start).values(queue=of_queue, at=db.now, count=bindparam("b_count"))
        is_old = (start.c.queue == of_queue, start.c.at <= db.from_now("back"))
        oldest = select(start.c.at).where(*is_old).order_by(start.c.at).limit(PRUNE).subquery()
        self._prune = delete(start).where(*is_old, start.c.at <= select(func.max(oldest.c.at)).scalar_subquery())

    def look(self, connection: Connection, name: str) -> Limits:
        """Return what the row of a queue says now, without a lock; a queue without a row has no limits."""
        row = connection.execute(self._limits, {"of_queue": name}).one_or_none()
        has_serial = connection.execute(self._has_serial, {"of_queue": name}).one_or_none() is not None
        limits = NONE if row is None else Limits(*row)
        return limits._replace(has_serial=has_serial)

    def lock(self, connection: Connection, name: str) -> Limits:
        """Lock the row of a queue until the end of the transaction, and return its limits as they are then.

        Whoever locks several does it in the order of their names, and before locking any job.
        """
        row = connection.execute(self._lock, {"of_queue": name}).one_or_none()
        return NONE if row is None else Limits(*row[:3])

    def count(self, connection: Connection, name: str, limits: Limits) -> Budget:
        """Count what the limits leave, in the transaction that locked the queue."""
        running = recent = 0
        if limits.rate_n is not None:
            running, recent = connection.execute(self._used, {"of_queue": name, "back": -(limits.rate_seconds or 0)}).one()
        elif limits.slots is not None:
            running = connection.execute(self._running, {"of_queue": name}).scalar_one()
        return Budget(name, limits, running, recent)

    def close(self, connection: Connection, budget: Budget, *, prune: bool) -> None:
        """Write down what was taken, after it was taken: so a start is never noted earlier than it was.

        Args:
            connection: of the transaction that locked the queue.
            budget: how many, and from which queue.
            prune: also delete starts that the rate no longer looks back on.
        """
        if budget.limits.rate_n is None:
            return
        if budget.taken:
            connection.execute(self._start, {"of_queue": budget.queue, "b_count": budget.taken})
        if prune:
            connection.execute(self._prune, {"of_queue": budget.queue, "back": -(budget.limits.rate_seconds or 0)})

    def wait_hint(self, names: Iterable[str]) -> float | None:
        """Say when the next start of queues that have used up their rate is free.

        Args:
            names: the queues.

        Returns:
            Seconds until the first of them may start something again; `None` if none of them waits for that.
        """
        hints = []
        with self._db.read() as connection:
            for name in names:
                limits = connection.execute(self._limits, {"of_queue": name}).one_or_none()
                if limits is None or limits.rate_n is None:
                    continue
                oldest, recent, now = connection.execute(self._oldest, {"of_queue": name, "back": -limits.rate_seconds}).one()
                if oldest is not None and recent >= limits.rate_n:
                    left = _moment(oldest) + timedelta(seconds=limits.rate_seconds) - _moment(now)
                    hints.append(max(0.0, left.total_seconds()))
        return min(hints, default=None)


def _moment(found: Any) -> Any:
    return UTCDateTime().process_result_value(found, None)
