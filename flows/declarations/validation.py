"""The checks that several declarations share: ids, priorities and durations."""

import inspect
from collections.abc import Sequence
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

from flows.errors import DeclarationError
from jobs import Queue

_FORBIDDEN_IN_IDS = frozenset("/\\:*?\"'<>| \t\n")
_INTEGER = 2**31


def check_id(kind: str, name: str) -> None:
    """Refuse an id that cannot be used in URLs, on a command line and in messages.

    Raises:
        DeclarationError: the id is not usable.
    """
    if not isinstance(name, str) or not name or len(name) > 200 or _FORBIDDEN_IN_IDS & set(name):
        raise DeclarationError(f"{kind} id {name!r} must be 1 to 200 characters without spaces, slashes, colons and quotes")


def keep_queue(declared: Any, what: str) -> None:
    """Keep the id of the queue of a declaration as `queue`, and a `Queue` itself as `own_queue`.

    Args:
        declared: has a `queue`: an id, a `Queue`, or None.
        what: the declaration, for the message.

    Raises:
        DeclarationError: it is something else.
    """
    queue = declared.queue
    if isinstance(queue, Queue):
        object.__setattr__(declared, "queue", queue.id)
        object.__setattr__(declared, "own_queue", queue)
    elif isinstance(queue, str):
        check_id("queue", queue)
    elif queue is not None:
        raise DeclarationError(f"{what}: queue must be an id or a Queue, got {type(queue).__name__}")


def check_arguments(what: str, function: Any, arguments: Sequence[str]) -> None:
    """Refuse a function that cannot be called with these arguments; one that does not say what it takes is not checked.

    Args:
        what: the declaration and the field, for the message.
        function: may take `settings` as well.
        arguments: what it is called with, by position.

    Raises:
        DeclarationError: it takes something else.
    """
    try:
        # What a decorator makes is called, and not what it wraps.
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    takes_settings = "settings" in signature.parameters and "settings" not in arguments
    further = {"settings": None} if takes_settings else {}
    try:
        signature.bind(*arguments, **further)
    except TypeError:
        raise DeclarationError(f"{what} is called with ({', '.join(arguments)}), and takes {signature}") from None


def check_priority(what: str, value: Any, error: type[Exception]) -> None:
    """Refuse a priority that the tables cannot store.

    Args:
        what: begins the message.
        value: the priority.
        error: the class to raise.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not -_INTEGER <= value < _INTEGER:
        raise error(f"{what} must be a whole number from {-_INTEGER:,} to {_INTEGER - 1:,}, got {value!r}")


def is_duration(seconds: object) -> bool:
    """Tell whether a value is a positive, finite number of seconds."""
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < inf


def check_zone(what: str, zone: Any) -> None:
    """Refuse what is not the name of a time zone.

    Args:
        what: the declaration, for the message.
        zone: the value.

    Raises:
        DeclarationError: there is no such zone.
    """
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise DeclarationError(f"{what}(zone=…) must name a time zone such as Europe/Berlin, got {zone!r}") from error
