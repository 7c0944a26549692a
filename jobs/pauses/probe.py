"""Probes: one request or job that tests a client whose pause has run out, before the client reopens.

The right to probe is a numbered lease on the row of the pause, which only one worker can have. It sends one request, or works
one job of the client, and reports the result with `end`. A worker that does not renew it loses it when the lease expires, or at
once if its process is known to be dead. If a person resumes or pauses the client meanwhile, the row ends, and the
result changes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import EllipsisType

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from jobs.claiming.claim import Claims
from jobs.claiming.claim_statement import ANY
from jobs.claiming.rescue import OnPoison
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.job import Job, Lane
from jobs.pauses.pause import OpenPause, Pauses, open_pause_of, refuse_naive
from jobs.pauses.pause_length import ErrorCount, pause_seconds
from jobs.process_identity import is_gone
from jobs.schema.job_tables import client, pause


@dataclass(frozen=True, slots=True)
class Probe:
    """The right to probe a client."""

    client: str
    pause_id: int
    #: The fence: the number of this probe of the pause, from 1.
    token: int
    #: Of the client when the probe began. Whatever ends the pause changes it.
    generation: int


class Probes:
    """Probes in one database. Any number of threads and processes may call it.

    Args:
        db: the database.
        pauses: ends and begins pauses.
        claims: creates the `Claims` that ignore pauses, when they are first needed.
    """

    def __init__(self, db: Database, pauses: Pauses, claims: Callable[[], Claims]) -> None:
        self._db = db
        self._pauses = pauses
        self._make_claims = claims
        has_run_out = and_(pause.c.ended_at.is_(None), pause.c.until <= db.now)
        is_probed = and_(pause.c.probe_by.is_not(None), pause.c.probe_until > db.now)
        self._due = select(pause, is_probed.label("is_probed")).where(has_run_out).order_by(pause.c.client)
        generation = select(client.c.generation).where(client.c.id == bindparam("b_client")).scalar_subquery()
        # Read and written in one statement, so that only one of several workers gets it.
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
        # The row and the number are enough: whatever changes the generation ends the row.
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

    def due(self, clients: Iterable[str] | None = None) -> list[OpenPause]:
        """Return the pauses that have run out and that no worker probes.

        Args:
            clients: only theirs.
        """
        wanted = None if clients is None else set(clients)
        with self._db.read() as connection:
            rows = connection.execute(self._due).all()
        return [
            open_pause_of(row)
            for row in rows
            if (wanted is None or row.client in wanted) and not (row.is_probed and not is_gone(row.probe_by))
        ]

    @retry_on_conflict
    def begin(self, client_id: str, *, worker: str, lease: float) -> Probe | None:
        """Take the right to probe a client whose pause has run out.

        Args:
            client_id: which client.
            worker: the name of the caller, see `jobs.process_identity`.
            lease: seconds until others may take it, unless renewed.

        Returns:
            The right; `None` if the client is open or paused, or another worker probes it.
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

    @retry_on_conflict
    def renew(self, probe: Probe, *, lease: float) -> bool:
        """Extend the right to probe.

        Args:
            probe: the right.
            lease: seconds from now.

        Returns:
            Whether it is still held; otherwise stop, the result changes nothing.
        """
        with self._db.write() as connection:
            return connection.execute(self._renew, {**_bound(probe), "lease": lease}).rowcount > 0

    def claim_job(
        self,
        probe: Probe,
        lanes: Sequence[Lane],
        *,
        worker: str,
        lease: float,
        on_poison: OnPoison | None = None,
        n: int = 1,
        least: int = 0,
        most: int = ANY,
    ) -> list[Job]:
        """Claim due jobs of the client although it is paused, in the usual order and within the limits of its queue.

        Args:
            probe: the right to.
            lanes: what the caller can work; those of other clients are ignored.
            worker, lease, on_poison: as for `Claims.claim`.
            n: at most so many.
            least, most: only jobs that were put back at least so often, and put back or retried at most so often.

        Returns:
            The jobs; `[]` if nothing is due or may start, and if the right is lost. The right is kept in any case.
        """
        own = [lane for lane in lanes if lane.client == probe.client]
        for suspects in (False, True):
            jobs = self._claims.claim(
                own,
                n,
                worker=worker,
                lease=lease,
                suspects=suspects,
                on_poison=on_poison,
                may=lambda of: self.holds(of, probe),
                least=least,
                most=most,
            )
            if jobs:
                return jobs
        return []

    def holds(self, connection: Connection, probe: Probe) -> bool:
        """Return whether the right is still held; it cannot end before the caller's transaction does."""
        return connection.execute(self._mine, _bound(probe)).one_or_none() is not None

    @retry_on_conflict
    def end(
        self,
        probe: Probe,
        healthy: bool | None,
        *,
        when: float | datetime | EllipsisType | None = ...,
        cause: str = "level",
        durations: Sequence[float],
        reason: str,
        set_by: str,
    ) -> OpenPause | None:
        """End the probe with its result.

        Args:
            probe: the right to.
            healthy: `True` opens the client, one level lower; `False` pauses it again; with `None`, no result, the next worker
                may probe.
            when: of the next pause: seconds from now, a datetime, or `None` until a person resumes; by default by `durations`.
            cause: of the next pause: `level` raises the level by one; all others leave it as it is.
            durations: seconds by error level, the last one serves all higher levels.
            reason: one line for a person.
            set_by: the worker.

        Returns:
            If it opened the client, the ended pause; if it paused the client again, the new pause, with `is_new`. `None`
            without a result, and if the right was lost: then nothing has changed.

        Raises:
            NaiveTime: the datetime has no time zone.
        """
        refuse_naive(when)
        if healthy is None:
            with self._db.write() as connection:
                connection.execute(self._free, _bound(probe))
            return None
        with self._db.write() as connection:
            error_count = self._pauses.lock(connection, probe.client)
            row = connection.execute(self._mine, _bound(probe)).one_or_none()
            if row is None:
                return None
            if healthy:
                self._pauses.set_error_count(connection, probe.client, ErrorCount(0, max(0, error_count.level - 1)))
                self._pauses.end(connection, probe.client, by="probe")
                return open_pause_of(row)
            level = error_count.level + 1 if cause == "level" else error_count.level
            self._pauses.set_error_count(connection, probe.client, ErrorCount(0, level))
            seconds = pause_seconds(durations, error_count.level) if isinstance(when, EllipsisType) else when
            return self._pauses.insert(connection, probe.client, seconds, cause=cause, reason=reason, set_by=set_by, level=level)


def _bound(probe: Probe) -> dict[str, int]:
    return {"b_pause": probe.pause_id, "b_token": probe.token}
