"""Loads and caches a service's WSDL and its schemas, and refuses documents of other origins.

A document is kept in memory for all clients of the process, and in a folder if one is given. It is fetched again when it is older
than `max_age`; if that fails, the old one is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import unquote, urlsplit

from clients.errors import AuthRefusedError, ClientError, RejectedError
from clients.urls import Origin, origin_of

log = logging.getLogger("syncs.soap")

MAX_DOCUMENTS = 100
"""zeep reads imports by recursion: a chain of many more would end in a RecursionError."""
# The schema of xml:lang and similar attributes. WSDLs import it without a location, and zeep would then ask www.w3.org.
_XML_XSD = b"""<?xml version="1.0"?>
<xs:schema targetNamespace="http://www.w3.org/XML/1998/namespace" xmlns:xs="http://www.w3.org/2001/XMLSchema" xml:lang="en">
<xs:attribute name="lang" type="xs:string"/><xs:attribute name="space" type="xs:string"/>
<xs:attribute name="base" type="xs:anyURI"/><xs:attribute name="id" type="xs:ID"/>
<xs:attributeGroup name="specialAttrs"><xs:attribute ref="xml:base"/><xs:attribute ref="xml:lang"/>
<xs:attribute ref="xml:space"/><xs:attribute ref="xml:id"/></xs:attributeGroup></xs:schema>"""
_KNOWN = {f"{scheme}://www.w3.org/{year}xml.xsd": _XML_XSD for scheme in ("http", "https") for year in ("2001/", "2001/03/")}

_memory: dict[str, tuple[float, bytes]] = {}
_lock = threading.Lock()


def forget() -> None:
    """Empty the cache in memory."""
    with _lock:
        _memory.clear()


class Documents:
    """The documents of one service.

    Args:
        root: URL or path of the WSDL.
        fetch: returns the document at a URL; it sends credentials only to the declared origins.
        trusted: further origins of schemas.
        folder: keeps documents after the end of the process; created when needed.
        max_age: seconds.
        check: refuses a document that may not be parsed.
    """

    def __init__(
        self,
        root: str,
        fetch: Callable[[str], bytes],
        *,
        trusted: Collection[Origin],
        folder: str | os.PathLike[str] | None,
        max_age: float,
        check: Callable[[bytes, str], None],
    ) -> None:
        self.local = None if _is_http(root) else local_path(root)
        self.root = root if self.local is None else str(self.local)
        self._origins = {*trusted} if self.local is not None else {origin_of(root), *trusted}
        self._fetch = fetch
        self._folder = None if folder is None else Path(folder)
        self._max_age = max_age
        self._check = check
        self._count = 0

    def load(self, url: str) -> bytes:
        """Return a document.

        Raises:
            RejectedError: it is of another origin, or there are more than 100.
            ClientError: it cannot be fetched, and there is no old one.
        """
        self._count = 0 if url == self.root else self._count + 1
        if self._count > MAX_DOCUMENTS:
            raise RejectedError(f"the WSDL imports more than {MAX_DOCUMENTS} documents")
        if url in _KNOWN:
            return _KNOWN[url]
        content = self._get(url) if _is_http(url) else self._read(url)
        self._check(content, url)
        return content

    def _read(self, url: str) -> bytes:
        path = local_path(url)
        folder = self.local.parent if self.local is not None else None
        if folder is None or not path.is_relative_to(folder):
            raise RejectedError(f"the WSDL imports a local file, which is refused: {path.name!r}")
        try:
            return path.read_bytes()
        except OSError as error:
            raise RejectedError(f"the WSDL cannot be read: {path}: {error.strerror}") from None

    def _get(self, url: str) -> bytes:
        try:
            origin = origin_of(url)
        except ValueError:
            raise RejectedError("the WSDL imports something that is not a URL") from None
        if origin not in self._origins:
            scheme, host, port = origin
            raise RejectedError(
                f"the WSDL imports a document of another origin, {scheme}://{host}:{port}, which is refused; "
                "if it is right, say SoapClient(…, trusted=[that origin])"
            )
        kept = self._kept(url)
        if kept is not None and 0 <= time.time() - kept[0] < self._max_age:
            return kept[1]
        try:
            content = self._fetch(url)
            # An unusable document must not replace a good one.
            self._check(content, url)
        except AuthRefusedError:
            raise
        except ClientError as error:
            if kept is None:
                raise
            log.warning("the WSDL cannot be had, the one of %.0f s ago goes on serving: %s", time.time() - kept[0], error)
            return kept[1]
        self._keep(url, content)
        return content

    def _kept(self, url: str) -> tuple[float, bytes] | None:
        with _lock:
            kept = _memory.get(url)
        if kept is None and self._folder is not None:
            path = self._folder / _file_name(url)
            with contextlib.suppress(OSError):
                kept = path.stat().st_mtime, path.read_bytes()
        return kept

    def _keep(self, url: str, content: bytes) -> None:
        with _lock:
            _memory[url] = time.time(), content
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside = self._folder / f".{os.urandom(6).hex()}"
            beside.write_bytes(content)
            beside.replace(self._folder / _file_name(url))
        except OSError as error:
            log.warning("the WSDL could not be kept in %s: %s", self._folder, error.strerror)


def local_path(text: str) -> Path:
    """Return the real path of a file, given as path or `file:` URL."""
    parts = urlsplit(text)
    return Path(unquote(parts.path) if parts.scheme == "file" else text).expanduser().resolve()


def _is_http(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


def _file_name(url: str) -> str:
    return f"{hashlib.sha256(url.encode()).hexdigest()[:40]}.xml"
