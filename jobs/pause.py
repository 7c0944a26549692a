"""Pauses of clients: rows that the claim reads (law 5). Knows when trouble adds up to a pause, not what trouble is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.clock import UTCDateTime
from jobs.contention import again
from jobs.database import Database
from jobs.models import client, pause
from jobs.transition import bounded


@dataclass(frozen=True, slots=True)
class Pausing:
    """A pause in force."""

    client: str
    #: Its end, or `None` until a person resumes.
    until: datetime | None
    cause: str
    reason: str
    level: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Mood:
    """How a client is doing: generic errors in a row, and pauses in a row."""

    errors: int
    level: int


def after_answers(mood: Mood, troubles: Sequence[bool], *, after: int) -> tuple[Mood, bool]:
    """Follow a client through its answers.

    Args:
        mood: before.
        troubles: one for each answer, in order: whether it was generic trouble.
        after: so many troubles in a row pause the client.

    Returns:
        The mood afterwards, and whether to pause now.
    """
    errors, level, pausing = mood.errors, mood.level, False
    for trouble in troubles:
        if trouble:
            errors += 1
            pausing = pausing or errors >= after
        else:
            errors, level, pausing = 0, 0, False
    return Mood(0 if pausing else errors, level), pausing


class Pauses:
    """Pauses of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        self._open = insert_into(client).values(id=bindparam("b_client")).on_conflict_do_nothing(index_elements=["id"])
        self._mood = select(client.c.errors, client.c.level).where(client.c.id == bindparam("b_client")).with_for_update()
        self._feel = (
            update(client)
            .where(client.c.id == bindparam("b_client"))
            .values(errors=bindparam("b_errors"), level=bindparam("b_level"))
        )
        self._count = update(client).where(client.c.id == bindparam("b_client")).values(generation=client.c.generation + 1)
        open_pause = and_(pause.c.client == bindparam("b_client"), pause.c.ended_at.is_(None))
        in_force = and_(pause.c.ended_at.is_(None), or_(pause.c.until.is_(None), pause.c.until > db.now))
        self._current = select(pause).where(pause.c.client == bindparam("b_client"), in_force)
        self._all = select(pause).where(in_force).order_by(pause.c.client)
        self._end = update(pause).where(open_pause).values(ended_at=db.now, ended_by=bindparam("b_by"))
        values = {
            "client": bindparam("b_client"), "cause": bindparam("b_cause"), "reason": bindparam("b_reason"),
            "level": bindparam("b_level"), "set_by": bindparam("b_set_by"), "started_at": db.now,
        }  # fmt: skip
        self._pause_for = insert(pause).values(until=db.from_now("seconds"), **values)
        self._pause_until = insert(pause).values(until=bindparam("b_until", type_=UTCDateTime()), **values)

    def current(self, client_id: str) -> Pausing | None:
        """Return the pause in force for this client."""
        with self._db.read() as connection:
            row = connection.execute(self._current, {"b_client": client_id}).one_or_none()
        return None if row is None else _pausing(row)

    def in_force(self) -> list[Pausing]:
        """Return all pauses in force."""
        with self._db.read() as connection:
            return [_pausing(row) for row in connection.execute(self._all)]

    @again
    def pause(self, client_id: str, when: float | datetime | None, *, cause: str, reason: str, set_by: str) -> Pausing:
        """Pause a client; a pause in force is kept where it lasts longer.

        Args:
            client_id: whom.
            when: seconds from now, a moment, or `None` until a person resumes.
            cause: level, enforced, asked, person or window.
            reason: one line for a person.
            set_by: a worker or a person.
        """
        with self._db.write() as connection:
            connection.execute(self._open, {"b_client": client_id})
            mood = connection.execute(self._mood, {"b_client": client_id}).one()
            return self._set(connection, client_id, when, cause=cause, reason=reason, set_by=set_by, level=mood.level)

    def _set(
        self,
        connection: Connection,
        client_id: str,
        when: float | datetime | None,
        *,
        cause: str,
        reason: str,
        set_by: str,
        level: int,
    ) -> Pausing:
        before = connection.execute(self._current, {"b_client": client_id}).one_or_none()
        connection.execute(self._end, {"b_client": client_id, "b_by": cause})
        values = {"b_client": client_id, "b_cause": cause, "b_reason": reason, "b_set_by": set_by, "b_level": level}
        if when is None or isinstance(when, datetime):
            connection.execute(self._pause_until, {**values, "b_until": when})
        else:
            connection.execute(self._pause_for, {**values, "seconds": bounded(when)})
        connection.execute(self._count, {"b_client": client_id})
        current = select(pause).where(pause.c.client == client_id, pause.c.ended_at.is_(None))
        now = connection.execute(current).one()
        if before is not None and now.until is not None and (before.until is None or before.until > now.until):
            extend = update(pause).where(pause.c.id == now.id).values(until=before.until)
            connection.execute(extend)
            now = connection.execute(current).one()
        return _pausing(now)

    @again
    def hear(
        self, client_id: str, troubles: Sequence[bool], *, after: int, durations: Sequence[float], reason: str, set_by: str
    ) -> Pausing | None:
        """Take note of a batch of answers; pause the client when generic trouble adds up.

        Args:
            client_id: whose answers.
            troubles: one for each answer, in order: whether it was generic trouble.
            after, durations: the pause policy; seconds by error level, the last one serves all higher levels.
            reason: one line for a person, should it come to a pause.
            set_by: the worker.

        Returns:
            The pause, if the answers led to one.
        """
        with self._db.write() as connection:
            connection.execute(self._open, {"b_client": client_id})
            row = connection.execute(self._mood, {"b_client": client_id}).one()
            if connection.execute(self._current, {"b_client": client_id}).one_or_none() is not None:
                # These answers were under way when the pause began; they are part of its cause, and no reason for a longer one.
                return None
            mood, pausing = after_answers(Mood(row.errors, row.level), troubles, after=after)
            level = mood.level + 1 if pausing else mood.level
            connection.execute(self._feel, {"b_client": client_id, "b_errors": mood.errors, "b_level": level})
            if not pausing:
                return None
            seconds = durations[min(mood.level, len(durations) - 1)]
            return self._set(connection, client_id, seconds, cause="level", reason=reason, set_by=set_by, level=level)

    @again
    def resume(self, client_id: str, *, by: str) -> bool:
        """End the pause of a client; tell whether there was one."""
        with self._db.write() as connection:
            # The client first, as everywhere here: two that lock it and its pause crosswise would wait for each other.
            connection.execute(self._count, {"b_client": client_id})
            connection.execute(self._feel, {"b_client": client_id, "b_errors": 0, "b_level": 0})
            ended = connection.execute(self._end, {"b_client": client_id, "b_by": by})
            return ended.rowcount > 0


def _pausing(row: Any) -> Pausing:
    return Pausing(row.client, row.until, row.cause, row.reason, row.level, row.started_at)
