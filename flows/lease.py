"""Keeping claims alive while their work runs: one thread, one statement each third of the lease (M5)."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from jobs import JobsError
from jobs.job import Job
from jobs.listing import ListingClaim
from jobs.probe import Probe
from jobs.store import JobStore

log = logging.getLogger("syncs.lease")

LONGEST_PROBE = 600.0
"""Seconds that a probe is kept: one that hangs for longer must not keep its client shut, another one may try."""


class LeaseKeeper:
    """Renews the leases of jobs, of probes and of the run itself, in a thread of its own: what blocks must not lose its lease.

    Args:
        store: where the claims are.
        lease: seconds; renewed at a third of it.
        listing: the claim of the run, if it is one of a sync.
        on_lost: called once when the run itself was taken by another process.
    """

    def __init__(
        self, store: JobStore, *, lease: float, listing: ListingClaim | None = None, on_lost: Callable[[], None] | None = None
    ) -> None:
        self._store = store
        self._lease = lease
        self._listing = listing
        self._on_lost = on_lost
        self._held: dict[int, int] = {}
        #: With the end of each, by `time.monotonic`.
        self._probes: dict[Probe, float] = {}
        self._lost: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="syncs-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def hold(self, jobs: Iterable[Job]) -> None:
        """Keep these claims alive from now on."""
        with self._lock:
            self._held.update((job.id, job.claim_no) for job in jobs)

    def drop(self, jobs: Iterable[Job]) -> None:
        """Let these claims be: they are finished or released."""
        with self._lock:
            for job in jobs:
                self._lost.discard((job.id, job.claim_no))
                # A job that went back may be in hand again, under its next claim: that one stays.
                if self._held.get(job.id) == job.claim_no:
                    del self._held[job.id]

    def hold_probe(self, probe: Probe) -> None:
        """Keep the right to probe a client from now on."""
        with self._lock:
            self._probes[probe] = time.monotonic() + LONGEST_PROBE

    def drop_probe(self, probe: Probe) -> None:
        """Let it be: the probe is over."""
        with self._lock:
            self._probes.pop(probe, None)

    def is_lost(self, job: Job) -> bool:
        """Tell whether another worker has this job by now; its work is then not worth starting."""
        return (job.id, job.claim_no) in self._lost

    def _keep(self) -> None:
        while not self._end.wait(self._lease / 3):
            try:
                self._renew()
            except (SQLAlchemyError, JobsError) as error:
                # The database may be back before the lease ends; the next look comes in a third of it.
                log.warning("leases not renewed: %s", error.__class__.__name__)

    def _renew(self) -> None:
        with self._lock:
            claims, probes = list(self._held.items()), list(self._probes.items())
        kept = self._store.renew(claims, lease=self._lease)
        with self._lock:
            for job_id, claim_no in claims:
                # Those that were finished in the meantime are not lost, nor those that were claimed anew.
                if job_id not in kept and self._held.get(job_id) == claim_no:
                    self._lost.add((job_id, claim_no))
                    del self._held[job_id]
        for probe, end in probes:
            if time.monotonic() >= end or not self._store.renew_probe(probe, lease=self._lease):
                self.drop_probe(probe)
        if self._listing is not None and not self._store.renew_listing(self._listing, lease=self._lease):
            self._listing = None
            if self._on_lost is not None:
                self._on_lost()
