"""Creates the automations that send messages: for each client and level with recipients, and for flow runs that broke down.

An automation knows only the ids of the block documents of its recipients. No alert is made of runs that turn Late while their
client is paused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefect.automations import AutomationCore, CallWebhook, EventTrigger, Posture, SendNotification
from prefect.client.orchestration import SyncPrefectClient

from flows.channels import ChannelError
from flows.channels.message import LEVELS
from flows.events import CLIENT_EVENTS
from flows.orchestration.deploy.automations import apply_automation
from flows.orchestration.notices.alert_texts import MESSAGE, NO_WORKER, QUEUE_BREAKDOWN, AlertTexts, breakdown_texts
from flows.orchestration.notices.block_documents import RecipientBlocks
from flows.orchestration.prefect_client import read_all
from flows.orchestration.server_names import (
    ALERT_PREFIX,
    BY_HAND_TAG,
    CLIENT_LABEL,
    LEVEL_LABEL,
    NOT_RUN,
    NOTICE_EVENT,
    POOL,
    SHARED_QUEUE,
    Applied,
    alert_name,
)
from flows.project.registry import Registry
from flows.project.settings import project_settings

log = logging.getLogger("syncs.channels")

#: The flows whose breakdowns are reported; a person waits for the others.
_FLOWS = ("sync", "work", "maintain", "pauses")

#: A worker that is restarted, or a machine that boots, is no alert.
WORKERLESS = timedelta(minutes=5)
#: A run that breaks down each minute is one message an hour.
BREAKDOWNS = timedelta(hours=1)

_BREAKDOWN_STATES = {"prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"}
# Messages of runs that failed before or beside the engine, which reports all other failures itself.
_UNREPORTED = [
    f"{NOT_RUN}*",
    "Flow run encountered an exception*",
    "Flow could not be retrieved*",
    "Validation of flow parameters*",
]


@dataclass(frozen=True, slots=True)
class Alert:
    """One automation that should be there.

    Args:
        name: without the prefix.
        level: of its messages.
        recipients: as declared.
        trigger: what starts it.
        texts: of its messages.
    """

    name: str
    level: str
    recipients: tuple[str, ...]
    trigger: EventTrigger
    texts: AlertTexts = MESSAGE


def alerts(registry: Registry, global_recipients: Mapping[str, Sequence[str]]) -> list[Alert]:
    """Return the automations that the declarations ask for.

    Args:
        registry: what is declared.
        global_recipients: by level, for what clients leave out.
    """
    wanted: list[Alert] = []
    global_errors = _unique(global_recipients.get("error", ()))
    everybody = [*global_errors]
    for client in registry.clients.values():
        for level in LEVELS:
            own = getattr(client.notify, level)
            found = _unique(global_recipients.get(level, ()) if own is None else own)
            wanted.append(Alert(alert_name(client.id, level), level, found, _message_trigger(client.id, level)))
        # `found` is now that of the last level, `error`.
        everybody += found
        to = _unique([*global_errors, *found])
        wanted += _breakdowns(f"{client.id} of runs that broke down", to, queue=client.id)
        wanted.append(_by_hand(client.id, to))
    # No client can have this name.
    wanted += _breakdowns("everybody of runs of no client that broke down", global_errors, queue=SHARED_QUEUE)
    wanted.append(Alert("everybody that no worker is there", "error", _unique(everybody), _workerless_trigger(), NO_WORKER))
    return [one for one in wanted if one.recipients]


def apply_alerts(
    client: SyncPrefectClient,
    registry: Registry,
    global_recipients: Mapping[str, Sequence[str]] | None = None,
    *,
    warn: Callable[[str], None] | None = None,
) -> list[Applied]:
    """Create and update blocks and automations, and delete those that are no longer declared.

    Nothing is deleted while a file with declarations cannot be read, because its clients may be in it.

    Args:
        client: of the server.
        registry: what is declared.
        global_recipients: by level; by default those of SYNCS_NOTIFY_NOTICE, …_WARNING and …_ERROR.
        warn: is called with one line for each recipient that cannot be used and is left out; by default the log.
    """
    settings = project_settings()
    found = {level: getattr(settings, f"notify_{level}") for level in LEVELS} if global_recipients is None else global_recipients
    blocks = RecipientBlocks(client)
    applied: list[Applied] = []
    kept: set[str] = set()
    #: By reason, with the first alert: one recipient may be in many alerts.
    unusable: dict[str, str] = {}
    for alert in alerts(registry, found):
        actions: list[SendNotification | CallWebhook] = []
        for recipient in alert.recipients:
            try:
                actions.append(_action(blocks, recipient, alert))
            except ChannelError as error:
                unusable.setdefault(str(error), alert.name)
        if actions:
            automation = _automation(alert, actions)
            applied.append(apply_automation(client, automation))
            kept.add(automation.name)
    for reason, name in unusable.items():
        (warn or log.warning)(f"{name}: a recipient is left out: {reason}")
    applied = [*blocks.applied, *applied]
    if not registry.broken:
        applied += _delete_others(client, kept)
        applied += blocks.delete_others()
    return applied


def _action(blocks: RecipientBlocks, recipient: str, alert: Alert) -> SendNotification | CallWebhook:
    block, is_webhook = blocks.apply(recipient, alert.level)
    if is_webhook:
        return CallWebhook(block_document_id=block, payload=alert.texts.post)
    return SendNotification(block_document_id=block, subject=alert.texts.subject, body=alert.texts.body)


def _automation(alert: Alert, actions: list[SendNotification | CallWebhook]) -> AutomationCore:
    return AutomationCore(
        name=ALERT_PREFIX + alert.name,
        description="Made by `syncs setup` from Notify(…) and the project's settings; to change who hears, change these.",
        enabled=True,
        trigger=alert.trigger,
        actions=actions,
    )


def _delete_others(client: SyncPrefectClient, kept: set[str]) -> list[Applied]:
    found = read_all(client.read_automations)
    gone = [one for one in found if one.name.startswith(ALERT_PREFIX) and one.name not in kept]
    for one in gone:
        client.delete_automation(one.id)
    return [Applied("automation", one.name, "deleted") for one in gone]


# -- triggers ------------------------------------------------------------------------------------------------------------------


def _message_trigger(client: str, level: str) -> EventTrigger:
    return EventTrigger(
        expect={*CLIENT_EVENTS, NOTICE_EVENT},
        match={"prefect.resource.id": "sync.*", CLIENT_LABEL: _literal(client), LEVEL_LABEL: level},
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def _breakdown_trigger(
    expect: set[str], related: list[dict[str, Any]], for_each: str, message: list[str] | None = None
) -> EventTrigger:
    match: dict[str, Any] = {"prefect.resource.id": "prefect.flow-run.*"}
    if message is not None:
        match["prefect.state-message"] = message
    return EventTrigger(
        expect=expect,
        match=match,
        match_related=related,
        for_each={for_each},
        posture=Posture.Reactive,
        threshold=1,
        within=BREAKDOWNS,
    )


def _breakdowns(name: str, recipients: tuple[str, ...], *, queue: str) -> list[Alert]:
    related: list[dict[str, Any]] = [
        {"prefect.resource.role": "flow", "prefect.resource.name": list(_FLOWS)},
        {"prefect.resource.role": "work-queue", "prefect.resource.name": _literal(queue)},
        {"prefect.resource.role": "work-pool", "prefect.resource.name": POOL},
    ]
    each = "related:work-queue:prefect.resource.name"
    crashed = _breakdown_trigger(_BREAKDOWN_STATES, related, each)
    failed = _breakdown_trigger({"prefect.flow-run.Failed"}, related, each, _UNREPORTED)
    return [
        Alert(f"{name}: crashed", "error", recipients, crashed, QUEUE_BREAKDOWN),
        Alert(f"{name}: failed", "error", recipients, failed, QUEUE_BREAKDOWN),
    ]


def _by_hand(client: str, recipients: tuple[str, ...]) -> Alert:
    """Return the alert about runs that `syncs run` made in its own process: they are in no work queue."""
    related: list[dict[str, Any]] = [
        {"prefect.resource.role": "flow", "prefect.resource.name": "sync"},
        {"prefect.resource.role": "tag", "prefect.resource.id": _literal(f"prefect.tag.{BY_HAND_TAG}{client}")},
    ]
    trigger = _breakdown_trigger(_BREAKDOWN_STATES, related, "prefect.resource.name")
    texts = breakdown_texts("that `syncs run` began", json.dumps(client))
    return Alert(f"{client} of runs that broke down: by hand", "error", recipients, trigger, texts)


def _workerless_trigger() -> EventTrigger:
    return EventTrigger(
        after={"prefect.work-pool.not-ready"},
        expect={"prefect.work-pool.ready", "prefect.work-pool.paused"},
        match={"prefect.resource.id": "prefect.work-pool.*", "prefect.resource.name": POOL},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=WORKERLESS,
    )


def _literal(text: str) -> str:
    """Return a label pattern that matches only this text; labels are matched as file names are."""
    escaped = text.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
    return f"?{escaped[1:]}" if escaped.startswith("!") else escaped


def _unique(recipients: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(recipients))
