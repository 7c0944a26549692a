"""Renews the leases of running jobs, probes and listings: one thread, one statement each third of the lease."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from jobs import JobsError
from jobs.job import Job
from jobs.listing.listing_claim import ListingClaim
from jobs.pauses.probe import Probe
from jobs.store import JobStore

log = logging.getLogger("syncs.heartbeat")

LONGEST_PROBE = 600.0
"""Seconds for which the right to probe is renewed: a probe that hangs for longer must not keep its client closed."""

RENEWALS = 3
"""How often a lease is renewed in its time."""


class Heartbeat:
    """Renews leases in a thread of its own, so that work that blocks does not lose its lease.

    Args:
        store: where the claims are.
        lease: seconds; renewed `RENEWALS` times in it.
        listing: the claim of the run, if it is one of a sync.
        on_lost: called once when another process has taken the run over.
    """

    def __init__(
        self, store: JobStore, *, lease: float, listing: ListingClaim | None = None, on_lost: Callable[[], None] | None = None
    ) -> None:
        self._store = store
        self._lease = lease
        self._listing = listing
        self._on_lost = on_lost
        self._claims: dict[int, int] = {}
        #: With the end of each, by `time.monotonic`.
        self._probes: dict[Probe, float] = {}
        #: Claims that were lost; almost always empty, so that callers look at it before they call `is_lost`.
        self.lost: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="syncs-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def add(self, jobs: Iterable[Job]) -> None:
        """Renew these claims from now on."""
        with self._lock:
            self._claims.update((job.id, job.claim_no) for job in jobs)

    def remove(self, jobs: Iterable[Job]) -> None:
        """Stop renewing these claims: they are finished or released."""
        with self._lock:
            for job in jobs:
                self.lost.discard((job.id, job.claim_no))
                # A job that went back may be in hand again under a newer claim, which stays.
                if self._claims.get(job.id) == job.claim_no:
                    del self._claims[job.id]

    def add_probe(self, probe: Probe) -> None:
        """Renew the right to probe a client from now on."""
        with self._lock:
            self._probes[probe] = time.monotonic() + LONGEST_PROBE

    def remove_probe(self, probe: Probe) -> None:
        """Stop renewing it: the probe is over."""
        with self._lock:
            self._probes.pop(probe, None)

    def is_lost(self, job: Job) -> bool:
        """Tell whether another worker has this job by now."""
        return (job.id, job.claim_no) in self.lost

    def _run(self) -> None:
        while not self._end.wait(self._lease / RENEWALS):
            try:
                self._renew()
            except (SQLAlchemyError, JobsError) as error:
                # The database may be back before the lease ends; the next try comes after another third of it.
                log.warning("leases not renewed: %s", error.__class__.__name__)

    def _renew(self) -> None:
        with self._lock:
            claims, probes = list(self._claims.items()), list(self._probes.items())
        kept = self._store.renew(claims, lease=self._lease)
        with self._lock:
            for job_id, claim_no in claims:
                # Jobs that were finished or claimed anew in the meantime are not lost.
                if job_id not in kept and self._claims.get(job_id) == claim_no:
                    self.lost.add((job_id, claim_no))
                    del self._claims[job_id]
        for probe, end in probes:
            if time.monotonic() >= end or not self._store.probes.renew(probe, lease=self._lease):
                self.remove_probe(probe)
        if self._listing is not None and not self._store.listings.renew(self._listing, lease=self._lease):
            self._listing = None
            if self._on_lost is not None:
                self._on_lost()
