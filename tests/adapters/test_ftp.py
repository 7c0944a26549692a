"""The FTP adapter against pyftpdlib in several manners, and against servers that do what no proper one does."""

# pyftpdlib and asyncssh speak of paths as text.
# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH208

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from adapters_kit import OLD, RawFtp, fill, make_certificate, usual

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
    TooLargeError,
    TransientError,
    UnreadableError,
)


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


# -- downloads


def test_download_arrives_whole_or_not_at_all(serve_ftp: Callable[..., Any], tmp_path: Path) -> None:
    """To a file or into a folder, over an older one, with nothing beside it."""
    ftp = serve_ftp()
    content = os.urandom(300_000)
    fill(ftp.root, {"a.bin": content})
    folder = tmp_path / "here"
    folder.mkdir()

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        assert client.download("/a.bin", folder) == folder / "a.bin"
        assert client.download("/a.bin", folder / "b.bin").read_bytes() == content
        assert client.download("/a.bin", folder / "b.bin").read_bytes() == content

    assert sorted(os.listdir(folder)) == ["a.bin", "b.bin"]


class Dropping:
    """Makes a server's first `times` transfers break after `after` bytes, without a word."""

    def __init__(self, after: int, times: int = 1) -> None:
        self.after, self.times = after, times

    def retr(self) -> Callable[..., Any]:
        """Return a method for the handler."""
        from pyftpdlib.handlers import FTPHandler

        def ftp_RETR(handler: Any, path: str) -> Any:  # noqa: N802
            if self.times > 0:
                self.times -= 1
                short = Path(path).with_name(".short")
                rest, handler._restart_position = handler._restart_position, 0
                short.write_bytes(Path(path).read_bytes()[rest : rest + self.after])
                found = FTPHandler.ftp_RETR(handler, str(short))
                short.unlink()
                return found
            return FTPHandler.ftp_RETR(handler, path)

        return ftp_RETR


def test_transfer_that_ends_early_without_a_word_is_broken(serve_ftp: Callable[..., Any]) -> None:
    """A server that says "226 complete" after half of the file is not believed."""
    ftp = serve_ftp(ftp_RETR=Dropping(200_000).retr())
    content = os.urandom(300_000)
    fill(ftp.root, {"a.bin": content})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        with pytest.raises(BrokenAnswerError, match="200000 bytes came, 300000"):
            client.read("/a.bin")
        assert client.read("/a.bin") == content


def broken_part(to: Path, content: bytes) -> Path:
    """Return the part of a download that broke after 200,000 bytes."""
    part = to.with_name(next(name for name in os.listdir(to.parent) if name.endswith(".part")))
    assert part.read_bytes() == content[: part.stat().st_size]
    return part


@pytest.fixture
def breaking(serve_ftp: Callable[..., Any]) -> Callable[..., Any]:
    """Start a server whose first transfer hangs up both connections after 200,000 bytes."""
    from pyftpdlib.handlers import DTPHandler

    def start(**options: Any) -> Any:
        left = [1]

        class Breaking(DTPHandler):
            sent = 0

            def send(self, data: bytes) -> int:
                if left[0] > 0 and self.sent + len(data) > 200_000:
                    left[0] -= 1
                    self.cmd_channel.close()
                    return 0
                sent: int = super().send(data)
                self.sent += sent
                return sent

        return serve_ftp(dtp_handler=Breaking, use_sendfile=False, **options)

    return start


def test_download_that_was_cut_off_goes_on(breaking: Callable[..., Any], tmp_path: Path) -> None:
    """The part that arrived stays; the next try, of another client, asks for the rest only."""
    ftp = breaking()
    content = os.urandom(500_000)
    fill(ftp.root, {"a.bin": content})
    to = tmp_path / "a.bin"

    with FtpClient("127.0.0.1", **ftp.arguments) as client, pytest.raises(TransientError):
        client.download("/a.bin", to)
    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        part = broken_part(to, content)
        size = part.stat().st_size
        assert 0 < size <= 200_000
        assert client.download("/a.bin", to).read_bytes() == content

    assert f"REST {size - 1024}" in ftp.commands
    assert not part.exists()


def test_download_starts_over_where_rest_is_refused(breaking: Callable[..., Any], tmp_path: Path) -> None:
    """A server without REST sends all of it again."""
    ftp = breaking(without=("REST",))
    content = os.urandom(500_000)
    fill(ftp.root, {"a.bin": content})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        with pytest.raises(TransientError):
            client.download("/a.bin", tmp_path / "a.bin")
        assert client.download("/a.bin", tmp_path / "a.bin").read_bytes() == content

    assert any(line.startswith("REST") for line in ftp.commands)


def test_download_starts_over_where_rest_is_not_heeded(breaking: Callable[..., Any], tmp_path: Path) -> None:
    """A server that says yes to REST and begins at the start would give a file with its beginning twice."""

    def ftp_REST(self: Any, line: str) -> None:  # noqa: N802
        self.respond("350 Restarting, but not really.")

    ftp = breaking(ftp_REST=ftp_REST)
    content = os.urandom(500_000)
    fill(ftp.root, {"a.bin": content})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        with pytest.raises(TransientError):
            client.download("/a.bin", tmp_path / "a.bin")
        assert client.download("/a.bin", tmp_path / "a.bin").read_bytes() == content


def test_part_whose_end_is_not_the_file_s_is_not_resumed(breaking: Callable[..., Any], tmp_path: Path) -> None:
    """After a power cut the end of a part may be zeros; what is asked for once more shows it."""
    ftp = breaking()
    content = os.urandom(500_000)
    fill(ftp.root, {"a.bin": content})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        with pytest.raises(TransientError):
            client.download("/a.bin", tmp_path / "a.bin")
        part = broken_part(tmp_path / "a.bin", content)
        part.write_bytes(part.read_bytes()[:-5000] + bytes(5000))
        assert client.download("/a.bin", tmp_path / "a.bin").read_bytes() == content


