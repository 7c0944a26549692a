"""Sends messages through the automations of a Prefect server: emits an event for each, and reads whether it was sent.

The id of the event is made from that of the message. So the server takes a message that two workers hand over for one, and any
process can ask what became of it.
"""

from __future__ import annotations

import functools
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from flows.channels import Message
from flows.channels.block import parts
from flows.channels.dispatch import scheme
from flows.channels.message import ChannelError
from flows.channels.webhook import document
from flows.events import CLIENT_EVENTS
from flows.orchestration.server_names import ALERT_PREFIX, CLIENT_LABEL, LEVEL_LABEL, NOTICE_EVENT, NOTICE_LABEL, alert_name
from flows.project.prefect_address import api_url, is_reachable

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

log = logging.getLogger("syncs.channels")

REQUEST_TIMEOUT = 5.0
"""Seconds for each request: a report of trouble must not wait for a server that is in trouble too."""

#: Seconds for the answer to whether the server is reachable, and until a server that was not is asked again.
_HEALTH_TIMEOUT, _RETRY_SECONDS = 2.0, 30.0
#: Seconds for which the actions of an automation are remembered.
_FRESH = 60.0
_NAMESPACE = uuid.UUID("6f3ce1a0-0f3e-5c6e-8f5c-2d6a3b1f7a11")
_EXECUTED, _FAILED = "prefect.automation.action.executed", "prefect.automation.action.failed"


def project_carrier() -> PrefectCarrier | None:
    """Return the carrier of the server that this project uses, the same one each time; `None` if none is configured."""
    url = api_url()
    return None if url is None else _carrier_of(url)


@functools.cache
def _carrier_of(url: str) -> PrefectCarrier:
    return PrefectCarrier(url)


class PrefectCarrier:
    """A `flows.channels.Carrier`. Any thread may use it. Imports Prefect once the server answers.

    Args:
        url: of the API.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._was_reached = False
        self._silent_until = 0.0
        self._known: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}

    def carry(self, message: Message, recipients: Sequence[str]) -> AbstractSet[str]:
        """Emit the message as an event; return those of the recipients to whom an automation sends it."""
        if not self._is_reachable():
            return frozenset()
        try:
            with self._client() as client:
                actions = self._actions(client, message, recipients, fresh=True)
                if actions:
                    _emit(client, message)
                return frozenset(actions)
        except (httpx.HTTPError, RuntimeError) as error:
            log.warning("The Prefect server does not take a notice (%s); it is sent directly", type(error).__name__)
            return frozenset()

    def outcome(self, message: Message, recipients: Sequence[str]) -> Mapping[str, bool]:
        """Return for which recipients the automation reports that it sent, or failed to."""
        # Asked several times a second, right after the server took the message.
        if not self._was_reached and not self._is_reachable():
            return {}
        try:
            with self._client() as client:
                actions = self._actions(client, message, recipients, fresh=False)
                done = dict(_done(client, event_id(message))) if actions else {}
                return {recipient: done[index] for recipient, index in actions.items() if index in done}
        except (httpx.HTTPError, RuntimeError):
            return {}

    def _is_reachable(self) -> bool:
        if time.monotonic() < self._silent_until:
            return False
        if not is_reachable(self._url, _HEALTH_TIMEOUT):
            self._silent_until = time.monotonic() + _RETRY_SECONDS
            return False
        self._was_reached = True
        return True

    def _client(self) -> Any:
        from flows.orchestration.prefect_client import open_client

        return open_client(self._url, timeout=REQUEST_TIMEOUT, retries=0)

    def _actions(self, client: SyncPrefectClient, message: Message, recipients: Sequence[str], *, fresh: bool) -> dict[str, int]:
        """Return the number of the action that sends to each recipient; none if the automation is missing or switched off."""
        key = (str(message.data.get("client", "")), message.level)
        at, by_block = self._known.get(key, (0.0, {}))
        if fresh or time.monotonic() - at > _FRESH:
            by_block = _actions_by_block(client, ALERT_PREFIX + alert_name(*key))
            self._known[key] = (time.monotonic(), by_block)
        blocks = {recipient: _block_of(recipient, message.level) for recipient in recipients}
        return {recipient: by_block[block] for recipient, block in blocks.items() if block in by_block}


def event_id(message: Message) -> uuid.UUID:
    """Return the id of the event of a message, the same in every process."""
    return uuid.uuid5(_NAMESPACE, str(message.data["id"]))


def event_of(message: Message) -> dict[str, Any]:
    """Return the event of a message as the server takes it."""
    data = message.data
    name, client = str(data["event"]), str(data["client"])
    about = f"sync.run.{data['sync']}" if name.startswith("sync.run.") and data.get("sync") else f"sync.client.{client}"
    related = []
    if run := data.get("run"):
        related.append({"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"})
    return {
        "id": str(event_id(message)),
        "occurred": datetime.now(UTC).isoformat(),
        "event": name if name in CLIENT_EVENTS else NOTICE_EVENT,
        "resource": {
            "prefect.resource.id": about,
            "prefect.resource.name": str(data.get("sync") or client),
            CLIENT_LABEL: client,
            LEVEL_LABEL: message.level,
            NOTICE_LABEL: str(data["id"]),
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


def _emit(client: SyncPrefectClient, message: Message) -> None:
    try:
        client.request("POST", "/events", json=[event_of(message)]).raise_for_status()
    except (httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError):
        # The server may have taken it: `outcome` will tell, and until then nobody else should send it.
        log.info("The Prefect server has not said whether it took a notice")


def _actions_by_block(client: SyncPrefectClient, name: str) -> dict[str, int]:
    """Return the number of an automation's action by the name of its block, as `name` and as `type/name`."""
    from flows.orchestration.notices.block_documents import read_documents

    found = [one for one in client.read_automations_by_name(name) if one.enabled]
    if not found:
        return {}
    blocks = [getattr(action, "block_document_id", None) for action in found[0].actions]
    documents = {one.id: one for one in read_documents(client, {"id": {"any_": [str(one) for one in blocks if one is not None]}})}
    numbers: dict[str, int] = {}
    for number, block in enumerate(blocks):
        one = documents.get(block) if block is not None else None
        if one is not None:
            numbers.setdefault(str(one.name), number)
            numbers[f"{'' if one.block_type is None else one.block_type.slug}/{one.name}"] = number
    return numbers


def _block_of(recipient: str, level: str) -> str:
    from flows.orchestration.notices.block_documents import block_name

    try:
        if scheme(recipient) != "block":
            return block_name(recipient, level)
        type_, name = parts(recipient)
    except ChannelError:
        return ""
    return f"{type_}/{name}" if type_ else name


def _done(client: SyncPrefectClient, event: uuid.UUID) -> Iterator[tuple[int, bool]]:
    """Yield the number of each action that has ended for this event, and whether it sent."""
    wanted = {
        "event": {"name": [_EXECUTED, _FAILED]},
        "related": {"resources_in_roles": [[f"prefect.event.{event}", "triggering-event"]]},
    }
    for one in client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50}).json()["events"]:
        if not str(one["resource"].get("prefect.resource.name", "")).startswith(ALERT_PREFIX):
            # An automation of somebody else that waits for our events too.
            continue
        payload = one["payload"]
        # Prefect counts a webhook that answered 500 as executed.
        is_sent = int(payload.get("status_code", 200)) < 300
        yield int(payload["action_index"]), one["event"] == _EXECUTED and is_sent
