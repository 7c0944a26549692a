"""A server on loopback for APIs that `syncs new` is tried on: each is a row of a table, and answers by the query alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

Row = dict[str, Any]


@dataclass
class Ask:
    """One request: its path, its query, and the URL of the server."""

    path: str
    query: dict[str, str]
    base: str
    headers: dict[str, str] = field(default_factory=dict)

    def number(self, name: str, default: int) -> int:
        """Return a number of the query; what is none counts as the default."""
        value = self.query.get(name, "")
        return int(value) if value.lstrip("-").isdigit() else default

    def link(self, **changed: Any) -> str:
        """Return the URL of this request with other parameters."""
        return f"{self.base}{self.path}?{urlencode({**self.query, **changed})}"


@dataclass
class Told:
    """An answer."""

    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Api:
    """One API: the URL of its listing, its rows, and how it answers."""

    url: str
    rows: Sequence[Any]
    list: Callable[[Ask, Sequence[Any]], Told]
    key: Callable[[Any], str] = lambda row: str(row["id"])
    detail: str = ""
    since: str = ""
    field: str = "updated_at"


def moment(n: int, text: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    """Return the time at which row n was changed."""
    return (datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=n)).strftime(text)


def made(total: int, **fields: Callable[[int], Any]) -> list[Row]:
    """Return rows with an id, a name, and further fields by number."""
    return [{"id": n, "name": f"Row {n}", **{name: of(n) for name, of in fields.items()}} for n in range(1, total + 1)]


DATED: dict[str, Callable[[int], Any]] = {"created_at": lambda n: moment(n // 2), "updated_at": moment}


def paged(
    ask: Ask,
    rows: Sequence[Any],
    *,
    page: str = "page",
    size: str = "per_page",
    default: int = 10,
    most: int = 100,
    start: int = 1,
):
    """Return the rows of a numbered page, its number, its size, and how many pages there are."""
    many = min(most, max(1, ask.number(size, default)))
    number = ask.number(page, start)
    at = (number - start) * many
    return list(rows[at : at + many]) if at >= 0 else [], number, many, -(-len(rows) // many)


def cut(
    ask: Ask,
    rows: Sequence[Any],
    *,
    offset: str = "offset",
    limit: str = "limit",
    default: int = 25,
    most: int = 100,
    first: int = 0,
):
    """Return the rows behind an offset, the offset and the limit."""
    many = min(most, max(1, ask.number(limit, default)))
    at = max(0, ask.number(offset, first) - first)
    return list(rows[at : at + many]), at, many


@contextmanager
def served(apis: Mapping[str, Api]) -> Iterator[tuple[str, list[str]]]:
    """Serve all of them, each below its name; yield the URL, and the targets of the requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            asked.append(self.path)
            sent = {name.lower(): value for name, value in self.headers.items()}
            parts = urlsplit(self.path)
            name, _, rest = unquote(parts.path).lstrip("/").partition("/")
            told = (
                _answer(apis[name], Ask(f"/{name}/{rest}", dict(parse_qsl(parts.query)), base, sent), rest)
                if name in apis
                else None
            )
            told = told or Told({"error": "not found"}, status=404)
            body = told.body if isinstance(told.body, bytes) else json.dumps(told.body).encode()
            self.send_response(told.status)
            for header, value in {"Content-Type": "application/json", **told.headers, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        base = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield base, asked
        finally:
            server.shutdown()
            thread.join()


def _answer(api: Api, ask: Ask, rest: str) -> Told | None:
    path = api.url.partition("?")[0]
    if rest == path:
        rows = api.rows
        if api.since and (mark := ask.query.get(api.since)):
            rows = [row for row in rows if row[api.field] >= mark]
        return api.list(ask, rows)
    stem, dot, ending = path.rstrip("/").partition(".")
    key = rest.removeprefix(f"{stem}/").removesuffix(f"{dot}{ending}").rstrip("/")
    row = next((row for row in api.rows if api.key(row) == key), None) if api.detail else None
    return None if row is None else Told({**row, api.detail: {"more": 1, "and": 2}})
