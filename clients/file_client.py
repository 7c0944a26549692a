"""What the adapters for files have in common: list, read, write, download. Knows no protocol; a `Shelf` speaks it."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from clients import files
from clients.directory import Entry
from clients.errors import RejectedError, UnreadableError
from clients.files import RemoteFile, Scan
from clients.names import check_path, joined, name_fault

if TYPE_CHECKING:
    from types import TracebackType


class Folders(files.Shelf, Protocol):
    """What a `FileClient` needs of a protocol."""

    requests: int

    def entries(self, folder: str) -> tuple[list[Entry], list[str]]:
        """Return what a folder holds, and a line for each entry that cannot be read."""
        ...

    def described(self, path: str, entry: Entry) -> RemoteFile | None:
        """Return an entry as a file, or None where a link leads to none."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class FileClient:
    """A connection to a server of files; `FtpClient` and `SftpClient` are the ones to use. Use it as a context manager.

    It connects when it is first needed, and again after the connection broke; a failed connection is tried twice more, a
    command that was sent is not. Paths are those of the server: relative ones begin where the sign-in leads to.
    """

    thread_safe = False

    def __init__(self, shelf: Folders, *, timeout: float, max_bytes: int) -> None:
        if timeout <= 0 or max_bytes <= 0:
            raise ValueError("timeout and max_bytes must be positive")
        self._shelf = shelf
        self._timeout = timeout
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shelf.url('')!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Closing twice does nothing more."""
        self._shelf.close()

    @property
    def requests(self) -> int:
        """How many listings, transfers and other commands about files were sent."""
        return self._shelf.requests

    def list(self, path: str, pattern: str = "*") -> list[RemoteFile]:
        """Return the files of a folder whose names match `pattern` (`*.csv`), sorted by path.

        Raises:
            RejectedError: there is no such folder, or not for us.
            UnreadableError: an entry cannot be read, or the server does not list what it has.
            ClientError: as the tree in `errors` says.
        """
        found = self.scan(path, pattern)
        if found.errors:
            more = f" (and {len(found.errors) - 1} more)" if len(found.errors) > 1 else ""
            raise UnreadableError(f"{found.errors[0]}{more}", method="LIST", url=self._shelf.url(path))
        return [*found.files]

    def read(self, path: str) -> bytes:
        """Return the content of a file, whole.

        Raises:
            GoneError: it is not there, and its folder does not list it.
            TooLargeError: it has more than `max_bytes`.
            BrokenAnswerError: other than the announced size came, or it changed meanwhile.
            ClientError: as the tree in `errors` says.
        """
        return files.read(self._shelf, path, max_bytes=self._max_bytes, timeout=self._timeout)

    def write(self, path: str, data: bytes) -> None:
        """Write a file under a temporary name, then rename it: nobody ever sees half of it. An older one is replaced.

        Raises:
            ClientError: as the tree in `errors` says; what stood at `path` still stands there.
        """
        files.write(self._shelf, path, data)

    def download(self, path: str, to: str | os.PathLike[str], *, max_bytes: int | None = None) -> Path:
        """Store a file locally, and return where. It appears there when it is complete.

        What an interrupted download left is resumed, if the server's file is still the same by size and time.

        Args:
            to: a file, or a folder in which it keeps its name (and nothing else of its path).
            max_bytes: refuse a larger one.

        Raises:
            OSError: the local file cannot be written.
            ClientError: as for `read`.
        """
        return files.download(self._shelf, path, to, max_bytes=max_bytes, timeout=self._timeout)

    def scan(self, path: str, pattern: str = "*", *, depth: int = 0) -> Scan:
        """Return the files of a folder, and a line for each entry that could not become one.

        Args:
            depth: how many levels of folders below it are looked into; links to folders are not followed.

        Raises:
            UnreadableError: nothing that the server lists can be read, or it does not list what it has.
            ClientError: as for `list`.
        """
        found: list[RemoteFile] = []
        errors: list[str] = []
        folders = [(path or ".", 0)]
        while folders:
            folder, level = folders.pop()
            entries, unread = self._shelf.entries(check_path(folder))
            if unread and not entries:
                raise UnreadableError(unread[0], method="LIST", url=self._shelf.url(folder))
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
                    one = self._shelf.described(whole, entry)
                    found += [one] if one is not None else []
        return Scan(sorted(found, key=lambda one: one.path), errors)


def still_listed(shelf: Folders, path: str) -> bool:
    """Tell whether a file that cannot be read is listed by its folder: then it is not gone, but not for us."""
    folder, slash, name = path.rpartition("/")
    try:
        entries, _ = shelf.entries(folder or slash or ".")
    except RejectedError:
        return False
    return any(entry.name == name for entry in entries)
