"""Work pool, work queues and deployments on the server. `prefect.yaml` is a file to hand over; Prefect's own command reads it."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from uuid import UUID

import prefect
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate, WorkPoolCreate
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import WorkQueue
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.errors import UsageError
from flows.orchestration.applied import Applied

POOL = "syncs"
FILE = "prefect.yaml"
_VARIABLE = "sync_clients_deployed"
_PAGE = 200
#: The modules beside this one that deployments name as their entrypoints.
_FLOWS = ("holds.py", "runs.py")


def apply_pool(client: SyncPrefectClient) -> Applied:
    """Make the work pool unless it is there."""
    try:
        client.read_work_pool(POOL)
        return Applied("work pool", POOL, "unchanged")
    except ObjectNotFound:
        pool = WorkPoolCreate(
            name=POOL,
            type=ProcessWorker.type,
            description="Flow runs of sync-clients, as processes of the worker.",
            base_job_template=ProcessWorker.get_default_base_job_template(),
        )
        client.create_work_pool(pool)
        return Applied("work pool", POOL, "created")


def apply_queues(client: SyncPrefectClient, names: Iterable[str]) -> list[Applied]:
    """Make a work queue for each client; one that is there keeps its pause, limit and priority."""
    known = {queue.name for queue in _queues(client)}
    applied = []
    for name in names:
        if name not in known:
            client.create_work_queue(name, work_pool_name=POOL)
        applied.append(Applied("work queue", name, "unchanged" if name in known else "created"))
    return applied


def _queues(client: SyncPrefectClient) -> Iterator[WorkQueue]:
    offset = 0
    while page := client.read_work_queues(work_pool_name=POOL, limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)


def apply_deployments(client: SyncPrefectClient, folder: Path, *, url: str) -> list[Applied]:
    """Hand `prefect.yaml` to `prefect deploy --all` unless this very file was deployed from this folder before.

    A deploy switches schedules back on that a person switched off in the UI, so that it must not happen without a reason.

    Args:
        folder: the project's.
        url: of the API.

    Raises:
        UsageError: `prefect deploy` refuses the file.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    mark = _mark(path)
    before = _deployed(client)
    last, names = _recall(client)
    if last == mark and set(names) <= before.keys():
        return [Applied("deployment", name, "unchanged") for name in names]
    _deploy(folder, url=url)
    changed = sorted(name for name, updated in _deployed(client).items() if before.get(name) != updated)
    _remember(client, mark, changed)
    return [Applied("deployment", name, "updated" if name in before else "created") for name in changed]


def _deploy(folder: Path, *, url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=folder,
        env={**os.environ, "PREFECT_API_URL": url, "DO_NOT_TRACK": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line.strip(" │╭╮╰╯─") for line in (done.stdout + done.stderr).splitlines()]
        reason = [line for line in lines if line][-1:] or ["it says nothing"]
        raise UsageError(f"`prefect deploy --all` refuses {folder / FILE}: {reason[0]}")


def _mark(path: Path) -> str:
    """Return a digest of all that a deployment is made of: the file, its folder, the flows' parameters, Prefect."""
    flows = [Path(__file__).with_name(name).read_bytes() for name in _FLOWS]
    parts = [path.read_bytes(), str(path.parent).encode(), *flows, prefect.__version__.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _deployed(client: SyncPrefectClient) -> dict[str, datetime | None]:
    """Return when each deployment of the pool was last changed, by `flow/deployment`."""
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    found: dict[str, datetime | None] = {}
    flows: dict[UUID, str] = {}
    while page := client.read_deployments(work_pool_filter=pool, limit=_PAGE, offset=len(found)):
        for each in page:
            if each.flow_id not in flows:
                flows[each.flow_id] = client.read_flow(each.flow_id).name
            found[f"{flows[each.flow_id]}/{each.name}"] = each.updated
    return found


def _recall(client: SyncPrefectClient) -> tuple[str, list[str]]:
    """Return the mark of the last deploy, and what it deployed."""
    variable = client.read_variable_by_name(_VARIABLE)
    match json.loads(variable.value) if variable is not None and isinstance(variable.value, str) else None:
        case {"mark": str(mark), "deployments": [*names]}:
            return mark, [str(name) for name in names]
    return "", []


def _remember(client: SyncPrefectClient, mark: str, names: list[str]) -> None:
    value = json.dumps({"mark": mark, "deployments": names})
    if client.read_variable_by_name(_VARIABLE) is None:
        client.create_variable(VariableCreate(name=_VARIABLE, value=value))
    else:
        client.update_variable(VariableUpdate(name=_VARIABLE, value=value))
