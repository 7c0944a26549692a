"""What is left to do, and when: declarations of queues and retries, outcomes, and the durable job store.

Importing this package is light: the store, which brings SQLAlchemy, comes with its first use.
"""

from typing import TYPE_CHECKING, Any

from jobs.errors import (
    DatabaseBusy,
    DatabaseReplaced,
    DatabaseUnavailable,
    DatabaseUrlError,
    DuplicateJob,
    FilterError,
    ForeignDatabase,
    ForeignSession,
    JobNotFound,
    JobsError,
    LockHeld,
    LockLost,
    LostLease,
    NaiveTime,
    PayloadError,
    ScheduleError,
    SchemaError,
    SchemaMissing,
    SchemaOutdated,
    SchemaTooNew,
)
from jobs.outcome import Failure, Gone, Outcome, Pause, Snooze, Success, Unchanged
from jobs.queue import KeepPolicy, Queue, Rate
from jobs.retry import Retry

if TYPE_CHECKING:
    from jobs.db.database import Database
    from jobs.enqueueing.duplicates import Enqueued
    from jobs.schema.autogenerate import include_name
    from jobs.store import JobStore

_LAZY = {
    "Database": "jobs.db.database",
    "Enqueued": "jobs.enqueueing.duplicates",
    "JobStore": "jobs.store",
    "include_name": "jobs.schema.autogenerate",
}

__all__ = [
    "Database",
    "DatabaseBusy",
    "DatabaseReplaced",
    "DatabaseUnavailable",
    "DatabaseUrlError",
    "DuplicateJob",
    "Enqueued",
    "Failure",
    "FilterError",
    "ForeignDatabase",
    "ForeignSession",
    "Gone",
    "JobNotFound",
    "JobStore",
    "JobsError",
    "KeepPolicy",
    "LockHeld",
    "LockLost",
    "LostLease",
    "NaiveTime",
    "Outcome",
    "Pause",
    "PayloadError",
    "Queue",
    "Rate",
    "Retry",
    "ScheduleError",
    "SchemaError",
    "SchemaMissing",
    "SchemaOutdated",
    "SchemaTooNew",
    "Snooze",
    "Success",
    "Unchanged",
    "include_name",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'jobs' has no attribute {name!r}")
