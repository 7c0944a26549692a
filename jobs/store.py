"""The job store: everything that workers, listings and people do with jobs, behind one object."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from jobs.claim import Claims, OnPoison
from jobs.clock import Clock, system_clock
from jobs.database import Database
from jobs.finish import Finishes
from jobs.job import Done, Job, Lane, Settled
from jobs.listing import Busy, ListingClaim, Listings
from jobs.page import Item, PageResult, Pages
from jobs.pause import Pauses, Pausing
from jobs.queue import Queue
from jobs.served import Served
from jobs.settle import Settlement
from jobs.sweep import Delete, SweepResult, Sweeps
from jobs.view import JobDetail, JobView, LaneView, QueueView, Views


class JobStore:
    """Durable jobs in SQLite or PostgreSQL. Thread-safe; any number of processes may share the database.

    Args:
        db: the database, whose tables must be there (`jobs.schema.prepare`).
        max_rescues: the rescue that ends a job as poison.

    Each method is explained where it is done: in `jobs.claim`, `finish`, `listing`, `page`, `pause`, `sweep` and `view`.
    """

    def __init__(self, db: Database, *, max_rescues: int = 5) -> None:
        self.db = db
        settlement = Settlement(db)
        self._claims = Claims(db, settlement, max_rescues=max_rescues)
        self._finishes = Finishes(db, settlement)
        self._listings = Listings(db)
        self._pages = Pages(db, self._listings)
        self._served = Served(db)
        self._sweeps = Sweeps(db)
        self._pauses = Pauses(db)
        self._views = Views(db)

    @classmethod
    def open(cls, url: str, *, clock: Clock = system_clock) -> "JobStore":
        """Open a database by URL and make its tables where it is empty."""
        from jobs import schema

        db = Database(url, clock=clock)
        schema.prepare(db)
        return cls(db)

    def serve(self, queue: Queue) -> None:
        """Note that a worker serves this queue, see `Served.serve`."""
        self._served.serve(queue)

    def claim(
        self, lanes: Sequence[Lane], n: int, *, worker: str, lease: float, suspects: bool = False,
        on_poison: OnPoison | None = None,
    ) -> list[Job]:  # fmt: skip
        """Take up to `n` due jobs, see `Claims.claim`."""
        return self._claims.claim(lanes, n, worker=worker, lease=lease, suspects=suspects, on_poison=on_poison)

    def finish(self, dones: Sequence[Done]) -> list[Settled]:
        """Finish worked jobs in one fenced transaction, see `Finishes.finish`."""
        return self._finishes.finish(dones)

    def release(self, jobs: Sequence[Job], *, reason: str) -> int:
        """Put unworked jobs back, see `Claims.release`."""
        return self._claims.release(jobs, reason=reason)

    def renew(self, claims: Sequence[tuple[int, int]], *, lease: float) -> set[int]:
        """Extend leases, see `Claims.renew`."""
        return self._claims.renew(claims, lease=lease)

    def rescue(self, queues: Iterable[str], *, on_poison: OnPoison | None = None) -> int:
        """Take back jobs of dead and silent workers, see `Claims.rescue`."""
        return self._claims.rescue(queues, on_poison=on_poison)

    def begin_listing(self, sync: str, client: str, *, worker: str, lease: float, full: bool = False) -> ListingClaim | Busy:
        """Take the right to run a sync, see `Listings.begin`."""
        return self._listings.begin(sync, client, worker=worker, lease=lease, full=full)

    def enqueue_page(
        self, claim: ListingClaim, lane: Lane, items: Sequence[Item], *, cursor: Any, priority: int = 0,
        item_is_record: bool = False, full: bool = False, last: bool = False,
    ) -> PageResult:  # fmt: skip
        """Store one page's jobs and the cursor in one transaction, see `Pages.enqueue`."""
        return self._pages.enqueue(
            claim, lane, items, cursor=cursor, priority=priority, item_is_record=item_is_record, full=full, last=last
        )

    def complete_listing(self, claim: ListingClaim) -> None:
        """Mark a listing as complete, see `Listings.complete`."""
        self._listings.complete(claim)

    def abandon_listing(self, claim: ListingClaim) -> None:
        """Give up an incomplete listing, see `Listings.abandon`."""
        self._listings.abandon(claim)

    def preview(self, sync: str, items: Sequence[Item], *, item_is_record: bool = False) -> PageResult:
        """Say what a page would come to, and write nothing, see `Pages.preview`."""
        return self._pages.preview(sync, items, item_is_record=item_is_record)

    def sweep(
        self, claim: ListingClaim, lane: Lane, *, max_share: float, delete: Delete | None = None, gone: int = 0
    ) -> SweepResult:
        """Mark as deleted what a complete listing no longer has, see `Sweeps.sweep`."""
        return self._sweeps.sweep(claim, lane, max_share=max_share, delete=delete, gone=gone)

    def live(self, sync: str) -> int:
        """Count the records of a sync that are not deleted."""
        return self._sweeps.live(sync)

    def renew_listing(self, claim: ListingClaim, *, lease: float) -> bool:
        """Extend the right to run a sync, see `Listings.renew`."""
        return self._listings.renew(claim, lease=lease)

    def release_listing(self, claim: ListingClaim) -> None:
        """Give the right to run a sync back, see `Listings.release`."""
        self._listings.release(claim)

    def pause(self, client: str, when: float | datetime | None, *, cause: str, reason: str, set_by: str) -> Pausing:
        """Pause a client, see `Pauses.pause`."""
        return self._pauses.pause(client, when, cause=cause, reason=reason, set_by=set_by)

    def resume(self, client: str, *, by: str) -> bool:
        """End a client's pause, see `Pauses.resume`."""
        return self._pauses.resume(client, by=by)

    def hear(
        self, client: str, troubles: Sequence[bool], *, after: int, durations: Sequence[float], reason: str, set_by: str
    ) -> Pausing | None:
        """Take note of answers, see `Pauses.hear`."""
        return self._pauses.hear(client, troubles, after=after, durations=durations, reason=reason, set_by=set_by)

    def paused(self, client: str) -> Pausing | None:
        """Return the pause in force for a client."""
        return self._pauses.current(client)

    def pauses(self) -> list[Pausing]:
        """Return all pauses in force."""
        return self._pauses.in_force()

    def now(self) -> datetime:
        """Return the database's time."""
        return self._views.now()

    def lane(self, lane: Lane) -> LaneView:
        """Return what is left in a lane."""
        return self._views.lane(lane)

    def queues(self) -> list[QueueView]:
        """Return the counts of every queue."""
        return self._views.queues()

    def jobs(
        self, *, queue: str | None = None, client: str | None = None, type: str | None = None,
        state: str | None = None, limit: int = 50,
    ) -> list[JobView]:  # fmt: skip
        """Return jobs, the newest first, see `Views.jobs`."""
        return self._views.jobs(queue=queue, client=client, type=type, state=state, limit=limit)

    def job(self, job_id: int) -> JobDetail:
        """Return one job with its attempts, see `Views.job`."""
        return self._views.job(job_id)

    def close(self) -> None:
        """Close the database's connections."""
        self.db.close()
