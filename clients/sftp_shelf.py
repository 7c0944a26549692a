"""Files over SFTP, on asyncssh in a thread of its own: one connection, any number of calling threads.

Names are bytes on the way; they are read as UTF-8, or as latin-1 where they are not.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import stat
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable
from datetime import UTC, datetime
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeVar

import asyncssh

from clients.auth import Secret, reveal
from clients.dial import dial
from clients.directory import Entry
from clients.errors import (
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    GoneError,
    RejectedError,
    ServerError,
    TimedOutError,
)
from clients.files import RemoteFile
from clients.names import check_path, decode, encodings, url_of
from clients.sftp_errors import RAISES, connect_error, translate

T = TypeVar("T")

log = logging.getLogger("syncs.sftp")

BLOCK = 256 * 1024
CONNECT_TIMEOUT = 10.0
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


class SftpShelf:
    """The files of one server, over one connection that is opened when it is needed; see `SftpClient`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        user: str,
        password: str | Secret | None,
        key: str | PathLike[str] | Secret | None,
        passphrase: str | Secret | None,
        known_hosts: str | PathLike[str] | bytes | EllipsisType | None,
        timeout: float,
    ) -> None:
        self._host, self._port, self._user = host, port, user
        self._password, self._key, self._passphrase, self._known_hosts = password, key, passphrase, known_hosts
        self._timeout = timeout
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        #: Given up, but with something of other threads still in hand.
        self._leaving: list[asyncssh.SSHClientConnection] = []
        self._closed = False
        self.requests = 0

    def url(self, path: str) -> str:
        """Return the URL of a path, without user, for messages."""
        return url_of("sftp", self._host, self._port, path)

    def close(self) -> None:
        """Close the connection and end its thread."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
            self._hang_up(loop)
        if loop is not None:
            for connection in self._leaving:
                loop.call_soon_threadsafe(connection.abort)
            loop.call_soon_threadsafe(loop.stop)
            assert self._thread is not None
            self._thread.join(5)

    def look(self, path: str) -> RemoteFile:
        """Return what the server says of a file now.

        Raises:
            GoneError: it is not there.
            RejectedError: it is a folder.
        """
        return self._described(path, self._do("STAT", path, lambda sftp, way: sftp.stat(way), reads=True))

    def chunks(self, path: str, offset: int) -> Generator[bytes, None, None]:
        """Yield the content of a file from `offset` on."""
        file = self._do("READ", path, lambda sftp, way: _open(sftp, way, "rb"), reads=True)
        at = offset

        async def read(_sftp: asyncssh.SFTPClient, _way: bytes) -> bytes:
            block = await file.read(BLOCK, at)
            return block if isinstance(block, bytes) else block.encode()

        try:
            while block := self._do("READ", path, read, reads=True):
                yield block
                at += len(block)
        finally:
            with contextlib.suppress(ClientError):
                self._do("CLOSE", path, lambda _sftp, _way: file.close())

    def put(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file, down to the disk where the server can say so."""
        file = self._do("WRITE", path, lambda sftp, way: _open(sftp, way, "wb"), ways=1)
        try:
            at = 0
            for chunk in chunks:
                self._do("WRITE", path, partial(_write, file, chunk, at), ways=1)
                at += len(chunk)
            # Only OpenSSH's extension says so.
            with contextlib.suppress(RejectedError, ServerError):
                self._do("WRITE", path, lambda _sftp, _way: file.fsync())
        finally:
            self._do("CLOSE", path, lambda _sftp, _way: file.close())

    def rename(self, path: str, to: str) -> None:
        """Rename a file, over another one where the server can do that in one step."""
        target = encodings(check_path(to))[0]

        async def work(sftp: asyncssh.SFTPClient, way: bytes) -> None:
            try:
                await sftp.posix_rename(way, target)
            except asyncssh.SFTPOpUnsupported:
                await sftp.rename(way, target)

        try:
            self._do("RENAME", path, work, ways=1)
        except ServerError as error:
            # SFTP 3 has one code for all that it has no code for; here it is a name that is taken.
            raise RejectedError(error.message, method="RENAME", url=self.url(path)) from None

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._do("REMOVE", path, lambda sftp, way: sftp.remove(way), ways=1)

    def described(self, path: str, entry: Entry) -> RemoteFile | None:
        """Return an entry as a file, or None for a link that leads to none."""
        if entry.kind == "file":
            return RemoteFile(path, entry.size, entry.modified_at)
        try:
            return self.look(path)
        except (GoneError, RejectedError):
            return None

    def entries(self, folder: str) -> tuple[list[Entry], list[str]]:
        """Return what a folder holds.

        Raises:
            RejectedError: there is no such folder, or not for us.
        """

        async def work(sftp: asyncssh.SFTPClient, way: bytes) -> list[Entry]:
            return [await _entry(sftp, way, name) async for name in sftp.scandir(way)]

        found = self._do("LIST", folder, work)
        return [entry for entry in found if entry.name not in (".", "..")], []

    def _described(self, path: str, attrs: asyncssh.SFTPAttrs) -> RemoteFile:
        if attrs.permissions is not None and stat.S_ISDIR(attrs.permissions):
            raise RejectedError("a folder, not a file", method="STAT", url=self.url(path))
        return RemoteFile(path, attrs.size, _moment(attrs))

    def _do(
        self,
        method: str,
        path: str,
        work: Callable[[asyncssh.SFTPClient, bytes], Coroutine[Any, Any, T]],
        *,
        reads: bool = False,
        ways: int = 2,
    ) -> T:
        """Do something with a path; a name that is not found in UTF-8 is tried in latin-1."""
        check_path(path)
        tried = encodings(path)[:ways]
        for way in tried[:-1]:
            with contextlib.suppress(GoneError, RejectedError):
                return self._once(method, path, way, work, reads)
        return self._once(method, path, tried[-1], work, reads)

    def _once(
        self,
        method: str,
        path: str,
        way: bytes,
        work: Callable[[asyncssh.SFTPClient, bytes], Coroutine[Any, Any, T]],
        reads: bool,
    ) -> T:
        sftp, loop = self._ready()
        if method != "CLOSE":
            self.requests += 1
        try:
            return self._run(loop, work(sftp, way))
        except RAISES as raised:
            error = translate(raised, method=method, url=self.url(path), reads=reads)
            if isinstance(error, BrokenAnswerError | TimedOutError):
                # Where only this request hangs, what other threads have in hand may still come to its end.
                self._drop(sftp, grace=self._timeout if isinstance(error, TimedOutError) else 0)
            raise error from None

    def _run(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout or self._timeout), loop)
        try:
            return future.result((timeout or self._timeout) + 5)
        except (TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            raise TimeoutError from None

    def _ready(self) -> tuple[asyncssh.SFTPClient, asyncio.AbstractEventLoop]:
        """Return the connection and its loop; make new ones where there are none any more."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="syncs-sftp", daemon=True)
                self._thread.start()
            if self._connection is not None and self._connection.is_closed():
                self._hang_up(self._loop)
            if self._sftp is None:
                self._sftp = self._connect(self._loop)
            return self._sftp, self._loop

    def _connect(self, loop: asyncio.AbstractEventLoop) -> asyncssh.SFTPClient:
        url = self.url("")
        options = self._options()
        seconds = min(self._timeout, CONNECT_TIMEOUT)

        async def open_all() -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
            connection = await asyncssh.connect(self._host, self._port, **options)
            try:
                return connection, await connection.start_sftp_client(path_encoding=None)
            except BaseException:
                connection.abort()
                raise

        try:
            # A server that hangs up on us by protocol is no OSError; it is not asked again.
            self._connection, sftp = dial(lambda: self._run(loop, open_all(), timeout=seconds * 2), again=_is_refused)
        except RAISES as error:
            raise connect_error(error, url=url) from None
        return sftp

    def _options(self) -> dict[str, Any]:
        known: Any = self._known_hosts
        if known is ...:
            path = Path("~/.ssh/known_hosts").expanduser()
            known = str(path) if path.is_file() else b""
        elif known is None:
            log.warning("%s: the host key is not checked (known_hosts=None)", self.url(""))
        elif not isinstance(known, bytes):
            known = fspath(known)
            if not Path(known).is_file():
                raise ConnectFailedError(f"no file of known hosts at {known}", method="CONNECT", url=self.url(""))
        keys = [self._private_key()] if self._key is not None else []
        seconds = min(self._timeout, CONNECT_TIMEOUT)
        return {
            "username": self._user, "password": None if self._password is None else reveal(self._password),
            "client_keys": keys or None, "known_hosts": known, "config": None, "agent_path": None, "gss_host": None,
            "connect_timeout": seconds, "login_timeout": seconds, "keepalive_interval": 30,
        }  # fmt: skip

    def _private_key(self) -> asyncssh.SSHKey:
        assert self._key is not None
        text = self._key if isinstance(self._key, str | PathLike) else reveal(self._key)
        passphrase = None if self._passphrase is None else reveal(self._passphrase)
        try:
            if isinstance(text, str) and "-----BEGIN" in text:
                return asyncssh.import_private_key(text, passphrase)
            return asyncssh.read_private_key(fspath(text), passphrase)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a key, or not with this passphrase"
            raise RejectedError(f"the private key cannot be read: {why}", method="CONNECT", url=self.url("")) from None

    def _drop(self, sftp: asyncssh.SFTPClient, *, grace: float) -> None:
        """Give a connection up, unless another thread has done so and there is a new one."""
        with self._lock:
            if self._sftp is sftp:
                self._hang_up(self._loop, grace=grace)

    def _hang_up(self, loop: asyncio.AbstractEventLoop | None, *, grace: float = 0) -> None:
        connection, self._connection, self._sftp = self._connection, None, None
        if connection is None or loop is None:
            return
        if grace:
            self._leaving = [one for one in self._leaving if not one.is_closed()] + [connection]
            loop.call_soon_threadsafe(loop.call_later, grace, connection.abort)
        else:
            loop.call_soon_threadsafe(connection.abort)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, and leave nothing of it behind."""
    loop.run_forever()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    # Sockets are closed by callbacks of callbacks.
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _open(sftp: asyncssh.SFTPClient, way: bytes, mode: str) -> asyncssh.SFTPClientFile:
    return await sftp.open(way, mode)


async def _write(file: asyncssh.SFTPClientFile, chunk: bytes, at: int, _sftp: asyncssh.SFTPClient, _way: bytes) -> None:
    await file.write(chunk, at)


async def _entry(sftp: asyncssh.SFTPClient, folder: bytes, found: asyncssh.SFTPName) -> Entry:
    raw = found.filename if isinstance(found.filename, bytes) else found.filename.encode()
    attrs = found.attrs
    if attrs.permissions is None:
        # Few servers leave it out of a listing; without it nobody knows a file from a folder.
        attrs = await sftp.lstat(folder.rstrip(b"/") + b"/" + raw)
    kind = "file" if attrs.permissions is None else _KINDS.get(stat.S_IFMT(attrs.permissions), "other")
    return Entry(decode(raw), kind, attrs.size if kind == "file" else None, _moment(attrs), exact=True)


def _moment(attrs: asyncssh.SFTPAttrs) -> datetime | None:
    try:
        return None if attrs.mtime is None else datetime.fromtimestamp(attrs.mtime, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _is_refused(error: OSError) -> bool:
    return not isinstance(error, TimeoutError)
