"""Everything that `jobs` raises.

JobsError
├── DatabaseUrlError      the URL cannot work: correct SYNCS_DATABASE_URL
├── DatabaseUnavailable   the database does not answer: start it, or wait
├── SchemaError           tables and code do not fit
│   ├── SchemaMissing     no tables yet: `syncs setup`
│   ├── SchemaOutdated    tables older than the code: `syncs db upgrade`
│   └── SchemaTooNew      tables newer than the code: upgrade sync-clients
├── LostLease             another worker owns the job or the listing now: drop the result
├── JobNotFound           no job has this id
├── NaiveTime             a time without a zone: pass an aware datetime
└── PayloadError          the payload is not JSON, or too large: correct the caller
"""


class JobsError(Exception):
    """Something about jobs or their database went wrong."""


class DatabaseUrlError(JobsError):
    """The database URL cannot work."""


class DatabaseUnavailable(JobsError):
    """The database does not answer."""


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


class NaiveTime(JobsError, ValueError):
    """A time has no zone; pass an aware datetime."""


class PayloadError(JobsError, ValueError):
    """A payload is not JSON or is larger than a job may carry."""
