"""`syncs check`: one row explains a client, within four requests, and no secret is in it."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from syncs_testing import Reply, Seen, Server, serving

if TYPE_CHECKING:
    from tests.flows.conftest import Project

FILE = """
import os
from clients import *
from flows import Client, Sync
from pydantic import SecretStr
from pydantic_settings import BaseSettings

class Settings(BaseSettings, env_prefix="SHOP_"):
    url: str
    token: SecretStr = SecretStr("t0p-secret")

shop = Client("shop", settings=Settings, connect=lambda s: {connect})
things = Sync("shop.things", shop, listing={listing})
"""
CONNECT = "HttpClient(s.url, auth=Bearer(s.token))"
ROWS = [{"id": number} for number in range(1, 26)]


class Api:
    """Pages of ten by number, with everything that a check looks for."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = ROWS
        self.ignores_page = False
        self.redirects = 0
        self.remaining = 60
        #: Paths that begin so are answered 404.
        self.missing = "/nothing"
        self.server: Server

    @property
    def seen(self) -> list[Seen]:
        """What was asked."""
        return self.server.seen

    def respond(self, seen: Seen) -> Reply:
        """Answer."""
        self.remaining -= 1
        headers = {
            "X-RateLimit-Limit": "60",
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": "30",
            **self.headers,
        }
        if self.redirects:
            self.redirects -= 1
            return Reply({}, 301, {**headers, "Location": seen.target})
        if "if-none-match" in seen.headers and seen.headers["if-none-match"] == headers.get("ETag"):
            return Reply(b"", 304, headers)
        if seen.target.startswith(self.missing):
            return Reply({}, 404, headers)
        if seen.target.startswith("/later"):
            return Reply({"status": "computing"}, 202, headers)
        page = 1 if self.ignores_page else int(seen.query.get("page", 1))
        return Reply(self.rows[(page - 1) * 10 : page * 10], headers=headers)


@pytest.fixture
def shop() -> Iterator[Api]:
    """An API on loopback."""
    api = Api()
    with serving(api.respond) as api.server:
        yield api


Examine = Callable[..., dict[str, Any]]


@pytest.fixture
def examine(project: Project, shop: Api) -> Examine:
    """Check the client of a file, and return its row."""

    def run(
        listing: str = 'Listing("things", PageNumber())', *, connect: str = CONNECT, code: int = 0, url: str = ""
    ) -> dict[str, Any]:
        project.write("syncs/shop.py", FILE.format(connect=connect, listing=listing))
        found = project.run_here("check", "--json", SHOP_URL=url or shop.server.url)
        assert found.returncode == code, found.stdout + found.stderr
        assert "t0p-secret" not in found.stdout + found.stderr
        (row,) = json.loads(found.stdout)["checks"]
        return dict(row)

    return run


def test_a_row_explains_a_client(examine: Examine, shop: Api, project: Project) -> None:
    """Settings, sign-in, two pages, rates, validators, clock and redirects, in three requests."""
    shop.headers = {"ETag": '"v1"', "Date": format_datetime(datetime.now(UTC), usegmt=True)}
    row = examine()
    assert {name: row[name] for name in ("client", "ok", "settings", "connection", "entities", "message", "warnings")} == {
        "client": "shop", "ok": True, "settings": "ok", "connection": "ok", "entities": 10, "message": "", "warnings": [],
    }  # fmt: skip
    assert (row["pages"], row["second_page"], row["ended"]) == (2, "differs", "more")
    assert row["rate"] == {"limit": 60, "remaining": 57, "resets_in": 30, "window": None, "name": ""}
    assert (row["validators"], row["not_modified"], row["tls"], row["redirects"], row["requests"]) == (["ETag"], True, None, 0, 3)
    assert abs(row["skew_seconds"]) < 60
    assert [seen.query.get("page") for seen in shop.seen] == ["1", "2", "1"]
    assert all(seen.headers["authorization"] == "Bearer t0p-secret" for seen in shop.seen)
    text = project.run_here("check", SHOP_URL=shop.server.url).stdout
    head, line = text.splitlines()
    assert " ".join(head.split()) == "CLIENT SETTINGS CONNECTION PAGES ENTITIES RATE VALIDATORS SKEW REDIRECTS TIME"
    assert "2, which differ, more follow" in line
    assert "54/60, full in 30 s" in line
    assert "ETag: 304" in line


