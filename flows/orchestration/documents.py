"""The block documents that recipients become: they alone hold what is secret of them. Knows no automation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument

from flows.channels import ChannelError, check, mail, masked
from flows.channels.block import parts
from flows.channels.recipient import scheme
from flows.orchestration.applied import Applied
from flows.orchestration.blocks import SmtpEmail, SyncClientsChannel, find_block
from flows.recipients import fingerprint

LEVELS = ("notice", "warning", "error")
PREFIX = "sync-clients-"
"""Of the names of the documents that are made here; no other is ever deleted."""


class Blocks:
    """The block documents that recipients became.

    Args:
        client: of the server.
    """

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._ids: dict[str, UUID] = {}
        self.applied: list[Applied] = []

    def of(self, recipient: str, level: str) -> tuple[UUID, bool]:
        """Return the id of a recipient's block, and whether it is a webhook; make it or bring it up to date.

        Raises:
            ChannelError: the recipient cannot be used.
        """
        if scheme(recipient) == "block":
            type_, name = parts(recipient)
            found = find_block(self._client, type_, name)
            return found.id, type_ == Webhook.get_block_type_slug()
        if (reason := check(recipient)) is not None:
            raise ChannelError(reason)
        block = _block(recipient, level)
        name = block_name(recipient, level)
        if name not in self._ids:
            self._ids[name] = self._save(block, name, masked(recipient))
        return self._ids[name], isinstance(block, Webhook)

    def _save(self, block: Block, name: str, shown: str) -> UUID:
        before = _mine(self._client, name=name, secrets=True)
        slug = block.get_block_type_slug()
        same = [one for one in before if one.block_type is not None and one.block_type.slug == slug]
        if same and _data(same[0].data) == _data(_plain(block)):
            self.applied.append(Applied("block", f"{name} ({shown})", "unchanged"))
            return same[0].id
        saved = block.save(name, overwrite=True)
        assert isinstance(saved, UUID)
        self.applied.append(Applied("block", f"{name} ({shown})", "updated" if same else "created"))
        return saved

    def delete_others(self) -> list[Applied]:
        """Delete the documents of recipients that nobody declares any more."""
        gone = [one for one in _mine(self._client) if one.name is not None and one.name not in self._ids]
        for one in gone:
            self._client.delete_block_document(one.id)
        return [Applied("block", str(one.name), "deleted") for one in gone]


def block_name(recipient: str, level: str) -> str:
    """Return the name of a recipient's block document. It says nothing of the recipient."""
    return f"{PREFIX}{level}-{fingerprint(recipient)[:12]}"


def _block(recipient: str, level: Any) -> Block:
    match scheme(recipient):
        case "mailto" if not recipient.partition(":")[2].startswith("//"):
            where = mail.server()
            return SmtpEmail(
                host=where.host, port=where.port, security=where.security, username=where.user,
                password=where.password or None, sender=where.sender, ca_file=where.ca, recipients=mail.addresses(recipient),
                level=level,
            )  # fmt: skip
        case "http" | "https":
            return Webhook(url=recipient, headers={"content-type": "application/json"})
    return SyncClientsChannel(recipient=recipient, level=level)


def _plain(block: Block) -> dict[str, Any]:
    return block.model_dump(mode="json", context={"include_secrets": True}, exclude={"block_type_slug"})


def _data(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None and not name.startswith("_")}


def _mine(client: SyncPrefectClient, *, name: str | None = None, secrets: bool = False) -> list[BlockDocument]:
    """Return the documents with our prefix, of the types that we make."""
    types = {kind.get_block_type_slug() for kind in (SmtpEmail, SyncClientsChannel, Webhook)}
    asked = {"any_": [name]} if name is not None else {"like_": PREFIX}
    found: list[BlockDocument] = []
    while True:
        body = {"block_documents": {"name": asked}, "include_secrets": secrets, "limit": 200, "offset": len(found)}
        page = client.request("POST", "/block_documents/filter", json=body).json()
        found += [BlockDocument.model_validate(one) for one in page]
        if len(page) < 200:
            break
    names = tuple(f"{PREFIX}{level}-" for level in LEVELS)
    return [one for one in found if (one.name or "").startswith(names) and one.block_type and one.block_type.slug in types]
