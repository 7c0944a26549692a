"""What a paused work queue has held: of the runs that its schedules made meanwhile, one of each kind is enough."""

import json
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkQueueFilter,
    WorkQueueFilterId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectHTTPStatusError

log = logging.getLogger("syncs.mirror")

_PAGE = 200
#: The most that the server deletes in one request.
_AT_ONCE = 50
#: Of type SCHEDULED are also runs that were begun and wait to go on.
_HELD = ("Scheduled", "Late")
#: What a server says of a path that it does not have, because it is an older one.
_UNKNOWN = (404, 405)


def thin_out(api: SyncPrefectClient, queue_id: UUID, *, now: datetime) -> int:
    """Delete the overdue scheduled runs of a paused queue but the newest of each deployment, and return how many went.

    Let go, they would all start at once; each but one would find its work done, or be cancelled because another one runs. Runs
    that a person or an automation started stay, and so does one of each set of parameters: a nightly full run is no double of
    the hourly ones.

    Args:
        api: of the server.
        queue_id: of a work queue that is still paused.
        now: by the one clock (law 13); by this machine's, what is yet to come could go too.
    """
    surplus = surplus_of(_overdue(api, queue_id, now))
    for start in range(0, len(surplus), _AT_ONCE):
        chosen = {"id": {"any_": [str(each) for each in surplus[start : start + _AT_ONCE]]}}
        try:
            # The client has no method for it, and does not know the path.
            api.request("POST", "/flow_runs/bulk_delete", json={"flow_runs": chosen, "limit": _AT_ONCE})  # type: ignore[arg-type]
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in _UNKNOWN:
                raise
            # That the queue goes on matters more.
            log.warning("this Prefect server cannot delete flow runs in bulk: what was held all runs")
            return start
    return len(surplus)


def surplus_of(runs: Iterable[FlowRun]) -> list[UUID]:
    """Return the ids of the runs that another one stands for. Pure.

    Args:
        runs: the newest first.
    """
    seen: set[tuple[UUID, str]] = set()
    surplus = []
    for run in runs:
        if not run.auto_scheduled or run.deployment_id is None or run.state_name not in _HELD:
            continue
        kind = (run.deployment_id, json.dumps(run.parameters, sort_keys=True, default=str))
        if kind in seen:
            surplus.append(run.id)
        seen.add(kind)
    return surplus


def _overdue(api: SyncPrefectClient, queue_id: UUID, now: datetime) -> Iterator[FlowRun]:
    """Yield what should have started, the newest first."""
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=now),
    )
    queue, offset = WorkQueueFilter(id=WorkQueueFilterId(any_=[queue_id])), 0
    while True:
        page = api.read_flow_runs(
            flow_run_filter=wanted,
            work_queue_filter=queue,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=_PAGE,
            offset=offset,
        )
        yield from page
        offset += len(page)
        if len(page) < _PAGE:
            return