def test_download_of_a_file_that_changed_since_starts_over(breaking: Callable[..., Any], tmp_path: Path) -> None:
    """The rest of another version does not belong to the part of the first."""
    ftp = breaking()
    fill(ftp.root, {"a.bin": os.urandom(500_000)})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        with pytest.raises(TransientError):
            client.download("/a.bin", tmp_path / "a.bin")
        content = os.urandom(500_000)
        fill(ftp.root, {"a.bin": content}, at=OLD + 1)
        assert client.download("/a.bin", tmp_path / "a.bin").read_bytes() == content

    assert not any(line.startswith("REST") for line in ftp.commands)


def test_file_that_is_written_while_it_is_read_is_tried_again(serve_ftp: Callable[..., Any], tmp_path: Path) -> None:
    """Nobody gets two halves of two versions, neither by `read` nor by `download`."""
    from pyftpdlib.handlers import FTPHandler

    def ftp_RETR(self: Any, path: str) -> Any:  # noqa: N802
        found = FTPHandler.ftp_RETR(self, path)
        Path(path).write_bytes(b"another, longer content")
        return found

    ftp = serve_ftp(ftp_RETR=ftp_RETR)
    fill(ftp.root, {"a.csv": b"one", "b.csv": b"one"})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        with pytest.raises(TransientError, match="changed"):
            client.read("/a.csv")
        with pytest.raises(TransientError):
            client.download("/b.csv", tmp_path / "b.csv")

    assert not (tmp_path / "b.csv").exists()


def test_file_larger_than_the_limit_is_refused_before_it_is_sent(serve_ftp: Callable[..., Any], tmp_path: Path) -> None:
    """Where its size is announced not a byte is asked for; otherwise it ends at the limit. The connection goes on."""
    for without in ((), ("MLST", "SIZE", "MDTM", "FEAT")):
        ftp = serve_ftp(without=without)
        fill(ftp.root, {"big": b"x" * 2_000_000, "small": b"y"})

        with FtpClient("127.0.0.1", **ftp.arguments, max_bytes=100_000) as client:
            with pytest.raises(TooLargeError):
                client.read("/big")
            with pytest.raises(TooLargeError):
                client.download("/big", tmp_path / "big", max_bytes=100_000)
            assert client.read("/small") == b"y"

        assert any(line.startswith("RETR /big") for line in ftp.commands) == bool(without)
    assert not (tmp_path / "big").exists()


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
    with FtpClient("127.0.0.1", port=server.port, timeout=5) as client:
        found = client.scan("out")

        assert [one.path for one in found.files] == ["out/good.csv"]
        assert len(found.errors) == (0 if (name, form) == ("..", "LIST") else 1)
        if found.errors:
            with pytest.raises(UnreadableError):
                client.list("out")


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
    with FtpClient("127.0.0.1", port=server.port, timeout=5) as client, pytest.raises(UnreadableError, match="cannot be read"):
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
        FtpClient("127.0.0.1", port=server.port, timeout=5) as client,
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
    with FtpClient("127.0.0.1", port=server.port, timeout=5) as client:
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
    with FtpClient("127.0.0.1", port=server.port, timeout=5) as client:
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
    with FtpClient("127.0.0.1", port=server.port, password="hunter2", timeout=5) as client, pytest.raises(ClientError) as caught:
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
            gate.wait(10)
        return usual(line, server)

    for silent in ("WELCOME", "PASS", "PASV"):  # noqa: B007 - `reply` reads it
        server = serve_raw_ftp(reply)
        with FtpClient("127.0.0.1", port=server.port, timeout=0.3) as client, pytest.raises(TimedOutError):
            client.read("/a")
    gate.set()


def test_reply_without_end_is_broken_off(serve_raw_ftp: Callable[..., RawFtp]) -> None:
    """A greeting of a million lines is not collected."""
    server = serve_raw_ftp(lambda line, server: "220-more\r\n" * 100_000)

    with FtpClient("127.0.0.1", port=server.port, timeout=5) as client, pytest.raises(BrokenAnswerError):
        client.read("/a")


def test_transfer_that_trickles_is_timed_out(serve_raw_ftp: Callable[..., RawFtp]) -> None:
    """A byte now and then keeps every single wait short, and would keep the worker for ever."""

    def reply(line: str, server: RawFtp) -> str:
        if line.startswith("RETR"):

            def drip() -> None:
                conn = server.accept()
                with conn:
                    for _ in range(100):
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
    assert time.monotonic() - began < 4


def test_lost_connection_is_made_anew(serve_ftp: Callable[..., Any]) -> None:
    """What broke is an error once; the next call connects again."""
    ftp = serve_ftp()
    fill(ftp.root, {"a": b"x"})

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        assert client.read("/a") == b"x"
        client._shelf._control.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        with pytest.raises(TransientError):
            client.read("/a")
        assert client.read("/a") == b"x"


def test_idle_connection_that_the_server_closed_is_noticed(
    serve_ftp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers hang up on who says nothing for minutes: that costs nobody an attempt."""
    ftp = serve_ftp(timeout=0.2)
    fill(ftp.root, {"a": b"x"})
    monkeypatch.setattr("clients.ftp_shelf.IDLE", 0.1)

    with FtpClient("127.0.0.1", **ftp.arguments) as client:
        assert client.read("/a") == b"x"
        time.sleep(0.6)
        assert client.read("/a") == b"x"


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
