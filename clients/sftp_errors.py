"""What asyncssh's errors mean for the caller. The server's words are left out: they are free text."""

from __future__ import annotations

import re

import asyncssh

from clients.errors import (
    AuthRefusedError,
    BrokenAnswerError,
    ClientError,
    ConnectFailedError,
    GoneError,
    RejectedError,
    ServerError,
    TimedOutError,
)

RAISES = (asyncssh.Error, OSError, EOFError, UnicodeError, ValueError)


def connect_error(error: BaseException, *, url: str) -> ClientError:
    """Return what a connection that did not come about means. The server's words are left out."""
    kind: type[ClientError] = ConnectFailedError
    match error:
        case ClientError():
            return error
        case asyncssh.PermissionDenied():
            kind, text = AuthRefusedError, "user, password or key is refused"
        case asyncssh.HostKeyNotVerifiable():
            text = "the host key is not among the known ones: somebody may sit in between; if not, add it to known_hosts"
        case TimeoutError():
            text = "no connection in time"
        case OSError():
            text = f"no connection: {error.strerror or type(error).__name__}"
        case asyncssh.ChannelOpenError() | asyncssh.SFTPError():
            text = "no connection: the server offers no SFTP"
        case _:
            text = f"no connection: {type(error).__name__}"
    return kind(text, method="CONNECT", url=url)


_GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
_LOST = (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost, asyncssh.SFTPBadMessage, asyncssh.DisconnectError, OSError)
_BUSY = (asyncssh.SFTPFailure, asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPLockConflict, asyncssh.SFTPNoMedia)


def said(error: BaseException) -> str | None:
    """Return what the server answered, in the words of its code: `no such file`; None where it did not answer."""
    if isinstance(error, asyncssh.PermissionDenied):
        return "permission denied"
    if not isinstance(error, asyncssh.SFTPError) or isinstance(error, _LOST):
        return None
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__.removeprefix("SFTP")).lower()


def translate(error: BaseException, *, method: str, url: str, reads: bool) -> ClientError:
    """Return our error. The server's words are left out."""
    name = type(error).__name__
    match error:
        case ClientError():
            return error
        case TimeoutError():
            return TimedOutError("no answer in time", method=method, url=url)
        case _ if isinstance(error, _GONE):
            kind = GoneError if reads else RejectedError
            return kind("no such file", method=method, url=url)
        case _ if isinstance(error, _LOST):
            return BrokenAnswerError(f"the connection broke ({name})", method=method, url=url)
        case _ if isinstance(error, _BUSY):
            return ServerError(f"the server failed ({name})", method=method, url=url)
        case asyncssh.SFTPPermissionDenied():
            return RejectedError("not for us (permission denied)", method=method, url=url)
        case asyncssh.SFTPError():
            return RejectedError(f"refused ({name})", method=method, url=url)
    return BrokenAnswerError(f"the answer is not SFTP ({name})", method=method, url=url)
