"""The session of a running job, which opens a transaction with its first statement and commits with the job's finish.

Jobs should ask the remote side first and use the session last: from the first statement on a transaction is open, and on SQLite
every other write waits for it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from jobs.db.conflicts import MAX_TRIES, is_conflict
from jobs.db.database import Database
from jobs.db.interruptible_transaction import InterruptibleTransaction
from jobs.errors import LostLease

T = TypeVar("T")

_current: ContextVar["UnitOfWork | None"] = ContextVar("syncs_unit_of_work", default=None)


class JobSession(Session):
    """A SQLModel session that does not commit by itself.

    `commit()` only flushes: what was written becomes visible with the job's finish, or with a checkpoint.
    `rollback()` drops what was written since the last of these.
    """

    def __init__(self, unit: "UnitOfWork") -> None:
        # The session joins the open transaction of the unit of work: it may roll it back, and not commit it.
        super().__init__(join_transaction_mode="rollback_only")
        self._unit = unit

    def get_bind(self, mapper: Any = None, **options: Any) -> Connection:
        """Return the connection of the job's transaction, and begin that transaction if it has not begun."""
        return self._unit.connection()

    def commit(self) -> None:
        """Flush. The job's finish commits."""
        self.flush()

    def rollback(self) -> None:
        """Drop what was written, and end the transaction."""
        super().rollback()
        self._unit.rollback()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # `with job.session as session:` must not end the transaction that the finish commits.
        if kind is None:
            self.flush()


class UnitOfWork:
    """Everything that one attempt at a job writes into the database, committed together with the job's new state.

    One thread works with it; `abandon` may be called from another.

    Args:
        db: the database of the jobs.
        owner: the job, as messages name it.
    """

    def __init__(self, db: Database, owner: str) -> None:
        self._db = db
        self._owner = owner
        self._session: JobSession | None = None
        self._transaction: InterruptibleTransaction | None = None
        self._abandoned = False
        self._lock = threading.Lock()
        self._redo: list[Callable[[], object]] = []

    @property
    def session(self) -> JobSession:
        """The session, always the same one. Reading this attribute opens no transaction."""
        if self._session is None:
            self._session = JobSession(self)
        return self._session

    @property
    def is_open(self) -> bool:
        """Whether there may be something to commit: a transaction is open, or a flush would open one."""
        session = self._session
        return session is not None and (self._transaction is not None or bool(session.new or session.dirty or session.deleted))

    @property
    def is_abandoned(self) -> bool:
        """Whether the job was given up, so that nothing of it will be committed."""
        return self._abandoned

    @property
    def writes_sqlite(self) -> bool:
        """Whether it holds SQLite's writer lock, so that another transaction of this thread would wait for itself."""
        return self._transaction is not None and self._db.dialect == "sqlite"

    @property
    def db(self) -> Database:
        """The database that it writes to."""
        return self._db

    def connection(self) -> Connection:
        """Return the connection, and begin the transaction if it has not begun.

        Raises:
            LostLease: the job was given up.
            DatabaseUnavailable: no connection could be opened.
        """
        transaction = self._transaction
        if transaction is None:
            # Not under the lock: on SQLite this waits for the writer lock, and `abandon` must not wait with it.
            transaction = InterruptibleTransaction(self._db, self._owner)
            with self._lock:
                if not self._abandoned:
                    self._transaction = transaction
            if self._transaction is None:
                transaction.rollback()
        self.check()
        if not transaction.connection.in_transaction():
            # `with session.begin():` has rolled back without calling our `rollback`.
            transaction.connection.begin()
            self._run_redo()
        return transaction.connection

    def check(self) -> None:
        """Make sure that the job was not given up.

        Raises:
            LostLease: it was.
        """
        if self._abandoned:
            raise LostLease(f"{self._owner} was given up; what it writes is dropped")

    def flush(self) -> None:
        """Send the pending changes of the session to the database.

        Raises:
            Exception: the database's error; then the caller must roll the transaction back.
        """
        if self._session is not None:
            self._session.flush()

    def commit(self, also: Callable[[Connection], T]) -> T:
        """Flush, run `also` in the same transaction, and commit. If any of it fails, everything is rolled back.

        Args:
            also: the rest of the transaction; may be run again after a conflict.

        Raises:
            LostLease: the job was given up.
            Exception: what flush, `also` and commit raise.
        """
        try:
            self.flush()
            result = _retry_last_part(self.connection(), also)
            # The session's part: it lets go of the connection and will read its objects anew.
            Session.commit(self.session)
            transaction, self._transaction = self._transaction, None
            if transaction is None:
                raise LostLease(f"{self._owner} was given up; what it wrote is dropped")
            transaction.commit()
        except BaseException:
            self.discard()
            raise
        self._redo.clear()
        return result

    def redo_after_rollback(self, work: Callable[[], object]) -> None:
        """Call this after a rollback, outside the transaction.

        For writes that do not belong to the job's transaction, and are in it only because SQLite has one writer.

        Args:
            work: may be called more than once; raises nothing.
        """
        self._redo.append(work)

    def _run_redo(self) -> None:
        redo, self._redo = self._redo, []
        for work in redo:
            work()

    def discard(self) -> None:
        """Roll back everything since the last commit, and forget the session's objects."""
        if self._session is not None:
            self._session.close()
        self.rollback()

    def rollback(self) -> None:
        """Roll back the transaction, if one is open."""
        with self._lock:
            transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.rollback()
        self._run_redo()

    def abandon(self) -> None:
        """Roll back from another thread and refuse every later statement: the job's own thread hangs."""
        with self._lock:
            self._abandoned = True
            transaction = self._transaction
        if transaction is not None:
            transaction.interrupt()


@contextmanager
def as_current_unit(unit: UnitOfWork) -> Iterator[None]:
    """Make this the current unit of work of the thread, for code that is called by the job; see `current_session`."""
    token = _current.set(unit)
    try:
        yield
    finally:
        _current.reset(token)


def current_session(db: Database) -> Session | None:
    """Return the running job's session, if every write of this thread must go through it: on SQLite, once the job has written.

    A job that has written through `job.session` and then queues another job without passing the session would wait for itself
    until SQLite's timeout, and fail. With this session the new job is committed together with the job's finish.

    Args:
        db: the database to write to.
    """
    unit = current_unit(db)
    return None if unit is None else unit.session


def current_unit(db: Database) -> UnitOfWork | None:
    """Return the unit of work whose session `current_session` returns."""
    unit = _current.get()
    return unit if unit is not None and unit.writes_sqlite and unit.db.url == db.url else None


def _retry_last_part(connection: Connection, work: Callable[[Connection], T]) -> T:
    """Run the last part of a transaction, and repeat it after a conflict; the part before it cannot be repeated."""
    for _ in range(MAX_TRIES - 1):
        try:
            with connection.begin_nested():
                return work(connection)
        except DBAPIError as error:
            if not is_conflict(error):
                raise
    return work(connection)