def test_one_page_is_the_end(examine: Examine, shop: Api) -> None:
    """A listing of one page ends there; without validators nothing is asked again."""
    shop.rows = ROWS[:3]
    row = examine('Listing("things")')
    assert (row["pages"], row["second_page"], row["ended"], row["entities"]) == (1, None, "end", 3)
    assert (row["validators"], row["not_modified"], len(shop.seen)) == ([], None, 1)


@pytest.mark.parametrize(
    ("listing", "warning"),
    [
        ('Listing("things")', "exactly 10 rows came, and the listing has no paginator"),
        ('Listing("things", PageNumber("p"))', "the second page equals the first one"),
    ],
)
def test_paging_that_is_off_is_said(examine: Examine, shop: Api, listing: str, warning: str, project: Project) -> None:
    """A full page without a paginator, and a page parameter that nobody reads, are warnings in words."""
    row = examine(listing)
    assert [one.startswith(warning) for one in row["warnings"]] == [True]
    assert row["ok"] is True
    text = project.run_here("check", SHOP_URL=shop.server.url).stdout
    assert f"shop: {warning}" in text


def test_a_clock_that_is_off_is_said(examine: Examine, shop: Api) -> None:
    """More than a minute between the clocks is worth a line."""
    shop.headers = {"Date": format_datetime(datetime.now(UTC) - timedelta(minutes=10), usegmt=True)}
    row = examine()
    assert -640 < row["skew_seconds"] < -560
    assert [one for one in row["warnings"] if one.startswith("the remote clock is 6") or "s behind ours" in one]


def test_a_validator_that_does_not_hold(examine: Examine, shop: Api) -> None:
    """An ETag that changes with each answer is told apart from one that works."""
    shop.headers = {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}
    row = examine()
    assert (row["validators"], row["not_modified"]) == (["Last-Modified"], False)
    assert "if-modified-since" in shop.seen[-1].headers


@pytest.mark.parametrize(("redirects", "asked"), [(1, 4), (2, 4), (3, 4), (9, 4)])
def test_no_more_than_four_requests(examine: Examine, shop: Api, redirects: int, asked: int) -> None:
    """Redirects count; a client that leads round in circles fails after four requests."""
    shop.redirects, shop.headers = redirects, {"ETag": '"v1"'}
    row = examine(code=1 if redirects == 9 else 0)
    assert (row["requests"], len(shop.seen)) == (asked, asked)
    assert row["redirects"] == min(redirects, 4)
    assert any(one.startswith("301: what is declared has moved for good") for one in row["warnings"])
    if redirects == 9:
        assert row["message"] == "stopped after 4 requests, before a first page was there"


def test_what_fails_on_the_second_page_is_said(examine: Examine, shop: Api) -> None:
    """The first page proves the sign-in; the error of the second one is the message, without secrets."""
    answer = shop.respond
    shop.server.respond = lambda seen: Reply({}, 500) if seen.query.get("page") == "2" else answer(seen)
    row = examine(code=1)
    assert (row["ok"], row["connection"], row["entities"], row["pages"], row["ended"]) == (False, "ok", 10, 1, "error")
    assert row["message"].startswith("second page: GET http://127.0.0.1")


