"""A small remote system on loopback for the engine's tests: a paged listing, one detail request each, faults and counters.

Also the declarations that sync it, so that the runner processes and the tests say the same.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import text

from clients import Cursor, HttpClient, Listing
from flows import Client, PausePolicy, Sync
from jobs import JobStore, Retry
from jobs.job import Lane

SYNC, CLIENT = "shop.things", "shop"
LANE = Lane(CLIENT, CLIENT, SYNC)
AT_ONCE = Retry(max_retries=3, delay=0, jitter=False)


@dataclass
class Fault:
    """An answer that is not the right one."""

    status: int = 200
    body: bytes = b'{"error": "told to"}'
    headers: dict[str, str] = field(default_factory=dict)
    #: Seconds before the right answer, for a fault that is only slow.
    delay: float = 0.0
    #: So many requests get it; `None` is all.
    times: int | None = None


@dataclass
class Remote:
    """Things behind `GET things?cursor=` and `GET things/<key>`."""

    things: dict[str, dict[str, Any]] = field(default_factory=dict)
    page_size: int = 10
    url: str = ""
    #: Seconds before every page and every detail.
    page_delay: float = 0.0
    delay: float = 0.0
    #: Called before a page or a detail is answered, with how many of them were asked for so far.
    on_page: Callable[[int], object] = lambda asked: None
    on_detail: Callable[[int], object] = lambda asked: None
    #: The next request for the detail of such a key is answered when its event is set, or after 50 s.
    held: dict[str, threading.Event] = field(default_factory=dict)
    #: A page with this cursor points back to the second.
    loop_at: int | None = None
    #: Extra raw items of the page at this cursor.
    extra: dict[int, list[Any]] = field(default_factory=dict)
    page_faults: dict[int, Fault] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    pages: Counter[int] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    authorizations: set[str | None] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        """All requests so far."""
        return self.pages.total() + self.details.total()

    def fill(self, n: int, *, start: int = 0) -> None:
        """Have `n` things more."""
        for number in range(start, start + n):
            self.things[f"k{number}"] = {"id": f"k{number}", "v": 1, "name": f"thing {number}"}

    def change(self, key: str) -> None:
        """Let a thing change, as its version tells."""
        old = self.things[key]
        self.things[key] = {**old, "v": old["v"] + 1, "name": f"{old['name']}!"}

    def forget(self) -> None:
        """Count from zero."""
        self.pages.clear()
        self.details.clear()

    def answer(self, path: str, query: dict[str, list[str]], authorization: str | None) -> tuple[Fault | None, Any]:
        """Return the fault, if one is due, and the right document."""
        _, _, key = path.removeprefix("/").partition("/")
        cursor = int(query.get("cursor", ["0"])[0])
        with self._lock:
            self.authorizations.add(authorization)
            if key:
                self.details[key] += 1
                asked, fault = self.details.total(), self._due(self.faults.get(key) or self.faults.get("*"))
                held = self.held.pop(key, None)
            else:
                self.pages[cursor] += 1
                asked, fault = self.pages.total(), self._due(self.page_faults.get(cursor))
        if key:
            self.on_detail(asked)
            if held is not None:
                held.wait(50)
            time.sleep(self.delay)
            found = self.things.get(key)
            return fault or (Fault(404) if found is None else None), found
        self.on_page(asked)
        time.sleep(self.page_delay)
        following: int | None = cursor + self.page_size
        if following is not None and following >= len(self.things):
            following = None
        if self.loop_at is not None and cursor == self.loop_at:
            following = self.page_size
        items = [{"id": thing["id"], "v": thing["v"]} for thing in list(self.things.values())[cursor : cursor + self.page_size]]
        return fault, {"data": [*items, *self.extra.get(cursor, [])], "next": following}

    def _due(self, fault: Fault | None) -> Fault | None:
        if fault is None or fault.times == 0:
            return None
        if fault.times is not None:
            fault.times -= 1
        return fault


def _handler(remote: Remote) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            fault, document = remote.answer(parts.path, parse_qs(parts.query), self.headers.get("Authorization"))
            status, body, more = 200, json.dumps(document).encode(), {}
            if fault is not None:
                time.sleep(fault.delay)
                if not fault.delay:
                    status, body, more = fault.status, fault.body, fault.headers
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **more}
            lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
            # In one piece: two writes would meet Nagle's algorithm and a delayed acknowledgement, 40 ms a request.
            self.wfile.write("\r\n".join(lines).encode() + body)

        def do_POST(self) -> None:
            """Answer as to a GET, as a search does."""
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            return None

    return Handler


class _Server(ThreadingHTTPServer):
    # Kept-alive connections would hold their threads, and server_close would wait for them.
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed breaks its connection; that is the test."""


@contextmanager
def serving(remote: Remote) -> Iterator[Remote]:
    """Serve it on loopback."""
    with _Server(("127.0.0.1", 0), _handler(remote)) as server:
        remote.url = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield remote
        finally:
            server.shutdown()


def fetch(http: Any, entity: Any) -> Any:
    """Get one thing."""
    return http.get_json(f"things/{entity.key}")


def declare(url: str, *, pause: PausePolicy | None = None, client: dict[str, Any] | None = None, **fields: Any) -> Sync:
    """Declare the sync of a remote; `fields` are those of `Sync`, `client` those of `Client`."""
    of_client = {"connect": lambda _: HttpClient(url, timeout=60), "pause": pause or PausePolicy(), **(client or {})}
    of_sync = {
        "listing": Listing("things", Cursor("next"), items="data", key="id", version="v"),
        "fetch": fetch,
        "retry": AT_ONCE,
        "concurrency": 4,
        **fields,
    }
    return Sync(SYNC, Client(CLIENT, **of_client), **of_sync)


# -- looking into the tables ----------------------------------------------------------------------------


def query(store: JobStore, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Return rows of a query."""
    with store.db.read() as connection:
        return [dict(row) for row in connection.execute(text(statement), values).mappings()]


def change(store: JobStore, statement: str, **values: Any) -> None:
    """Run a statement that writes."""
    with store.db.write() as connection:
        connection.execute(text(statement), values)


def states(store: JobStore) -> dict[str, int]:
    """Count jobs by state."""
    return {row["state"]: row["n"] for row in query(store, "SELECT state, count(*) AS n FROM job GROUP BY state")}


def live(store: JobStore) -> set[str]:
    """Return the keys of the records that are in sync and not deleted."""
    return {row["key"] for row in query(store, "SELECT key FROM record WHERE deleted_at IS NULL AND synced_at IS NOT NULL")}


def dump(store: JobStore) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table of ours."""
    from jobs.schema.job_tables import metadata

    return {name: query(store, f'SELECT * FROM "{name}" ORDER BY 1, 2') for name in sorted(metadata.tables)}
