"""Files over SFTP: which requests list, look, read and write. The connection is `sftp_connection`'s.

Names are bytes on the way; they are read as UTF-8, or as latin-1 where they are not.
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

from clients.directory import Entry
from clients.errors import BrokenAnswerError, ClientError, GoneError, RejectedError, ServerError, TimedOutError
from clients.exchange import Told, telling
from clients.files import RemoteFile
from clients.names import check_path, decode, encodings, url_of
from clients.sftp_connection import SftpConnection
from clients.sftp_errors import RAISES, said, translate

T = TypeVar("T")

BLOCK = 256 * 1024
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


class SftpShelf:
    """The files of one server, over one connection that is opened when it is needed; see `SftpClient`."""

    def __init__(self, host: str, port: int, *, timeout: float, **sign_in: Any) -> None:
        self._host, self._port, self._timeout = host, port, timeout
        self._line = SftpConnection(host, port, url=self.url(""), timeout=timeout, **sign_in)
        self.requests = 0

    def url(self, path: str) -> str:
        """Return the URL of a path, without user, for messages."""
        return url_of("sftp", self._host, self._port, path)

    def close(self) -> None:
        """Close the connection and end its thread."""
        self._line.close()

    def look(self, path: str) -> RemoteFile:
        """Return what the server says of a file now.

        Raises:
            GoneError: it is not there.
            RejectedError: it is a folder.
        """
        return self._described(path, self._do("STAT", path, lambda sftp, way: sftp.stat(way), reads=True))

    def chunks(self, path: str, offset: int) -> Generator[bytes, None, None]:
        """Yield the content of a file from `offset` on."""
        # Many requests, told as one: the last five of a large file would say nothing of what led to it.
        with telling("READ", self.url(path)) as told:
            file = self._do("READ", path, lambda sftp, way: _open(sftp, way, "rb"), reads=True, told=told)
            at = offset

            async def read(_sftp: asyncssh.SFTPClient, _way: bytes) -> bytes:
                block = await file.read(BLOCK, at)
                return block if isinstance(block, bytes) else block.encode()

            told.status = None
            try:
                while block := self._do("READ", path, read, reads=True, told=told):
                    told.status = None
                    yield block
                    at += len(block)
                    told.size += len(block)
            finally:
                with contextlib.suppress(ClientError):
                    self._do("CLOSE", path, lambda _sftp, _way: file.close(), told=Told())

    def put(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file, down to the disk where the server can say so."""
        with telling("WRITE", self.url(path)) as told:
            file = self._do("WRITE", path, lambda sftp, way: _open(sftp, way, "wb"), ways=1, told=told)
            try:
                for chunk in chunks:
                    self._do("WRITE", path, partial(_write, file, chunk, told.size), ways=1, told=told)
                    told.size += len(chunk)
                # Only OpenSSH's extension says so.
                with contextlib.suppress(RejectedError, ServerError):
                    self._do("WRITE", path, lambda _sftp, _way: file.fsync(), told=Told())
            finally:
                self._do("CLOSE", path, lambda _sftp, _way: file.close(), told=Told())

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
        told: Told | None = None,
    ) -> T:
        """Do something with a path; a name that is not found in UTF-8 is tried in latin-1.

        Args:
            told: of the exchange that it is a part of; without it, it is one of its own.
        """
        check_path(path)
        tried = encodings(path)[:ways]
        for way in tried[:-1]:
            with contextlib.suppress(GoneError, RejectedError):
                return self._once(method, path, way, work, reads, told)
        return self._once(method, path, tried[-1], work, reads, told)

    def _once(
        self,
        method: str,
        path: str,
        way: bytes,
        work: Callable[[asyncssh.SFTPClient, bytes], Coroutine[Any, Any, T]],
        reads: bool,
        told: Told | None,
    ) -> T:
        sftp, loop = self._line.ready()
        if method != "CLOSE":
            self.requests += 1
        with telling(method, self.url(path)) if told is None else nullcontext(told) as part:
            try:
                found = self._line.run(loop, work(sftp, way))
            except RAISES as raised:
                part.status = said(raised)
                error = translate(raised, method=method, url=self.url(path), reads=reads)
                if isinstance(error, BrokenAnswerError | TimedOutError):
                    # Where only this request hangs, what other threads have in hand may still come to its end.
                    self._line.drop(sftp, grace=self._timeout if isinstance(error, TimedOutError) else 0)
                raise error from None
            part.status = "ok"
            return found


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
