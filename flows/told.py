"""Deprecated: use `flows.events.subscribe`, which takes the same events."""

import warnings
from collections.abc import Callable

from flows import events
from flows.events import ClientEvent

__all__ = ["subscribe"]

warnings.warn(
    "flows.told is deprecated: use flows.events.subscribe, and name the events of clients that you want",
    DeprecationWarning,
    stacklevel=2,
)


def subscribe(handler: Callable[[ClientEvent], object], *kinds: str) -> Callable[[], None]:
    """Call a function for these events of clients and runs, or for all of them; see `flows.events.subscribe`."""
    return events.subscribe(handler, *(kinds or events.CLIENT_EVENTS))
