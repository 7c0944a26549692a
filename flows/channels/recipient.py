"""Recipients as people write them: which channel one means, what of it may be shown, and sending to it.

    mailto:a@x.org,b@x.org            mail through SYNCS_SMTP_URL
    https://host/path                 webhook: the facts as a JSON POST (http:// to this machine only)
    block:name, block:type/name       a notification block of the Prefect server
    anything else that has a scheme   a plugin of this name, else an Apprise URL

Any of them may hold a password or a token, also where nobody would look for one (in the path of a webhook, as the host of an
Apprise URL). So nothing but `masked` is for people's eyes.
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
    """What a module of this package offers."""

    def check(self, recipient: str) -> str | None: ...
    def masked(self, recipient: str) -> str: ...
    def send(self, recipient: str, message: Message, timeout: float) -> None: ...


def check(recipient: str) -> str | None:
    """Return why a recipient cannot be used, as one line without secrets, or `None`. Asks nobody over the network.

    Args:
        recipient: as declared.
    """
    try:
        return _channel(recipient).check(recipient)
    except ChannelError as error:
        return str(error)


def masked(recipient: str) -> str:
    """Return what people may see of a recipient: an address, the host of a webhook, the scheme of all else.

    Args:
        recipient: as declared, or anything.
    """
    try:
        return _channel(recipient).masked(recipient)
    except ChannelError:
        return "…"


def send(recipient: str, message: Message, *, timeout: float = 10) -> None:
    """Send one message, and return when the channel took it.

    What took longer than `timeout` is an error, although the message may still arrive.

    Args:
        recipient: as declared.
        message: what to say.
        timeout: seconds for all of it.

    Raises:
        ChannelError: it did not go out.
    """
    channel = _channel(recipient)
    if (reason := channel.check(recipient)) is not None:
        raise ChannelError(reason)
    _within(timeout, lambda: channel.send(recipient, message, timeout), channel.masked(recipient))


def scheme(recipient: str) -> str:
    """Return the scheme of a recipient in lower case.

    Raises:
        ChannelError: it has none.
    """
    found = _SCHEME.match(recipient) if isinstance(recipient, str) else None
    if found is None:
        raise ChannelError(f"a recipient has no scheme; {_HINT}")
    return found[1].lower()


def _channel(recipient: str) -> _Channel:
    name = scheme(recipient)
    if name == "block":
        return block
    # `mailto://user:password@host` is Apprise's, and holds a password.
    if name == "mailto" and not recipient[len("mailto:") :].startswith("//"):
        return mail
    if name in ("http", "https"):
        return webhook
    return plugins.Plugin(name) if plugins.is_there(name) else apprise


def _within(seconds: float, call: Callable[[], None], to: str) -> None:
    """Call in a thread that is left to itself when its time is over: no library keeps a deadline for the whole of a sending."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except ChannelError as error:
            raised.append(error)
        except BaseException as error:  # noqa: BLE001 - a channel may be anybody's plugin, and may exit
            # By its class only: its text may hold the recipient, and with it a secret.
            raised.append(ChannelError(f"{to}: {type(error).__name__}"))

    thread = threading.Thread(target=run, name="syncs-channel", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise ChannelError(f"{to}: not done within {seconds:g} s")
    if raised:
        raise raised[0] from None
