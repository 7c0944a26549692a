"""Lists, describes, reads and writes files over FTP, with fallbacks for commands that a server does not know."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from datetime import UTC, datetime
from ftplib import Error
from typing import TypeVar

from clients.auth import Secret, reveal
from clients.errors import AuthRefusedError, ClientError, GoneError, RejectedError, UnreadableError
from clients.exchange_recorder import current_recorder, record_exchange
from clients.files.client import still_listed
from clients.files.ftp_connection import RAISES, UNKNOWN_COMMAND, Control, code_of, tls_context, translate
from clients.files.ftp_list import Entry, read_facts, read_line, read_stamp
from clients.files.paths import check_path, encodings, url_of
from clients.files.transfer import RemoteFile

T = TypeVar("T")

IDLE = 10.0
"""Seconds without use after which a connection is tested before the next command."""

_EMPTY = frozenset({450, 550})
"""Codes by which many servers answer NLST for an empty folder."""


class FtpFileSystem:
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
        #: Commands that the server does not know, found out so far.
        self._unknown_commands: set[str] = set()
        self._used = 0.0
        self.requests = 0

    def url(self, path: str) -> str:
        """Return the URL of a path, without user, for messages."""
        return url_of("ftps" if self._tls else "ftp", self._host, self._port, path)

    def close(self) -> None:
        """Sign out and close the connection."""
        control, self._control = self._control, None
        if control is not None:
            with contextlib.suppress(*RAISES):
                control.quit()
            control.close()

    def stat(self, path: str) -> RemoteFile:
        """Return size and time of a file.

        Raises:
            GoneError: it is not there, and its folder does not list it.
        """
        try:
            return self._stat(path)
        except GoneError as gone:
            raise self._gone_or_refused(gone, path) from None

    def read(self, path: str, offset: int) -> Generator[bytes, None, None]:
        """Yield the content of a file from `offset` on."""
        paths = _encoded_paths(path)
        for encoded in paths:
            control = self._ready(path)
            try:
                with self._recorded("RETR", path, reads=True):
                    yield from control.receive(f"RETR {encoded}", offset=offset)
            except GoneError as gone:
                if encoded == paths[-1]:
                    raise self._gone_or_refused(gone, path) from None
            except GeneratorExit:
                # The rest of the file is still being sent: this connection cannot be used for anything else.
                self._drop()
                raise
            else:
                return

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file."""
        self._command("STOR", path, lambda control, encoded: control.send_all(f"STOR {encoded}", chunks), fallback=False)

    def rename(self, path: str, to: str) -> None:
        """Rename a file."""
        (target,) = _encoded_paths(check_path(to))[:1]
        self._command("RNTO", path, lambda control, encoded: control.rename(encoded, target), fallback=False)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._command("DELE", path, lambda control, encoded: control.delete(encoded), fallback=False)

    def remote_file(self, path: str, entry: Entry) -> RemoteFile | None:
        """Return an entry as a file, asking for what LIST leaves out; None for a link that leads to no file."""
        if entry.exact and entry.size is not None and entry.kind == "file":
            return RemoteFile(path, entry.size, entry.modified_at)
        try:
            found = self._stat(path)
        except GoneError:
            return None if entry.kind == "link" else RemoteFile(path, entry.size, entry.modified_at)
        size = entry.size if found.size is None else found.size
        return RemoteFile(path, size, entry.modified_at if found.modified_at is None else found.modified_at)

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
        if "MLSD" in self._unknown_commands:
            return None

        def work(control: Control, encoded: str) -> list[str] | None:
            return _unless(UNKNOWN_COMMAND, lambda: control.lines("MLSD" if folder == "." else f"MLSD {encoded}"))

        lines = self._command("MLSD", folder, work)
        if lines is None:
            self._unknown_commands.add("MLSD")
        return lines

    def _check_empty(self, folder: str) -> None:
        """Check by NLST whether a folder is empty: servers send nothing for what they cannot list (aioftp#104)."""
        with self._inside(folder):
            names = self._command("NLST", folder, lambda control, _: _unless(_EMPTY, lambda: control.lines("NLST")))
        if any(name.rpartition("/")[2] not in (".", "..") for name in names or ()):
            raise UnreadableError("the server lists nothing, but there are names in it", method="LIST", url=self.url(folder))

    @contextlib.contextmanager
    def _inside(self, folder: str) -> Iterator[None]:
        """Change to a folder and back: not all servers take names with spaces or a leading dash as an argument of LIST."""
        if folder == ".":
            yield
            return
        self._command("CWD", folder, lambda control, encoded: control.voidcmd(f"CWD {encoded}"))
        try:
            yield
        finally:
            if self._control is not None:
                start = self._control.start_folder
                self._command("CWD", start, lambda control, encoded: control.voidcmd(f"CWD {encoded}"))

    def _stat(self, path: str) -> RemoteFile:
        if "MLST" in self._ready(path).features:
            reply = self._command("MLST", path, lambda control, encoded: control.sendcmd(f"MLST {encoded}"), reads=True)
            for line in reply.splitlines()[1:-1]:
                with contextlib.suppress(ValueError):
                    entry = read_facts(line)
                    if entry is not None and entry.kind != "folder":
                        return RemoteFile(path, entry.size, entry.modified_at)
        size, stamp = self._query("SIZE", path), self._query("MDTM", path)
        modified_at = None
        with contextlib.suppress(ValueError):
            modified_at = read_stamp(stamp) if stamp else None
        return RemoteFile(path, int(size) if size and size.isdecimal() else None, modified_at)

    def _query(self, command: str, path: str) -> str | None:
        """Return the answer of a command about a file, or None where the server does not know the command."""
        if command in self._unknown_commands:
            return None
        reply = self._command(
            command,
            path,
            lambda control, encoded: _unless(UNKNOWN_COMMAND, lambda: control.sendcmd(f"{command} {encoded}")),
            reads=True,
        )
        if reply is None:
            self._unknown_commands.add(command)
            return None
        return reply[4:].strip()

    def _gone_or_refused(self, gone: GoneError, path: str) -> ClientError:
        """Return the error for 550: the file is gone, or, where its folder still lists it, may not be read."""
        if not still_listed(self, path):
            return gone
        return RejectedError("550, though its folder lists it: may this user read it?", method="RETR", url=self.url(path))

    def _command(
        self, method: str, path: str, work: Callable[[Control, str], T], *, reads: bool = False, fallback: bool = True
    ) -> T:
        """Run commands for a path. A name that is not found in UTF-8 is tried in latin-1, unless there is no `fallback`."""
        control = self._ready(path)
        paths = _encoded_paths(path) if fallback else _encoded_paths(path)[:1]
        for encoded in paths[:-1]:
            with contextlib.suppress(GoneError, RejectedError), self._recorded(method, path, reads=reads):
                return work(control, encoded)
        with self._recorded(method, path, reads=reads):
            return work(control, paths[-1])

    @contextlib.contextmanager
    def _recorded(self, method: str, path: str, *, reads: bool = False) -> Iterator[None]:
        """Record the exchange, translate errors, and close the connection where its state is unknown."""
        self.requests += 1
        url, control = self.url(path), self._control
        assert control is not None
        control.transferred = 0
        with record_exchange(method, url) as exchange:
            try:
                yield
                exchange.status = control.reply
            except (ClientError, *RAISES) as raised:
                exchange.status = control.reply if isinstance(raised, AuthRefusedError) else code_of(raised) or None
                error, usable = translate(raised, method=method, url=url, reads=reads)
                if not usable:
                    self._drop()
                raise error from None
            finally:
                self._used = time.monotonic()
                exchange.size = control.transferred

    def _ready(self, path: str) -> Control:
        """Return the connection, or a new one where there is none."""
        check_path(path)
        if self._control is not None and time.monotonic() - self._used > IDLE:
            try:
                self._control.voidcmd("NOOP")
            except RAISES:
                self._drop()
        if self._control is None:
            if self._context is None:
                self._context = tls_context(self._verify) if self._tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._control = control = Control(context=self._context, timeout=self._timeout)
            with self._recorded("CONNECT", ""):
                control.open(self._host, self._port, user=self._user, password=reveal(self._password), tls=self._tls)
                recorder = current_recorder()
                if recorder is not None and recorder.inspects and isinstance(control.sock, ssl.SSLSocket):
                    recorder.inspect_tls(control.sock)
                return control
        return self._control

    def _drop(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close()


def _encoded_paths(path: str) -> list[str]:
    return [encoded.decode("latin-1") for encoded in encodings(path)]


def _unless(codes: Collection[int], work: Callable[[], T]) -> T | None:
    """Return what a command gives, or None where it is answered with one of `codes`."""
    try:
        return work()
    except Error as error:
        if code_of(error) in codes:
            return None
        raise
