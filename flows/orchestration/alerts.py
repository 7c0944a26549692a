"""The automations that tell people: for each client and level that has recipients, and for flow runs that broke down.

Recipients become block documents, which alone hold what is secret of them; an automation knows the ids of its blocks. All that
is made here begins with `PREFIX`, and nothing else is ever deleted. That a client's runs are Late while it is paused is no alarm.
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
from prefect.events.schemas.automations import Automation

from flows.channels import ChannelError
from flows.orchestration.applied import Applied
from flows.orchestration.automations import apply_automation
from flows.orchestration.call import TAG
from flows.orchestration.deployments import POOL
from flows.orchestration.documents import LEVELS, Blocks
from flows.orchestration.states import NOT_RUN
from flows.registry import Registry
from flows.settings import project_settings

log = logging.getLogger("syncs.channels")

PREFIX = "sync-clients: tell "
"""Of the names of automations."""

#: Those whose breaking down is news; a person waits for the others.
_RUNS = ("sync", "work", "maintain", "pauses")

CLIENT, LEVEL, NOTICE = "sync-clients.client", "sync-clients.level", "sync-clients.notice"
"""Labels of the resource of each event of ours."""

EVENTS = frozenset(
    {"sync.client.paused", "sync.client.resumed", "sync.run.failed", "sync.run.partial", "sync.run.recovered", "sync.notice"}
)
"""What the automations wait for. Those with no level label carry no message."""

#: A worker that is restarted is no news; nor is a machine that boots.
WORKERLESS = timedelta(minutes=5)
#: A run that breaks down each minute is one message an hour.
BREAKDOWNS = timedelta(hours=1)

_SUBJECT, _BODY, _POST = (f"{{{{ event.payload.{name} }}}}" for name in ("subject", "body", "post|tojson"))
"""A value is put in as it is: what looks like a template in it stays text."""

# What a run says that failed before or beside the engine, which tells of all other failures itself.
_UNTOLD = [
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
        trigger: what it waits for.
        texts: subject, body and JSON as templates.
    """

    name: str
    level: str
    recipients: tuple[str, ...]
    trigger: EventTrigger
    texts: tuple[str, str, str] = (_SUBJECT, _BODY, _POST)


def alerts(registry: Registry, global_recipients: Mapping[str, Sequence[str]]) -> list[Alert]:
    """Return the automations that the declarations ask for. Pure.

    Args:
        registry: what is declared.
        global_recipients: by level, for what clients leave out.
    """
    wanted: list[Alert] = []
    everybody: list[str] = [*global_recipients.get("error", ())]
    for client in registry.clients.values():
        for level in LEVELS:
            own = getattr(client.notify, level)
            found = _unique(global_recipients.get(level, ()) if own is None else own)
            if found:
                wanted.append(Alert(told_name(client.id, level), level, found, _ours(client.id, level)))
            if level == "error":
                everybody += found
                hear = _unique([*global_recipients.get("error", ()), *found])
                wanted += _breakdowns(f"{client.id} of runs that broke down", hear, queue=client.id)
                wanted += _by_hand(client.id, hear)
    # No client can be called so.
    wanted += _breakdowns(
        "everybody of runs of no client that broke down", _unique(global_recipients.get("error", ())), queue="default"
    )
    if hear := _unique(everybody):
        wanted.append(Alert("everybody that no worker is there", "error", hear, _workerless(), _WORKERLESS_TEXTS))
    return wanted


def told_name(client: str, level: str) -> str:
    """Return the name of the automation that carries the messages of a client and level, without the prefix."""
    return f"{client} {level}"


