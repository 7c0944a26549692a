"""Prefect as the carrier of messages: an event goes to the server, the automations of `alerts` send it, their events say so.

The event's id is made of the message's. So the server takes a message that two workers hand over for one, and whoever asks
later what became of it needs nothing but the message.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectHTTPStatusError

from flows.channels import Message
from flows.channels.block import parts
from flows.channels.message import ChannelError
from flows.channels.recipient import scheme
from flows.channels.webhook import document
from flows.orchestration.alerts import CLIENT, EVENTS, LEVEL, NOTICE, PREFIX, told_name
from flows.orchestration.client import client_of
from flows.orchestration.documents import block_name

log = logging.getLogger("syncs.channels")

#: Seconds for each request to the server: whoever tells of trouble must not wait for a server that is in trouble too.
TIMEOUT = 5.0
#: Seconds that what was read of automations and blocks is taken to be so.
_FRESH = 60.0
_SPACE = uuid.UUID("6f3ce1a0-0f3e-5c6e-8f5c-2d6a3b1f7a11")
_TRIGGERING = "triggering-event"


class PrefectCarrier:
    """Hands messages to the automations of a Prefect server. Any thread may use it.

    Args:
        url: of the API.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}

    def carry(self, message: Message, recipients: Sequence[str]) -> AbstractSet[str]:
        """Emit the message as an event, and return those of the recipients that an automation sends it to.

        Args:
            message: `data` holds `id`, `event` and `client`, and maybe `sync`, `run`, `url`.
            recipients: as declared.
        """
        try:
            with self._client() as client:
                places = self._places(client, message, recipients, fresh=True)
                if places:
                    self._emit(client, message)
                return frozenset(places)
        except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
            log.warning("The Prefect server does not take a notice (%s); it goes out directly", type(error).__name__)
            return frozenset()

    def outcome(self, message: Message, recipients: Sequence[str]) -> Mapping[str, bool]:
        """Return for which recipients the automation says that it sent, or failed to.

        Args:
            message: as it was handed over.
            recipients: those that `carry` returned.
        """
        try:
            with self._client() as client:
                places = self._places(client, message, recipients, fresh=False)
                done = dict(_done(client, event_id(message))) if places else {}
                return {recipient: done[index] for recipient, index in places.items() if index in done}
        except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError):
            return {}

    def _emit(self, client: SyncPrefectClient, message: Message) -> None:
        try:
            client.request("POST", "/events", json=[event_of(message)]).raise_for_status()
        except (httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError):
            # It was sent and may have been taken: `outcome` will tell, and until then nobody should send it as well.
            log.info("The Prefect server has not said whether it took a notice")

    def _places(self, client: SyncPrefectClient, message: Message, recipients: Sequence[str], *, fresh: bool) -> dict[str, int]:
        """Return the number of the action that sends to each recipient; empty without an automation, or if it is switched off."""
        key = (str(message.data.get("client", "")), message.level)
        at, indices = self._known.get(key, (0.0, {}))
        if fresh or time.monotonic() - at > _FRESH:
            indices = _indices(client, PREFIX + told_name(*key))
            self._known[key] = (time.monotonic(), indices)
        found = {}
        for recipient in recipients:
            index = indices.get(_block_of(recipient, message.level))
            if index is not None:
                found[recipient] = index
        return found

    def _client(self) -> Any:
        return client_of(self._url, timeout=TIMEOUT)


def event_id(message: Message) -> uuid.UUID:
    """Return the id of the event of a message: the same for whoever hands it over."""
    return uuid.uuid5(_SPACE, str(message.data["id"]))


def event_of(message: Message) -> dict[str, Any]:
    """Return the event of a message as the server takes it. Pure but for the time.

    Args:
        message: see `PrefectCarrier.carry`.
    """
    data = message.data
    name, client = str(data["event"]), str(data["client"])
    about = f"sync.run.{data['sync']}" if name.startswith("sync.run.") and data.get("sync") else f"sync.client.{client}"
    related = []
    if run := data.get("run"):
        related.append({"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"})
    return {
        "id": str(event_id(message)),
        "occurred": datetime.now(UTC).isoformat(),
        "event": name if name in EVENTS else "sync.notice",
        "resource": {
            "prefect.resource.id": about,
            "prefect.resource.name": str(data.get("sync") or client),
            CLIENT: client,
            LEVEL: message.level,
            NOTICE: str(data["id"]),
        },
        "related": related,
        "payload": {
            **{name: value for name, value in data.items() if name not in ("id", "event")},
            "subject": message.subject,
            "body": message.body,
            "notice": str(data["id"]),
            "post": document(message),
        },
    }


def _indices(client: SyncPrefectClient, name: str) -> dict[str, int]:
    """Return which action of an automation uses which block, by the block's name (`type/name` too)."""
    found = [one for one in client.read_automations_by_name(name) if one.enabled]
    if not found:
        return {}
    blocks = [getattr(action, "block_document_id", None) for action in found[0].actions]
    wanted = [str(block) for block in blocks if block is not None]
    body = {"block_documents": {"id": {"any_": wanted}}, "include_secrets": False}
    documents = {one["id"]: one for one in client.request("POST", "/block_documents/filter", json=body).json()}
    indices: dict[str, int] = {}
    for index, block in enumerate(blocks):
        one = documents.get(str(block))
        if one is not None:
            indices.setdefault(str(one["name"]), index)
            indices[f"{one['block_type']['slug']}/{one['name']}"] = index
    return indices


def _block_of(recipient: str, level: str) -> str:
    try:
        if scheme(recipient) != "block":
            return block_name(recipient, level)
        type_, name = parts(recipient)
    except ChannelError:
        return ""
    return f"{type_}/{name}" if type_ else name


def _done(client: SyncPrefectClient, event: uuid.UUID) -> Iterator[tuple[int, bool]]:
    """Yield the number of each action that has ended for this event, and whether it sent."""
    names = {True: "prefect.automation.action.executed", False: "prefect.automation.action.failed"}
    asked = {
        "event": {"name": list(names.values())},
        "related": {"resources_in_roles": [[f"prefect.event.{event}", _TRIGGERING]]},
    }
    for one in client.request("POST", "/events/filter", json={"filter": asked, "limit": 50}).json()["events"]:
        if not str(one["resource"].get("prefect.resource.name", "")).startswith(PREFIX):
            # A person's automation that waits for our events too.
            continue
        payload = one["payload"]
        # A webhook that answers 500 has been called, says Prefect.
        taken = int(payload.get("status_code", 200)) < 300
        yield int(payload["action_index"]), one["event"] == names[True] and taken
