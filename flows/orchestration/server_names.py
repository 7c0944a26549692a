"""The names of what this project has on a Prefect server, and what setting up did to one such thing. Imports no Prefect."""

from dataclasses import dataclass

POOL = "syncs"
"""The work pool. It has a work queue for each client, with the id of the client as its name."""

SHARED_QUEUE = "default"
"""The work queue of `work`, `maintain` and `pauses`. It is no client's, even if a client has that name."""

FLOWS = ("sync", "work", "maintain", "pause", "resume", "pauses")
"""The flows."""

PAUSES_DEPLOYMENT = "pauses/pauses"
"""The deployment that reconciles work queues and pauses."""

ZOMBIE_AUTOMATION = "sync-clients: crash zombie flow runs"
"""The automation that crashes flow runs without a heartbeat."""

PAUSES_AUTOMATION = "sync-clients: work queues and pauses agree"
"""The automation that runs `PAUSES_DEPLOYMENT` when a work queue was paused or resumed."""

DEPLOYED_VARIABLE = "sync_clients_deployed"
"""The variable that records which `prefect.yaml` was deployed last."""

PROJECT_VARIABLE = "sync_clients_project"
"""The variable that records for which project the server was set up last."""

BY_HAND_TAG = "sync-clients.by-hand."
"""With a client's id after it: the tag of flow runs that a person starts. They have no work queue that names the client."""

NOT_RUN = "Could not run: "
"""The message of a flow run that failed before its work began starts with this. Only an automation reports such a run."""

ALERT_PREFIX = "sync-clients: tell "
"""The names of the automations that send messages start with this. No other automation is ever deleted."""

BLOCK_PREFIX = "sync-clients-"
"""With a level and a dash after it: how the names of the block documents of recipients start."""

CLIENT_LABEL, LEVEL_LABEL, NOTICE_LABEL = "sync-clients.client", "sync-clients.level", "sync-clients.notice"
"""Labels of the resource of each event that carries a message."""

NOTICE_EVENT = "sync.notice"
"""The event of a message that is about none of `flows.events.CLIENT_EVENTS`."""


@dataclass(frozen=True, slots=True)
class Applied:
    """One thing that should be on the server, and what was done to it."""

    #: work pool, work queue, deployment, block, automation or variable.
    kind: str
    name: str
    #: created, updated, unchanged or deleted.
    change: str


def alert_name(client: str, level: str) -> str:
    """Return the name, without the prefix, of the automation that sends the messages of a client and level."""
    return f"{client} {level}"
