"""Brings the work queues of clients and the table of pauses together, both ways: a person's hand in Prefect counts.

It may be called at any time, by any number of processes: where they agree it asks two questions and does nothing. What we do to a
queue makes events that call it again, and then finds them agreed; that is why it cannot loop.
"""

import contextlib
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import WorkQueueFilter, WorkQueueFilterName
from prefect.client.schemas.objects import WorkQueue
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from prefect.states import Scheduled

from flows.declaration import Client
from flows.orchestration.backlog import thin_out
from flows.orchestration.deployments import POOL
from flows.orchestration.sign import Step, next_step, with_sign, without_sign
from flows.teller import SILENT, Teller
from jobs import LockHeld, LockLost
from jobs.pause import Pausing, Standing
from jobs.store import JobStore

log = logging.getLogger("syncs.mirror")

DEPLOYMENT = "pauses/pauses"
"""Its runs look again when a pause has ended."""

SHARED = "default"
"""The queue that `work` and `maintain` go through, and these very runs: no client's, whatever a client is called."""

PERSON = "Prefect"
"""Whoever used a switch in Prefect: it knows no names."""

_REASON = "paused in Prefect"
_TIMEOUT = 5.0
#: A server on SQLite answers 503 now and then, while its database is locked.
_RETRIES = 3
_PAGE = 200
#: So many steps bring any two states together; more would mean that somebody works against us.
_STEPS = 6
#: The ends of pauses that lie this close share a run.
_SLOT = 5


@dataclass(frozen=True, slots=True)
class Change:
    """What was done for one client."""

    client: str
    step: Step
    #: Runs that were deleted because another one stands for them.
    dropped: int = 0

    def __str__(self) -> str:
        text = {
            Step.PAUSE: "work queue paused",
            Step.SIGN: "description of the work queue brought up to date",
            Step.RELEASE: f"work queue resumed, {self.dropped} surplus runs deleted" if self.dropped else "work queue resumed",
            Step.CLEAN: "description of the work queue restored",
            Step.ADOPT: "paused, as its work queue was in Prefect",
            Step.OBEY: "resumed, as its work queue was in Prefect",
        }.get(self.step, self.step.value)
        return f"{self.client}: {text}"


@contextlib.contextmanager
def hasty_client(url: str | None = None) -> Iterator[SyncPrefectClient]:
    """Open a client that gives up within seconds: nobody waits for what is only shown.

    Args:
        url: of the API; by default what Prefect's settings say.
    """
    updates: dict[Any, Any] = {PREFECT_CLIENT_MAX_RETRIES: _RETRIES}
    if url is not None:
        updates[PREFECT_API_URL] = url
    # With settings of its own it is a client of its own, also within a flow run.
    with temporary_settings(updates=updates), get_client(sync_client=True, httpx_settings={"timeout": _TIMEOUT}) as api:
        yield api


def reconcile(
    api: SyncPrefectClient,
    store: JobStore,
    clients: Mapping[str, Client],
    *,
    only: Collection[str] | None = None,
    told: Teller = SILENT,
) -> list[Change]:
    """Let each client's work queue say what the table says, and the table what a person did to the queue.

    Args:
        api: of the server.
        store: where pauses are.
        clients: by id, as declared. One without a work queue is left out.
        only: ids of the clients to look at; all by default.
        told: hears of a person's pauses and resumes.

    Returns:
        What was done, in the order it was done.

    Raises:
        Exception: the server or the database failed; what is done stays done, and the next one goes on.
    """
    names = [name for name in clients if name != SHARED and (only is None or name in only)]
    if not names:
        return []
    # The queues first: what the table says is then never older than they are.
    queues = _queues(api, names)
    paused = {pausing.client: pausing for pausing in store.pauses()}
    done: list[Change] = []
    for name, queue in queues.items():
        # Without its generation and reopening, which matter only where something is to be done.
        standing = Standing(0, paused.get(name))
        if _step(queue, standing) is not Step.NOTHING:
            done += _settle(api, store, clients[name], told)
    return done


