"""What goes through a channel, and what is raised when it does not. Knows no channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Message:
    """One message to people.

    Args:
        level: `notice`, `warning` or `error`.
        subject: one line.
        body: plain text.
        data: the facts as JSON values, for webhooks; `id`, where it has one, names the message in mails.
    """

    level: str
    subject: str
    body: str
    data: Mapping[str, Any] = field(default_factory=dict)


class ChannelError(Exception):
    """A message did not go out. Its text is one line without a secret, and says whose matter it is."""
