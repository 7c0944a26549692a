"""Creates, updates and deletes the deployments that need no `prefect.yaml`: the project's own, and one for each sync.

An update is a PATCH, which leaves alone what a person switched in the UI: a second POST of a deployment makes schedules without a
slug anew, and switches them on (3.9.1).
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.flows import Flow, load_flow_from_entrypoint

from flows.declarations.schedule import ANCHOR, Cron, Every
from flows.orchestration.prefect_client import read_all
from flows.orchestration.project_folder import PULL_STEP
from flows.orchestration.server_environment import HEARTBEAT_SECONDS
from flows.orchestration.server_names import POOL, SHARED_QUEUE, Applied
from flows.project.registry import Registry

_RUNS, _PAUSE_FLOWS = "flows.orchestration.runs", "flows.orchestration.pause_flows"
_SLUG = "declared"


@dataclass(frozen=True)
class Wanted:
    """A deployment as it should be."""

    flow: str
    name: str
    module: str
    description: str
    tags: list[str]
    queue: str = SHARED_QUEUE
    parameters: dict[str, Any] = field(default_factory=dict)
    #: The most runs at a time; a further one ends as Cancelled and says why. `None` is no limit.
    limit: int | None = 1
    schedule: Cron | Every | None = None
    slug: str = _SLUG

    @property
    def entrypoint(self) -> str:
        """The path of the flow as a module, which needs no clone of the repository."""
        return f"{self.module}.{self.flow}"

    @property
    def full_name(self) -> str:
        """As `prefect deployment run` takes it."""
        return f"{self.flow}/{self.name}"


_OWN = (
    Wanted("sync", "sync", _RUNS, "Runs the sync whose id is given as `name`.", ["sync"]),
    Wanted(
        "work", "work", _RUNS, "Processes the jobs that are due: enqueued jobs and delayed retries.", ["work"],
        schedule=Cron("*/5 * * * *"), slug="every-five-minutes",
    ),
    Wanted(
        "maintain", "maintain", _RUNS,
        "Requeues the jobs of dead workers, and removes finished jobs that their queues do not keep any longer.", ["maintain"],
        schedule=Cron("17 * * * *"), slug="hourly",
    ),
    # What a person does counts each time.
    Wanted(
        "pause", "pause", _PAUSE_FLOWS, "Pauses the client whose id is given, for so many seconds or until it is resumed.",
        ["pauses"], limit=None,
    ),
    Wanted("resume", "resume", _PAUSE_FLOWS, "Ends the pause of the client whose id is given.", ["pauses"], limit=None),
    # Two: a run that began before a change may end without seeing it; a second one, started by the change, sees it.
    Wanted(
        "pauses", "pauses", _PAUSE_FLOWS, "Makes the work queues of clients and the table of pauses agree, in both directions.",
        ["pauses"], limit=2,
    ),
)  # fmt: skip


def wanted_deployments(declared: Registry) -> Iterator[Wanted]:
    """Yield the deployments of a project: its own, and one for each sync, with its schedule if it has one."""
    yield from _OWN
    for sync in declared.syncs.values():
        if sync.id == "sync":
            continue  # `sync/sync` is there already, and takes its id as any other
        assert not isinstance(sync.schedule, str)
        what = f"Runs the sync {sync.id}, declared in {declared.files['sync', sync.id]}."
        tags = ["sync", sync.client.id]
        yield Wanted(
            "sync", deployment_name(sync.id), _RUNS, what, tags, sync.client.id, {"name": sync.id}, schedule=sync.schedule
        )


def deployment_name(sync: str) -> str:
    """Return the name of a sync's deployment: its id, but for two letters that Prefect does not take (3.9.1)."""
    name = re.sub("[%&]", "-", sync)
    return name if name == sync else f"{name}-{hashlib.blake2b(sync.encode(), digest_size=3).hexdigest()}"


