"""Which channel a recipient means, what of it may be shown, and that nothing secret is ever told."""

import base64
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.channels import ChannelError, Message, check, masked, send
from tests.support.fake_channels import PASSWORD, Hook, Mailbox

MESSAGE = Message(
    "warning", "petstore is paused until 14:05 UTC", "Three errors in a row.", {"id": "17-opened", "client": "petstore"}
)
SECRET = "tok-5b7a-must-not-show"


@pytest.mark.rows("SC-25")
@pytest.mark.parametrize(
    ("recipient", "shown"),
    [
        ("mailto:ops@example.org", "mailto:ops@example.org"),
        ("mailto:a@x.org, b@x.org,a@x.org", "mailto:a@x.org,b@x.org"),
        ("MAILTO:a@x.org", "mailto:a@x.org"),
        ("mailto:nobody", "mailto:…"),
        (f"mailto:{SECRET}?smtp={SECRET}@x", "mailto:…"),
        (f"mailto://user:{SECRET}@mail.example.org", "mailto://…"),
        (f"mailtos://user:{SECRET}@mail.example.org?to=ops@example.org", "mailtos://…"),
        (f"https://hooks.slack.com/services/T0/B0/{SECRET}", "https://hooks.slack.com/…"),
        (f"https://user:{SECRET}@hooks.example.org:8443/?key={SECRET}", "https://hooks.example.org:8443/…"),
        (f"https://[::1]:9/{SECRET}", "https://[::1]:9/…"),
        (f"https://[{SECRET}", "https://…"),
        (f"https://:{SECRET}", "https://…"),
        (f"ntfy://{SECRET}", "ntfy://…"),
        (f"json://127.0.0.1/{SECRET}", "json://…"),
        (f"nosuchthing://{SECRET}", "nosuchthing://…"),
        ("block:slack-data-team", "block:slack-data-team"),
        ("block:slack-webhook/data-team", "block:slack-webhook/data-team"),
        (f"block:{SECRET}/UPPER/x", "…"),
        (f"{SECRET}", "…"),
        ("", "…"),
    ],
)
def test_what_people_see(recipient: str, shown: str) -> None:
    """Of a recipient people see an address, a host, a scheme or a block's name, never what may be secret."""
    assert masked(recipient) == shown
    assert SECRET not in (check(recipient) or "")


@pytest.mark.rows("SC-25")
@pytest.mark.parametrize(
    ("recipient", "reason"),
    [
        ("mailto:ops@example.org", "needs SYNCS_SMTP_URL, which is not set"),
        ("mailto:", "names no address"),
        ("mailto:ok@example.org,not-one", "address 2 has no @"),
        ("mailto:a@x.org?cc=b@x.org", "address 1 contains a character"),
        ("mailto:a b@x.org", "address 1 contains a character"),
        ("http://example.org/hook", "https:// only"),
        ("https://", "no URL"),
        ("https://exa mple.org/", "no URL"),
        ("https://example.org:99999/", "no URL"),
        ("ops@example.org", "no scheme; write mailto:"),
        ("nosuchthing://x", "no channel and no Apprise URL"),
        ("slack://too-short", "no channel and no Apprise URL"),
        ("block:", "block:name or block:type/name"),
        ("block:a/b/c", "block:name or block:type/name"),
    ],
)
def test_a_recipient_that_cannot_be_used(recipient: str, reason: str) -> None:
    """What is wrong with a recipient is one line, and sending to it says the same."""
    found = check(recipient)
    assert found is not None
    assert reason in found
    assert "\n" not in found
    with pytest.raises(ChannelError) as raised:
        send(recipient, MESSAGE)
    assert str(raised.value) == found


@pytest.mark.parametrize(
    "recipient",
    ["https://example.org/hook", "http://127.0.0.1:9/x", "http://localhost/x", "ntfy://topic", "block:ops", "tgram://1:abc/2"],
)
def test_a_recipient_that_can_be_used(recipient: str) -> None:
    """A good recipient is checked without asking anybody."""
    assert check(recipient) is None


@pytest.mark.rows("SC-25")
def test_a_webhook_gets_the_facts(hook: Hook) -> None:
    """A webhook gets one POST: level, subject, body, text for chat programs, and the facts."""
    send(hook.url(), MESSAGE)
    assert hook.posts == [
        {
            "id": "17-opened",
            "client": "petstore",
            "level": "warning",
            "subject": MESSAGE.subject,
            "body": MESSAGE.body,
            "text": f"{MESSAGE.subject}\n\n{MESSAGE.body}",
        }
    ]
    ((method, path, headers),) = hook.requests
    assert (method, path) == ("POST", f"/hook/{SECRET}")
    assert headers["content-type"].startswith("application/json")