def apply_alerts(
    client: SyncPrefectClient,
    registry: Registry,
    global_recipients: Mapping[str, Sequence[str]] | None = None,
    *,
    complain: Callable[[str], None] | None = None,
) -> list[Applied]:
    """Make blocks and automations, bring them up to date, and delete those whose declaration has gone.

    Nothing is deleted while a file with declarations cannot be read: its clients may be in it.

    Args:
        client: of the server.
        registry: what is declared.
        global_recipients: by level; by default those of SYNCS_NOTIFY_NOTICE, …_WARNING and …_ERROR.
        complain: is told of each recipient that cannot be used, in one line, and that it is left out; by default the log.
    """
    settings = project_settings()
    found = {level: getattr(settings, f"notify_{level}") for level in LEVELS} if global_recipients is None else global_recipients
    complain = complain or log.warning
    blocks = Blocks(client)
    applied: list[Applied] = []
    kept: set[str] = set()
    complaints: dict[str, str] = {}
    for alert in alerts(registry, found):
        actions: list[SendNotification | CallWebhook] = []
        for recipient in alert.recipients:
            try:
                actions.append(_action(blocks, recipient, alert))
            except ChannelError as error:
                # Once, although it may be a recipient of many.
                complaints.setdefault(str(error), alert.name)
        if actions:
            automation = _automation(alert, actions)
            applied.append(apply_automation(client, automation))
            kept.add(automation.name)
    for reason, name in complaints.items():
        complain(f"{name}: a recipient is left out: {reason}")
    applied = [*blocks.applied, *applied]
    if not registry.broken:
        applied += _delete_automations(client, kept)
        applied += blocks.delete_others()
    return applied


def _action(blocks: Blocks, recipient: str, alert: Alert) -> SendNotification | CallWebhook:
    block, is_webhook = blocks.of(recipient, alert.level)
    subject, body, post = alert.texts
    if is_webhook:
        return CallWebhook(block_document_id=block, payload=post)
    return SendNotification(block_document_id=block, subject=subject, body=body)


def _automation(alert: Alert, actions: list[SendNotification | CallWebhook]) -> AutomationCore:
    return AutomationCore(
        name=PREFIX + alert.name,
        description="Made by `syncs setup` from Notify(…) and the project's settings; to change who hears, change these.",
        enabled=True,
        trigger=alert.trigger,
        actions=actions,
    )


def _ours(client: str, level: str) -> EventTrigger:
    match = {"prefect.resource.id": "sync.*", CLIENT: _literal(client), LEVEL: level}
    return EventTrigger(
        expect=set(EVENTS), match=match, for_each={"prefect.resource.id"}, posture=Posture.Reactive, threshold=1,
        within=timedelta(0),
    )  # fmt: skip


def _breakdowns(name: str, recipients: tuple[str, ...], *, queue: str) -> list[Alert]:
    if not recipients:
        return []
    related = [
        {"prefect.resource.role": "flow", "prefect.resource.name": list(_RUNS)},
        {"prefect.resource.role": "work-queue", "prefect.resource.name": _literal(queue)},
        {"prefect.resource.role": "work-pool", "prefect.resource.name": POOL},
    ]

    def trigger(expect: set[str], match: dict[str, Any]) -> EventTrigger:
        return EventTrigger(
            expect=expect, match={"prefect.resource.id": "prefect.flow-run.*", **match}, match_related=related,
            for_each={"related:work-queue:prefect.resource.name"}, posture=Posture.Reactive, threshold=1, within=BREAKDOWNS,
        )  # fmt: skip

    crashed = trigger({"prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"}, {})
    failed = trigger({"prefect.flow-run.Failed"}, {"prefect.state-message": _UNTOLD})
    return [
        Alert(f"{name}: crashed", "error", recipients, crashed, _BREAKDOWN_TEXTS),
        Alert(f"{name}: failed", "error", recipients, failed, _BREAKDOWN_TEXTS),
    ]


def _by_hand(client: str, recipients: tuple[str, ...]) -> list[Alert]:
    """Return what tells of runs that `syncs run` made in its own process: they are in no work queue."""
    if not recipients:
        return []
    trigger = EventTrigger(
        expect={"prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"}, match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related=[
            {"prefect.resource.role": "flow", "prefect.resource.name": "sync"},
            {"prefect.resource.role": "tag", "prefect.resource.id": _literal(f"prefect.tag.{TAG}{client}")},
        ],
        for_each={"prefect.resource.name"}, posture=Posture.Reactive, threshold=1, within=BREAKDOWNS,
    )  # fmt: skip
    texts = _breakdown_texts("that `syncs run` began", json.dumps(client))
    return [Alert(f"{client} of runs that broke down: by hand", "error", recipients, trigger, texts)]


