"""Pauses, present and past, as people see them. Only reads."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, case, or_, select

from jobs.database import Database
from jobs.models import pause

NOBODY = ("level", "enforced", "asked", "window", "probe", "clock")
"""Who ends a pause, where no person does."""

_AT_ONCE = timedelta(seconds=1)
_PERSONS = 100


@dataclass(frozen=True, slots=True)
class PauseView:
    """A pause as its history shows it."""

    id: int
    client: str
    #: `paused`, `reopening` (a probe is due), `probing` (one is under way) or `ended`.
    state: str
    #: `level`, `enforced`, `asked`, `person` or `window`.
    cause: str
    reason: str
    level: int
    set_by: str | None
    started_at: datetime
    until: datetime | None
    ended_at: datetime | None
    #: `probe`, a person, the cause of the pause that took its place, or `clock` (ended before there were probes).
    ended_by: str | None
    #: Probes begun.
    probes: int


class History:
    """The pauses of one database, as long as `jobs.retention` keeps them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        is_in_force = or_(pause.c.until.is_(None), pause.c.until > db.now)
        is_probed = pause.c.probe_until > db.now
        state = case((pause.c.ended_at.is_not(None), "ended"), (is_in_force, "paused"), (is_probed, "probing"), else_="reopening")
        self._pauses = select(pause, state.label("state")).order_by(pause.c.id.desc()).limit(bindparam("b_limit"))
        after = pause.alias("after")
        # A person's pause that took the place of another names the same person as its end.
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

    def pauses(self, client_id: str | None = None, *, limit: int = 100, open_only: bool = False) -> list[PauseView]:
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
        """Return when a person last resumed a client; one who put another pause in the place of the open one has not."""
        with self._db.read() as connection:
            for ended_at, followed_at in connection.execute(self._ended_by_persons, {"b_client": client_id}):
                if followed_at is None or followed_at - ended_at > _AT_ONCE:
                    found: datetime = ended_at
                    return found
        return None


def _view(row: Any) -> PauseView:
    return PauseView(
        row.id, row.client, row.state, row.cause, row.reason, row.level, row.set_by, row.started_at, row.until, row.ended_at,
        row.ended_by, row.probes,
    )  # fmt: skip
