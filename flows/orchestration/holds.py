"""The flows `pause`, `resume` and `pauses`: what a person does to clients from the Prefect UI, and what keeps it up to date."""

import math
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.errors import FlowsError, UsageError
from flows.orchestration.interrupt import in_thread, stop_on_signals
from flows.orchestration.mirror import PERSON
from flows.orchestration.sign import until_text
from flows.orchestration.watch import look
from jobs import JobsError

if TYPE_CHECKING:
    from flows.registry import Registry
    from jobs.store import JobStore

#: A pause that ends so soon is waited for: the clocks of the database and of the server may differ.
_SOON = 10.0
_AGAIN = 2.0
#: The longest that a run of `pauses` waits in all.
_LONGEST = 60.0


@flow(name="pause", flow_run_name="pause {client}", retries=0, persist_result=False, log_prints=False)
async def pause(client: str, seconds: float | None = None, reason: str = "") -> State[Any]:
    """Hold a client: none of its jobs is claimed and none of its syncs lists, on any machine. Jobs in hand are finished.

    Args:
        client: The id of the client, as `syncs list` shows it.
        seconds: How long; empty means until somebody resumes it.
        reason: One line for whoever wonders.
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
    """Bring the work queues of clients and the table of pauses together, both ways.

    Runs when a work queue was paused or resumed, and when a pause ends.
    """
    stop = threading.Event()
    with stop_on_signals(stop):
        return await _run(lambda: _pauses(stop), stop)


async def _run(body: Any, stop: threading.Event | None = None) -> State[Any]:
    try:
        message = await in_thread(body, stop or threading.Event())
    except (FlowsError, JobsError) as error:
        return Failed(message=str(error))
    get_run_logger().info("%s", message)
    return Completed(message=message)


def _pause(name: str, seconds: float | None, reason: str) -> str:
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"seconds must be a positive number, or nothing, got {seconds}")

    def work(store: "JobStore", registry: "Registry") -> str:
        from flows.told import Told

        client = registry.client(name)
        held = store.pause(name, seconds, cause="person", reason=reason or "paused by hand", set_by=PERSON)
        if held is None:
            return f"{name} is not paused"
        with Told(store, registry) as told:
            told.paused(client, held)
        look(store, registry.clients, only={name})
        return f"{name} is paused until {until_text(held)}"

    return _with_store(work)


def _resume(name: str) -> str:
    def work(store: "JobStore", registry: "Registry") -> str:
        from flows.told import Told

        client = registry.client(name)
        resumed = store.resume(name, by=PERSON)
        if resumed:
            with Told(store, registry) as told:
                told.resumed(client, by=PERSON)
        look(store, registry.clients, only={name})
        return f"{name} {'goes on' if resumed else 'was not paused'}"

    return _with_store(work)


def _pauses(stop: threading.Event) -> str:
    def work(store: "JobStore", registry: "Registry") -> str:
        from flows.told import Told

        deadline = time.monotonic() + _LONGEST
        done: list[str] = []
        with Told(store, registry) as told:
            while True:
                changes = look(store, registry.clients, teller=told)
                if changes is None:
                    # The server's own database may be locked for a while.
                    if time.monotonic() > deadline or stop.wait(_AGAIN):
                        raise UsageError("work queues could not be brought up to date; the log says why")
                    continue
                done += map(str, changes)
                soon = store.now() + timedelta(seconds=_SOON)
                ends = [one.until for one in store.pauses() if one.until is not None and one.until <= soon]
                if not ends or time.monotonic() > deadline:
                    break
                if stop.wait(max(0.1, (min(ends) - store.now()).total_seconds() + 0.1)):
                    break
        return "; ".join(done) or "work queues and clients agree"

    return _with_store(work)


def _with_store(work: Any) -> str:
    from flows import registry
    from flows.settings import open_store

    declared = registry.load()
    store = open_store()
    try:
        return str(work(store, declared))
    finally:
        store.close()
