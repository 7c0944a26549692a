"""Probes: the one try that goes first when a pause has run out (law 5, M8). Knows no remote side and no answer of its own.

A probe is a right, and one worker of all has it: a numbered lease on the row of the pause. Who has it sends one request, or
works one job of the client, and says how that went. Whoever is silent loses it when the lease has ended, or at once where its
process is known to be gone. What a person does meanwhile ends the row: what the probe says then changes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import EllipsisType

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from jobs.claim import Claims
from jobs.contention import again
from jobs.database import Database
from jobs.job import Job, Lane
from jobs.models import client, pause
from jobs.pause import Mood, Pauses, Pausing, length, pausing_of, refuse_naive
from jobs.rescue import OnPoison
from jobs.worker import is_gone


@dataclass(frozen=True, slots=True)
class Probe:
    """The right to try."""

    client: str
    pause_id: int
    #: The fence: the number of this probe of the pause, from 1.
    token: int
    #: Of the client, under which the probe's request begins. Whatever ends the probe's pause changes it.
    generation: int


class Probes:
    """Probes in one database. Any number of threads and processes may call it.

    Args:
        db: the database.
        pauses: what they end and begin.
        claims: makes claims that ask for no pause. They take a fourth of the time of opening a store, and most need none.
    """

    def __init__(self, db: Database, pauses: Pauses, claims: Callable[[], Claims]) -> None:
        self._db = db
        self._pauses = pauses
        self._make_claims = claims
        has_run_out = and_(pause.c.ended_at.is_(None), pause.c.until <= db.now)
        is_probed = and_(pause.c.probe_by.is_not(None), pause.c.probe_until > db.now)
        self._due = select(pause, is_probed.label("is_probed")).where(has_run_out).order_by(pause.c.client)
        generation = select(client.c.generation).where(client.c.id == bindparam("b_client")).scalar_subquery()
        # Read and written in one statement, so that of any number who find it free one gets it.
        free = or_(pause.c.probe_until.is_(None), pause.c.probe_until <= db.now, pause.c.probes == bindparam("b_broken"))
        self._begin = (
            update(pause)
            .where(pause.c.client == bindparam("b_client"), has_run_out, free)
            .values(probes=pause.c.probes + 1, probe_by=bindparam("b_by"), probe_until=db.from_now("lease"))
            .returning(pause.c.id, pause.c.probes, generation)
        )
        self._holder = select(pause.c.probe_by, pause.c.probes).where(
            pause.c.client == bindparam("b_client"), has_run_out, is_probed
        )
        # The row and the number say it all: whatever changes the generation ends the row.
        mine = and_(
            pause.c.id == bindparam("b_pause"),
            pause.c.probes == bindparam("b_token"),
            pause.c.ended_at.is_(None),
            pause.c.probe_by.is_not(None),
        )
        self._mine = select(pause).where(mine).with_for_update()
        self._renew = update(pause).where(mine).values(probe_until=db.from_now("lease"))
        self._free = update(pause).where(mine).values(probe_by=None, probe_until=None)

    @cached_property
    def _claims(self) -> Claims:
        return self._make_claims()

    def reopening(self, clients: Iterable[str] | None = None) -> list[Pausing]:
        """Return the pauses that have run out and that nobody probes, whose clients wait for a probe.

        Args:
            clients: only theirs.
        """
        wanted = None if clients is None else set(clients)
        with self._db.read() as connection:
            rows = connection.execute(self._due).all()
        return [
            pausing_of(row)
            for row in rows
            if (wanted is None or row.client in wanted) and not (row.is_probed and not is_gone(row.probe_by))
        ]

    @again
    def begin(self, client_id: str, *, worker: str, lease: float) -> Probe | None:
        """Take the right to probe a client whose pause has run out.

        Args:
            client_id: whom.
            worker: who takes it, see `jobs.worker`.
            lease: seconds until others may take it, unless renewed.

        Returns:
            The right; `None` where the client is open or paused, or another worker probes it.
        """
        values = {"b_client": client_id, "b_by": worker, "lease": lease}
        with self._db.write() as connection:
            row = connection.execute(self._begin, {**values, "b_broken": None}).one_or_none()
            if row is None:
                holder = connection.execute(self._holder, {"b_client": client_id}).one_or_none()
                if holder is None or not is_gone(holder.probe_by):
                    return None
                row = connection.execute(self._begin, {**values, "b_broken": holder.probes}).one_or_none()
        return None if row is None else Probe(client_id, *row)

    @again
    def renew(self, probe: Probe, *, lease: float) -> bool:
        """Extend the right to probe.

        Args:
            probe: which.
            lease: seconds from now.

        Returns:
            Whether it is still held; else the try must stop, and its answer changes nothing.
        """
        with self._db.write() as connection:
            return connection.execute(self._renew, {**_bound(probe), "lease": lease}).rowcount > 0

    def claim(
        self, probe: Probe, lanes: Sequence[Lane], *, worker: str, lease: float, on_poison: OnPoison | None = None
    ) -> list[Job]:
        """Take one due job of the client, in the usual order and within the limits of its queue, past its pause.

        Args:
            probe: the right to.
            lanes: what the caller can work; those of other clients do not count.
            worker, lease, on_poison: as for `Claims.claim`.

        Returns:
            The job; `[]` where nothing is due or may start, and where the right is lost. It frees nothing.
        """
        own = [lane for lane in lanes if lane.client == probe.client]
        for suspects in (False, True):
            jobs = self._claims.claim(
                own, 1, worker=worker, lease=lease, suspects=suspects, on_poison=on_poison, may=lambda of: self.holds(of, probe)
            )
            if jobs:
                return jobs
        return []

    def holds(self, connection: Connection, probe: Probe) -> bool:
        """Tell whether the right still holds; until the end of the caller's transaction nobody can end it."""
        return connection.execute(self._mine, _bound(probe)).one_or_none() is not None

    @again
    def end(
        self,
        probe: Probe,
        well: bool | None,
        *,
        when: float | datetime | EllipsisType | None = ...,
        cause: str = "level",
        durations: Sequence[float],
        reason: str,
        set_by: str,
    ) -> Pausing | None:
        """Say how the try went.

        Args:
            probe: the right to.
            well: `True` opens the client, one level lower; `False` pauses it again; `None`: nobody answered, the next may try.
            when: of the next pause: seconds from now, a moment, or `None` until a person resumes; left out, `durations` say.
            cause: of the next pause: `level` raises the level by one; all others leave it as it is.
            durations: seconds by error level, the last one serves all higher levels.
            reason: one line for a person.
            set_by: the worker.

        Returns:
            Where that opened the client, the pause that is over; where it paused it again, the new one, marked as such. `None`
            where nobody answered, and where the right was lost: then nothing has changed.

        Raises:
            NaiveTime: the moment has no zone.
        """
        refuse_naive(when)
        if well is None:
            with self._db.write() as connection:
                connection.execute(self._free, _bound(probe))
            return None
        with self._db.write() as connection:
            mood = self._pauses.lock(connection, probe.client)
            row = connection.execute(self._mine, _bound(probe)).one_or_none()
            if row is None:
                return None
            if well:
                self._pauses.feel(connection, probe.client, Mood(0, max(0, mood.level - 1)))
                self._pauses.end(connection, probe.client, by="probe")
                return pausing_of(row)
            level = mood.level + 1 if cause == "level" else mood.level
            self._pauses.feel(connection, probe.client, Mood(0, level))
            seconds = length(durations, mood.level) if isinstance(when, EllipsisType) else when
            return self._pauses.begin(connection, probe.client, seconds, cause=cause, reason=reason, set_by=set_by, level=level)


def _bound(probe: Probe) -> dict[str, int]:
    return {"b_pause": probe.pause_id, "b_token": probe.token}
