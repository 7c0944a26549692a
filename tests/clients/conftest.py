"""Real servers on loopback for the tests of `clients`: one that answers what a function says, and one of raw bytes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


@dataclass
class Seen:
    """One request as the server saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path of the target."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The last value of each query parameter."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()}


@dataclass
class Server:
    """A running server: its URL, what it saw, and the function that answers (status, headers, body)."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    respond: Callable[[Seen], tuple[int, dict[str, str], Any]] = lambda seen: (200, {}, {})


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers; each call gives one of another origin."""
    running: list[ThreadingHTTPServer] = []

    def start(respond: Callable[[Seen], tuple[int, dict[str, str], Any]] | None = None) -> Server:
        server = Server()
        if respond is not None:
            server.respond = respond

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.command, self.path, headers, self.rfile.read(length))
                server.seen.append(seen)
                status, extra, body = server.respond(seen)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                if "Content-Length" not in extra:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD" and status not in (204, 304):
                    self.wfile.write(content)

            do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815 - http.server looks for these names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        httpd.daemon_threads = True
        running.append(httpd)
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        return server

    yield start
    for httpd in running:
        httpd.shutdown()
        httpd.server_close()


@dataclass
class RawServer:
    """A socket server that says `reply` to whatever comes, and counts connections."""

    url: str
    connections: int = 0


@pytest.fixture
def serve_raw() -> Iterator[Callable[..., RawServer]]:
    """Start servers of raw bytes; `reply=None` never answers."""
    sockets: list[socket.socket] = []

    def start(reply: bytes | None) -> RawServer:
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)
        server = RawServer(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def loop() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                sockets.append(connection)
                server.connections += 1
                # The test may be over, and the socket closed.
                with contextlib.suppress(OSError):
                    connection.recv(65536)
                    if reply is not None:
                        connection.sendall(reply)
                        connection.shutdown(socket.SHUT_RDWR)
                        connection.close()

        threading.Thread(target=loop, daemon=True).start()
        return server

    yield start
    for one in sockets:
        # A `close` alone does not end an `accept`.
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
