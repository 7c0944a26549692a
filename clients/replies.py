"""What the reply codes of FTP mean for the caller: one table, one pure function (RFC 959, RFC 4217)."""

from __future__ import annotations

from clients.errors import AuthRefusedError, ClientError, GoneError, RejectedError, ServerError

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
    550: (GoneError, "no such file, or not for us"),
    552: (RejectedError, "the quota is used up"),
    553: (RejectedError, "the name is not allowed"),
}

UNKNOWN_COMMAND = frozenset({500, 501, 502, 503, 504, 202})


def reply_error(code: int, *, method: str, url: str, reads: bool) -> ClientError:
    """Return the error that a reply of 400 and above stands for.

    The server's own words are not repeated: they are free text, and some name the user.

    Args:
        reads: a file is read, so that 550 is about that file. Elsewhere it is a refusal.
    """
    kind, words = _MEANING.get(code, (RejectedError if code >= 500 else ServerError, ""))
    if kind is GoneError and not reads:
        kind = RejectedError
    return kind(f"{code} {words}".rstrip(), method=method, url=url)
