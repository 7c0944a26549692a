"""The SFTP adapter against asyncssh's own server, honest and not."""

# pyftpdlib and asyncssh speak of paths as text.
# ruff: noqa: PTH110, PTH208

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from clients import (
    AuthRefusedError,
    BrokenAnswerError,
    ConnectFailedError,
    GoneError,
    RejectedError,
    SftpClient,
    TimedOutError,
    TooLargeError,
    TransientError,
)
from tests.support.adapter_servers import OLD, Sftp, fill

Serve = Callable[..., Sftp]


def test_folder_is_listed(serve_sftp: Serve) -> None:
    """Files by pattern, with size and time; folders below to a depth."""
    sftp = serve_sftp()
    fill(sftp.root / "out put", {"a.csv": b"aa", "ü.csv": b"uuu", "c.txt": b"c"})
    fill(sftp.root / "out put" / "sub", {"d.csv": b""})
    (sftp.root / "out put" / "link.csv").symlink_to("a.csv")
    (sftp.root / "out put" / "dangling.csv").symlink_to("nowhere")

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        found = client.list("/out put", "*.csv")
        deep = client.scan("/out put", "*.csv", depth=1).files

        assert [(one.path, one.size) for one in found] == [("/out put/a.csv", 2), ("/out put/link.csv", 2), ("/out put/ü.csv", 3)]
        assert {one.modified_at.timestamp() for one in found if one.modified_at} == {OLD}
        assert [one.path for one in deep if one.name == "d.csv"] == ["/out put/sub/d.csv"]
        assert client.requests > 0


def test_files_are_read_written_and_downloaded(serve_sftp: Serve, tmp_path: Path) -> None:
    """What is written is what is read; an older file is replaced in one step, and nothing is left beside it."""
    sftp = serve_sftp()
    content = os.urandom(1_000_000)

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        client.write("/new ü.bin", b"old")
        client.write("/new ü.bin", content)
        assert client.read("/new ü.bin") == content
        assert client.download("/new ü.bin", tmp_path / "here.bin").read_bytes() == content

    assert os.listdir(sftp.root) == ["new ü.bin"]


def test_server_that_renames_over_nothing_gets_the_old_file_moved_aside(serve_sftp: Serve) -> None:
    """SFTP 3 refuses a name that is taken, with the code that it has for everything."""

    def rename(self: Any, oldpath: bytes, newpath: bytes) -> Any:
        if os.path.exists(self.map_path(newpath)):
            raise asyncssh.SFTPFailure("it exists")
        return asyncssh.SFTPServer.rename(self, oldpath, newpath)

    def posix_rename(self: Any, oldpath: bytes, newpath: bytes) -> Any:
        raise asyncssh.SFTPOpUnsupported("no")

    sftp = serve_sftp(rename=rename, posix_rename=posix_rename)
    fill(sftp.root, {"a.csv": b"old"})

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        client.write("/a.csv", b"new")

    assert {path.name: path.read_bytes() for path in sftp.root.iterdir()} == {"a.csv": b"new"}


def test_one_client_serves_many_threads(serve_sftp: Serve) -> None:
    """It says that it is thread-safe, and is: one connection, each thread its own file."""
    sftp = serve_sftp()
    contents = {f"{number}.bin": os.urandom(100_000) for number in range(24)}
    fill(sftp.root, contents)

    with SftpClient("127.0.0.1", **sftp.arguments) as client, ThreadPoolExecutor(8) as pool:
        assert client.thread_safe
        assert list(pool.map(lambda name: client.read(f"/{name}"), contents)) == list(contents.values())

    assert sftp.connections == 1


def test_missing_and_forbidden_files(serve_sftp: Serve) -> None:
    """No such file is gone; no such folder, a folder in place of a file, and what we may not read are refused."""

    def open_(self: Any, path: bytes, pflags: int, attrs: Any) -> Any:
        if b"secret" in path:
            raise asyncssh.SFTPPermissionDenied("no")
        return asyncssh.SFTPServer.open(self, path, pflags, attrs)

    sftp = serve_sftp(open=open_)
    fill(sftp.root, {"secret": b"x"})
    (sftp.root / "folder").mkdir()

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        with pytest.raises(GoneError):
            client.read("/no")
        with pytest.raises(RejectedError):
            client.list("/no")
        with pytest.raises(RejectedError, match="folder"):
            client.read("/folder")
        with pytest.raises(RejectedError, match="permission"):
            client.read("/secret")
        assert client.list("/folder") == []


# -- signing in


def test_key_signs_in_as_text_and_as_file(serve_sftp: Serve, tmp_path: Path) -> None:
    """Either way; a key that cannot be read says so."""
    sftp = serve_sftp()
    path = tmp_path / "id"
    path.write_text(sftp.key)
    common = {"port": sftp.port, "user": "ann", "known_hosts": sftp.known}

    for key in (sftp.key, path, str(path)):
        with SftpClient("127.0.0.1", **common, key=key) as client:  # type: ignore[arg-type]
            assert client.list("/") == []
    for bad in ("-----BEGIN nothing-----", str(tmp_path / "no")):
        with SftpClient("127.0.0.1", **common, key=bad) as client, pytest.raises(RejectedError, match="private key"):  # type: ignore[arg-type]
            client.list("/")


