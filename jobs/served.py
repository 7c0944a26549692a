"""The queues that workers serve, as last declared. Knows no job."""

from sqlalchemy import bindparam, or_
from sqlalchemy.dialects import postgresql, sqlite

from jobs.database import Database
from jobs.models import queue as table
from jobs.queue import Queue

_FIELDS = (
    "lease", "concurrency", "time_limit", "slots", "rate_n", "rate_seconds", "keep_success_days", "keep_failure_days",
    "keep_max_items",
)  # fmt: skip


class Served:
    """The `queue` table of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        statement = insert_into(table).values(
            id=bindparam("b_id"), updated_at=db.now, **{name: bindparam(f"b_{name}") for name in _FIELDS}
        )
        new = statement.excluded
        self._serve = statement.on_conflict_do_update(
            index_elements=["id"],
            set_={**{name: new[name] for name in _FIELDS}, "updated_at": new.updated_at},
            # A run of an unchanged declaration writes nothing. Many of these may be NULL, which differs from NULL for "<>".
            where=or_(*(table.c[name].is_distinct_from(new[name]) for name in _FIELDS)),
        )

    def serve(self, queue: Queue, *, declared: bool = False) -> None:
        """Note that a worker serves this queue, with what its declaration says now.

        Args:
            queue: what was declared, or the default for a queue that nobody declared.
            declared: whether somebody did. Only then its concurrency holds for all workers together: nobody chose the
                number that an undeclared queue has, and it must not hold back the syncs that ask for more.
        """
        with self._db.write() as connection:
            connection.execute(self._serve, {f"b_{name}": value for name, value in _values(queue, declared).items()})


def _values(queue: Queue, declared: bool) -> dict[str, object]:
    rate, keep = queue.rate, queue.keep
    return {
        "id": queue.id, "lease": queue.lease, "concurrency": queue.concurrency, "time_limit": queue.time_limit,
        "slots": queue.concurrency if declared else None,
        "rate_n": None if rate is None else rate.n, "rate_seconds": None if rate is None else rate.per_seconds,
        "keep_success_days": keep.success_days, "keep_failure_days": keep.failure_days, "keep_max_items": keep.max_items,
    }  # fmt: skip
