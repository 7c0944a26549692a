"""The session of a claimed job: begins with its first statement, and commits with the job's finish (law 3). Knows no job.

The way to use it: ask the remote side first, use the session last. From the first statement on there is an open
transaction; on SQLite it is the one that may write, and whoever else wants to write waits for it.
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

from jobs.contention import TRIES, is_contention
from jobs.database import Database
from jobs.errors import LostLease
from jobs.held import Held

T = TypeVar("T")

_current: ContextVar["UnitOfWork | None"] = ContextVar("syncs_unit", default=None)


class JobSession(Session):
    """A SQLModel session whose transaction is another's to commit.

    `commit()` flushes and does no more: what was written becomes visible with the job's finish, or with a checkpoint.
    `rollback()` drops what was written since the last of these.
    """

    def __init__(self, unit: "UnitOfWork") -> None:
        # The connection is in our transaction when the session gets it; it may roll that back, and not commit it.
        super().__init__(join_transaction_mode="rollback_only")
        self._unit = unit

    def get_bind(self, mapper: Any = None, **options: Any) -> Connection:
        """Return the connection of the job's transaction, which begins here."""
        return self._unit.connection()

    def commit(self) -> None:
        """Flush. The job's finish commits."""
        self.flush()

    def rollback(self) -> None:
        """Drop what was written, and let the transaction go."""
        super().rollback()
        self._unit.let_go()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # `with job.session as session:` must not end what the finish commits.
        if kind is None:
            self.flush()


class UnitOfWork:
    """What one attempt at a job writes into the database, until it is committed together with the job's state.

    One thread works with it; `abandon` may be called from another.

    Args:
        db: where.
        owner: the job, as messages name it.
    """

    def __init__(self, db: Database, owner: str) -> None:
        self._db = db
        self._owner = owner
        self._session: JobSession | None = None
        self._held: Held | None = None
        self._abandoned = False
        self._lock = threading.Lock()
        self._undone: list[Callable[[], object]] = []

    @property
    def session(self) -> JobSession:
        """The session, always the same one. Having it opens nothing."""
        if self._session is None:
            self._session = JobSession(self)
        return self._session

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open, or would be by a flush: there may be something to commit."""
        session = self._session
        return session is not None and (self._held is not None or bool(session.new or session.dirty or session.deleted))

    @property
    def is_abandoned(self) -> bool:
        """Whether nothing that it does counts any more."""
        return self._abandoned

    @property
    def writes_sqlite(self) -> bool:
        """Whether it has the turn of SQLite's one writer, so that no other transaction of this thread could ever begin."""
        return self._held is not None and self._db.dialect == "sqlite"

    @property
    def db(self) -> Database:
        """The database that it writes to."""
        return self._db

    def connection(self) -> Connection:
        """Return the connection, in its transaction.

        Raises:
            LostLease: the job was given up.
            DatabaseUnavailable: no connection could be had.
        """
        held = self._held
        if held is None:
            # Not under the lock: on SQLite this waits for its turn, and `abandon` must not wait with it.
            held = Held(self._db, self._owner)
            with self._lock:
                if not self._abandoned:
                    self._held = held
            if self._held is None:
                held.rollback()
        self.check()
        if not held.connection.in_transaction():
            # `with session.begin():` rolled back behind our back.
            held.connection.begin()
            self._do_again()
        return held.connection

    def check(self) -> None:
        """Make sure that the job is still wanted.

        Raises:
            LostLease: it was given up.
        """
        if self._abandoned:
            raise LostLease(f"{self._owner} was given up; what it writes is dropped")

    def flush(self) -> None:
        """Send what the session holds to the database.

        Raises:
            Exception: what the database says to it; then nothing of the transaction may remain.
        """
        if self._session is not None:
            self._session.flush()

    def commit(self, also: Callable[[Connection], T]) -> T:
        """Flush, run `also` in the same transaction, and commit. Whatever fails, nothing remains.

        Args:
            also: the rest of the transaction; may be run again after a conflict.

        Raises:
            LostLease: the job was given up.
            Exception: what flush, `also` and commit raise.
        """
        try:
            self.flush()
            made = _without_conflict(self.connection(), also)
            # The session's half: it lets the connection go and reads its objects anew.
            Session.commit(self.session)
            held, self._held = self._held, None
            if held is None:
                raise LostLease(f"{self._owner} was given up; what it wrote is dropped")
            held.commit()
        except BaseException:
            self.discard()
            raise
        self._undone.clear()
        return made

    def if_undone(self, work: Callable[[], object]) -> None:
        """Have this done again, outside, where the transaction is rolled back: it was in there only because of the one writer.

        Args:
            work: may be done more than once; raises nothing.
        """
        self._undone.append(work)

    def _do_again(self) -> None:
        undone, self._undone = self._undone, []
        for work in undone:
            work()

    def discard(self) -> None:
        """Roll back everything since the last commit, and forget the session's objects."""
        if self._session is not None:
            self._session.close()
        self.let_go()

    def let_go(self) -> None:
        """Roll back the transaction, if one is open."""
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            held.rollback()
        self._do_again()

    def abandon(self) -> None:
        """Roll back from another thread and refuse everything from now on: the job's own thread hangs."""
        with self._lock:
            self._abandoned = True
            held = self._held
        if held is not None:
            held.kill()


@contextmanager
def working(unit: UnitOfWork) -> Iterator[None]:
    """Name a unit of work as the present one of this thread, for code that is called by its job; see `joined`."""
    token = _current.set(unit)
    try:
        yield
    finally:
        _current.reset(token)


def joined(db: Database) -> Session | None:
    """Return the session that a write in this thread must go through, because SQLite lets nobody else write now.

    A job that has written through `job.session` and then queues another one without handing the session over would wait
    for itself, fifteen seconds long and in vain. With this session the new job is committed with the old one's finish.

    Args:
        db: where the write is to go.
    """
    unit = present(db)
    return None if unit is None else unit.session


def present(db: Database) -> UnitOfWork | None:
    """Return the unit of work of that session."""
    unit = _current.get()
    return unit if unit is not None and unit.writes_sqlite and unit.db.url == db.url else None


def _without_conflict(connection: Connection, work: Callable[[Connection], T]) -> T:
    """Run the last part of a transaction, again if it met another one; the part before it cannot be done again."""
    for _ in range(TRIES - 1):
        try:
            with connection.begin_nested():
                return work(connection)
        except DBAPIError as error:
            if not is_contention(error):
                raise
    return work(connection)
