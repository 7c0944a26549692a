"""Everything that `jobs` raises.

JobsError
├── DatabaseUrlError      the URL cannot be used: correct SYNCS_DATABASE_URL
├── DatabaseUnavailable   the database does not answer: start it, or wait
│   └── DatabaseLost      the connection was lost after work had begun: exit code 1, not 2
├── DatabaseBusy          another transaction holds SQLite's writer: end it, or try again; exit code 1
├── SchemaError           the tables do not have the version that this code needs
│   ├── SchemaMissing     no tables yet: `syncs setup`
│   ├── SchemaOutdated    tables older than the code: `syncs db upgrade`
│   ├── SchemaTooNew      tables newer than the code: upgrade sync-clients
│   ├── TableMismatch     a table of `into` does not fit its class: the text says what to do
│   └── ForeignDatabase   it belongs to another project: use a database of its own, or share it on purpose
├── LostLease             another worker has the job or the listing now: drop the result
├── JobNotFound           no job has this id
├── FilterError           a filter that is not valid: correct it
├── LockHeld              somebody else holds the lock: wait, or do without
├── LockLost              somebody else took the lock while it was held here
├── DuplicateJob          a job of the same fingerprint is queued, and the job type rejects duplicates
├── ScheduleError         a delay or time that is not valid: correct it
├── ForeignSession        the session is not on the job store's database: pass another one, or none
├── NaiveTime             a time without a time zone: pass an aware datetime
└── PayloadError          the payload is not JSON, or too large: correct the caller
"""

from typing import Any


class JobsError(Exception):
    """Base class of the errors of this package."""


class DatabaseUrlError(JobsError):
    """The database URL cannot be used."""


class DatabaseUnavailable(JobsError):
    """The database does not answer."""


class DatabaseLost(DatabaseUnavailable):
    """The connection was lost after work had begun; what was committed is kept."""


class DatabaseReplaced(JobsError):
    """The file of the database was removed or replaced while it was open; what is written to it is lost."""


class DatabaseBusy(JobsError):
    """Another process or job held SQLite's one writer for longer than others wait."""


class SchemaError(JobsError):
    """The tables do not have the version that this code needs."""


class SchemaMissing(SchemaError):
    """The tables were not created yet."""


class SchemaOutdated(SchemaError):
    """The tables are older than this code."""


class SchemaTooNew(SchemaError):
    """The tables are newer than this code."""


class TableMismatch(SchemaError):
    """A table into which a sync writes does not fit its class, or may not be made or changed."""


class ForeignDatabase(SchemaError):
    """The database belongs to another project."""


class LostLease(JobsError):
    """Another worker has this job or listing now; what was done under the old claim is dropped."""


class JobNotFound(JobsError):
    """No job has this id."""


class FilterError(JobsError, ValueError):
    """A filter names a state that does not exist, or a path that is not valid."""


class LockHeld(JobsError):
    """Somebody else holds the lock."""


class LockLost(JobsError):
    """Somebody else took the lock, or broke it, while it was held here."""


class DuplicateJob(JobsError):
    """A job of the same fingerprint is queued; nothing of the call was stored.

    Args:
        message: what happened, in one line.
        job: the new job, as `jobs.enqueueing.duplicates.NewJob`.
        duplicates: the queued jobs, each with `id` and `payload`; `id` is `None` for a job of the same call.
    """

    def __init__(self, message: str, *, job: Any, duplicates: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.job = job
        self.duplicates = duplicates


class ScheduleError(JobsError, ValueError):
    """A delay is negative or too long, or a time is not valid."""


class ForeignSession(JobsError, ValueError):
    """The session that was passed is not on the job store's database."""


class NaiveTime(JobsError, ValueError):
    """A time has no time zone; pass an aware datetime."""


class PayloadError(JobsError, ValueError):
    """A payload is not JSON or is larger than a job may carry."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error; of SQLAlchemy's, that of the driver's own, without the statement and its values."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
