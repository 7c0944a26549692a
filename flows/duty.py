"""What a worker serves: which lanes, with how many threads, and how each type of job is worked. Knows no job."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from flows.conditional import Conditions
from flows.connection import Connections
from flows.declaration import Client, Sync
from flows.entity import EntityWork
from flows.errors import SettingsError, UnknownName
from flows.gone import GoneGuard
from flows.hands import Work
from flows.home import homes
from flows.job_type import JobType
from flows.job_work import JobWork
from flows.mask import Mask
from flows.registry import Registry
from flows.settings import client_settings
from jobs import Queue
from jobs.job import Job, Lane
from jobs.store import JobStore
from jobs.stray import Home

log = logging.getLogger("syncs.work")

DEFAULT = 8
"""Jobs of one type at once, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Duty:
    """What a worker serves, as chosen from what is declared. Opens nothing.

    Args:
        syncs, job_types: whose jobs.
        queues: those that they wait in.
        declared: the queues that somebody declared.
        lanes: where to claim.
        threads: jobs at once, of all types together.
        limits: jobs at once on this worker, by type and by `type:phase`, where that is less (DS-12).
        stays: for each type with phases those that go on under one claim; others go back, for whoever has room for them.
    """

    syncs: tuple[Sync, ...]
    job_types: tuple[JobType, ...]
    queues: Mapping[str, Queue]
    declared: frozenset[str]
    lanes: tuple[Lane, ...]
    threads: int
    limits: Mapping[str, int]
    stays: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def homes(self) -> list[Home]:
        """Where the jobs of all that is served belong, in whatever phase."""
        return homes([*self.syncs, *self.job_types])

    @property
    def limited(self) -> frozenset[str]:
        """Queues that may give less than is due."""
        return frozenset(name for name, queue in self.queues.items() if name in self.declared or queue.rate is not None)

    @property
    def prompt(self) -> frozenset[str]:
        """Types of which a job may wait for another one's finish: by a serial key, or for a place in its queue."""
        serial = {one.id for one in self.job_types if one.serial is not None}
        return frozenset(serial | {lane.type for lane in self.lanes if lane.queue in self.limited})

    @property
    def lease(self) -> float:
        """Seconds. One lease serves all: the shortest that was declared."""
        return min((queue.lease for queue in self.queues.values()), default=Queue("-").lease)


def duty(
    registry: Registry, *, queues: Sequence[str] = (), types: Sequence[str] = (), phases: Sequence[str] = (),
    concurrency: int | None = None, at_once: Mapping[str, int] | None = None,
) -> Duty:  # fmt: skip
    """Choose what to serve.

    Args:
        registry: what is declared.
        queues: only these; none means all.
        types: only these syncs and job types; none means all.
        phases: only job types that have them, and of these only these phases; none means everything.
        concurrency: threads, in place of what the declarations say.
        at_once: jobs at once by type, or by `type:phase`.

    Raises:
        UnknownName: a queue, type or phase that nothing declares, a type in `at_once` that is not served, or types and
            phases of which none fit together.
    """
    found: list[Sync | JobType] = [*registry.syncs.values(), *registry.job_types.values()]
    _check("queue", queues, {*registry.queues, *(one.queue_id for one in found)})
    _check("sync or job type", types, {one.id for one in found})
    _check("phase", phases, {phase for one in registry.job_types.values() for phase in one.phases})
    chosen = [one for one in found if (not queues or one.queue_id in queues) and (not types or one.id in types)]
    lanes = [Lane(one.queue_id, one.client.id, one.id, phase) for one in chosen for phase in _phases(one, phases)]
    if not lanes and (types or phases):
        wanted = [("queue", queues), ("type", types), ("phase", phases)]
        asked = ", ".join(f"{kind} {' or '.join(names)}" for kind, names in wanted if names)
        raise UnknownName(f"nothing that is declared fits {asked} together; `syncs list` shows what there is")
    served = {lane.type for lane in lanes}
    of_phases = {f"{lane.type}:{lane.phase}" for lane in lanes if lane.phase}
    at_once = at_once or {}
    _check("sync, job type or type:phase served here", at_once, served | of_phases)
    chosen = [one for one in chosen if one.id in served]
    own = {one.id: _at_once(one, registry) for one in chosen}
    threads = concurrency or max([*own.values(), *at_once.values()], default=1)
    told = {key.partition(":")[0] for key in at_once}
    limits = {**{name: limit for name, limit in own.items() if not concurrency and name not in told}, **at_once}
    return Duty(
        syncs=tuple(one for one in chosen if isinstance(one, Sync)),
        job_types=tuple(one for one in chosen if isinstance(one, JobType)),
        queues={lane.queue: registry.queue(lane.queue) for lane in lanes},
        declared=frozenset(registry.queues),
        lanes=tuple(lanes),
        threads=threads,
        # Where it is no less than there are threads it is no limit.
        limits={key: limit for key, limit in limits.items() if limit < threads},
        stays={
            one.id: frozenset(phase for phase in _phases(one, phases) if f"{one.id}:{phase}" not in at_once)
            for one in chosen
            if isinstance(one, JobType)
        },
    )


def _phases(one: Sync | JobType, phases: Sequence[str]) -> tuple[str, ...]:
    of_type = one.phases if isinstance(one, JobType) else ()
    return tuple(phase for phase in of_type or ("",) if not phases or phase in phases)


def _at_once(one: Sync | JobType, registry: Registry) -> int:
    # A job type that says nothing follows its queue, if that was declared.
    if isinstance(one, JobType) and one.concurrency == DEFAULT and one.queue_id in registry.queues:
        return registry.queues[one.queue_id].concurrency
    return one.concurrency


def _check(kind: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownName(f"no {kind} is called {name!r}; declared are: {', '.join(sorted(known)) or 'none'}")


def works(
    stack: ExitStack, store: JobStore, duty: Duty, *, is_lost: Callable[[Job], bool], goes_on: Callable[[Job], bool],
    restart: Callable[[], None],
) -> dict[str, Work]:  # fmt: skip
    """Make what the types need; a client without its settings keeps only its own jobs waiting.

    Args:
        stack: closes the connections.
        store: where the jobs are.
        duty: what is served.
        is_lost: tells whether a claim is another's by now.
        goes_on: asked before a job goes on to its next phase.
        restart: called when it does.

    Raises:
        SettingsError: no client has the settings it needs.
    """
    made: dict[str, Work] = {}
    opened: dict[str, tuple[Connections, Mask]] = {}
    missing: dict[str, SettingsError] = {}
    served: list[Sync | JobType] = [*duty.syncs, *duty.job_types]
    for one in served:
        client = one.client
        if client.id not in opened and client.id not in missing:
            _open(stack, client, opened, missing)
        if client.id not in opened:
            continue
        connections, mask = opened[client.id]
        if isinstance(one, Sync):
            made[one.id] = EntityWork(
                one, connections.get, mask, GoneGuard(one, store), connections.drop, Conditions.of(one, store)
            )
        else:
            stays = duty.stays[one.id]
            made[one.id] = JobWork(
                one, connections.get, mask, connections.drop, store, stays, is_lost=is_lost, goes_on=goes_on, restart=restart
            )
    if missing and not made:
        raise next(iter(missing.values()))
    return made


def _open(stack: ExitStack, client: Client, opened: dict[str, Any], missing: dict[str, SettingsError]) -> None:
    try:
        settings = client_settings(client)
    except SettingsError as error:
        missing[client.id] = error
        log.warning("%s; its jobs wait", error)
    else:
        opened[client.id] = stack.enter_context(Connections(client, settings)), Mask(settings)
