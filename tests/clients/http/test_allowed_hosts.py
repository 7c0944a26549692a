"""Links and redirects lead to the host of base_url, its sub-domains and allowed hosts, and to no address of our own network."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest

from clients import HttpClient, RejectedError
from clients.http import allowed_hosts
from clients.http.allowed_hosts import OPEN, Address, AllowedHosts, HostRefusedError, kind_of

PUBLIC, LOOPBACK, PRIVATE = "93.184.216.34", "127.0.0.1", "10.1.2.3"


def resolver(**addresses: str) -> Any:
    """Return a resolver of these names; points are written as `_`."""

    def find(host: str, _port: int) -> Sequence[Address]:
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            known = addresses.get(host.replace(".", "_"))
        if known is None:
            raise OSError("no such host")
        return [ipaddress.ip_address(one) for one in known.split()]

    return find


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", ""),
        ("2606:2800:220:1::1", ""),
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::1", "loopback"),
        ("::", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("224.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("2002:a00:1::", "private"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("168.63.129.16", "metadata"),
    ],
)
def test_kinds(address: str, kind: str) -> None:
    """An address inside another one counts as itself."""
    assert kind_of(ipaddress.ip_address(address)) == kind


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("api.example.com", True),
        ("API.example.com.", True),
        ("v2.api.example.com", True),
        ("example.com", False),
        ("evil-api.example.com", False),
        ("api.example.com.evil.example", False),
        ("files.example.net", True),
        ("a.files.example.net", False),
        ("cdn.example.org", True),
        ("a.b.cdn.example.org", True),
        ("xcdn.example.org", False),
        ("a.cdn.example.org", True),
        (PUBLIC, False),
        ("localhost", False),
    ],
)
def test_hosts(host: str, fine: bool) -> None:
    """The host itself, what is below it, and what is named."""
    hosts = AllowedHosts("api.example.com", 443, ["files.example.net", "*.cdn.example.org", "cdn.example.org"])
    if fine:
        hosts.check_host(host)
        return
    with pytest.raises(HostRefusedError, match="another host"):
        hosts.check_host(host)


def test_an_address_has_no_sub_domains() -> None:
    """`evil.93.184.216.34` is a name of its own."""
    with pytest.raises(HostRefusedError, match="another host"):
        AllowedHosts(PUBLIC, 443).check_host(f"evil.{PUBLIC}")


@pytest.mark.parametrize("host", ["169.254.169.254", "127.1", "2130706433", "0x7f.1", "[::1]", "0"])
def test_addresses_are_looked_at_without_a_resolver(host: str) -> None:
    """Whatever form of an address `connect` takes, and whichever hosts are allowed."""
    hosts = AllowedHosts("api.example.com", 443, ["*"], resolver=resolver(api_example_com=PUBLIC))
    with pytest.raises(HostRefusedError, match="address"):
        hosts.check_host(host)


@pytest.mark.parametrize("addresses", [LOOPBACK, PRIVATE, f"{PUBLIC} {PRIVATE}", "169.254.169.254", "::ffff:10.0.0.1"])
def test_a_name_of_our_own_network_is_refused(addresses: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One special address among several is enough; one setting allows it."""
    found = resolver(api_example_com=PUBLIC, v2_api_example_com=addresses)
    hosts = AllowedHosts("api.example.com", 443, resolver=found)
    hosts.check_host("v2.api.example.com")
    with pytest.raises(HostRefusedError, match=OPEN):
        hosts.addresses("v2.api.example.com", 443)
    monkeypatch.setenv(OPEN, "1")
    assert hosts.addresses("v2.api.example.com", 443) == [str(ipaddress.ip_address(one)) for one in addresses.split()]


@pytest.mark.parametrize(
    ("own", "linked", "fine"),
    [(PRIVATE, "10.9.9.9", True), (PRIVATE, LOOPBACK, False), (LOOPBACK, PRIVATE, False), (PRIVATE, "169.254.169.254", False)],
)
def test_what_is_inside_may_lead_to_its_kind(own: str, linked: str, fine: bool) -> None:
    """A base URL on a private network has private links, but none to the machine itself."""
    hosts = AllowedHosts("api.internal", 443, resolver=resolver(api_internal=own, v2_api_internal=linked))
    if fine:
        assert hosts.addresses("v2.api.internal", 443) == [linked]
        return
    with pytest.raises(HostRefusedError):
        hosts.addresses("v2.api.internal", 443)


@pytest.mark.parametrize("wrong", ["", "https://x.example", "a/b", "*", "a.*.example", "*."])
def test_wrong_declarations(wrong: str) -> None:
    """They are refused where they are written; a text in place of a list, too."""
    with pytest.raises((ValueError, TypeError)):
        HttpClient("https://api.example/", allowed_hosts=wrong if wrong == "*" else [wrong])


@pytest.mark.parametrize("way", ["link", "redirect"])
def test_nothing_is_sent_to_another_host(serve: Any, way: str) -> None:
    """Neither a link nor a redirect reaches a host that nobody allowed; the message says how to allow it."""
    linked = "http://elsewhere.example/latest/meta-data"
    system = serve(lambda _: (302, {"Location": linked}, b""))
    with HttpClient(system.url) as http, pytest.raises(Exception, match=r"allowed_hosts=\['elsewhere.example'\]"):
        http.get_json(linked if way == "link" else "a")


def test_the_address_that_was_checked_is_connected_to(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that stands for another address a moment later (DNS rebinding) changes nothing."""
    system = serve(lambda _: (200, {}, b"{}"))
    port = int(system.url.rsplit(":", 1)[1])
    asked: list[str] = []

    def resolve(host: str, _port: int) -> list[Address]:
        asked.append(host)
        return [ipaddress.ip_address(LOOPBACK)]

    monkeypatch.setattr(allowed_hosts.AllowedHosts.__init__, "__kwdefaults__", {"resolver": resolve})
    with HttpClient("http://api.example:1/", allowed_hosts=["files.example"]) as http:
        assert http.get_json(f"http://files.example:{port}/a") == {}
    assert asked == ["files.example", "api.example"]


def test_a_refused_address_is_one_line_and_counts_as_no_request() -> None:
    """`localhost` behind an allowed name."""
    with HttpClient("http://93.184.216.34/", allowed_hosts=["localhost"]) as http:
        with pytest.raises(RejectedError, match="not sent: the link leads to a loopback address, localhost"):
            http.get_json("http://localhost:9/a")
        assert http.requests == 0
