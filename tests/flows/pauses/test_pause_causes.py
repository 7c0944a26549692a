"""What pauses a client, at which level, and for how long: one row for each cause and each protocol that knows it."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import asyncssh
import pytest

from clients import HttpClient, OAuth2RefreshToken
from clients.files.ftp_connection import reply_error
from clients.files.sftp_connection import connect_error
from clients.soap.fault import Fault, fault_error
from jobs import JobStore, Pause
from tests.support.fake_remote import System, client, drain, orders, pauses, queue, run_out, seconds_of


class _Handler(BaseHTTPRequestHandler):
    """`/401` answers 401, `/429/77` answers 429 with Retry-After 77, `/token` refuses a refresh token, `/slow` says nothing."""

    def do_GET(self) -> None:
        _, first, *rest = self.path.split("?")[0].split("/")
        if first == "slow":
            self.connection.settimeout(5)
            self.rfile.read(1)
            return
        if first == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = b'{"error": "invalid_grant"}' if first == "token" else b"{}"
        self.send_response(400 if first == "token" else int(first))
        if rest[:1] == ["left"]:
            told = {"X-RateLimit-Remaining": "0", "X-RateLimit-Limit": "10", "X-RateLimit-Reset": rest[1]}
        else:
            told = {"Retry-After": rest[0]} if rest else {}
        for name, value in told.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - as the base class says

    def log_message(self, *_: Any) -> None:
        return None


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def get(path: str) -> Callable[[str], None]:
    """Ask for this path, once more where the answer says that it was the last one allowed."""

    def ask(url: str) -> None:
        with HttpClient(url, timeout=0.3 if path == "slow" else 10) as http:
            http.get_json(path)
            http.get_json(path)

    return ask


def _refresh(url: str) -> None:
    with HttpClient(url, auth=OAuth2RefreshToken(f"{url}token", "we", "secret", "first")) as http:
        http.get_json("200")


def _elsewhere(to: str) -> Callable[[str], None]:
    def ask(url: str) -> None:
        with HttpClient(to.format(port=url.rstrip("/").rpartition(":")[2]), timeout=2) as http:
            http.get_json("200")

    return ask


def _raise(error: Exception) -> Callable[[str], None]:
    def ask(_: str) -> None:
        raise error

    return ask


def soap(*codes: str, headers: dict[str, str] | None = None) -> Callable[[str], None]:
    """A fault with these codes."""
    return _raise(fault_error(Fault(codes, "no"), status=500, headers=headers, faults={}, url="https://soap.example/"))


def ftp(code: int) -> Callable[[str], None]:
    """A reply of FTP."""
    return _raise(reply_error(code, method="RETR", url="ftp://ftp.example/a", reads=True))


def ssh(error: BaseException) -> Callable[[str], None]:
    """What asyncssh raises when it connects."""
    return _raise(connect_error(error, url="sftp://sftp.example/"))


def _pause(_: str) -> Any:
    return Pause(5, "the job says so")


LEVEL, ENFORCED, ASKED = ("level", 1, 60.0), ("enforced", 0, 900.0), ("asked", 0, 77.0)
NONE = None

CAUSES: dict[str, tuple[Callable[[str], Any], tuple[str, int, float] | None]] = {
    # Generic trouble: the level rises (SC-16, SC-17).
    "HTTP 500": (get("500"), LEVEL),
    "HTTP 503 without a time": (get("503"), LEVEL),
    "HTTP timeout": (get("slow"), LEVEL),
    "HTTP cut off": (get("cut"), LEVEL),
    "refused": (_elsewhere("http://127.0.0.1:1/"), LEVEL),
    "DNS": (_elsewhere("http://no-such-host.invalid/"), LEVEL),
    "TLS": (_elsewhere("https://127.0.0.1:{port}/"), LEVEL),
    "SOAP server fault": (soap("Server"), LEVEL),
    "SOAP 1.2 receiver": (soap("Receiver"), LEVEL),
    "FTP 421": (ftp(421), LEVEL),
    "FTP 450": (ftp(450), LEVEL),
    "SFTP lost": (ssh(ConnectionResetError("cut")), LEVEL),
    "Python DNS": (_raise(socket.gaierror(-2, "no name")), LEVEL),
    "Python TLS": (_raise(ssl.SSLError(1, "bad")), LEVEL),
    # The sign-in is refused: at once, whatever the level is (SC-18).
    "HTTP 401": (get("401"), ENFORCED),
    "HTTP 403": (get("403"), ENFORCED),
    "HTTP 407": (get("407"), ENFORCED),
    "SOAP sign-in": (soap("Client.Authentication"), ENFORCED),
    "WS-Security": (soap("FailedAuthentication"), ENFORCED),
    "FTP 530": (ftp(530), ENFORCED),
    "SFTP sign-in": (ssh(asyncssh.PermissionDenied("no")), ENFORCED),
    "OAuth refresh refused": (_refresh, ENFORCED),
    # It says itself for how long.
    "HTTP 429": (get("429/77"), ASKED),
    "HTTP 503 with a time": (get("503/77"), ASKED),
    "HTTP 429 without a time": (get("429"), ("asked", 0, 60.0)),
    "budget used up": (get("200/left/77"), ASKED),
    "SOAP with a time": (soap("Server", headers={"retry-after": "77"}), ASKED),
    "outcome of a job": (_pause, ("asked", 0, 5.0)),
    # The job's own trouble (SC-19).
    "HTTP 404": (get("404"), NONE),
    "HTTP 422": (get("422"), NONE),
    "SOAP client fault": (soap("Client"), NONE),
    "FTP 550": (ftp(550), NONE),
    "a mistake": (_raise(KeyError("name")), NONE),
}


@pytest.mark.rows("SC-16", "SC-17", "SC-18", "SC-19", "SC-21", "E-90", "E-27")
@pytest.mark.parametrize("name", CAUSES)
def test_cause(store: JobStore, url: str, name: str) -> None:
    """Each cause gives the documented pause at the documented moment, and no other."""
    ask, expected = CAUSES[name]
    system = System()
    kind = orders(client(system, after=2), process=lambda job, found: found.ask(job.payload) or ask(url), concurrency=1)
    queue(store, kind, 4)
    drain(store, kind)
    if expected is None:
        assert pauses(store) == []
        assert len(system.requests) == 4
        return
    (found,) = store.pause_history.latest()
    assert (found.cause, found.level) == expected[:2]
    assert abs(seconds_of(found) - expected[2]) < 1.5
    # Generic trouble must add up; all else pauses at once.
    assert len(system.requests) == (2 if expected[0] == "level" else 1)


@pytest.mark.rows("SC-17", "SC-21", "E-90")
@pytest.mark.parametrize(
    ("durations", "expected"), [((60, 300, 1800, 7200), [60, 300, 1800, 7200, 7200]), ((5,), [5, 5]), ((1, 2), [1, 2, 2])]
)
def test_level(store: JobStore, durations: tuple[float, ...], expected: list[float]) -> None:
    """Each level has its documented length, of each client its own; the last one serves all higher ones."""
    system = System(TimeoutError)
    kind = orders(client(system, after=1, durations=durations), concurrency=1)
    queue(store, kind, 1)
    for number, seconds in enumerate(expected, 1):
        drain(store, kind)
        (found,) = store.pauses.in_force()
        assert (found.level, round(seconds_of(found))) == (number, seconds)
        run_out(store)
