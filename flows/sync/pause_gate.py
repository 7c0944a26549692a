"""Decides whether a run may send requests to its client, and reports what the answers to its listing mean for the client."""

import threading
import time
from datetime import datetime

from flows.declarations.sync import Sync
from flows.notices.observer import Observer
from flows.pauses.client_health import Health
from flows.pauses.maintenance_windows import WindowPauses
from flows.sync.listing_end import Ended
from flows.worker.feed import Feed
from flows.worker.limits import Signals
from flows.worker.probe import Prober
from jobs.job import Verdict
from jobs.outcome import Failure, Success
from jobs.pauses.pause import ClientState, OpenPause
from jobs.pauses.probe import Probe
from jobs.store import JobStore

WAIT_FOR_PROBE = 5.0
"""Seconds that a run waits at least for another worker that probes the client; if that takes longer, the run ends as paused."""

POLL = 0.25
"""Seconds between two looks at how that goes."""

LOOK_EVERY = 1.0
"""Seconds between two looks at a pause that is waited for: a person may end it earlier."""

FIRST_REST, LONGEST_REST = 1.0, 60.0
"""Seconds until the next probe after one that had no result; twice as long each time."""


class PauseGate:
    """The pauses of one client, as one run sees them.

    A claim reads pauses by itself; a listing asks here before each page.

    Args:
        store: where pauses are.
        sync: what is listed; its client is the one that may be paused.
        worker: the name under which windows are written.
        observer: is informed of pauses that begin here.
    """

    def __init__(self, store: JobStore, sync: Sync, *, worker: str, observer: Observer) -> None:
        self._store = store
        self._client, self._type = sync.client, sync.id
        self._observer = observer
        self._windows = WindowPauses(store, [sync.client], worker=worker)
        #: The generation under which the next request is sent, and whether errors are counted that a success would reset.
        self._generation: int | None = None
        self._has_errors = False
        #: The first page of the listing is this probe.
        self._probe: Probe | None = None

    def blocked_until(self, feed: Feed, *, dry_run: bool) -> tuple[datetime | None, str] | None:
        """Return until when the client is paused (`None`: until a person resumes it), and why; `None` where a run may begin.

        Args:
            feed: tells which pauses the run waits for; it may begin during these.
            dry_run: writes nothing, and so can neither probe a client whose pause has run out nor begin the pause of a window.
        """
        if not dry_run:
            pausing = self._state().pausing
            if pausing is not None and feed.waits_for(pausing):
                return None
        else:
            state = self._store.pauses.state(self._client.id)
            pausing = state.pausing or state.reopening
            if pausing is None and (end := self._windows.window(self._client)) is not None:
                return end, self._windows.reason(self._client)
        return None if pausing is None else (pausing.until, pausing.reason)

    def wait_until_open(self, prober: Prober, health: Health, *, feed: Feed, halt: threading.Event) -> bool:
        """Wait for the end of a pause, as long as the run does that; then tell whether to list.

        If the client's pause has run out, make or await the probe: the client's `check`, else one due job of the sync, else the
        first page that the listing asks for. A probe without a result is made again only by a run that waits, ever more seldom,
        and not where our own process could not send it.

        Args:
            prober: makes it.
            health: gets a pause that is found.
            feed: tells which pauses are waited for.
            halt: ends the waiting.
        """
        client, patience = self._client.id, max(WAIT_FOR_PROBE, feed.wait)
        until, gives_up = time.monotonic() + patience, False
        rest, next_probe = FIRST_REST, 0.0
        while not halt.is_set():
            known = health.pauses.in_force.get(client)
            state = self._state()
            pausing = state.pausing or (state.reopening if gives_up or time.monotonic() >= until else None)
            if pausing is not None:
                health.pauses.seen(pausing)
                if not feed.waits_for(pausing) or pausing is state.reopening:
                    return False
                halt.wait(min(LOOK_EVERY, max(0.0, feed.seconds_left(pausing))))
                until, gives_up = time.monotonic() + patience, False
                rest, next_probe = FIRST_REST, 0.0
                continue
            if state.reopening is None:
                if known is not None:
                    health.pauses.forget({client: known})
                health.pauses.sends_under(client, state.generation)
                feed.opened()
                return True
            if (left := next_probe - time.monotonic()) > 0:
                # Meanwhile another worker may probe.
                halt.wait(min(LOOK_EVERY, left))
                continue
            probe = prober.begin(client)
            if probe is None:
                halt.wait(POLL)
            elif prober.request(probe, silent=False) is None:
                self._probe = probe
                feed.opened()
                return True
            else:
                # Its result shows in the next state, if it had one.
                gives_up = feed.wait <= 0 or health.lacks.holds(client) or health.lacks.holds(self._type)
                rest, next_probe = min(2 * rest, LONGEST_REST), time.monotonic() + rest
        return False

    def may_list(self, health: Health, signals: Signals) -> bool:
        """Tell whether the listing may ask for its next page; a claim reads pauses by itself, a listing looks for them here.

        Args:
            health: knows the pauses of this process, and gets those of others.
            signals: tell that the run ends.
        """
        if not signals.is_ending and self._client.id not in health.pauses.in_force:
            self._look(health)
        return not signals.is_ending and self._client.id not in health.pauses.in_force

    def _look(self, health: Health) -> None:
        """Look for pauses of other processes, and pass one on to `health`.

        A pause that has run out still counts: only the worker that probes the client may send requests.
        """
        state = self._state()
        pausing: OpenPause | None = state.pausing
        if pausing is None and not health.probes.is_probing(self._client.id):
            pausing = state.reopening
        if pausing is not None:
            health.pauses.seen(pausing)
        else:
            health.pauses.sends_under(self._client.id, state.generation)

    def on_page(self, health: Health) -> None:
        """Report a page as a success; if it was the probe, the client is open from now on."""
        if self._probe is not None and health.probes.is_probing(self._client.id):
            health.probes.answered(self._probe, Verdict(Success()))
            self._generation = self._store.pauses.state(self._client.id).generation
        elif self._has_errors:
            health.report_answers(self._client.id, [False], "", generation=self._generation)

    def on_end(self, ended: Ended, health: Health) -> Ended:
        """Report why a listing ended; return the reason that counts for the run."""
        client = self._client.id
        if self._probe is not None and health.probes.is_probing(client):
            # No page came; that is an answer, too, unless no request was sent, or it said "not yet".
            says_nothing = ended.stopped == "stop" or ended.ours or ended.again is not None
            health.probes.answered(self._probe, None if says_nothing else _verdict_on(ended))
        elif ended.pause is not None:
            pausing = health.pauses.begin(client, ended.pause, ended.cause, generation=self._generation)
            if pausing is None:
                # A person has resumed the client while the request was on its way.
                return Ended("error", f"listing: {ended.message}")
        elif ended.trouble and not (ended.given_up or ended.of_part):
            # A page that still fails when all others come says nothing of the client.
            health.report_answers(client, [True], ended.message, generation=self._generation)
        return ended

    def close(self, prober: Prober) -> None:
        """Give the right to probe back, if there is one."""
        if self._probe is not None:
            prober.end(self._probe)
            self._probe = None

    def _state(self) -> ClientState:
        """Return the state of the client; if a window has begun, pause it first."""
        for pausing in self._windows.apply():
            if pausing.is_new:
                self._observer.paused(self._client, pausing)
        state = self._store.pauses.state(self._client.id)
        self._generation, self._has_errors = state.generation, state.has_errors
        return state


def _verdict_on(ended: Ended) -> Verdict:
    """Return what the end of a listing says about the client."""
    if ended.pause is not None:
        return Verdict(ended.pause, cause=ended.cause)
    is_bad = ended.trouble and not ended.of_part
    return Verdict(Failure(ended.message), trouble=True) if is_bad else Verdict(Success())
