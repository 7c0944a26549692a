"""`FtpListing`: a listing of the files of a remote folder, over FTP or SFTP."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from clients.files.transfer import RemoteFile, Scan
from clients.page import Entity, Page

YOUNG = timedelta(hours=15)
"""Older files are not being written any more. The zone of times in LIST is unknown, so they may be wrong by half a day."""


class Scanner(Protocol):
    """What such a listing needs from a connection; `FtpClient` and `SftpClient` have it."""

    def scan(self, path: str, pattern: str = "*", *, depth: int = 0) -> Scan:
        """Return the files of a folder."""
        ...


@dataclass(frozen=True)
class FtpListing:
    """Lists the files of a folder: the key is a file's path, its version is size and modification time.

    A file that is still being written is left for a later run: where files are young, the folder is listed once more after
    `settle` seconds, and files that changed in between are neither listed nor taken for gone.

    Args:
        path: the folder.
        pattern: of the names of the files, as in a shell: `*.csv`, `report-??.xml`. Case counts.
        depth: how many levels of folders below it are searched.
        settle: seconds between the two listings; 0 takes every file as it is.
        page: files of a page.

    Raises:
        ValueError: a number is out of range.
    """

    path: str
    _: KW_ONLY
    pattern: str = "*"
    depth: int = 0
    settle: float = 1.0
    page: int = 1000

    def __post_init__(self) -> None:
        if self.depth < 0 or self.settle < 0 or self.page < 1:
            raise ValueError("FtpListing: depth and settle must not be negative, page must be at least 1")

    def __call__(self, conn: Scanner, since: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Yield the pages from the start."""
        return self.pages(conn)

    def pages(self, conn: Scanner, *, cursor: Any = None, since: Mapping[str, str] | None = None) -> Iterator[Page]:
        """Yield the pages after `cursor`, or from the start.

        Raises:
            ValueError: the cursor is not one of such a listing.
            ClientError: the folder cannot be listed.
        """
        after = _after(cursor)
        settled, growing, errors = self._scan(conn)
        rest = [one for one in settled if one.path > after]
        for start in range(0, max(1, len(rest)), self.page):
            files = rest[start : start + self.page]
            if start + self.page < len(rest):
                yield Page([_entity(one) for one in files], {"after": files[-1].path})
            else:
                # What must prevent deletions is on the last page, because they are decided after it.
                yield Page([_entity(one) for one in files], None, errors=errors, later=growing)

    def _scan(self, conn: Scanner) -> tuple[Sequence[RemoteFile], Sequence[str], Sequence[str]]:
        """Return the files that do not change, the paths of those that do, and a line for each unreadable entry."""
        first = conn.scan(self.path, self.pattern, depth=self.depth)
        since = datetime.now(UTC) - YOUNG
        if self.settle == 0 or not any(one.modified_at is None or one.modified_at > since for one in first.files):
            return first.files, (), first.errors
        time.sleep(self.settle)
        second = conn.scan(self.path, self.pattern, depth=self.depth)
        before = {one.path: one.version for one in first.files}
        # A file that is new in the second listing may still be changing.
        still = [one for one in second.files if before.get(one.path, "") == one.version]
        moving = [one.path for one in second.files if before.get(one.path, "") != one.version]
        return still, moving, second.errors


def _entity(one: RemoteFile) -> Entity:
    when = None if one.modified_at is None else one.modified_at.astimezone(UTC).isoformat()
    return Entity(one.path, one.version, {"path": one.path, "name": one.name, "size": one.size, "modified_at": when})


def _after(cursor: Any) -> str:
    if cursor is None:
        return ""
    if isinstance(cursor, dict) and isinstance(cursor.get("after"), str):
        return str(cursor["after"])
    raise ValueError("the stored cursor of the listing is not one that this version wrote")
