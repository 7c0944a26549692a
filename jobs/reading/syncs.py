"""Reads the state of syncs: the last run and the last success, how many records they have, how many entities fail now."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobs.reading.reader import Reader, moment


@dataclass(frozen=True, slots=True)
class SyncState:
    """The state of one sync."""

    #: When its last run began, and its state; a run that was skipped does not count.
    last_run_at: datetime | None = None
    last_state: str | None = None
    #: When the last run ended that listed everything and in which nothing failed.
    last_success_at: datetime | None = None
    #: Entities that are stored and not deleted.
    records: int = 0
    #: Entities whose last attempt failed, stored or not.
    failing: int = 0


#: The records are counted in an index that has nothing else; 1,000,000 of them take 60 ms on SQLite. PostgreSQL counts them in
#: one query, which it does with several processes.
_COUNT = {
    "sqlite": """
        SELECT value, (SELECT count(*) FROM record WHERE sync = value AND deleted_at IS NULL) FROM json_each(:syncs)
    """,
    "postgresql": """
        SELECT sync, count(*) FROM record WHERE deleted_at IS NULL AND sync = ANY(:syncs)
        GROUP BY sync
    """,
}

#: An entity that was never stored has no record; its failed job says that it fails.
NEVER_STORED = """
    SELECT DISTINCT job.key FROM job WHERE job.type = :sync AND job.state = 'failure' AND job.key IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM record WHERE record.sync = job.type AND record.key = job.key)
"""

_FAILING = "SELECT count(*) FROM record WHERE sync = :sync AND last_error IS NOT NULL AND deleted_at IS NULL"
_LAST = "SELECT started_at, state FROM run WHERE sync = :sync AND state <> 'skipped' ORDER BY id DESC LIMIT 1"
_SUCCESS = """
    SELECT ended_at FROM run WHERE sync = :sync AND state = 'success' AND stopped = 'end' ORDER BY id DESC LIMIT 1
"""


def sync_states(reader: Reader, syncs: Sequence[str]) -> dict[str, SyncState]:
    """Return the state of each of these syncs."""
    counts: dict[str, int] = {}
    if syncs:
        names = list(syncs) if reader.dialect == "postgresql" else json.dumps(list(syncs))
        counts = dict(reader.select(_COUNT[reader.dialect], syncs=names))
    return {name: _state(reader, name, counts.get(name, 0)) for name in syncs}


def last_success_at(reader: Reader, sync: str) -> datetime | None:
    """Return when the last run ended that listed everything and in which nothing failed."""
    found: datetime | None = moment(_one(reader.select(_SUCCESS, sync=sync)))
    return found


def _state(reader: Reader, sync: str, records: int) -> SyncState:
    last = reader.select(_LAST, sync=sync)
    never_stored = f"SELECT count(*) FROM ({NEVER_STORED}) AS never"  # noqa: S608 - constants
    failing = _one(reader.select(_FAILING, sync=sync)) + _one(reader.select(never_stored, sync=sync))
    run_at, state = last[0] if last else (None, None)
    return SyncState(moment(run_at), state, last_success_at(reader, sync), records, failing)


def paused_clients(reader: Reader) -> dict[str, datetime | None]:
    """Return the clients that are paused now, and until when; `None` waits for a person."""
    now = reader.now()
    rows = [(client, moment(until)) for client, until in reader.select("SELECT client, until FROM pause WHERE ended_at IS NULL")]
    return {client: until for client, until in rows if until is None or until > now}


def _one(rows: list[tuple[Any, ...]]) -> Any:
    return rows[0][0] if rows else None
