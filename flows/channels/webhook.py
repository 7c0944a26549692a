"""Sends the facts of a message to a webhook as one JSON POST. Any part of the URL but its host may be a secret."""

import base64
import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from flows.channels.message import ChannelError, Message

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_UNQUOTED = "".join(map(chr, range(33, 127)))


def check(recipient: str) -> str | None:
    """Return why a URL cannot be posted to, or `None`."""
    try:
        parts = urlsplit(recipient)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "a webhook is no URL"
    if not host or any(one.isspace() or not one.isprintable() for one in recipient):
        return "a webhook is no URL"
    if parts.scheme == "http" and host not in _LOOPBACK:
        return f"{masked(recipient)}: a notice is sent over https:// only (http:// to this machine)"
    return None


def masked(recipient: str) -> str:
    """Return scheme and host, because tokens are in paths (Slack, Discord), queries and user parts."""
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
    """Return what is posted: level, subject, body, the facts, and `text`, which Slack, Mattermost and Teams show."""
    return {
        **message.data,
        "level": message.level,
        "subject": message.subject,
        "body": message.body,
        "text": f"{message.subject}\n\n{message.body}",
    }


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, because only the declared URL may get the message."""

    def redirect_request(self, *_: Any) -> None:
        return None


def send(recipient: str, message: Message, timeout: float) -> None:
    """Post once.

    Args:
        recipient: the URL; a user and password in it become Basic auth.
        message: what to send.
        timeout: seconds for each step; `flows.channels.send` limits the whole.

    Raises:
        ChannelError: no answer below 300. The text contains nothing of the URL but its host.
    """
    request = urllib.request.Request(_bare(recipient), method="POST", data=json.dumps(document(message)).encode())  # noqa: S310 - checked
    for name, value in {"Content-Type": "application/json", "User-Agent": "sync-clients", **_sign_in(recipient)}.items():
        request.add_header(name, value)
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if urlsplit(recipient).hostname in _LOOPBACK:
        # A proxy from the environment cannot reach this machine's loopback.
        handlers.append(urllib.request.ProxyHandler({}))
    try:
        urllib.request.build_opener(*handlers).open(request, timeout=timeout).close()
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"status {error.code}" + (", and redirects are not followed" if error.code < 400 else "")
    except (OSError, HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        reason = (isinstance(cause, OSError) and cause.strerror) or (
            "no answer in time" if isinstance(cause, TimeoutError) else type(cause).__name__
        )
    else:
        return
    raise ChannelError(f"{masked(recipient)}: {reason}")


def _bare(recipient: str) -> str:
    """Return the URL without user part and fragment, which are no part of a request."""
    parts = urlsplit(recipient)
    # Other characters than ASCII are quoted as a browser does; what is quoted already stays.
    path, query = quote(parts.path or "/", safe=_UNQUOTED), quote(parts.query, safe=_UNQUOTED)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, query, ""))


def _sign_in(recipient: str) -> dict[str, str]:
    parts = urlsplit(recipient)
    if parts.username is None and parts.password is None:
        return {}
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
