"""How a worker loop waits and is fed: its listing, what wakes it, and how long a run waits for pauses and retries.

A run waits for a pause that the remote side asked for, or that generic trouble caused. A refused sign-in, a maintenance window
and a person's pause need more than time, so they end the run.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from flows.pauses.client_health import Health
from flows.progress import Progress, Tracker
from jobs.job import Lane
from jobs.pauses.pause import OpenPause
from jobs.store import JobStore

log = logging.getLogger("syncs.run")

DEFAULT_WAIT = 900.0
"""Seconds that a pause, or the delay of a retry, may last at most for a run of `syncs run` to wait for it."""

FRUITLESS = 10
"""Waits in a row without any page or outcome between them, after which a run waits no longer than `wait` seconds in all."""

RETRY_SLACK = 2.0
"""Seconds after which a retry that is due and does not begin counts as a wait that has led to nothing."""

OTHERS = 3.0
"""Seconds for which a run waits for its last jobs that another process has in hand, and that may come back."""

_WAITED_FOR = frozenset({"asked", "level"})


class InterruptedListings(Protocol):
    """Listings that nobody goes on with, which a worker loop may continue."""

    def due(self) -> list[str]:
        """Return the syncs whose listing could be continued now."""
        ...

    def run(self, name: str) -> object:
        """Continue one; its jobs come as those of any other process do."""
        ...


@dataclass(slots=True)
class Feed:
    """A listing that queues jobs while the loop works. Once it has ended, the loop ends when nothing is due or waited for.

    Something that sets `Signals.halt` ends the loop, too. The loop and the listing's thread call this.

    Args:
        client: whose entities are listed.
        progress: its `listing_ended` tells that nothing more will be queued; its `waiting` says what is waited for.
        tracker: shows that.
        now: the database's time.
        wait: seconds; each pause and each delay of a retry that ends within it is waited for. 0 waits for none.
    """

    client: str
    progress: Progress
    tracker: Tracker
    now: Callable[[], datetime]
    wait: float = 0.0
    #: Seconds in pauses so far, and when the present one was first seen, by `time.monotonic`.
    waited: float = 0.0
    _since: float | None = None
    #: The decision on the last pause that was seen, by its id.
    _decided: tuple[int, bool] = (0, False)
    #: Waits in a row without progress: how many, since when, and the numbers at the first one.
    _fruitless: int = 0
    _fruitless_since: float = 0.0
    _numbers: tuple[int, ...] = ()
    #: Until when the retry that is waited for should have begun.
    _retry_until: float = 0.0
    #: Since when all jobs that are left are in the hands of others.
    _others_since: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def waits_for(self, pausing: OpenPause) -> bool:
        """Tell whether to wait for the end of this pause of the client; shows it if so."""
        with self._lock:
            if self._decided[0] != pausing.id:
                self._decided = (pausing.id, self._is_worth(pausing))
            is_waiting = self._decided[1]
            if is_waiting and self._since is None:
                self._since = time.monotonic()
            if is_waiting and pausing.until is not None:
                until = f"{pausing.until.astimezone():%H:%M:%S}"
                why = pausing.reason.partition("\n")[0][:200]
                self.progress.waiting = f"paused until {until}, goes on by itself{f': {why}' if why else ''}"
        if is_waiting:
            self.tracker.progress(self.progress)
        return is_waiting

    def opened(self) -> None:
        """Take note that the client is open, or being tested."""
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                self.waited += time.monotonic() - self._since
            self._since = None
        self.show("")

    def waits_for_retry(self, seconds: float, *, is_new: bool = False) -> bool:
        """Tell whether to wait for a delayed job, or to ask for a page again; shows it if so.

        Args:
            seconds: until then.
            is_new: this is a wait of its own, and not another look at the one before.
        """
        if seconds > self.wait:
            return False
        with self._lock:
            if not is_new and self.progress.waiting and time.monotonic() < self._retry_until:
                return True
            if not self._may_wait_again():
                return False
            self._retry_until = time.monotonic() + seconds + RETRY_SLACK
        when = self.now() + timedelta(seconds=seconds)
        self.show(f"next retry at {when.astimezone():%H:%M:%S}, goes on by itself")
        return True

    def show(self, waiting: str) -> None:
        """Show what is waited for; an empty text shows that the run goes on."""
        self.progress.waiting = waiting
        self.tracker.progress(self.progress)

    def seconds_left(self, pausing: OpenPause) -> float:
        """Return the seconds until this pause has run out."""
        return float("inf") if pausing.until is None else (pausing.until - self.now()).total_seconds()

    def _is_worth(self, pausing: OpenPause) -> bool:
        if pausing.cause not in _WAITED_FOR or self.seconds_left(pausing) > self.wait or self.wait <= 0:
            return False
        if self._may_wait_again():
            log.info("%s is paused until %s (%s): waiting for that", self.client, pausing.until, pausing.reason)
            return True
        return False

    def _may_wait_again(self) -> bool:
        """Tell whether waiting has led to something, or has not been tried for long."""
        progress = self.progress
        numbers = (
            progress.pages, progress.succeeded, progress.unchanged, progress.gone, progress.failed, progress.retried
        )  # fmt: skip
        if numbers != self._numbers or not self._fruitless:
            self._numbers, self._fruitless, self._fruitless_since = numbers, 0, time.monotonic()
        self._fruitless += 1
        return self._fruitless <= FRUITLESS or time.monotonic() - self._fruitless_since <= self.wait

    def awaits(self, store: JobStore, health: Health, lanes: Sequence[Lane]) -> bool:
        """Tell whether the run waits for its client, because jobs are due, or for a retry of one of its jobs.

        Args:
            store: where the jobs are.
            health: of the client.
            lanes: of the run's jobs.
        """
        if self.wait <= 0 or (health.lacks.known and any(map(health.lacks.holds, (self.client, *(lane.type for lane in lanes))))):
            return False
        if store.due_times.is_due(lanes, probing=True):
            state = store.pauses.state(self.client)
            if state.pausing is None:
                # It is being tested, or something else keeps the jobs for a moment. A test may bring no result again and again.
                return self.waits_for_retry(0.0)
            health.pauses.seen(state.pausing)
            return self.waits_for(state.pausing)
        seconds = store.due_times.next_retry(lanes)
        if seconds is not None:
            return self.waits_for_retry(seconds)
        return self._awaits_others(store, health, lanes)

    def _awaits_others(self, store: JobStore, health: Health, lanes: Sequence[Lane]) -> bool:
        """Tell whether to wait for jobs that another process has: for a moment, and during a pause that sends them back."""
        if not any(store.views.lane(lane).processing for lane in lanes):
            self._others_since = None
            return False
        state = store.pauses.state(self.client)
        if state.pausing is not None:
            health.pauses.seen(state.pausing)
            return self.waits_for(state.pausing)
        if state.reopening is not None:
            return self.waits_for_retry(0.0)
        self._others_since = self._others_since or time.monotonic()
        return time.monotonic() - self._others_since < OTHERS


class Waker(Protocol):
    """Lets one thread wait until there may be something to do."""

    def wake(self) -> None:
        """Wake the waiting thread, or let its next wait end at once."""
        ...

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait at most so long, or until `stop` is set; return whether it was woken."""
        ...


class LocalWaker:
    """A `Waker` for work that comes from this process only."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self.wake = self._woken.set

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait at most so long, or until woken; notices `stop` within 0.1 s."""
        until = time.monotonic() + seconds
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            if self._woken.wait(min(left, 0.1)):
                self._woken.clear()
                return True
        return False
