"""Who carries messages in place of this process: the seam to Prefect's automations."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from flows.channels.message import Message


class Carrier(Protocol):
    """Takes messages on. It keeps nothing itself: any process may ask what became of what another one handed over.

    The message's `data` names it: `id` (one for each message, and the same when it is tried again), `event`
    (`sync.client.paused`, `.resumed`, `sync.run.failed`, `.partial`, `.recovered`, …), `client`, and where there is one `sync`
    and `run` (the id of the Prefect flow run).
    """

    def carry(self, message: Message, recipients: Sequence[str]) -> AbstractSet[str]:
        """Hand a message over, and return those of the recipients that it is now on its way to.

        The others (no automation sends to them, or it is switched off, or the server does not answer) are for the caller.
        Handed over twice within five minutes it goes out once. Raises nothing but programming errors.

        Args:
            message: what to say.
            recipients: as declared; the same that the client and level have.
        """
        ...

    def outcome(self, message: Message, recipients: Sequence[str]) -> Mapping[str, bool]:
        """Return what is known by now, by recipient: True for sent, False for failed; who is missing is not known of.

        An answer takes up to six seconds after `carry`. Raises nothing but programming errors.

        Args:
            message: as it was handed over.
            recipients: those that `carry` returned.
        """
        ...
