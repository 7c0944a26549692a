"""Creates and updates what this project needs on a Prefect server: pool, queues, deployments, automations. Idempotent."""

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

from flows.orchestration.deploy.automations import apply_automations
from flows.orchestration.deploy.declared_deployments import apply_declared
from flows.orchestration.deploy.deployments import apply_deployments, apply_pool, apply_queues, deployments_in_file
from flows.orchestration.deploy.project_variable import apply_project
from flows.orchestration.notices.alerts import apply_alerts
from flows.orchestration.prefect_client import open_client
from flows.orchestration.server_names import POOL, Applied
from flows.project import registry
from flows.project.prefect_address import OPEN_SERVER, is_open


def setup(url: str, *, folder: Path | None = None, warn: Callable[[str], None] | None = None) -> list[Applied]:
    """Create what is missing on the server and update what differs.

    Args:
        url: of the API.
        folder: the project's, with or without a `prefect.yaml`; by default the working directory.
        warn: is called with one line for each recipient that cannot be used, for a server that another project was set up on,
            and for one that is open to all.

    Raises:
        UsageError: `prefect.yaml` cannot be deployed.
    """
    if warn is not None and is_open(url):
        warn(f"{OPEN_SERVER}; set PREFECT_SERVER_API_AUTH_STRING where it is started, and PREFECT_API_AUTH_STRING here")
    with open_client(url) as client:
        return [apply_pool(client), *apply_rest(client, url, folder or Path.cwd(), warn=warn)]


def apply_rest(client: SyncPrefectClient, url: str, folder: Path, *, warn: Callable[[str], None] | None = None) -> list[Applied]:
    """Apply everything that needs the work pool.

    Raises:
        UsageError: `prefect.yaml` cannot be deployed.
    """
    declared = registry.load()
    return [
        *apply_queues(client, declared.clients),
        *apply_deployments(client, folder, url=url),
        *apply_declared(client, declared, folder, skipped=deployments_in_file(folder)),
        *apply_automations(client),
        *apply_alerts(client, declared, warn=warn),
        apply_project(client, folder, warn),
    ]


def crash_leftover_runs(client: SyncPrefectClient) -> int:
    """Set a final state for the flow runs of a worker that has ended, and return how many there were."""
    left = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    found = client.read_flow_runs(
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=left))),
        limit=200,
    )
    message = "Its worker has ended. Its jobs are requeued by themselves."
    for run in found:
        cancelling = run.state_type is StateType.CANCELLING
        state: State[Any] = Cancelled(message=message) if cancelling else Crashed(message=message)
        client.set_flow_run_state(run.id, state, force=True)
    return len(found)
