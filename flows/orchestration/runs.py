"""The flows `sync`, `work` and `maintain` (`holds` has those for pauses): each a thin one around code that knows no Prefect.

They are async although that code is not: at its end a synchronous flow joins Prefect's heartbeat thread, which costs a second.
"""

import logging
import threading
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed

from flows.errors import FlowsError
from flows.orchestration.artifacts import MAX_FAILURES, one_line, publish, slug
from flows.orchestration.call import Call, current_call
from flows.orchestration.events import stop_repeating
from flows.orchestration.interrupt import in_thread, stop_on_signals
from flows.orchestration.states import not_run, run_message, run_state
from flows.orchestration.tracker import PrefectTracker
from flows.orchestration.watch import mirrored
from flows.result import RunResult
from jobs import JobsError

#: Seconds after which a scheduled `work` begins no further job: less than its schedule's interval.
WORK_SECONDS = 240.0


@flow(name="sync", flow_run_name="{name}", retries=0, persist_result=False, log_prints=False)
async def sync(
    name: str, full: bool = False, limit: int | None = None, dry_run: bool = False, allow_deletes: bool = False
) -> State[Any]:
    """List a remote system, queue a job for each entity that is new or changed, and work the jobs off.

    Args:
        name: The id of the sync, as `syncs list` shows it.
        full: List everything, also where the sync is incremental.
        limit: At most so many entities.
        dry_run: List and compare, and write nothing.
        allow_deletes: Delete also more than the sync's max_delete_share.
    """
    call = current_call.get()
    own = call is None or call.stop is None
    stop = threading.Event() if call is None or call.stop is None else call.stop
    logger = get_run_logger()
    try:
        with stop_on_signals(stop, active=own):
            result, server_gone = await in_thread(
                lambda: _sync(call, name, full=full, limit=limit, dry_run=dry_run, allow_deletes=allow_deletes, stop=stop), stop
            )
    except (FlowsError, JobsError) as error:
        return not_run(error)
    if server_gone:
        stop_repeating()
    for key, message in result.failures[:MAX_FAILURES]:
        logger.warning("Entity %s failed: %s", one_line(key), one_line(message))
    logger.log(logging.INFO if result.exit_code == 0 else logging.ERROR, "Sync %s: %s", name, run_message(result))
    return run_state(result, stopped=stop.is_set())


def _sync(call: Call | None, name: str, *, stop: threading.Event, **how: Any) -> tuple[RunResult, bool]:
    try:
        result, server_gone = _run(call or _call(name), stop=stop, **how)
    except Exception as error:
        if call is not None:
            call.error = error
        raise
    if call is not None:
        call.result, call.server_gone = result, server_gone
    return result, server_gone


def _run(call: Call, *, stop: threading.Event, **how: Any) -> tuple[RunResult, bool]:
    """Run the engine; return what it came to, and whether the Prefect server went away under it."""
    from flows import engine
    from flows.settings import open_store

    name = call.sync.id
    get_run_logger().info("Sync %s of client %s begins", name, call.sync.client.id)
    store = open_store()
    try:
        with (
            mirrored(store, {call.sync.client.id: call.sync.client}, url=PREFECT_API_URL.value()),
            PrefectTracker(name, key=f"{slug(name)}-progress", on_progress=call.on_progress) as tracker,
        ):
            result = engine.run(call.sync, store, tracker=tracker, stop=stop, queue=call.queue, declared=call.is_declared, **how)
    finally:
        store.close()
    if not tracker.server_gone:
        context = FlowRunContext.get()
        publish(result, context.flow_run.id if context is not None and context.flow_run is not None else None)
    return result, tracker.server_gone


def _call(name: str) -> Call:
    from flows import registry

    declared = registry.load()
    sync = declared.sync(name)
    return Call(sync, declared.queue(sync.queue_id), sync.queue_id in declared.queues)


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
    """Work off the jobs that are due: delayed retries, what was enqueued by hand, what an earlier run left.

    A declared queue is left to the next run after its own time limit, so that each run comes to all queues.

    Args:
        queues: Names of queues; all of them by default.
        time_limit: Seconds after which no further job is begun.
        max_jobs: At most so many jobs.
        until_empty: End when nothing is due.
        concurrency: Jobs at once.
        types: Only these syncs and job types.
        phases: Only these phases of job types.
        at_once: Jobs at once of a type, or of a phase as `type:phase`.
        grace: Seconds after a stop until the jobs in hand go back; none waits for them.
        memory_limit: Megabytes after which it ends.
    """
    stop = threading.Event()

    def body() -> Any:
        from flows import registry
        from flows.settings import open_store
        from flows.work import work as work_off

        store, declared = open_store(), registry.load()
        try:
            with (
                mirrored(store, declared.clients, url=PREFECT_API_URL.value()),
                PrefectTracker("work", key="work-progress") as tracker,
            ):
                return work_off(
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
                )
        finally:
            store.close()

    try:
        with stop_on_signals(stop):
            result = await in_thread(body, stop)
    except (FlowsError, JobsError) as error:
        return not_run(error)
    message = f"{result.succeeded} succeeded, {result.failed} failed" if result.processed else "nothing was due"
    get_run_logger().info("Work: %s", message)
    return Cancelled(message=f"Stopped by hand: {message}") if stop.is_set() else Completed(message=message)


@flow(name="maintain", flow_run_name="maintain", retries=0, persist_result=False, log_prints=False)
async def maintain() -> State[Any]:
    """Take back the jobs of dead workers, and remove the finished jobs that their queues keep no longer."""
    stop = threading.Event()
    try:
        with stop_on_signals(stop):
            message = await in_thread(lambda: _maintain(stop), stop)
    except (FlowsError, JobsError) as error:
        return not_run(error)
    get_run_logger().info("Maintain: %s", message)
    return Cancelled(message=f"Stopped by hand: {message}") if stop.is_set() else Completed(message=message)


def _maintain(stop: threading.Event) -> str:
    from flows import registry
    from flows.maintain import maintain as maintain_all
    from flows.settings import open_store

    store, declared = open_store(), registry.load()
    try:
        with mirrored(store, declared.clients, url=PREFECT_API_URL.value()):
            return str(maintain_all(store, declared, stop=stop.is_set))
    finally:
        store.close()
