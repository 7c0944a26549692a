"""What the tests of channels send to: a real SMTP server and a real HTTP server, both on loopback, both able to be in trouble."""

import contextlib
import datetime as dt
import email.policy
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "robot@syncs.example", "pw&with/every?thing"
"""What the SMTP server with sign-in wants; the password may stand in nothing that is kept."""


def until(found: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Wait until `found` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.02)
    return value


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that vouches for itself; return its file and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "smtp.pem", folder / "smtp.key"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return public, private


class _Controller(Controller):
    """Starts on a port that somebody else keeps free for it, and has time for that."""

    def _create_server(self) -> Any:
        return self.loop.create_server(
            self._factory_invoker, host=self.hostname, port=self.port, ssl=self.ssl_context, reuse_port=True
        )

    def _trigger_server(self) -> None:
        with socket.create_connection((self.hostname, self.port), 60) as plain:
            if self.ssl_context is None:
                plain.recv(1024)
                return
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain) as encrypted:
                encrypted.recv(1024)


class Mailbox:
    """An SMTP server on loopback that keeps what it gets.

    Args:
        port: of 127.0.0.1; it may be bound with `SO_REUSEPORT` by whoever keeps it free.
        certificate: files of certificate and key; with them it wants STARTTLS and a sign-in, or TLS from the first byte.
        implicit: TLS from the first byte.
    """

    def __init__(self, port: int, certificate: tuple[Path, Path] | None = None, *, implicit: bool = False) -> None:
        self.port = port
        self.mails: list[EmailMessage] = []
        #: When each came, in seconds since 1970.
        self.at: list[float] = []
        self.envelopes: list[Envelope] = []
        #: Addresses it takes nothing for.
        self.refused: set[str] = set()
        self._certificate = certificate
        self._implicit = implicit
        self._controller: Controller | None = None

    def up(self) -> None:
        """Listen."""
        how: dict[str, Any] = {}
        if self._certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*self._certificate)
            how = {"authenticator": _sign_in}
            # With TLS from the first byte aiosmtpd does not see that there is TLS, and warns of sign-ins that are required.
            how |= (
                {"ssl_context": context, "auth_require_tls": False}
                if self._implicit
                else {"tls_context": context, "require_starttls": True, "auth_required": True}
            )
        self._controller = _Controller(self, hostname="127.0.0.1", port=self.port, ready_timeout=60, **how)
        self._controller.start()

    def down(self) -> None:
        """Refuse connections."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take an address, or not."""
        if address in self.refused:
            return f"550 5.1.1 nobody here is called {address}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep a mail."""
        content = envelope.content
        assert isinstance(content, bytes)
        mail = BytesParser(policy=email.policy.default).parsebytes(content)
        assert isinstance(mail, EmailMessage)
        self.envelopes.append(envelope)
        self.at.append(time.time())
        self.mails.append(mail)
        return "250 OK"


def _sign_in(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=not good and False)


class Hook:
    """A webhook receiver on loopback that keeps what it gets."""

    def __init__(self) -> None:
        self.posts: list[Any] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        #: What it answers.
        self.status = 204
        self.headers: dict[str, str] = {}
        #: Seconds before it answers.
        self.delay = 0.0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def _take(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                hook.requests.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
                time.sleep(hook.delay)
                if hook.status < 300 and raw:
                    with contextlib.suppress(ValueError):
                        hook.posts.append(json.loads(raw))
                with contextlib.suppress(OSError):
                    self.send_response(hook.status)
                    for name, value in hook.headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", "0")
                    self.end_headers()

            do_GET = do_POST = _take  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def port(self) -> int:
        """Its port."""
        return self._server.server_port

    def url(self, path: str = "hook/tok-5b7a-must-not-show", scheme: str = "http") -> str:
        """Return a URL of it whose path is a secret."""
        return f"{scheme}://127.0.0.1:{self.port}/{path}"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def hooked() -> Iterator[Hook]:
    """Run a webhook receiver."""
    hook = Hook()
    try:
        yield hook
    finally:
        hook.close()


@contextlib.contextmanager
def mailed(port: int, certificate: tuple[Path, Path] | None = None, *, implicit: bool = False) -> Iterator[Mailbox]:
    """Run an SMTP server."""
    mailbox = Mailbox(port, certificate, implicit=implicit)
    mailbox.up()
    try:
        yield mailbox
    finally:
        mailbox.down()
