"""Makes the work queues of clients and the table of pauses agree, in both directions: what a person does in Prefect counts too.

Any number of processes may call it at any time. Where the two agree it changes nothing. Our own change of a queue makes the
server emit events that call it again; it then finds agreement, so it cannot loop.
"""

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import WorkQueueFilter, WorkQueueFilterName
from prefect.client.schemas.objects import WorkQueue
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

from flows.declarations.client import Client
from flows.notices.observer import NULL_OBSERVER, Observer
from flows.orchestration.prefect_client import PAGE_SIZE, read_all
from flows.orchestration.server_names import PAUSES_DEPLOYMENT, POOL, SHARED_QUEUE
from flows.orchestration.work_queues.held_runs import delete_surplus_runs
from flows.orchestration.work_queues.queue_action import Step, next_step
from flows.orchestration.work_queues.queue_description import with_pause, without_pause
from jobs import LockHeld, LockLost
from jobs.pauses.pause import ClientState, OpenPause
from jobs.store import JobStore

log = logging.getLogger("syncs.work_queues")

PERSON = "Prefect"
"""Recorded as the one who paused or resumed a client in the Prefect UI, which has no user names."""

_REASON = "paused in Prefect"
_LOCK_SECONDS = 5.0
#: Any two states agree after fewer steps; more would mean that something else keeps changing the queue.
_MAX_STEPS = 6
#: Seconds; pauses that end within one such slot share a run of the deployment `pauses`.
_SLOT = 5


@dataclass(frozen=True, slots=True)
class Change:
    """What was done for one client."""

    client: str
    step: Step
    #: Held runs that were deleted because a newer one of the same kind remains.
    deleted: int = 0

    def __str__(self) -> str:
        resumed = f"work queue resumed, {self.deleted} surplus runs deleted" if self.deleted else "work queue resumed"
        text = {
            Step.PAUSE_QUEUE: "work queue paused",
            Step.DESCRIBE_PAUSE: "description of the work queue brought up to date",
            Step.RESUME_QUEUE: resumed,
            Step.CLEAR_DESCRIPTION: "description of the work queue restored",
            Step.PAUSE_CLIENT: "paused, as its work queue was in Prefect",
            Step.RESUME_CLIENT: "resumed, as its work queue was in Prefect",
        }.get(self.step, self.step.value)
        return f"{self.client}: {text}"


def reconcile(
    api: SyncPrefectClient,
    store: JobStore,
    clients: Mapping[str, Client],
    *,
    only: Collection[str] | None = None,
    observer: Observer = NULL_OBSERVER,
) -> list[Change]:
    """Update each client's work queue from the table, and the table from what a person did to the queue.

    Args:
        api: of the server.
        store: holds the pauses.
        clients: by id, as declared. A client without a work queue is left out.
        only: ids of the clients to reconcile; all by default.
        observer: is notified of the pauses and resumes of a person.

    Returns:
        What was done, in order.

    Raises:
        Exception: the server or the database failed. What was done stays done; the next call continues.
    """
    names = [name for name in clients if name != SHARED_QUEUE and (only is None or name in only)]
    if not names:
        return []
    # The queues first: what the table says is then never older than they are.
    queues = _queues(api, names)
    paused = {pause.client: pause for pause in store.pauses.in_force()}
    done: list[Change] = []
    for name, queue in queues.items():
        # Without generation and reopening, which matter only where something is to be done.
        if _step(queue, ClientState(0, paused.get(name))) is not Step.NOTHING:
            done += _reconcile_client(api, store, clients[name], observer)
    return done


def _reconcile_client(api: SyncPrefectClient, store: JobStore, client: Client, observer: Observer) -> list[Change]:
    done: list[Change] = []
    try:
        # One process at a time, on all machines: two that see the same queue would both pause its client.
        with store.locks.hold(f"work-queue:{client.id}", wait=_LOCK_SECONDS):
            for _ in range(_MAX_STEPS):
                queue = _queues(api, [client.id]).get(client.id)
                if queue is None:
                    break
                state = store.pauses.state(client.id)
                step = _step(queue, state)
                if step is Step.NOTHING:
                    break
                change = Change(
                    client.id, step, _take(step, api, store, client=client, queue=queue, state=state, observer=observer)
                )
                log.info("%s", change)
                done.append(change)
    except LockHeld:
        log.debug("%s: another process reconciles it now", client.id)
    except LockLost:
        log.debug("%s: another process took over", client.id)
    except ObjectNotFound:
        log.debug("%s: its work queue was deleted", client.id)
    return done


def _step(queue: WorkQueue, state: ClientState) -> Step:
    return next_step(paused=queue.is_paused, description=queue.description, state=state)


def _take(
    step: Step,
    api: SyncPrefectClient,
    store: JobStore,
    *,
    client: Client,
    queue: WorkQueue,
    state: ClientState,
    observer: Observer,
) -> int:
    """Carry out one step and return how many held runs it deleted."""
    pause = state.pausing
    if step in (Step.PAUSE_QUEUE, Step.DESCRIBE_PAUSE) and pause is not None:
        # First: should it fail, the queue still differs and the next call does both.
        _schedule_reconciliation(api, pause, now=store.views.now())
        # One request, so that nobody sees the one without the other.
        api.update_work_queue(queue.id, is_paused=True, description=with_pause(queue.description, pause))
    elif step is Step.RESUME_QUEUE:
        deleted = delete_surplus_runs(api, queue.id, now=store.views.now())
        api.update_work_queue(queue.id, is_paused=False, description=without_pause(queue.description))
        return deleted
    elif step is Step.CLEAR_DESCRIPTION:
        api.update_work_queue(queue.id, is_paused=False, description=without_pause(queue.description))
    elif step is Step.PAUSE_CLIENT:
        begun = store.pauses.open(client.id, None, cause="person", reason=_REASON, set_by=PERSON)
        if begun is not None:
            observer.paused(client, begun)
    elif step is Step.RESUME_CLIENT and store.pauses.resume(client.id, by=PERSON):
        # Otherwise someone else has resumed it since, and has notified the observer.
        observer.resumed(client, by=PERSON)
    return 0


def _schedule_reconciliation(api: SyncPrefectClient, pause: OpenPause, *, now: datetime) -> None:
    """Schedule a run of `pauses` for the end of the pause, which resumes the queue: held runs would wait for the next one."""
    if pause.until is None:
        return
    at = datetime.fromtimestamp(math.ceil(pause.until.timestamp() / _SLOT) * _SLOT, UTC)
    if at <= now:
        return
    try:
        deployment = api.read_deployment_by_name(PAUSES_DEPLOYMENT)
    except ObjectNotFound:
        log.debug("no deployment %s: held runs wait for the next flow run, `syncs maintain` or `syncs resume`", PAUSES_DEPLOYMENT)
        return
    # With this key, a second request for the same moment returns the same run.
    api.create_flow_run_from_deployment(
        deployment.id, state=Scheduled(scheduled_time=at), idempotency_key=f"syncs-pauses-{at:%Y%m%dT%H%M%S}"
    )


def _queues(api: SyncPrefectClient, names: Collection[str]) -> dict[str, WorkQueue]:
    # Up to a page of names are asked for by name; for more, it is quicker to read all queues of the pool.
    named = WorkQueueFilter(name=WorkQueueFilterName(any_=list(names))) if len(names) <= PAGE_SIZE else None
    try:
        found = read_all(api.read_work_queues, work_pool_name=POOL, work_queue_filter=named)
        return {queue.name: queue for queue in found if queue.name in names}
    except ObjectNotFound:
        log.debug("no work pool %s: nothing to show pauses on", POOL)
        return {}
