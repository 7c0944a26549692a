"""Sends the messages that are due: through the process's carrier where there is one, else through the channels.

The carrier gets a message at the first attempt only; what it refuses, or does not confirm in time, goes out directly. What
cannot be sent stays in the outbox, each time for longer, until a process sends it: a worker, the next run, `syncs maintain`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flows.channels import Carrier, ChannelError, Message, send
from flows.declarations.client import Client
from flows.notices.recipients import Recipients
from flows.project.settings import Settings
from jobs.notices.outbox import ClaimedMessage, Delivery
from jobs.store import JobStore

log = logging.getLogger("syncs.notices")

ROUND = 60.0
"""Seconds after which a round begins no further message."""

TIMEOUT = 10.0
"""Seconds for one sending."""

CONFIRM_WITHIN = 15.0
"""Seconds that a carrier has to confirm what it took. By default a Prefect server reports a sending up to five seconds late, and
the sending takes time too; with a shorter wait, messages would go out twice."""

_POLL = 0.2
_UNKNOWN = 600.0
"""Seconds until a recipient that this process does not find declared is tried again; another process may know it."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The result of a round, counted by recipient."""

    sent: int = 0
    failed: int = 0

    def __add__(self, other: "Delivered") -> "Delivered":
        return Delivered(self.sent + other.sent, self.failed + other.failed)


class Deliverer:
    """Sends the messages of some clients. Several processes may do so at once, because each message is taken with a lease.

    Args:
        store: where the messages are.
        clients: whose messages it sends, by id.
        carrier: gets each message first.
        settings: the project's; by default those of the environment.
        timeout: seconds for one sending.
    """

    def __init__(
        self,
        store: JobStore,
        clients: Mapping[str, Client],
        carrier: Carrier | None = None,
        *,
        settings: Settings | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._store, self._clients, self._carrier = store, clients, carrier
        self._settings, self._timeout = settings, timeout
        self._recipients: Recipients | None = None
        #: Recipients that failed in this round, with the error: further messages to them wait, and delay no other recipient.
        self._down: dict[str, str] = {}

    def deliver(self, within: float = ROUND, *, stop: Callable[[], bool] = lambda: False) -> Delivered:
        """Send what is due. What a channel refuses is stored, logged and tried again later.

        Args:
            within: seconds after which no further message is taken.
            stop: asked between two messages, after the first.

        Raises:
            SettingsError: the settings that name recipients cannot be read.
            SQLAlchemyError: the database failed; a message that was sent and not marked goes out again after its lease.
        """
        until, after, done = time.monotonic() + within, 0, Delivered()
        before, tried = 0, False
        self._down.clear()
        while time.monotonic() < until and not (tried and stop()):
            message = self._store.outbox.claim(list(self._clients), after=after)
            if message is None:
                if done.sent == before:
                    return done
                # Sending one may have made earlier ones to the same recipient due.
                after, before = 0, done.sent
                continue
            tried = True
            # Goes on with the next one even if this one cannot be sent, because it is not due any more.
            after = message.id
            done += self._send(message)
        return done

    def _send(self, taken: ClaimedMessage) -> Delivered:
        if self._recipients is None:
            self._recipients = Recipients(self._clients, self._settings)
        message = Message(taken.level, taken.subject, taken.body, taken.data)
        known, done = [], Delivered()
        for one in taken.deliveries:
            recipient = self._recipients.find(taken.client, one.recipient)
            if recipient is None:
                done += self._failed(one, "nothing here declares this recipient (any more)", seconds=_UNKNOWN)
            else:
                known.append((one, recipient))
        carried = self._carry(message, known)
        for one, recipient in known:
            if recipient in carried:
                self._store.outbox.mark_sent(one, via="prefect")
                done += Delivered(sent=1)
        rest = [(one, recipient) for one, recipient in known if recipient not in carried]
        if not rest:
            return done
        # In parallel, so that a channel that hangs delays no other.
        with ThreadPoolExecutor(min(8, len(rest)), thread_name_prefix="syncs-delivery") as pool:
            return sum(pool.map(lambda to: self._direct(message, *to), rest), done)

    def _carry(self, message: Message, known: Sequence[tuple[Delivery, str]]) -> set[str]:
        """Give the message to the carrier; return the recipients to whom it confirms to have sent it."""
        carrier = self._carrier
        if carrier is None or not known:
            return set()
        recipients = [recipient for _, recipient in known]
        if any(one.attempts > 1 for one, _ in known):
            if not any(one.is_orphan for one, _ in known):
                return set()
            # The process that had the message may have given it to the carrier, and died.
            return _sent(carrier.outcome(message, recipients))
        taken = carrier.carry(message, recipients)
        if not taken:
            return set()
        until = time.monotonic() + CONFIRM_WITHIN
        while True:
            outcome = carrier.outcome(message, sorted(taken))
            if set(outcome) >= set(taken) or time.monotonic() >= until:
                break
            time.sleep(_POLL)
        if set(outcome) < set(taken):
            # The other messages of this round do not wait for a carrier that does not answer.
            self._carrier = None
            log.warning("Prefect did not say within %g s what became of a notice; it is sent directly", CONFIRM_WITHIN)
        return _sent(outcome)

    def _direct(self, message: Message, one: Delivery, recipient: str) -> Delivered:
        if recipient in self._down:
            return self._failed(one, self._down[recipient], quiet=True)
        # While this process was stopped, another one may have sent it.
        if not self._store.outbox.is_claimed(one, seconds=self._timeout):
            return Delivered()
        try:
            send(recipient, message, timeout=self._timeout)
        except ChannelError as error:
            self._down[recipient] = str(error)
            return self._failed(one, str(error))
        if not self._store.outbox.mark_sent(one, via="direct"):
            log.warning("a notice to %s took so long that another process may have sent it too", one.masked)
        return Delivered(sent=1)

    def _failed(self, one: Delivery, error: str, *, seconds: float | None = None, quiet: bool = False) -> Delivered:
        self._store.outbox.mark_failed(one, error, seconds=seconds)
        if one.is_last:
            log.error("a notice to %s is given up: %s", one.masked, error)
        elif not quiet:
            log.warning("a notice to %s did not go out and is tried again: %s", one.masked, error)
        return Delivered(failed=1)


def _sent(outcome: Mapping[str, bool]) -> set[str]:
    return {recipient for recipient, sent in outcome.items() if sent}
