"""Who reads notices in these tests: a real webhook receiver on loopback, that can be down, slow, or gone."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Of each URL: the part that must never be seen.
TOKEN = "hook-t0ken"


@dataclass
class Recipient:
    """A webhook. Its posts are kept in the order they came."""

    url: str = ""
    posts: list[dict[str, Any]] = field(default_factory=list)
    #: The status of its answers.
    status: int = 200
    #: What was taken is answered after this.
    goes_on: threading.Event = field(default_factory=threading.Event)
    #: Requests, taken or not.
    asked: int = 0
    _news: threading.Condition = field(default_factory=threading.Condition)

    def take(self, document: dict[str, Any]) -> None:
        """Keep a post."""
        with self._news:
            self.posts.append(document)
            self._news.notify_all()

    def wait(self, count: int, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Wait for so many posts, and return all."""
        with self._news:
            self._news.wait_for(lambda: len(self.posts) >= count, timeout=seconds)
            return list(self.posts)

    def settle(self, seconds: float = 0.3) -> list[dict[str, Any]]:
        """Wait until nothing more comes for a while, and return all posts."""
        before = -1
        while before != len(self.posts):
            before = len(self.posts)
            time.sleep(seconds)
        return list(self.posts)

    @property
    def whats(self) -> list[tuple[str, str]]:
        """What the posts are, and their levels."""
        return [(post["what"], post["level"]) for post in self.posts]


@contextmanager
def receiving() -> Iterator[Recipient]:
    """A recipient, for the time of a block."""
    recipient = Recipient()
    recipient.goes_on.set()

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            recipient.asked += 1
            if recipient.status < 300:
                recipient.take(json.loads(body))
                recipient.goes_on.wait(60)
            self.send_response(recipient.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    recipient.url = f"http://127.0.0.1:{server.server_address[1]}/{TOKEN}"
    try:
        yield recipient
    finally:
        recipient.goes_on.set()
        server.shutdown()
        server.server_close()
