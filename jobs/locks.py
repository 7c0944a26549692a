"""Named locks with one holder at a time over all processes and machines, and with fencing tokens.

A lock is a lease: its holder renews it, and when it has run out anyone may take it. A holder that was suspended for longer than
its lease does not notice. So each acquisition raises the `token`, and whatever the holder writes to can refuse a lower token.
"""

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, and_, bindparam, case, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from jobs.db.clock import bounded
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.job_session import current_unit
from jobs.errors import JobsError, LockHeld, LockLost
from jobs.process_identity import is_gone, this_worker
from jobs.schema.job_tables import lock

log = logging.getLogger("syncs.lock")

LEASE = 30.0
"""Seconds."""

SHORTEST_LEASE = 0.001
"""Seconds."""

LONGEST_NAME = 255
"""Characters. A longer name, or one with other characters than printable ASCII, is stored as a hash."""

_FIRST_WAIT, _LONGEST_WAIT = 0.025, 0.5


@dataclass(frozen=True, slots=True)
class LockView:
    """A lock in a list."""

    name: str
    owner: str
    token: int
    acquired_at: datetime
    #: Its end unless renewed; `None` when it was released.
    lease_until: datetime | None
    #: Whether its lease still runs, so that nobody else can take it.
    held: bool


class Lock:
    """A lock that was acquired.

    Args:
        locks: the locks of its database.
        name: as the caller gave it.
        owner: its holder.
        token: higher than that of every earlier holder: pass it with every write, and refuse a lower one at the other end.
    """

    def __init__(self, locks: "Locks", name: str, owner: str, token: int) -> None:
        self._locks = locks
        self.name = name
        self.owner = owner
        self.token = token

    def is_held(self) -> bool:
        """Ask the database whether it is still held under this token."""
        return self._locks.holds(self.name, self.owner, self.token)

    def __repr__(self) -> str:
        return f"<Lock {self.name!r} token={self.token}>"