def apply_declared(
    client: SyncPrefectClient, declared: Registry, folder: Path, *, skipped: Collection[str] = ()
) -> list[Applied]:
    """Create what is missing, update what differs, and delete the deployments of syncs that are no longer declared.

    While a file is broken nothing is deleted, since nobody knows what it declares.

    Args:
        client: of the server.
        declared: the project's declarations.
        folder: the project's, in which flow runs start.
        skipped: `flow/deployment` of those that the project's `prefect.yaml` describes.
    """
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    known = {(each.flow_id, each.name): each for each in read_all(client.read_deployments, work_pool_filter=pool)}
    flows: dict[str, tuple[UUID, Flow[..., Any]]] = {}
    applied: list[Applied] = []
    kept: set[UUID] = set()
    for wanted in wanted_deployments(declared):
        if wanted.flow not in flows:
            flows[wanted.flow] = client.create_flow_from_name(wanted.flow), load_flow_from_entrypoint(wanted.entrypoint)
        flow_id, flow = flows[wanted.flow]
        found = known.get((flow_id, wanted.name))
        if found is not None:
            kept.add(found.id)
        if wanted.full_name not in skipped:
            body = _body(wanted, flow, folder)
            applied.append(Applied("deployment", wanted.full_name, _apply(client, wanted, flow_id, body, found)))
    if not declared.broken and not declared.refused:
        names = {flow_id: name for name, (flow_id, _) in flows.items()}
        for each in known.values():
            name = f"{names.get(each.flow_id, '?')}/{each.name}"
            ours = any(PULL_STEP in step for step in each.pull_steps or ())
            if ours and each.id not in kept and name not in skipped:
                client.delete_deployment(each.id)
                applied.append(Applied("deployment", name, "deleted"))
    return applied


def _body(wanted: Wanted, flow: Flow[..., Any], folder: Path) -> dict[str, Any]:
    """Return what the server should have, but for the schedules and the limit."""
    return {
        "description": wanted.description,
        "parameters": wanted.parameters,
        "tags": wanted.tags,
        "work_pool_name": POOL,
        "work_queue_name": wanted.queue,
        "entrypoint": wanted.entrypoint,
        "pull_steps": [{PULL_STEP: {"directory": str(folder.absolute())}}],
        # The automation that crashes flow runs of dead processes relies on it.
        "job_variables": {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}},
        "parameter_openapi_schema": flow.parameters.model_dump_for_openapi(),
    }


def _apply(
    client: SyncPrefectClient, wanted: Wanted, flow_id: UUID, body: dict[str, Any], found: DeploymentResponse | None
) -> str:
    options = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW) if wanted.limit else None
    limit: dict[str, Any] = {"concurrency_limit": wanted.limit, "concurrency_options": options}
    if found is None:
        schedules = [_create(wanted)] if wanted.schedule is not None else []
        client.create_deployment(flow_id, wanted.name, schedules=schedules, paused=False, **body, **limit)
        return "created"
    changed = False
    has_limit = found.global_concurrency_limit.limit if found.global_concurrency_limit is not None else None
    if _meaning(found, body) != body or has_limit != wanted.limit:
        client.update_deployment(found.id, DeploymentUpdate(**body, **limit))
        changed = True
    return "updated" if _apply_schedules(client, wanted, found) or changed else "unchanged"


def _meaning(found: DeploymentResponse, body: dict[str, Any]) -> dict[str, Any]:
    known = found.model_dump(mode="json", include=set(body)) | {"work_pool_name": found.work_pool_name}
    return {name: known[name] for name in body}


def _apply_schedules(client: SyncPrefectClient, wanted: Wanted, found: DeploymentResponse) -> bool:
    """Bring the schedule of our slug up to date, and tell whether there was anything to do.

    Another schedule is a person's, and stays; but where an earlier release or `prefect.yaml` deployed it, all are ours.
    """
    ours = any(PULL_STEP in step for step in found.pull_steps or ())
    schedule = None if wanted.schedule is None else _create(wanted).schedule
    changed = False
    there = False
    for each in found.schedules:
        if each.slug == wanted.slug and schedule is not None:
            there = True
            if each.schedule.model_dump(mode="json") != schedule.model_dump(mode="json"):
                # Without `active`, so that the switch in the UI stays as it is.
                client.update_deployment_schedule(found.id, each.id, schedule=schedule)
                changed = True
        elif each.slug == wanted.slug or not ours:
            client.delete_deployment_schedule(found.id, each.id)
            changed = True
    if schedule is not None and not there:
        client.create_deployment_schedules(found.id, [_create(wanted)])
        changed = True
    return changed


def _create(wanted: Wanted) -> DeploymentScheduleCreate:
    schedule: CronSchedule | IntervalSchedule
    match wanted.schedule:
        case Cron(text, zone=zone):
            schedule = CronSchedule(cron=text, timezone=zone)
        case Every(seconds):
            schedule = IntervalSchedule(interval=timedelta(seconds=seconds), anchor_date=ANCHOR, timezone="UTC")
        case None:
            raise AssertionError
    return DeploymentScheduleCreate(schedule=schedule, slug=wanted.slug, active=True)
