"""Applies duplicate policies: decides what becomes of new jobs whose twins are queued already. Pure functions.

Only *queued* jobs are twins. One in processing has read an older state of the world, so a job of the same content becomes its one
queued follow-up; finished jobs never count.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from jobs.errors import DuplicateJob, NaiveTime, ScheduleError
from jobs.job import Lane

Merge = Callable[[Any, Any], Any]
"""`(new payload, old payload) -> payload`. Called inside the transaction, perhaps twice: must be quick and without effects."""

Policy = str | Merge
POLICIES = ("allow", "reject", "discard", "replace")

LONGEST_DELAY = 100 * 366 * 86400
"""Seconds; a wrong unit should not make a job that waits for ever."""

Identity = tuple[str, str]
"""Queue and fingerprint: what no two queued jobs share."""


class NewJob(NamedTuple):
    """A job to be queued.

    Args:
        lane: where it waits; with the first phase, if its type has phases.
        payload: any JSON.
        fingerprint: identity of its content; without one it has no twins.
        priority: higher goes first.
        delay: seconds before it may be claimed.
        available_at: the time from which it may be claimed; takes precedence over `delay`.
        key: of the entity, if it is about one.
        serial_key: jobs of one key are worked one after the other.
    """

    lane: Lane
    payload: Any
    fingerprint: str | None = None
    priority: int = 0
    delay: float | None = None
    available_at: datetime | None = None
    key: str | None = None
    serial_key: str | None = None

    @property
    def identity(self) -> Identity | None:
        """Queue and fingerprint, which it shares with its twins."""
        return None if self.fingerprint is None else (self.lane.queue, self.fingerprint)


class Enqueued(NamedTuple):
    """What became of one new job.

    Args:
        id: of its job.
        duplicate_of: the same id, if that job was queued before, or earlier in the same call; `None` for a new row.
    """

    id: int
    duplicate_of: int | None


class Twin(NamedTuple):
    """A job that another one duplicates.

    Args:
        id: its id; `None` for one of the same call.
        payload: its payload.
    """

    id: int | None
    payload: Any


class Place(NamedTuple):
    """What a new job becomes: an insert, by index, or a queued twin, by id."""

    insert: int | None
    twin: int | None
    is_duplicate: bool


def check_time(one: NewJob) -> None:
    """Check the delay or time of a new job.

    Raises:
        NaiveTime: the time has no zone.
        ScheduleError: it is no datetime, or the delay is negative, longer than a hundred years, or no number.
    """
    delay, moment = one.delay, one.available_at
    if moment is not None:
        if not isinstance(moment, datetime):
            raise ScheduleError(f"available_at must be a datetime with a zone, got {moment!r}")
        if moment.tzinfo is None or moment.utcoffset() is None:
            raise NaiveTime(f"available_at {moment.isoformat()} has no zone; pass an aware datetime")
        try:
            moment.astimezone(UTC)
        except OverflowError as error:
            raise ScheduleError(f"available_at {moment.isoformat()} is beyond the calendar") from error
    if delay is None:
        return
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        raise ScheduleError(f"delay must be seconds, got {delay!r}")
    if not 0 <= delay <= LONGEST_DELAY:
        raise ScheduleError(f"delay must be from 0 to {LONGEST_DELAY:,} seconds (100 years), got {delay}")


@dataclass(slots=True)
class Plan:
    """What a bulk call writes.

    Args:
        inserts: the new rows, in the caller's order.
        updates: by id, what queued twins become.
        places: one for each new job.
    """

    inserts: list[NewJob] = field(default_factory=list)
    updates: dict[int, NewJob] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)


def check_policy(policy: Policy) -> None:
    """Check a duplicate policy.

    Raises:
        ValueError: it is no policy.
    """
    if not callable(policy) and policy not in POLICIES:
        raise ValueError(f"duplicates must be {', '.join(POLICIES)} or a function (new, old) -> payload, got {policy!r}")


def plan(
    jobs: Sequence[NewJob],
    queued: Mapping[Identity, Twin],
    policy: Policy,
    *,
    serial: Callable[[Any], str | None] | None = None,
) -> Plan:
    """Decide what happens to new jobs, given their queued twins. Twins within the call count like queued ones.

    A twin that is replaced keeps its id, its attempts and, unless the new job names a time, its place in the queue. So jobs
    without a time throttle: the time of the first one stands. Jobs with a delay debounce: each one moves the time on.

    Args:
        jobs: in the caller's order.
        queued: the queued twins.
        policy: `allow`, `reject`, `discard`, `replace`, or a function `(new payload, old payload) -> payload`.
        serial: the serial key of a merged payload.

    Raises:
        DuplicateJob: the policy is `reject` and there is a twin.
    """
    result = Plan()
    fresh: dict[Identity, int] = {}
    for one in jobs:
        identity = None if policy == "allow" else one.identity
        twin = None if identity is None else _twin(identity, queued, fresh, result)
        if identity is None or twin is None:
            if identity is not None:
                fresh[identity] = len(result.inserts)
            result.places.append(Place(len(result.inserts), None, False))
            # The unique index on fingerprints would refuse the twin that the policy allows.
            result.inserts.append(one._replace(fingerprint=None) if identity is None and one.fingerprint else one)
            continue
        if policy == "reject":
            where = "another one of the same call" if twin.id is None else f"job {twin.id}, which is queued"
            raise DuplicateJob(f"{one.lane.type}: the job duplicates {where}", job=one, duplicates=(twin,))
        if twin.id is None:
            index = fresh[identity]
            result.places.append(Place(index, None, True))
            if policy != "discard":
                result.inserts[index] = _combined(one, result.inserts[index], twin.payload, policy, serial)
        else:
            result.places.append(Place(None, twin.id, True))
            if policy != "discard":
                result.updates[twin.id] = _combined(one, result.updates.get(twin.id), twin.payload, policy, serial)
    return result


def _twin(identity: Identity, queued: Mapping[Identity, Twin], fresh: Mapping[Identity, int], result: Plan) -> Twin | None:
    if identity in fresh:
        return Twin(None, result.inserts[fresh[identity]].payload)
    found = queued.get(identity)
    if found is not None and found.id in result.updates:
        return Twin(found.id, result.updates[found.id].payload)
    return found


def _combined(
    new: NewJob, before: NewJob | None, payload: Any, policy: Policy, serial: Callable[[Any], str | None] | None
) -> NewJob:
    """Return the new job with the merged payload, and with the time of an earlier one if it has none itself."""
    if callable(policy):
        merged = policy(new.payload, payload)
        new = new._replace(payload=merged, serial_key=new.serial_key if serial is None else serial(merged))
    if before is not None and new.delay is None and new.available_at is None:
        new = new._replace(delay=before.delay, available_at=before.available_at)
    return new
