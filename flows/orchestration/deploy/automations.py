"""Creates or updates the automations of this project by name; Prefect's own create makes a duplicate each time (3.9.1)."""

import contextlib
from datetime import timedelta
from uuid import UUID

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture, RunDeployment
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

from flows.orchestration.server_names import FLOWS, PAUSES_AUTOMATION, PAUSES_DEPLOYMENT, POOL, ZOMBIE_AUTOMATION, Applied

#: Three heartbeats of 30 s.
_SILENCE = timedelta(seconds=90)
#: Events about work queues within this time start one run.
_GATHERING = timedelta(seconds=2)
_MESSAGE = "No heartbeat for 90 s: the process is gone. Its jobs go back by themselves."


def zombie_automation() -> AutomationCore:
    """Return the automation that crashes flow runs whose process is gone.

    A worker that gets SIGTERM kills its flow runs and leaves them `Running` for ever (PrefectHQ/prefect#16746 and #22528, seen
    with 3.9.1). Only runs that have sent a heartbeat count, and only those of this project's flows.
    """
    return AutomationCore(
        name=ZOMBIE_AUTOMATION,
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


def pauses_automation(deployment_id: UUID) -> AutomationCore:
    """Return the automation that runs `pauses` when a work queue was paused or resumed, by a person or by us.

    Its trigger fires at the first such event, and then not for two seconds: a thousand queues that are paused at once, or that a
    worker finds again after a restart, make one run or two. That run begins when the two seconds are over, so that it sees all of
    these events. Prefect 3.9.1 has no event `prefect.work-queue.resumed`: a resumed queue becomes ready, or without a worker not
    ready.

    Args:
        deployment_id: of `pauses/pauses`.
    """
    return AutomationCore(
        name=PAUSES_AUTOMATION,
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
    """Create or update all automations of `prefect.yaml`'s flows, and delete their duplicates."""
    wanted = [zombie_automation()]
    # The user's own `prefect.yaml` may have no such deployment.
    with contextlib.suppress(ObjectNotFound):
        wanted.append(pauses_automation(client.read_deployment_by_name(PAUSES_DEPLOYMENT).id))
    return [apply_automation(client, each) for each in wanted]


def apply_automation(client: SyncPrefectClient, wanted: AutomationCore) -> Applied:
    """Create an automation, or update the one of its name, and delete its duplicates."""
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return Applied("automation", wanted.name, "created")
    kept, *duplicates = found
    for duplicate in duplicates:
        client.delete_automation(duplicate.id)
    if not duplicates and _meaning(kept.model_dump(mode="json")) == _meaning(wanted.model_dump(mode="json")):
        return Applied("automation", wanted.name, "unchanged")
    # A person may have switched it off, and it stays off.
    wanted.enabled = kept.enabled
    client.update_automation(kept.id, wanted)
    return Applied("automation", wanted.name, "updated")


def _meaning(body: object) -> object:
    """Return what counts when two automations are compared: everything but ids, order and whether it is enabled."""
    if isinstance(body, dict):
        return {key: _meaning(value) for key, value in body.items() if key not in ("id", "enabled") and value is not None}
    if isinstance(body, list):
        return sorted((_meaning(value) for value in body), key=repr)
    return body