def _workerless() -> EventTrigger:
    return EventTrigger(
        after={"prefect.work-pool.not-ready"}, expect={"prefect.work-pool.ready", "prefect.work-pool.paused"},
        match={"prefect.resource.id": "prefect.work-pool.*", "prefect.resource.name": POOL},
        for_each={"prefect.resource.id"}, posture=Posture.Proactive, threshold=1, within=WORKERLESS,
    )  # fmt: skip


def _texts(event: str, subject: str, body: str, facts: str, before: str = "") -> tuple[str, str, str]:
    """Return the templates of a message that Prefect itself words: as mail, and as JSON with the same keys as all others."""
    head = f"{before}{{% set subject %}}{subject}{{% endset %}}{{% set body %}}{body}{{% endset %}}"
    post = (
        f'{{{{ {{"event": "{event}", "level": "error", "subject": subject, "body": body, '
        f'"text": subject ~ "\\n\\n" ~ body, {facts}}}|tojson }}}}'
    )
    return f"{head}{{{{ subject }}}}", f"{head}{{{{ body }}}}", head + post


# Our own words stand as they are; of a foreign exception only the class does, for its text may quote anything.
_SAID = (
    '{% set said = flow_run.state.message or "it does not say why" %}'
    f'{{% if not said.startswith("{NOT_RUN}") %}}'
    '{% set parts = said.split(":") %}'
    '{% set said = parts[0] ~ (":" ~ parts[1].split("(")[0] if parts[0].endswith("exception") and parts|length > 1 else "") %}'
    "{% endif %}"
)


def _breakdown_texts(which: str, client: str) -> tuple[str, str, str]:
    """Return the templates of the message about a run that broke down.

    Args:
        which: what else there is to say of the run, as a template.
        client: its client, as an expression.
    """
    return _texts(
        "flow-run",
        "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}",
        f"""The flow run {{{{ flow_run.name }}}} {which} ended as {{{{ flow_run.state.name }}}}: {{{{ said }}}}

Nothing is lost by it: jobs that it had in hand go back by themselves when their leases end, and the next run goes on from there.
If it happens again: `syncs run SYNC` here and now shows why; `syncs check` looks at settings and connection.
Further ones of the next hour are not told.

{{{{ flow_run|ui_url }}}}""",
        f'"client": {client}, "flow": flow.name, "run": flow_run.id|string, "state": flow_run.state.name, '
        '"message": said, "url": flow_run|ui_url',
        _SAID,
    )


_BREAKDOWN_TEXTS = _breakdown_texts("of {{ work_queue.name }}", "work_queue.name")

_WORKERLESS_TEXTS = _texts(
    "no-worker",
    "No worker: the runs of sync-clients do not start",
    """No worker has looked at the work pool {{ work_pool.name }} for some minutes; scheduled runs wait and turn Late.

What is queued stays queued; as soon as a worker is back, its runs start.
Start one: `syncs up` on this machine, or `prefect worker start --pool {{ work_pool.name }}`. `syncs status` shows what runs.

{{ work_pool|ui_url }}""",
    '"pool": work_pool.name, "url": work_pool|ui_url',
)


def _delete_automations(client: SyncPrefectClient, kept: set[str]) -> list[Applied]:
    found: list[Automation] = []
    while page := client.read_automations(limit=200, offset=len(found)):
        found += page
    gone = [one for one in found if one.name.startswith(PREFIX) and one.name not in kept]
    for one in gone:
        client.delete_automation(one.id)
    return [Applied("automation", one.name, "deleted") for one in gone]


def _literal(text: str) -> str:
    """Return a label pattern that matches this text and no other: labels are matched as file names are."""
    escaped = text.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
    return f"?{escaped[1:]}" if escaped.startswith("!") else escaped


def _unique(recipients: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(recipients))
