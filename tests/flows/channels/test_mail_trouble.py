"""Mail servers in trouble: greylists, hangs, rudeness at QUIT, cuts in the middle of a mail."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from io import BufferedRWPair

import pytest

from flows.channels import ChannelError, Message, send
from flows.channels.mail import Server, post

MESSAGE = Message("error", "subject", "body\n", {"id": 1})
OPS = ["ops@example.org"]


class Script:
    """An SMTP server that answers as it is told to."""

    def __init__(self, **answers: str | None) -> None:
        #: By command: what it answers; `None` hangs up; "…" says nothing.
        self.answers = answers
        self.taken: list[str] = []
        self._closed = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as lines, contextlib.suppress(OSError):
            if not self._answer(connection, lines, "hello", "220 here"):
                return
            while line := lines.readline():
                word = line.split()[0].upper().decode() if line.split() else ""
                if word == "DATA":
                    if not self._answer(connection, lines, "data", "354 go") or not self._take(connection, lines):
                        return
                    word = "."
                usual = "221 bye" if word == "QUIT" else "250 fine"
                if not self._answer(connection, lines, word, usual) or word == "QUIT":
                    return

    def _take(self, connection: socket.socket, lines: BufferedRWPair) -> bool:
        text = b""
        while not text.endswith(b"\r\n.\r\n"):
            if self.answers.get("cut"):
                connection.shutdown(socket.SHUT_RDWR)
                return False
            line = lines.readline()
            if not line:
                # The client has gone. Reading on would keep a core of the machine busy until the last test.
                return False
            text += line
        self.taken.append(text.decode())
        return True

    def _answer(self, connection: socket.socket, lines: BufferedRWPair, name: str, usual: str) -> bool:
        said = self.answers.get(name, usual)
        if said is None:
            connection.shutdown(socket.SHUT_RDWR)
        elif said == "…":
            self._closed.wait(110)
        else:
            lines.write(said.encode() + b"\r\n")
            lines.flush()
            return True
        return False

    def close(self) -> None:
        """Stop."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Start servers."""
    started: list[Script] = []

    def start(**answers: str | None) -> Script:
        started.append(Script(**answers))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("answer", ["421 busy", "500 what", None, "…"])
def test_rude_at_the_end_is_sent_all_the_same(
    script: Callable[..., Script], answer: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has taken the mail: what it says to QUIT, or that it says nothing, makes nobody send it again."""
    server = script(QUIT=answer)
    monkeypatch.setenv("SYNCS_SMTP_URL", f"smtp://127.0.0.1:{server.port}")
    began = time.monotonic()
    send("mailto:ops@example.org", MESSAGE, timeout=100)
    assert time.monotonic() - began < 60
    assert len(server.taken) == 1


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"RCPT": "450 4.2.0 greylisted"}, "no address is accepted: 450 4.2.0 greylisted"),
        ({"MAIL": "550 not you"}, "550 not you"),
        ({"hello": "554 go away"}, "554 go away"),
        ({"data": "451 later"}, "451 later"),
        ({".": "552 too large"}, "552 too large"),
        ({"cut": "yes"}, "SMTPServerDisconnected"),
        ({".": None}, "SMTPServerDisconnected"),
        ({"hello": None}, "SMTPServerDisconnected"),
        ({"hello": "…"}, ""),
        ({"hello": "garbage" * 3000}, ""),
    ],
)
def test_what_a_server_says_is_one_line(script: Callable[..., Script], answers: dict[str, str], reason: str) -> None:
    """Whatever goes wrong: the mail is not sent, in time, and the reason is one line."""
    server = script(**answers)
    with pytest.raises(ChannelError) as raised:
        post(Server("127.0.0.1", server.port, "none"), OPS, MESSAGE, timeout=30 if reason else 1)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_an_address_beyond_ascii(script: Callable[..., Script]) -> None:
    """What a server cannot do is named, not something else."""
    server = script()
    with pytest.raises(ChannelError, match="it offers no SMTPUTF8, which addresses with other characters"):
        post(Server("127.0.0.1", server.port, "none"), ["grün@example.org"], MESSAGE, timeout=30)
    with pytest.raises(ChannelError, match="it offers no sign-in"):
        post(Server("127.0.0.1", server.port, "none", "user", "password"), OPS, MESSAGE, timeout=30)


@pytest.mark.parametrize(
    "text", ["a\x00b", "a\r\nBcc: x@y.z", "long " * 3000, "x" * 3000, "\u2028", "a\x0b\x0c\x85b", "=?utf-8?q?evil?="]
)
def test_odd_texts(script: Callable[..., Script], text: str) -> None:
    """Whatever a subject and a body hold, a mail has the headers that it should have, and no line that is too long."""
    server = script()
    post(Server("127.0.0.1", server.port, "none"), OPS, Message("error", text, text), timeout=30)
    (mail,) = server.taken
    head, _, _ = mail.partition("\r\n\r\n")
    names = {line.partition(":")[0] for line in head.splitlines() if not line.startswith((" ", "\t"))}
    assert "Bcc" not in names
    assert names >= {"From", "To", "Subject", "Date", "Message-ID"}
    assert max(map(len, mail.split("\r\n"))) <= 998
