"""Decides which requests the local Prefect server refuses: those with the name of another host, and those of other web pages.

Any page in a browser on this machine can send requests to loopback, and one whose name is made to resolve to 127.0.0.1 (DNS
rebinding) can also read the answers. Its requests have its own name in `Host`, or its own address in `Origin`.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any

from flows.errors import UsageError

ALLOWED_HOSTS = "SYNCS_ALLOWED_HOSTS"
"""The variable with further host names under which the server is reached, such as that of a forwarded port."""

_OWN = ("127.0.0.1", "localhost")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_HOST = re.compile(rf"(?P<name>{_NAME.pattern})(:[0-9]{{1,5}})?")
_ORIGIN = re.compile(r"https?://(?P<host>[^/?#@]+)")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def allowed_hosts(text: str) -> frozenset[str]:
    """Return the host names of `SYNCS_ALLOWED_HOSTS`, which separates them by commas or spaces.

    Raises:
        UsageError: one of them is no host name; a pattern that stands for many is none.
    """
    names = [name.lower() for name in re.split(r"[,\s]+", text) if name]
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"{ALLOWED_HOSTS} must hold host names without port, separated by commas; {name!r} is none")
    return frozenset(names)


def refusal(headers: Iterable[tuple[bytes, bytes]], *, port: int, allowed: Collection[str] = ()) -> str | None:
    """Return why a request is refused, or `None`.

    Args:
        headers: of the request, with names in small letters.
        port: of the server.
        allowed: host names besides those of loopback, in small letters.
    """
    found: dict[bytes, list[str]] = {b"host": [], b"origin": []}
    for name, value in headers:
        if name in found:
            found[name].append(value.decode("latin-1").lower())
    match found[b"host"]:
        case [host] if _name_of(host) in {*_OWN, *allowed}:
            pass
        case _:
            return f"This Host is not allowed; if it is yours, name it in {ALLOWED_HOSTS}."
    own = {host, *(f"{name}:{port}" for name in _OWN)}
    for origin in found[b"origin"]:
        match = _ORIGIN.fullmatch(origin)
        if match is None or not (match["host"] in own or _name_of(match["host"]) in allowed):
            return f"This Origin is not allowed; if it is yours, name its host in {ALLOWED_HOSTS}."
    return None


def _name_of(host: str) -> str | None:
    match = _HOST.fullmatch(host)
    return None if match is None else match["name"]


class HostCheck:
    """Stands before an ASGI application and answers in its place what is refused.

    Args:
        app: the application.
        port: it listens on.
        allowed: host names besides those of loopback, in small letters.
    """

    def __init__(self, app: App, *, port: int, allowed: Collection[str] = ()) -> None:
        self._app = app
        self._port = port
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or open one socket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = refusal(scope["headers"], port=self._port, allowed=self._allowed)
        if reason is None:
            await self._app(scope, receive, _not_in_frames(send))
        elif scope["type"] == "websocket":
            # Before it is accepted; the server answers with status 403 then.
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            body = reason.encode()
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def _not_in_frames(send: Send) -> Send:
    """Forbid pages of others to show the answers in a frame, where a person would click without seeing on what."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-frame-options", b"SAMEORIGIN")]
        await send(message)

    return sending
