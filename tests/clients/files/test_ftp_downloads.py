"""Downloads over FTP: whole or not at all, resumed where that is safe."""

# pyftpdlib and asyncssh speak of paths as text.
# ruff: noqa: PTH208

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients import (
    BrokenAnswerError,
    FtpClient,
    TooLargeError,
    TransientError,
)
from tests.support.adapter_servers import OLD, RawFtp, fill


def transfer(server: RawFtp, content: bytes, *, end: str = "226 done") -> str:
    """Send `content` on a data connection and return the replies around it."""
    server.send(content)
    return f"150 here it comes\r\n{end}"


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
