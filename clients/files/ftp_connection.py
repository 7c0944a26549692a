"""One control connection of FTP, plain or TLS, on ftplib: signs in, transfers, and translates reply codes (RFC 959, RFC 4217).

It imports ssl, so `ftp` imports it when a client is made.
"""

from __future__ import annotations

import contextlib
import ftplib
import re
import socket
import ssl
import time
from collections.abc import Generator, Iterable
from functools import partial

from clients.connect_retry import connect, failure_reason
from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    GoneError,
    RejectedError,
    ServerError,
    TimedOutError,
    TooLargeError,
)
from clients.files.paths import decode
from clients.files.transfer import BLOCK, ResumeRefused

MAX_LISTING = 64 * 1024 * 1024
MAX_REPLY_LINES = 1000
CONNECT_TIMEOUT = 10.0

RAISES = (ftplib.Error, OSError, EOFError, UnicodeError, ValueError)
"""What ftplib raises; `translate` knows them all."""

_MEANING: dict[int, tuple[type[ClientError], str]] = {
    421: (ServerError, "the service is closing the connection"),
    425: (ServerError, "no data connection"),
    426: (ServerError, "the data connection broke"),
    430: (AuthRefusedError, "user or password is refused"),
    450: (ServerError, "the file is busy"),
    451: (ServerError, "a local error of the server"),
    452: (ServerError, "the server has no space left"),
    530: (AuthRefusedError, "not signed in"),
    532: (AuthRefusedError, "an account is needed"),
    534: (RejectedError, "refused for policy reasons"),
    550: (GoneError, "no such file, or no permission"),
    552: (RejectedError, "the quota is used up"),
    553: (RejectedError, "the name is not allowed"),
}

UNKNOWN_COMMAND = frozenset({500, 501, 502, 503, 504, 202})


class Control(ftplib.FTP_TLS):
    """A connection whose names are bytes: they are sent and read as latin-1, which maps every byte to one character and back.

    The address that a server names for data connections is never used (the standard library's rule since Python 3.10): they go
    to the address of the control connection, so that no server can make us connect to another one.
    """

    encoding: str
    lastresp = ""

    def __init__(self, *, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(context=context, timeout=timeout, encoding="latin-1")
        self.trust_server_pasv_ipv4_address = False
        self._seconds = timeout
        #: The features that the server names (RFC 2389), in upper case; empty where it does not know FEAT.
        self.features: frozenset[str] = frozenset()
        #: The folder that the sign-in leads to.
        self.start_folder = "/"
        #: Bytes of the transfers since the caller set it to 0.
        self.transferred = 0

    @property
    def reply(self) -> int | None:
        """The code of the last reply; after `open` that of the sign-in."""
        return int(self.lastresp) if self.lastresp.isdigit() else None

    def open(self, host: str, port: int, *, user: str, password: str, tls: bool) -> None:
        """Connect and sign in; a failed connection is tried twice more."""
        self.host, self.port = host, port
        seconds = min(self._seconds, CONNECT_TIMEOUT)
        try:
            self.sock = connect(
                partial(socket.create_connection, (host, port), seconds), again=lambda error: isinstance(error, OSError)
            )
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
                raise ConnectFailedError(f"no connection: {failure_reason(error)}") from None
        try:
            signed_in = self.login(user, password, secure=False)[:3]
        except (ftplib.error_perm, ftplib.error_reply) as error:
            raise AuthRefusedError(f"{code_of(error) or 'an unknown reply'}: the sign-in is refused") from None
        if tls:
            # Without it, file names and contents would not be encrypted.
            self.prot_p()
        self.voidcmd("TYPE I")
        with contextlib.suppress(ftplib.error_perm):
            lines = self.sendcmd("FEAT").splitlines()[1:-1]
            self.features = frozenset(line.split()[0].upper() for line in lines if line.split())
        with contextlib.suppress(ftplib.error_perm, ftplib.error_reply):
            # Some servers use UTF-8 only after this command.
            if "UTF8" in self.features:
                self.sendcmd("OPTS UTF8 ON")
        with contextlib.suppress(ftplib.error_perm):
            self.start_folder = decode(self.pwd().encode("latin-1")) or "/"
        self.lastresp = signed_in

    def getmultiline(self) -> str:
        """Read a reply; one without an end is an error."""
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
        """Open a data connection; over TLS it resumes the session of this one, which many servers require."""
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
        """Yield what a command sends on a data connection, and check that the server confirms it.

        Raises:
            ResumeRefused: the server cannot begin at `offset`.
        """
        if offset:
            reply = self._rest(offset)
            if not reply.startswith("350"):
                raise ResumeRefused
        with self.ntransfercmd(command)[0] as conn:
            while data := conn.recv(BLOCK):
                self.transferred += len(data)
                yield data
            _close_tls(conn)
        self.voidresp()

    def send_all(self, command: str, chunks: Iterable[bytes]) -> None:
        """Send `chunks` on a data connection, and check that the server confirms them."""
        with self.ntransfercmd(command)[0] as conn:
            for chunk in chunks:
                conn.sendall(chunk)
                self.transferred += len(chunk)
            _close_tls(conn)
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


def reply_error(code: int, *, method: str, url: str, reads: bool) -> ClientError:
    """Return the error that a reply of 400 and above stands for.

    The server's message is not repeated: it is free text, and some name the user.

    Args:
        reads: a file is read, so that 550 is about that file. Elsewhere it is a refusal.
    """
    kind, words = _MEANING.get(code, (RejectedError if code >= 500 else ServerError, ""))
    if kind is GoneError and not reads:
        kind = RejectedError
    return kind(f"{code} {words}".rstrip(), method=method, url=url)


def translate(error: BaseException, *, method: str, url: str, reads: bool) -> tuple[ClientError, bool]:
    """Return our error, and whether the connection can still be used.

    The server's message is left out, and so is the cause that repeats it.
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


def tls_context(verify: bool | str | ssl.SSLContext) -> ssl.SSLContext:
    """Return the TLS context that `verify` asks for."""
    if isinstance(verify, ssl.SSLContext):
        return verify
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _close_tls(conn: socket.socket) -> None:
    """End a TLS data connection. Many servers just disconnect; the size check finds what is missing."""
    if isinstance(conn, ssl.SSLSocket):
        with contextlib.suppress(OSError, ValueError):
            conn.unwrap()
