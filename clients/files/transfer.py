"""Reads, downloads and writes remote files completely or not at all: resumes downloads, and replaces files by renaming.

`ftp_filesystem` and `sftp_filesystem` are the two implementations of `FileSystem`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Protocol

from clients.errors import BrokenAnswerError, ClientError, RejectedError, TimedOutError, TooLargeError
from clients.files.paths import check_path, name_fault

MAX_BYTES = 64 * 1024 * 1024
BLOCK = 64 * 1024
OVERLAP = 1024
"""Bytes at the end of a partial download that are fetched once more when it is resumed: they must be the same."""
MIN_BYTES = 1024
"""Fewer bytes within the time limit of a wait count as no answer, even if they come one by one."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its server describes it.

    Args:
        path: as the listing was asked for, with the name: `out` gives `out/a.csv`, `/out` gives `/out/a.csv`.
        size: bytes; None when the server does not say.
        modified_at: UTC, if the server's times are; None when it does not say.
    """

    path: str
    size: int | None = None
    modified_at: datetime | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def version(self) -> str | None:
        """Size and time, which change when the file changes. None when the server says neither."""
        if self.size is None and self.modified_at is None:
            return None
        size = "" if self.size is None else str(self.size)
        when = "" if self.modified_at is None else self.modified_at.astimezone(UTC).isoformat()
        return f"{size}@{when}"


@dataclass(frozen=True, slots=True)
class Scan:
    """The files of a folder.

    Args:
        files: sorted by path.
        errors: a line for each entry that could not become a file.
    """

    files: Sequence[RemoteFile]
    errors: Sequence[str] = ()


class FileSystem(Protocol):
    """What reading and writing need from a protocol. Every method raises `ClientError`."""

    def stat(self, path: str) -> RemoteFile:
        """Return size and time of a file."""
        ...

    def read(self, path: str, offset: int) -> Generator[bytes, None, None]:
        """Yield the content from `offset` on; raise `ResumeRefused` where the server cannot begin there."""
        ...

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file."""
        ...

    def rename(self, path: str, to: str) -> None:
        """Rename a file; a refusal is a `RejectedError`."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file."""
        ...

    def url(self, path: str) -> str:
        """Return the URL of a file for messages."""
        ...


class ResumeRefused(Exception):
    """The server sends files only from their start. `download` handles it."""


def check_speed(chunks: Iterable[bytes], *, timeout: float, url: str) -> Iterator[bytes]:
    """Yield `chunks` while they come fast enough: a single byte now and then would keep a worker busy for ever.

    Raises:
        TimedOutError: fewer than `MIN_BYTES` bytes came within `timeout` seconds.
    """
    began, size = time.monotonic(), 0
    for chunk in chunks:
        size += len(chunk)
        yield chunk
        now = time.monotonic()
        if size >= MIN_BYTES:
            began, size = now, 0
        elif now - began > timeout:
            raise TimedOutError(f"fewer than {MIN_BYTES} bytes in {timeout:g} s", url=url)


def read(file_system: FileSystem, path: str, *, max_bytes: int, timeout: float) -> bytes:
    """Return the content of a file, whole.

    Raises:
        TooLargeError: it has more than `max_bytes`.
        BrokenAnswerError: another size came than the server announced, or the file changed meanwhile.
        ClientError: it cannot be read.
    """
    url = file_system.url(check_path(path))
    before = file_system.stat(path)
    if before.size is not None and before.size > max_bytes:
        raise _too_large(max_bytes, url)
    parts: list[bytes] = []
    size = 0
    with contextlib.closing(file_system.read(path, 0)) as chunks:
        for chunk in check_speed(chunks, timeout=timeout, url=url):
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes, url)
            parts.append(chunk)
    _check_whole(size, before, file_system.stat(path), url)
    return b"".join(parts)


