"""Sends mail over SMTP, with TLS and sign-in. The password is in no log and no error."""

import contextlib
import logging
import smtplib
import socket
import ssl
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Literal, Self, get_args
from urllib.parse import parse_qs, unquote, urlsplit

from flows.channels.message import ChannelError, Message
from flows.project.printable_text import printable

log = logging.getLogger("syncs.channels")

Security = Literal["none", "starttls", "ssl"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Seconds to wait for the answer to QUIT.
_QUIT = 1.0
#: By a word of what smtplib raises when the server cannot do it.
_EXTENSIONS = {
    "STARTTLS": "STARTTLS",
    "AUTH": "sign-in",
    "internationalized": "SMTPUTF8, which addresses with other characters than ASCII need",
}
_PORTS = {"none": 25, "starttls": 587, "ssl": 465}
_IMPORTANCE = {"error": "high", "warning": "normal", "notice": "low"}
_FORM = "smtp://user:password@host:587 or smtps://user:password@host (with ?from=address, ?starttls=no, ?ca=file)"


@dataclass(frozen=True)
class Server:
    """An SMTP server and how to sign in to it.

    Args:
        host, port: where it is; port 0 is the usual one of the security: 587, 465, 25.
        security: `starttls` (required), `ssl` from the first byte, or `none`.
        user, password: to sign in with; empty for none.
        sender: the address that mails come from; by default the user, if that is an address.
        ca: a file of certificates to trust in place of the system's.

    Raises:
        ValueError: something cannot work; the text contains no secret.
    """

    host: str
    port: int = 0
    security: Security = "starttls"
    user: str = ""
    password: str = field(default="", repr=False)
    sender: str = ""
    ca: str = ""

    def __post_init__(self) -> None:
        if not self.host:
            raise ValueError("it names no host")
        if self.security not in get_args(Security):
            raise ValueError(f"security is one of {', '.join(get_args(Security))}")
        if self.password and self.security == "none" and self.host not in _LOOPBACK:
            raise ValueError(f"the password would go to {self.host} in the clear; use STARTTLS or smtps://")
        if self.sender and (reason := _wrong(self.sender)):
            raise ValueError(f"the sender {reason}")
        if not self.port:
            object.__setattr__(self, "port", _PORTS[self.security])

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL such as `smtp://user:password@host:587?from=syncs@example.org`.

        `smtp://` uses STARTTLS, unless the URL ends in `?starttls=no`, or names this machine and no user.

        Raises:
            ValueError: it cannot be read; the text contains no part of it that may be secret.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 0
            asked = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise ValueError(f"it is no URL; write {_FORM}") from None
        if parts.scheme not in ("smtp", "smtps"):
            raise ValueError(f"it begins neither with smtp:// nor with smtps://; write {_FORM}")
        if unknown := set(asked) - {"starttls", "from", "ca"}:
            # Only how many: a part of a password with an unquoted "?" would be among the names.
            raise ValueError(f"{len(unknown)} of the names after its ? are unknown; write {_FORM}")
        starttls = asked.get("starttls", ["no" if host in _LOOPBACK and not parts.username else "yes"])[-1].lower()
        if starttls not in ("yes", "no", "true", "false", "1", "0", "required"):
            raise ValueError("starttls is yes or no")
        plain: Security = "none" if starttls in ("no", "false", "0") else "starttls"
        return cls(
            host,
            port,
            "ssl" if parts.scheme == "smtps" else plain,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            sender=asked.get("from", [""])[-1],
            ca=asked.get("ca", [""])[-1],
        )


def check(recipient: str) -> str | None:
    """Return why no mail can be sent to a recipient, or `None`."""
    try:
        addresses(recipient)
        server()
    except ChannelError as error:
        return str(error)
    return None


def masked(recipient: str) -> str:
    """Return the addresses, which are no secret, and nothing of what is no address."""
    try:
        return "mailto:" + ",".join(addresses(recipient))
    except ChannelError:
        return "mailto:…"


def send(recipient: str, message: Message, timeout: float) -> None:
    """Send one mail to all its addresses.

    Raises:
        ChannelError: the server accepted none of them.
    """
    post(server(), addresses(recipient), message, timeout=timeout)


def addresses(recipient: str) -> list[str]:
    """Return the addresses of `mailto:a@x.org,b@x.org`.

    Raises:
        ChannelError: it is not written so.
    """
    found = [unquote(part).strip() for part in recipient.partition(":")[2].split(",")]
    found = [address for address in found if address]
    if not found:
        raise ChannelError("mailto: names no address")
    for number, address in enumerate(found, 1):
        if reason := _wrong(address):
            raise ChannelError(f"mailto: address {number} {reason}")
    return list(dict.fromkeys(found))


def server() -> Server:
    """Return the server of SYNCS_SMTP_URL.

    Raises:
        ChannelError: it is not set, or cannot be read.
    """
    from flows.project.settings import project_settings

    url = project_settings().smtp_url
    if url is None or not url.get_secret_value().strip():
        raise ChannelError(f"mailto: needs SYNCS_SMTP_URL, which is not set; write {_FORM}")
    try:
        return Server.of(url.get_secret_value().strip())
    except ValueError as error:
        raise ChannelError(f"SYNCS_SMTP_URL cannot be used: {error}") from None


def post(where: Server, to: Sequence[str], message: Message, *, timeout: float = 10) -> None:
    """Send a mail through a server.

    If the server accepts some addresses and refuses others, the refused ones are logged: sending again would reach the accepted
    ones twice.

    Args:
        where: the server.
        to: addresses.
        message: its text.
        timeout: seconds for each step.

    Raises:
        ChannelError: no address was accepted. The text contains what the server answered, without the password.
    """
    name = f"mail server {where.host}:{where.port}"
    where = replace(where, sender=where.sender or (where.user if not _wrong(where.user) else f"sync-clients@{_host()}"))
    try:
        refused = _post(where, list(to), _mail(where.sender, to, message), timeout)
    except smtplib.SMTPAuthenticationError as error:
        raise ChannelError(f"{name}: the sign-in is refused ({error.smtp_code})") from None
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        raise ChannelError(f"{name}: no address is accepted: {_said(code, text, where)}") from None
    except smtplib.SMTPResponseException as error:
        raise ChannelError(f"{name}: {_said(error.smtp_code, error.smtp_error, where)}") from None
    except smtplib.SMTPNotSupportedError as error:
        said = str(error)
        missing = next((known for word, known in _EXTENSIONS.items() if word in said), "extension that this mail needs")
        raise ChannelError(f"{name}: it offers no {missing}") from None
    except ssl.SSLCertVerificationError as error:
        raise ChannelError(f"{name}: its certificate is not trusted: {error.verify_message}") from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ChannelError(f"{name}: {reason}") from None
    for address, (code, text) in refused.items():
        log.warning("%s accepts no mail for %s: %s", name, address, _said(code, text, where))


def _post(where: Server, to: list[str], mail: EmailMessage, timeout: float) -> dict[str, tuple[int, bytes]]:
    smtp: smtplib.SMTP
    if where.security == "ssl":
        smtp = smtplib.SMTP_SSL(where.host, where.port, timeout=timeout, context=_trust(where))
    else:
        smtp = smtplib.SMTP(where.host, where.port, timeout=timeout)
    try:
        if where.security == "starttls":
            smtp.starttls(context=_trust(where))
        if where.user:
            smtp.login(where.user, where.password)
        return smtp.send_message(mail, from_addr=where.sender, to_addrs=to)
    finally:
        _quit(smtp)


def _quit(smtp: smtplib.SMTP) -> None:
    """End the session; the answer to QUIT changes nothing about the mail."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        if smtp.sock is not None:
            smtp.sock.settimeout(_QUIT)
        smtp.quit()
    smtp.close()


def _trust(where: Server) -> ssl.SSLContext:
    if where.ca and not Path(where.ca).is_file():
        raise ChannelError(f"there is no file of certificates {where.ca}")
    return ssl.create_default_context(cafile=where.ca or None)


def _mail(sender: str, to: Sequence[str], message: Message) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    # A header is one line; the error text of an API may have several.
    mail["Subject"] = " ".join(message.subject.split())[:200]
    mail["Date"] = format_datetime(datetime.now(UTC))
    domain = sender.rpartition("@")[2]
    known = message.data.get("id")
    # A message that is sent again has the same id, so that mail programs show it once (RFC 5322, 3.6.4).
    mail["Message-ID"] = f"<{_token(known)}@{domain}>" if known is not None else make_msgid(domain=domain)
    mail["X-Sync-Clients-Level"] = message.level if message.level.isalnum() else "notice"
    mail["Importance"] = _IMPORTANCE.get(message.level, "normal")
    # No out-of-office replies (RFC 3834, 5).
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.body if message.body.endswith("\n") else message.body + "\n")
    return mail


def _token(known: object) -> str:
    text = str(known)
    readable = "".join(one if one.isascii() and one.isalnum() else "-" for one in text)[:60]
    return f"sync-clients.{readable}.{zlib.crc32(text.encode()):08x}"


def _wrong(address: str) -> str:
    """Return why a text is no address, without quoting it; empty if it is one."""
    local, at, domain = address.rpartition("@")
    if not at or not local or not domain:
        return "has no @ between two parts"
    if any(one.isspace() or not one.isprintable() or one in '<>()[]:;,\\"?&' for one in address):
        return "contains a character that no address has"
    return ""


def _said(code: int, text: bytes | str, where: Server) -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    said = printable(f"{code} {words}", instead=" ")
    if where.password:
        said = said.replace(where.password, "***")
    return " ".join(said.split())[:300]


def _host() -> str:
    return socket.gethostname() or "localhost"