@pytest.mark.rows("E-98")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 401, 404, 429, 500, 503])
def test_a_webhook_that_refuses(hook: Hook, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """An answer of 300 or more is an error without the URL; a redirect is not followed."""
    caplog.set_level(logging.DEBUG)
    hook.status = status
    hook.headers = {"location": "/elsewhere"} if status < 400 else {"retry-after": "30"}
    with pytest.raises(ChannelError) as raised:
        send(hook.url(), MESSAGE)
    assert str(status) in str(raised.value)
    assert ("redirects are not followed" in str(raised.value)) == (status < 400)
    assert f"127.0.0.1:{hook.port}" in str(raised.value)
    assert SECRET not in str(raised.value) + caplog.text
    assert [path for _, path, _ in hook.requests] == [f"/hook/{SECRET}"], "asked once, and nowhere else"


def test_a_webhook_with_letters_beyond_ascii(hook: Hook) -> None:
    """They are quoted as a browser does it, and what is quoted already stays as it is."""
    send(hook.url("grün/a%2Fb?größe=1&x=%C3%A4"), Message("error", "s", "b"))
    assert [path for _, path, _ in hook.requests] == ["/gr%C3%BCn/a%2Fb?gr%C3%B6%C3%9Fe=1&x=%C3%A4"]


def test_a_webhook_with_a_sign_in(hook: Hook) -> None:
    """A user and password in the URL go as Basic auth, and are not asked for as a part of the host."""
    send(f"http://me%40x.org:p%2Fw@127.0.0.1:{hook.port}?key=1#not-sent", MESSAGE)
    ((_, path, headers),) = hook.requests
    assert path == "/?key=1"
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"me@x.org:p/w"


@pytest.mark.rows("E-98")
@pytest.mark.parametrize("form", ["http", "json"])
def test_a_receiver_that_is_slow(hook: Hook, form: str) -> None:
    """A receiver that does not answer costs no more than the timeout, also over Apprise."""
    hook.delay = 100
    began = time.monotonic()
    with pytest.raises(ChannelError):
        send(hook.url(scheme=form), MESSAGE, timeout=0.5)
    assert time.monotonic() - began < 60


@pytest.mark.rows("E-98")
@pytest.mark.parametrize("form", ["http", "json", "mailto"])
def test_a_receiver_that_is_down(form: str, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection is one line without secrets, in the error and in the log."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SYNCS_SMTP_URL", f"smtp://user:{SECRET}@127.0.0.1:{port}")
    recipient = "mailto:ops@example.org" if form == "mailto" else f"{form}://127.0.0.1:{port}/{SECRET}"
    with pytest.raises(ChannelError) as raised:
        send(recipient, MESSAGE)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value) + repr(raised.value) + caplog.text
    assert raised.value.__cause__ is None


@pytest.mark.rows("SC-25")
def test_an_apprise_url(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    """An Apprise URL is served by Apprise, with the level as the kind of the message, and nothing of the URL is logged."""
    caplog.set_level(logging.DEBUG)
    send(hook.url(scheme="json"), MESSAGE)
    (post,) = hook.posts
    assert (post["title"], post["message"], post["type"]) == (MESSAGE.subject, MESSAGE.body, "warning")
    assert SECRET not in caplog.text


@pytest.mark.rows("E-98")
def test_an_apprise_url_that_fails(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    """What Apprise could not deliver is an error, without its own words, which may hold tokens."""
    caplog.set_level(logging.DEBUG)
    hook.status = 401
    with pytest.raises(ChannelError, match=r"json://…: Apprise could not deliver it") as raised:
        send(hook.url(scheme="json"), MESSAGE)
    assert SECRET not in str(raised.value) + caplog.text
    logging.getLogger("apprise").warning("said by others")
    assert "said by others" in caplog.text, "others are heard again"


def test_a_plugin(plugin: Callable[[str, str, str], None], tmp_path: Path) -> None:
    """A channel of one's own is one function, announced as an entry point under its scheme."""
    text = f"import pathlib\ndef page(to, message): pathlib.Path({str(tmp_path)!r}, 'paged').write_text(to + message.level)\n"
    plugin("pager", "page", text)
    assert check("pager:ops") is None
    assert masked(f"pager:{SECRET}") == "pager:…"
    send("pager:ops", MESSAGE)
    assert (tmp_path / "paged").read_text() == "pager:opswarning"


@pytest.mark.rows("E-98")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def page(recipient, message): raise RuntimeError(recipient)", "pager:…: RuntimeError"),
        (
            "from flows.channels import ChannelError as E\ndef page(recipient, message): raise E(f'no line\\n to {recipient}')",
            "pager:… no line to pager:…",
        ),
        ("import time\ndef page(recipient, message): time.sleep(30)", "pager:…: not done within 0.5 s"),
        ("def page(recipient, message): raise SystemExit(3)", "pager:…: SystemExit"),
    ],
)
def test_a_plugin_that_fails(plugin: Callable[[str, str, str], None], text: str, reason: str) -> None:
    """Whatever a plugin raises, or if it hangs, it is one line without the recipient."""
    plugin("pager", "page", text)
    with pytest.raises(ChannelError) as raised:
        send(f"pager:{SECRET}", MESSAGE, timeout=0.5 if "sleep" in text else 30)
    assert str(raised.value) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [("import nothing_like_it", "cannot be imported (ModuleNotFoundError)"), ("page = 3", "is no function")],
)
def test_a_plugin_that_is_broken(plugin: Callable[[str, str, str], None], text: str, reason: str) -> None:
    """A plugin that cannot be used is what `check` says."""
    plugin("pager", "page", text)
    assert reason in (check("pager:x") or "")


def test_a_plugin_takes_no_scheme_of_ours(plugin: Callable[[str, str, str], None], hook: Hook) -> None:
    """No package can get between us and mails, webhooks or blocks."""
    plugin("http", "page", "def page(recipient, message): raise RuntimeError")
    send(hook.url(), MESSAGE)
    assert len(hook.posts) == 1


def test_a_block_without_a_server() -> None:
    """A block needs a server that holds it."""
    with pytest.raises(ChannelError, match=r"block:slack-webhook/ops: no Prefect server is configured"):
        send("block:slack-webhook/ops", MESSAGE)


def test_mail_by_the_project_settings(mailbox: Mailbox) -> None:
    """A mail goes to all its addresses over SYNCS_SMTP_URL, in one sending."""
    send("mailto:a@example.org,b@example.org", MESSAGE)
    (envelope,) = mailbox.envelopes
    assert envelope.rcpt_tos == ["a@example.org", "b@example.org"]
    assert PASSWORD not in str(mailbox.mails[0])
