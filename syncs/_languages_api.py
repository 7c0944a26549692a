"""Serves the languages of ISO 639-3 over HTTP/1.1 on loopback, from memory: the API of the demo.

    GET /languages?page=1  {"data": [{"alpha_3": "aaa", "name": "Ghotuo", "rev": "…"}, …], "page": 1, "pages": 80, "total": 7910}
    GET /languages/aaa     {"alpha_3": "aaa", "name": "Ghotuo", "scope": "I", "type": "L", "rev": "…"}

It prints its base URL and serves until its standard input ends: it ends with the process that started it, even if that is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import threading
from urllib.parse import parse_qs, urlsplit

PAGE = 100
_LONGEST_HEAD = 16_384


def read_languages() -> list[dict[str, str]]:
    """Return every language with a `rev` that changes when the language does, in order of its code."""
    try:
        import pycountry
    except ImportError:
        sys.exit("the demo needs the package pycountry: pip install 'sync-clients[demo]'")
    found = []
    for language in sorted(pycountry.languages, key=lambda one: one.alpha_3):
        fields = dict(language)
        rev = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
        found.append({**fields, "rev": rev})
    return found


class Answers:
    """All answers by request target, encoded in advance."""

    def __init__(self, languages: list[dict[str, str]]) -> None:
        self._total = len(languages)
        self._pages = -(-self._total // PAGE)
        self._known = {f"/languages/{one['alpha_3']}".encode(): _encode(200, one) for one in languages}
        listed = [{name: one[name] for name in ("alpha_3", "name", "rev")} for one in languages]
        for page in range(1, self._pages + 1):
            self._known[b"/languages?page=%d" % page] = self._page(page, listed[(page - 1) * PAGE : page * PAGE])

    def _page(self, page: int, items: list[dict[str, str]]) -> bytes:
        return _encode(200, {"data": items, "page": page, "pages": self._pages, "total": self._total})

    def get(self, target: bytes) -> bytes:
        """Return the answer to GET `target`."""
        known = self._known.get(target)
        return known if known is not None else self._computed(target)

    def _computed(self, target: bytes) -> bytes:
        parts = urlsplit(target.decode("latin-1"))
        if parts.path != "/languages":
            return self._known.get(parts.path.encode("latin-1")) or _encode(404, {"error": "not found"})
        page = parse_qs(parts.query).get("page", ["1"])[-1]
        if not page.isascii() or not page.isdigit() or page.strip("0") == "":
            return _encode(400, {"error": "page must be a number from 1"})
        number = int(page[:9])
        return self._known.get(b"/languages?page=%d" % number) or self._page(number, [])


def _encode(status: int, body: object) -> bytes:
    reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}[status]
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        reason.encode(),
        len(content),
        content,
    )


class Connection(asyncio.Protocol):
    """One keep-alive connection. Reads request heads only, because a GET has no body. After another method it is closed."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        *heads, self._unread = (self._unread + data).split(b"\r\n\r\n")
        for head in heads:
            method, _, rest = head.partition(b" ")
            if method != b"GET":
                self._transport.write(_encode(405, {"error": "only GET"}))
                self._transport.close()
                return
            self._transport.write(self._answers.get(rest.partition(b" ")[0]))
            if b"\r\nconnection: close" in head.lower():
                self._transport.close()
                return
        if len(self._unread) > _LONGEST_HEAD:
            self._transport.close()


async def serve(answers: Answers, port: int) -> None:
    """Serve on loopback for ever; print the base URL when the server listens."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(answers), "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description="The languages of ISO 639-3 over HTTP, until standard input ends.")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; by default a free one")
    port = parser.parse_args().port
    # Before the languages are read: the process that started this one may end meanwhile.
    threading.Thread(target=_end_with_input, daemon=True).start()
    asyncio.run(serve(Answers(read_languages()), port))


if __name__ == "__main__":
    main()
