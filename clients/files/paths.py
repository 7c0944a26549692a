"""Checks paths before they are sent and names that a server listed, and encodes both."""

from __future__ import annotations

import contextlib
import re
from urllib.parse import quote

from clients.errors import RejectedError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_path(path: str) -> str:
    """Return `path` if it can be sent: no line break, which would begin another command, no NUL, no `..`.

    Raises:
        RejectedError: it cannot.
    """
    if not path or len(path) > 4096:
        raise RejectedError("the path of a remote file must have 1 to 4096 characters")
    if _CONTROL.search(path):
        raise RejectedError(f"the path {path[:100]!r} has a control character")
    if ".." in path.split("/"):
        raise RejectedError(f"the path {path[:100]!r} leads out of its folder")
    return path


def name_fault(name: str) -> str | None:
    """Say what is wrong with a name that a server listed, or None: it must name a file of its folder and nothing else."""
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        return f"the listed name {name[:100]!r} leads out of its folder"
    if _CONTROL.search(name):
        return f"the listed name {name[:100]!r} has a control character"
    return None


def joined(folder: str, name: str) -> str:
    """Return the path of `name` in `folder`."""
    if folder in ("", "."):
        return name
    return f"{folder.rstrip('/')}/{name}"


def url_of(scheme: str, host: str, port: int, path: str) -> str:
    """Return a URL for messages."""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}/{quote(path.removeprefix('/'))}"


def decode(raw: bytes) -> str:
    """Return a name or a line of a server: UTF-8 (RFC 2640), or latin-1 where it is not."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def encodings(path: str) -> list[bytes]:
    """Return the encodings of a path, UTF-8 first: a name that was read as latin-1 must be sent as latin-1."""
    found = [path.encode()]
    if not path.isascii():
        with contextlib.suppress(UnicodeEncodeError):
            found.append(path.encode("latin-1"))
    return found
