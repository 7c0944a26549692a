"""`syncs check` of clients over SOAP, FTP and SFTP, and of hosts that are not there: one table that a person can read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clients.soap import wsdl
from flows.cli.program import program
from tests.support.adapter_servers import Ftp, Sftp, Shop, fill

FILE = """
from clients import *
from flows import Client, Sync
from pydantic import SecretStr
from pydantic_settings import BaseSettings

class Settings(BaseSettings, env_prefix="THERE_"):
    password: SecretStr = SecretStr("secret-of-ann")

there = Client("there", settings=Settings, connect=lambda s: {connect})
things = Sync("there.things", there, listing={listing})
"""
PAGES = 'SoapListing("page", PageNumber(size_param="size", size=10), items="things.Thing", more="more")'

Examine = Callable[..., tuple[dict[str, Any], list[str]]]


@pytest.fixture
def examine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Check the client of a file; return its JSON and the lines that people see, with other spaces made one."""

    def run(connect: str, listing: str = 'FtpListing("/out")', *, code: int = 0) -> tuple[dict[str, Any], list[str]]:
        path = tmp_path / "there.py"
        path.write_text(FILE.format(connect=connect, listing=listing))
        environment = {"SYNCS_PATH": str(path), "PREFECT_HOME": str(tmp_path), "HOME": str(tmp_path)}
        monkeypatch.chdir(tmp_path)
        found = []
        for options in (["--json"], []):
            wsdl.forget()
            done = CliRunner().invoke(program, ["check", *options], env=environment)
            assert done.exit_code == code, done.stdout + done.stderr
            assert "secret-of-ann" not in done.stdout + done.stderr
            found.append(done.stdout)
        (row,) = json.loads(found[0])["checks"]
        lines = [re.sub(r" +", " ", re.sub(r"\d+\.\d\d s", "0 s", line)) for line in found[1].splitlines()]
        assert all(len(line) < 130 for line in found[1].splitlines()[:2])
        return row, lines

    return run


def test_a_soap_service(examine: Examine, shop: Shop) -> None:
    """Two pages, the clock; what only GET has is left out, and nothing is asked again."""
    row, lines = examine(f'SoapClient("{shop.url}?wsdl", auth=Bearer(s.password))', PAGES)
    assert (row["ok"], row["pages"], row["second_page"], row["ended"], row["requests"]) == (True, 2, "differs", "more", 3)
    assert (row["validators"], row["not_modified"], row["rate"]) == (None, None, None)
    assert lines == [
        "CLIENT SETTINGS CONNECTION PAGES ENTITIES SKEW REDIRECTS TIME",
        "there ok ok 2, which differ, more follow 10 0 s 0 0 s",
    ]


def test_a_wsdl_in_many_parts(examine: Examine, shop: Shop) -> None:
    """Its documents are not among the four requests: a service with six schemas would never be examined."""
    import urllib.request

    whole = urllib.request.urlopen(f"{shop.url}?wsdl").read().decode()
    imports = "".join(f'<xs:import namespace="urn:{n}" schemaLocation="{shop.url}part{n}.xsd"/>' for n in range(6))
    head = re.search(r"<xs:schema [^>]*>", whole)
    assert head is not None
    whole = whole.replace(head[0], head[0] + imports, 1)

    def instead(method: str, path: str) -> Any:
        if method == "POST":
            return None
        part = re.search(r"part(\d)", path)
        body = whole if part is None else (
            f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:{part[1]}"/>'
        )  # fmt: skip
        return 200, {"Content-Type": "text/xml"}, body.encode()

    shop.instead = instead
    row, _ = examine(f'SoapClient("{shop.url}?wsdl")', PAGES)
    assert (row["ok"], row["pages"], row["requests"], row["message"]) == (True, 2, 7 + 2, "")


def test_a_fault(examine: Examine, shop: Shop) -> None:
    """What the service says stands below the table."""
    row, lines = examine(f'SoapClient("{shop.url}?wsdl")', 'SoapListing("nothing-like-it")', code=1)
    assert row["message"].startswith(f"POST {shop.url}: the service has no operation 'nothing-like-it'; it has: add, after, all")
    assert lines[1] == "there ok FAIL 0 s 0 0 s"
    assert lines[2] == f"there: {row['message']}"


