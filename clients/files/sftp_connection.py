"""One SSH connection with SFTP, on asyncssh in a thread of its own, for any number of threads; translates its errors."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import re
import threading
from collections.abc import Coroutine
from os import PathLike, fspath
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeVar

import asyncssh

from clients.auth import Secret, reveal
from clients.connect_retry import connect
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
from clients.exchange_recorder import record_exchange

T = TypeVar("T")

log = logging.getLogger("syncs.sftp")

CONNECT_TIMEOUT = 10.0

RAISES = (asyncssh.Error, OSError, EOFError, UnicodeError, ValueError)
"""What asyncssh raises; `translate` knows them all."""

_GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
_LOST = (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost, asyncssh.SFTPBadMessage, asyncssh.DisconnectError, OSError)
_BUSY = (asyncssh.SFTPFailure, asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPLockConflict, asyncssh.SFTPNoMedia)


class SftpConnection:
    """Connects when it is first needed, and again after the connection broke; see `SftpClient` for its arguments.

    Args:
        url: of the server, for messages.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        url: str,
        user: str,
        password: str | Secret | None,
        key: str | PathLike[str] | Secret | None,
        passphrase: str | Secret | None,
        known_hosts: str | PathLike[str] | bytes | EllipsisType | None,
        timeout: float,
    ) -> None:
        self._host, self._port, self._url, self._user = host, port, url, user
        self._password, self._key, self._passphrase, self._known_hosts = password, key, passphrase, known_hosts
        self._timeout = timeout
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        #: Replaced connections on which requests of other threads may still be under way.
        self._retired: list[asyncssh.SSHClientConnection] = []
        self._closed = False

    def close(self) -> None:
        """Close the connection and end its thread."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
            self._disconnect(loop)
        if loop is not None:
            for connection in self._retired:
                loop.call_soon_threadsafe(connection.abort)
            loop.call_soon_threadsafe(loop.stop)
            assert self._thread is not None
            self._thread.join(5)

    def run(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
        """Run a coroutine in the loop, and wait for its result.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
        """
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout or self._timeout), loop)
        try:
            return future.result((timeout or self._timeout) + 5)
        except (TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            raise TimeoutError from None

    def ready(self) -> tuple[asyncssh.SFTPClient, asyncio.AbstractEventLoop]:
        """Return the connection and its loop; make new ones where there are none."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="syncs-sftp", daemon=True)
                self._thread.start()
            if self._connection is not None and self._connection.is_closed():
                self._disconnect(self._loop)
            if self._sftp is None:
                self._sftp = self._connect(self._loop)
            return self._sftp, self._loop

    def _connect(self, loop: asyncio.AbstractEventLoop) -> asyncssh.SFTPClient:
        url = self._url
        options = self._options()
        seconds = min(self._timeout, CONNECT_TIMEOUT)

        async def open_all() -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
            connection = await asyncssh.connect(self._host, self._port, **options)
            try:
                return connection, await connection.start_sftp_client(path_encoding=None)
            except BaseException:
                connection.abort()
                raise

        with record_exchange("CONNECT", url) as exchange:
            try:
                # A server that disconnects by protocol raises no OSError, and is not asked again.
                self._connection, sftp = connect(lambda: self.run(loop, open_all(), timeout=seconds * 2), again=_is_refused)
            except RAISES as error:
                exchange.status = status_of(error)
                raise connect_error(error, url=url) from None
            exchange.status = "ok"
        return sftp

    def _options(self) -> dict[str, Any]:
        known: Any = self._known_hosts
        if known is ...:
            path = Path("~/.ssh/known_hosts").expanduser()
            known = str(path) if path.is_file() else b""
        elif known is None:
            log.warning("%s: the host key is not checked (known_hosts=None)", self._url)
        elif not isinstance(known, bytes):
            known = fspath(known)
            if not Path(known).is_file():
                raise ConnectFailedError(f"no file of known hosts at {known}", method="CONNECT", url=self._url)
        keys = [self._private_key()] if self._key is not None else []
        seconds = min(self._timeout, CONNECT_TIMEOUT)
        return {
            "username": self._user,
            "password": None if self._password is None else reveal(self._password),
            "client_keys": keys or None,
            "known_hosts": known,
            "config": None,
            "agent_path": None,
            "gss_host": None,
            "connect_timeout": seconds,
            "login_timeout": seconds,
            "keepalive_interval": 30,
        }

    def _private_key(self) -> asyncssh.SSHKey:
        assert self._key is not None
        text = self._key if isinstance(self._key, str | PathLike) else reveal(self._key)
        passphrase = None if self._passphrase is None else reveal(self._passphrase)
        try:
            if isinstance(text, str) and "-----BEGIN" in text:
                return asyncssh.import_private_key(text, passphrase)
            return asyncssh.read_private_key(fspath(text), passphrase)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a key, or not with this passphrase"
            raise RejectedError(f"the private key cannot be read: {why}", method="CONNECT", url=self._url) from None

    def drop(self, sftp: asyncssh.SFTPClient, *, grace: float) -> None:
        """Close a connection, unless another thread has replaced it already.

        Args:
            grace: seconds until it is closed, so that requests of other threads may end.
        """
        with self._lock:
            if self._sftp is sftp:
                self._disconnect(self._loop, grace=grace)

    def _disconnect(self, loop: asyncio.AbstractEventLoop | None, *, grace: float = 0) -> None:
        connection, self._connection, self._sftp = self._connection, None, None
        if connection is None or loop is None:
            return
        if grace:
            self._retired = [one for one in self._retired if not one.is_closed()] + [connection]
            loop.call_soon_threadsafe(loop.call_later, grace, connection.abort)
        else:
            loop.call_soon_threadsafe(connection.abort)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, then end its tasks and close it."""
    loop.run_forever()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    # Sockets are closed by callbacks of callbacks.
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _is_refused(error: Exception) -> bool:
    return isinstance(error, OSError) and not isinstance(error, TimeoutError)


def connect_error(error: BaseException, *, url: str) -> ClientError:
    """Return our error for a failed connection. The server's message is left out: it is free text."""
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


def status_of(error: BaseException) -> str | None:
    """Return the status of the server's answer in words, such as `no such file`; None where it did not answer."""
    if isinstance(error, asyncssh.PermissionDenied):
        return "permission denied"
    if not isinstance(error, asyncssh.SFTPError) or isinstance(error, _LOST):
        return None
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__.removeprefix("SFTP")).lower()


def translate(error: BaseException, *, method: str, url: str, reads: bool) -> ClientError:
    """Return our error for a failed request. The server's message is left out."""
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
            return RejectedError("permission denied", method=method, url=url)
        case asyncssh.SFTPError():
            return RejectedError(f"refused ({name})", method=method, url=url)
    return BrokenAnswerError(f"the answer is not SFTP ({name})", method=method, url=url)
