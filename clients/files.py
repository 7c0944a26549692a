"""Files of a remote system: their names, their versions, and how they are read, resumed and replaced without halves.

Knows no protocol: `ftp` and `sftp` bring a `Shelf`.
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
from clients.names import check_path, name_fault

MAX_BYTES = 64 * 1024 * 1024
BLOCK = 64 * 1024
OVERLAP = 1024
"""Bytes at the end of a part that are fetched once more when it is resumed: they must be the same."""
SLOWEST = 1024
"""Fewer bytes than this within the time limit of a wait are a stall, even if they come one by one."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its server describes it.

    Args:
        path: as the listing was asked for, with the name: `out` gives `out/a.csv`, `/out` gives `/out/a.csv`.
        size: bytes; None when the server does not tell.
        modified_at: UTC, as far as the server says so; None when it does not tell.
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
        """What changes when the file changes: size and time. None when the server tells neither."""
        if self.size is None and self.modified_at is None:
            return None
        size = "" if self.size is None else str(self.size)
        when = "" if self.modified_at is None else self.modified_at.astimezone(UTC).isoformat()
        return f"{size}@{when}"


@dataclass(frozen=True, slots=True)
class Scan:
    """What a folder holds.

    Args:
        files: sorted by path.
        errors: a line for each entry that could not become a file.
    """

    files: Sequence[RemoteFile]
    errors: Sequence[str] = ()


class Shelf(Protocol):
    """What reading and writing need of a connection. Every method raises `ClientError`."""

    def look(self, path: str) -> RemoteFile:
        """Return what the server says of a file now."""
        ...

    def chunks(self, path: str, offset: int) -> Generator[bytes, None, None]:
        """Yield the content from `offset` on; raise `ResumeRefused` where the server cannot begin there."""
        ...

    def put(self, path: str, chunks: Iterable[bytes]) -> None:
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
    """Strictly private: the server sends files from their start only."""


def paced(chunks: Iterable[bytes], *, timeout: float, url: str) -> Iterator[bytes]:
    """Yield `chunks` as long as they come at a pace: a byte now and then would keep a worker busy for ever.

    Raises:
        TimedOutError: fewer than `SLOWEST` bytes came within `timeout` seconds.
    """
    began, size = time.monotonic(), 0
    for chunk in chunks:
        size += len(chunk)
        yield chunk
        now = time.monotonic()
        if size >= SLOWEST:
            began, size = now, 0
        elif now - began > timeout:
            raise TimedOutError(f"fewer than {SLOWEST} bytes in {timeout:g} s", url=url)


def read(shelf: Shelf, path: str, *, max_bytes: int, timeout: float) -> bytes:
    """Return the content of a file, whole.

    Raises:
        TooLargeError: it has more than `max_bytes`.
        BrokenAnswerError: it is not what the server announced, or changed meanwhile.
        ClientError: it cannot be had.
    """
    url = shelf.url(check_path(path))
    before = shelf.look(path)
    if before.size is not None and before.size > max_bytes:
        raise _too_large(max_bytes, url)
    parts: list[bytes] = []
    size = 0
    with contextlib.closing(shelf.chunks(path, 0)) as chunks:
        for chunk in paced(chunks, timeout=timeout, url=url):
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes, url)
            parts.append(chunk)
    _check_whole(size, before, shelf.look(path), url)
    return b"".join(parts)


