"""Whether a run may ask its client for anything, and what the answers to its listing mean for the client. Knows no job."""

import threading
import time
from datetime import datetime

from flows.declaration import Client
from flows.health import Health
from flows.hours import Hours
from flows.lister import Ended
from flows.prober import Prober
from flows.teller import Teller
from jobs.job import Verdict
from jobs.outcome import Failure, Success
from jobs.pause import Pausing, Standing
from jobs.probe import Probe
from jobs.store import JobStore

TESTED = 5.0
"""Seconds that a run waits for another worker that tests the client; if it takes longer, the next run comes (law 6)."""

POLL = 0.25
"""Seconds between two looks at how that goes."""


class Gate:
    """The pauses of one client, as one run sees them.

    A claim reads pauses by itself; a listing asks here before each page.

    Args:
        store: where pauses are.
        client: whose.
        worker: who runs.
        told: who is told of pauses that begin here.
    """

    def __init__(self, store: JobStore, client: Client, *, worker: str, told: Teller) -> None:
        self._store = store
        self._client = client
        self._told = told
        self._hours = Hours(store, [client], worker=worker)
        #: Under which the next request is answered, and whether a success of it would be news.
        self._generation: int | None = None
        self._is_uneasy = False
        #: The first page of the listing is this probe.
        self._probe: Probe | None = None

    def standing(self) -> Standing:
        """Return how the client stands; in a declared window it is paused by whoever comes first."""
        for pausing in self._hours.hold():
            if pausing.is_new:
                self._told.paused(self._client, pausing)
        standing = self._store.standing(self._client.id)
        self._generation, self._is_uneasy = standing.generation, standing.is_uneasy
        return standing

    def shut(self, *, dry_run: bool) -> tuple[datetime | None, str] | None:
        """Return until when the client is left alone, and why; `None` where a run may begin.

        Args:
            dry_run: writes nothing, and so can neither test a client whose pause has run out nor begin the pause of a window.
        """
        if not dry_run:
            pausing = self.standing().pausing
        else:
            standing = self._store.standing(self._client.id)
            pausing = standing.pausing or standing.reopening
            if pausing is None and (end := self._hours.window(self._client)) is not None:
                return end, self._hours.reason(self._client)
        return None if pausing is None else (pausing.until, pausing.reason)

    def opens(self, prober: Prober, health: Health, *, halt: threading.Event) -> bool:
        """Tell whether to list; of a client whose pause has run out, make or await the one try that goes first.

        That is the client's `check`, else one due job of the sync, else the first page of the listing.

        Args:
            prober: who tries.
            health: learns of a pause.
            halt: ends the waiting.
        """
        until = time.monotonic() + TESTED
        while not halt.is_set():
            standing = self.standing()
            pausing = standing.pausing or (standing.reopening if time.monotonic() >= until else None)
            if pausing is not None:
                health.paused[self._client.id] = pausing
            if pausing is not None or standing.reopening is None:
                return pausing is None
            probe = prober.begin(self._client.id)
            if probe is None:
                halt.wait(POLL)
            elif prober.tries(probe, silent=False) is None:
                self._probe = probe
                return True
            else:
                # Its answer shows in how the client stands.
                until = 0.0
        return False

    def lists_on(self, health: Health) -> None:
        """Look, before a page, for pauses of other processes; one is noted in `health`.

        Run out is not over: but for the one who tests it, nobody asks the client for anything.
        """
        standing = self.standing()
        pausing: Pausing | None = standing.pausing
        if pausing is None and not health.is_probing(self._client.id):
            pausing = standing.reopening
        if pausing is not None:
            health.paused[self._client.id] = pausing

    def page_came(self, health: Health) -> None:
        """Take note of a page: a success as any other; if it was the probe, the client is open from now on."""
        if self._probe is not None and health.is_probing(self._client.id):
            health.answered(self._probe, Verdict(Success()))
            self._generation = self._store.standing(self._client.id).generation
        elif self._is_uneasy:
            health.trouble(self._client.id, [False], "", generation=self._generation)

    def ended(self, ended: Ended, health: Health) -> Ended:
        """Take note of why a listing ended; return what that comes to."""
        client = self._client.id
        if self._probe is not None and health.is_probing(client):
            # It did not come to a page: an answer all the same, unless nobody asked.
            health.answered(self._probe, None if ended.stopped == "stop" else _verdict_on(ended))
        elif ended.pause is not None:
            pausing = health.pause(client, ended.pause, ended.cause, generation=self._generation)
            if pausing is None:
                # Somebody has resumed the client while the request was on its way.
                return Ended("error", f"listing: {ended.message}")
        elif ended.trouble:
            health.trouble(client, [True], ended.message, generation=self._generation)
        return ended

    def close(self, prober: Prober) -> None:
        """Let the right to try go, if there is one; unanswered, it is the next one's."""
        if self._probe is not None:
            prober.end(self._probe)


def _verdict_on(ended: Ended) -> Verdict:
    """Return what the end of a listing says of the client."""
    if ended.pause is not None:
        return Verdict(ended.pause, cause=ended.cause)
    return Verdict(Failure(ended.message), trouble=True) if ended.trouble else Verdict(Success())
