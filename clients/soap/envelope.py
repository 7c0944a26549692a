"""Checks and parses SOAP envelopes (1.1 and 1.2): refuses DTDs, broken-off envelopes, and anything else.

Needs lxml, so only `client` imports it.
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree

from clients.errors import BrokenAnswerError, BrokenBodyError, UnreadableError

_ENVELOPES = frozenset(
    {"{http://schemas.xmlsoap.org/soap/envelope/}Envelope", "{http://www.w3.org/2003/05/soap-envelope}Envelope"}
)
# What may stand before the first element, except a DTD. A DTD is searched for before the parser sees the document: libxml2
# expands entities in attribute values even where it is told not to resolve any.
_PROLOG = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?(?:\s|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
_DECLARED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9._:-]+)", re.IGNORECASE)
# All are supersets of ASCII, or have a byte order mark: in them a DTD cannot hide from `_PROLOG`.
_ENCODINGS = re.compile(r"utf-?8|utf-?16(le|be)?|us-ascii|ascii|iso-?8859-?\d+|latin-?\d|windows-?125\d|cp125\d")
_CLOSED = re.compile(rb"</\s*(?:[\w.-]+:)?Envelope\s*>\s*(?:<!--.*?-->\s*)*\Z", re.DOTALL)


def check_xml(content: bytes, *, what: str, url: str | None = None, method: str | None = None) -> None:
    """Refuse a document that may not be parsed: a DTD, or an encoding in which one could hide.

    Raises:
        UnreadableError: it has one; the message does not repeat the document.
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
    """Return `content` in UTF-8 if only the HTTP header names its charset; that counts where the XML names none (RFC 7303)."""
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
        BrokenBodyError: it is not an envelope, for example a page in HTML.
        UnreadableError: it may not be parsed.
    """
    if b"Envelope" not in content[:4096].replace(b"\0", b""):
        kind = "HTML" if re.search(rb"<html|<!doctype html", content[:1024], re.IGNORECASE) else f"{len(content)} bytes"
        raise BrokenBodyError(f"not a SOAP envelope but {kind}", method=method, url=url)
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
        raise BrokenBodyError("the envelope is not well-formed XML, or too deep", method=method, url=url) from None
    if root.tag not in _ENVELOPES:
        raise BrokenBodyError("not an envelope of SOAP 1.1 or 1.2", method=method, url=url)
    return root


def body_tag(root: Any) -> str | None:
    """Return the name of the first element in the body, as `{namespace}name`."""
    return next((str(child.tag) for body in children(root, "Body") for child in body if isinstance(child.tag, str)), None)


def children(node: Any, name: str) -> list[Any]:
    """Return the child elements with a local name."""
    return [child for child in node if isinstance(child.tag, str) and etree.QName(child.tag).localname == name]
