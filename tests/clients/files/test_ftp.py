"""The FTP adapter against pyftpdlib in several manners, and against servers that do what no proper one does."""

# pyftpdlib and asyncssh speak of paths as text.
# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH208

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clients import (
    ClientError,
    ConnectFailedError,
    FtpClient,
    GoneError,
    RejectedError,
    UnreadableError,
)
from tests.support.adapter_servers import OLD, RawFtp, fill, make_certificate, usual


def dos(self: Any, basedir: str, listing: list[str], ignore_err: bool = True) -> Iterator[bytes]:
    """List as IIS does, in place of pyftpdlib's `format_list`."""
    for name in listing:
        found = os.stat(os.path.join(basedir, name))
        when = datetime.fromtimestamp(found.st_mtime, UTC).strftime("%m-%d-%y  %I:%M%p")
        size = "      <DIR>         " if os.path.isdir(os.path.join(basedir, name)) else f"{found.st_size:20}"
        yield f"{when} {size} {name}\r\n".encode()


def dos_files() -> Any:
    """Return a file system for pyftpdlib that lists in DOS form."""
    from pyftpdlib.filesystems import AbstractedFS

    return type("DosFS", (AbstractedFS,), {"format_list": lambda self, *args, **kwargs: dos(self, *args[:2])})


MANNERS: dict[str, dict[str, Any]] = {
    "mlsd": {},
    "unix": {"without": ("MLSD", "MLST")},
    "dos": {"without": ("MLSD", "MLST"), "abstracted_fs": dos_files},
    "bare": {"without": ("MLSD", "MLST", "FEAT", "MDTM", "SIZE", "EPSV", "OPTS")},
}


