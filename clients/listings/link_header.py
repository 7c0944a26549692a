"""Parses `Link` headers (RFC 8288), and resolves the link to a next page."""

from __future__ import annotations

import re
from urllib.parse import urljoin

from clients.errors import PageError
from clients.urls import origin_of, split_userinfo

_SPACE = " \t"
_NAME = re.compile(r"[^\s;,=<>\"]+")


def next_url(target: str, *, base: str) -> str:
    """Resolve a next link against the URL that answered (RFC 3986, section 5); user part and fragment are dropped.

    Raises:
        PageError: the result is not an http or https URL, or leads from https to http.
    """
    try:
        url, _ = split_userinfo(urljoin(base, target.strip()))
        scheme, _, _ = origin_of(url)
    except ValueError:
        raise PageError("the next link is not an http or https URL", url=base) from None
    if scheme == "http" and base[:6].lower() == "https:":
        raise PageError("the next link leads from https to http, where anybody can read and change it", url=base)
    return url.partition("#")[0]


def link_target(header: str, relation: str, *, base: str = "") -> str | None:
    """Return the target of the first link with `relation` in a `Link` header, or None.

    `rel` may name several relations, in any case; only the first `rel` of a link counts (RFC 8288, section 3.3), and
    a link whose `anchor` says that it belongs to another page than `base` is not ours (section 3.2).
    """
    for target, params in parse_links(header):
        if relation not in params.get("rel", "").lower().split():
            continue
        anchor = params.get("anchor")
        if anchor is None or urljoin(base, anchor).partition("#")[0] == base.partition("#")[0]:
            return target
    return None


def parse_links(header: str) -> list[tuple[str, dict[str, str]]]:
    """Parse a `Link` header into targets and parameters (RFC 8288, appendix B.2). Text that is not a link is skipped."""
    links: list[tuple[str, dict[str, str]]] = []
    at = 0
    while (start := header.find("<", at)) >= 0 and (end := header.find(">", start)) >= 0:
        target = header[start + 1 : end].strip()
        params, at = _parameters(header, end + 1)
        links.append((target, params))
    return links


def _parameters(header: str, at: int) -> tuple[dict[str, str], int]:
    """Read `;name=value` pairs from `at` up to the comma that ends the link; return them and where that was."""
    params: dict[str, str] = {}
    while at < len(header):
        if header[at] == ",":
            return params, at + 1
        if header[at] in _SPACE or header[at] == ";":
            at += 1
            continue
        name = _NAME.match(header, at)
        if name is None:
            at += 1
            continue
        at = _skip(header, name.end())
        value = ""
        if header[at : at + 1] == "=":
            value, at = _value(header, _skip(header, at + 1))
        params.setdefault(name.group().lower(), value)
    return params, at


def _value(header: str, at: int) -> tuple[str, int]:
    """Read a token or a quoted string, in which commas and semicolons are text and a backslash escapes."""
    if header[at : at + 1] != '"':
        end = at
        while end < len(header) and header[end] not in ";,":
            end += 1
        return header[at:end].strip(), end
    text: list[str] = []
    at += 1
    while at < len(header) and header[at] != '"':
        if header[at] == "\\" and at + 1 < len(header):
            at += 1
        text.append(header[at])
        at += 1
    return "".join(text), at + 1


def _skip(header: str, at: int) -> int:
    while at < len(header) and header[at] in _SPACE:
        at += 1
    return at
