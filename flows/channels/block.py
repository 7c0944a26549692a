"""Sends through a notification block of the Prefect server, named `block:name` or `block:type/name`."""

import re

from flows.channels import plugins
from flows.channels.message import ChannelError, Message
from flows.channels.quiet_logs import silenced
from flows.project.prefect_address import api_url

_NAME = re.compile(r"block:(?:([a-z0-9][a-z0-9-]*)/)?([a-z0-9][a-z0-9-]*)")
"""Prefect allows lower-case letters, digits and dashes in both names."""


def parts(recipient: str) -> tuple[str | None, str]:
    """Return the type of the block, `None` if it is not given, and its name.

    Raises:
        ChannelError: the recipient names no block.
    """
    found = _NAME.fullmatch(recipient.strip())
    if found is None:
        raise ChannelError("a block is written block:name or block:type/name, with lower-case letters, digits and dashes")
    return found[1], found[2]


def check(recipient: str) -> str | None:
    """Return why a recipient names no block, or `None`. Whether the server has the block is not asked."""
    parts(recipient)
    return None


def masked(recipient: str) -> str:
    """Return the recipient as it is, because the name of a block is no secret."""
    type_, name = parts(recipient)
    return f"block:{type_}/{name}" if type_ else f"block:{name}"


def send(recipient: str, message: Message, timeout: float) -> None:  # noqa: ARG001 - blocks have timeouts of their own
    """Load the block from the server of this project, and send.

    Raises:
        ChannelError: there is no server or no such block, or the block reports a failure.
    """
    if api_url() is None:
        raise ChannelError(f"{masked(recipient)}: no Prefect server is configured that could hold the block")
    with silenced():
        plugins.load_own("block")(recipient, message)
