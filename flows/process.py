"""Processing one job here and now, for a person who watches: the engine of `syncs process`. Knows no command line."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from clients import exchange
from flows.conditional import Conditions
from flows.connection import Connections
from flows.crew import Crew
from flows.declaration import Client, Sync
from flows.enqueue import using
from flows.entity import EntityWork
from flows.errors import UnknownName
from flows.events import Event, subscribe
from flows.gone import GoneGuard
from flows.hands import Hands, Work
from flows.home import homes
from flows.job_type import JobType
from flows.job_work import JobWork
from flows.lease import LeaseKeeper
from flows.mask import Mask
from flows.prober import Prober
from flows.registry import Registry
from flows.settings import client_settings
from flows.told import Told
from flows.tracker import Progress, SilentTracker
from jobs.job import Done, Job, Lane, Settled
from jobs.refusal import Refused
from jobs.store import JobStore
from jobs.worker import this_worker

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Processed:
    """What became of a job."""

    id: int
    #: Its state now; `lost` where another worker has it.
    state: str
    #: The name of its outcome, e.g. `failure`; empty where it was refused.
    outcome: str
    message: str
    traceback: str | None = None
    #: The last requests and answers.
    exchanges: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    #: Why it was not processed at all.
    refused: str = ""


def process(
    store: JobStore, registry: Registry, job_id: int, *, force: bool = False, say: Say = lambda _: None,
    stop: threading.Event | None = None,
) -> Processed:  # fmt: skip
    """Work one queued job, due or delayed, in all its phases, and finish it as a worker would.

    Where the pause of its client has run out and nobody tests the client, this job does. One that is forced while its client is
    paused opens nothing, whatever comes of it: that is for the clock, or a person.

    Args:
        store: where the jobs are.
        registry: what is declared.
        job_id: which.
        force: also while its client is paused, beyond the limits of its queue, and before earlier jobs of its serial key.
        say: told each step, in one line or a few.
        stop: set it to give the job up: it goes back, and what it wrote is rolled back.

    Raises:
        JobNotFound: no job has this id.
        UnknownName: its type is declared nowhere; the job waits until it is (E-44).
        SettingsError: a setting of its client is missing or wrong.
    """
    found = store.job(job_id).job
    worker, stop = this_worker(), stop or threading.Event()
    declared = _declared(registry, found.type)
    lease = registry.queue(declared.queue_id).lease
    with ExitStack() as stack:
        stack.enter_context(using(store, registry))
        keeper = stack.enter_context(LeaseKeeper(store, lease=lease))
        crew, steps = (stack.enter_context(Crew(1, name=f"syncs-{name}")) for name in ("process", "step"))
        witness = _Witness(_work_of(stack, store, declared, keeper, crew), say)
        # The declaration may have another queue, client or phases by now than when it was queued.
        store.bring_home(homes([declared]), only=job_id)
        told = stack.enter_context(Told(store, registry))
        hands = Hands(
            store, {found.type: witness}, crew, steps, keeper, SilentTracker(), Progress(), worker, threading.Event(), now=stop,
            told=told, heeds=not force,
        )  # fmt: skip
        prober = Prober(store, hands, [Lane(found.queue, declared.client.id, found.type)], lease=lease)
        if not force:
            hands.health.hold()
        probe = prober.begin(declared.client.id)
        claimed = None
        try:
            claimed = store.claim_one(job_id, worker=worker, lease=lease, force=force, probe=probe)
            if isinstance(claimed, Refused):
                return Processed(job_id, claimed.state, "", claimed.reason, refused=claimed.reason)
            stack.callback(subscribe(witness.before, "before"))
            stack.callback(subscribe(witness.after, "after"))
            began = time.monotonic()
            if probe is None:
                hands.batch([claimed])
            else:
                prober.work(probe, [claimed])
        finally:
            if probe is not None:
                prober.end(probe, [claimed] if isinstance(claimed, Job) else [])
    return witness.told(claimed, time.monotonic() - began)


class _Witness:
    """Works a job as its type does, and remembers; strictly private."""

    def __init__(self, work: Work, say: Say) -> None:
        self._work = work
        self._say = say
        self._settled: Settled | None = None
        self._exchanges: list[dict[str, str]] = []
        self.client: Client = work.client
        self.timeout = work.timeout
        self.connect, self.drop, self.judge = work.connect, work.drop, work.judge

    def work(self, job: Job) -> Done:
        """Work it."""
        return self._work.work(job)

    def timed_out(self, job: Job, seconds: float) -> Done:
        """Give it up."""
        return self._work.timed_out(job, seconds)

    def settled(self, settled: Settled) -> None:
        """Remember what was committed."""
        self._settled = settled
        self._work.settled(settled)

    def before(self, event: Event) -> None:
        """Tell what begins."""
        phase = f", phase {event.phase}" if event.phase else ""
        self._say(f"attempt {event.attempt}{phase}")

    def after(self, event: Event) -> None:
        """Tell what came of it, and what it asked for."""
        recorder = exchange.current()
        mask = getattr(self._work, "mask", str)
        if recorder is not None:
            self._exchanges = [{name: mask(text) for name, text in one.items()} for one in recorder.summary]
        for one in self._exchanges:
            self._say(f"  {one['request']} → {one['response']}")
        name = type(event.outcome).__name__.lower()
        self._say(f"  {name}" if event.message in ("", name) else f"  {name}: {event.message}")

    def told(self, job: Job, seconds: float) -> Processed:
        """Say what became of the job."""
        if self._settled is None:
            return Processed(job.id, "queued", "released", "given up before it was done", seconds=seconds)
        verdict = self._settled.verdict
        outcome: Any = verdict.outcome
        message = getattr(outcome, "message", "") or getattr(outcome, "reason", "")
        name = type(outcome).__name__.lower()
        return Processed(job.id, self._settled.state, name, message, verdict.traceback, self._exchanges, seconds)


def _declared(registry: Registry, name: str) -> Sync | JobType:
    try:
        return registry.syncs[name] if name in registry.syncs else registry.job_type(name)
    except UnknownName as error:
        raise UnknownName(f"{error}; its jobs wait until a file declares it") from error


def _work_of(stack: ExitStack, store: JobStore, declared: Sync | JobType, keeper: LeaseKeeper, crew: Crew) -> Work:
    settings = client_settings(declared.client)
    connections, mask = stack.enter_context(Connections(declared.client, settings)), Mask(settings)
    if isinstance(declared, Sync):
        conditions = Conditions.of(declared, store)
        return EntityWork(declared, connections.get, mask, GoneGuard(declared, store), connections.drop, conditions)
    return JobWork(declared, connections.get, mask, connections.drop, store, is_lost=keeper.is_lost, restart=crew.restart)
