"""Files over FTP: which commands list, look, read and write, and what to do where a server does not know one.

Knows replies through `ftp_control` and lines through `directory`.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from datetime import UTC, datetime
from ftplib import Error
from typing import TypeVar

from clients import exchange
from clients.auth import Secret, reveal
from clients.directory import Entry, read_facts, read_line, read_stamp
from clients.errors import AuthRefusedError, ClientError, GoneError, RejectedError, UnreadableError
from clients.file_client import still_listed
from clients.files import RemoteFile
from clients.ftp_control import RAISES, Control, code_of, translate, trust
from clients.names import check_path, encodings, url_of
from clients.replies import UNKNOWN_COMMAND

T = TypeVar("T")

IDLE = 10.0
"""Seconds after which a connection is asked whether it is still there before it is used."""

_NOTHING = frozenset({450, 550})
"""How NLST says on many servers that a folder is empty."""


class FtpShelf:
    """The files of one server, over one control connection that is opened when it is needed; see `FtpClient`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        user: str,
        password: str | Secret,
        tls: bool,
        timeout: float,
        verify: bool | str | ssl.SSLContext,
    ) -> None:
        self._host, self._port, self._user, self._password, self._tls = host, port, user, password, tls
        self._timeout = timeout
        self._verify = verify
        self._context: ssl.SSLContext | None = None
        self._control: Control | None = None
        #: Commands that the server turned out not to know.
        self._lacks: set[str] = set()
        self._used = 0.0
        self.requests = 0

    def url(self, path: str) -> str:
        """Return the URL of a path, without user, for messages."""
        return url_of("ftps" if self._tls else "ftp", self._host, self._port, path)

    def close(self) -> None:
        """Say goodbye and close the connection."""
        control, self._control = self._control, None
        if control is not None:
            with contextlib.suppress(*RAISES):
                control.quit()
            control.close()

    def look(self, path: str) -> RemoteFile:
        """Return what the server says of a file now.

        Raises:
            GoneError: it is not there, and its folder does not list it.
        """
        try:
            return self._look(path)
        except GoneError as gone:
            raise self._judged(gone, path) from None

    def chunks(self, path: str, offset: int) -> Generator[bytes, None, None]:
        """Yield the content of a file from `offset` on."""
        ways = _ways(path)
        for way in ways:
            control = self._ready(path)
            try:
                with self._talking("RETR", path, reads=True):
                    yield from control.receive(f"RETR {way}", offset=offset)
            except GoneError as gone:
                if way == ways[-1]:
                    raise self._judged(gone, path) from None
            except GeneratorExit:
                # The rest of the file is on its way: this connection is of no use any more.
                self._drop()
                raise
            else:
                return

    def put(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file."""
        self._command("STOR", path, lambda control, way: control.send_all(f"STOR {way}", chunks), ways=1)

    def rename(self, path: str, to: str) -> None:
        """Rename a file."""
        (target,) = _ways(check_path(to))[:1]
        self._command("RNTO", path, lambda control, way: control.rename(way, target), ways=1)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._command("DELE", path, lambda control, way: control.delete(way), ways=1)

    def described(self, path: str, entry: Entry) -> RemoteFile | None:
        """Return an entry with what a coarse listing leaves out; None for a link that leads to no file."""
        if entry.exact and entry.size is not None and entry.kind == "file":
            return RemoteFile(path, entry.size, entry.modified_at)
        try:
            seen = self._look(path)
        except GoneError:
            return None if entry.kind == "link" else RemoteFile(path, entry.size, entry.modified_at)
        size = entry.size if seen.size is None else seen.size
        return RemoteFile(path, size, entry.modified_at if seen.modified_at is None else seen.modified_at)

    def entries(self, folder: str) -> tuple[list[Entry], list[str]]:
        """Return what a folder holds, and a line for each entry that cannot be read.

        Raises:
            RejectedError: there is no such folder.
            UnreadableError: the server lists nothing, and yet there are names in it.
        """
        lines = self._facts(folder)
        facts = lines is not None
        if lines is None:
            with self._inside(folder):
                lines = self._command("LIST", folder, lambda control, _: control.lines("LIST"))
        entries: list[Entry] = []
        unread: list[str] = []
        now = datetime.now(UTC)
        for line in lines:
            try:
                entry = read_facts(line) if facts else read_line(line, now=now)
            except ValueError as error:
                unread.append(f"a line of the listing of {folder[:100]!r} cannot be read ({error}): {line[:200]!r}")
            else:
                entries += [entry] if entry is not None else []
        if not entries and not unread:
            self._check_empty(folder)
        return entries, unread

    def _facts(self, folder: str) -> list[str] | None:
        """Return the lines of MLSD, or None where the server does not know it."""
        if "MLSD" in self._lacks:
            return None

        def work(control: Control, way: str) -> list[str] | None:
            return _unless(UNKNOWN_COMMAND, lambda: control.lines("MLSD" if folder == "." else f"MLSD {way}"))

        lines = self._command("MLSD", folder, work)
        if lines is None:
            self._lacks.add("MLSD")
        return lines

    def _check_empty(self, folder: str) -> None:
        """Ask in another way whether a folder is empty: servers send nothing for what they cannot list (aioftp#104)."""
        with self._inside(folder):
            names = self._command("NLST", folder, lambda control, _: _unless(_NOTHING, lambda: control.lines("NLST")))
        if any(name.rpartition("/")[2] not in (".", "..") for name in names or ()):
            raise UnreadableError("the server lists nothing, but there are names in it", method="LIST", url=self.url(folder))

    @contextlib.contextmanager
    def _inside(self, folder: str) -> Iterator[None]:
        """Go to a folder and come back: names with spaces or a dash in front are no arguments of LIST everywhere."""
        if folder == ".":
            yield
            return
        self._command("CWD", folder, lambda control, way: control.voidcmd(f"CWD {way}"))
        try:
            yield
        finally:
            if self._control is not None:
                home = self._control.home
                self._command("CWD", home, lambda control, way: control.voidcmd(f"CWD {way}"))

    def _look(self, path: str) -> RemoteFile:
        if "MLST" in self._ready(path).features:
            reply = self._command("MLST", path, lambda control, way: control.sendcmd(f"MLST {way}"), reads=True)
            for line in reply.splitlines()[1:-1]:
                with contextlib.suppress(ValueError):
                    entry = read_facts(line)
                    if entry is not None and entry.kind != "folder":
                        return RemoteFile(path, entry.size, entry.modified_at)
        size, stamp = self._said("SIZE", path), self._said("MDTM", path)
        modified_at = None
        with contextlib.suppress(ValueError):
            modified_at = read_stamp(stamp) if stamp else None
        return RemoteFile(path, int(size) if size and size.isdecimal() else None, modified_at)

    def _said(self, command: str, path: str) -> str | None:
        """Return what a command says of a file, or None where the server does not know the command."""
        if command in self._lacks:
            return None
        reply = self._command(
            command, path, lambda control, way: _unless(UNKNOWN_COMMAND, lambda: control.sendcmd(f"{command} {way}")), reads=True
        )
        if reply is None:
            self._lacks.add(command)
            return None
        return reply[4:].strip()

    def _judged(self, gone: GoneError, path: str) -> ClientError:
        """550 may be a file that is gone, or one that we may not read; what its folder still lists is not gone (law 8)."""
        if not still_listed(self, path):
            return gone
        return RejectedError("550, though its folder lists it: not for us?", method="RETR", url=self.url(path))

    def _command(self, method: str, path: str, work: Callable[[Control, str], T], *, reads: bool = False, ways: int = 2) -> T:
        """Do something with a path; a name that is not found in UTF-8 is tried in latin-1."""
        control = self._ready(path)
        tried = _ways(path)[:ways]
        for way in tried[:-1]:
            with contextlib.suppress(GoneError, RejectedError), self._talking(method, path, reads=reads):
                return work(control, way)
        with self._talking(method, path, reads=reads):
            return work(control, tried[-1])

    @contextlib.contextmanager
    def _talking(self, method: str, path: str, *, reads: bool = False) -> Iterator[None]:
        """Translate what goes wrong, give the connection up where it is out of step, and tell of the exchange."""
        self.requests += 1
        url, control = self.url(path), self._control
        assert control is not None
        control.moved = 0
        with exchange.telling(method, url) as told:
            try:
                yield
                told.status = control.reply
            except (ClientError, *RAISES) as raised:
                told.status = control.reply if isinstance(raised, AuthRefusedError) else code_of(raised) or None
                error, usable = translate(raised, method=method, url=url, reads=reads)
                if not usable:
                    self._drop()
                raise error from None
            finally:
                self._used = time.monotonic()
                told.size = control.moved

    def _ready(self, path: str) -> Control:
        """Return the connection, or a new one where there is none any more."""
        check_path(path)
        if self._control is not None and time.monotonic() - self._used > IDLE:
            try:
                self._control.voidcmd("NOOP")
            except RAISES:
                self._drop()
        if self._control is None:
            if self._context is None:
                self._context = trust(self._verify) if self._tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._control = control = Control(context=self._context, timeout=self._timeout)
            with self._talking("CONNECT", ""):
                control.open(self._host, self._port, user=self._user, password=reveal(self._password), tls=self._tls)
                recorder = exchange.current()
                if recorder is not None and recorder.is_curious and isinstance(control.sock, ssl.SSLSocket):
                    recorder.secured(control.sock)
                return control
        return self._control

    def _drop(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close()


def _ways(path: str) -> list[str]:
    return [way.decode("latin-1") for way in encodings(path)]


def _unless(codes: Collection[int], work: Callable[[], T]) -> T | None:
    """Return what a command gives, or None where it is answered with one of `codes`."""
    try:
        return work()
    except Error as error:
        if code_of(error) in codes:
            return None
        raise