def download(shelf: Shelf, path: str, to: str | os.PathLike[str], *, max_bytes: int | None, timeout: float) -> Path:
    """Store a file at `to` and return where that is; see `FtpClient.download`."""
    url = shelf.url(check_path(path))
    target = _target(path, to)
    before = shelf.look(path)
    if max_bytes is not None and before.size is not None and before.size > max_bytes:
        raise _too_large(max_bytes, url)
    most = before.size if before.size is not None else max_bytes
    exact = before.size is not None and before.modified_at is not None
    # The version is in the name, so that only a part of this very file is ever resumed.
    mark = hashlib.sha256(f"{url} {before.version}".encode()).hexdigest()[:12] if exact else os.urandom(6).hex()
    part = target.with_name(f".{target.name[:200]}.{mark}.part")
    kept = exact
    try:
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666), "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            start = max(0, end - OVERLAP) if end <= (before.size or 0) else 0
            if start == 0 or not _resume(shelf, path, file, start, most, timeout, url):
                file.seek(0)
                file.truncate()
                with contextlib.closing(shelf.chunks(path, 0)) as chunks:
                    _store(chunks, file, most, timeout, url)
            file.flush()
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
        kept = False
        _check_whole(size, before, shelf.look(path), url)
        part.replace(target)
    except _Unlike:
        kept = False
        if before.size is None and most is not None:
            raise _too_large(most, url) from None
        raise BrokenAnswerError(f"more than the announced {most} bytes came", url=url) from None
    finally:
        if not kept:
            part.unlink(missing_ok=True)
    return target


def write(shelf: Shelf, path: str, data: bytes) -> None:
    """Write a file so that nobody ever sees half of it; see `FtpClient.write`."""
    url = shelf.url(check_path(path))
    folder, slash, name = path.rpartition("/")
    if not name or name == ".":
        raise RejectedError("the path of a file to write must end in its name", url=url)
    temporary = f"{folder}{slash}.{name[:200]}.{os.urandom(6).hex()}.part"
    try:
        shelf.put(temporary, (data[at : at + BLOCK] for at in range(0, len(data), BLOCK)))
        size = shelf.look(temporary).size
        if size is not None and size != len(data):
            raise BrokenAnswerError(f"{len(data)} bytes were sent, {size} arrived", url=url)
        _place(shelf, temporary, path)
    except ClientError:
        with contextlib.suppress(ClientError):
            shelf.remove(temporary)
        raise


def _place(shelf: Shelf, temporary: str, path: str) -> None:
    """Rename `temporary` to `path`; where the server does not replace a file, the old one steps aside first."""
    try:
        shelf.rename(temporary, path)
    except RejectedError as refused:
        folder, slash, name = path.rpartition("/")
        aside = f"{folder}{slash}.{name[:200]}.{os.urandom(6).hex()}.old"
        try:
            shelf.rename(path, aside)
        except ClientError:
            # Not because something stands there.
            raise refused from None
        try:
            shelf.rename(temporary, path)
        except ClientError:
            shelf.rename(aside, path)
            raise
        with contextlib.suppress(ClientError):
            shelf.remove(aside)


class _Unlike(Exception):
    """Strictly private: what comes is not what belongs there."""


def _resume(shelf: Shelf, path: str, file: IO[bytes], start: int, most: int | None, timeout: float, url: str) -> bool:
    """Go on behind what a part holds already; tell whether that could be done."""
    file.seek(start)
    known = file.read()
    with contextlib.closing(shelf.chunks(path, start)) as chunks:
        try:
            head = b""
            while len(head) < len(known):
                head += next(chunks)
            if not head.startswith(known):
                return False
            file.seek(start)
            _store(_after(head, chunks), file, most, timeout, url)
        except (ResumeRefused, StopIteration, _Unlike):
            return False
    return True


def _after(head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from chunks


def _store(chunks: Iterable[bytes], file: IO[bytes], most: int | None, timeout: float, url: str) -> None:
    for chunk in paced(chunks, timeout=timeout, url=url):
        file.write(chunk)
        if most is not None and file.tell() > most:
            raise _Unlike


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
    """Refuse what is not the whole file, or of two versions of it."""
    if before.version != after.version:
        raise BrokenAnswerError("the file changed while it was read", url=url)
    if after.size is not None and size != after.size:
        raise BrokenAnswerError(f"{size} bytes came, {after.size} were announced", url=url)


def _too_large(most: int, url: str) -> TooLargeError:
    return TooLargeError(f"the file is larger than the {most} bytes that are accepted (max_bytes)", url=url)
