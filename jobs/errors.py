"""Everything that `jobs` raises.

JobsError
├── DatabaseUrlError      the URL cannot work: correct SYNCS_DATABASE_URL
├── DatabaseUnavailable   the database does not answer: start it, or wait
│   └── DatabaseLost      it went away under work that had begun: exit code 1, not 2
├── DatabaseBusy          another one holds SQLite's writer: end it, or try again; exit code 1
├── SchemaError           tables and code do not fit
│   ├── SchemaMissing     no tables yet: `syncs setup`
│   ├── SchemaOutdated    tables older than the code: `syncs db upgrade`
│   └── SchemaTooNew      tables newer than the code: upgrade sync-clients
├── LostLease             another worker owns the job or the listing now: drop the result
├── JobNotFound           no job has this id
├── FilterError           a filter that can fit no job: correct it
├── LockHeld              somebody else has the lock: wait, or leave it
├── LockLost              the lock went to somebody else while it was held here
├── DuplicateJob          its twin is queued already, and the job type rejects duplicates: leave it
├── ScheduleError         a delay or moment that cannot be: correct it
├── ForeignSession        the session is not on the job store's database: pass another one, or none
├── NaiveTime             a time without a zone: pass an aware datetime
└── PayloadError          the payload is not JSON, or too large: correct the caller
"""

from typing import Any


class JobsError(Exception):
    """Something about jobs or their database went wrong."""


class DatabaseUrlError(JobsError):
    """The database URL cannot work."""


class DatabaseUnavailable(JobsError):
    """The database does not answer."""


class DatabaseLost(DatabaseUnavailable):
    """The database went away under work that had begun; what was committed stands."""


class DatabaseBusy(JobsError):
    """Another process, or another job, kept SQLite's one writer longer than anybody waits for it."""


class SchemaError(JobsError):
    """The tables and this code do not fit."""


class SchemaMissing(SchemaError):
    """The database holds no tables of ours yet."""


class SchemaOutdated(SchemaError):
    """The tables are older than this code."""


class SchemaTooNew(SchemaError):
    """The tables are newer than this code."""


class LostLease(JobsError):
    """Another worker owns this job or listing now; what was done under the old claim is dropped."""


class JobNotFound(JobsError):
    """No job has this id."""


class FilterError(JobsError, ValueError):
    """A filter names a state that there is not, or a path that cannot be."""


class LockHeld(JobsError):
    """Somebody else has the lock."""


class LockLost(JobsError):
    """The lock went to somebody else, or was broken, while it was held here."""


class DuplicateJob(JobsError):
    """The job duplicates one that is queued; nothing of the call was stored (AQ-20).

    Args:
        message: what happened, in one line.
        job: the new job, as `jobs.duplicate.NewJob`.
        duplicates: what it duplicates, each with `id` and `payload`; `id` is `None` for one of the same call.
    """

    def __init__(self, message: str, *, job: Any, duplicates: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.job = job
        self.duplicates = duplicates


class ScheduleError(JobsError, ValueError):
    """A delay is negative or beyond all measure, or a moment is none."""


class ForeignSession(JobsError, ValueError):
    """The session that was passed is not on the job store's database."""


class NaiveTime(JobsError, ValueError):
    """A time has no zone; pass an aware datetime."""


class PayloadError(JobsError, ValueError):
    """A payload is not JSON or is larger than a job may carry."""
