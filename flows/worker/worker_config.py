"""What a worker serves: which syncs and job types, in which lanes, with how many threads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flows.declarations.job_type import JobType
from flows.declarations.sync import Sync
from flows.errors import UnknownName
from flows.project.registry import Registry, location_of
from jobs import Queue
from jobs.enqueueing.moved_declarations import Location
from jobs.job import Lane

DEFAULT = 8
"""Jobs of one type at once, where nothing else is declared."""

BATCH = 100
"""Jobs in one claim at most."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker serves. Opens nothing.

    Args:
        syncs, job_types: whose jobs.
        queues: those that they wait in.
        declared: the ids of declared queues.
        lanes: where to claim.
        threads: jobs at once, of all types together.
        limits: jobs at once on this worker, by type and by `type:phase`, where that is less.
        stays: for each job type the phases that go on under one claim; for any other phase a job goes back to the queue.
        batch: jobs in one claim at most.
        prefetch: jobs to have in hand beyond those that are being worked; `None` measures the speed of the threads.
        singles: so many jobs are shown to the tracker one by one before batches begin.
    """

    syncs: tuple[Sync, ...]
    job_types: tuple[JobType, ...]
    queues: Mapping[str, Queue]
    declared: frozenset[str]
    lanes: tuple[Lane, ...]
    threads: int
    limits: Mapping[str, int]
    stays: Mapping[str, frozenset[str]] = field(default_factory=dict)
    batch: int = BATCH
    prefetch: int | None = None
    singles: int = 0

    @property
    def locations(self) -> list[Location]:
        """Where the jobs of all served types belong, in any phase."""
        served: list[Sync | JobType] = [*self.syncs, *self.job_types]
        return [location_of(one) for one in served]

    @property
    def limited(self) -> frozenset[str]:
        """Queues that may give less than is due."""
        return frozenset(name for name, queue in self.queues.items() if name in self.declared or queue.rate is not None)

    @property
    def flush_immediately(self) -> frozenset[str]:
        """Types whose jobs may wait for another one's finish: because of a serial key, or for room in their queue."""
        serial = {one.id for one in self.job_types if one.serial is not None}
        return frozenset(serial | {lane.type for lane in self.lanes if lane.queue in self.limited})

    @property
    def lease(self) -> float:
        """Seconds; the shortest lease of the queues."""
        return min((queue.lease for queue in self.queues.values()), default=Queue("-").lease)


def choose(
    registry: Registry,
    *,
    queues: Sequence[str] = (),
    types: Sequence[str] = (),
    phases: Sequence[str] = (),
    concurrency: int | None = None,
    at_once: Mapping[str, int] | None = None,
) -> WorkerConfig:
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
    given = {key.partition(":")[0] for key in at_once}
    limits = {**{name: limit for name, limit in own.items() if not concurrency and name not in given}, **at_once}
    return WorkerConfig(
        syncs=tuple(one for one in chosen if isinstance(one, Sync)),
        job_types=tuple(one for one in chosen if isinstance(one, JobType)),
        queues={lane.queue: registry.queue(lane.queue) for lane in lanes},
        declared=frozenset(registry.queues),
        lanes=tuple(lanes),
        threads=threads,
        # A limit that is no less than the number of threads is none.
        limits={key: limit for key, limit in limits.items() if limit < threads},
        stays={
            one.id: frozenset(phase for phase in _phases(one, phases) if f"{one.id}:{phase}" not in at_once)
            for one in chosen
            if isinstance(one, JobType)
        },
    )


def config_of_run(sync: Sync, queue: Queue, *, declared: bool, singles: int = 0) -> WorkerConfig:
    """Return what a run of one sync serves: the lane of its jobs, in full batches.

    Args:
        sync: the declaration.
        queue: its queue.
        declared: whether the queue is declared; its concurrency then holds for all workers together.
        singles: so many jobs are shown to the tracker one by one.
    """
    return WorkerConfig(
        syncs=(sync,),
        job_types=(),
        queues={queue.id: queue},
        declared=frozenset({queue.id} if declared else ()),
        lanes=(Lane(sync.queue_id, sync.client.id, sync.id),),
        threads=sync.concurrency,
        limits={},
        batch=sync.batch,
        # Two batches in hand: while one is finished in the database, the other keeps the threads busy.
        prefetch=2 * sync.batch,
        singles=singles,
    )


def config_of_job(declared: Sync | JobType, queue: Queue) -> WorkerConfig:
    """Return what it takes to work one job of this type, in all its phases."""
    return WorkerConfig(
        syncs=(declared,) if isinstance(declared, Sync) else (),
        job_types=(declared,) if isinstance(declared, JobType) else (),
        queues={queue.id: queue},
        declared=frozenset(),
        lanes=(Lane(queue.id, declared.client.id, declared.id),),
        threads=1,
        limits={},
        stays={declared.id: frozenset(declared.phases)} if isinstance(declared, JobType) else {},
    )


def _phases(one: Sync | JobType, phases: Sequence[str]) -> tuple[str, ...]:
    of_type = one.phases if isinstance(one, JobType) else ()
    return tuple(phase for phase in of_type or ("",) if not phases or phase in phases)


def _at_once(one: Sync | JobType, registry: Registry) -> int:
    # A job type without a concurrency of its own has that of its queue, if that is declared.
    if isinstance(one, JobType) and one.concurrency == DEFAULT and one.queue_id in registry.queues:
        return registry.queues[one.queue_id].concurrency
    return one.concurrency


def _check(kind: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownName(f"no {kind} is called {name!r}; declared are: {', '.join(sorted(known)) or 'none'}")
