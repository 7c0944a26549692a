"""Keeps what goes to this machine's loopback out of the proxies that the environment names. Pure functions."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

_NAMES = ("127.0.0.1", "localhost", "::1")


def is_loopback(url: str) -> bool:
    """Tell whether a URL leads to this machine's loopback."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that exempt loopback from proxies, in addition to what is exempt already.

    Args:
        environment: whose variables are to be changed.
    """
    # Libraries read one of the two spellings, most of them the small one first.
    known = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    hosts = [host.strip() for part in known for host in part.split(",") if host.strip()]
    # All are exempt already; the standard library knows the star only where it stands alone.
    together = "*" if "*" in hosts else ",".join(dict.fromkeys([*hosts, *_NAMES]))
    return {"no_proxy": together, "NO_PROXY": together}
