"""The texts of messages that Prefect itself writes, as templates: about flow runs that broke down, and about missing workers."""

from typing import NamedTuple

from flows.orchestration.server_names import NOT_RUN


class AlertTexts(NamedTuple):
    """Templates of a message. A value is inserted as it is: what looks like a template in it stays text."""

    subject: str
    body: str
    #: The JSON for webhooks.
    post: str


MESSAGE = AlertTexts("{{ event.payload.subject }}", "{{ event.payload.body }}", "{{ event.payload.post|tojson }}")
"""Of a message that our own event carries."""


def _texts(event: str, subject: str, body: str, facts: str, before: str = "") -> AlertTexts:
    """Return the templates of a message whose JSON has the same keys as all others, and further `facts`."""
    head = f"{before}{{% set subject %}}{subject}{{% endset %}}{{% set body %}}{body}{{% endset %}}"
    post = (
        f'{{{{ {{"event": "{event}", "level": "error", "subject": subject, "body": body, '
        f'"text": subject ~ "\\n\\n" ~ body, {facts}}}|tojson }}}}'
    )
    return AlertTexts(f"{head}{{{{ subject }}}}", f"{head}{{{{ body }}}}", head + post)


# Sets `said`. Our own messages are shown as they are; of another exception only its class, because its text may quote anything.
_SAID = (
    '{% set said = flow_run.state.message or "it does not say why" %}'
    f'{{% if not said.startswith("{NOT_RUN}") %}}'
    '{% set parts = said.split(":") %}'
    '{% set said = parts[0] ~ (":" ~ parts[1].split("(")[0] if parts[0].endswith("exception") and parts|length > 1 else "") %}'
    "{% endif %}"
)


def breakdown_texts(which: str, client: str) -> AlertTexts:
    """Return the templates of the message about a flow run that broke down.

    Args:
        which: a template that tells which run it is.
        client: an expression for its client.
    """
    return _texts(
        "flow-run",
        "{{ flow.name }} {{ flow_run.name }}: {{ flow_run.state.name }}",
        f"""The flow run {{{{ flow_run.name }}}} {which} ended as {{{{ flow_run.state.name }}}}: {{{{ said }}}}

Nothing is lost: its jobs are requeued by themselves when their leases end, and the next run continues from there.
If it happens again: `syncs run SYNC` shows why; `syncs check` tests settings and connection.
About further ones in the next hour there is no message.

{{{{ flow_run|ui_url }}}}""",
        f'"client": {client}, "flow": flow.name, "run": flow_run.id|string, "state": flow_run.state.name, '
        '"message": said, "url": flow_run|ui_url',
        _SAID,
    )


QUEUE_BREAKDOWN = breakdown_texts("of {{ work_queue.name }}", "work_queue.name")

NO_WORKER = _texts(
    "no-worker",
    "No worker: the runs of sync-clients do not start",
    """No worker has looked at the work pool {{ work_pool.name }} for some minutes; scheduled runs wait and turn Late.

What is queued stays queued; as soon as a worker is back, its runs start.
Start one: `syncs up` on this machine, or `prefect worker start --pool {{ work_pool.name }}`. `syncs status` shows what runs.

{{ work_pool|ui_url }}""",
    '"pool": work_pool.name, "url": work_pool|ui_url',
)