def test_a_sign_in_that_is_refused(examine: Examine, shop: Api) -> None:
    """The row says FAIL and what the answer was, and still what its headers showed."""
    shop.server.respond = lambda seen: Reply({}, 401, {"Date": format_datetime(datetime.now(UTC), usegmt=True)})
    row = examine(code=1)
    assert (row["connection"], row["entities"], row["requests"]) == ("FAIL", None, 1)
    assert "401" in row["message"]
    assert row["skew_seconds"] is not None


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Callable[[int], str]]:
    """Start a server with TLS, whose certificate is good for so many days; its CA is `ca.pem` in the project."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    servers: list[ThreadingHTTPServer] = []

    def start(days: int) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=days, hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )  # fmt: skip
        pem, secret = serialization.Encoding.PEM, tmp_path / "key.pem"
        secret.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "ca.pem", secret)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # HTTP/1.0: the connection is closed when the answer is read.
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'[{"id": 1}]')

            def log_message(self, *_: Any) -> None:
                return None

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        servers.append(server)
        return f"https://localhost:{server.server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("days", "warned"), [(13, True), (90, False)])
def test_tls_is_shown(examine: Examine, secure: Callable[[int], str], days: int, warned: bool) -> None:
    """Version, and days until the certificate ends; less than two weeks are worth a line."""
    url = secure(days)
    row = examine('Listing("things")', connect="HttpClient(s.url, auth=Bearer(s.token), verify='ca.pem')", url=url)
    assert row["tls"] == {"version": "TLSv1.3", "days_left": days}
    assert any(one.startswith("the certificate ends in 13 days") for one in row["warnings"]) is warned


def test_what_is_not_http_has_dashes(examine: Examine, project: Project, shop: Api) -> None:
    """An adapter of another kind is examined for its pages; the rest is unknown."""
    listing = "lambda conn, since: iter([Page([Entity('a')], cursor=1), Page([Entity('b')])])"
    row = examine(listing, connect="__import__('contextlib').nullcontext(1)")
    assert (row["ok"], row["pages"], row["second_page"], row["ended"], row["entities"]) == (True, 2, "differs", "end", 1)
    unknown = ("rate", "not_modified", "skew_seconds", "tls", "redirects", "requests")
    assert [row[name] for name in unknown] == [None] * len(unknown)
    line = project.run_here("check", SHOP_URL=shop.server.url).stdout.splitlines()[1].split()
    assert line[:8] == ["shop", "ok", "ok", "2,", "which", "differ,", "no", "more"]


def test_a_check_of_ones_own_shows_what_it_saw(examine: Examine, project: Project, shop: Api) -> None:
    """It may send any number of requests, and their headers count too; then the pages are read as without it."""
    text = FILE.format(connect=CONNECT, listing='Listing("things")')
    project.write(
        "syncs/shop.py",
        text.replace("settings=Settings,", "settings=Settings, check=lambda http: [http.get_json('a') for _ in range(6)],"),
    )
    (row,) = json.loads(project.run_here("check", "--json", SHOP_URL=shop.server.url).stdout)["checks"]
    assert (row["ok"], row["entities"], row["pages"], row["requests"]) == (True, 10, 1, 7)
    assert row["rate"]["remaining"] == 53


def test_a_version_that_no_item_has_is_told(project: Project, shop: Api) -> None:
    """Else every run would fetch every entity, and nobody would know why; each sync of the client is looked at."""
    shop.rows = [{"id": number, "price": 9_876, "changed": None} for number in range(1, 6)]
    shop.rows[3]["rev"] = 1
    text = FILE.format(connect=CONNECT, listing='Listing("things", version="updated")')
    for number, version in enumerate(("rev", "changed", "meta.at")):
        text += f'other{number} = Sync("shop.z{number}", shop, listing=Listing("things", version="{version}"))\n'
    project.write("syncs/shop.py", text)
    found = project.run_here("check", "--json", SHOP_URL=shop.server.url)
    (row,) = json.loads(found.stdout)["checks"]
    assert (row["ok"], found.returncode, "9876" in found.stdout) == (True, 0, False)
    assert row["warnings"] == [
        "no listed item has a version at 'updated'; its fields are id, price, changed",
        "shop.z1: no listed item has a version at 'changed'",
        "shop.z2: no listed item has a version at 'meta.at'; its fields are id, price, changed",
    ]


@pytest.mark.parametrize(
    ("fetch", "message"),
    [
        ('lambda http, entity: http.get_json("things", {"page": 1})', ""),
        ("lambda http, entity: None", "fetch of '1' returned None: does it return the record?"),
        ('lambda http, entity: http.get_json(f"nope/{entity.key}")', "the first 3 listed entities are gone (404 or 410)"),
        ("lambda http, entity: entity.nope", "fetch of '1': AttributeError: "),
        ('lambda http, entity: http.request("GET", "later").json()', "fetch of '1': 202 Accepted, not ready yet"),
    ],
)
@pytest.mark.parametrize("check", ["", "check=lambda http: None, "])
def test_what_fetch_gets_is_said(project: Project, shop: Api, fetch: str, message: str, check: str) -> None:
    """A path that leads nowhere and a function without `return` are found before the first run, and nothing is stored.

    Also where the client has a check of its own, which tells that the client is well and nothing of its syncs.
    """
    shop.missing = "/nope"
    text = FILE.format(connect=CONNECT, listing='Listing("things", PageNumber()), fetch=' + fetch)
    text = text.replace("settings=Settings, ", "settings=Settings, " + check, 1)
    assert check in text
    project.write("syncs/shop.py", text)
    found = project.run_here("check", "--json", SHOP_URL=shop.server.url)
    (row,) = json.loads(found.stdout)["checks"]
    assert row["message"].startswith(message)
    assert (row["ok"], found.returncode) == ((True, 0) if not message else (False, 1))
    assert not (project.folder / "data").exists()
