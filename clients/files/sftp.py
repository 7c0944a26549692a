"""`SftpClient`, the adapter for SFTP. `sftp_filesystem` has the protocol.

Importing it is cheap: asyncssh is imported when a client is made.
"""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from types import EllipsisType

from clients.auth import Secret
from clients.files import transfer
from clients.files.client import FileClient


class SftpClient(FileClient):
    """A connection to one SFTP server, for many threads at once. Use it as a context manager.

    It connects when it is first needed, and again after the connection broke; a failed connection is tried twice more, a
    request that was sent is not. Paths are those of the server: relative ones begin in the folder that the sign-in leads
    to. No setting of this machine (`~/.ssh/config`, agents, keys in `~/.ssh`) is used, except the file of known hosts.

    Args:
        host: name or address.
        port: where it listens.
        user: who signs in.
        password: for signing in with one.
        key: for signing in with one: a private key in text, or the path of its file.
        passphrase: of the key.
        known_hosts: whose host keys are trusted: the path of a file, or its lines as bytes; by default `~/.ssh/known_hosts`.
            None accepts any host key, also that of an attacker in between: only for a network of your own.
        timeout: seconds for each wait; also for each KiB of a transfer.
        max_bytes: size of a file that `read` still reads.

    Raises:
        ModuleNotFoundError: asyncssh is not installed.
        ValueError: neither password nor key is given, or a number is not positive.
    """

    #: One connection carries any number of requests at once; see `flows.execution.connections`.
    thread_safe = True

    def __init__(
        self,
        host: str,
        *,
        port: int = 22,
        user: str,
        password: str | Secret | None = None,
        key: str | PathLike[str] | Secret | None = None,
        passphrase: str | Secret | None = None,
        known_hosts: str | PathLike[str] | bytes | EllipsisType | None = ...,
        timeout: float = 30.0,
        max_bytes: int = transfer.MAX_BYTES,
    ) -> None:
        if find_spec("asyncssh") is None:
            raise ModuleNotFoundError("SftpClient needs asyncssh: pip install 'sync-clients[sftp]'", name="asyncssh")
        if password is None and key is None:
            raise ValueError("SftpClient: give password or key")
        from clients.files.sftp_filesystem import SftpFileSystem

        file_system = SftpFileSystem(
            host, port, user=user, password=password, key=key, passphrase=passphrase, known_hosts=known_hosts, timeout=timeout
        )
        super().__init__(file_system, timeout=timeout, max_bytes=max_bytes)
