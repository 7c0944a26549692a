"""Stores the runs of syncs: one row for each, whatever started it, written when it begins and when it ends."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, case, insert, literal_column, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.process_identity import is_gone
from jobs.schema.job_tables import listing, maintenance, run

RUNNING, INTERRUPTED = "running", "interrupted"

COUNTS = ("pages", "listed", "queued", "succeeded", "unchanged", "gone", "failed", "deleted")

LOST = "its process ended without a result"
"""The message of a run that others have closed."""

_RUNNING: Any = literal_column(f"'{RUNNING}'")


class Runs:
    """Runs of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._begin = (
            insert(run)
            .values(
                sync=bindparam("b_sync"), client=bindparam("b_client"), queue=bindparam("b_queue"), state=_RUNNING,
                started_by=bindparam("b_started_by"), flow_run=bindparam("b_flow_run"), worker=bindparam("b_worker"),
                alive_until=db.from_now("alive"), started_at=db.now,
            )
            .returning(run.c.id)
        )  # fmt: skip
        whole = (run.c.state == literal_column("'success'"), run.c.stopped == literal_column("'end'"))
        self._success = (
            select(run.c.ended_at, _flag(run.c.ended_at < db.from_now("ago")).label("is_old"))
            .where(run.c.sync == bindparam("b_sync"), *whole)
            .order_by(run.c.id.desc())
            .limit(1)
        )
        name: Any = bindparam("b_name")
        self._watched = select(_flag(maintenance.c.next_at <= db.now).label("is_due")).where(maintenance.c.name == name)
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        self._watch = (
            insert_into(maintenance)
            .values(name=name, next_at=db.from_now("every"))
            .on_conflict_do_nothing(index_elements=["name"])
        )
        this = run.c.id == bindparam("b_id")
        self._claimed = update(run).where(this).values(claim_no=bindparam("b_claim"))
        closed: dict[Any, Any] = {"state": INTERRUPTED, "ended_at": db.now, "message": LOST}
        # The right to list has gone to another run since.
        self._overtaken = (
            update(run)
            .where(run.c.sync == bindparam("b_sync"), run.c.state == _RUNNING, run.c.claim_no < bindparam("b_claim"))
            .values(closed)
        )
        self._end = update(run).where(this).values(ended_at=db.now, **{name: bindparam(f"b_{name}") for name in _ENDED})
        holds = and_(
            listing.c.sync == run.c.sync, listing.c.claim_no == run.c.claim_no, listing.c.worker == run.c.worker,
            listing.c.lease_until > db.now,
        )  # fmt: skip
        lives = or_(run.c.alive_until > db.now, select(listing.c.sync).where(holds).exists()).label("lives")
        self._open = select(run.c.id, run.c.worker, lives).where(run.c.state == _RUNNING)
        self._close = update(run).where(this, run.c.state == _RUNNING).values(closed)

    @retry_on_conflict
    def is_late(self, sync: str, seconds: float) -> tuple[bool, datetime | None]:
        """Tell whether no run of a sync has succeeded for so many seconds, and when one did last.

        A success listed everything. Of a sync that never had one, the time counts from the first call.
        """
        values = {"b_sync": sync, "ago": -seconds}
        with self._db.read() as connection:
            last = connection.execute(self._success, values).one_or_none()
        if last is not None:
            return bool(last.is_old), last.ended_at
        watch = {"b_name": f"late:{sync}", "every": seconds}
        with self._db.read() as connection:
            known = connection.execute(self._watched, watch).one_or_none()
        if known is None:
            with self._db.write(single=True) as connection:
                connection.execute(self._watch, watch)
        return known is not None and bool(known.is_due), None

    @retry_on_conflict
    def begin(
        self, sync: str, client: str, queue: str, *, worker: str, started_by: str, flow_run: str = "", patience: float = 0.0
    ) -> int:
        """Store that a run begins; return its id.

        Args:
            sync, client, queue: ids.
            worker: the process that runs it.
            started_by: hand, prefect, work or python.
            flow_run: the id of its Prefect flow run; empty without one.
            patience: seconds for which it may wait before it lists.
        """
        values = {
            "b_sync": sync, "b_client": client, "b_queue": queue, "b_worker": worker, "b_started_by": started_by,
            "b_flow_run": flow_run or None, "alive": patience,
        }  # fmt: skip
        with self._db.write() as connection:
            return int(connection.execute(self._begin, values).scalar_one())

    @retry_on_conflict
    def claimed(self, run_id: int, sync: str, claim_no: int) -> None:
        """Store that a run has the right to list. Earlier runs that had it are over."""
        values = {"b_id": run_id, "b_sync": sync, "b_claim": claim_no}
        with self._db.write() as connection:
            connection.execute(self._overtaken, values)
            connection.execute(self._claimed, values)

    @retry_on_conflict
    def end(self, run_id: int, values: Mapping[str, Any]) -> None:
        """Store how a run ended: `state`, `stopped`, `message` and the counts."""
        with self._db.write() as connection:
            connection.execute(self._end, {"b_id": run_id, **{f"b_{name}": values[name] for name in _ENDED}})

    def close_dead(self, *, stop: Callable[[], bool] = lambda: False) -> int:
        """Close the runs whose process has ended without a result; return how many.

        A run that is closed by mistake, because its host was cut off for longer than its lease, still stores its own end.
        """
        with self._db.read() as connection:
            rows = connection.execute(self._open).all()
        dead = [row.id for row in rows if _is_dead(row)]
        closed = 0
        for run_id in dead:
            if stop():
                break
            with self._db.write() as connection:
                closed += connection.execute(self._close, {"b_id": run_id}).rowcount
        return closed


_ENDED = ("state", "stopped", "message", *COUNTS)


def _is_dead(row: Any) -> bool:
    return is_gone(row.worker) or not row.lives


def _flag(condition: Any) -> Any:
    """Return a condition as an integer, because SQLite has no Booleans."""
    return case((condition, literal_column("1")), else_=literal_column("0"))
