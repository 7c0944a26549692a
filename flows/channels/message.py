"""A message to people, the error of one that was not sent, and the interface of what may carry messages for a process."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Protocol

LEVELS = ("notice", "warning", "error")
"""The levels of messages, from the lowest."""


@dataclass(frozen=True)
class Message:
    """One message to people.

    Args:
        level: one of `LEVELS`.
        subject: one line.
        body: plain text.
        data: the facts as JSON values, for webhooks and carriers: `id` (the same when the message is sent again), `event`
            (`sync.client.paused`, `sync.run.failed`, …), `client`, and where there is one `sync` and `run` (the id of the
            Prefect flow run).
    """

    level: str
    subject: str
    body: str
    data: Mapping[str, Any] = field(default_factory=dict)


class ChannelError(Exception):
    """A message was not sent. The text is one line without secrets that says why."""


class Carrier(Protocol):
    """Sends messages for this process, as the automations of a Prefect server do.

    It keeps no state of its own, so any process may ask for the outcome of a message that another one handed over.
    """

    def carry(self, message: Message, recipients: Sequence[str]) -> AbstractSet[str]:
        """Hand a message over; return those of the recipients to whom it will be sent.

        The caller sends to the others: no automation sends to them, it is switched off, or the server does not answer. A message
        that is handed over twice within five minutes is sent once. Raises nothing but programming errors.

        Args:
            message: its `data` has an `id`, an `event` and a `client`.
            recipients: as declared for the message's client and level.
        """
        ...

    def outcome(self, message: Message, recipients: Sequence[str]) -> Mapping[str, bool]:
        """Return what is known by now, by recipient: `True` for sent, `False` for failed.

        An outcome takes up to six seconds after `carry`. Raises nothing but programming errors.

        Args:
            message: as it was handed over.
            recipients: those that `carry` returned.
        """
        ...
