"""The queues that workers serve, as last declared. Knows no job."""

from sqlalchemy import bindparam, or_
from sqlalchemy.dialects import postgresql, sqlite

from jobs.database import Database
from jobs.models import queue as table
from jobs.queue import Queue


class Served:
    """The `queue` table of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        statement = insert_into(table).values(
            id=bindparam("b_id"), lease=bindparam("b_lease"), concurrency=bindparam("b_concurrency"),
            time_limit=bindparam("b_time_limit"), updated_at=db.now,
        )  # fmt: skip
        new = statement.excluded
        fields = ("lease", "concurrency", "time_limit")
        self._serve = statement.on_conflict_do_update(
            index_elements=["id"],
            set_={**{name: new[name] for name in fields}, "updated_at": new.updated_at},
            # A run of an unchanged declaration writes nothing.
            where=or_(*(table.c[name] != new[name] for name in fields)),
        )

    def serve(self, queue: Queue) -> None:
        """Note that a worker serves this queue, with what its declaration says now."""
        with self._db.write() as connection:
            connection.execute(
                self._serve,
                {
                    "b_id": queue.id, "b_lease": queue.lease, "b_concurrency": queue.concurrency,
                    "b_time_limit": queue.time_limit,
                },
            )  # fmt: skip
