"""Pauses of clients: rows that the claim reads (law 5). Knows when trouble adds up to a pause, not what trouble is.

A client is *open* while it has no open pause; *paused* until the end of the one it has; then *reopening*: the clock has ended the
pause, ordinary claims still leave the client alone, and one probe goes first (`jobs.probe`).

Whoever writes here locks the row of the client first, so that of two pauses at once the second finds the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.clock import UTCDateTime, to_text
from jobs.contention import again
from jobs.database import Database
from jobs.models import client, pause
from jobs.transition import bounded


@dataclass(frozen=True, slots=True)
class Pausing:
    """An open pause."""

    client: str
    #: Its end, or `None` until a person resumes.
    until: datetime | None
    cause: str
    reason: str
    level: int
    started_at: datetime
    id: int
    set_by: str | None = None
    #: Probes begun so far.
    probes: int = field(default=0, compare=False)
    #: Whether the very call that returned this began it: then it is news, and people are told once.
    is_new: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a client stands, by the database's clock; neither pause: it is open."""

    #: Under which a request that begins now is answered; see `Pauses.hear`.
    generation: int
    #: In force.
    pausing: Pausing | None = None
    #: Run out, and not yet probed well.
    reopening: Pausing | None = None
    #: Trouble is noted that the next success forgets.
    is_uneasy: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Mood:
    """How a client is doing: generic errors in a row, and how many pauses deep it is in trouble."""

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


def length(durations: Sequence[float], level: int) -> float:
    """Return the seconds of a pause at an error level, counted from 0; the last duration serves all higher ones."""
    return durations[min(level, len(durations) - 1)]