@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"user": "bob"}])
def test_refused_sign_in_is_an_auth_error(serve_sftp: Serve, wrong: dict[str, str]) -> None:
    """So that the client pauses; neither user nor password stands in it."""
    sftp = serve_sftp()

    with SftpClient("127.0.0.1", **{**sftp.arguments, **wrong}) as client, pytest.raises(AuthRefusedError) as caught:
        client.list("/")

    assert caught.value.status is None
    assert not {"ann", "bob", "wrong", "secret-of-ann"} & set(repr(caught.value).replace("'", " ").split())


def test_unknown_host_key_is_refused_before_the_password(
    serve_sftp: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may sit in between: by default, with another key, with a file that is not there."""
    seen: list[str] = []
    sftp, other = serve_sftp(), asyncssh.generate_private_key("ssh-ed25519").export_public_key()
    monkeypatch.setenv("HOME", str(tmp_path))
    wrong = b"[127.0.0.1]:%d " % sftp.port + other
    arguments = {name: value for name, value in sftp.arguments.items() if name != "known_hosts"}

    for known in ({}, {"known_hosts": wrong}, {"known_hosts": tmp_path / "no"}):
        with SftpClient("127.0.0.1", **arguments, **known) as client, pytest.raises(ConnectFailedError, match="known"):
            client.list("/")
    assert seen == []


def test_default_file_of_known_hosts_and_one_of_ones_own(
    serve_sftp: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`~/.ssh/known_hosts`, or another file."""
    sftp = serve_sftp()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    path = tmp_path / ".ssh" / "known_hosts"
    path.write_bytes(sftp.known + b"\n")
    arguments = {name: value for name, value in sftp.arguments.items() if name != "known_hosts"}

    for known in ({}, {"known_hosts": path}):
        with SftpClient("127.0.0.1", **arguments, **known) as client:
            assert client.list("/") == []


def test_check_of_host_keys_is_switched_off_aloud(serve_sftp: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """`known_hosts=None` trusts everybody, and the log says so."""
    sftp = serve_sftp()

    with SftpClient("127.0.0.1", **{**sftp.arguments, "known_hosts": None}) as client:
        assert client.list("/") == []
    assert "the host key is not checked" in caplog.text


def test_settings_of_the_machine_have_no_say(serve_sftp: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `~/.ssh/config` that sends this host elsewhere is not read."""
    sftp = serve_sftp()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  Hostname 192.0.2.1\n  User mallory\n  ProxyCommand touch /tmp/x\n")

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        assert client.list("/") == []


def test_declaring_needs_a_sign_in() -> None:
    """Neither password nor key is an error of the declaration."""
    with pytest.raises(ValueError, match="password or key"):
        SftpClient("127.0.0.1", user="ann")
    assert "ann" not in repr(SftpClient("127.0.0.1", user="ann", password="secret"))


def test_refused_and_silent_servers(serve_sftp: Serve) -> None:
    """Nobody listens; somebody listens who is no SSH server and says nothing."""
    import socket

    with SftpClient("127.0.0.1", port=1, user="a", password="b", known_hosts=b"") as client, pytest.raises(ConnectFailedError):
        client.list("/")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with (
            SftpClient("127.0.0.1", port=port, user="a", password="b", known_hosts=None, timeout=0.5) as client,
            pytest.raises(ConnectFailedError),
        ):
            client.list("/")


# -- servers that do what no proper one does


def announcing(size: int) -> dict[str, Any]:
    """Return methods that announce `size` for every file, whatever it has."""

    def changed(attrs: Any) -> Any:
        found = asyncssh.SFTPAttrs.from_local(attrs) if isinstance(attrs, os.stat_result) else attrs
        found.size = size
        return found

    return {
        "stat": lambda self, path: changed(asyncssh.SFTPServer.stat(self, path)),
        "fstat": lambda self, file: changed(asyncssh.SFTPServer.fstat(self, file)),
    }


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_wrong_announced_sizes_are_not_believed(serve_sftp: Serve, tmp_path: Path, size: int) -> None:
    """Too few or too many: an error, never half a file (paramiko#1871)."""
    sftp = serve_sftp(**announcing(size))
    fill(sftp.root, {"a": b"x" * 300_000})

    with SftpClient("127.0.0.1", **sftp.arguments, timeout=60) as client:
        with pytest.raises(BrokenAnswerError):
            client.read("/a")
        with pytest.raises(BrokenAnswerError):
            client.download("/a", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_short_reads_are_put_together(serve_sftp: Serve) -> None:
    """A server may answer each request with fewer bytes than were asked for (asyncssh#204)."""

    def read(self: Any, file_obj: Any, offset: int, size: int) -> Any:
        return asyncssh.SFTPServer.read(self, file_obj, offset, min(size, 1000))

    sftp = serve_sftp(read=read)
    content = os.urandom(50_000)
    fill(sftp.root, {"a": content})

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        assert client.read("/a") == content


def test_names_that_lead_elsewhere_become_errors(serve_sftp: Serve) -> None:
    """Names with slashes, dots and control characters are counted; names that are not UTF-8 are read."""

    async def scandir(self: Any, path: bytes) -> Any:
        attrs = asyncssh.SFTPAttrs(size=1, permissions=0o100644, atime=OLD, mtime=OLD)
        for name in (b"../../etc/passwd", b"..", b".", b"/abs", b"nul\x00", b"line\nbreak", b"good.csv", b"gr\xf6\xdfe.csv"):
            yield asyncssh.SFTPName(name, attrs=attrs)

    sftp = serve_sftp(scandir=scandir)

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        found = client.scan("/")

    assert [one.path for one in found.files] == ["/good.csv", "/größe.csv"]
    assert len(found.errors) == 4


def test_names_in_latin_1_are_read(serve_sftp: Serve) -> None:
    """They go back as the bytes that they came as."""
    sftp = serve_sftp()
    (sftp.root / os.fsdecode(b"gr\xf6\xdfe.csv")).write_bytes(b"x")

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        (found,) = client.list("/")
        assert found.path == "/größe.csv"
        assert client.read(found.path) == b"x"


@pytest.mark.parametrize("path", ["../a", "/x/../../y", "", "a\nb", "a\x00b"])
def test_paths_that_lead_elsewhere_are_refused(serve_sftp: Serve, path: str) -> None:
    """Before anything is sent."""
    sftp = serve_sftp()

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        for work in (lambda: client.read(path), lambda: client.write(path, b"")):
            with pytest.raises(RejectedError):
                work()
    assert sftp.connections == 0


def test_file_larger_than_the_limit_is_refused(serve_sftp: Serve) -> None:
    """By its announced size, or at the limit."""
    sftp = serve_sftp()
    fill(sftp.root, {"big": b"x" * 1_000_000})

    with SftpClient("127.0.0.1", **sftp.arguments, max_bytes=1000) as client, pytest.raises(TooLargeError):
        client.read("/big")


def test_hanging_read_is_timed_out_and_the_next_call_connects_again(serve_sftp: Serve) -> None:
    """A server that stops answering costs one error and no thread for ever (paramiko#1788)."""
    gate = threading.Event()
    hang = [1]

    async def stat(self: Any, path: bytes) -> Any:
        import asyncio

        while hang and not gate.is_set():
            await asyncio.sleep(0.02)
        return asyncssh.SFTPServer.stat(self, path)

    sftp = serve_sftp(stat=stat)
    fill(sftp.root, {"a": b"x"})

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        assert client.list("/")  # the connection is made under the usual limit: on a busy machine that may take a second
        connection = client._file_system._connection  # type: ignore[attr-defined]
        limit, connection._timeout = connection._timeout, 0.5
        with pytest.raises(TimedOutError):
            client.read("/a")
        hang.clear()
        connection._timeout = limit
        assert client.read("/a") == b"x"
    gate.set()
    assert sftp.connections == 2


def test_broken_download_is_resumed(serve_sftp: Serve, tmp_path: Path) -> None:
    """The rest is asked for, behind what arrived."""
    offsets: list[int] = []
    fail = [400_000]

    def read(self: Any, file_obj: Any, offset: int, size: int) -> Any:
        offsets.append(offset)
        if fail and offset >= fail[0]:
            raise asyncssh.SFTPConnectionLost("lost")
        return asyncssh.SFTPServer.read(self, file_obj, offset, size)

    sftp = serve_sftp(read=read)
    content = os.urandom(1_000_000)
    fill(sftp.root, {"a": content})

    with SftpClient("127.0.0.1", **sftp.arguments) as client:
        with pytest.raises(TransientError):
            client.download("/a", tmp_path / "a")
        fail.clear()
        offsets.clear()
        assert client.download("/a", tmp_path / "a").read_bytes() == content

    assert min(offsets) > 200_000
    assert os.listdir(tmp_path / "sftp0") == ["a"]


def test_closed_client_says_so(serve_sftp: Serve) -> None:
    """After `close` there is no connection and no thread; closing twice does nothing more."""
    sftp = serve_sftp()
    client = SftpClient("127.0.0.1", **sftp.arguments)
    assert client.list("/") == []
    client.close()
    client.close()

    with pytest.raises(RuntimeError, match="closed"):
        client.list("/")
    assert not [thread for thread in threading.enumerate() if thread.name == "syncs-sftp" and thread.is_alive()]


def test_missing_library_is_said_in_one_line() -> None:
    """Without asyncssh the adapter says what to install; the rest of the package works."""
    code = (
        "import sys, importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('asyncssh', 'zeep') else find(name, *a)\n"
        "from clients import SftpClient, SoapClient\n"
        "for make in (lambda: SftpClient('h', user='u', password='p'), lambda: SoapClient('http://h/?wsdl')):\n"
        "    try: make()\n"
        "    except ModuleNotFoundError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})

    assert done.stdout.splitlines() == [
        "SftpClient needs asyncssh: pip install 'sync-clients[sftp]'",
        "SoapClient needs zeep: pip install 'sync-clients[soap]'",
    ]
