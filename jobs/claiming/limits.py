"""Enforces the limits of queues: jobs in processing at once, and starts per time, over all workers of all machines.

Counting before claiming is only right if one claim does it at a time. So a claim from a limited queue locks the queue's row
before it counts, and holds it until its commit; the next one counts what this one claimed. SQLite needs no lock, as it has one
writer at a time. Nothing is kept outside the tables: a worker that is killed leaves nothing behind, and its jobs keep their
places until they are rescued.

Each claim is a start, also of a rescued job or after a retry, and stays one when the job is released unworked.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Connection, Select, bindparam, delete, func, insert, literal_column, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.clock import UTCDateTime
from jobs.db.database import Database
from jobs.queue import Queue
from jobs.schema.job_tables import job, queue, start
from jobs.schema.states import PROCESSING_LITERAL, QUEUED_LITERAL

PRUNE = 1000
"""Old starts deleted at once, or a few more, so that the claim stays short."""

IDLE_IN_TRANSACTION = "10s"
"""PostgreSQL ends a claim that has been idle so long with the queue's row locked, as of a stopped process."""


_FIELDS = (
    "lease",
    "concurrency",
    "time_limit",
    "slots",
    "rate_n",
    "rate_seconds",
    "keep_success_days",
    "keep_failure_days",
    "keep_max_items",
)


class Limits(NamedTuple):
    """What the row of a queue says, and whether jobs with serial keys wait in it."""

    slots: int | None = None
    rate_n: int | None = None
    rate_seconds: float | None = None
    #: When last read; it only decides which statement is the faster one.
    has_serial: bool = False

    @property
    def are_limits(self) -> bool:
        """Whether the queue has a limit."""
        return self.slots is not None or self.rate_n is not None


NO_LIMITS = Limits()


class QueueCapacity:
    """How many jobs one claim may take from one queue, while it holds the lock on the queue's row."""

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


