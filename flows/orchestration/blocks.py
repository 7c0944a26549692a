"""Prefect blocks that tell people: mail over SMTP, and any channel of `flows.channels`. And the use of blocks by name.

The server finds this module through the entry point `prefect.collections` and registers both types, so that automations can
send through them and the UI offers them. The server's own Python must have this package installed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import anyio.to_thread
from prefect._internal.compatibility.async_dispatch import async_dispatch
from prefect.blocks.abstract import NotificationBlock, NotificationError
from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from pydantic import Field, HttpUrl, SecretStr, model_validator

from flows.channels import ChannelError, Message, masked, send
from flows.channels.mail import Server, post

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import BlockDocument

Level = Literal["notice", "warning", "error"]

_LOGO = HttpUrl(
    "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/sendgrid.png"
)


class _Telling(NotificationBlock, ABC):
    """What both have in common: a sending that blocks, in a thread where somebody awaits it."""

    level: Level = Field(default="notice", description="Stands in a header of mails, or as the kind of an Apprise message.")

    @abstractmethod
    def _tell(self, message: Message) -> None: ...

    def _notify(self, body: str, subject: str | None) -> None:
        try:
            self._tell(Message(self.level, subject or "", body))
        except ChannelError as error:
            # Its text holds no secret; it becomes the reason in `prefect.automation.action.failed`.
            raise NotificationError(log=str(error)) from None

    async def anotify(self, body: str, subject: str | None = None) -> None:
        """Send, from code that awaits.

        Raises:
            NotificationError: it did not go out; `log` says why.
        """
        await anyio.to_thread.run_sync(self._notify, body, subject)

    @async_dispatch(anotify)
    def notify(self, body: str, subject: str | None = None) -> None:  # type: ignore[override]  # as Prefect's own blocks
        """Send.

        Args:
            body: plain text.
            subject: one line.

        Raises:
            NotificationError: it did not go out; `log` says why.
        """
        self._notify(body, subject)


class SmtpEmail(_Telling):
    """Sends mails over SMTP: with STARTTLS, TLS or none, signed in or not, to one or several addresses."""

    _block_type_name = "SMTP Email"
    _block_type_slug = "smtp-email"
    _description = "Send mails over any SMTP server."
    _logo_url = _LOGO

    host: str = Field(description="The SMTP server.", examples=["smtp.example.org"])
    port: int = Field(default=0, description="0 for the usual one: 587 with STARTTLS, 465 with TLS, 25 without.")
    security: Literal["none", "starttls", "ssl"] = Field(default="starttls", description="How the connection is protected.")
    username: str = Field(default="", description="To sign in with; empty for none.")
    password: SecretStr | None = Field(default=None, description="To sign in with.")
    sender: str = Field(default="", description="The address that mails come from; by default the user name.")
    recipients: list[str] = Field(description="Addresses.", min_length=1)
    ca_file: str = Field(default="", description="A file of certificates on the server to trust in place of the system's.")
    timeout: float = Field(default=10.0, gt=0, description="Seconds for each step.")

    @model_validator(mode="after")
    def _can_work(self) -> SmtpEmail:
        self._server()
        return self

    def _server(self) -> Server:
        password = self.password.get_secret_value() if self.password else ""
        return Server(self.host, self.port, self.security, self.username, password, self.sender, self.ca_file)

    def _tell(self, message: Message) -> None:
        post(self._server(), self.recipients, message, timeout=self.timeout)


class SyncClientsChannel(_Telling):
    """Sends through a channel of sync-clients: any Apprise URL, or what a plugin brings."""

    _block_type_name = "Sync Clients Channel"
    _block_type_slug = "sync-clients-channel"
    _description = "Send through any Apprise URL, or a channel that a plugin of sync-clients brings."
    _logo_url = _LOGO

    recipient: SecretStr = Field(description="As in Notify(…), e.g. slack://token-a/token-b/token-c or ntfy://topic.")
    timeout: float = Field(default=10.0, gt=0, description="Seconds for all of it.")

    def _tell(self, message: Message) -> None:
        send(self.recipient.get_secret_value(), message, timeout=self.timeout)


def find_block(client: SyncPrefectClient, type_: str | None, name: str, *, secrets: bool = False) -> BlockDocument:
    """Return the document of a notification or webhook block.

    Args:
        client: of the server that holds it.
        type_: slug of its type; `None` for the one notification block of this name.
        name: the block's.
        secrets: whether to read its secrets.

    Raises:
        ChannelError: there is none, it notifies nobody, or several types have one of this name.
    """
    shown = f"block:{type_}/{name}" if type_ else f"block:{name}"
    body = {"block_documents": {"name": {"any_": [name]}}, "include_secrets": secrets}
    from prefect.client.schemas.objects import BlockDocument

    found = [BlockDocument.model_validate(one) for one in client.request("POST", "/block_documents/filter", json=body).json()]
    if type_ is not None:
        found = [one for one in found if _slug(one) == type_]
    if not found:
        raise ChannelError(f"{shown}: the Prefect server has no such block; make it there under Blocks")
    telling = [one for one in found if "notify" in _capabilities(one) or (type_ and _slug(one) == Webhook.get_block_type_slug())]
    if not telling:
        raise ChannelError(f"{shown}: this block notifies nobody")
    if len(telling) > 1:
        raise ChannelError(
            f"{shown}: several blocks are called so; write {' or '.join(f'block:{_slug(one)}/{name}' for one in telling)}"
        )
    return telling[0]


def send_through(url: str, type_: str | None, name: str, message: Message) -> None:
    """Load a block of a server and let it notify. Blocks; call it in a thread without an event loop.

    Args:
        url: of the Prefect API.
        type_: slug of the block's type, or `None`.
        name: the block's.
        message: what to say.

    Raises:
        ChannelError: no such block, or it did not go out.
    """
    from prefect.plugins import load_prefect_collections

    from flows.orchestration.client import client_of

    shown = masked(f"block:{type_}/{name}" if type_ else f"block:{name}")
    with client_of(url) as client:
        document = find_block(client, type_, name, secrets=True)
        # The type may be another package's, which this process has not imported yet.
        load_prefect_collections()
        block: Any = Block._from_block_document(document)
        if isinstance(block, Webhook):
            _call(shown, block, message)
            return
        try:
            with block.raise_on_failure():
                block.notify(subject=message.subject, body=message.body)
        except NotificationError as error:
            # Of a block of ours the text is ours; of another it may hold the URL.
            reason = error.log if isinstance(block, _Telling) else "the block says that it failed"
            raise ChannelError(f"{shown}: {reason}") from None


def _call(shown: str, block: Webhook, message: Message) -> None:
    import anyio

    from flows.channels.webhook import document

    answer = anyio.run(block.call, document(message))
    if answer.status_code >= 300:
        raise ChannelError(f"{shown}: status {answer.status_code}")


def _slug(document: BlockDocument) -> str:
    return document.block_type.slug if document.block_type is not None else ""


def _capabilities(document: BlockDocument) -> list[str]:
    return document.block_schema.capabilities if document.block_schema is not None else []
