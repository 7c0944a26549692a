"""Webhooks: the facts of a message as one JSON POST. Any part of the URL but its host may be a secret."""

from typing import Any
from urllib.parse import urlsplit

from flows.channels.message import ChannelError, Message

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check(recipient: str) -> str | None:
    """Return why a URL cannot be posted to, or `None`."""
    try:
        parts = urlsplit(recipient)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "a webhook is no URL"
    if not host or any(letter.isspace() or not letter.isprintable() for letter in recipient):
        return "a webhook is no URL"
    if parts.scheme == "http" and host not in _LOOPBACK:
        return f"{masked(recipient)}: what a notice says goes through https:// only (http:// to this machine)"
    return None


def masked(recipient: str) -> str:
    """Return scheme and host: tokens stand in paths (Slack's, Discord's), queries and user parts."""
    try:
        parts = urlsplit(recipient)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "https://…"
    if not host or not host.isprintable():
        return "https://…"
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}/…"


def document(message: Message) -> dict[str, Any]:
    """Return what is posted: level, subject, body, the facts; and `text`, which chat programs show (Slack, Mattermost, Teams)."""
    return {
        **message.data,
        "level": message.level,
        "subject": message.subject,
        "body": message.body,
        "text": f"{message.subject}\n\n{message.body}",
    }


def send(recipient: str, message: Message, timeout: float) -> None:
    """Post it once. A redirect is not followed: the URL is the address that was agreed on.

    Raises:
        ChannelError: no answer below 300.
    """
    # Here: the command line should not pay for httpx before there is something to tell.
    from clients.errors import ClientError, RedirectRefusedError
    from clients.http import HttpClient

    try:
        with HttpClient(recipient, timeout=timeout, total_timeout=timeout, max_bytes=1_000_000) as http:
            http.request("POST", "", json=document(message))
    except RedirectRefusedError as error:
        raise ChannelError(f"{masked(recipient)}: {error.status}, and redirects are not followed") from None
    except ClientError as error:
        # Without the URL, whose path may be the token.
        raise ChannelError(f"{masked(recipient)}: {_reason(error)}") from None


def _reason(error: Any) -> str:
    return f"status {error.status}" if error.status is not None else str(error.message)
