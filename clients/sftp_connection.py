"""One SSH connection with SFTP, on asyncssh in a thread of its own; any number of threads may ask. Knows no file."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine
from os import PathLike, fspath
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeVar

import asyncssh

from clients.auth import Secret, reveal
from clients.dial import dial
from clients.errors import ConnectFailedError, RejectedError
from clients.exchange import telling
from clients.sftp_errors import RAISES, connect_error, said

T = TypeVar("T")

log = logging.getLogger("syncs.sftp")

CONNECT_TIMEOUT = 10.0


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
        #: Given up, but with something of other threads still in hand.
        self._leaving: list[asyncssh.SSHClientConnection] = []
        self._closed = False

    def close(self) -> None:
        """Close the connection and end its thread."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
            self._hang_up(loop)
        if loop is not None:
            for connection in self._leaving:
                loop.call_soon_threadsafe(connection.abort)
            loop.call_soon_threadsafe(loop.stop)
            assert self._thread is not None
            self._thread.join(5)

    def run(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
        """Have the loop do something, and wait for it.

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
        """Return the connection and its loop; make new ones where there are none any more."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="syncs-sftp", daemon=True)
                self._thread.start()
            if self._connection is not None and self._connection.is_closed():
                self._hang_up(self._loop)
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

        with telling("CONNECT", url) as told:
            try:
                # A server that hangs up on us by protocol is no OSError; it is not asked again.
                self._connection, sftp = dial(lambda: self.run(loop, open_all(), timeout=seconds * 2), again=_is_refused)
            except RAISES as error:
                told.status = said(error)
                raise connect_error(error, url=url) from None
            told.status = "ok"
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
            "username": self._user, "password": None if self._password is None else reveal(self._password),
            "client_keys": keys or None, "known_hosts": known, "config": None, "agent_path": None, "gss_host": None,
            "connect_timeout": seconds, "login_timeout": seconds, "keepalive_interval": 30,
        }  # fmt: skip

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
        """Give a connection up, unless another thread has done so and there is a new one."""
        with self._lock:
            if self._sftp is sftp:
                self._hang_up(self._loop, grace=grace)

    def _hang_up(self, loop: asyncio.AbstractEventLoop | None, *, grace: float = 0) -> None:
        connection, self._connection, self._sftp = self._connection, None, None
        if connection is None or loop is None:
            return
        if grace:
            self._leaving = [one for one in self._leaving if not one.is_closed()] + [connection]
            loop.call_soon_threadsafe(loop.call_later, grace, connection.abort)
        else:
            loop.call_soon_threadsafe(connection.abort)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, and leave nothing of it behind."""
    loop.run_forever()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    # Sockets are closed by callbacks of callbacks.
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _is_refused(error: OSError) -> bool:
    return not isinstance(error, TimeoutError)
