"""Sends the letters that are due: over a carrier where there is one (`flows.channels.Carrier`), else by the channels.

The carrier is asked at the first attempt only; what it does not take, or does not confirm in time, goes out directly. What does
not go out waits in the table, longer each time, for whoever comes next: another worker, the next run, `syncs maintain`, this
process after a restart. Knows no cause of trouble.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flows.channels import Carrier, ChannelError, Message, send
from flows.declaration import Client
from flows.recipients import Recipients
from flows.settings import Settings
from jobs.letter import Delivery, TakenLetter
from jobs.store import JobStore

log = logging.getLogger("syncs.notices")

WITHIN = 60.0
"""Seconds that one round takes at most, but for the letter in hand."""

TIMEOUT = 10.0
"""Seconds for one sending."""

CARRYING = 15.0
"""Seconds that a carrier has to confirm what it took. A Prefect server with its own defaults keeps the news of a sending to
itself for up to five, and the sending may take some too; given up too early, a letter goes out twice."""

_LOOK = 0.2
_UNKNOWN = 600.0
"""Seconds until a recipient is looked for again that this process does not find declared: another one may."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a round came to, counted by recipient."""

    sent: int = 0
    failed: int = 0

    def __add__(self, other: "Delivered") -> "Delivered":
        return Delivered(self.sent + other.sent, self.failed + other.failed)


class Postman:
    """Sends for one process. Any number of them may be at it: each letter is taken with a lease.

    Args:
        store: where the letters are.
        clients: those whose letters it sends, by id: it knows their recipients.
        carrier: who may send on our behalf.
        settings: the project's; by default those of the environment.
        timeout: seconds for one sending.
    """

    def __init__(
        self, store: JobStore, clients: Mapping[str, Client], carrier: Carrier | None = None, *,
        settings: Settings | None = None, timeout: float = TIMEOUT,
    ) -> None:  # fmt: skip
        self._store, self._clients, self._carrier = store, clients, carrier
        self._settings, self._timeout = settings, timeout
        self._recipients: Recipients | None = None
        #: Recipients that did not take a letter in this round: the others to them wait, and keep nobody else waiting.
        self._down: dict[str, str] = {}

    def deliver(self, within: float = WITHIN, *, stop: Callable[[], bool] = lambda: False) -> Delivered:
        """Send what is due. What a channel does not take is noted, logged and tried again later; it raises nothing (E-98).

        Args:
            within: seconds after which no further letter is taken.
            stop: asked between two letters, after the first.

        Raises:
            SettingsError: the settings that name recipients cannot be read.
            SQLAlchemyError: the database failed; a letter that was sent and not noted goes out again after its lease.
        """
        until, after, done = time.monotonic() + within, 0, Delivered()
        before, tried = 0, False
        self._down.clear()
        while time.monotonic() < until and not (tried and stop()):
            letter = self._store.letters.take(list(self._clients), after=after)
            if letter is None:
                if done.sent == before:
                    return done
                # Who took one may have earlier ones to get, which were not due when they were passed.
                after, before = 0, done.sent
                continue
            tried = True
            # The next one, also where this one did not go out: it is not due any more.
            after = letter.id
            done += self._send(letter)
        return done

    def _send(self, letter: TakenLetter) -> Delivered:
        if self._recipients is None:
            self._recipients = Recipients(self._clients, self._settings)
        message = Message(letter.level, letter.subject, letter.body, letter.data)
        known, done = [], Delivered()
        for one in letter.deliveries:
            recipient = self._recipients.find(letter.client, one.recipient)
            if recipient is None:
                done += self._failed(one, "nothing here declares this recipient (any more)", seconds=_UNKNOWN)
            else:
                known.append((one, recipient))
        carried = self._carry(message, known)
        for one, recipient in known:
            if recipient in carried:
                self._store.letters.sent(one, via="prefect")
                done += Delivered(sent=1)
        rest = [(one, recipient) for one, recipient in known if recipient not in carried]
        if not rest:
            return done
        # At once to all: a channel that hangs keeps no other waiting.
        with ThreadPoolExecutor(min(8, len(rest)), thread_name_prefix="syncs-postman") as pool:
            return sum(pool.map(lambda to: self._direct(message, *to), rest), done)

    def _carry(self, message: Message, known: Sequence[tuple[Delivery, str]]) -> set[str]:
        """Let the carrier try; return the recipients of whom it says that they have it."""
        carrier = self._carrier
        if carrier is None or not known:
            return set()
        recipients = [recipient for _, recipient in known]
        if any(one.attempts > 1 for one, _ in known):
            # Whoever had it first may have handed it over, and died.
            is_orphan = any(one.is_orphan for one, _ in known)
            return {one for one, sent in carrier.outcome(message, recipients).items() if sent} if is_orphan else set()
        taken = carrier.carry(message, recipients)
        if not taken:
            return set()
        until = time.monotonic() + CARRYING
        while True:
            outcome = carrier.outcome(message, sorted(taken))
            if set(outcome) >= set(taken) or time.monotonic() >= until:
                break
            time.sleep(_LOOK)
        if set(outcome) < set(taken):
            # Silence: the next letters of this round do not wait for it.
            self._carrier = None
            log.warning("Prefect did not say within %g s what became of a notice; it is sent directly", CARRYING)
        return {recipient for recipient, sent in outcome.items() if sent}

    def _direct(self, message: Message, one: Delivery, recipient: str) -> Delivered:
        if recipient in self._down:
            return self._failed(one, self._down[recipient], quiet=True)
        # A process that was stopped for a while may find that another one has sent it.
        if not self._store.letters.holds(one, seconds=self._timeout):
            return Delivered()
        try:
            send(recipient, message, timeout=self._timeout)
        except ChannelError as error:
            self._down[recipient] = str(error)
            return self._failed(one, str(error))
        if not self._store.letters.sent(one, via="direct"):
            log.warning("a notice to %s took so long that another process may have sent it, too", one.masked)
        return Delivered(sent=1)

    def _failed(self, one: Delivery, error: str, *, seconds: float | None = None, quiet: bool = False) -> Delivered:
        self._store.letters.failed(one, error, seconds=seconds)
        if one.is_last:
            log.error("a notice to %s is given up: %s", one.masked, error)
        elif not quiet:
            log.warning("a notice to %s did not go out and is tried again: %s", one.masked, error)
        return Delivered(failed=1)
