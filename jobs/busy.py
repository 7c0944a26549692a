"""SQLite's "database is locked", said so that a person can do something about it. Knows no connection."""

from sqlalchemy.exc import OperationalError

from jobs.errors import DatabaseBusy


class Busy(DatabaseBusy, OperationalError):
    """What `jobs` raises when another one kept the writer longer than SQLite waits.

    It still is what SQLAlchemy raises, with the driver's error in `orig`: whoever waits for a database that is away waits for
    this one too.
    """

    def __str__(self) -> str:
        return (
            "the database is locked: another process, or a job in this one, holds SQLite's one writer; `syncs jobs --state "
            "processing` lists the jobs that may hang, SIGTERM twice to their worker frees it; then try again"
        )


def is_busy(error: BaseException | None) -> bool:
    """Tell whether SQLite gave up waiting for another one's transaction."""
    return isinstance(error, OperationalError) and "database is locked" in str(error.orig)


def busy(error: BaseException) -> BaseException:
    """Return what to raise for an error: itself, unless it is SQLite's and says that it is locked."""
    if not is_busy(error) or isinstance(error, DatabaseBusy):
        return error
    assert isinstance(error, OperationalError)
    assert error.orig is not None
    return Busy(error.statement, error.params, error.orig, hide_parameters=True)