@pytest.fixture(params=MANNERS)
def manner(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How the server lists."""
    options = dict(MANNERS[request.param])
    if "abstracted_fs" in options:
        options["abstracted_fs"] = options["abstracted_fs"]()
    return options


def transfer(server: RawFtp, content: bytes, *, end: str = "226 done") -> str:
    """Send `content` on a data connection and return the replies around it."""
    server.send(content)
    return f"150 here it comes\r\n{end}"


# -- listings and files


def test_folder_is_listed_in_every_manner(serve_ftp: Callable[..., Any], manner: dict[str, Any]) -> None:
    """Facts, Unix and DOS form give the same files: names with spaces and umlauts, no folders, sizes, times."""
    ftp = serve_ftp(**manner)
    fill(ftp.root / "out put", {"a.csv": b"aa", "b b.csv": b"", "ü.csv": b"uuu", "-x.csv": b"x", "c.txt": b"c"})
    (ftp.root / "out put" / "sub.csv").mkdir()

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        found = client.list("/out put", "*.csv")

        assert [(one.path, one.name, one.size) for one in found] == [
            ("/out put/-x.csv", "-x.csv", 1), ("/out put/a.csv", "a.csv", 2), ("/out put/b b.csv", "b b.csv", 0),
            ("/out put/ü.csv", "ü.csv", 3),
        ]  # fmt: skip
        assert {one.modified_at.timestamp() // 86400 for one in found if one.modified_at} == {OLD // 86400}
        assert [one.path for one in client.list("out put", "c*")] == ["out put/c.txt"]
        assert client.requests > 0


def test_coarse_times_are_made_exact_by_asking(serve_ftp: Callable[..., Any]) -> None:
    """LIST prints minutes or days; MDTM knows the second, so that a change within a minute is a new version."""
    ftp = serve_ftp(without=("MLSD", "MLST"))
    fill(ftp.root, {"a": b"a"}, at=OLD + 7)

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        (before,) = client.list("/")
        os.utime(ftp.root / "a", (OLD + 8, OLD + 8))
        (after,) = client.list("/")

    assert before.modified_at == datetime.fromtimestamp(OLD + 7, UTC)
    assert before.version != after.version


@pytest.mark.parametrize("path", ["/no", "no/no"])
def test_missing_folder_is_refused_and_not_empty(serve_ftp: Callable[..., Any], manner: dict[str, Any], path: str) -> None:
    """A folder that is not there lists nothing, which must not look like a folder whose files are gone."""
    ftp = serve_ftp(**manner)

    with FtpClient("127.0.0.1", **ftp.arguments) as client, pytest.raises(RejectedError, match="550"):
        client.list(path)


def test_empty_folder_is_empty(serve_ftp: Callable[..., Any], manner: dict[str, Any]) -> None:
    """A second look confirms it."""
    ftp = serve_ftp(**manner)
    (ftp.root / "empty").mkdir()

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        assert client.list("/empty") == []


def test_folders_below_are_listed_to_a_depth(serve_ftp: Callable[..., Any], manner: dict[str, Any]) -> None:
    """So many levels and no more; a link to a folder above is no way round in circles."""
    ftp = serve_ftp(**manner)
    fill(ftp.root / "a" / "b" / "c", {"3": b""})
    fill(ftp.root / "a" / "b", {"2": b""})
    fill(ftp.root / "a", {"1": b""})
    (ftp.root / "a" / "loop").symlink_to(ftp.root / "a")

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        assert [one.path for one in client.scan("a", "[0-9]").files] == ["a/1"]
        depths = [[one.path for one in client.scan("a", "[0-9]", depth=depth).files] for depth in (1, 2)]

    assert depths[0][:2] == ["a/1", "a/b/2"]
    assert {"a/1", "a/b/2", "a/b/c/3"} <= set(depths[1])
    assert max(path.count("/") for path in depths[1]) == 3


def test_files_are_read_and_written(serve_ftp: Callable[..., Any], manner: dict[str, Any]) -> None:
    """What is written is what is read, in all manners; an older file is replaced and nothing is left beside it."""
    ftp = serve_ftp(**manner)
    content = bytes(range(256)) * 1000

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        client.write("/new ü.bin", content)
        assert client.read("/new ü.bin") == content
        client.write("/new ü.bin", b"")
        assert client.read("/new ü.bin") == b""

    assert os.listdir(ftp.root) == ["new ü.bin"]


def test_file_appears_under_its_name_only_when_it_is_complete(serve_ftp: Callable[..., Any]) -> None:
    """It is stored under another name and then renamed."""
    ftp = serve_ftp()

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        client.write("/a.csv", b"abc")

    stored = next(line for line in ftp.commands if line.startswith("STOR"))
    assert stored != "STOR /a.csv"
    assert ftp.commands[ftp.commands.index(stored) :][-3:-1] == [f"RNFR {stored[5:]}", "RNTO /a.csv"]


def test_rename_over_a_file_that_is_refused_moves_it_aside(serve_ftp: Callable[..., Any]) -> None:
    """Windows refuses to rename over a file; then the old one steps aside and is removed afterwards."""
    from pyftpdlib.handlers import FTPHandler

    def ftp_RNTO(self: Any, path: str) -> Any:  # noqa: N802
        if os.path.exists(path):
            self.respond("550 It exists.")
            return None
        return FTPHandler.ftp_RNTO(self, path)

    ftp = serve_ftp(ftp_RNTO=ftp_RNTO)
    fill(ftp.root, {"a.csv": b"old"})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        client.write("/a.csv", b"new")

    assert {path.name: path.read_bytes() for path in ftp.root.iterdir()} == {"a.csv": b"new"}


def test_refused_rename_leaves_the_old_file_and_no_temporary_one(serve_ftp: Callable[..., Any]) -> None:
    """What stood there still stands there."""

    def ftp_RNTO(self: Any, path: str) -> None:  # noqa: N802
        self.respond("553 Not allowed.")

    ftp = serve_ftp(ftp_RNTO=ftp_RNTO)
    fill(ftp.root, {"a.csv": b"old"})

    with FtpClient("127.0.0.1", **ftp.arguments) as client, pytest.raises(RejectedError, match="553"):
        client.write("/a.csv", b"new")

    assert {path.name: path.read_bytes() for path in ftp.root.iterdir()} == {"a.csv": b"old"}


def test_file_that_is_gone_is_gone_and_one_that_is_listed_is_not(serve_ftp: Callable[..., Any], manner: dict[str, Any]) -> None:
    """550 says either; only what the folder does not list is gone, because what is gone is deleted (law 8)."""

    def ftp_RETR(self: Any, path: str) -> None:  # noqa: N802
        self.respond("550 Permission denied.")

    ftp = serve_ftp(**manner, ftp_RETR=ftp_RETR)
    fill(ftp.root, {"there.csv": b"x"})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        with pytest.raises(GoneError):
            client.read("/gone.csv")
        with pytest.raises(GoneError):
            client.read("/no/gone.csv")
        with pytest.raises(RejectedError, match="lists it"):
            client.read("/there.csv")


def test_names_in_latin_1_are_listed_and_read(serve_ftp: Callable[..., Any]) -> None:
    """A name that is not UTF-8 is read as latin-1, and goes back as the bytes that it came as."""
    ftp = serve_ftp(encoding="latin-1", without=("MLSD", "MLST"))
    fill(ftp.root, {"größe.csv": b"x"})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        (found,) = client.list("/")

        assert found.path == "/größe.csv"
        assert client.read(found.path) == b"x"


# -- names


@pytest.mark.parametrize(
    "path",
    ["/a\r\nDELE /b", "/a\nb", "/a\x00b", "../a", "/x/../../etc/passwd", "..", "", "a\x7f", "/" + "x" * 5000],
)
def test_paths_that_would_be_more_than_a_path_are_refused(serve_ftp: Callable[..., Any], tmp_path: Path, path: str) -> None:
    """A line break would begin another command, `..` would leave the folder: neither reaches the server."""
    ftp = serve_ftp()
    fill(ftp.root, {"b": b"x"})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        for work in (
            lambda: client.read(path),
            lambda: client.write(path, b""),
            lambda: client.download(path, tmp_path / "x"),
            lambda: client.list(path or "\n"),
        ):
            with pytest.raises(RejectedError):
                work()

    assert not any("DELE" in line or ".." in line for line in ftp.commands)
    assert (ftp.root / "b").exists()


HOSTILE = ["../../etc/cron.d/x", "..", "/etc/passwd", "a\\..\\b", "nul\x00l", "bell\x07"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", ["MLSD", "LIST"])
def test_listed_names_that_lead_elsewhere_become_errors(
    serve_raw_ftp: Callable[..., RawFtp], form: str, name: str, tmp_path: Path
) -> None:
    """A hostile server's names are counted as errors, the others are listed, nothing is written outside."""

    def reply(line: str, server: RawFtp) -> str:
        if line.split(maxsplit=1)[0] == form:
            about = "type=file;size=1;modify=20200101000000;" if form == "MLSD" else "-rw-r--r-- 1 u g 1 Jan 1 2020"
            lines = [f"{about} {one}" for one in (name, "good.csv")]
            return transfer(server, "\r\n".join(lines).encode() + b"\r\n")
        return usual(line, server)

    server = serve_raw_ftp(reply)
    with FtpClient("127.0.0.1", port=server.port, timeout=60) as client:
        found = client.scan("out")

        assert [one.path for one in found.files] == ["out/good.csv"]
        assert len(found.errors) == (0 if (name, form) == ("..", "LIST") else 1)
        if found.errors:
            with pytest.raises(UnreadableError):
                client.list("out")


# -- TLS


def test_both_connections_are_encrypted(serve_ftp: Callable[..., Any], certificate: Path) -> None:
    """The server refuses what is not; names, content and password go over TLS."""
    ftp = serve_ftp(tls=certificate)
    fill(ftp.root, {"a.csv": b"x" * 100_000})

    with FtpClient("localhost", **ftp.arguments, tls=True, verify=str(certificate)) as client:
        assert [one.path for one in client.list("/")] == ["/a.csv"]
        assert client.read("/a.csv") == b"x" * 100_000
        client.write("/b.csv", b"y" * 100_000)

    assert (ftp.root / "b.csv").read_bytes() == b"y" * 100_000
    assert "PROT P" in ftp.commands
    assert ftp.commands.index("AUTH TLS") < next(i for i, line in enumerate(ftp.commands) if line.startswith("PASS"))


@pytest.mark.parametrize("case", ["unknown", "other name", "address"])
def test_certificate_that_does_not_match_is_refused_before_the_password(
    serve_ftp: Callable[..., Any], certificate: Path, tmp_path: Path, case: str
) -> None:
    """Nobody's, somebody else's, or of another name: the sign-in is never sent."""
    if case == "other name":
        certificate = make_certificate(tmp_path / "other.pem", "other.example")
    ftp = serve_ftp(tls=certificate)
    verify: bool | str = True if case == "unknown" else str(certificate)
    host = "127.0.0.1" if case == "address" else "localhost"

    with (
        FtpClient(host, **ftp.arguments, tls=True, verify=verify) as client,
        pytest.raises(ConnectFailedError, match="certificate"),
    ):
        client.list("/")

    assert not any(line.startswith(("USER", "PASS")) for line in ftp.commands)


def test_check_of_the_certificate_can_be_switched_off(serve_ftp: Callable[..., Any], certificate: Path) -> None:
    """Only aloud."""
    ftp = serve_ftp(tls=certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    for verify in (False, context):
        with FtpClient("localhost", **ftp.arguments, tls=True, verify=verify) as client:
            assert client.list("/") == []


def test_server_without_tls_gets_no_password(serve_ftp: Callable[..., Any]) -> None:
    """Asked for TLS, nothing goes in the clear."""
    ftp = serve_ftp()

    with FtpClient("localhost", **ftp.arguments, tls=True) as client, pytest.raises(ClientError):
        client.list("/")

    assert not any(line.startswith(("USER", "PASS")) for line in ftp.commands)
