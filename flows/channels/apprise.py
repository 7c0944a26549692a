"""Apprise URLs: Slack, Matrix, Telegram, ntfy and a hundred more. Any part of one may be a secret, the host too."""

from typing import TYPE_CHECKING

from flows.channels.discreet import discreetly
from flows.channels.message import ChannelError, Message

if TYPE_CHECKING:
    from apprise import NotifyBase


def check(recipient: str) -> str | None:
    """Return why Apprise cannot use it, or `None`."""
    return None if _service(recipient) is not None else f"{masked(recipient)}: no channel and no Apprise URL is written so"


def masked(recipient: str) -> str:
    """Return the scheme. Apprise's own `privacy` form shows the topics of ntfy and the paths of `json://`."""
    name, _, rest = recipient.partition(":")
    return f"{name.lower()}:{'//' if rest.startswith('//') else ''}…"


def send(recipient: str, message: Message, timeout: float) -> None:
    """Let Apprise notify.

    Raises:
        ChannelError: it says that it could not.
    """
    from apprise import NotifyType

    service = _service(recipient)
    if service is None:
        raise ChannelError(f"{masked(recipient)}: no channel and no Apprise URL is written so")
    service.socket_read_timeout = service.socket_connect_timeout = timeout
    kinds = {"error": NotifyType.FAILURE, "warning": NotifyType.WARNING}
    with discreetly():
        done = service.notify(body=message.body, title=message.subject, notify_type=kinds.get(message.level, NotifyType.INFO))
    if not done:
        raise ChannelError(f"{masked(recipient)}: Apprise could not deliver it; try `apprise -vv` with this URL")


def _service(recipient: str) -> "NotifyBase | None":
    from apprise import Apprise

    with discreetly():
        found: NotifyBase | None = Apprise.instantiate(recipient, suppress_exceptions=True)
    return found
