"""One control connection of FTP, plain or TLS, on the standard library's. Knows sockets and replies, and no file.

Importing it takes ssl along, so `ftp` imports it when it connects.
"""

from __future__ import annotations

import contextlib
import ftplib
import re
import socket
import ssl
import time
from collections.abc import Generator, Iterable

from clients.dial import dial, reason
from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    RejectedError,
    TimedOutError,
    TooLargeError,
)
from clients.files import BLOCK, ResumeRefused
from clients.names import decode
from clients.replies import reply_error

MAX_LISTING = 64 * 1024 * 1024
MAX_REPLY_LINES = 1000
CONNECT_TIMEOUT = 10.0

RAISES = (ftplib.Error, OSError, EOFError, UnicodeError, ValueError)


class Control(ftplib.FTP_TLS):
    """A connection that speaks bytes: names are sent and read as latin-1, which maps every byte to one character and back.

    The address that a server names for its data connections is never used (the standard library's rule since Python 3.10):
    they go to where the control connection goes, so that no server can send us to another.
    """

    encoding: str
    lastresp = ""

    def __init__(self, *, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(context=context, timeout=timeout, encoding="latin-1")
        self.trust_server_pasv_ipv4_address = False
        self._seconds = timeout
        #: What the server says it can do (RFC 2389), in upper case; nothing where it does not know the question.
        self.features: frozenset[str] = frozenset()
        #: The folder that the sign-in leads to.
        self.home = "/"
        #: Bytes of the transfers since somebody set it to 0.
        self.moved = 0

    @property
    def reply(self) -> int | None:
        """The code of the last reply; of the one to the sign-in after `open`."""
        return int(self.lastresp) if self.lastresp.isdigit() else None

    def open(self, host: str, port: int, *, user: str, password: str, tls: bool) -> None:
        """Connect and sign in; a failed connection is tried twice more."""
        self.host, self.port = host, port
        seconds = min(self._seconds, CONNECT_TIMEOUT)
        try:
            self.sock = dial(lambda: socket.create_connection((host, port), seconds), again=lambda _: True)
        except TimeoutError as error:
            raise ConnectFailedError("no connection in time") from error
        except OSError as error:
            raise ConnectFailedError(f"no connection: {error.strerror or type(error).__name__}") from error
        self.sock.settimeout(self._seconds)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.af = self.sock.family
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()
        if tls:
            try:
                self.auth()
            except ssl.SSLError as error:
                raise ConnectFailedError(f"no connection: {reason(error)}") from None
        try:
            signed_in = self.login(user, password, secure=False)[:3]
        except (ftplib.error_perm, ftplib.error_reply) as error:
            raise AuthRefusedError(f"{code_of(error) or 'an unknown reply'}: the sign-in is refused") from None
        if tls:
            # Without it the names and the files themselves would go in the clear.
            self.prot_p()
        self.voidcmd("TYPE I")
        with contextlib.suppress(ftplib.error_perm):
            lines = self.sendcmd("FEAT").splitlines()[1:-1]
            self.features = frozenset(line.split()[0].upper() for line in lines if line.split())
        with contextlib.suppress(ftplib.error_perm, ftplib.error_reply):
            # Some servers speak UTF-8 only when asked.
            if "UTF8" in self.features:
                self.sendcmd("OPTS UTF8 ON")
        with contextlib.suppress(ftplib.error_perm):
            self.home = decode(self.pwd().encode("latin-1")) or "/"
        self.lastresp = signed_in

    def getmultiline(self) -> str:
        """Read a reply; one that does not end is a broken one."""
        lines = [self.getline()]
        if not lines[0][:3].isdigit():
            raise ftplib.error_proto("not a reply")  # noqa: S321 - FTP is what is asked for
        if lines[0][3:4] == "-":
            code, until = lines[0][:3], time.monotonic() + self._seconds
            while not (lines[-1][:3] == code and lines[-1][3:4] != "-") or len(lines) == 1:
                lines.append(self.getline())
                if len(lines) > MAX_REPLY_LINES or time.monotonic() > until:
                    raise ftplib.error_proto("a reply without end")  # noqa: S321 - FTP is what is asked for
        return "\n".join(lines)

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        """Open a data connection; over TLS it takes the session of this one along, as many servers want."""
        conn, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321
        if self._prot_p:  # type: ignore[attr-defined]
            try:
                conn = self.context.wrap_socket(
                    conn, server_hostname=self.host, session=self.sock.session if isinstance(self.sock, ssl.SSLSocket) else None
                )
            except BaseException:
                conn.close()
                raise
        return conn, size

    def receive(self, command: str, *, offset: int = 0) -> Generator[bytes, None, None]:
        """Yield what a command sends on a data connection, and see that the server calls it complete.

        Raises:
            ResumeRefused: it does not begin at `offset`.
        """
        if offset:
            reply = self._rest(offset)
            if not reply.startswith("350"):
                raise ResumeRefused
        with self.ntransfercmd(command)[0] as conn:
            while data := conn.recv(BLOCK):
                self.moved += len(data)
                yield data
            _farewell(conn)
        self.voidresp()

    def send_all(self, command: str, chunks: Iterable[bytes]) -> None:
        """Send `chunks` on a data connection, and see that the server calls them stored."""
        with self.ntransfercmd(command)[0] as conn:
            for chunk in chunks:
                conn.sendall(chunk)
                self.moved += len(chunk)
            _farewell(conn)
        self.voidresp()

    def lines(self, command: str) -> list[str]:
        """Return the lines that a command sends on a data connection.

        UTF-8, or latin-1 for a line that is not.

        Raises:
            TooLargeError: they have more than 64 MiB.
        """
        content = bytearray()
        for chunk in self.receive(command):
            content += chunk
            if len(content) > MAX_LISTING:
                raise TooLargeError(f"the listing of the folder is larger than {MAX_LISTING} bytes")
        return [decode(line) for line in bytes(content).replace(b"\r\n", b"\n").split(b"\n") if line.strip()]

    def _rest(self, offset: int) -> str:
        try:
            return self.sendcmd(f"REST {offset}")
        except ftplib.error_perm:
            return ""


def code_of(error: BaseException) -> int:
    """Return the reply code of an error of ftplib's, or 0."""
    found = re.match(r"\d{3}", str(error)) if isinstance(error, ftplib.Error) else None
    return int(found[0]) if found else 0


def translate(error: BaseException, *, method: str, url: str, reads: bool) -> tuple[ClientError, bool]:
    """Return our error, and whether the connection can still be used.

    The server's words are left out, and so is the cause that repeats them.
    """
    match error:
        case ClientError():
            if error.url is None:
                error.method, error.url = method, url
            return error, False
        case ftplib.error_perm() | ftplib.error_temp() if (code := code_of(error)) >= 400:
            return reply_error(code, method=method, url=url, reads=reads), code != 421
        case ftplib.Error():
            return BrokenAnswerError("the answer is not FTP, or not the one that belongs here", method=method, url=url), False
        case TimeoutError():
            return TimedOutError("no answer in time", method=method, url=url), False
        case ssl.SSLCertVerificationError():
            text = f"no data connection: the certificate is refused: {error.verify_message}"
            return ConnectFailedError(text, method=method, url=url), False
        case ssl.SSLError():
            return BrokenAnswerError(f"TLS broke: {error.reason or 'no reason given'}", method=method, url=url), False
        case OSError():
            return BrokenAnswerError(f"the connection broke: {error.strerror or 'closed'}", method=method, url=url), False
        case EOFError():
            return BrokenAnswerError("the connection broke: closed", method=method, url=url), False
    return RejectedError("a command that FTP cannot carry", method=method, url=url), False


def trust(verify: bool | str | ssl.SSLContext) -> ssl.SSLContext:
    """Return the TLS context that `verify` asks for."""
    if isinstance(verify, ssl.SSLContext):
        return verify
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _farewell(conn: socket.socket) -> None:
    """End a TLS data connection properly; servers that just hang up are common, and the size check sees what is missing."""
    if isinstance(conn, ssl.SSLSocket):
        with contextlib.suppress(OSError, ValueError):
            conn.unwrap()
