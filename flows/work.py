"""Processing queues without listing: the engine of `syncs work` and of the flow `work`. Knows no Prefect."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from flows.claimer import Claimer
from flows.connection import Connections
from flows.declaration import Sync
from flows.entity import EntityWork
from flows.errors import SettingsError, UnknownName
from flows.gone import GoneGuard
from flows.hands import Hands
from flows.lease import LeaseKeeper
from flows.mask import Mask
from flows.registry import Registry
from flows.settings import client_settings
from flows.tracker import Progress, SilentTracker, Tracker
from jobs.job import Lane
from jobs.store import JobStore
from jobs.worker import this_worker

log = logging.getLogger("syncs.work")

IDLE = 0.5
"""Seconds between two looks at idle queues."""

LEASE = 60.0
"""Seconds; the lease of a queue without a declaration."""

BATCH = 100
"""Jobs in one claim at most."""


@dataclass(frozen=True, slots=True)
class WorkResult:
    """What a worker did."""

    processed: int
    succeeded: int
    failed: int
    seconds: float


def work(
    store: JobStore,
    registry: Registry,
    *,
    queues: Sequence[str] = (),
    time_limit: float | None = None,
    max_jobs: int | None = None,
    until_empty: bool = False,
    concurrency: int | None = None,
    tracker: Tracker | None = None,
    stop: threading.Event | None = None,
    now: threading.Event | None = None,
) -> WorkResult:
    """Work queues off.

    Args:
        store: where the jobs are.
        registry: what is declared; jobs of other types stay where they are.
        queues: only these; none means all that are declared.
        time_limit: seconds after which no further job is taken; `None` or 0 means none.
        max_jobs: take at most so many.
        until_empty: end when nothing is due, in place of waiting.
        concurrency: jobs at once; by default the largest of the syncs'.
        tracker: who watches.
        stop: set it to take no further job and finish those in hand.
        now: set it to release what is in hand and not begun.

    Raises:
        UnknownName: a queue that nothing declared uses.
        SettingsError: no client of these queues has the settings it needs.
    """
    started = time.monotonic()
    stop, now = stop or threading.Event(), now or threading.Event()
    syncs = _syncs(registry, queues)
    threads = concurrency or max((sync.concurrency for sync in syncs), default=1)
    progress, worker, taken = Progress(), this_worker(), 0
    with ExitStack() as stack:
        works = _works(stack, store, syncs)
        lanes = [Lane(sync.queue_id, sync.client.id, sync.id) for sync in syncs if sync.id in works]
        served = {lane.queue: registry.queue(lane.queue) for lane in lanes}
        for queue in served.values():
            store.serve(queue)
        # One lease serves all: the shortest that was declared.
        lease = min((queue.lease for queue in served.values()), default=LEASE)
        keeper = stack.enter_context(LeaseKeeper(store, lease=lease))
        pool = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="syncs-fetch"))
        hands = Hands(store, works, pool, threads, keeper, tracker or SilentTracker(), progress, worker, now)
        claimer = Claimer(
            store, lanes, worker=worker, lease=lease, on_poison=lambda one: progress.fail(one.key or f"job {one.id}", one.message)
        )
        while not stop.is_set() and not now.is_set():
            if time_limit and time.monotonic() - started >= time_limit:
                break
            n = BATCH if max_jobs is None else min(BATCH, max_jobs - taken)
            jobs, _ = claimer.claim(n)
            if jobs:
                taken += len(jobs)
                hands.batch(jobs)
                claimer.worked(jobs)
            elif until_empty or n <= 0:
                break
            else:
                stop.wait(IDLE)
            # A pause is a row that the claim reads; this worker need not remember it.
            hands.paused.clear()
    return WorkResult(taken, progress.succeeded + progress.unchanged + progress.gone, progress.failed, time.monotonic() - started)


def _syncs(registry: Registry, queues: Sequence[str]) -> list[Sync]:
    known = {sync.queue_id for sync in registry.syncs.values()}
    for queue in queues:
        if queue not in known:
            raise UnknownName(f"no queue {queue!r}; declared ones are: {', '.join(sorted(known)) or 'none'}")
    return [sync for sync in registry.syncs.values() if not queues or sync.queue_id in queues]


def _works(stack: ExitStack, store: JobStore, syncs: Sequence[Sync]) -> dict[str, EntityWork]:
    """Make what the syncs need; a client without its settings keeps only its own jobs waiting."""
    works: dict[str, EntityWork] = {}
    missing: dict[str, SettingsError] = {}
    opened: dict[str, tuple[Connections, Mask]] = {}
    for sync in syncs:
        client = sync.client
        if client.id not in opened and client.id not in missing:
            try:
                settings = client_settings(client)
            except SettingsError as error:
                missing[client.id] = error
                log.warning("%s; its jobs wait", error)
            else:
                opened[client.id] = stack.enter_context(Connections(client, settings)), Mask(settings)
        if client.id in opened:
            connections, mask = opened[client.id]
            works[sync.id] = EntityWork(sync, connections.get, mask, GoneGuard(sync, store), connections.drop)
    if missing and not works:
        raise next(iter(missing.values()))
    return works
