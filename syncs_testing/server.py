"""A server on loopback that answers what a function returns; it can cut, delay and slow down its replies."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Seen:
    """One request as the server saw it; header names in lower case."""

    number: int
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path of the target."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query; of a repeated parameter the last value."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def json(self) -> Any:
        """The body as JSON, or None."""
        try:
            return json.loads(self.body) if self.body else None
        except ValueError:
            return None


@dataclass
class Reply:
    """A reply of the server.

    Args:
        body: JSON values, or bytes as they are.
        cut: bytes of the body to send before the connection is reset.
        drip: seconds between single bytes, of the headers too if `drip_headers`.
        silent: seconds before the first byte.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    drip: float | None = None
    drip_headers: bool = False
    silent: float = 0.0

    def head_and_content(self) -> tuple[bytes, bytes]:
        """Return the two parts as bytes."""
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} Said", *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), content


class Server:
    """A running server: its URL, and every request it saw.

    Args:
        respond: from request to reply.
        most: requests that are answered; after that all replies are 500, and `endless` is set.
    """

    def __init__(self, respond: Callable[[Seen], Reply], *, most: int = 5000) -> None:
        self.respond = respond
        self.seen: list[Seen] = []
        self.endless = False
        self._lock = threading.Lock()
        self._most = most
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def do_GET(self) -> None:
                outer._answer(self)

            do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_GET  # noqa: N815  # http.server looks for these names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self._httpd.handle_error = lambda request, address: None  # type: ignore[method-assign, assignment]
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; open connections are closed."""
        self._closing.set()
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            body = handler.rfile.read(length)
            seen = Seen(len(self.seen) + 1, handler.command, handler.path, headers, body)
            self.seen.append(seen)
            self.endless = self.endless or len(self.seen) > self._most
            reply = Reply({"error": "enough"}, 500) if self.endless else self.respond(seen)
        head, content = reply.head_and_content()
        if seen.method == "HEAD" or reply.status in (204, 304):
            content = b""
        if reply.silent and self._closing.wait(reply.silent):
            return
        if reply.drip is not None:
            slow, fast = (head + content, b"") if reply.drip_headers else (content, head)
            handler.wfile.write(fast)
            for byte in slow:
                handler.wfile.write(bytes([byte]))
                if self._closing.wait(reply.drip):
                    break
            handler.close_connection = True
        elif reply.cut is not None:
            handler.wfile.write(head + content[: reply.cut])
            handler.wfile.flush()
            time.sleep(0.02)
            # With a linger of 0, closing resets the connection.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
        else:
            handler.wfile.write(head + content)


@contextmanager
def serving(respond: Callable[[Seen], Reply], *, most: int = 5000) -> Iterator[Server]:
    """Run a server."""
    server = Server(respond, most=most)
    try:
        yield server
    finally:
        server.close()
