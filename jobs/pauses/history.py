"""Lists pauses, present and past, for people."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, case, or_, select

from jobs.db.database import Database
from jobs.schema.job_tables import pause

NOBODY = ("level", "enforced", "asked", "window", "probe", "clock")
"""Values of `ended_by` that are no person."""

_AT_ONCE = timedelta(seconds=1)
_PERSONS = 100


@dataclass(frozen=True, slots=True)
class PauseView:
    """A pause as its history shows it."""

    id: int
    client: str
    #: `paused`, `reopening` (a probe is due), `probing` (a probe is running) or `ended`.
    state: str
    #: `level`, `enforced`, `asked`, `person` or `window`.
    cause: str
    reason: str
    level: int
    set_by: str | None
    started_at: datetime
    until: datetime | None
    ended_at: datetime | None
    #: `probe`, a person, the cause of the pause that replaced it, or `clock` (in data of versions without probes).
    ended_by: str | None
    #: Probes begun.
    probes: int


class PauseHistory:
    """The pauses of one database that `jobs.admin.retention` has kept."""

    def __init__(self, db: Database) -> None:
        self._db = db
        is_in_force = or_(pause.c.until.is_(None), pause.c.until > db.now)
        is_probed = pause.c.probe_until > db.now
        state = case((pause.c.ended_at.is_not(None), "ended"), (is_in_force, "paused"), (is_probed, "probing"), else_="reopening")
        self._pauses = select(pause, state.label("state")).order_by(pause.c.id.desc()).limit(bindparam("b_limit"))
        after = pause.alias("after")
        # If a person's pause replaced another one, that one was ended by the same person.
        following = (
            select(after.c.started_at)
            .where(after.c.client == pause.c.client, after.c.id > pause.c.id, after.c.cause == "person")
            .where(after.c.set_by == pause.c.ended_by)
            .order_by(after.c.id)
            .limit(1)
            .scalar_subquery()
        )
        self._ended_by_persons = (
            select(pause.c.ended_at, following.label("followed_at"))
            .where(pause.c.client == bindparam("b_client"), pause.c.ended_by.not_in(NOBODY))
            .order_by(pause.c.id.desc())
            .limit(_PERSONS)
        )

    def latest(self, client_id: str | None = None, *, limit: int = 100, open_only: bool = False) -> list[PauseView]:
        """Return pauses, the newest first.

        Args:
            client_id: only this client's.
            limit: at most so many.
            open_only: only those that have not ended: paused, reopening or probing.
        """
        query = self._pauses if client_id is None else self._pauses.where(pause.c.client == client_id)
        if open_only:
            query = query.where(pause.c.ended_at.is_(None))
        with self._db.read() as connection:
            return [_view(row) for row in connection.execute(query, {"b_limit": limit})]

    def resumed_at(self, client_id: str) -> datetime | None:
        """Return when a person last resumed a client; replacing one pause by another does not count."""
        with self._db.read() as connection:
            for ended_at, followed_at in connection.execute(self._ended_by_persons, {"b_client": client_id}):
                if followed_at is None or followed_at - ended_at > _AT_ONCE:
                    found: datetime = ended_at
                    return found
        return None


def _view(row: Any) -> PauseView:
    return PauseView(
        id=row.id,
        client=row.client,
        state=row.state,
        cause=row.cause,
        reason=row.reason,
        level=row.level,
        set_by=row.set_by,
        started_at=row.started_at,
        until=row.until,
        ended_at=row.ended_at,
        ended_by=row.ended_by,
        probes=row.probes,
    )