def download(file_system: FileSystem, path: str, to: str | os.PathLike[str], *, max_bytes: int | None, timeout: float) -> Path:
    """Store a file at `to` and return where that is; see `FtpClient.download`."""
    url = file_system.url(check_path(path))
    target = _target(path, to)
    before = file_system.stat(path)
    if max_bytes is not None and before.size is not None and before.size > max_bytes:
        raise _too_large(max_bytes, url)
    limit = before.size if before.size is not None else max_bytes
    exact = before.size is not None and before.modified_at is not None
    # The version is in the name, so that only a part of the same file is resumed.
    mark = hashlib.sha256(f"{url} {before.version}".encode()).hexdigest()[:12] if exact else os.urandom(6).hex()
    part = target.with_name(f".{target.name[:200]}.{mark}.part")
    kept = exact
    try:
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666), "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            start = max(0, end - OVERLAP) if end <= (before.size or 0) else 0
            if start == 0 or not _resume(file_system, path, file, start=start, limit=limit, timeout=timeout, url=url):
                file.seek(0)
                file.truncate()
                with contextlib.closing(file_system.read(path, 0)) as chunks:
                    _store(chunks, file, limit, timeout, url)
            file.flush()
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
        kept = False
        _check_whole(size, before, file_system.stat(path), url)
        part.replace(target)
    except _TooManyBytes:
        kept = False
        if before.size is None and limit is not None:
            raise _too_large(limit, url) from None
        raise BrokenAnswerError(f"more than the announced {limit} bytes came", url=url) from None
    finally:
        if not kept:
            part.unlink(missing_ok=True)
    return target


def write(file_system: FileSystem, path: str, data: bytes) -> None:
    """Write a file under a temporary name and rename it; see `FtpClient.write`."""
    url = file_system.url(check_path(path))
    folder, slash, name = path.rpartition("/")
    if not name or name == ".":
        raise RejectedError("the path of a file to write must end in its name", url=url)
    temporary = f"{folder}{slash}.{name[:200]}.{os.urandom(6).hex()}.part"
    try:
        file_system.write(temporary, (data[at : at + BLOCK] for at in range(0, len(data), BLOCK)))
        size = file_system.stat(temporary).size
        if size is not None and size != len(data):
            raise BrokenAnswerError(f"{len(data)} bytes were sent, {size} arrived", url=url)
        _place(file_system, temporary, path)
    except ClientError:
        with contextlib.suppress(ClientError):
            file_system.remove(temporary)
        raise


def _place(file_system: FileSystem, temporary: str, path: str) -> None:
    """Rename `temporary` to `path`; where the server does not replace a file, the old one is renamed first."""
    try:
        file_system.rename(temporary, path)
    except RejectedError as refused:
        folder, slash, name = path.rpartition("/")
        aside = f"{folder}{slash}.{name[:200]}.{os.urandom(6).hex()}.old"
        try:
            file_system.rename(path, aside)
        except ClientError:
            # There is no file at `path`, so that was not the reason.
            raise refused from None
        try:
            file_system.rename(temporary, path)
        except ClientError:
            file_system.rename(aside, path)
            raise
        with contextlib.suppress(ClientError):
            file_system.remove(aside)


class _TooManyBytes(Exception):
    """More bytes came than the file has."""


def _resume(
    file_system: FileSystem, path: str, file: IO[bytes], *, start: int, limit: int | None, timeout: float, url: str
) -> bool:
    """Continue a partial download; say whether that was possible."""
    file.seek(start)
    known = file.read()
    with contextlib.closing(file_system.read(path, start)) as chunks:
        try:
            head = b""
            while len(head) < len(known):
                head += next(chunks)
            if not head.startswith(known):
                return False
            file.seek(start)
            _store(_after(head, chunks), file, limit, timeout, url)
        except (ResumeRefused, StopIteration, _TooManyBytes):
            return False
    return True


def _after(head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from chunks


def _store(chunks: Iterable[bytes], file: IO[bytes], limit: int | None, timeout: float, url: str) -> None:
    for chunk in check_speed(chunks, timeout=timeout, url=url):
        file.write(chunk)
        if limit is not None and file.tell() > limit:
            raise _TooManyBytes


def _target(path: str, to: str | os.PathLike[str]) -> Path:
    """Return the local path; in a folder the file keeps its own name, and nothing of the remote path."""
    target = Path(to)
    if not target.is_dir():
        return target
    name = path.rpartition("/")[2]
    fault = name_fault(name)
    if fault is not None:
        raise RejectedError(fault)
    return target / name


def _check_whole(size: int, before: RemoteFile, after: RemoteFile, url: str) -> None:
    """Raise where bytes are missing, or the file changed while it was read."""
    if before.version != after.version:
        raise BrokenAnswerError("the file changed while it was read", url=url)
    if after.size is not None and size != after.size:
        raise BrokenAnswerError(f"{size} bytes came, {after.size} were announced", url=url)


def _too_large(limit: int, url: str) -> TooLargeError:
    return TooLargeError(f"the file is larger than the {limit} bytes that are accepted (max_bytes)", url=url)
