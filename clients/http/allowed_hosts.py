"""Decides which hosts and addresses the links and redirects of a remote system may lead to.

A link is what the remote system wrote, so it may name a service of our own network, or the one that tells a virtual machine its
credentials, and the answer would be stored like any other.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

OPEN = "SYNCS_ALLOW_PRIVATE_ADDRESSES"
"""The environment variable that, set to 1, lets links lead to any address."""

_METADATA = frozenset(
    map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
"""Where clouds tell a virtual machine its credentials: most of them; AWS over IPv6; Alibaba; Azure; Oracle."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class HostRefusedError(Exception):
    """A link leads to a host or an address that is not allowed; its text says why, and what to do."""


def kind_of(address: Address) -> str:
    """Return what is special about an address: `loopback`, `link-local`, `metadata` or `private`; empty for public ones.

    An IPv4 address inside an IPv6 one counts as itself (RFC 4291, section 2.5.5.2; RFC 6052; RFC 3056).
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return kind_of(inner)
    if address in _METADATA:
        return "metadata"
    if address.is_loopback or address.is_unspecified:
        # Connecting to 0.0.0.0 reaches the machine itself.
        return "loopback"
    if address.is_link_local:
        return "link-local"
    return "" if address.is_global and not address.is_multicast else "private"


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host, in the order of preference.

    Raises:
        OSError: it cannot be resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A zone (`fe80::1%eth0`) says through which interface, and not where.
    return [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]


class AllowedHosts:
    """The hosts that links and redirects may lead to: the declared one, its sub-domains, and those that are named.

    Ports and schemes do not matter. The names and addresses of the loopback interface are one host.

    Args:
        host: of the base URL.
        port: likewise.
        allowed: further hosts: `files.example.com` is one, `*.example.com` stands for all below it, `*` for all.
        resolver: from host and port to addresses; for tests.
    """

    def __init__(
        self,
        host: str,
        port: int,
        allowed: Collection[str] = (),
        *,
        resolver: Callable[[str, int], Sequence[Address]] = resolve,
    ) -> None:
        if isinstance(allowed, str):
            raise TypeError(f"allowed_hosts is a list of hosts, such as [{allowed!r}]")
        for one in allowed:
            name = one.removeprefix("*.")
            if one != "*" and (not name or any(letter in "*/@ " for letter in name)):
                raise ValueError(f"allowed_hosts: {one!r} is not a host, such as 'files.example.com', '*.example.com' or '*'")
        self._host, self._port, self._resolve = _plain(host), port, resolver
        self._allowed = frozenset(map(_plain, allowed))

    @cached_property
    def _own_kinds(self) -> frozenset[str]:
        """What is special about the addresses of the base URL: those of the same kind may be reached from there."""
        try:
            return frozenset(map(kind_of, self._resolve(self._host, self._port)))
        except OSError:
            return frozenset()

    def check_host(self, host: str) -> None:
        """Refuse a host that is not allowed, or is itself an address that is not.

        Raises:
            HostRefusedError: it is not.
        """
        host = _plain(host)
        if not self._is_allowed(host):
            shown = host[:200]
            raise HostRefusedError(f"the link leads to another host, {shown}; allowed_hosts=[{shown!r}] of the client allows it")
        if host != self._host and (literal := _literal(host)) is not None:
            self._check(literal, host)

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses to connect to: exactly those that were checked.

        Raises:
            HostRefusedError: one of them is special, and the base URL has none of its kind.
            OSError: the host cannot be resolved.
        """
        found = self._resolve(_plain(host), port)
        for address in found:
            self._check(address, host)
        return [str(address) for address in found]

    def check_proxied(self, host: str, port: int) -> None:
        """Do as `addresses` does where a proxy connects: as far as the name can be resolved here, its addresses are checked.

        Raises:
            HostRefusedError: one of them is special, and the base URL has none of its kind.
        """
        with suppress(OSError):
            self.addresses(host, port)

    def _is_allowed(self, host: str) -> bool:
        if host == self._host or host in self._allowed or "*" in self._allowed:
            return True
        if _is_this_machine(self._host) and _is_this_machine(host):
            return True
        parents = [host[index + 1 :] for index, letter in enumerate(host) if letter == "."]
        # An address has no sub-domains, and is none.
        above = self._host if _literal(self._host) is None else None
        return _literal(host) is None and any(parent == above or f"*.{parent}" in self._allowed for parent in parents)

    def _check(self, address: Address, host: str) -> None:
        kind = kind_of(address)
        if kind and kind not in self._own_kinds and os.environ.get(OPEN, "") not in ("1", "true"):
            where = "" if str(address) == host else f" ({address})"
            raise HostRefusedError(
                f"the link leads to a {kind} address, {host[:200]}{where}, and base_url is none; {OPEN}=1 allows it"
            )


def _plain(host: str) -> str:
    """Return a host in lower case, without the dot at its end and the brackets of an IPv6 address."""
    return host.lower().strip("[]").removesuffix(".")


def _is_this_machine(host: str) -> bool:
    """Say whether a host is a name or an address of the loopback interface (RFC 6761, section 6.3)."""
    literal = _literal(host)
    return host == "localhost" or host.endswith(".localhost") if literal is None else kind_of(literal) == "loopback"


def _literal(host: str) -> Address | None:
    """Return the address that a host is, also in the forms that `connect` takes (`127.1`, `2130706433`, `0x7f.1`), or None."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError, ValueError):
        return None
