"""Deletes surplus flow runs of a paused work queue: of the overdue runs that schedules made, one of each kind is enough."""

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

from flows.orchestration.prefect_client import read_all

log = logging.getLogger("syncs.work_queues")

#: The most that the server deletes in one request (3.9.1).
_DELETE_LIMIT = 50
#: The state type SCHEDULED also has names for runs that began and wait to continue.
_HELD = ("Scheduled", "Late")
#: An older server answers so to a path that it does not have.
_UNKNOWN_PATH = (404, 405)


def delete_surplus_runs(api: SyncPrefectClient, queue_id: UUID, *, now: datetime) -> int:
    """Delete the overdue scheduled runs of a paused queue except the newest of each kind, and return how many were deleted.

    When a queue is resumed, all runs that it held start at once (3.9.1). All but one would find the work done, or be cancelled
    because another one runs. Runs that a person or an automation started stay. So does one run of each set of parameters: a
    nightly full run does more than the hourly ones.

    Args:
        api: of the server.
        queue_id: of a work queue that is still paused.
        now: of the database's clock. By a wrong clock of this machine, runs that are not due yet could be deleted too.
    """
    surplus = surplus_runs(_overdue(api, queue_id, now))
    for start in range(0, len(surplus), _DELETE_LIMIT):
        chosen = {"id": {"any_": [str(each) for each in surplus[start : start + _DELETE_LIMIT]]}}
        try:
            # Prefect's client has no method for it, and its types do not know the path (3.9.1).
            api.request("POST", "/flow_runs/bulk_delete", json={"flow_runs": chosen, "limit": _DELETE_LIMIT})  # type: ignore[arg-type]
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in _UNKNOWN_PATH:
                raise
            # Resuming the queue matters more.
            log.warning("this Prefect server cannot delete flow runs in bulk, so all runs that the work queue held will start")
            return start
    return len(surplus)


def surplus_runs(runs: Iterable[FlowRun]) -> list[UUID]:
    """Return the ids of the runs of which a newer one with the same deployment and parameters exists. Pure function.

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
    """Return the runs that should have started, the newest first."""
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=now),
    )
    return read_all(
        api.read_flow_runs,
        flow_run_filter=wanted,
        work_queue_filter=WorkQueueFilter(id=WorkQueueFilterId(any_=[queue_id])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )
