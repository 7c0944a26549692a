"""FTP servers that do what no proper one does."""

# pyftpdlib and asyncssh speak of paths as text.

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from clients import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    FtpClient,
    GoneError,
    RejectedError,
    ServerError,
    TimedOutError,
    TransientError,
    UnreadableError,
)
from tests.support.adapter_servers import RawFtp, fill, usual


def transfer(server: RawFtp, content: bytes, *, end: str = "226 done") -> str:
    """Send `content` on a data connection and return the replies around it."""
    server.send(content)
    return f"150 here it comes\r\n{end}"


# -- servers that do what no proper one does


def test_listing_that_nobody_can_read_is_an_error_and_not_empty(serve_raw_ftp: Callable[..., RawFtp]) -> None:
    """An empty listing would have a sync delete all it has (aioftp#104)."""

    def reply(line: str, server: RawFtp) -> str:
        if line.startswith("LIST"):
            return transfer(server, b"Directory of DISK$USER:[ANN]\r\nA.TXT;1   5-JAN-2024\r\n")
        return usual(line, server)

    server = serve_raw_ftp(reply)
    with FtpClient("127.0.0.1", port=server.port, timeout=60) as client, pytest.raises(UnreadableError, match="cannot be read"):
        client.list("/out")


def test_listing_that_is_empty_although_there_are_names_is_an_error(serve_raw_ftp: Callable[..., RawFtp]) -> None:
    """Some servers list nothing for a folder they may not look into, and still tell its names."""

    def reply(line: str, server: RawFtp) -> str:
        if line.startswith("LIST"):
            return transfer(server, b"")
        if line.startswith("NLST"):
            return transfer(server, b"a.csv\r\n")
        return usual(line, server)

    server = serve_raw_ftp(reply)
    with (
        FtpClient("127.0.0.1", port=server.port, timeout=60) as client,
        pytest.raises(UnreadableError, match="there are names in it"),
    ):
        client.list("/out")


@pytest.mark.parametrize("code", [450, 550])
def test_refusal_to_list_names_is_how_some_say_empty(serve_raw_ftp: Callable[..., RawFtp], code: int) -> None:
    """The folder is there, the listing is empty, and NLST says 550: vsftpd and others."""

    def reply(line: str, server: RawFtp) -> str:
        if line.startswith("LIST"):
            return transfer(server, b"total 0\r\n")
        return f"{code} No files found" if line.startswith("NLST") else usual(line, server)

    server = serve_raw_ftp(reply)
    with FtpClient("127.0.0.1", port=server.port, timeout=60) as client:
        assert client.list("/out") == []


def test_address_that_the_server_names_for_data_is_not_used(serve_raw_ftp: Callable[..., RawFtp]) -> None:
    """Data connections go where the control connection goes: no server sends us to another (bounce)."""

    def reply(line: str, server: RawFtp) -> str:
        if line == "PASV":
            return server.passive().replace("127,0,0,1", "192,0,2,7")
        if line.startswith("MLSD"):
            return transfer(server, b"type=file;size=1;modify=20200101000000; a\r\n")
        return usual(line, server)

    server = serve_raw_ftp(reply)
    with FtpClient("127.0.0.1", port=server.port, timeout=60) as client:
        assert [one.path for one in client.list("/")] == ["/a"]


CODES: list[tuple[str, str, type[ClientError]]] = [
    ("WELCOME", "421 Too many connections", ServerError), ("WELCOME", "530 Not for you", AuthRefusedError),
    ("WELCOME", "SSH-2.0-OpenSSH", BrokenAnswerError), ("PASS", "530 Login incorrect: hunter2", AuthRefusedError),
    ("PASS", "430 No", AuthRefusedError), ("PASS", "332 Account?", AuthRefusedError), ("PASS", "421 Busy", ServerError),
    ("PASV", "425 No port", ServerError), ("RETR", "425 No data", ServerError), ("RETR", "426 Aborted", ServerError),
    ("RETR", "450 Locked", ServerError), ("RETR", "451 Oops", ServerError), ("RETR", "530 Log in again", AuthRefusedError),
    ("RETR", "550 Gone", GoneError), ("RETR", "553 Not that name", RejectedError), ("RETR", "500 What?", RejectedError),
    ("STOR", "452 Disk full", ServerError), ("STOR", "552 Quota", RejectedError), ("STOR", "550 Read only", RejectedError),
    ("STOR", "530 Log in again", AuthRefusedError),
]  # fmt: skip


@pytest.mark.parametrize(("at", "said", "kind"), CODES, ids=[f"{at}-{said[:3]}" for at, said, _ in CODES])
def test_reply_codes_have_their_meaning(
    serve_raw_ftp: Callable[..., RawFtp], at: str, said: str, kind: type[ClientError]
) -> None:
    """Each code becomes the error whose consequences it has; the server's words, which may be secret, are left out."""

    def reply(line: str, server: RawFtp) -> str:
        return said if line.split(maxsplit=1)[0] == at else usual(line, server)

    server = serve_raw_ftp(reply)
    with FtpClient("127.0.0.1", port=server.port, password="hunter2", timeout=60) as client, pytest.raises(ClientError) as caught:
        client.write("/a", b"x") if at == "STOR" else client.read("/a")

    assert type(caught.value) is kind
    assert "hunter2" not in repr(caught.value)
    assert caught.value.status is None
    assert f"ftp://127.0.0.1:{server.port}" in str(caught.value)


def test_silent_server_is_timed_out(serve_raw_ftp: Callable[..., RawFtp]) -> None:
    """No greeting, no reply, no data: each wait has its limit."""
    gate = threading.Event()

    def reply(line: str, server: RawFtp) -> str:
        if line.split(maxsplit=1)[0] == silent:
            gate.wait(60)
        return usual(line, server)

    for silent in ("WELCOME", "PASS", "PASV"):  # noqa: B007 - `reply` reads it
        server = serve_raw_ftp(reply)
        with FtpClient("127.0.0.1", port=server.port, timeout=0.3) as client, pytest.raises(TimedOutError):
            client.read("/a")
    gate.set()


def test_reply_without_end_is_broken_off(serve_raw_ftp: Callable[..., RawFtp]) -> None:
    """A greeting of a million lines is not collected."""
    server = serve_raw_ftp(lambda line, server: "220-more\r\n" * 100_000)

    with FtpClient("127.0.0.1", port=server.port, timeout=60) as client, pytest.raises(BrokenAnswerError):
        client.read("/a")


def test_transfer_that_trickles_is_timed_out(serve_raw_ftp: Callable[..., RawFtp]) -> None:
    """A byte now and then keeps every single wait short, and would keep the worker for ever."""

    def reply(line: str, server: RawFtp) -> str:
        if line.startswith("RETR"):

            def drip() -> None:
                conn = server.accept()
                with conn:
                    for _ in range(2000):
                        try:
                            conn.sendall(b"x")
                        except OSError:
                            return
                        time.sleep(0.05)

            threading.Thread(target=drip, daemon=True).start()
            return "150 slowly"
        return usual(line, server)

    server = serve_raw_ftp(reply)
    began = time.monotonic()
    with FtpClient("127.0.0.1", port=server.port, timeout=0.5) as client, pytest.raises(TimedOutError):
        client.read("/a")
    assert time.monotonic() - began < 60


def test_lost_connection_is_made_anew(serve_ftp: Callable[..., Any]) -> None:
    """What broke is an error once; the next call connects again."""
    ftp = serve_ftp()
    fill(ftp.root, {"a": b"x"})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        assert client.read("/a") == b"x"
        client._file_system._control.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        with pytest.raises(TransientError):
            client.read("/a")
        assert client.read("/a") == b"x"


def test_idle_connection_that_the_server_closed_is_noticed(
    serve_ftp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers hang up on who says nothing for minutes: that costs nobody an attempt."""
    connections: list[socket.socket] = []
    ftp = serve_ftp(on_connect=lambda self: connections.append(self.socket))
    fill(ftp.root, {"a": b"x"})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        assert client.read("/a") == b"x"
        connections[0].shutdown(socket.SHUT_RDWR)
        monkeypatch.setattr("clients.files.ftp_filesystem.IDLE", 0.0)
        assert client.read("/a") == b"x"
    assert len(connections) == 2


def test_refused_connection_is_tried_three_times() -> None:
    """Nobody listens: a `ConnectFailedError`, after two more tries."""
    began = time.monotonic()
    with FtpClient("127.0.0.1", port=1) as client, pytest.raises(ConnectFailedError):
        client.list("/")
    assert time.monotonic() - began >= 0.3


def test_declaring_takes_no_line_breaks() -> None:
    """A user with a line break would be a command."""
    for bad in ({"user": "a\r\nDELE x"}, {"password": "a\nb"}, {"timeout": 0}):
        with pytest.raises(ValueError):
            FtpClient("127.0.0.1", **bad)  # type: ignore[arg-type]


def test_secrets_are_shown_nowhere() -> None:
    """Neither user nor password stands in a repr."""
    text = repr(FtpClient("ftp.example", user="ann", password="secret-of-ann"))

    assert "ann" not in text
