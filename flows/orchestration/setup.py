"""Brings a Prefect server to where this project wants it: pool, queues, deployments, automations. Twice is the same as once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Crashed

from flows import registry
from flows.orchestration.alerts import apply_alerts
from flows.orchestration.applied import Applied
from flows.orchestration.automations import apply_automations
from flows.orchestration.client import client_of
from flows.orchestration.deployments import POOL, apply_deployments, apply_pool, apply_queues
from flows.orchestration.project import apply_project


def setup(url: str, *, folder: Path | None = None, complain: Callable[[str], None] | None = None) -> list[Applied]:
    """Make what is missing on the server and bring up to date what differs.

    Args:
        url: of the API.
        folder: the project's, with `prefect.yaml`; by default the working directory.
        complain: is told, in one line each, of recipients that cannot be used and of a server that is another project's.

    Raises:
        UsageError: `prefect.yaml` cannot be deployed.
    """
    with client_of(url) as client:
        return [apply_pool(client), *apply_rest(client, url, folder or Path.cwd(), complain=complain)]


def apply_rest(
    client: SyncPrefectClient, url: str, folder: Path, *, complain: Callable[[str], None] | None = None
) -> list[Applied]:
    """Apply all that needs the work pool."""
    declared = registry.load()
    return [
        *apply_queues(client, declared.clients),
        *apply_deployments(client, folder, url=url),
        *apply_automations(client),
        *apply_alerts(client, declared, complain=complain),
        apply_project(client, folder, complain),
    ]


def crash_leftover_runs(client: SyncPrefectClient) -> int:
    """Give the flow runs of a worker that was ended a final state, and return how many there were."""
    left = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    found = client.read_flow_runs(
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=left))),
        limit=200,
    )
    message = "Its worker has ended. Its jobs go back by themselves."
    for run in found:
        cancelling = run.state_type is StateType.CANCELLING
        state: State[Any] = Cancelled(message=message) if cancelling else Crashed(message=message)
        client.set_flow_run_state(run.id, state, force=True)
    return len(found)
