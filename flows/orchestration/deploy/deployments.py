"""Creates the work pool, the work queues and the deployments of `prefect.yaml` on a Prefect server."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from uuid import UUID

import prefect
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate, WorkPoolCreate
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.errors import UsageError
from flows.orchestration.prefect_client import read_all
from flows.orchestration.server_names import DEPLOYED_VARIABLE, POOL, Applied
from flows.project.loopback import is_loopback, without_proxy
from flows.project.prefect_auth import auth_string_for
from sync_clients import in_the_way

FILE = "prefect.yaml"
_OURS_FIRST = (
    "import runpy, clients, jobs, flows.orchestration.pause_flows, flows.orchestration.runs\n"
    'runpy.run_module("prefect", run_name="__main__", alter_sys=True)'
)
#: The modules of `flows/orchestration` that deployments name as their entrypoints.
_FLOW_FILES = ("pause_flows.py", "runs.py")


def apply_pool(client: SyncPrefectClient) -> Applied:
    """Create the work pool unless it exists."""
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
    """Create a work queue for each client. One that exists keeps its pause, limit and priority."""
    known = {queue.name for queue in read_all(client.read_work_queues, work_pool_name=POOL)}
    applied = []
    for name in names:
        if name not in known:
            client.create_work_queue(name, work_pool_name=POOL)
        applied.append(Applied("work queue", name, "unchanged" if name in known else "created"))
    return applied


def apply_deployments(client: SyncPrefectClient, folder: Path, *, url: str) -> list[Applied]:
    """Run `prefect deploy --all` unless this version of `prefect.yaml` was deployed from this folder before.

    A deploy makes schedules without a `slug` anew, which switches on what a person switched off in the UI (3.9.1), so nothing is
    deployed without a change.

    Args:
        folder: the project's.
        url: of the API.

    Raises:
        UsageError: `prefect deploy` refuses the file.
    """
    path = folder / FILE
    if not deployments_in_file(folder):
        return []
    digest = _digest(path)
    before = _deployed(client)
    last, names = _recall(client)
    if last == digest and set(names) <= before.keys():
        return [Applied("deployment", name, "unchanged") for name in names]
    _deploy(folder, url=url)
    changed = sorted(name for name, updated in _deployed(client).items() if before.get(name) != updated)
    _remember(client, digest, changed)
    return [Applied("deployment", name, "updated" if name in before else "created") for name in changed]


def deployments_in_file(folder: Path) -> frozenset[str]:
    """Return `flow/deployment` of what the project's `prefect.yaml` describes; nothing where there is no such file.

    Args:
        folder: the project's.

    Raises:
        UsageError: the file is no YAML with a list of deployments.
    """
    path = folder / FILE
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read: {reason}") from error
    found = (document or {}).get("deployments") if isinstance(document, dict | None) else ()
    if found is not None and not (isinstance(found, list) and all(isinstance(each, dict) for each in found)):
        raise UsageError(f"{path} must have a list named deployments")
    return frozenset(f"{_flow_name(str(each.get('entrypoint')))}/{each.get('name')}" for each in found or ())


def _flow_name(entrypoint: str) -> str:
    # Prefect gives a flow the name of its function, with dashes, unless it is told otherwise; ours have names without.
    return entrypoint.replace(":", ".").rsplit(".", 1)[-1].replace("_", "-")


def _deploy(folder: Path, *, url: str) -> None:
    more = without_proxy(os.environ) if is_loopback(url) else {}
    if auth_string := auth_string_for(url):
        more["PREFECT_API_AUTH_STRING"] = auth_string
    command = [sys.executable, "-m", "prefect"]
    if in_the_way(folder):
        # Prefect puts the folder at the head of Python's path (3.9.1), so ours have to be there before.
        command = [sys.executable, "-P", "-c", _OURS_FIRST]
    done = subprocess.run(  # noqa: S603 - the command is ours
        [*command, "--no-prompt", "deploy", "--all"],
        cwd=folder,
        env={**os.environ, **more, "PREFECT_API_URL": url, "DO_NOT_TRACK": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line.strip(" │╭╮╰╯─") for line in (done.stdout + done.stderr).splitlines()]
        reason = [line for line in lines if line][-1:] or ["it printed nothing"]
        raise UsageError(f"`prefect deploy --all` refuses {folder / FILE}: {reason[0]}")


def _digest(path: Path) -> str:
    """Return a digest of all that the deployments depend on: the file, its folder, the flows, the version of Prefect."""
    flows = [Path(__file__).parents[1].joinpath(name).read_bytes() for name in _FLOW_FILES]
    parts = [path.read_bytes(), str(path.parent).encode(), *flows, prefect.__version__.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _deployed(client: SyncPrefectClient) -> dict[str, datetime | None]:
    """Return when each deployment of the pool was last changed, by `flow/deployment`."""
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    found: dict[str, datetime | None] = {}
    flows: dict[UUID, str] = {}
    for each in read_all(client.read_deployments, work_pool_filter=pool):
        if each.flow_id not in flows:
            flows[each.flow_id] = client.read_flow(each.flow_id).name
        found[f"{flows[each.flow_id]}/{each.name}"] = each.updated
    return found


def _recall(client: SyncPrefectClient) -> tuple[str, list[str]]:
    """Return the digest of the last deploy, and the names of its deployments."""
    variable = client.read_variable_by_name(DEPLOYED_VARIABLE)
    match json.loads(variable.value) if variable is not None and isinstance(variable.value, str) else None:
        case {"mark": str(digest), "deployments": [*names]}:
            return digest, [str(name) for name in names]
    return "", []


def _remember(client: SyncPrefectClient, digest: str, names: list[str]) -> None:
    value = json.dumps({"mark": digest, "deployments": names})
    if client.read_variable_by_name(DEPLOYED_VARIABLE) is None:
        client.create_variable(VariableCreate(name=DEPLOYED_VARIABLE, value=value))
    else:
        client.update_variable(VariableUpdate(name=DEPLOYED_VARIABLE, value=value))
