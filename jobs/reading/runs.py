"""Reads the history of runs."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobs.reading.reader import Reader, moment

#: These and `LOST` as in `jobs.listing.runs`, which imports SQLAlchemy; a test compares them.
RUNNING, INTERRUPTED = "running", "interrupted"

LOST = "its process ended without a result"
"""The message of a run whose process has died."""


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


_COLUMNS = (
    "id, sync, client, state, started_at, ended_at, pages, listed, queued, succeeded, unchanged, gone, failed, deleted, stopped, "
    "message, started_by, flow_run, worker, alive_until, claim_no"
)
_NAMES = _COLUMNS.split(", ")


def latest_runs(reader: Reader, sync: str | None = None, *, limit: int = 50) -> list[RunView]:
    """Return runs, the newest first. One whose process is gone is shown as interrupted before somebody has closed it.

    Args:
        reader: of the database.
        sync: only of this one.
        limit: the most to return.
    """
    of_sync = "" if sync is None else "WHERE sync = :sync"
    statement = f"SELECT {_COLUMNS} FROM run {of_sync} ORDER BY id DESC LIMIT :limit"  # noqa: S608 - constants
    rows = reader.select(statement, limit=limit, **({} if sync is None else {"sync": sync}))
    now = reader.now()
    return [_view(reader, dict(zip(_NAMES, row, strict=True)), now) for row in rows]


def _view(reader: Reader, row: dict[str, Any], now: datetime) -> RunView:
    worker, alive_until, claim_no = row.pop("worker"), moment(row.pop("alive_until")), row.pop("claim_no")
    row["started_at"], row["ended_at"] = moment(row["started_at"]), moment(row["ended_at"])
    if row["state"] == RUNNING and not _lives(reader, row["sync"], worker, alive_until, claim_no, now):
        row |= {"state": INTERRUPTED, "message": LOST}
    seconds = ((row["ended_at"] or now) - row["started_at"]).total_seconds()
    return RunView(seconds=max(0.0, round(seconds, 3)), **row)


def _lives(reader: Reader, sync: str, worker: str, alive_until: datetime, claim_no: int | None, now: datetime) -> bool:
    """Tell whether the process of a run lives, as `jobs.listing.runs` decides it."""
    from jobs.process_identity import is_gone

    if is_gone(worker):
        return False
    if alive_until > now:
        return True
    held = reader.select(
        "SELECT lease_until FROM listing WHERE sync = :sync AND worker = :worker AND claim_no = :claim_no",
        sync=sync, worker=worker, claim_no=claim_no,
    )  # fmt: skip
    return bool(held) and held[0][0] is not None and moment(held[0][0]) > now