@pytest.mark.parametrize("kind", ["ftp", "sftp"])
def test_a_server_of_files(examine: Examine, serve_ftp: Callable[..., Ftp], serve_sftp: Callable[..., Sftp], kind: str) -> None:
    """Pages and entities; what only HTTP has is left out."""
    found: Ftp | Sftp = serve_ftp() if kind == "ftp" else serve_sftp()
    fill(found.root / "out", {f"{number}.csv": b"x" for number in range(7)})
    known = "" if isinstance(found, Ftp) else f", known_hosts={found.known!r}"
    adapter = "FtpClient" if kind == "ftp" else "SftpClient"
    row, lines = examine(f'{adapter}("127.0.0.1", port={found.port}, user="ann", password=s.password{known})')
    assert (row["ok"], row["entities"], row["warnings"]) == (True, 7, [])
    assert row["requests"] >= 1
    assert [row[name] for name in ("rate", "validators", "not_modified", "skew_seconds", "tls", "redirects")] == [None] * 6
    assert lines == ["CLIENT SETTINGS CONNECTION PAGES ENTITIES TIME", "there ok ok 1, no more 7 0 s"]
    _, lines = examine(f'{adapter}("127.0.0.1", port={found.port}, user="ann", password="wrong"{known})', code=1)
    assert lines[1] == "there ok FAIL 0 s"
    refused = "530: the sign-in is refused" if kind == "ftp" else "user, password or key is refused"
    assert lines[2] == f"there: CONNECT {kind}://127.0.0.1:{found.port}/: {refused}"


def test_tls_of_ftp(examine: Examine, serve_ftp: Callable[..., Ftp], certificate: Path) -> None:
    """The certificate and its days, or why it is refused."""
    found = serve_ftp(tls=certificate)
    fill(found.root / "out", {"a.csv": b"x"})
    there = f'"localhost", port={found.port}, user="ann", password=s.password, tls=True'
    row, lines = examine(f"FtpClient({there}, verify={str(certificate)!r})")
    assert row["tls"] == {"version": "TLSv1.3", "days_left": 1}
    assert lines[0] == "CLIENT SETTINGS CONNECTION PAGES ENTITIES TLS TIME"
    assert "TLSv1.3, 1 day 0 s" in lines[1]
    assert lines[2] == "there: the certificate ends in 1 days"
    _, lines = examine(f"FtpClient({there})", code=1)
    assert lines[2].endswith("no connection: the certificate is refused: self-signed certificate")


def test_files_in_the_clear_are_said(examine: Examine, serve_ftp: Callable[..., Ftp]) -> None:
    """FTP without TLS to what is not this machine by name: everybody on the way can read the password."""
    found = serve_ftp()
    fill(found.root / "out", {"a.csv": b"x"})
    row, lines = examine(f'FtpClient("0.0.0.0", port={found.port}, user="ann", password=s.password)')
    assert (row["ok"], row["warnings"]) == (True, ["without TLS: anyone on the network path can read the credentials"])
    assert lines[2] == f"there: {row['warnings'][0]}"


@pytest.mark.parametrize(
    ("connect", "message"),
    [
        ('HttpClient("http://127.0.0.1:9/api")', "GET http://127.0.0.1:9/api/x: no connection: Connection refused"),
        ('HttpClient("https://nobody.invalid/")', "GET https://nobody.invalid/x: no connection: "),
    ],
)
def test_a_host_that_is_not_there(examine: Examine, connect: str, message: str) -> None:
    """In words, without numbers of the operating system."""
    row, lines = examine(connect, 'Listing("x")', code=1)
    assert row["message"].startswith(message)
    assert "Errno" not in row["message"]
    assert lines == ["CLIENT SETTINGS CONNECTION TIME", "there ok FAIL 0 s", f"there: {row['message']}"]


def test_a_certificate_that_nobody_knows(examine: Examine, certificate: Path) -> None:
    """Over HTTP in the same words as over FTP, and without the line of Python's source."""
    import ssl
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        url = f"https://localhost:{server.server_port}/"
        row, _ = examine(f'HttpClient("{url}")', 'Listing("x")', code=1)
        assert row["message"] == f"GET {url}x: no connection: the certificate is refused: self-signed certificate"
        url = f"https://127.0.0.1:{server.server_port}/"
        row, _ = examine(f'HttpClient("{url}", verify={str(certificate)!r})', 'Listing("x")', code=1)
        assert "the certificate is refused: IP address mismatch" in row["message"]
    finally:
        server.shutdown()
        server.server_close()
