"""Holds the carrier that sends the messages of this process in place of its own channels.

There is none unless the code that starts the process sets one. Importing this module imports no other one, so that the command
line can set it at its start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.channels import Carrier


def _none() -> Carrier | None:
    return None


_find: Callable[[], Carrier | None] = _none


def use_carrier(find: Callable[[], Carrier | None]) -> Callable[[], None]:
    """Let all messages of this process go through a carrier.

    Args:
        find: returns the carrier, or `None` where the channels should send; called when there is something to send.

    Returns:
        A function that restores what was in use before.
    """
    global _find
    before, _find = _find, find

    def restore() -> None:
        global _find  # noqa: PLW0603
        _find = before

    return restore


def carrier() -> Carrier | None:
    """Return the carrier of this process, if it has one."""
    return _find()
