"""Checks, masks and sends to recipients: chooses the channel by what the recipient looks like.

    mailto:a@x.org,b@x.org            mail through SYNCS_SMTP_URL
    https://host/path                 webhook: the facts as a JSON POST (http:// to this machine only)
    block:name, block:type/name       a notification block of the Prefect server
    anything else that has a scheme   a plugin of this name, else an Apprise URL

Any of them may contain a password or a token, even in the path of a webhook or as the host of an Apprise URL. So only the result
of `masked` may be shown or logged.
"""

import logging
import re
import threading
from collections.abc import Callable
from typing import Protocol

from flows.channels import apprise, block, mail, plugins, webhook
from flows.channels.message import ChannelError, Message

log = logging.getLogger("syncs.channels")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HINT = "write mailto:…, https://…, block:…, or an Apprise URL such as slack://…"


class _Channel(Protocol):
    """The functions of a channel's module."""

    def check(self, recipient: str) -> str | None: ...
    def masked(self, recipient: str) -> str: ...
    def send(self, recipient: str, message: Message, timeout: float) -> None: ...


def check(recipient: str) -> str | None:
    """Return why a recipient cannot be used, as one line without secrets, or `None`. Makes no request.

    Args:
        recipient: as declared.
    """
    try:
        return _channel(recipient).check(recipient)
    except ChannelError as error:
        return str(error)


def masked(recipient: str) -> str:
    """Return what may be shown of a recipient: a mail address, the host of a webhook, the name of a block, else the scheme."""
    try:
        return _channel(recipient).masked(recipient)
    except ChannelError:
        return "…"


def send(recipient: str, message: Message, *, timeout: float = 10) -> None:
    """Send one message, and return when the channel has taken it.

    A sending that takes longer than `timeout` is an error, although the message may still arrive.

    Args:
        recipient: as declared.
        message: what to send.
        timeout: seconds for all of it.

    Raises:
        ChannelError: it was not sent.
    """
    channel = _channel(recipient)
    if (reason := channel.check(recipient)) is not None:
        raise ChannelError(reason)
    _within(timeout, lambda: channel.send(recipient, message, timeout), channel.masked(recipient))


def scheme(recipient: str) -> str:
    """Return the scheme of a recipient in lower case.

    Raises:
        ChannelError: there is none.
    """
    found = _SCHEME.match(recipient) if isinstance(recipient, str) else None
    if found is None:
        raise ChannelError(f"a recipient has no scheme; {_HINT}")
    return found[1].lower()


def _channel(recipient: str) -> _Channel:
    name = scheme(recipient)
    if name == "block":
        return block
    # `mailto://user:password@host` is an Apprise URL with a password.
    if name == "mailto" and not recipient[len("mailto:") :].startswith("//"):
        return mail
    if name in ("http", "https"):
        return webhook
    return plugins.Plugin(name) if plugins.exists(name) else apprise


def _within(seconds: float, call: Callable[[], None], to: str) -> None:
    """Call in a thread that is abandoned after so many seconds, because no library has a deadline for a whole sending."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except ChannelError as error:
            raised.append(error)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, and may exit
            # Only its class: the text may contain the recipient, and with it a secret.
            raised.append(ChannelError(f"{to}: {type(error).__name__}"))

    thread = threading.Thread(target=run, name="syncs-channel", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise ChannelError(f"{to}: not done within {seconds:g} s")
    if raised:
        raise raised[0] from None