class Pauses:
    """Pauses of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        of_client: Any = bindparam("b_client")
        self._open = insert_into(client).values(id=of_client).on_conflict_do_nothing(index_elements=["id"])
        self._mood = (
            select(client.c.errors, client.c.level, client.c.generation).where(client.c.id == of_client).with_for_update()
        )
        self._feel = (
            update(client).where(client.c.id == of_client).values(errors=bindparam("b_errors"), level=bindparam("b_level"))
        )
        self._count = update(client).where(client.c.id == of_client).values(generation=client.c.generation + 1)
        is_open = pause.c.ended_at.is_(None)
        is_in_force = and_(is_open, or_(pause.c.until.is_(None), pause.c.until > db.now))
        # A literal in the place of a Boolean, which SQLite has not.
        in_force = case((is_in_force, literal_column("1")), else_=literal_column("0")).label("in_force")
        one = select(literal_column("1").label("one")).subquery("one")
        self._standing = select(
            func.coalesce(client.c.generation, 0).label("of_client"),
            func.coalesce(client.c.errors + client.c.level, 0).label("trouble"),
            pause,
            in_force,
        ).select_from(
            one.outerjoin(client, client.c.id == of_client).outerjoin(pause, and_(pause.c.client == of_client, is_open))
        )
        self._present = select(pause, in_force, db.from_now("seconds").label("would_end")).where(
            pause.c.client == of_client, is_open
        )
        each = select(pause).order_by(pause.c.client)
        self._all = {False: each.where(is_in_force), True: each.where(is_open)}
        self._end = update(pause).where(pause.c.client == of_client, is_open).values(ended_at=db.now, ended_by=bindparam("b_by"))
        values = {
            "client": of_client, "cause": bindparam("b_cause"), "reason": bindparam("b_reason"), "level": bindparam("b_level"),
            "set_by": bindparam("b_set_by"), "started_at": db.now,
        }  # fmt: skip
        self._pause_for = insert(pause).values(until=db.from_now("seconds"), **values).returning(pause)
        self._pause_until = insert(pause).values(until=bindparam("b_until", type_=UTCDateTime()), **values).returning(pause)

    def standing(self, client_id: str) -> Standing:
        """Return how a client stands, in one query."""
        with self._db.read() as connection:
            row = connection.execute(self._standing, {"b_client": client_id}).one()
        found = None if row.id is None else pausing_of(row)
        pausing, reopening = (found, None) if row.in_force else (None, found)
        return Standing(row.of_client, pausing, reopening, row.trouble > 0)

    def in_force(self, *, run_out: bool = False) -> list[Pausing]:
        """Return all pauses in force; on request also those that have run out and have not been probed well."""
        with self._db.read() as connection:
            return [pausing_of(row) for row in connection.execute(self._all[run_out])]

    @again
    def pause(
        self,
        client_id: str,
        when: float | datetime | None,
        *,
        cause: str,
        reason: str,
        set_by: str,
        generation: int | None = None,
    ) -> Pausing | None:
        """Pause a client. One in force that lasts as long stays as it is; a person's takes its place, but does not shorten it.

        Args:
            client_id: whom.
            when: seconds from now, a moment, or `None` until a person resumes.
            cause: `level`, `enforced`, `asked`, `person` or `window`.
            reason: one line for a person.
            set_by: a worker or a person.
            generation: under which the request began whose answer asks for this; `None` where it is no answer. An answer of
                another generation changes nothing: the client was paused, resumed or reopened since (law 5).

        Returns:
            The pause in force; new if this call began it. `None` after a late answer where none is in force.

        Raises:
            NaiveTime: the moment has no zone.
        """
        refuse_naive(when)
        with self._db.write() as connection:
            mood = self.lock(connection, client_id)
            seconds = bounded(when) if isinstance(when, int | float) else 0.0
            before = connection.execute(self._present, {"b_client": client_id, "seconds": seconds}).one_or_none()
            if before is not None and not before.in_force:
                before = None
            if generation is not None and generation != mood.generation:
                return None if before is None else pausing_of(before)
            if before is not None:
                end = when if when is None or isinstance(when, datetime) else _moment(before.would_end)
                if before.until is None or (end is not None and before.until >= end):
                    if cause != "person":
                        return pausing_of(before)
                    when = before.until
            return self.begin(connection, client_id, when, cause=cause, reason=reason, set_by=set_by, level=mood.level)

    @again
    def hear(
        self, client_id: str, troubles: Sequence[bool], *, after: int, durations: Sequence[float], reason: str, set_by: str,
        generation: int | None = None,
    ) -> Pausing | None:  # fmt: skip
        """Take note of a batch of answers; pause the client when generic trouble adds up.

        Args:
            client_id: whose answers.
            troubles: one for each answer, in order: whether it was generic trouble.
            after, durations: the pause policy; seconds by error level, the last one serves all higher levels.
            reason: one line for a person, should it come to a pause.
            set_by: the worker.
            generation: under which the requests began. Answers of another one are no news of the client as it is now.

        Returns:
            The pause, if the answers led to one.
        """
        with self._db.write() as connection:
            row = self.lock(connection, client_id)
            if generation is not None and generation != row.generation:
                return None
            if connection.execute(self._present, {"b_client": client_id, "seconds": 0.0}).one_or_none() is not None:
                # These answers were under way when the pause began; they are part of its cause, and no reason for a longer one.
                return None
            mood, is_pausing = after_answers(Mood(row.errors, row.level), troubles, after=after)
            level = mood.level + 1 if is_pausing else mood.level
            self.feel(connection, client_id, Mood(mood.errors, level))
            if not is_pausing:
                return None
            seconds = length(durations, mood.level)
            return self.begin(connection, client_id, seconds, cause="level", reason=reason, set_by=set_by, level=level)

    @again
    def resume(self, client_id: str, *, by: str) -> bool:
        """End the pause of a client, in force or run out; tell whether there was one.

        It needs no probe, forgets all trouble, and makes every answer late whose request has begun.
        """
        with self._db.write() as connection:
            self.lock(connection, client_id)
            self.feel(connection, client_id, Mood(0, 0))
            return self.end(connection, client_id, by=by)

    # -- within a transaction of the caller ------------------------------------------------------------------------------------

    def lock(self, connection: Connection, client_id: str) -> Any:
        """Lock the row of a client, which is made if need be; return its errors, level and generation."""
        connection.execute(self._open, {"b_client": client_id})
        return connection.execute(self._mood, {"b_client": client_id}).one()

    def feel(self, connection: Connection, client_id: str, mood: Mood) -> None:
        """Write down how a client is doing."""
        connection.execute(self._feel, {"b_client": client_id, "b_errors": mood.errors, "b_level": mood.level})

    def end(self, connection: Connection, client_id: str, *, by: str) -> bool:
        """End the open pause of a client that is locked, and its generation; tell whether there was one."""
        connection.execute(self._count, {"b_client": client_id})
        return connection.execute(self._end, {"b_client": client_id, "b_by": by}).rowcount > 0

    def begin(
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
        """Put a pause in the place of the open one, if there is one, of a client that is locked."""
        self.end(connection, client_id, by=set_by if cause == "person" else cause)
        values = {"b_client": client_id, "b_cause": cause, "b_reason": reason, "b_set_by": set_by, "b_level": level}
        if when is None or isinstance(when, datetime):
            row = connection.execute(self._pause_until, {**values, "b_until": when}).one()
        else:
            row = connection.execute(self._pause_for, {**values, "seconds": bounded(when)}).one()
        return pausing_of(row, is_new=True)


def pausing_of(row: Any, *, is_new: bool = False) -> Pausing:
    """Return a row of the table as a value."""
    return Pausing(
        row.client, row.until, row.cause, row.reason, row.level, row.started_at, row.id, row.set_by, row.probes, is_new
    )  # fmt: skip


def refuse_naive(when: object) -> None:
    """Raise `NaiveTime` for a moment without a zone (law 13)."""
    if isinstance(when, datetime):
        to_text(when)


def _moment(found: Any) -> datetime:
    value = UTCDateTime().process_result_value(found, None)
    assert value is not None
    return value
