"""`FtpClient`, the adapter for FTP and FTPS. `ftp_filesystem` has the protocol.

Importing it is cheap: ftplib and ssl are imported when a client is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clients.auth import Secret, reveal
from clients.files import transfer
from clients.files.client import FileClient

if TYPE_CHECKING:
    import ssl


class FtpClient(FileClient):
    """A connection to one FTP server, for one thread. Use it as a context manager.

    It connects when it is first needed, and again after the connection broke; a failed connection is tried twice more, a
    command that was sent is not. Paths are those of the server: relative ones begin in the folder that the sign-in leads
    to. Data connections are passive and go to the address of the control connection, whatever address the server names.

    Args:
        host: name or address.
        port: of the control connection.
        user, password: the sign-in.
        tls: encrypt both connections (`AUTH TLS`, `PROT P`).
        timeout: seconds for each wait; also for each KiB of a transfer.
        verify: check the certificate: True, False, an SSLContext, or the path of a CA bundle.
        max_bytes: size of a file that `read` still reads.

    Raises:
        ValueError: the host, user or password has a line break, or a number is not positive.
    """

    #: A control connection carries one command at a time; see `flows.execution.connections`.
    thread_safe = False

    def __init__(
        self,
        host: str,
        *,
        port: int = 21,
        user: str = "anonymous",
        password: str | Secret = "",
        tls: bool = False,
        timeout: float = 30.0,
        verify: bool | str | ssl.SSLContext = True,
        max_bytes: int = transfer.MAX_BYTES,
    ) -> None:
        from clients.files.ftp_filesystem import FtpFileSystem

        if any(character in text for text in (host, user, reveal(password)) for character in "\r\n\0"):
            raise ValueError("host, user or password has a line break")
        file_system = FtpFileSystem(host, port, user=user, password=password, tls=tls, timeout=timeout, verify=verify)
        super().__init__(file_system, timeout=timeout, max_bytes=max_bytes)
