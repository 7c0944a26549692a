"""The automations of this project, made or brought up to date by name: Prefect's own ways make a double each time."""

from datetime import timedelta

from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient

from flows.orchestration.applied import Applied

FLOWS = ("sync", "work", "maintain")
#: Three heartbeats of 30 s.
_SILENCE = timedelta(seconds=90)
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


def apply_automations(client: SyncPrefectClient) -> list[Applied]:
    """Make the automations, or bring them up to date; doubles are deleted."""
    return [_apply(client, zombie_automation())]


def _apply(client: SyncPrefectClient, wanted: AutomationCore) -> Applied:
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
