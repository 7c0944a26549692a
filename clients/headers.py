"""Header fields as they are declared and as they are sent. Knows no request."""

from __future__ import annotations

from collections.abc import Mapping

from clients.auth import Secret, header_name, header_value, reveal
from clients.bodies import ENCODINGS

Named = dict[str, tuple[str, str]]


def merged(headers: Mapping[str, str], over: Mapping[str, str | Secret]) -> Named:
    """Return lower-case name -> (name, value), the later ones winning; refuse what a header cannot carry."""
    found = {name.lower(): (name, value) for name, value in headers.items()}
    for name, value in over.items():
        text = "" if reveal(value) == "" else header_value(value, what=f"header {header_name(name)}")
        found[name.lower()] = (header_name(name), text)
    return found


def encoded(headers: Mapping[str, tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return the bytes that are sent, with the encodings that we read."""
    raw = [(name.encode("ascii"), value.encode()) for name, value in headers.values()]
    if "accept-encoding" not in headers:
        raw.append((b"Accept-Encoding", ENCODINGS.encode()))
    return raw
