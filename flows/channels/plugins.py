"""Channels that other distributions bring: entry points of the group `sync_clients.channels`.

The name is the scheme of the recipients, the object a function `(recipient, message) -> None` that raises what it likes.
"""

from importlib.metadata import EntryPoint, entry_points

from flows.channels.message import ChannelError, Message

GROUP = "sync_clients.channels"


def is_there(scheme: str) -> bool:
    """Tell whether a plugin serves this scheme."""
    return bool(entry_points(group=GROUP, name=scheme))


class Plugin:
    """The channel of one scheme.

    Args:
        scheme: a plugin serves it.
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
        """Return the scheme: what follows is known to the plugin only."""
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
