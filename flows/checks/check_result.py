"""What the check of one client found; and what its answers show besides their content: rate limits, clock, TLS and redirects."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from clients.check_recorder import Inspector, Observation, Tls

MAX_CLOCK_SKEW = 60.0
"""Seconds by which the two clocks may differ without a warning."""

MIN_CERTIFICATE_DAYS = 14
"""Days for which a certificate must still be valid to get no warning."""

_NO_TLS = "without TLS: anyone on the network path can read the credentials"


@dataclass(slots=True)
class CheckResult:
    """The result of checking one client. `None` means not seen, or not available with this adapter."""

    client: str
    ok: bool = False
    #: `ok`, `FAIL`, or `-` if not reached; so is `connection`.
    settings: str = "-"
    connection: str = "-"
    #: Entities on the first page; `None` if the client has a `check` function.
    entities: int | None = None
    seconds: float = 0.0
    #: Why it failed; empty if it is ok.
    message: str = ""
    #: Pages read, two at most.
    pages: int | None = None
    #: Of the second page: `differs`, `same`, `empty`; `None` where there is none.
    second_page: str | None = None
    #: Why paging ended: `end`, `more` (there are further pages), or `stopped` of `syncs run`.
    ended: str | None = None
    #: The strictest rate budget seen: limit, remaining, resets_in (seconds), window (seconds), name.
    rate: dict[str, Any] | None = None
    #: Headers that make requests conditional: `ETag`, `Last-Modified`, both, or none. `None` if that could not be tested.
    validators: list[str] | None = None
    #: Whether a conditional request was answered with 304.
    not_modified: bool | None = None
    #: Seconds by which the remote clock is ahead.
    skew_seconds: float | None = None
    #: version, and days_left of the certificate.
    tls: dict[str, Any] | None = None
    redirects: int | None = None
    #: Over FTP and SFTP: commands about files.
    requests: int | None = None
    #: What needs attention although the check succeeded, one line each.
    warnings: list[str] = field(default_factory=list)


def add_observations(result: CheckResult, inspector: Inspector) -> None:
    """Add what all answers have shown besides their content."""
    observations = inspector.observations
    _add_tls(result, [*inspector.connections, *(one.tls for one in observations if one.tls is not None)])
    if any(_is_unencrypted(url) for url in (*(one.url for one in observations), *(one.url for one in inspector.exchanges))):
        result.warnings.append(_NO_TLS)
    if not observations:
        return
    result.requests, result.redirects = inspector.requests, sum(one.is_redirect for one in observations)
    _add_rate(result, observations)
    _add_clock_skew(result, observations)
    if moved := next((one.status for one in observations if one.status in (301, 308)), None):
        result.warnings.append(f"{moved}: what is declared has moved for good; declare where it leads to")


def _add_rate(result: CheckResult, observations: Sequence[Observation]) -> None:
    budgets = [budget for one in observations if (budget := one.budget) is not None]
    if budgets:
        # The last answer has counted all requests.
        names = ("limit", "remaining", "resets_in", "window", "name")
        result.rate = {name: getattr(budgets[-1], name) for name in names}
        if budgets[-1].remaining == 0:
            result.warnings.append("the rate budget is used up")


def _add_clock_skew(result: CheckResult, observations: Sequence[Observation]) -> None:
    skews = {abs(skew): skew for one in observations if (skew := one.skew) is not None}
    if skews:
        # The smallest one: the others include more of the time that the answer took.
        skew = skews[min(skews)]
        result.skew_seconds = round(skew, 1)
        if abs(skew) > MAX_CLOCK_SKEW:
            result.warnings.append(f"the remote clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours")


def _add_tls(result: CheckResult, secured: Sequence[Tls]) -> None:
    if secured:
        left = min((tls.days_left for tls in secured if tls.days_left is not None), default=None)
        result.tls = {"version": secured[-1].version, "days_left": None if left is None else int(left // 1)}
        if left is not None and left < MIN_CERTIFICATE_DAYS:
            result.warnings.append(f"the certificate ends in {left // 1:.0f} days")


def _is_unencrypted(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "ftp") or host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True
