"""docs/channels.md says what is so; here, because it needs the servers of the channels."""

import re
from collections.abc import Callable

import pytest

from flows.channels import ChannelError, Message, check, masked, send
from flows.channels.mail import Server
from tests import ROOT

TEXT = (ROOT / "docs" / "channels.md").read_text()


def _column(heading: str) -> list[str]:
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def test_the_recipients_can_be_used(monkeypatch: pytest.MonkeyPatch, plugin: Callable[[str, str, str], None]) -> None:
    """Each recipient of the table is one, and no token of them is shown."""
    monkeypatch.setenv("SYNCS_SMTP_URL", "smtp://127.0.0.1:1025")
    plugin("pager", "page", "def page(recipient, message): ...")
    found = _column("Recipients")
    assert len(found) == 6
    assert {one: check(one) for one in found} == dict.fromkeys(found)
    assert not any("Token" in masked(one) for one in found)


def test_the_urls_can_be_used() -> None:
    """Each SMTP URL of the table is one, with the port that the table says."""
    found = [Server.of(url) for url in _column("Mail")]
    assert [(one.port, one.security) for one in found] == [
        (587, "starttls"), (465, "ssl"), (25, "none"), (1025, "none"), (587, "starttls")
    ]  # fmt: skip


def test_the_plugin_is_one(plugin: Callable[[str, str, str], None], hook: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of a plugin works, and what it raises is shown."""
    code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]
    scheme, function = re.findall(r'^(\w+) = "\w+:(\w+)"$', TEXT, re.MULTILINE)[0]
    port = hook.port  # type: ignore[attr-defined]
    plugin(scheme, function, code.replace("pager.internal", f"127.0.0.1:{port}"))
    send("pager:night-shift", Message("warning", "not for pagers", ""))
    send("pager:night-shift", Message("error", "petstore is paused", ""))
    assert [path for _, path, _ in hook.requests] == ["/night-shift"]  # type: ignore[attr-defined]
    hook.close()  # type: ignore[attr-defined]
    with pytest.raises(ChannelError, match="does not answer"):
        send("pager:night-shift", Message("error", "petstore is paused", ""))
