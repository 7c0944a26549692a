"""Remembers which types of jobs this process cannot work because of itself: its proxy, certificates, packages, disk, database.

Their jobs stay queued, for this process later or for another one now; nothing is written to the tables.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from jobs.job import Verdict
from jobs.outcome import Failure

log = logging.getLogger("syncs.work")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds until this process tries again; twice as long each time."""


ALONE = 3
"""A job that could not be worked so often, while others could in between, is alone with that: it is no longer our trouble."""

MANY = 10_000
"""Jobs that are remembered for that."""


@dataclass(frozen=True, slots=True)
class _Lack:
    text: str
    wait: float
    #: By `time.monotonic`.
    until: float


class LocalLacks:
    """What this process lacks, by type of job, or by client for its probes. Thread-safe."""

    def __init__(self) -> None:
        #: By what is lacking something; looked at once for each job, so without a call.
        self.known: dict[str, _Lack] = {}
        #: How often each could be worked again.
        self._mended: Counter[str] = Counter()
        #: By job: how often it could not be worked, and the number of times that its type had been mended by then.
        self._jobs: dict[int, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def add(self, name: str, verdict: Verdict) -> None:
        """Take note that this could not be worked here, and why; logged once for each reason."""
        text = verdict.outcome.message if isinstance(verdict.outcome, Failure) else ""
        now = time.monotonic()
        with self._lock:
            known = self.known.get(name)
            if known is not None and now < known.until:
                return
            wait = FIRST_WAIT if known is None else min(2 * known.wait, LONGEST_WAIT)
            self.known[name] = _Lack(text, wait, now + wait)
        if known is None or known.text != text:
            log.error("%s: %s; this process tries again, its jobs stay queued and use no attempt", name, text)

    def is_alone(self, name: str, job_id: int) -> bool:
        """Count a job that could not be worked; tell whether others could in between, again and again."""
        with self._lock:
            times, mended = self._jobs.get(job_id, (0, -1))
            if mended != self._mended[name]:
                times += 1
                if len(self._jobs) >= MANY:
                    self._jobs.clear()
                self._jobs[job_id] = times, self._mended[name]
            return times >= ALONE

    def remove(self, name: str) -> None:
        """Take note that it could be worked."""
        with self._lock:
            known = self.known.pop(name, None)
            if known is not None:
                self._mended[name] += 1
        if known is not None:
            log.warning("%s: jobs can be worked here again", name)

    def holds(self, name: str) -> bool:
        """Tell whether to begin nothing of it for now."""
        known = self.known.get(name)
        return known is not None and time.monotonic() < known.until

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """Return what is lacking, of these that lack something."""
        return {name: known.text for name in names if (known := self.known.get(name)) is not None}

    def text(self, name: str) -> str:
        """Return what is lacking; empty if nothing is known."""
        known = self.known.get(name)
        return "" if known is None else known.text