class QueueLimits:
    """The `queue` table of one database: what workers declared of their queues, and what the queues may start."""

    def __init__(self, db: Database) -> None:
        self._db = db
        #: How often this process has called `register`: limits read before the last time may be outdated.
        self.registrations = 0
        self._register = self._register_statement()
        of_queue: BindParameter[str] = bindparam("of_queue")
        # In the order of its index: asked for any row, PostgreSQL expects one soon and reads the table.
        keyed = select(job.c.serial_key).where(
            job.c.state == QUEUED_LITERAL, job.c.serial_key.is_not(None), job.c.queue == of_queue
        )
        columns = (queue.c.slots, queue.c.rate_n, queue.c.rate_seconds)
        self._limits = select(*columns).where(queue.c.id == of_queue)
        self._has_serial = keyed.order_by(job.c.serial_key).limit(1)
        lock: Select[Any] = select(*columns).where(queue.c.id == of_queue).with_for_update()
        if db.dialect == "postgresql":
            setting = func.set_config("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION, literal_column("true"))
            lock = lock.add_columns(setting)
        self._lock = lock
        in_window = (start.c.queue == of_queue, start.c.at > db.from_now("back"))
        # A statement of its own, sent when the lock is held: the snapshot and time of the statement that waited for the lock
        # would be old.
        running = select(func.count()).select_from(job).where(job.c.queue == of_queue, job.c.state == PROCESSING_LITERAL)
        recent = select(func.coalesce(func.sum(start.c.count), 0)).where(*in_window)
        self._running = running
        self._used = select(running.scalar_subquery(), recent.scalar_subquery())
        self._oldest = select(func.min(start.c.at), recent.scalar_subquery(), db.now.label("now")).where(*in_window)
        self._start = insert(start).values(queue=of_queue, at=db.now, count=bindparam("b_count"))
        is_old = (start.c.queue == of_queue, start.c.at <= db.from_now("back"))
        oldest = select(start.c.at).where(*is_old).order_by(start.c.at).limit(PRUNE).subquery()
        self._prune = delete(start).where(*is_old, start.c.at <= select(func.max(oldest.c.at)).scalar_subquery())

    def _register_statement(self) -> Any:
        insert_into = postgresql.insert if self._db.dialect == "postgresql" else sqlite.insert
        statement = insert_into(queue).values(
            id=bindparam("b_id"), updated_at=self._db.now, **{name: bindparam(f"b_{name}") for name in _FIELDS}
        )
        new = statement.excluded
        return statement.on_conflict_do_update(
            index_elements=["id"],
            set_={**{name: new[name] for name in _FIELDS}, "updated_at": new.updated_at},
            # A run of an unchanged declaration writes nothing. Many of these may be NULL, which differs from NULL for "<>".
            where=or_(*(queue.c[name].is_distinct_from(new[name]) for name in _FIELDS)),
        )

    def register(self, declaration: Queue, *, declared: bool = False) -> None:
        """Store what the declaration of a queue says now; a worker does so before it serves the queue.

        Args:
            declaration: what was declared, or the default for a queue that is declared nowhere.
            declared: whether it was declared. Only then its concurrency holds for all workers together: nobody chose the
                number that an undeclared queue has, and it must not hold back the syncs that ask for more.
        """
        with self._db.write() as connection:
            connection.execute(self._register, {f"b_{name}": value for name, value in _values(declaration, declared).items()})
        self.registrations += 1

    def read(self, connection: Connection, name: str) -> Limits:
        """Return the limits of a queue, without a lock; a queue without a row has none."""
        row = connection.execute(self._limits, {"of_queue": name}).one_or_none()
        has_serial = connection.execute(self._has_serial, {"of_queue": name}).one_or_none() is not None
        limits = NO_LIMITS if row is None else Limits(*row)
        return limits._replace(has_serial=has_serial)

    def lock(self, connection: Connection, name: str) -> Limits:
        """Lock the row of a queue until the end of the transaction, and return its limits as they are then.

        Several are locked in the order of their names, and before any job is.
        """
        row = connection.execute(self._lock, {"of_queue": name}).one_or_none()
        return NO_LIMITS if row is None else Limits(*row[:3])

    def capacity(self, connection: Connection, name: str, limits: Limits) -> QueueCapacity:
        """Return what the limits leave, in the transaction that locked the queue."""
        running = recent = 0
        if limits.rate_n is not None:
            running, recent = connection.execute(self._used, {"of_queue": name, "back": -(limits.rate_seconds or 0)}).one()
        elif limits.slots is not None:
            running = connection.execute(self._running, {"of_queue": name}).scalar_one()
        return QueueCapacity(name, limits, running, recent)

    def record_starts(self, connection: Connection, capacity: QueueCapacity, *, prune: bool) -> None:
        """Record the starts of a claim, after it: no start is recorded earlier than it was.

        Args:
            connection: of the transaction that locked the queue.
            budget: how many, and from which queue.
            prune: also delete starts that the rate no longer looks back on.
        """
        if capacity.limits.rate_n is None:
            return
        if capacity.taken:
            connection.execute(self._start, {"of_queue": capacity.queue, "b_count": capacity.taken})
        if prune:
            connection.execute(self._prune, {"of_queue": capacity.queue, "back": -(capacity.limits.rate_seconds or 0)})

    def wait_hint(self, names: Iterable[str]) -> float | None:
        """Return when queues that have used up their rate may start something again.

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


def _values(declaration: Queue, declared: bool) -> dict[str, object]:
    rate, keep = declaration.rate, declaration.keep
    return {
        "id": declaration.id,
        "lease": declaration.lease,
        "concurrency": declaration.concurrency,
        "time_limit": declaration.time_limit,
        "slots": declaration.concurrency if declared else None,
        "rate_n": None if rate is None else rate.n,
        "rate_seconds": None if rate is None else rate.per_seconds,
        "keep_success_days": keep.success_days,
        "keep_failure_days": keep.failure_days,
        "keep_max_items": keep.max_items,
    }


def _moment(found: Any) -> Any:
    return UTCDateTime().process_result_value(found, None)
