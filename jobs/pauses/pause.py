"""Pauses and resumes clients, and counts the errors that lead to a pause.

A client is *open* while it has no open pause; *paused* until the end of the one it has; then *reopening*: its time has ended,
claims still take none of the client's jobs, and one probe goes first (`jobs.pauses.probe`).

Each write locks the row of the client first, so that of two concurrent pauses the second sees the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.db.clock import UTCDateTime, bounded, to_text
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.pauses.pause_length import ErrorCount, after_answers, pause_seconds
from jobs.schema.job_tables import client, pause


@dataclass(frozen=True, slots=True)
class OpenPause:
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
    #: Whether the call that returned this began it, so that people are notified once.
    is_new: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ClientState:
    """The state of a client, by the database's clock; with neither pause it is open."""

    #: The generation of the client now; see `Pauses.record_answers`.
    generation: int
    #: In force.
    pausing: OpenPause | None = None
    #: Run out, and not yet ended by a successful probe.
    reopening: OpenPause | None = None
    #: Errors are counted, which the next success resets.
    has_errors: bool = field(default=False, compare=False)


class Pauses:
    """Pauses of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert_into = postgresql.insert if db.dialect == "postgresql" else sqlite.insert
        of_client: Any = bindparam("b_client")
        self._open = insert_into(client).values(id=of_client).on_conflict_do_nothing(index_elements=["id"])
        self._error_count = (
            select(client.c.errors, client.c.level, client.c.generation).where(client.c.id == of_client).with_for_update()
        )
        self._set_counts = (
            update(client).where(client.c.id == of_client).values(errors=bindparam("b_errors"), level=bindparam("b_level"))
        )
        self._count = update(client).where(client.c.id == of_client).values(generation=client.c.generation + 1)
        is_open = pause.c.ended_at.is_(None)
        is_in_force = and_(is_open, or_(pause.c.until.is_(None), pause.c.until > db.now))
        # An integer, because SQLite has no Booleans.
        in_force = case((is_in_force, literal_column("1")), else_=literal_column("0")).label("in_force")
        one = select(literal_column("1").label("one")).subquery("one")
        self._state = select(
            func.coalesce(client.c.generation, 0).label("of_client"),
            func.coalesce(client.c.errors + client.c.level, 0).label("trouble"),
            pause,
            in_force,
        ).select_from(
            one.outerjoin(client, client.c.id == of_client).outerjoin(pause, and_(pause.c.client == of_client, is_open))
        )
        self._current = select(pause, in_force, db.from_now("seconds").label("would_end")).where(
            pause.c.client == of_client, is_open
        )
        each = select(pause).order_by(pause.c.client)
        self._all = {False: each.where(is_in_force), True: each.where(is_open)}
        self._end = update(pause).where(pause.c.client == of_client, is_open).values(ended_at=db.now, ended_by=bindparam("b_by"))
        values = {
            "client": of_client,
            "cause": bindparam("b_cause"),
            "reason": bindparam("b_reason"),
            "level": bindparam("b_level"),
            "set_by": bindparam("b_set_by"),
            "started_at": db.now,
        }
        self._pause_for = insert(pause).values(until=db.from_now("seconds"), **values).returning(pause)
        self._pause_until = insert(pause).values(until=bindparam("b_until", type_=UTCDateTime()), **values).returning(pause)

    def state(self, client_id: str) -> ClientState:
        """Return the state of a client, in one query."""
        with self._db.read() as connection:
            row = connection.execute(self._state, {"b_client": client_id}).one()
        found = None if row.id is None else open_pause_of(row)
        pausing, reopening = (found, None) if row.in_force else (None, found)
        return ClientState(row.of_client, pausing, reopening, row.trouble > 0)

    def current(self, client_id: str) -> OpenPause | None:
        """Return the pause in force for a client."""
        return self.state(client_id).pausing

    def in_force(self, *, run_out: bool = False) -> list[OpenPause]:
        """Return all pauses in force; with `run_out` also those that have run out and wait for their probe."""
        with self._db.read() as connection:
            return [open_pause_of(row) for row in connection.execute(self._all[run_out])]

    @retry_on_conflict
    def open(
        self,
        client_id: str,
        when: float | datetime | None,
        *,
        cause: str,
        reason: str,
        set_by: str,
        generation: int | None = None,
    ) -> OpenPause | None:
        """Pause a client. A pause in force that lasts as long stays; a person's pause replaces it, but does not shorten it.

        Args:
            client_id: which client.
            when: seconds from now, a moment, or `None` until a person resumes.
            cause: `level`, `enforced`, `asked`, `person` or `window`.
            reason: one line for a person.
            set_by: a worker or a person.
            generation: of the client when the request began whose answer leads to this; `None` for any other cause. An answer of
                another generation changes nothing: the client was paused, resumed or reopened since.

        Returns:
            The pause in force; new if this call began it. `None` after a late answer where none is in force.

        Raises:
            NaiveTime: the moment has no zone.
        """
        refuse_naive(when)
        with self._db.write() as connection:
            error_count = self.lock(connection, client_id)
            seconds = bounded(when) if isinstance(when, int | float) else 0.0
            before = connection.execute(self._current, {"b_client": client_id, "seconds": seconds}).one_or_none()
            if before is not None and not before.in_force:
                before = None
            if generation is not None and generation != error_count.generation:
                return None if before is None else open_pause_of(before)
            if before is not None:
                end = when if when is None or isinstance(when, datetime) else _moment(before.would_end)
                if before.until is None or (end is not None and before.until >= end):
                    if cause != "person":
                        return open_pause_of(before)
                    when = before.until
            return self.insert(connection, client_id, when, cause=cause, reason=reason, set_by=set_by, level=error_count.level)

    @retry_on_conflict
    def record_answers(
        self,
        client_id: str,
        troubles: Sequence[bool],
        *,
        after: int,
        durations: Sequence[float],
        reason: str,
        set_by: str,
        generation: int | None = None,
    ) -> OpenPause | None:
        """Count the errors among a batch of answers; pause the client after `after` errors in a row.

        Args:
            client_id: whose answers.
            troubles: one for each answer, in order: whether it was generic trouble.
            after, durations: the pause policy; seconds by error level, the last one serves all higher levels.
            reason: one line for a person, used if the client is paused.
            set_by: the worker.
            generation: of the client when the requests began. Answers of another generation are ignored.

        Returns:
            The pause, if the answers led to one.
        """
        with self._db.write() as connection:
            row = self.lock(connection, client_id)
            if generation is not None and generation != row.generation:
                return None
            if connection.execute(self._current, {"b_client": client_id, "seconds": 0.0}).one_or_none() is not None:
                # These requests began before the pause; their errors are part of its cause, and no reason for a longer one.
                return None
            error_count, is_pausing = after_answers(ErrorCount(row.errors, row.level), troubles, after=after)
            level = error_count.level + 1 if is_pausing else error_count.level
            self.set_error_count(connection, client_id, ErrorCount(error_count.errors, level))
            if not is_pausing:
                return None
            seconds = pause_seconds(durations, error_count.level)
            return self.insert(connection, client_id, seconds, cause="level", reason=reason, set_by=set_by, level=level)

    @retry_on_conflict
    def resume(self, client_id: str, *, by: str) -> bool:
        """End the pause of a client, in force or run out; return whether there was one.

        It needs no probe, resets the error count, and starts a new generation: answers to earlier requests are ignored.
        """
        with self._db.write() as connection:
            self.lock(connection, client_id)
            self.set_error_count(connection, client_id, ErrorCount(0, 0))
            return self.end(connection, client_id, by=by)

    # -- within a transaction of the caller ------------------------------------------------------------------------------------

    def lock(self, connection: Connection, client_id: str) -> Any:
        """Lock the row of a client, created if missing; return its errors, level and generation."""
        connection.execute(self._open, {"b_client": client_id})
        return connection.execute(self._error_count, {"b_client": client_id}).one()

    def set_error_count(self, connection: Connection, client_id: str, error_count: ErrorCount) -> None:
        """Store the error count of a client."""
        connection.execute(
            self._set_counts, {"b_client": client_id, "b_errors": error_count.errors, "b_level": error_count.level}
        )

    def end(self, connection: Connection, client_id: str, *, by: str) -> bool:
        """End the open pause and the generation of a client that is locked; return whether there was a pause."""
        connection.execute(self._count, {"b_client": client_id})
        return connection.execute(self._end, {"b_client": client_id, "b_by": by}).rowcount > 0

    def insert(
        self,
        connection: Connection,
        client_id: str,
        when: float | datetime | None,
        *,
        cause: str,
        reason: str,
        set_by: str,
        level: int,
    ) -> OpenPause:
        """Begin a pause of a client that is locked, in place of an open one."""
        self.end(connection, client_id, by=set_by if cause == "person" else cause)
        values = {"b_client": client_id, "b_cause": cause, "b_reason": reason, "b_set_by": set_by, "b_level": level}
        if when is None or isinstance(when, datetime):
            row = connection.execute(self._pause_until, {**values, "b_until": when}).one()
        else:
            row = connection.execute(self._pause_for, {**values, "seconds": bounded(when)}).one()
        return open_pause_of(row, is_new=True)


def open_pause_of(row: Any, *, is_new: bool = False) -> OpenPause:
    """Return a row of the table as a value."""
    return OpenPause(
        client=row.client,
        until=row.until,
        cause=row.cause,
        reason=row.reason,
        level=row.level,
        started_at=row.started_at,
        id=row.id,
        set_by=row.set_by,
        probes=row.probes,
        is_new=is_new,
    )


def refuse_naive(when: object) -> None:
    """Raise `NaiveTime` for a datetime without a time zone."""
    if isinstance(when, datetime):
        to_text(when)


def _moment(found: Any) -> datetime:
    value = UTCDateTime().process_result_value(found, None)
    assert value is not None
    return value
