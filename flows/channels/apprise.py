"""Sends through Apprise: Slack, Matrix, Telegram, ntfy and a hundred others. Any part of an Apprise URL may be a secret."""

from typing import TYPE_CHECKING

from flows.channels.message import ChannelError, Message
from flows.channels.quiet_logs import silenced

if TYPE_CHECKING:
    from apprise import NotifyBase


def check(recipient: str) -> str | None:
    """Return why Apprise cannot use a URL, or `None`."""
    return None if _service(recipient) is not None else f"{masked(recipient)}: this is no channel and no Apprise URL"


def masked(recipient: str) -> str:
    """Return the scheme alone, because Apprise's own `privacy` form shows the topics of ntfy and the paths of `json://`."""
    name, _, rest = recipient.partition(":")
    return f"{name.lower()}:{'//' if rest.startswith('//') else ''}…"


def send(recipient: str, message: Message, timeout: float) -> None:
    """Send a message.

    Raises:
        ChannelError: Apprise reports that it could not.
    """
    from apprise import NotifyType

    service = _service(recipient)
    if service is None:
        raise ChannelError(f"{masked(recipient)}: this is no channel and no Apprise URL")
    service.socket_read_timeout = service.socket_connect_timeout = timeout
    kinds = {"error": NotifyType.FAILURE, "warning": NotifyType.WARNING}
    with silenced():
        done = service.notify(body=message.body, title=message.subject, notify_type=kinds.get(message.level, NotifyType.INFO))
    if not done:
        raise ChannelError(f"{masked(recipient)}: Apprise could not deliver it; try `apprise -vv` with this URL")


def _service(recipient: str) -> "NotifyBase | None":
    from apprise import Apprise

    with silenced():
        found: NotifyBase | None = Apprise.instantiate(recipient, suppress_exceptions=True)
    return found
