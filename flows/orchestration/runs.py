"""The Prefect flows `sync`, `work` and `maintain`, around code that does not use Prefect. `pause_flows` has those for pauses.

They are async although that code is not: at its end a synchronous flow joins Prefect's heartbeat thread, which takes up to a
second (seen with 3.9.1).
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed

from flows.errors import FlowsError
from flows.maintenance import maintain as maintain_all
from flows.orchestration.cancellation import in_thread, stop_on_signals
from flows.orchestration.deploy.project_variable import missing_recipients
from flows.orchestration.notices import use_prefect_carrier
from flows.orchestration.prefect_client import open_client
from flows.orchestration.project_folder import enter_folder
from flows.orchestration.tracking.current_run import InProcessRun, current_in_process_run
from flows.orchestration.tracking.result_artifact import MAX_FAILURES, publish, slug
from flows.orchestration.tracking.run_tracker import PrefectTracker
from flows.orchestration.tracking.server_health import disable_retries
from flows.orchestration.tracking.states import flow_run_state, not_run, run_message
from flows.orchestration.work_queues.updater import updating_work_queues
from flows.project import registry
from flows.project.printable_text import make_logs_printable
from flows.project.redaction import printable_line
from flows.project.settings import open_store
from flows.run_result import RunResult
from flows.sync import run as engine
from flows.sync.unfinished_listings import UnfinishedListings
from flows.worker.queue_processing import work as process_jobs
from jobs import JobsError

# Prefect starts these flows in processes of their own.
enter_folder()
use_prefect_carrier()
make_logs_printable()

WORK_SECONDS = 240.0
"""Seconds after which a scheduled `work` begins no further job: less than the interval of its schedule."""


@flow(name="sync", flow_run_name="{name}", retries=0, persist_result=False, log_prints=False)
async def sync(
    name: str,
    full: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
    allow_deletes: bool = False,
    wait: float | None = None,
    new_pass: bool = False,
) -> State[Any]:
    """List a remote system, queue a job for each entity that is new or changed, and process the jobs.

    Args:
        name: The id of the sync, as `syncs list` shows it.
        full: List everything, also where the sync is incremental.
        limit: The most entities to list.
        dry_run: List and compare, and write nothing.
        allow_deletes: Delete also more than the sync's max_delete_share.
        wait: Seconds; pauses and retries that end within it are waited for, and another run of the sync. By default 900, and
            another run is not waited for.
        new_pass: Begin a new listing, also if there is an unfinished one.
    """
    run = current_in_process_run.get()
    own = run is None or run.stop is None
    stop = threading.Event() if run is None or run.stop is None else run.stop
    logger = get_run_logger()
    try:
        with stop_on_signals(stop, active=own):
            result, server_gone = await in_thread(
                lambda: _sync(
                    run,
                    name,
                    stop=stop,
                    full=full,
                    limit=limit,
                    dry_run=dry_run,
                    allow_deletes=allow_deletes,
                    wait=wait,
                    new_pass=new_pass,
                ),
                stop,
            )
    except (FlowsError, JobsError) as error:
        return not_run(error)
    if server_gone:
        disable_retries()
    _log_failures(result.failures)
    logger.log(logging.INFO if result.exit_code == 0 else logging.ERROR, "Sync %s: %s", name, run_message(result))
    return flow_run_state(result, stopped=stop.is_set())


def _sync(run: InProcessRun | None, name: str, *, stop: threading.Event, **how: Any) -> tuple[RunResult, bool]:
    try:
        result, server_gone = _run_engine(run or _declared_run(name), stop=stop, **how)
    except Exception as error:
        if run is not None:
            run.error = error
        raise
    if run is not None:
        run.result, run.server_gone = result, server_gone
    return result, server_gone


def _run_engine(run: InProcessRun, *, stop: threading.Event, **how: Any) -> tuple[RunResult, bool]:
    """Run the engine; return its result, and whether the Prefect server stopped answering meanwhile."""
    name = run.sync.id
    get_run_logger().info("Sync %s of client %s begins", name, run.sync.client.id)
    with (
        closing(open_store()) as store,
        updating_work_queues(store, {run.sync.client.id: run.sync.client}, url=PREFECT_API_URL.value()),
        PrefectTracker(name, key=f"{slug(name)}-progress", on_progress=run.on_progress) as tracker,
    ):
        result = engine.run(
            run.sync,
            store,
            tracker=tracker,
            stop=stop,
            queue=run.queue,
            declared=run.is_declared,
            started_by=run.started_by,
            **how,
        )
    if not tracker.server_gone:
        context = FlowRunContext.get()
        publish(result, context.flow_run.id if context is not None and context.flow_run is not None else None)
    return result, tracker.server_gone


def _declared_run(name: str) -> InProcessRun:
    declared = registry.load()
    sync = declared.sync(name)
    return InProcessRun(sync, declared.queue(sync.queue_id), sync.queue_id in declared.queues)


def _work_name() -> str:
    queues = flow_run.parameters.get("queues")
    return ", ".join(queues) if queues else "work"


@flow(name="work", flow_run_name=_work_name, retries=0, persist_result=False, log_prints=False)
async def work(
    queues: list[str] | None = None,
    time_limit: float | None = WORK_SECONDS,
    max_jobs: int | None = None,
    until_empty: bool = True,
    concurrency: int | None = None,
    types: list[str] | None = None,
    phases: list[str] | None = None,
    at_once: dict[str, int] | None = None,
    grace: float | None = None,
    memory_limit: float | None = None,
) -> State[Any]:
    """Process the jobs that are due: delayed retries, enqueued jobs, and what an earlier run left, also of its listing.

    A declared queue is left to the next run after its own time limit, so that each run comes to all queues.

    Args:
        queues: Names of queues; all of them by default.
        time_limit: Seconds after which no further job begins.
        max_jobs: The most jobs to process.
        until_empty: End when no job is due.
        concurrency: The most jobs at once.
        types: Only these syncs and job types.
        phases: Only these phases of job types.
        at_once: The most jobs at once of a type, or of a phase as `type:phase`.
        grace: Seconds after a stop until running jobs are requeued; without it, their end is awaited.
        memory_limit: Megabytes of memory at which it ends.
    """
    stop = threading.Event()

    def body() -> Any:
        with (
            closing(open_store()) as store,
            updating_work_queues(store, (declared := registry.load()).clients, url=PREFECT_API_URL.value()),
            PrefectTracker("work", key="work-progress") as tracker,
        ):
            return process_jobs(
                store,
                declared,
                queues=queues or (),
                types=types or (),
                phases=phases or (),
                time_limit=time_limit,
                max_jobs=max_jobs,
                until_empty=until_empty,
                concurrency=concurrency,
                at_once=at_once,
                grace=grace,
                memory_limit=memory_limit,
                by_queue=True,
                tracker=tracker,
                stop=stop,
                listings=lambda syncs, halt: UnfinishedListings(store, declared, syncs, stop=halt),
            )

    try:
        with stop_on_signals(stop):
            result = await in_thread(body, stop)
    except (FlowsError, JobsError) as error:
        return not_run(error)
    _log_failures(result.failures)
    message = f"{result.succeeded} succeeded, {result.failed} failed" if result.processed else "nothing was due"
    return _final_state("Work", message, stop, level=logging.WARNING if result.failed else logging.INFO)


@flow(name="maintain", flow_run_name="maintain", retries=0, persist_result=False, log_prints=False)
async def maintain() -> State[Any]:
    """Requeue the jobs of dead workers, and remove finished jobs that their queues do not keep any longer."""
    stop = threading.Event()
    try:
        with stop_on_signals(stop):
            message = await in_thread(lambda: _maintain(stop), stop)
    except (FlowsError, JobsError) as error:
        return not_run(error)
    return _final_state("Maintain", message, stop)


def _maintain(stop: threading.Event) -> str:
    with (
        closing(open_store()) as store,
        updating_work_queues(store, (declared := registry.load()).clients, url=PREFECT_API_URL.value()),
    ):
        done = str(maintain_all(store, declared, stop=stop.is_set))
    try:
        with open_client(PREFECT_API_URL.value()) as client:
            warning = missing_recipients(client)
    except Exception as error:  # noqa: BLE001 - a failure of Prefect must not end the run
        get_run_logger().info("what `syncs setup` knew cannot be read: %s: %s", type(error).__name__, error)
        warning = None
    if warning is None:
        return done
    get_run_logger().warning("%s", warning)
    return f"{done}; {warning}"


def _log_failures(failures: Sequence[tuple[str, str]]) -> None:
    for key, message in failures[:MAX_FAILURES]:
        get_run_logger().warning("Entity %s failed: %s", printable_line(key), printable_line(message))


def _final_state(name: str, message: str, stop: threading.Event, *, level: int = logging.INFO) -> State[Any]:
    get_run_logger().log(level, "%s: %s", name, message)
    return Cancelled(message=f"Stopped by hand: {message}") if stop.is_set() else Completed(message=message)
