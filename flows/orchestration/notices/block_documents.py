"""Finds block documents on the Prefect server, makes those of recipients, and sends through them.

Of all that is on the server, only block documents contain the secrets of recipients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import anyio
from prefect.blocks.abstract import NotificationError
from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.plugins import load_prefect_collections

from flows.channels import ChannelError, Message, check, mail, masked
from flows.channels.block import parts
from flows.channels.dispatch import scheme
from flows.channels.message import LEVELS
from flows.channels.webhook import document
from flows.notices.recipients import fingerprint
from flows.orchestration.notices.blocks import ChannelBlock, SmtpEmail, SyncClientsChannel
from flows.orchestration.prefect_client import open_client, read_all
from flows.orchestration.server_names import BLOCK_PREFIX, Applied
from flows.project.prefect_address import api_url

_WEBHOOK = Webhook.get_block_type_slug()
_OWN_TYPES = {kind.get_block_type_slug() for kind in (SmtpEmail, SyncClientsChannel, Webhook)}


class RecipientBlocks:
    """The block documents of recipients.

    Args:
        client: of the server.
    """

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._ids: dict[str, UUID] = {}
        self.applied: list[Applied] = []

    def apply(self, recipient: str, level: str) -> tuple[UUID, bool]:
        """Create or update the block of a recipient; return its id, and whether it is a webhook.

        Raises:
            ChannelError: the recipient cannot be used.
        """
        if scheme(recipient) == "block":
            found = find_document(self._client, recipient)
            return found.id, _slug(found) == _WEBHOOK
        if (reason := check(recipient)) is not None:
            raise ChannelError(reason)
        block, name = _block(recipient, level), block_name(recipient, level)
        if name not in self._ids:
            self._ids[name] = self._save(block, name, masked(recipient))
        return self._ids[name], isinstance(block, Webhook)

    def _save(self, block: Block, name: str, shown: str) -> UUID:
        slug = block.get_block_type_slug()
        known = [one for one in _own_documents(self._client, {"any_": [name]}, secrets=True) if _slug(one) == slug]
        wanted = block.model_dump(mode="json", context={"include_secrets": True}, exclude={"block_type_slug"})
        if known and _fields(known[0].data) == _fields(wanted):
            self.applied.append(Applied("block", f"{name} ({shown})", "unchanged"))
            return known[0].id
        saved = block.save(name, overwrite=True)
        assert isinstance(saved, UUID)
        self.applied.append(Applied("block", f"{name} ({shown})", "updated" if known else "created"))
        return saved

    def delete_others(self) -> list[Applied]:
        """Delete the documents of recipients that are no longer declared."""
        gone = [one for one in _own_documents(self._client, {"like_": BLOCK_PREFIX}) if one.name and one.name not in self._ids]
        for one in gone:
            self._client.delete_block_document(one.id)
        return [Applied("block", str(one.name), "deleted") for one in gone]


def block_name(recipient: str, level: str) -> str:
    """Return the name of a recipient's block document, which reveals nothing of the recipient."""
    return f"{BLOCK_PREFIX}{level}-{fingerprint(recipient)[:12]}"


def find_document(client: SyncPrefectClient, recipient: str, *, secrets: bool = False) -> BlockDocument:
    """Return the document of a notification or webhook block.

    Args:
        client: of the server.
        recipient: `block:name` or `block:type/name`.
        secrets: whether to read its secrets.

    Raises:
        ChannelError: there is none, it cannot send, or several types have one of this name.
    """
    type_, name = parts(recipient)
    shown = masked(recipient)
    found = read_documents(client, {"name": {"any_": [name]}}, secrets=secrets)
    if type_ is not None:
        found = [one for one in found if _slug(one) == type_]
    if not found:
        raise ChannelError(f"{shown}: the Prefect server has no such block; make it there under Blocks")
    able = [one for one in found if "notify" in _capabilities(one) or (type_ and _slug(one) == _WEBHOOK)]
    if not able:
        raise ChannelError(f"{shown}: this block cannot send messages")
    if len(able) > 1:
        names = " or ".join(f"block:{_slug(one)}/{name}" for one in able)
        raise ChannelError(f"{shown}: several blocks have this name; write {names}")
    return able[0]


def send_through_block(recipient: str, message: Message) -> None:
    """Load a block of this project's server and send; the channel `block`. Call it in a thread without an event loop.

    Raises:
        ChannelError: there is no such block, or it reports a failure.
    """
    shown = masked(recipient)
    with open_client(api_url()) as client:
        found = find_document(client, recipient, secrets=True)
        # Its type may be from another package, which this process has not imported yet.
        load_prefect_collections()
        block: Any = Block._from_block_document(found)
        if isinstance(block, Webhook):
            status = anyio.run(block.call, document(message)).status_code
            if status >= 300:
                raise ChannelError(f"{shown}: status {status}")
            return
        try:
            with block.raise_on_failure():
                block.notify(subject=message.subject, body=message.body)
        except NotificationError as error:
            # The text of another package's block may contain its URL.
            reason = error.log if isinstance(block, ChannelBlock) else "the block reports a failure"
            raise ChannelError(f"{shown}: {reason}") from None


def read_documents(client: SyncPrefectClient, wanted: Mapping[str, Any], *, secrets: bool = False) -> list[BlockDocument]:
    """Return all block documents that match a filter of the API, such as `{"name": {"any_": ["a"]}}`."""

    def page(limit: int, offset: int) -> list[BlockDocument]:
        body = {"block_documents": wanted, "include_secrets": secrets, "limit": limit, "offset": offset}
        found = client.request("POST", "/block_documents/filter", json=body).json()
        return [BlockDocument.model_validate(one) for one in found]

    return list(read_all(page))


def _own_documents(client: SyncPrefectClient, name: Mapping[str, Any], *, secrets: bool = False) -> list[BlockDocument]:
    """Return those with one of our names and types."""
    prefixes = tuple(f"{BLOCK_PREFIX}{level}-" for level in LEVELS)
    found = read_documents(client, {"name": name}, secrets=secrets)
    return [one for one in found if (one.name or "").startswith(prefixes) and _slug(one) in _OWN_TYPES]


def _block(recipient: str, level: Any) -> Block:
    match scheme(recipient):
        case "mailto" if not recipient.partition(":")[2].startswith("//"):
            server = mail.server()
            return SmtpEmail(
                host=server.host,
                port=server.port,
                security=server.security,
                username=server.user,
                password=server.password or None,
                sender=server.sender,
                ca_file=server.ca,
                recipients=mail.addresses(recipient),
                level=level,
            )
        case "http" | "https":
            return Webhook(url=recipient, headers={"content-type": "application/json"})
    return SyncClientsChannel(recipient=recipient, level=level)


def _fields(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None and not name.startswith("_")}


def _slug(document: BlockDocument) -> str:
    return document.block_type.slug if document.block_type is not None else ""


def _capabilities(document: BlockDocument) -> list[str]:
    return document.block_schema.capabilities if document.block_schema is not None else []
