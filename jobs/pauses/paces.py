"""Stores what processes know of the pace at which a client lets requests in, so that all that use it share its budget."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.clock import UTCDateTime
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.schema.job_tables import pace

KEPT = 900.0
"""Seconds after which a pace that nobody has used since is forgotten."""


class Pace(NamedTuple):
    """What one process knows of a client.

    Args:
        client: whose.
        origin: scheme, host and port that the requests go to.
        worker: the process.
        rate: requests per second that it may send beside the others, learned from refusals; `None` if that is not known.
        age: seconds since it was measured.
        idle: seconds since the process was seen.
    """

    client: str
    origin: str
    worker: str
    rate: float | None = None
    age: float = 0.0
    idle: float = 0.0


class Paces:
    """The paces in one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        values: dict[str, Any] = {name: bindparam(f"b_{name}") for name in ("client", "origin", "worker", "rate")}
        put = insert_into(pace).values(**values, measured_at=db.from_now("b_measured"), seen_at=db.now)
        self._put = put.on_conflict_do_update(
            index_elements=["client", "origin", "worker"],
            set_={name: put.excluded[name] for name in ("rate", "measured_at", "seen_at")},
        )
        self._forget = delete(pace).where(pace.c.seen_at < db.from_now("b_kept"))
        self._leave = delete(pace).where(pace.c.worker == bindparam("b_worker"), pace.c.rate.is_(None))
        self._now: Select[Any] = select(db.now.label("now"))
        self._known = select(
            pace.c.client, pace.c.origin, pace.c.worker, pace.c.rate, pace.c.measured_at, pace.c.seen_at,
        ).where(pace.c.client.in_(bindparam("b_clients", expanding=True)))  # fmt: skip

    def of(self, clients: Sequence[str]) -> list[Pace]:
        """Return what all processes know of these clients."""
        with self._db.read() as connection:
            rows = connection.execute(self._known, {"b_clients": list(clients)}).all()
            now = UTCDateTime().process_result_value(connection.execute(self._now).scalar_one(), None)
        assert now is not None
        return [
            Pace(
                row.client,
                row.origin,
                row.worker,
                rate=row.rate,
                age=_seconds(row.measured_at, now),
                idle=_seconds(row.seen_at, now),
            )
            for row in rows
        ]

    @retry_on_conflict
    def put(self, mine: Sequence[Pace]) -> None:
        """Store what this process knows, in a transaction of its own, and forget what is old."""
        with self._db.write() as connection:
            connection.execute(self._forget, {"b_kept": -KEPT})
            for one in sorted(mine):
                values = {"b_client": one.client, "b_origin": one.origin, "b_worker": one.worker, "b_rate": one.rate}
                connection.execute(self._put, values | {"b_measured": -one.age})

    @retry_on_conflict
    def leave(self, worker: str) -> None:
        """Forget a process that ends; paces that it has learned stay for those that come."""
        with self._db.write() as connection:
            connection.execute(self._leave, {"b_worker": worker})


def _seconds(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
