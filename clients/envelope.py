"""SOAP envelopes as bytes: whether they are safe and whole, and what a fault in one means.

Knows SOAP 1.1 and 1.2, WS-Security's fault codes, and no service. Needs lxml, so only `soap` imports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lxml import etree

from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    RateLimitedError,
    RejectedError,
    ServerError,
    UnreadableError,
)
from clients.rates import retry_after, wait
from clients.statuses import SOONEST

_ENVELOPES = frozenset(
    {"{http://schemas.xmlsoap.org/soap/envelope/}Envelope", "{http://www.w3.org/2003/05/soap-envelope}Envelope"}
)
# What may stand in front of the first element, except a DTD. It is looked for before the parser sees the document: libxml2
# expands entities in attribute values also where it is told not to resolve any.
_PROLOG = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?(?:\s|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
_DECLARED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9._:-]+)", re.IGNORECASE)
# All are supersets of ASCII, or have a byte order mark: in them a DTD cannot hide from `_PROLOG`.
_ENCODINGS = re.compile(r"utf-?8|utf-?16(le|be)?|us-ascii|ascii|iso-?8859-?\d+|latin-?\d|windows-?125\d|cp125\d")
_CLOSED = re.compile(rb"</\s*(?:[\w.-]+:)?Envelope\s*>\s*(?:<!--.*?-->\s*)*\Z", re.DOTALL)
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")


def check_xml(content: bytes, *, what: str, url: str | None = None, method: str | None = None) -> None:
    """Refuse a document that may not be parsed: a DTD, or an encoding in which one could hide.

    Raises:
        UnreadableError: it is such a one; the message does not repeat it.
    """
    start = content[:65536].replace(b"\0", b"")
    declared = _DECLARED.search(start[:256])
    if declared is not None and _ENCODINGS.fullmatch(declared.group(1).decode("ascii").lower()) is None:
        raise UnreadableError(f"{what} is in an encoding that is refused", method=method, url=url)
    prolog = _PROLOG.match(start)
    rest = start[prolog.end() if prolog else 0 :]
    if rest[:9].upper() == b"<!DOCTYPE":
        raise UnreadableError(f"{what} has a DTD, which is refused: it could hold an XML bomb", method=method, url=url)
    if not rest.startswith(b"<") and len(content) > len(start):
        raise UnreadableError(f"{what} does not begin as XML does", method=method, url=url)


def in_utf8(content: bytes, content_type: str) -> bytes:
    """Return `content` so that a parser need not know the HTTP header: its charset counts where the XML names none (RFC 7303)."""
    charset = _CHARSET.search(content_type)
    name = charset.group(1).lower() if charset else "utf-8"
    if name in ("utf-8", "utf8") or content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return content
    if _DECLARED.search(content[:256]) is not None or _ENCODINGS.fullmatch(name) is None:
        return content
    try:
        return content.decode(name).encode()
    except (LookupError, UnicodeDecodeError):
        return content


def root_part(content: bytes, content_type: str) -> bytes:
    """Return the envelope of an answer in several parts (SOAP with attachments, MTOM), or `content` itself."""
    if not content_type.lower().startswith("multipart/"):
        return content
    from requests_toolbelt.multipart.decoder import (
        ImproperBodyPartContentException,
        MultipartDecoder,
        NonMultipartContentTypeException,
    )

    try:
        parts = MultipartDecoder(content, content_type).parts
    except (ImproperBodyPartContentException, NonMultipartContentTypeException, AttributeError):
        return content
    root: bytes = parts[0].content if parts else content
    return root


def open_envelope(content: bytes, *, url: str, method: str = "POST") -> Any:
    """Return the root element of an answer.

    Raises:
        BrokenAnswerError: the envelope breaks off.
        UnreadableError: it is no envelope, for example a page in HTML, or one that may not be parsed.
    """
    if b"Envelope" not in content[:4096].replace(b"\0", b""):
        kind = "HTML" if re.search(rb"<html|<!doctype html", content[:1024], re.IGNORECASE) else f"{len(content)} bytes"
        raise UnreadableError(f"not a SOAP envelope but {kind}", method=method, url=url)
    check_xml(content, what="the answer", url=url, method=method)
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, remove_comments=True
    )
    try:
        root = etree.fromstring(content, parser=parser)
    except (etree.XMLSyntaxError, ValueError):
        # The parser's message quotes the document.
        if _CLOSED.search(content[-4096:].replace(b"\0", b"")) is None:
            raise BrokenAnswerError(f"the envelope breaks off after {len(content)} bytes", method=method, url=url) from None
        raise UnreadableError("the envelope is not well-formed XML, or too deep", method=method, url=url) from None
    if root.tag not in _ENVELOPES:
        raise UnreadableError("not an envelope of SOAP 1.1 or 1.2", method=method, url=url)
    return root


def body_tag(root: Any) -> str | None:
    """Return the name of the first element in the body, as `{namespace}name`."""
    return next((str(child.tag) for body in _children(root, "Body") for child in body if isinstance(child.tag, str)), None)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: its codes without prefix, from general to special, and what it says to people, on one line."""

    codes: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        code = "/".join(self.codes) or "without a code"
        return f"SOAP fault {code}: {self.reason}" if self.reason else f"SOAP fault {code}"


