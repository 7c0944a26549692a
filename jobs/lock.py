"""Named locks, held by one at a time over all processes and machines, and fenced (LK-01 to LK-11). Knows no job.

A lock is a lease: who holds it renews it, and once it has run out, anyone may take it. A holder that slept through its lease
does not know; the `token`, which each acquisition raises, lets what it writes to be refused.
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

from jobs.contention import again
from jobs.database import Database
from jobs.errors import JobsError, LockHeld, LockLost
from jobs.models import lock
from jobs.session import present
from jobs.transition import bounded
from jobs.worker import is_gone, this_worker

log = logging.getLogger("syncs.lock")

LEASE = 30.0
"""Seconds."""

SHORTEST_LEASE = 0.001
"""Seconds (LK-01)."""

LONGEST_NAME = 255
"""Characters; of a longer name, or one with others than printable ASCII, a hash stands in its place (LK-08)."""

_FIRST_WAIT, _LONGEST_WAIT = 0.025, 0.5


@dataclass(frozen=True, slots=True)
class LockView:
    """A lock as a list shows it."""

    name: str
    owner: str
    token: int
    acquired_at: datetime
    #: Its end unless renewed; `None` when it was released.
    lease_until: datetime | None
    #: Whether nobody else may take it now.
    held: bool


class Lock:
    """A lock in hand.

    Args:
        locks: where it is.
        name: as it was asked for.
        owner: who has it.
        token: higher than that of every earlier holder: hand it along with what you write, and refuse a lower one there.
    """

    def __init__(self, locks: "Locks", name: str, owner: str, token: int) -> None:
        self._locks = locks
        self.name = name
        self.owner = owner
        self.token = token

    def is_held(self) -> bool:
        """Ask the database whether nobody else may have taken it in the meantime."""
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
                # Who has it and asks again extends it (LK-02); nobody has been in between.
                "token": case((goes_on, lock.c.token), else_=lock.c.token + 1),
                "acquired_at": case((goes_on, lock.c.acquired_at), else_=new.acquired_at),
                "lease_until": new.lease_until,
            },
            # Read and written in one statement, so that of any number who find it free one gets it (LK-03).
            where=or_(~alive, lock.c.owner == new.owner, lock.c.token == bindparam("b_broken")),
        ).returning(lock.c.token)
        self._holder = select(lock.c.owner, lock.c.token, lock.c.lease_until).where(named, alive)
        # One that has run out and that nobody has taken is still its owner's.
        self._extend = update(lock).where(mine, lock.c.lease_until.is_not(None)).values(lease_until=db.from_now("lease"))
        self._release = update(lock).where(mine, lock.c.lease_until.is_not(None)).values(lease_until=None)
        self._held = select(lock.c.token).where(mine, alive)
        self._break = update(lock).where(named, lock.c.lease_until.is_not(None)).values(lease_until=None)
        self._all = select(lock, case((alive, 1), else_=0).label("held")).order_by(lock.c.name)

    @contextmanager
    def lock(self, name: str, *, lease: float = LEASE, wait: float = 0) -> Iterator[Lock]:
        """Hold a lock for the time of a block, renewed while it lasts and released however it ends (E-75, E-76).

        Two threads of one process exclude each other too. Where this process dies, others of this host know at once, others
        elsewhere when the lease has ended.

        Args:
            name: of any length, in any letters.
            lease: seconds for which it stays taken if this process goes silent.
            wait: seconds to wait for another holder; 0 does not wait.

        Raises:
            LockHeld: somebody else has it, after all the waiting.
            LockLost: at the end of the block: it went to somebody else in between, so the block did not have it to itself.
        """
        owner = f"{this_worker()}/{uuid4().hex[:12]}"
        held = self.acquire(name, owner=owner, lease=lease, wait=wait)
        if held is None:
            raise LockHeld(self._who(name))
        ended = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(held, lease, ended), name=f"syncs-lock-{held.token}", daemon=True)
        keeper.start()

        def end() -> None:
            ended.set()
            # In a job that writes on SQLite it waits for this very thread; it ends by itself then.
            keeper.join(None if present(self._db) is None else 0)

        try:
            yield held
        except BaseException:
            end()
            # What went wrong in the block is what the caller must hear of.
            self._try(lambda: self.release(name, owner=owner), name)
            raise
        end()
        if not self.release(name, owner=owner, token=held.token):
            # Taken again after a rollback, with somebody else in between: it must not stay ours.
            self._try(lambda: self.release(name, owner=owner), name)
            raise LockLost(f"the lock {name!r} went to somebody else, or was broken, while it was held here")

    def _keep(self, held: Lock, lease: float, ended: threading.Event) -> None:
        while not ended.wait(max(lease / 3, _FIRST_WAIT)):
            held_on = self._try(lambda: self.extend(held.name, owner=held.owner, lease=lease), held.name)
            if held_on is False and not ended.is_set():
                log.warning("the lock %r is lost: it was broken, or not renewed for %g s", held.name, lease)
                return

    @staticmethod
    def _try(work: Callable[[], bool], name: str) -> bool | None:
        """Do what may fail with the database; `None` where it did."""
        try:
            return work()
        except (SQLAlchemyError, JobsError) as error:
            log.warning("the lock %r: the database did not answer: %s", name, type(error).__name__)
            return None

    def acquire(self, name: str, *, owner: str, lease: float = LEASE, wait: float = 0) -> Lock | None:
        """Take a lock that outlives this call and this process, or extend one's own (LK-01, LK-02, LK-07).

        Args:
            name: of any length, in any letters.
            owner: who takes it; whoever says the same name may extend and release it, in any process.
            lease: seconds until others may take it.
            wait: seconds to wait for another owner, fractions too (E-73); waiting and taking is one call (E-74).

        Returns:
            The lock, or `None` where somebody else has it.
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
            # Not all that wait come at the same moment.
            time.sleep(min(left, pause * random.uniform(0.75, 1.0)))  # noqa: S311  # spreads load, hides nothing
            pause = min(pause + _FIRST_WAIT, _LONGEST_WAIT)

    @again
    def _attempt(self, name: str, owner: str, lease: float) -> int | None:
        values = {"b_name": stored(name), "b_owner": owner}
        with self._db.read() as connection:
            holder = connection.execute(self._holder, values).one_or_none()
        broken = None
        if holder is not None and holder.owner != owner:
            # Only this very claim is broken: by the time of the statement it may be another's.
            if not is_gone(holder.owner.partition("/")[0]):
                return None
            broken = holder.token
        with self._write(name, lambda: self._attempt(name, owner, lease) is not None) as connection:
            found = connection.execute(self._take, {**values, "lease": bounded(lease), "b_broken": broken})
            return found.scalar_one_or_none()

    @again
    def extend(self, name: str, *, owner: str, lease: float = LEASE) -> bool:
        """Extend one's own lock to so many seconds from now; `False` if it was broken or is another's (LK-02)."""
        values = {"b_name": stored(name), "b_owner": owner, "lease": bounded(lease)}
        with self._write(name, lambda: self.extend(name, owner=owner, lease=lease)) as connection:
            return connection.execute(self._extend, values).rowcount > 0

    @again
    def release(self, name: str, *, owner: str, token: int | None = None) -> bool:
        """Release one's own lock; that of another stays (LK-04).

        Returns:
            Whether it was still one's own.
        """
        statement = self._release if token is None else self._release.where(lock.c.token == token)
        with self._write(name, lambda: self.release(name, owner=owner, token=token)) as connection:
            return connection.execute(statement, {"b_name": stored(name), "b_owner": owner}).rowcount > 0

    @again
    def take_away(self, name: str) -> bool:
        """Break a lock, whoever has it (E-61): its holder hears of it at its next renewal, and its token is the lower one.

        Returns:
            Whether anybody had it.
        """
        with self._write(name, lambda: self.take_away(name)) as connection:
            return connection.execute(self._break, {"b_name": stored(name)}).rowcount > 0

    @contextmanager
    def _write(self, name: str, redo: Callable[[], bool]) -> Iterator[Connection]:
        """Open a transaction; inside a job that writes on SQLite, its own: nobody else can write before it ends.

        Where the job is rolled back, the lock is not: `redo` does what was done to it once more.
        """
        unit = present(self._db)
        if unit is not None:
            try:
                connection = unit.connection()
            finally:
                # A job that was given up has no connection any more, and its locks are to be released all the same.
                unit.if_undone(lambda: self._try(redo, name))
            yield connection
            return
        with self._db.write(single=True) as connection:
            yield connection

    def holds(self, name: str, owner: str, token: int) -> bool:
        """Tell whether this owner has the lock, since the acquisition that gave it this token."""
        with self._db.read() as connection:
            found = connection.execute(self._held, {"b_name": stored(name), "b_owner": owner}).scalar_one_or_none()
        return found == token

    def all(self) -> list[LockView]:
        """Return all locks, held or once held, by name."""
        with self._db.read() as connection:
            return [_view(row) for row in connection.execute(self._all)]

    def _who(self, name: str) -> str:
        with self._db.read() as connection:
            holder = connection.execute(self._holder, {"b_name": stored(name)}).one_or_none()
        if holder is None:
            return f"the lock {name!r} was held by somebody else until just now"
        return f"the lock {name!r} is held by {holder.owner} until {holder.lease_until:%Y-%m-%d %H:%M:%SZ}, unless renewed"


def stored(name: str) -> str:
    """Return the name under which a lock is kept: itself, or where it is long or not in ASCII, a hash of it (LK-08)."""
    if len(name) <= LONGEST_NAME and name.isascii() and name.isprintable():
        return name
    return f"sha256:{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"


def _view(row: Any) -> LockView:
    return LockView(row.name, row.owner, row.token, row.acquired_at, row.lease_until, bool(row.held))
