"""The Prefect flows `pause` and `resume`, for a person in the UI, and `pauses`, which makes work queues and pauses agree."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.errors import FlowsError, UsageError
from flows.notices.notifier import Notifier
from flows.orchestration.cancellation import in_thread, stop_on_signals
from flows.orchestration.notices import use_prefect_carrier
from flows.orchestration.project_folder import enter_folder
from flows.orchestration.tracking.current_run import current_flow_run
from flows.orchestration.work_queues.queue_description import until_text
from flows.orchestration.work_queues.reconciliation import PERSON
from flows.orchestration.work_queues.updater import reconcile_if_reachable
from flows.project import registry
from flows.project.registry import Registry
from flows.project.settings import open_store
from jobs import JobsError
from jobs.store import JobStore

# Prefect starts these flows in processes of their own.
enter_folder()
use_prefect_carrier()

#: Seconds; a run of `pauses` waits for a pause that ends so soon, since the clocks of the database and of the server may differ.
_SOON = 10.0
_RETRY_SECONDS = 2.0
#: The most seconds that a run of `pauses` waits in all.
_MAX_WAIT = 60.0


@flow(name="pause", flow_run_name="pause {client}", retries=0, persist_result=False, log_prints=False)
async def pause(client: str, seconds: float | None = None, reason: str = "") -> State[Any]:
    """Pause a client: none of its jobs is claimed and none of its syncs lists, on any machine. Running jobs finish.

    Args:
        client: The id of the client, as `syncs list` shows it.
        seconds: How long; empty means until a person resumes it.
        reason: One line that says why.
    """
    return await _run(lambda: _pause(client, seconds, reason))


@flow(name="resume", flow_run_name="resume {client}", retries=0, persist_result=False, log_prints=False)
async def resume(client: str) -> State[Any]:
    """End the pause of a client, whatever its cause. Its jobs are claimed from now on.

    Args:
        client: The id of the client, as `syncs list` shows it.
    """
    return await _run(lambda: _resume(client))


@flow(name="pauses", flow_run_name="pauses", retries=0, persist_result=False, log_prints=False)
async def pauses() -> State[Any]:
    """Make the work queues of clients and the table of pauses agree, in both directions.

    An automation starts it when a work queue was paused or resumed. A run is also scheduled for the end of each pause.
    """
    stop = threading.Event()
    with stop_on_signals(stop):
        return await _run(lambda: _pauses(stop), stop)


async def _run(body: Callable[[], str], stop: threading.Event | None = None) -> State[Any]:
    try:
        message = await in_thread(body, stop or threading.Event())
    except (FlowsError, JobsError) as error:
        return Failed(message=str(error))
    get_run_logger().info("%s", message)
    return Completed(message=message)


def _pause(name: str, seconds: float | None, reason: str) -> str:
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"seconds must be a positive number, or nothing, got {seconds}")
    with _project() as (store, declared):
        client = declared.client(name)
        begun = store.pauses.open(name, seconds, cause="person", reason=reason or "paused by hand", set_by=PERSON)
        if begun is None:
            return f"{name} is not paused"
        with _notifier(store, declared) as notifier:
            notifier.paused(client, begun)
        reconcile_if_reachable(store, declared.clients, only={name})
        return f"{name} is paused until {until_text(begun)}"


def _resume(name: str) -> str:
    with _project() as (store, declared):
        client = declared.client(name)
        resumed = store.pauses.resume(name, by=PERSON)
        if resumed:
            with _notifier(store, declared) as notifier:
                notifier.resumed(client, by=PERSON)
        reconcile_if_reachable(store, declared.clients, only={name})
        return f"{name} {'goes on' if resumed else 'was not paused'}"


def _pauses(stop: threading.Event) -> str:
    deadline = time.monotonic() + _MAX_WAIT
    done: list[str] = []
    with _project() as (store, declared), _notifier(store, declared) as notifier:
        while True:
            changes = reconcile_if_reachable(store, declared.clients, observer=notifier)
            if changes is None:
                # The server's own database may be locked for a while.
                if time.monotonic() > deadline or stop.wait(_RETRY_SECONDS):
                    raise UsageError("work queues could not be brought up to date; the log says why")
                continue
            done += map(str, changes)
            soon = store.views.now() + timedelta(seconds=_SOON)
            ends = [one.until for one in store.pauses.in_force() if one.until is not None and one.until <= soon]
            if not ends or time.monotonic() > deadline:
                break
            if stop.wait(max(0.1, (min(ends) - store.views.now()).total_seconds() + 0.1)):
                break
    return "; ".join(done) or "work queues and clients agree"


def _notifier(store: JobStore, declared: Registry) -> Notifier:
    link, run = current_flow_run()
    return Notifier(store, declared, link=link, run=run)


@contextmanager
def _project() -> Iterator[tuple[JobStore, Registry]]:
    declared = registry.load()
    with closing(open_store()) as store:
        yield store, declared
