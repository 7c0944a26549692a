"""Stores the runs of syncs: one row for each, whatever started it, written when it begins and when it ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, insert, literal_column, or_, select, update

from jobs.db.clock import UTCDateTime
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.process_identity import is_gone
from jobs.schema.job_tables import listing, run

RUNNING, INTERRUPTED = "running", "interrupted"

COUNTS = ("pages", "listed", "queued", "succeeded", "unchanged", "gone", "failed", "deleted")

LOST = "its process ended without a result"
"""The message of a run that others have closed."""

_RUNNING: Any = literal_column(f"'{RUNNING}'")


@dataclass(frozen=True, slots=True)
class RunView:
    """One run of a sync."""

    id: int
    sync: str
    client: str
    #: running, success, partial, failed, paused, skipped, interrupted (its process ended without a result).
    state: str
    started_at: datetime
    #: `None` while it runs. Of an interrupted run: when that was noticed.
    ended_at: datetime | None
    #: From its beginning to its end, or until now.
    seconds: float
    pages: int
    listed: int
    queued: int
    succeeded: int
    unchanged: int
    gone: int
    failed: int
    deleted: int
    #: Why its listing ended; `None` while it runs.
    stopped: str | None
    message: str
    #: hand, prefect, work (which continues listings) or python.
    started_by: str
    #: The id of its Prefect flow run.
    flow_run: str | None


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
        self._columns = (*(run.c[name] for name in _READ), lives, db.now.label("now"))

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

    def latest(self, sync: str | None = None, *, limit: int = 50) -> list[RunView]:
        """Return runs, the newest first. One whose process is gone is shown as interrupted before somebody has closed it.

        Args:
            sync: only of this one.
            limit: the most to return.
        """
        statement = select(*self._columns).order_by(run.c.id.desc()).limit(limit)
        if sync is not None:
            statement = statement.where(run.c.sync == sync)
        with self._db.read() as connection:
            return [_view(row) for row in connection.execute(statement)]


_ENDED = ("state", "stopped", "message", *COUNTS)

_READ = (
    "id", "sync", "client", "state", "started_at", "ended_at", "stopped", "message", "started_by", "flow_run", "worker", *COUNTS,
)  # fmt: skip


def _is_dead(row: Any) -> bool:
    return is_gone(row.worker) or not row.lives


def _view(row: Any) -> RunView:
    found = dict(row._mapping)
    lives, now, worker = found.pop("lives"), found.pop("now"), found.pop("worker")
    now = UTCDateTime().process_result_value(now, None)
    assert now is not None
    if found["state"] == RUNNING and (is_gone(worker) or not lives):
        found |= {"state": INTERRUPTED, "message": LOST}
    seconds = ((found["ended_at"] or now) - found["started_at"]).total_seconds()
    return RunView(seconds=max(0.0, round(seconds, 3)), **found)
