"""Loopback is told from other hosts, and exempt from proxies."""

import urllib.request

import httpx
import pytest

from flows.project.loopback import is_loopback, without_proxy


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:4200/api", True),
        ("http://127.8.9.1/api", True),
        ("http://user:word@localhost:1/", True),
        ("http://[::1]:4200/api", True),
        ("http://127.example.com/api", False),
        ("http://localhost.example.com/api", False),
        ("http://127.0.0.1@example.com/", False),
        ("https://10.0.0.1/api", False),
        ("http://[::1/", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_the_host(url: str, expected: bool) -> None:
    """The host alone decides, not what it begins with."""
    assert is_loopback(url) is expected


@pytest.mark.parametrize("known", [{}, {"NO_PROXY": "a.example"}, {"no_proxy": "a.example, b.example", "NO_PROXY": "c.example"}])
def test_loopback_is_exempt(known: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx and the standard library, which Prefect's sockets ask, reach loopback directly; what was exempt stays exempt."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    found = without_proxy(known)
    for name, value in {**known, **found, "http_proxy": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    for host in ("127.0.0.1:4200", "localhost:4200", *(each for part in known.values() for each in part.split(", "))):
        assert urllib.request.proxy_bypass(host)
    assert not urllib.request.proxy_bypass("other.example")
    direct = {"http://127.0.0.1:1/", "http://localhost:1/", "http://[::1]:1/"}
    with httpx.Client() as client:
        assert {url for url in direct if client._transport_for_url(httpx.URL(url)) is client._transport} == direct
        assert client._transport_for_url(httpx.URL("http://other.example/")) is not client._transport


def test_everything_exempt_stays_so() -> None:
    """`*` goes on to exempt all hosts, and doing it twice changes nothing."""
    once = without_proxy({"NO_PROXY": "*"})
    assert once == {"no_proxy": "*", "NO_PROXY": "*"}
    assert without_proxy(once) == once
