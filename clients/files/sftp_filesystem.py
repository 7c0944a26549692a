"""Lists, describes, reads and writes files over SFTP.

Names are sent as bytes; received ones are read as UTF-8, or as latin-1 where they are not UTF-8.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import asyncssh

from clients.errors import BrokenAnswerError, ClientError, GoneError, RejectedError, ServerError, TimedOutError
from clients.exchange_recorder import OpenExchange, record_exchange
from clients.files.ftp_list import Entry
from clients.files.paths import check_path, decode, encodings, url_of
from clients.files.sftp_connection import RAISES, SftpConnection, status_of, translate
from clients.files.transfer import RemoteFile

T = TypeVar("T")

BLOCK = 256 * 1024
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


class SftpFileSystem:
    """The files of one server, over one connection that is opened when it is needed; see `SftpClient`."""

    def __init__(self, host: str, port: int, *, timeout: float, **sign_in: Any) -> None:
        self._host, self._port, self._timeout = host, port, timeout
        self._connection = SftpConnection(host, port, url=self.url(""), timeout=timeout, **sign_in)
        self.requests = 0

    def url(self, path: str) -> str:
        """Return the URL of a path, without user, for messages."""
        return url_of("sftp", self._host, self._port, path)

    def close(self) -> None:
        """Close the connection and end its thread."""
        self._connection.close()

    def stat(self, path: str) -> RemoteFile:
        """Return size and time of a file.

        Raises:
            GoneError: it is not there.
            RejectedError: it is a folder.
        """
        return self._remote_file(path, self._do("STAT", path, lambda sftp, encoded: sftp.stat(encoded), reads=True))

    def read(self, path: str, offset: int) -> Generator[bytes, None, None]:
        """Yield the content of a file from `offset` on."""
        # Many requests, recorded as one: the last five requests of a large file would not show what led to them.
        with record_exchange("READ", self.url(path)) as exchange:
            file = self._do("READ", path, lambda sftp, encoded: _open(sftp, encoded, "rb"), reads=True, exchange=exchange)
            at = offset

            async def read(_sftp: asyncssh.SFTPClient, _encoded: bytes) -> bytes:
                block = await file.read(BLOCK, at)
                return block if isinstance(block, bytes) else block.encode()

            exchange.status = None
            try:
                while block := self._do("READ", path, read, reads=True, exchange=exchange):
                    exchange.status = None
                    yield block
                    at += len(block)
                    exchange.size += len(block)
            finally:
                with contextlib.suppress(ClientError):
                    self._do("CLOSE", path, lambda _sftp, _encoded: file.close(), exchange=OpenExchange())

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file, and flush it to the disk where the server supports that."""
        with record_exchange("WRITE", self.url(path)) as exchange:
            file = self._do("WRITE", path, lambda sftp, encoded: _open(sftp, encoded, "wb"), fallback=False, exchange=exchange)
            try:
                for chunk in chunks:
                    self._do("WRITE", path, partial(_write, file, chunk, exchange.size), fallback=False, exchange=exchange)
                    exchange.size += len(chunk)
                # Only an extension of OpenSSH does that.
                with contextlib.suppress(RejectedError, ServerError):
                    self._do("WRITE", path, lambda _sftp, _encoded: file.fsync(), exchange=OpenExchange())
            finally:
                self._do("CLOSE", path, lambda _sftp, _encoded: file.close(), exchange=OpenExchange())

    def rename(self, path: str, to: str) -> None:
        """Rename a file, over another one where the server can do that in one step."""
        target = encodings(check_path(to))[0]

        async def work(sftp: asyncssh.SFTPClient, encoded: bytes) -> None:
            try:
                await sftp.posix_rename(encoded, target)
            except asyncssh.SFTPOpUnsupported:
                await sftp.rename(encoded, target)

        try:
            self._do("RENAME", path, work, fallback=False)
        except ServerError as error:
            # SFTP 3 has one code for everything else; here it means that the name exists.
            raise RejectedError(error.message, method="RENAME", url=self.url(path)) from None

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._do("REMOVE", path, lambda sftp, encoded: sftp.remove(encoded), fallback=False)

    def remote_file(self, path: str, entry: Entry) -> RemoteFile | None:
        """Return an entry as a file, or None for a link that leads to none."""
        if entry.kind == "file":
            return RemoteFile(path, entry.size, entry.modified_at)
        try:
            return self.stat(path)
        except (GoneError, RejectedError):
            return None

    def entries(self, folder: str) -> tuple[list[Entry], list[str]]:
        """Return what a folder holds.

        Raises:
            RejectedError: there is no such folder, or it may not be read.
        """

        async def work(sftp: asyncssh.SFTPClient, encoded: bytes) -> list[Entry]:
            return [await _entry(sftp, encoded, name) async for name in sftp.scandir(encoded)]

        found = self._do("LIST", folder, work)
        return [entry for entry in found if entry.name not in (".", "..")], []

    def _remote_file(self, path: str, attrs: asyncssh.SFTPAttrs) -> RemoteFile:
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
        fallback: bool = True,
        exchange: OpenExchange | None = None,
    ) -> T:
        """Run requests for a path. A name that is not found in UTF-8 is tried in latin-1, unless there is no `fallback`.

        Args:
            reads: a file is read, so that "no such file" is about that file.
            exchange: the recorded exchange that the requests belong to; without it, they are one of their own.
        """
        check_path(path)
        paths = encodings(path) if fallback else encodings(path)[:1]
        for encoded in paths[:-1]:
            with contextlib.suppress(GoneError, RejectedError):
                return self._run(method, path, work, encoded=encoded, reads=reads, exchange=exchange)
        return self._run(method, path, work, encoded=paths[-1], reads=reads, exchange=exchange)

    def _run(
        self,
        method: str,
        path: str,
        work: Callable[[asyncssh.SFTPClient, bytes], Coroutine[Any, Any, T]],
        *,
        encoded: bytes,
        reads: bool,
        exchange: OpenExchange | None,
    ) -> T:
        sftp, loop = self._connection.ready()
        if method != "CLOSE":
            self.requests += 1
        with record_exchange(method, self.url(path)) if exchange is None else nullcontext(exchange) as current:
            try:
                found = self._connection.run(loop, work(sftp, encoded))
            except RAISES as raised:
                current.status = status_of(raised)
                error = translate(raised, method=method, url=self.url(path), reads=reads)
                if isinstance(error, BrokenAnswerError | TimedOutError):
                    # Where only this request hangs, those of other threads may still end well.
                    self._connection.drop(sftp, grace=self._timeout if isinstance(error, TimedOutError) else 0)
                raise error from None
            current.status = "ok"
            return found


async def _open(sftp: asyncssh.SFTPClient, encoded: bytes, mode: str) -> asyncssh.SFTPClientFile:
    return await sftp.open(encoded, mode)


async def _write(file: asyncssh.SFTPClientFile, chunk: bytes, at: int, _sftp: asyncssh.SFTPClient, _encoded: bytes) -> None:
    await file.write(chunk, at)


async def _entry(sftp: asyncssh.SFTPClient, folder: bytes, found: asyncssh.SFTPName) -> Entry:
    raw = found.filename if isinstance(found.filename, bytes) else found.filename.encode()
    attrs = found.attrs
    if attrs.permissions is None:
        # A few servers leave it out of a listing; without it, files and folders look the same.
        attrs = await sftp.lstat(folder.rstrip(b"/") + b"/" + raw)
    kind = "file" if attrs.permissions is None else _KINDS.get(stat.S_IFMT(attrs.permissions), "other")
    return Entry(decode(raw), kind, attrs.size if kind == "file" else None, _moment(attrs), exact=True)


def _moment(attrs: asyncssh.SFTPAttrs) -> datetime | None:
    try:
        return None if attrs.mtime is None else datetime.fromtimestamp(attrs.mtime, UTC)
    except (OverflowError, OSError, ValueError):
        return None
