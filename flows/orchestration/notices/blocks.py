"""Defines two Prefect notification blocks: mail over SMTP, and any channel of `flows.channels`.

The server finds this module through the entry point `prefect.collections` and registers both types, so that automations can send
through them and the UI offers them. This package must be installed in the server's own Python.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import anyio.to_thread
from prefect._internal.compatibility.async_dispatch import async_dispatch
from prefect.blocks.abstract import NotificationBlock, NotificationError
from pydantic import Field, HttpUrl, SecretStr, model_validator

from flows.channels import ChannelError, Message, send
from flows.channels.mail import Server, post

Level = Literal["notice", "warning", "error"]

_LOGO = HttpUrl(
    "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/sendgrid.png"
)


class ChannelBlock(NotificationBlock, ABC):
    """Sends in a thread when it is awaited, because channels block."""

    level: Level = Field(default="notice", description="Stands in a header of mails, or as the kind of an Apprise message.")

    @abstractmethod
    def _send(self, message: Message) -> None: ...

    def _notify(self, body: str, subject: str | None) -> None:
        try:
            self._send(Message(self.level, subject or "", body))
        except ChannelError as error:
            # The text contains no secret; it becomes the reason in `prefect.automation.action.failed`.
            raise NotificationError(log=str(error)) from None

    async def anotify(self, body: str, subject: str | None = None) -> None:
        """Send, from code that awaits.

        Raises:
            NotificationError: it was not sent; `log` says why.
        """
        await anyio.to_thread.run_sync(self._notify, body, subject)

    @async_dispatch(anotify)
    def notify(self, body: str, subject: str | None = None) -> None:  # type: ignore[override]  # as Prefect's own blocks
        """Send.

        Args:
            body: plain text.
            subject: one line.

        Raises:
            NotificationError: it was not sent; `log` says why.
        """
        self._notify(body, subject)


class SmtpEmail(ChannelBlock):
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
        return Server(
            self.host, self.port, self.security, user=self.username, password=password, sender=self.sender, ca=self.ca_file
        )

    def _send(self, message: Message) -> None:
        post(self._server(), self.recipients, message, timeout=self.timeout)


class SyncClientsChannel(ChannelBlock):
    """Sends through a channel of sync-clients: any Apprise URL, or what a plugin brings."""

    _block_type_name = "Sync Clients Channel"
    _block_type_slug = "sync-clients-channel"
    _description = "Send through any Apprise URL, or a channel that a plugin of sync-clients brings."
    _logo_url = _LOGO

    recipient: SecretStr = Field(description="As in Notify(…), e.g. slack://token-a/token-b/token-c or ntfy://topic.")
    timeout: float = Field(default=10.0, gt=0, description="Seconds for all of it.")

    def _send(self, message: Message) -> None:
        send(self.recipient.get_secret_value(), message, timeout=self.timeout)
