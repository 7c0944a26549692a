"""Reads a SOAP fault from an envelope and translates it into our error tree: codes of SOAP 1.1 and 1.2 and of WS-Security.

Needs lxml, so only `client` imports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clients.errors import AuthRefusedError, ClientError, RateLimitedError, RejectedError, ServerError
from clients.http.rate_limits.rate_limit_headers import retry_after, wait
from clients.http.rate_limits.throttle import MIN_WAIT
from clients.soap.envelope import children

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: its codes without prefix, from general to special, and its text on one line."""

    codes: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        code = "/".join(self.codes) or "without a code"
        return f"SOAP fault {code}: {self.reason}" if self.reason else f"SOAP fault {code}"


def fault_of(root: Any) -> Fault | None:
    """Return the fault that an envelope holds, or None."""
    for body in children(root, "Body"):
        for fault in children(body, "Fault"):
            codes = [*_texts(fault, "faultcode"), *_texts(fault, "Code", "Value")]
            level = children(fault, "Code")
            for _ in range(10):
                level = [sub for one in level for sub in children(one, "Subcode")]
                codes += [text for sub in level for text in _texts(sub, "Value")]
            reasons = [*_texts(fault, "faultstring"), *_texts(fault, "Reason", "Text")]
            local = (_UNPRINTABLE.sub("", code.rpartition(":")[2])[:80] for code in codes)
            return Fault(
                tuple(code for code in local if code), _UNPRINTABLE.sub(" ", reasons[0]).strip()[:300] if reasons else ""
            )
    return None


def _texts(node: Any, *path: str) -> list[str]:
    nodes = [node]
    for name in path:
        nodes = [child for one in nodes for child in children(one, name)]
    return [one.text.strip() for one in nodes if one.text and one.text.strip()]


_SERVER = frozenset({"server", "receiver"})
_CLIENT = frozenset({"client", "sender", "versionmismatch", "mustunderstand", "dataencodingunknown"})
_RATE_LIMIT = frozenset({"toomanyrequests", "requestlimitexceeded", "ratelimitexceeded", "throttled", "throttling"})
# OASIS WSS 1.1, section 12; WS-Trust 1.3, section 11; and names that vendors use for the same.
_AUTH = frozenset(
    {
        "failedauthentication", "invalidsecurity", "invalidsecuritytoken", "unsupportedsecuritytoken",
        "securitytokenunavailable", "messageexpired", "failedcheck", "badcontexttoken", "authentication",
        "authenticationfailed", "authenticationfailure", "authenticationfault", "authenticationrequired",
        "authorization", "authorizationfailed", "unauthorized", "unauthenticated", "notauthorized", "accessdenied",
        "forbidden", "permissiondenied", "invalidcredentials", "invalidlogin", "invalidsessionid", "invalidsession",
        "sessionexpired", "loginfailed", "invalidtoken", "tokenexpired", "expiredtoken",
    }
)  # fmt: skip


def fault_error(
    fault: Fault, *, status: int, headers: Mapping[str, str] | None = None, faults: Mapping[str, type[ClientError]], url: str
) -> ClientError:
    """Return the error that a fault stands for.

    The most special known code counts: `Client.Authentication` is about signing in. An unknown code comes from the application,
    not from its platform, so the request was understood and refused.

    Args:
        status: of the HTTP answer; it decides where the fault has no code.
        headers: of the HTTP answer, names in lower case. `Retry-After` makes a server's fault a request to slow down, as it
            does with a 503: 500 is the one status that SOAP 1.1 has for faults.
        faults: what further codes of this service stand for.
    """
    parts = [part for code in fault.codes for part in [code, *code.split(".")]]
    known: type[ClientError] | None = None
    for part in reversed(parts):
        if part in faults:
            known = faults[part]
            break
    else:
        plain = [re.sub(r"[_\- ]", "", part.lower()) for part in parts]
        plain = [part.removesuffix("exception").removesuffix("fault") if part not in _AUTH else part for part in plain]
        if any(part in _AUTH for part in plain):
            known = AuthRefusedError
        elif any(part in _RATE_LIMIT for part in plain):
            known = RateLimitedError
        elif any(part in _SERVER for part in plain):
            known = ServerError
        elif any(part in _CLIENT for part in plain):
            known = RejectedError
    if known is None:
        known = RejectedError if fault.codes or 400 <= status < 500 else ServerError
    # The status is left out: SOAP 1.1 prescribes 500 for every fault (section 6.2), and the fault is more precise.
    asked = wait(headers or {})
    if known is ServerError and retry_after(headers or {}) is not None:
        known = RateLimitedError
    if asked is None or not issubclass(known, RateLimitedError):
        return known(str(fault), method="POST", url=url)
    return known(f"{fault}, {asked}", method="POST", url=url, retry_after=max(asked.seconds, MIN_WAIT))
