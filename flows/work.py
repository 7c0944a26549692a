"""Processing queues without listing: the engine of `syncs work` and of the flow `work`. Knows no Prefect."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from flows.bounds import Bounds
from flows.claimer import Claimer
from flows.crew import Crew
from flows.duty import Duty, duty, works
from flows.enqueue import using
from flows.hands import Hands, Work
from flows.job_work import tell_poisoned
from flows.lease import LeaseKeeper
from flows.maintain import tidy
from flows.patience import ONE_SHOT, Patience
from flows.prober import Prober
from flows.registry import Registry
from flows.shift import Shift
from flows.told import Told
from flows.tracker import Progress, SilentTracker, Tracker, Waking
from jobs import JobsError
from jobs.job import Job
from jobs.poison import Poisoned
from jobs.store import JobStore
from jobs.wake import Wakes
from jobs.worker import this_worker

log = logging.getLogger("syncs.work")

STALLED = 5.0
"""Seconds in which no thread got free, after which jobs that were claimed ahead go back: another worker may have threads."""


@dataclass(frozen=True, slots=True)
class WorkResult:
    """What a worker did. `processed` counts attempts: also those that failed, wait for a retry, or went on to a phase."""

    processed: int
    succeeded: int
    failed: int
    seconds: float


def work(
    store: JobStore,
    registry: Registry,
    *,
    queues: Sequence[str] = (),
    types: Sequence[str] = (),
    phases: Sequence[str] = (),
    time_limit: float | None = None,
    max_jobs: int | None = None,
    until_empty: bool = False,
    concurrency: int | None = None,
    at_once: Mapping[str, int] | None = None,
    grace: float | None = None,
    memory_limit: float | None = None,
    by_queue: bool = False,
    tracker: Tracker | None = None,
    stop: threading.Event | None = None,
    now: threading.Event | None = None,
    wakes: Wakes | None = None,
) -> WorkResult:
    """Work queues off.

    Without a bound it goes on until it is stopped: idle it waits for jobs, and for a database that is away. A job whose type
    has a `timeout` ends with it, and the worker lives on (DS-07); one that hangs without keeps its lease and its thread.

    Args:
        store: where the jobs are.
        registry: what is declared; jobs of other types stay where they are.
        queues: only these; none means all that are declared.
        types: only these syncs and job types; none means all.
        phases: only these phases, of the job types that have them; none means everything (DS-12).
        time_limit: seconds after which no further job is begun; `None` or 0 means none.
        max_jobs: take at most so many.
        until_empty: end when nothing is due, in place of waiting.
        concurrency: jobs at once; by default the largest number of the types'.
        at_once: jobs at once on this worker, by type or by `type:phase` (DS-12).
        grace: seconds after a stop until the jobs in hand go back; `None` waits for them.
        memory_limit: megabytes after which it ends, to be started anew (E-67).
        by_queue: also leave each declared queue after its own `time_limit`, so that a scheduled worker comes to all of them.
        tracker: who watches.
        stop: set it to begin no further job and finish those in hand.
        now: set it to put back the jobs in hand; it is set here when the grace is over.
        wakes: how it waits while there is nothing to do; by default until the database says that something may have come.

    Raises:
        UnknownName: a queue, type or phase that nothing declares.
        SettingsError: no client of these queues has the settings it needs.
        DatabaseLost: the database was away for half a minute, and `until_empty` asks for an end.
    """
    chosen = duty(registry, queues=queues, types=types, phases=phases, concurrency=concurrency, at_once=at_once)
    bounds = Bounds(time_limit, max_jobs, until_empty, grace, memory_limit, by_queue)
    stop, now = stop or threading.Event(), now or threading.Event()
    started, progress = time.monotonic(), Progress()
    patience = Patience(ONE_SHOT if until_empty else None, stop=stop, now=now)
    with ExitStack() as stack:
        stack.enter_context(using(store, registry))
        patience(lambda: store.bring_home(chosen.homes))
        for queue in chosen.queues.values():
            patience(lambda queue=queue: store.serve(queue, declared=queue.id in chosen.declared))  # type: ignore[misc]
        wakes = stack.enter_context(Wakes(store.db)) if wakes is None else wakes
        told = stack.enter_context(Told(store, registry))
        told.look()
        keeper = stack.enter_context(LeaseKeeper(store, lease=chosen.lease))
        crew = stack.enter_context(Crew(chosen.threads, limits=chosen.limits, on_free=wakes.poke))
        steps = stack.enter_context(Crew(chosen.threads, name="syncs-step"))
        halt = threading.Event()

        def goes_on(job: Job) -> bool:
            return not (halt.is_set() or stop.is_set() or now.is_set()) and hands.health.may_begin(job)

        made = works(stack, store, chosen, is_lost=keeper.is_lost, goes_on=goes_on, restart=crew.restart)
        hands = Hands(
            store, made, crew, steps, keeper, Waking(tracker or SilentTracker(), wakes.poke), progress, this_worker(), halt,
            now=now, patient=patience, prompt=chosen.prompt, stalled=STALLED, told=told,
        )  # fmt: skip
        lanes = [lane for lane in chosen.lanes if lane.type in made]

        def on_poison(one: Poisoned) -> None:
            _poisoned(one, made, registry, progress)

        claimer = Claimer(store, lanes, worker=hands.worker, lease=chosen.lease, on_poison=on_poison)
        prober = Prober(store, hands, lanes, lease=chosen.lease, on_poison=on_poison)
        Shift(
            store, chosen, lanes, hands, crew, claimer, prober, wakes, bounds, patience, stop=stop, now=now,
            tidy=lambda: _tidy(store, chosen, halt, told),
        ).run()  # fmt: skip
    return WorkResult(
        hands.finished, progress.succeeded + progress.unchanged + progress.gone, progress.failed, time.monotonic() - started
    )


def _poisoned(one: Poisoned, works: Mapping[str, Work], registry: Registry, progress: Progress) -> None:
    progress.fail(one.key or f"job {one.id}", one.message)
    told = getattr(works.get(one.type), "poisoned", None)
    if told is not None:
        told(one)
    else:
        # Rescued from a queue of ours, of a type that this worker does not serve.
        tell_poisoned(one, registry.job_types.get(one.type))


def _tidy(store: JobStore, chosen: Duty, halt: threading.Event, told: Told) -> None:
    # What others left untold, and what a channel did not take the last time.
    told.look()
    try:
        tidy(store, stop=halt.is_set)
        # What was in the hands of a dead worker goes back to where that one had claimed it.
        store.bring_home(chosen.homes)
    except (SQLAlchemyError, JobsError) as error:
        # Whoever is next does it.
        log.warning("not tidied: %s", type(error).__name__)
