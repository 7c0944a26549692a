"""Works one job in this process, for a person who watches: `syncs process`."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from clients.exchange_recorder import current_recorder
from flows.declarations.job_type import JobType
from flows.declarations.sync import Sync
from flows.enqueue import using
from flows.errors import UnknownName
from flows.events import Event, subscribe
from flows.notices.notifier import Notifier
from flows.project.redaction import Mask, masked_summary
from flows.project.registry import Registry, location_of
from flows.worker.batch_runner import Reporting
from flows.worker.executor_factory import OpenClients, make_executors
from flows.worker.limits import Signals
from flows.worker.worker_assembly import Worker
from flows.worker.worker_config import config_of_job
from jobs.admin.command_refusals import Refused
from jobs.job import Job, JobResult
from jobs.store import JobStore

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
    store: JobStore,
    registry: Registry,
    job_id: int,
    *,
    force: bool = False,
    say: Say = lambda _: None,
    stop: threading.Event | None = None,
) -> Processed:
    """Work one queued job, due or delayed, in all its phases, and finish it as a worker would.

    If the pause of its client has run out and no other worker probes the client, this job is the probe. A job that is forced
    while its client is paused never ends the pause.

    Args:
        store: where the jobs are.
        registry: what is declared.
        job_id: which.
        force: also while its client is paused, beyond the limits of its queue, and before earlier jobs of its serial key.
        say: called with a line or a few for each step.
        stop: set it to give the job up: it goes back, and what it wrote is rolled back.

    Raises:
        JobNotFound: no job has this id.
        UnknownName: its type is declared nowhere; the job waits until it is.
        SettingsError: a setting of its client is missing or wrong.
    """
    declared = _declared(registry, store.views.job(job_id).job.type)
    config = config_of_job(declared, registry.queue(declared.queue_id))
    if registry.types:
        store.declare_types(registry.types)
    signals = Signals(now=stop or threading.Event())
    with ExitStack() as stack:
        stack.enter_context(using(store, registry))
        clients = stack.enter_context(OpenClients(store, stop=signals.now))
        _, mask = clients.open(declared.client)
        # The declaration may have another queue, client or phases by now than when the job was queued.
        store.relocations.apply([location_of(declared)], only=job_id)
        worker = Worker(
            store,
            config,
            lambda control: make_executors(config, store, clients, control=control),
            signals=signals,
            reporting=Reporting(observer=stack.enter_context(Notifier(store, registry))),
            respect_pauses=not force,
            syncs=registry.syncs.values(),
        )
        stack.enter_context(worker)
        if not force:
            worker.health.pauses.apply_windows()
        probe = worker.prober.begin(declared.client.id)
        jobs: list[Job] = []
        try:
            claimed = store.single_jobs.claim(job_id, worker=worker.name, lease=config.lease, force=force, probe=probe)
            if isinstance(claimed, Refused):
                return Processed(job_id, claimed.state, "", claimed.reason, refused=claimed.reason)
            jobs = [claimed]
            trace = _Trace(say, mask)
            stack.callback(subscribe(trace.before, "before"))
            stack.callback(subscribe(trace.after, "after"))
            began = time.monotonic()
            settled = worker.runner.batch(jobs) if probe is None else worker.prober.work(probe, jobs)
        finally:
            if probe is not None:
                worker.prober.end(probe, jobs)
    lacking = worker.health.lacks.text(declared.id)
    return _processed(job_id, settled, trace.exchanges, time.monotonic() - began, lacking=lacking)


class _Trace:
    """Says what a job does, and keeps its exchanges."""

    def __init__(self, say: Say, mask: Mask) -> None:
        self._say = say
        self._mask = mask
        self.exchanges: list[dict[str, str]] = []

    def before(self, event: Event) -> None:
        """Say what begins."""
        phase = f", phase {event.phase}" if event.phase else ""
        self._say(f"attempt {event.attempt}{phase}")

    def after(self, event: Event) -> None:
        """Say the requests and the outcome."""
        recorded = current_recorder()
        if recorded is not None:
            self.exchanges = masked_summary(recorded, self._mask)
        for one in self.exchanges:
            self._say(f"  {one['request']} → {one['response']}")
            if "body" in one:
                self._say(f"    {one['body']}")
        name = type(event.outcome).__name__.lower()
        self._say(f"  {name}" if event.message in ("", name) else f"  {name}: {event.message}")


def _processed(
    job_id: int, settled: list[JobResult], exchanges: list[dict[str, str]], seconds: float, *, lacking: str
) -> Processed:
    if not settled or settled[-1].verdict.ours:
        return Processed(job_id, "queued", "released", lacking or "given up before it was done", seconds=seconds)
    verdict = settled[-1].verdict
    outcome: Any = verdict.outcome
    return Processed(
        job_id,
        settled[-1].state,
        type(outcome).__name__.lower(),
        getattr(outcome, "message", "") or getattr(outcome, "reason", ""),
        traceback=verdict.traceback,
        exchanges=exchanges,
        seconds=seconds,
    )


def _declared(registry: Registry, name: str) -> Sync | JobType:
    try:
        return registry.syncs[name] if name in registry.syncs else registry.job_type(name)
    except UnknownName as error:
        raise UnknownName(f"{error}; its jobs wait until a file declares it") from error