def fault_of(root: Any) -> Fault | None:
    """Return the fault that an envelope holds, or None."""
    for body in _children(root, "Body"):
        for fault in _children(body, "Fault"):
            codes = [*_texts(fault, "faultcode"), *_texts(fault, "Code", "Value")]
            level = _children(fault, "Code")
            for _ in range(10):
                level = [sub for one in level for sub in _children(one, "Subcode")]
                codes += [text for sub in level for text in _texts(sub, "Value")]
            reasons = [*_texts(fault, "faultstring"), *_texts(fault, "Reason", "Text")]
            local = (_UNSEEN.sub("", code.rpartition(":")[2])[:80] for code in codes)
            return Fault(tuple(code for code in local if code), _UNSEEN.sub(" ", reasons[0]).strip()[:300] if reasons else "")
    return None


def _children(node: Any, name: str) -> list[Any]:
    return [child for child in node if isinstance(child.tag, str) and etree.QName(child.tag).localname == name]


def _texts(node: Any, *path: str) -> list[str]:
    nodes = [node]
    for name in path:
        nodes = [child for one in nodes for child in _children(one, name)]
    return [one.text.strip() for one in nodes if one.text and one.text.strip()]


_SERVER = frozenset({"server", "receiver"})
_CLIENT = frozenset({"client", "sender", "versionmismatch", "mustunderstand", "dataencodingunknown"})
_SLOWER = frozenset({"toomanyrequests", "requestlimitexceeded", "ratelimitexceeded", "throttled", "throttling"})
# OASIS WSS 1.1, 12; WS-Trust 1.3, 11; what vendors call the same.
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
    """Return what a fault means.

    The most special code that is known counts: `Client.Authentication` is about signing in. A code that nobody knows was made
    by the application, not by its platform: the request was understood and refused.

    Args:
        status: of the HTTP answer; it decides where the fault has no code.
        headers: of the HTTP answer, names in lower case. `Retry-After` makes a server's fault a request to slow down, as it
            does with a 503: 500 is the one status that SOAP 1.1 has for faults.
        faults: codes of this service, for what the code itself does not tell.
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
        elif any(part in _SLOWER for part in plain):
            known = RateLimitedError
        elif any(part in _SERVER for part in plain):
            known = ServerError
        elif any(part in _CLIENT for part in plain):
            known = RejectedError
    if known is None:
        known = RejectedError if fault.codes or 400 <= status < 500 else ServerError
    # Without a status: 500 is what SOAP 1.1 says for every fault (SOAP 1.1, 6.2), and the fault knows better.
    asked = wait(headers or {})
    if known is ServerError and retry_after(headers or {}) is not None:
        known = RateLimitedError
    if asked is None or not issubclass(known, RateLimitedError):
        return known(str(fault), method="POST", url=url)
    return known(f"{fault}, {asked}", method="POST", url=url, retry_after=max(asked.seconds, SOONEST))
