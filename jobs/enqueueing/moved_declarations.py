"""Moves queued jobs whose declaration now names another queue, client or phase.

No worker claims them where they are, and with a duplicate policy they block new jobs.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, exists, func, literal_column, null, select, tuple_, update

from jobs.db.change_listener import CHANNEL
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.db.json_rows import JsonRows
from jobs.job import Lane
from jobs.schema import states
from jobs.schema.job_tables import job
from jobs.schema.states import PROCESSING_LITERAL, QUEUED_LITERAL

log = logging.getLogger("jobs.enqueueing.moved_declarations")

BATCH = 500
"""Jobs in one transaction."""

_LANE = (job.c.queue, job.c.client, job.c.type, job.c.phase)


class Location(NamedTuple):
    """The queue, client and phases that a type declares now.

    Args:
        type: the id of the sync or job type.
        queue, client: its queue and client.
        phases: its phases, in order; none for syncs and most job types.
    """

    type: str
    queue: str
    client: str
    phases: tuple[str, ...] = ()

    def lane(self, now: Lane) -> Lane:
        """Return the lane for jobs that are in this one: a phase that still exists is kept, else the first one begins."""
        phases = self.phases or ("",)
        return Lane(self.queue, self.client, self.type, now.phase if now.phase in phases else phases[0])


class Relocations:
    """Relocations in one database. Any number of processes may apply them at once."""

    def __init__(self, db: Database) -> None:
        self._db = db
        after = tuple_(*(bindparam(f"after_{column.name}", type_=column.type) for column in _LANE))
        # One step in job_ready for each lane, however many jobs wait in it.
        self._next = select(*_LANE).where(job.c.state == QUEUED_LITERAL, tuple_(*_LANE) > after).order_by(*_LANE).limit(1)
        busy = job.alias("busy")
        # A job of its serial key is in processing in the old queue; in the new queue it would run at the same time.
        is_barred = exists(literal_column("1")).where(
            busy.c.state == PROCESSING_LITERAL, busy.c.queue == job.c.queue, busy.c.serial_key == job.c.serial_key
        )
        in_lane = and_(*(column == bindparam(f"in_{column.name}") for column in _LANE))
        self._find = select(job.c.id).where(job.c.state == QUEUED_LITERAL, in_lane, ~is_barred).limit(BATCH)
        self._lane_of = select(*_LANE).where(job.c.id == bindparam("b_id"), job.c.state.concat("") == QUEUED_LITERAL)
        self._named = named = JsonRows(db, {"id": "id"})
        twin = job.alias("twin")
        self._twins = (
            select(job.c.id, twin.c.id)
            .select_from(named.table)
            .join(job, job.c.id == named.id)
            .join(
                twin,
                and_(
                    twin.c.state == QUEUED_LITERAL, twin.c.queue == bindparam("b_queue"), twin.c.fingerprint == job.c.fingerprint
                ),
            )
            .where(twin.c.id != job.c.id, job.c.state.concat("") == QUEUED_LITERAL, job.c.fingerprint.is_not(None))
            .order_by(job.c.id)
            .with_for_update(of=(job, twin))
        )
        self._pairs = pairs = JsonRows(db, {"id": "id", "by": "id"})
        self._supersede = (
            update(job)
            .where(job.c.id == pairs.id, job.c.state.concat("") == QUEUED_LITERAL)
            .values(state=states.SUPERSEDED, superseded_by=pairs.by, finished_at=db.now)
        )
        location: dict[str, Any] = {name: bindparam(f"b_{name}") for name in ("queue", "client", "phase")}
        move = update(job).where(
            # Unless claimed or moved since it was found.
            job.c.id.in_(select(named.id).select_from(named.table)),
            job.c.state.concat("") == QUEUED_LITERAL,
            in_lane,
        )
        self._move = move.values(**location)
        # A phase begins without the checkpoint of another one.
        self._begin = move.values(**location, checkpoint=null())
        self._wake = select(func.pg_notify(CHANNEL, bindparam("b_queue")))

    def apply(self, locations: Iterable[Location], *, only: int | None = None) -> int:
        """Move the queued jobs of these types to where the types are declared now, in transactions of at most `BATCH` jobs.

        A job whose phase there is no longer begins with the first one. Where its twin is queued in the new queue, the older of
        the two ends as superseded by the newer. A job whose serial key is in processing stays until the next call.

        Args:
            locations: of the types whose jobs to move; jobs of other types stay.
            only: the id of a job; no other one is moved.

        Returns:
            How many jobs left their old lane.
        """
        by_type = {location.type: location for location in locations}
        moved: Counter[tuple[str, str]] = Counter()
        for lane in self.lanes() if only is None else self._lane(only):
            location = by_type.get(lane.type)
            if location is None or (to := location.lane(lane)) == lane:
                continue
            count = self._empty(lane, to) if only is None else self._batch(lane, to, [only])
            moved[lane.type, _described(lane, to)] += count
        for (type_, where), count in moved.items():
            if count:
                log.warning("moved %d queued job%s of %s to %s", count, "" if count == 1 else "s", type_, where)
        return moved.total()

    def lanes(self) -> list[Lane]:
        """Return the lanes in which jobs are queued."""
        found: list[Lane] = []
        last = Lane("", "", "", "")
        with self._db.read() as connection:
            while True:
                row = connection.execute(self._next, _named_by("after", last)).one_or_none()
                if row is None:
                    return found
                last = Lane(*row)
                found.append(last)

    def _lane(self, job_id: int) -> list[Lane]:
        with self._db.read() as connection:
            return [Lane(*row) for row in connection.execute(self._lane_of, {"b_id": job_id})]

    def _empty(self, lane: Lane, to: Lane) -> int:
        total = 0
        while True:
            with self._db.read() as connection:
                ids = list(connection.execute(self._find, _named_by("in", lane)).scalars())
            count = self._batch(lane, to, ids) if ids else 0
            if not count:
                return total
            total += count

    @retry_on_conflict
    def _batch(self, lane: Lane, to: Lane, ids: Sequence[int]) -> int:
        named = self._named.bind([(one,) for one in sorted(ids)])
        values: dict[str, Any] = {"b_queue": to.queue, "b_client": to.client, "b_phase": to.phase}
        with self._db.write() as connection:
            pairs = []
            if lane.queue != to.queue:
                found = connection.execute(self._twins, {**named, "b_queue": to.queue})
                pairs = [(min(one, other), max(one, other)) for one, other in found]
            if pairs:
                connection.execute(self._supersede, self._pairs.bind(pairs))
            statement = self._move if to.phase == lane.phase else self._begin
            count = connection.execute(statement, {**named, **values, **_named_by("in", lane)}).rowcount
            if count and self._db.dialect == "postgresql":
                connection.execute(self._wake, {"b_queue": to.queue})
        superseded = len({old for old, _ in pairs} & set(ids))
        return count + superseded


def _named_by(prefix: str, lane: Lane) -> dict[str, str]:
    return {f"{prefix}_{column.name}": value for column, value in zip(_LANE, lane, strict=True)}


def _described(lane: Lane, to: Lane) -> str:
    parts = [f"{name} {new or '(none)'}" for name, old, new in zip(Lane._fields, lane, to, strict=True) if old != new]
    return ", ".join(parts)
