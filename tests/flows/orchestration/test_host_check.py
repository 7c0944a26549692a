"""Which requests the local Prefect server refuses before Prefect sees them."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from flows.errors import UsageError
from flows.orchestration.host_check import HostCheck, allowed_hosts, refusal

PORT = 4200


def _reason(host: str | None, *origins: str, allowed: str = "") -> str | None:
    headers = [(b"accept", b"*/*"), *((b"origin", origin.encode()) for origin in origins)]
    if host is not None:
        headers.append((b"host", host.encode()))
    return refusal(headers, port=PORT, allowed=allowed_hosts(allowed))


@pytest.mark.parametrize(
    ("host", "origins"),
    [
        ("127.0.0.1:4200", ()),
        ("localhost:4200", ("http://localhost:4200",)),
        ("LOCALHOST:4200", ("http://127.0.0.1:4200",)),
        # Forwarded to another port, which the browser names.
        ("localhost:8080", ("http://localhost:8080",)),
        ("localhost", ("https://localhost",)),
    ],
)
def test_own_pages_pass(host: str, origins: tuple[str, ...]) -> None:
    """Loopback under its names, with any port, and pages that the server itself served."""
    assert _reason(host, *origins) is None


@pytest.mark.parametrize(
    "host",
    [
        None, "", "evil.example", "evil.example:4200", "127.0.0.1.evil.example:4200", "localhost.:4200", "localhost.evil.example",
        "evil.example@127.0.0.1:4200", "127.0.0.1:4200/@evil.example", "127.0.0.1:4200\\evil.example", "127.0.0.1:x",
        "[::1]:4200", "0.0.0.0:4200", "2130706433:4200", "127.1:4200", "localhost:4200, evil.example", "prefect-in-memory",
    ],
)  # fmt: skip
def test_foreign_host_is_refused(host: str | None) -> None:
    """A name that may be made to resolve to loopback, and what only looks like ours."""
    assert _reason(host) is not None


def test_two_hosts_are_refused() -> None:
    """Nothing is guessed where two headers name a host."""
    assert refusal([(b"host", b"127.0.0.1:4200"), (b"host", b"evil.example")], port=PORT) is not None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "", "http://localhost:3000", "http://127.0.0.1", "file://", "http://evil.example:4200",
        "http://127.0.0.1:4200.evil.example", "http://user@127.0.0.1:4200", "http://127.0.0.1:4200/", "chrome-extension://abc",
    ],
)  # fmt: skip
def test_foreign_origin_is_refused(origin: str) -> None:
    """A page of another address, also of another port of this machine, and one that has no address."""
    assert _reason("127.0.0.1:4200", origin) is not None
    assert _reason("127.0.0.1:4200", "http://127.0.0.1:4200", origin) is not None


def test_allowed_hosts_pass() -> None:
    """Names of `SYNCS_ALLOWED_HOSTS` count as Host and as Origin, whichever of the two a forwarding program leaves as it was."""
    allowed = "Far.example, abc-4200.tunnel.example"
    assert _reason("far.example", "https://far.example", allowed=allowed) is None
    assert _reason("localhost:4200", "https://abc-4200.tunnel.example", allowed=allowed) is None
    assert _reason("other.example", allowed=allowed) is not None
    assert _reason("localhost:4200", "https://x.far.example", allowed=allowed) is not None


@pytest.mark.parametrize("text", ["*", "*.example", "http://a.example", "a.example:80", "a/b", ".", "a.example;b"])
def test_what_is_no_host_name_is_said(text: str) -> None:
    """A pattern, a URL or a port is no host name."""
    with pytest.raises(UsageError, match="SYNCS_ALLOWED_HOSTS"):
        allowed_hosts(text)


def _sent(scope: dict[str, Any]) -> list[MutableMapping[str, Any]]:
    """Return what is answered by the check before an application that answers `ok`."""
    found: list[MutableMapping[str, Any]] = []

    async def app(scope: MutableMapping[str, Any], _receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
            await send({"type": "http.response.body", "body": b"ok"})
        else:
            await send({"type": "lifespan.startup.complete"})

    async def send(message: MutableMapping[str, Any]) -> None:
        found.append(message)

    async def receive() -> None:
        raise AssertionError("the application of this test reads nothing")

    asyncio.run(HostCheck(app, port=PORT)(scope, receive, send))
    return found


def test_refused_requests_do_not_reach_the_application() -> None:
    """A refused request gets 403 and a line; a refused socket is not opened; the start of the server is not looked at."""
    foreign, own = [(b"host", b"evil.example")], [(b"host", b"localhost:4200")]
    start, body = _sent({"type": "http", "headers": foreign})
    assert (start["status"], b"SYNCS_ALLOWED_HOSTS" in body["body"], b"evil" in body["body"]) == (403, True, False)
    assert [message["type"] for message in _sent({"type": "websocket", "headers": foreign})] == ["websocket.close"]
    assert [message["type"] for message in _sent({"type": "websocket", "headers": own})] == ["websocket.accept"]
    assert [message["type"] for message in _sent({"type": "lifespan"})] == ["lifespan.startup.complete"]


def test_pages_are_not_shown_in_frames_of_others() -> None:
    """An answer keeps its headers and forbids frames."""
    start, body = _sent({"type": "http", "headers": [(b"host", b"localhost:4200")]})
    assert start["headers"] == [(b"a", b"b"), (b"x-frame-options", b"SAMEORIGIN")]
    assert body["body"] == b"ok"
