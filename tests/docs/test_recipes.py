"""`docs/recipes.md`: each file runs against a server that pages as that API does, and finds nothing to do the second time."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.conftest import Page

TOTAL, PAGE = 8, 3
Answer = tuple[int, dict[str, str], Any]


def rows(first: int, **fields: Any) -> list[dict[str, Any]]:
    """Return the rows of a page that begins at one of eight; a server gives fewer than were asked for."""
    return [{name: make(n) for name, make in fields.items()} for n in range(first, min(first + PAGE, TOTAL + 1))]


def wordpress(path: str, query: dict[str, str], base: str) -> Answer:
    """Numbered pages; the one behind the last is refused."""
    page = int(query.get("page", "1"))
    if page > 3:
        return 400, {}, {"code": "rest_post_invalid_page_number"}
    found = rows(1 + (page - 1) * PAGE, id=int, modified_gmt=lambda n: f"2026-01-0{n}T00:00:00")
    return 200, {"X-WP-TotalPages": "3", "X-WP-Total": str(TOTAL)}, found


def mediawiki(path: str, query: dict[str, str], base: str) -> Answer:
    """Continuation, and the text of one page."""
    if "pageids" in query:
        return 200, {}, {"query": {"pages": [{"pageid": int(query["pageids"]), "revisions": [{"slots": {"main": {}}}]}]}}
    first = int(query.get("gapcontinue", "1"))
    more = {"continue": {"gapcontinue": str(first + PAGE), "continue": "gapcontinue||"}} if first + PAGE <= TOTAL else {}
    return 200, {}, {"query": {"pages": rows(first, pageid=int, lastrevid=lambda n: n * 10)}, **more}


def redmine(path: str, query: dict[str, str], base: str) -> Answer:
    """Offsets with a total, and one issue."""
    if found := re.search(r"/issues/(\d+)\.json$", path):
        return 200, {}, {"issue": {"id": int(found[1]), "journals": []}}
    listed = rows(1 + int(query["offset"]), id=int, updated_on=lambda n: f"2026-01-0{n}T00:00:00Z")
    return 200, {}, {"issues": listed, "total_count": TOTAL, "offset": int(query["offset"]), "limit": PAGE}


def registry(path: str, query: dict[str, str], base: str) -> Answer:
    """Names with slashes, and a relative link."""
    if path.endswith("/tags/list"):
        return 200, {}, {"name": path.removeprefix("/").removesuffix("/tags/list"), "tags": ["latest"]}
    first = int(query.get("last", "our/0")[4:]) + 1
    names = [f"our/{row['n']}" for row in rows(first, n=int)]
    more = {"Link": f'</_catalog?last={names[-1]}&n=3>; rel="next"'} if first + PAGE <= TOTAL else {}
    return 200, more, {"repositories": names}


def github(path: str, query: dict[str, str], base: str) -> Answer:
    """A link header, and `since`."""
    if query.get("since"):
        return 200, {}, rows(TOTAL, number=int, updated_at=lambda n: f"2026-01-0{n}T00:00:00Z")
    page = int(query.get("page", "1"))
    more = {"Link": f'<{base}{path[1:]}?page={page + 1}>; rel="next"'} if page < 3 else {}
    return 200, more, rows(1 + (page - 1) * PAGE, number=int, updated_at=lambda n: f"2026-01-0{n}T00:00:00Z")


def graph(path: str, query: dict[str, str], base: str) -> Answer:
    """A token, and OData links."""
    if path == "/token":
        return 200, {}, {"access_token": "t0k", "expires_in": 3600, "token_type": "Bearer"}
    first = int(query.get("$skiptoken", "1"))
    more = {"@odata.nextLink": f"{base}users?$skiptoken={first + PAGE}"} if first + PAGE <= TOTAL else {}
    return 200, {}, {"value": rows(first, id=str), **more}


def caldav(path: str, query: dict[str, str], base: str) -> Answer:
    """All events with their ETags as XML, the calendar itself among them, and one event."""
    if path.endswith(".ics"):
        assert path.startswith("/ann%20b/"), path
        return 200, {}, f"BEGIN:VCALENDAR {path}"
    hrefs = ["/", *(f"/ann%20b/{number}.ics" for number in range(1, TOTAL + 1))]
    one = "<response><href>{0}</href><propstat><prop><getetag>{0}</getetag></prop></propstat></response>"
    return 207, {}, f'<multistatus xmlns="DAV:">{"".join(one.format(href) for href in hrefs)}</multistatus>'


#: Section -> how its API answers, the header that it needs, and how often the second run finds an entity unchanged.
APIS = {
    "WordPress": (wordpress, None, TOTAL),
    "MediaWiki": (mediawiki, None, TOTAL),
    "Redmine": (redmine, ("X-Redmine-API-Key", "s3cret"), TOTAL),
    "A Docker registry": (registry, None, TOTAL),
    "GitHub": (github, ("Authorization", "Bearer s3cret"), 1),
    "Microsoft Graph": (graph, ("Authorization", "Bearer t0k"), TOTAL),
    "A CalDAV calendar": (caldav, ("Authorization", "Basic czNjcmV0OnMzY3JldA=="), TOTAL),
}


@pytest.fixture
def api(request: pytest.FixtureRequest) -> Iterator[str]:
    """One of the APIs on loopback."""
    answer, needed, _ = APIS[request.param]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            base = f"http://127.0.0.1:{self.server.server_address[1]}/"  # type: ignore[str-bytes-safe]
            status, headers, body = answer(parts.path, dict(parse_qsl(parts.query)), base)
            if needed and parts.path != "/token" and self.headers[needed[0]] != needed[1]:
                status, headers, body = 401, {}, {}
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_PROPFIND = do_GET  # noqa: N815 - the server looks for this name

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            assert form["grant_type"] == ["client_credentials"]
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.parametrize(("section", "api"), [(name, name) for name in APIS], indirect=["api"])
def test_the_recipe_runs(
    pages: dict[str, Page], project: Path, api: str, run_here: Any, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    """Everything is stored, then found unchanged, and the file has few lines."""
    (text,) = re.findall(r"^```python\n(.*?)^```$", pages["docs/recipes.md"].section(f"## {section}"), re.MULTILINE | re.DOTALL)
    (project / "syncs/recipe.py").write_text(text)
    for name in re.findall(r'env\("(\w+)"', text):
        monkeypatch.setenv(name, f"{api}token" if name.endswith("TOKEN_URL") else api if name.endswith("URL") else "s3cret")
    (sync,) = re.findall(r'Sync\("([\w.]+)"', text)
    first, second = run_here(sync), run_here(sync)
    assert (first["state"], first["stopped"], first["succeeded"]) == ("success", "end", TOTAL), first
    assert (second["state"], second["succeeded"], second["unchanged"]) == ("success", 0, APIS[section][2]), second
    # With code of its own it may be longer.
    assert len(text.splitlines()) <= (20 if "def " in text else 12)


def test_every_recipe_is_tried(pages: dict[str, Page]) -> None:
    """A new section has an API above."""
    headings = re.findall(r"^## (.*)$", pages["docs/recipes.md"].text, re.MULTILINE)
    assert headings == [*APIS, "What is not here"]
