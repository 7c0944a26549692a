"""Mail over SMTP: URLs, TLS, sign-in, headers, and servers in trouble."""

import logging
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from flows.channels import ChannelError, Message, check, send
from flows.channels.mail import Server, post
from tests.support.fake_channels import PASSWORD, USER, Mailbox, mailed

MESSAGE = Message("error", "pet\nstore: größer als 10 %", "Zeile eins ☂\n\n.\nEnde", {"id": 17})
OPS = "mailto:ops@example.org"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.org", Server("mail.example.org", 587, "starttls")),
        ("smtps://mail.example.org", Server("mail.example.org", 465, "ssl")),
        ("smtp://127.0.0.1:1025", Server("127.0.0.1", 1025, "none")),
        ("smtp://u:p@127.0.0.1:1025", Server("127.0.0.1", 1025, "starttls", "u", "p")),
        ("smtp://u:p@127.0.0.1:1025?starttls=no", Server("127.0.0.1", 1025, "none", "u", "p")),
        ("smtp://relay.internal:25?starttls=no", Server("relay.internal", 25, "none")),
        ("smtp://relay.internal?starttls=no", Server("relay.internal", 25, "none")),
        (
            "smtp://u%40x.org:p%26%2F@h?from=s@x.org&ca=/a.pem",
            Server("h", 587, "starttls", "u@x.org", "p&/", "s@x.org", "/a.pem"),
        ),
    ],
)
def test_urls(url: str, server: Server) -> None:
    """A URL says host, port, protection, sign-in and sender; what it leaves out is the safe way."""
    assert Server.of(url) == server


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://u:geheim@h", "begins neither with smtp://"),
        ("smtp://", "names no host"),
        ("smtp://u:geheim@h:99999", "no URL"),
        ("smtp://u:geheim@[h", "no URL"),
        ("smtp://u:geheim@mail.example.org?starttls=no", "in the clear"),
        ("smtp://h?starttls=geheim", "starttls is yes or no"),
        ("smtp://h?geheim=1", "1 of the names after its ? are unknown"),
        ("smtp://h?from=geheim", "the sender has no @"),
    ],
)
def test_urls_that_cannot_be_used(url: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong URL is one line that names the variable and repeats nothing of it."""
    monkeypatch.setenv("SYNCS_SMTP_URL", url)
    found = check(OPS)
    assert found is not None
    assert found.startswith("SYNCS_SMTP_URL cannot be used: ")
    assert reason in found
    assert "geheim" not in found


@pytest.mark.rows("SC-25")
def test_what_a_mail_looks_like(mailbox: Mailbox) -> None:
    """Subject on one line, text as written, the level in a header, no automatic answers, an id that stays the same."""
    send(OPS, MESSAGE)
    send(OPS, MESSAGE)
    first, second = mailbox.mails
    assert first["Subject"] == "pet store: größer als 10 %"
    assert first.get_content().replace("\r\n", "\n") == "Zeile eins ☂\n\n.\nEnde\n"
    assert first["To"] == "ops@example.org"
    assert first["X-Sync-Clients-Level"] == "error"
    assert first["Importance"] == "high"
    assert first["Auto-Submitted"] == "auto-generated"
    assert parsedate_to_datetime(first["Date"]).tzinfo is not None
    assert first["Message-ID"] == second["Message-ID"]
    assert first["From"].startswith("sync-clients@")


@pytest.mark.rows("SC-25")
@pytest.mark.parametrize("implicit", [False, True])
def test_tls_and_sign_in(
    certificate: tuple[Path, Path], port: int, implicit: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With STARTTLS and with TLS from the first byte the mail is sent after a sign-in, and the password is nowhere."""
    caplog.set_level(logging.DEBUG)
    scheme = "smtps" if implicit else "smtp"
    with mailed(port, certificate, implicit=implicit) as mailbox:
        url = f"{scheme}://{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}?ca={certificate[0]}"
        monkeypatch.setenv("SYNCS_SMTP_URL", url)
        send(OPS, MESSAGE)
        assert mailbox.mails[0]["From"] == USER, "the one who signs in, if that is an address"

        monkeypatch.setenv("SYNCS_SMTP_URL", url.replace(quote(PASSWORD, safe=""), "wrong-secret"))
        with pytest.raises(ChannelError, match=rf"mail server 127.0.0.1:{port}: the sign-in is refused \(535\)") as raised:
            send(OPS, MESSAGE)
        monkeypatch.setenv("SYNCS_SMTP_URL", url.partition("?")[0])
        with pytest.raises(ChannelError, match="certificate is not trusted"):
            send(OPS, MESSAGE)
        assert len(mailbox.mails) == 1
    assert "wrong-secret" not in str(raised.value) + caplog.text
    assert PASSWORD not in caplog.text


def test_starttls_is_required(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that offers no STARTTLS gets no mail, unless the URL says that it may go in the clear."""
    monkeypatch.setenv("SYNCS_SMTP_URL", f"smtp://127.0.0.1:{mailbox.port}?starttls=yes")
    with pytest.raises(ChannelError, match="it offers no STARTTLS"):
        send(OPS, MESSAGE)
    assert mailbox.mails == []


@pytest.mark.rows("E-98")
def test_addresses_that_are_refused(mailbox: Mailbox, caplog: pytest.LogCaptureFixture) -> None:
    """One wrong address among others is a warning: sent again, the others would get it twice. Only wrong ones are an error."""
    mailbox.refused = {"gone@example.org"}
    send("mailto:gone@example.org,here@example.org", MESSAGE)
    assert [envelope.rcpt_tos for envelope in mailbox.envelopes] == [["here@example.org"]]
    assert "accepts no mail for gone@example.org: 550 5.1.1 nobody here" in caplog.text
    with pytest.raises(ChannelError, match=r"no address is accepted: 550 5\.1\.1 nobody here is called gone@example.org"):
        send("mailto:gone@example.org", MESSAGE)


def test_a_server_that_is_no_mail_server(port: int, hook: object) -> None:
    """What answers something else is an error, within its time."""
    where = Server("127.0.0.1", hook.port, "none")  # type: ignore[attr-defined]
    with pytest.raises(ChannelError, match=r"mail server 127\.0\.0\.1:\d+: "):
        post(where, ["ops@example.org"], MESSAGE, timeout=0.5)


def test_the_password_is_not_in_the_repr() -> None:
    """A server that is logged by mistake shows no password."""
    assert "geheim" not in repr(Server("h", user="u", password="geheim"))
