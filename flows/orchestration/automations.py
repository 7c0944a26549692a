"""The automations of this project, made or brought up to date by name: Prefect's own ways make a double each time."""

import contextlib
from datetime import timedelta
from uuid import UUID

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture, RunDeployment
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

from flows.orchestration.applied import Applied
from flows.orchestration.deployments import POOL
from flows.orchestration.mirror import DEPLOYMENT

FLOWS = ("sync", "work", "maintain", "pause", "resume", "pauses")
#: Three heartbeats of 30 s.
_SILENCE = timedelta(seconds=90)
#: Seconds in which events about work queues are one.
_GATHERING = timedelta(seconds=2)
_MESSAGE = "No heartbeat for 90 s: the process is gone. Its jobs go back by themselves."


def zombie_automation() -> AutomationCore:
    """Return the automation that crashes flow runs whose process is gone.

    A worker that gets SIGTERM kills its flow runs and leaves them `Running` for ever (PrefectHQ/prefect#16746, #22528). Only runs
    that have sent a heartbeat are looked at, and only those of this project's flows.
    """
    return AutomationCore(
        name="sync-clients: crash zombie flow runs",
        description="A flow run of this project that was silent for 90 s has lost its process. Its jobs go back by themselves.",
        enabled=True,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=_SILENCE,
        ),
        actions=[ChangeFlowRunState(state="CRASHED", message=_MESSAGE)],
    )


def mirror_automation(deployment_id: UUID) -> AutomationCore:
    """Return the automation that looks at the work queues when one was paused or resumed, by a person or by us.

    Its trigger fires at the first such event, and then not for two seconds: a thousand queues that are paused at once, or that a
    worker finds again after a restart, are one run or two. That one begins when the two seconds are over, so that no event comes
    too late for it. There is no `prefect.work-queue.resumed`: a queue that goes on is ready, or not ready without a worker.

    Args:
        deployment_id: of `pauses/pauses`.
    """
    return AutomationCore(
        name="sync-clients: work queues and pauses agree",
        description="Pausing or resuming a client's work queue pauses or resumes the client.",
        enabled=True,
        trigger=EventTrigger(
            expect={"prefect.work-queue.paused", "prefect.work-queue.ready", "prefect.work-queue.not-ready"},
            match={"prefect.resource.id": ["prefect.work-queue.*"]},
            match_related={"prefect.resource.role": "work-pool", "prefect.resource.name": POOL},
            posture=Posture.Reactive,
            threshold=1,
            within=_GATHERING,
        ),
        actions=[RunDeployment(source="selected", deployment_id=deployment_id, schedule_after=_GATHERING)],
    )


def apply_automations(client: SyncPrefectClient) -> list[Applied]:
    """Make the automations, or bring them up to date; doubles are deleted."""
    wanted = [zombie_automation()]
    # A project with a `prefect.yaml` of its own may have no such deployment.
    with contextlib.suppress(ObjectNotFound):
        wanted.append(mirror_automation(client.read_deployment_by_name(DEPLOYMENT).id))
    return [apply_automation(client, each) for each in wanted]


def apply_automation(client: SyncPrefectClient, wanted: AutomationCore) -> Applied:
    """Make one automation, or bring the one of its name up to date; doubles are deleted."""
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return Applied("automation", wanted.name, "created")
    kept, *doubles = found
    for double in doubles:
        client.delete_automation(double.id)
    if not doubles and _meaning(kept.model_dump(mode="json")) == _meaning(wanted.model_dump(mode="json")):
        return Applied("automation", wanted.name, "unchanged")
    # A person may have switched it off; what it does is ours, whether it does it is theirs.
    wanted.enabled = kept.enabled
    client.update_automation(kept.id, wanted)
    return Applied("automation", wanted.name, "updated")


def _meaning(body: object) -> object:
    """Return what counts when two automations are compared: no ids, no order, not whether it is on."""
    if isinstance(body, dict):
        return {key: _meaning(value) for key, value in body.items() if key not in ("id", "enabled") and value is not None}
    if isinstance(body, list):
        return sorted((_meaning(value) for value in body), key=repr)
    return body
