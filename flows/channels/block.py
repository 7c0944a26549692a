"""Notification blocks of the Prefect server, by name: the seam to the Prefect half, which alone imports Prefect."""

import re

from flows.channels.discreet import discreetly
from flows.channels.message import ChannelError, Message

_NAME = re.compile(r"block:(?:([a-z0-9][a-z0-9-]*)/)?([a-z0-9][a-z0-9-]*)")
"""Prefect allows lower-case letters, digits and dashes in both."""


def parts(recipient: str) -> tuple[str | None, str]:
    """Return type (`None` where it is left to be found) and name of the block.

    Raises:
        ChannelError: it is not written as one.
    """
    found = _NAME.fullmatch(recipient.strip())
    if found is None:
        raise ChannelError("a block is written block:name or block:type/name, with lower-case letters, digits and dashes")
    return found[1], found[2]


def check(recipient: str) -> str | None:
    """Return why it names no block, or `None`; whether the server has it, only the server knows."""
    parts(recipient)
    return None


def masked(recipient: str) -> str:
    """Return it as it is: the name of a block is no secret."""
    type_, name = parts(recipient)
    return f"block:{type_}/{name}" if type_ else f"block:{name}"


def send(recipient: str, message: Message, timeout: float) -> None:  # noqa: ARG001 - blocks have timeouts of their own
    """Load the block from the server that this project uses, and let it notify.

    Raises:
        ChannelError: no server, no such block, or the block says that it failed.
    """
    from flows.orchestration.address import api_url

    url = api_url()
    if url is None:
        raise ChannelError(f"{masked(recipient)}: no Prefect server is configured that could hold the block")
    from flows.orchestration.blocks import send_through

    with discreetly():
        send_through(url, *parts(recipient), message)