class Locks:
    """Locks of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        named = lock.c.name == bindparam("b_name")
        mine = and_(named, lock.c.owner == bindparam("b_owner"))
        alive = and_(lock.c.lease_until.is_not(None), lock.c.lease_until > db.now)
        take = insert_into(lock).values(
            name=bindparam("b_name"), owner=bindparam("b_owner"), token=1, acquired_at=db.now, lease_until=db.from_now("lease")
        )
        new = take.excluded
        goes_on = and_(alive, lock.c.owner == new.owner)
        self._take = take.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "owner": new.owner,
                # The holder extends it by acquiring it again; nobody else has held it in between.
                "token": case((goes_on, lock.c.token), else_=lock.c.token + 1),
                "acquired_at": case((goes_on, lock.c.acquired_at), else_=new.acquired_at),
                "lease_until": new.lease_until,
            },
            # Read and written in one statement, so that only one of several callers that find it free gets it.
            where=or_(~alive, lock.c.owner == new.owner, lock.c.token == bindparam("b_broken")),
        ).returning(lock.c.token)
        self._holder = select(lock.c.owner, lock.c.token, lock.c.lease_until).where(named, alive)
        # A lock that has run out and that nobody has taken still belongs to its owner.
        self._extend = update(lock).where(mine, lock.c.lease_until.is_not(None)).values(lease_until=db.from_now("lease"))
        self._release = update(lock).where(mine, lock.c.lease_until.is_not(None)).values(lease_until=None)
        self._held_token = select(lock.c.token).where(mine, alive)
        self._break = update(lock).where(named, lock.c.lease_until.is_not(None)).values(lease_until=None)
        self._all = select(lock, case((alive, 1), else_=0).label("held")).order_by(lock.c.name)

    @contextmanager
    def hold(self, name: str, *, lease: float = LEASE, wait: float = 0) -> Iterator[Lock]:
        """Hold a lock for the duration of a block: it is renewed during the block and released however the block ends.

        Two threads of one process exclude each other too. If this process dies, other processes of this host can take the lock at
        once, and processes elsewhere when the lease has ended.

        Args:
            name: of any length and any characters.
            lease: seconds for which it stays held if this process stops renewing it.
            wait: seconds to wait for another holder to release it.

        Raises:
            LockHeld: somebody else still holds it after that time.
            LockLost: at the end of the block: somebody else has taken it in between, so the block was not alone.
        """
        owner = f"{this_worker()}/{uuid4().hex[:12]}"
        held = self.acquire(name, owner=owner, lease=lease, wait=wait)
        if held is None:
            raise LockHeld(self._describe_holder(name))
        ended = threading.Event()
        renewer = threading.Thread(target=self._renew, args=(held, lease, ended), name=f"syncs-lock-{held.token}", daemon=True)
        renewer.start()

        def end() -> None:
            ended.set()
            # Inside a job that writes on SQLite the renewer waits for this thread, and ends by itself later.
            renewer.join(None if current_unit(self._db) is None else 0)

        try:
            yield held
        except BaseException:
            end()
            # The error of the block is raised; an error of the release is only logged.
            self._log_failure(lambda: self.release(name, owner=owner), name)
            raise
        end()
        if not self.release(name, owner=owner, token=held.token):
            # After a rollback it may have been acquired again, with another holder in between: then it must be released too.
            self._log_failure(lambda: self.release(name, owner=owner), name)
            raise LockLost(f"the lock {name!r} went to somebody else, or was broken, while it was held here")

    def _renew(self, held: Lock, lease: float, ended: threading.Event) -> None:
        while not ended.wait(max(lease / 3, _FIRST_WAIT)):
            held_on = self._log_failure(lambda: self.extend(held.name, owner=held.owner, lease=lease), held.name)
            if held_on is False and not ended.is_set():
                log.warning("the lock %r is lost: it was broken, or not renewed for %g s", held.name, lease)
                return

    @staticmethod
    def _log_failure(work: Callable[[], bool], name: str) -> bool | None:
        """Run a database operation; log a failure and return `None`."""
        try:
            return work()
        except (SQLAlchemyError, JobsError) as error:
            log.warning("the lock %r: the database did not answer: %s", name, type(error).__name__)
            return None

    def acquire(self, name: str, *, owner: str, lease: float = LEASE, wait: float = 0) -> Lock | None:
        """Take a lock that is held beyond this call and this process, or extend one's own.

        Args:
            name: of any length and any characters.
            owner: the new holder; any process that passes the same name can extend and release the lock.
            lease: seconds until others may take it.
            wait: seconds to wait for another owner to release it; may be a fraction.

        Returns:
            The lock, or `None` if somebody else holds it.
        """
        if lease < SHORTEST_LEASE:
            raise ValueError(f"a lease of {lease} s is too short; the shortest is {SHORTEST_LEASE} s")
        if not name or not owner:
            raise ValueError("a lock needs a name and an owner")
        deadline = time.monotonic() + wait
        pause = _FIRST_WAIT
        while True:
            token = self._attempt(name, owner, lease)
            if token is not None:
                return Lock(self, name, owner, token)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            # At random, so that waiting processes do not all query at the same time.
            time.sleep(min(left, pause * random.uniform(0.75, 1.0)))  # noqa: S311  # spreads load, hides nothing
            pause = min(pause + _FIRST_WAIT, _LONGEST_WAIT)

    @retry_on_conflict
    def _attempt(self, name: str, owner: str, lease: float) -> int | None:
        values = {"b_name": stored_name(name), "b_owner": owner}
        with self._db.read() as connection:
            holder = connection.execute(self._holder, values).one_or_none()
        broken = None
        if holder is not None and holder.owner != owner:
            # Only the holder's present token is broken: the lock may have another holder by then.
            if not is_gone(holder.owner.partition("/")[0]):
                return None
            broken = holder.token
        with self._write(name, lambda: self._attempt(name, owner, lease) is not None) as connection:
            found = connection.execute(self._take, {**values, "lease": bounded(lease), "b_broken": broken})
            return found.scalar_one_or_none()

    @retry_on_conflict
    def extend(self, name: str, *, owner: str, lease: float = LEASE) -> bool:
        """Extend one's own lock to so many seconds from now; `False` if it was broken or somebody else holds it."""
        values = {"b_name": stored_name(name), "b_owner": owner, "lease": bounded(lease)}
        with self._write(name, lambda: self.extend(name, owner=owner, lease=lease)) as connection:
            return connection.execute(self._extend, values).rowcount > 0

    @retry_on_conflict
    def release(self, name: str, *, owner: str, token: int | None = None) -> bool:
        """Release one's own lock; a lock of another owner is not changed.

        Returns:
            Whether the lock was still one's own.
        """
        statement = self._release if token is None else self._release.where(lock.c.token == token)
        with self._write(name, lambda: self.release(name, owner=owner, token=token)) as connection:
            return connection.execute(statement, {"b_name": stored_name(name), "b_owner": owner}).rowcount > 0

    @retry_on_conflict
    def break_lock(self, name: str) -> bool:
        """Break a lock of any holder: the holder notices at its next renewal, and its token is lower than the next one.

        Returns:
            Whether it was held.
        """
        with self._write(name, lambda: self.break_lock(name)) as connection:
            return connection.execute(self._break, {"b_name": stored_name(name)}).rowcount > 0

    @contextmanager
    def _write(self, name: str, redo: Callable[[], bool]) -> Iterator[Connection]:
        """Open a transaction. Inside a job that writes on SQLite use the job's, because no other can begin before that one ends.

        If the job is rolled back, the change of the lock must not be: then `redo` makes it again.
        """
        unit = current_unit(self._db)
        if unit is not None:
            try:
                connection = unit.connection()
            finally:
                # A job that was given up has no connection any more, but its locks must be released.
                unit.redo_after_rollback(lambda: self._log_failure(redo, name))
            yield connection
            return
        with self._db.write(single=True) as connection:
            yield connection

    def holds(self, name: str, owner: str, token: int) -> bool:
        """Tell whether this owner still holds the lock under this token."""
        with self._db.read() as connection:
            found = connection.execute(self._held_token, {"b_name": stored_name(name), "b_owner": owner}).scalar_one_or_none()
        return found == token

    def all(self) -> list[LockView]:
        """Return all locks, also released ones, ordered by name."""
        with self._db.read() as connection:
            return [_view(row) for row in connection.execute(self._all)]

    def _describe_holder(self, name: str) -> str:
        with self._db.read() as connection:
            holder = connection.execute(self._holder, {"b_name": stored_name(name)}).one_or_none()
        if holder is None:
            return f"the lock {name!r} was held by somebody else until just now"
        return f"the lock {name!r} is held by {holder.owner} until {holder.lease_until:%Y-%m-%d %H:%M:%SZ}, unless renewed"


def stored_name(name: str) -> str:
    """Return the name under which a lock is stored: the name itself, or a hash if it is long or not printable ASCII."""
    if len(name) <= LONGEST_NAME and name.isascii() and name.isprintable():
        return name
    return f"sha256:{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"


def _view(row: Any) -> LockView:
    return LockView(
        name=row.name,
        owner=row.owner,
        token=row.token,
        acquired_at=row.acquired_at,
        lease_until=row.lease_until,
        held=bool(row.held),
    )