def _settle(api: SyncPrefectClient, store: JobStore, client: Client, told: Teller) -> list[Change]:
    done: list[Change] = []
    try:
        # One at a time, fleet-wide: two that see the same queue would both pause its client.
        with store.lock(f"mirror:{client.id}", wait=_TIMEOUT):
            for _ in range(_STEPS):
                queue = _queues(api, [client.id]).get(client.id)
                if queue is None:
                    break
                standing = store.standing(client.id)
                step = _step(queue, standing)
                if step is Step.NOTHING:
                    break
                change = _do(api, store, client, queue, standing, step, told)
                log.info("%s", change)
                done.append(change)
    except LockHeld:
        log.debug("%s: another process is at it", client.id)
    except LockLost:
        log.debug("%s: another process went on with it", client.id)
    except ObjectNotFound:
        log.debug("%s: its work queue was deleted", client.id)
    return done


def _step(queue: WorkQueue, standing: Standing) -> Step:
    return next_step(paused=queue.is_paused, description=queue.description, standing=standing)


def _do(
    api: SyncPrefectClient,
    store: JobStore,
    client: Client,
    queue: WorkQueue,
    standing: Standing,
    step: Step,
    told: Teller,
) -> Change:
    dropped = 0
    pausing = standing.pausing
    if step in (Step.PAUSE, Step.SIGN) and pausing is not None:
        # First: should it fail, the queue still differs, and whoever looks next does both.
        _look_at_its_end(api, pausing, now=store.now())
        # One request, so that nobody ever sees the one without the other.
        api.update_work_queue(queue.id, is_paused=True, description=with_sign(queue.description, pausing))
    elif step is Step.RELEASE:
        dropped = thin_out(api, queue.id, now=store.now())
        api.update_work_queue(queue.id, is_paused=False, description=without_sign(queue.description))
    elif step is Step.CLEAN:
        api.update_work_queue(queue.id, is_paused=False, description=without_sign(queue.description))
    elif step is Step.ADOPT:
        begun = store.pause(client.id, None, cause="person", reason=_REASON, set_by=PERSON)
        if begun is not None:
            told.paused(client, begun)
    elif step is Step.OBEY and store.resume(client.id, by=PERSON):
        # Else somebody has resumed it since we looked, and has told of it.
        told.resumed(client, by=PERSON)
    return Change(client.id, step, dropped)


def _look_at_its_end(api: SyncPrefectClient, pausing: Pausing, *, now: datetime) -> None:
    """Have a run look again when the pause ends: held runs must not wait for somebody to come by."""
    if pausing.until is None:
        return
    at = datetime.fromtimestamp(math.ceil(pausing.until.timestamp() / _SLOT) * _SLOT, UTC)
    if at <= now:
        return
    try:
        deployment = api.read_deployment_by_name(DEPLOYMENT)
    except ObjectNotFound:
        log.debug("no deployment %s: held runs go on when a run, `syncs maintain` or a resume comes by", DEPLOYMENT)
        return
    # Whoever asks again for the same moment gets the same run.
    api.create_flow_run_from_deployment(
        deployment.id, state=Scheduled(scheduled_time=at), idempotency_key=f"syncs-pauses-{at:%Y%m%dT%H%M%S}"
    )


def _queues(api: SyncPrefectClient, names: Collection[str]) -> dict[str, WorkQueue]:
    # Few names are asked for by name; a project's many come quicker with all the pool has.
    named = WorkQueueFilter(name=WorkQueueFilterName(any_=list(names))) if len(names) <= _PAGE else None
    found: dict[str, WorkQueue] = {}
    offset = 0
    try:
        while True:
            page = api.read_work_queues(work_pool_name=POOL, work_queue_filter=named, limit=_PAGE, offset=offset)
            found |= {queue.name: queue for queue in page if queue.name in names}
            offset += len(page)
            if len(page) < _PAGE:
                break
    except ObjectNotFound:
        log.debug("no work pool %s: nothing to show pauses on", POOL)
    return found
