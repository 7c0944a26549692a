"""What `FtpClient` and `SftpClient` have in common: list, read, write, download."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from clients.errors import RejectedError, UnreadableError
from clients.files import transfer
from clients.files.ftp_list import Entry
from clients.files.paths import check_path, joined, name_fault
from clients.files.transfer import RemoteFile, Scan

if TYPE_CHECKING:
    from types import TracebackType


class FolderSystem(transfer.FileSystem, Protocol):
    """What a `FileClient` needs from a protocol."""

    requests: int

    def entries(self, folder: str) -> tuple[list[Entry], list[str]]:
        """Return the entries of a folder, and a line for each one that cannot be read."""
        ...

    def remote_file(self, path: str, entry: Entry) -> RemoteFile | None:
        """Return an entry as a file, or None where a link leads to none."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class FileClient:
    """A connection to a server of files; `FtpClient` and `SftpClient` are the ones to use. Use it as a context manager.

    It connects when it is first needed, and again after the connection broke; a failed connection is tried twice more, a
    command that was sent is not. Paths are those of the server: relative ones begin in the folder that the sign-in leads to.
    """

    thread_safe = False

    def __init__(self, file_system: FolderSystem, *, timeout: float, max_bytes: int) -> None:
        if timeout <= 0 or max_bytes <= 0:
            raise ValueError("timeout and max_bytes must be positive")
        self._file_system = file_system
        self._timeout = timeout
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._file_system.url('')!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._file_system.close()

    @property
    def requests(self) -> int:
        """How many listings, transfers and other commands about files were sent."""
        return self._file_system.requests

    def list(self, path: str, pattern: str = "*") -> list[RemoteFile]:
        """Return the files of a folder whose names match `pattern` (`*.csv`), sorted by path.

        Raises:
            RejectedError: there is no such folder, or it may not be read.
            UnreadableError: an entry cannot be read, or the server leaves out entries.
            ClientError: as the tree in `errors` says.
        """
        found = self.scan(path, pattern)
        if found.errors:
            more = f" (and {len(found.errors) - 1} more)" if len(found.errors) > 1 else ""
            raise UnreadableError(f"{found.errors[0]}{more}", method="LIST", url=self._file_system.url(path))
        return [*found.files]

    def read(self, path: str) -> bytes:
        """Return the content of a file, whole.

        Raises:
            GoneError: it is not there, and its folder does not list it.
            TooLargeError: it has more than `max_bytes`.
            BrokenAnswerError: another size came than announced, or the file changed meanwhile.
            ClientError: as the tree in `errors` says.
        """
        return transfer.read(self._file_system, path, max_bytes=self._max_bytes, timeout=self._timeout)

    def write(self, path: str, data: bytes) -> None:
        """Write a file under a temporary name, then rename it, so that no reader sees a part of it. An older one is replaced.

        Raises:
            ClientError: as the tree in `errors` says; the older file at `path` is still there.
        """
        transfer.write(self._file_system, path, data)

    def download(self, path: str, to: str | os.PathLike[str], *, max_bytes: int | None = None) -> Path:
        """Store a file locally, and return its path. It appears there when it is complete.

        An interrupted download is resumed, if the server's file still has the same size and time.

        Args:
            to: a file, or a folder in which it keeps its name (and nothing else of its path).
            max_bytes: refuse a larger one.

        Raises:
            OSError: the local file cannot be written.
            ClientError: as for `read`.
        """
        return transfer.download(self._file_system, path, to, max_bytes=max_bytes, timeout=self._timeout)

    def scan(self, path: str, pattern: str = "*", *, depth: int = 0) -> Scan:
        """Return the files of a folder, and a line for each entry that could not become one.

        Args:
            depth: how many levels of folders below it are searched; links to folders are not followed.

        Raises:
            UnreadableError: no entry can be read, or the server leaves out entries.
            ClientError: as for `list`.
        """
        found: list[RemoteFile] = []
        errors: list[str] = []
        folders = [(path or ".", 0)]
        while folders:
            folder, level = folders.pop()
            entries, unread = self._file_system.entries(check_path(folder))
            if unread and not entries:
                raise UnreadableError(unread[0], method="LIST", url=self._file_system.url(folder))
            errors += unread
            for entry in entries:
                fault = name_fault(entry.name)
                if fault is not None:
                    errors.append(fault)
                    continue
                whole = joined(folder, entry.name)
                if entry.kind == "folder" and level < depth:
                    folders.append((whole, level + 1))
                elif entry.kind in ("file", "link") and fnmatchcase(entry.name, pattern):
                    one = self._file_system.remote_file(whole, entry)
                    found += [one] if one is not None else []
        return Scan(sorted(found, key=lambda one: one.path), errors)


def still_listed(file_system: FolderSystem, path: str) -> bool:
    """Say whether the folder of an unreadable file still lists it: then it is not gone, but may not be read."""
    folder, slash, name = path.rpartition("/")
    try:
        entries, _ = file_system.entries(folder or slash or ".")
    except RejectedError:
        return False
    return any(entry.name == name for entry in entries)
