"""Loads channels from entry points of the group `sync_clients.channels`.

The name of an entry point is the scheme of the recipients; its object is a function `(recipient, message) -> None` that may raise
anything.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from flows.channels.message import ChannelError, Message

GROUP = "sync_clients.channels"


def exists(scheme: str) -> bool:
    """Tell whether a plugin serves this scheme."""
    return bool(entry_points(group=GROUP, name=scheme))


def load_own(scheme: str) -> Callable[[str, Message], None]:
    """Return the function of a channel that sync-clients itself brings, whatever other distributions bring under its name.

    Raises:
        ChannelError: the metadata of the installed distribution is older than this code.
    """
    for found in entry_points(group=GROUP, name=scheme):
        if found.module.startswith("flows."):
            function: Callable[[str, Message], None] = found.load()
            return function
    raise ChannelError(f"{scheme}: sync-clients is installed without this channel; install it again")


class Plugin:
    """The channel of one scheme, from another distribution.

    Args:
        scheme: one for which `exists`.
    """

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def check(self, recipient: str) -> str | None:
        """Return why the plugin cannot be used, or `None`."""
        found: tuple[EntryPoint, ...] = tuple(entry_points(group=GROUP, name=self._scheme))
        if len(found) > 1:
            names = ", ".join(sorted(one.dist.name if one.dist else "?" for one in found))
            return f"{self._scheme}: several distributions bring this channel: {names}"
        try:
            function = found[0].load()
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything while it is imported
            return f"{self._scheme}: its plugin {found[0].value} cannot be imported ({type(error).__name__})"
        return None if callable(function) else f"{self._scheme}: its plugin {found[0].value} is no function"

    def masked(self, recipient: str) -> str:
        """Return the scheme alone, because only the plugin knows what in the rest is secret."""
        return f"{self._scheme}:…"

    def send(self, recipient: str, message: Message, timeout: float) -> None:
        """Call the plugin."""
        (found,) = entry_points(group=GROUP, name=self._scheme)
        function = found.load()
        try:
            function(recipient, message)
        except ChannelError as error:
            # Its author may have put the recipient into the text.
            text = " ".join(str(error).replace(recipient, self.masked(recipient)).split())
            raise ChannelError(f"{self.masked(recipient)} {text}") from None
