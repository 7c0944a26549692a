"""The job store: everything that workers, listings and people do with jobs, behind one object."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from types import EllipsisType
from typing import Any

from jobs.caller import connection_of
from jobs.checkpoint import Checkpoints
from jobs.claim import AGEING, LOOK_EVERY, Claims, OnPoison
from jobs.clock import Clock, system_clock
from jobs.command import Commands
from jobs.database import Database
from jobs.doubt import Doubts
from jobs.due import Dues
from jobs.duplicate import Enqueued, NewJob, Policy
from jobs.enqueue import Enqueues, Serial
from jobs.filter import Filter
from jobs.finish import Finishes
from jobs.history import History, PauseView
from jobs.job import Done, Job, Lane, Settled, Stored
from jobs.lease import Leases
from jobs.letter import Letters
from jobs.listing import Busy, ListingClaim, Listings, Marked
from jobs.lock import LEASE, Lock, Locks
from jobs.notice import Notices
from jobs.page import Item, PagePreview, PageResult, Pages
from jobs.pause import Pauses, Pausing, Standing
from jobs.probe import Probe, Probes
from jobs.queue import Queue
from jobs.refusal import Refused
from jobs.requeue import Requeues
from jobs.rescue import Rescues
from jobs.retention import Pruned, Retention
from jobs.served import Served
from jobs.session import UnitOfWork
from jobs.settle import Settlement
from jobs.single import Singles
from jobs.stray import Home, Strays
from jobs.sweep import Delete, Missing, SweepResult, Sweeps
from jobs.vacuum import Vacuum
from jobs.validator import Validators
from jobs.view import JobDetail, JobView, LaneView, QueueView, Views


class JobStore:
    """Durable jobs in SQLite or PostgreSQL. Thread-safe; any number of processes may share the database.

    Args:
        db: the database, whose tables must be there (`jobs.schema.prepare`).
        max_rescues: the rescue that ends a job as poison.
        ageing: seconds of waiting that count as a step of priority.
        look_every: seconds between two looks of the claim at a queue.

    Each method is explained where it is done: in `jobs.claim`, `finish`, `listing`, `page`, `pause`, `sweep` and `view`.
    """

    def __init__(self, db: Database, *, max_rescues: int = 5, ageing: float = AGEING, look_every: float = LOOK_EVERY) -> None:
        self.db = db
        settlement = Settlement(db)
        self._rescues = Rescues(db, settlement, max_rescues=max_rescues)
        self._claims = Claims(db, self._rescues, ageing=ageing, look_every=look_every)
        self._leases = Leases(db, settlement)
        self._finishes = Finishes(db, settlement)
        self._checkpoints = Checkpoints(db, self._finishes)
        self._listings = Listings(db)
        self._pages = Pages(db, self._listings)
        self._enqueues = Enqueues(db)
        self._served = Served(db)
        self._dues = Dues(db)
        self._doubts = Doubts(db)
        self._sweeps = Sweeps(db)
        self._requeues = Requeues(db)
        self._validators = Validators(db)
        self._strays = Strays(db)
        self._pauses = Pauses(db)
        self._probes = Probes(db, self._pauses, lambda: Claims(db, self._rescues, look_every=0, probing=True))
        self._singles = Singles(db, self._probes)
        self._history = History(db)
        self._views = Views(db)
        #: What people do to jobs: retry, release, cancel, delete.
        self.commands = Commands(db, settlement)
        self._retention = Retention(db)
        self._vacuum = Vacuum(db)
        #: What people are told of, and the outbox of what is sent to them.
        self.notices = Notices(db)
        self.letters = Letters(db)
        #: Named locks, also those that outlive a process.
        self.locks = Locks(db)

    @classmethod
    def open(cls, url: str, *, clock: Clock = system_clock) -> "JobStore":
        """Open a database by URL and make its tables where it is empty."""
        from jobs import schema

        db = Database(url, clock=clock)
        schema.prepare(db)
        return cls(db)

    def serve(self, queue: Queue, *, declared: bool = False) -> None:
        """Note that a worker serves this queue, see `Served.serve`."""
        self._served.serve(queue, declared=declared)
        self._claims.forget(queue.id)

    def bring_home(self, homes: Iterable[Home], *, only: int | None = None) -> int:
        """Move queued jobs to where their types are declared now, see `Strays.bring_home`."""
        return self._strays.bring_home(homes, only=only)

    def wait_hint(self, queues: Iterable[str]) -> float | None:
        """Say when a queue that has used up its rate may start something again, see `Budgets.wait_hint`."""
        return self._claims.wait_hint(queues)

    def next_due(self, lanes: Sequence[Lane]) -> float | None:
        """Say when a delayed job of these lanes is due or a pause ends, see `Dues.next`."""
        return self._dues.next(lanes)

    def is_due(self, lanes: Sequence[Lane], *, probing: bool = False) -> bool:
        """Tell whether a job of these lanes waits for nothing but room in its queue, see `Dues.is_due`."""
        return self._dues.is_due(lanes, probing=probing)

    def enqueue(
        self, jobs: Sequence[NewJob], policy: Policy = "allow", *, serial: Serial | None = None, session: Any = None
    ) -> list[Enqueued]:
        """Queue jobs, all or none, in the transaction of `session` if there is one; see `Enqueues.enqueue`.

        Raises:
            ForeignSession: the session is on another database.
        """
        connection = None if session is None else connection_of(self.db, session)
        return self._enqueues.enqueue(jobs, policy, serial=serial, connection=connection)

    def claim(
        self, lanes: Sequence[Lane], n: int, *, worker: str, lease: float, suspects: bool = False,
        on_poison: OnPoison | None = None,
    ) -> list[Job]:  # fmt: skip
        """Take up to `n` due jobs, see `Claims.claim`."""
        jobs = self._claims.claim(lanes, n, worker=worker, lease=lease, suspects=suspects, on_poison=on_poison)
        self._vacuum.claimed(len(jobs))
        return jobs

    def finish(self, dones: Sequence[Done]) -> list[Settled]:
        """Finish worked jobs in one fenced transaction, see `Finishes.finish`."""
        return self._finishes.finish(dones)

    def claim_one(
        self, job_id: int, *, worker: str, lease: float, force: bool = False, probe: Probe | None = None
    ) -> Job | Refused:
        """Take one job by its id, see `Singles.claim_one`."""
        return self._singles.claim_one(job_id, worker=worker, lease=lease, force=force, probe=probe)

    def unit_of_work(self, job: Job) -> UnitOfWork:
        """Return what a claimed job writes through: its session, opened by its first statement."""
        return UnitOfWork(self.db, f"job {job.id} ({job.lane.type})")

    def checkpoint(self, job: Job, value: Any, unit: UnitOfWork | None = None) -> Job:
        """Keep how far a claimed job has come, see `Checkpoints.save`."""
        return self._checkpoints.save(job, value, unit)

    def advance(self, job: Job, to_phase: str, unit: UnitOfWork | None = None, exchanges: str | None = None) -> Job:
        """Go on to a job's next phase under the same claim, see `Checkpoints.advance`."""
        return self._checkpoints.advance(job, to_phase, unit, exchanges)

    def finish_unit(self, done: Done, unit: UnitOfWork) -> Settled:
        """Finish one job in the transaction of its session, see `Checkpoints.finish`."""
        return self._checkpoints.finish(done, unit)

    def in_doubt(self, job: Job) -> bool:
        """Tell whether an earlier attempt may have done what nobody knows of, see `Doubts.of`."""
        return self._doubts.of(job)

    def release(self, jobs: Sequence[Job], *, reason: str) -> int:
        """Put unworked jobs back, see `Leases.release`."""
        return self._leases.release(jobs, reason=reason)

    def renew(self, claims: Sequence[tuple[int, int]], *, lease: float) -> set[int]:
        """Extend leases, see `Leases.renew`."""
        return self._leases.renew(claims, lease=lease)

    def rescue(self, queues: Iterable[str], *, on_poison: OnPoison | None = None) -> int:
        """Take back jobs of dead and silent workers, see `Rescues.rescue`."""
        return self._rescues.rescue(queues, on_poison=on_poison)

    def begin_listing(
        self, sync: str, client: str, *, worker: str, lease: float, full: bool = False, since: str | None = None
    ) -> ListingClaim | Busy:
        """Take the right to run a sync, see `Listings.begin`."""
        return self._listings.begin(sync, client, worker=worker, lease=lease, full=full, since=since)

    def listing_mark(self, sync: str, since: str) -> Any:
        """Return the value that a listing would be asked from, see `Listings.mark`."""
        return self._listings.mark(sync, since)

    def requeue_failed(self, lane: Lane) -> int:
        """Queue the entities again whose last job is a failure, see `Requeues.requeue`."""
        return self._requeues.requeue(lane)

    def count_failed(self, lane: Lane) -> int:
        """Count what `requeue_failed` would queue."""
        return self._requeues.count(lane)

    def validators(self, sync: str, keys: Iterable[str]) -> dict[str, list[Stored]]:
        """Return the validators of entities that are in sync, see `Validators.of`."""
        return self._validators.of(sync, keys)

    def enqueue_page(
        self, claim: ListingClaim, lane: Lane, items: Sequence[Item], *, cursor: Any, priority: int = 0,
        item_is_record: bool = False, full: bool = False, last: bool = False, flawed: int = 0, marked: Marked | None = None,
    ) -> PageResult:  # fmt: skip
        """Store one page's jobs and the cursor in one transaction, see `Pages.enqueue`."""
        return self._pages.enqueue(
            claim, lane, items, cursor=cursor, priority=priority, item_is_record=item_is_record, full=full, last=last,
            flawed=flawed, marked=marked,
        )  # fmt: skip

    def complete_listing(self, claim: ListingClaim, marked: Marked | None = None) -> None:
        """Mark a listing as complete, see `Listings.complete`."""
        self._listings.complete(claim, marked)

    def abandon_listing(self, claim: ListingClaim) -> None:
        """Give up an incomplete listing, see `Listings.abandon`."""
        self._listings.abandon(claim)

    def preview(self, sync: str, items: Sequence[Item], *, item_is_record: bool = False, full: bool = False) -> PagePreview:
        """Say what a page would come to, and write nothing, see `Pages.preview`."""
        return self._pages.preview(sync, items, item_is_record=item_is_record, full=full)

    def missing(self, lane: Lane, listed: Container[int]) -> Missing:
        """Find the records that a listing did not show, and write nothing, see `Sweeps.missing`."""
        return self._sweeps.missing(lane, listed)

    def sweep(
        self, claim: ListingClaim, lane: Lane, *, max_share: float, delete: Delete | None = None, gone: int = 0,
        allow: bool = False, how: str = "--allow-deletes", doubt: str = "",
    ) -> SweepResult:  # fmt: skip
        """Mark as deleted what a complete listing no longer has, see `Sweeps.sweep`."""
        return self._sweeps.sweep(claim, lane, max_share=max_share, delete=delete, gone=gone, allow=allow, how=how, doubt=doubt)

    def live(self, sync: str) -> int:
        """Count the records of a sync that are not deleted."""
        return self._sweeps.live(sync)

    def renew_listing(self, claim: ListingClaim, *, lease: float) -> bool:
        """Extend the right to run a sync, see `Listings.renew`."""
        return self._listings.renew(claim, lease=lease)

    def release_listing(self, claim: ListingClaim) -> None:
        """Give the right to run a sync back, see `Listings.release`."""
        self._listings.release(claim)

    def pause(
        self, client: str, when: float | datetime | None, *, cause: str, reason: str, set_by: str, generation: int | None = None
    ) -> Pausing | None:
        """Pause a client, see `Pauses.pause`."""
        return self._pauses.pause(client, when, cause=cause, reason=reason, set_by=set_by, generation=generation)

    def resume(self, client: str, *, by: str) -> bool:
        """End a client's pause, see `Pauses.resume`."""
        return self._pauses.resume(client, by=by)

    def hear(
        self, client: str, troubles: Sequence[bool], *, after: int, durations: Sequence[float], reason: str, set_by: str,
        generation: int | None = None,
    ) -> Pausing | None:  # fmt: skip
        """Take note of answers, see `Pauses.hear`."""
        return self._pauses.hear(
            client, troubles, after=after, durations=durations, reason=reason, set_by=set_by, generation=generation
        )

    def standing(self, client: str) -> Standing:
        """Return whether a client is open, paused or reopening, and its generation, see `Pauses.standing`."""
        return self._pauses.standing(client)

    def paused(self, client: str) -> Pausing | None:
        """Return the pause in force for a client."""
        return self._pauses.standing(client).pausing

    def pauses(self, *, run_out: bool = False) -> list[Pausing]:
        """Return all pauses in force, on request also those that have run out, see `Pauses.in_force`."""
        return self._pauses.in_force(run_out=run_out)

    def resumed_at(self, client: str) -> datetime | None:
        """Return when a person last resumed a client, see `History.resumed_at`."""
        return self._history.resumed_at(client)

    def pause_history(self, client: str | None = None, *, limit: int = 100, open_only: bool = False) -> list[PauseView]:
        """Return pauses, the newest first, see `History.pauses`."""
        return self._history.pauses(client, limit=limit, open_only=open_only)

    def reopening(self, clients: Iterable[str] | None = None) -> list[Pausing]:
        """Return the pauses that have run out and wait for a probe, see `Probes.reopening`."""
        return self._probes.reopening(clients)

    def begin_probe(self, client: str, *, worker: str, lease: float) -> Probe | None:
        """Take the right to probe a client, see `Probes.begin`."""
        return self._probes.begin(client, worker=worker, lease=lease)

    def renew_probe(self, probe: Probe, *, lease: float) -> bool:
        """Extend the right to probe, see `Probes.renew`."""
        return self._probes.renew(probe, lease=lease)

    def claim_probe(
        self, probe: Probe, lanes: Sequence[Lane], *, worker: str, lease: float, on_poison: OnPoison | None = None
    ) -> list[Job]:
        """Take one due job of a client that is probed, see `Probes.claim`."""
        jobs = self._probes.claim(probe, lanes, worker=worker, lease=lease, on_poison=on_poison)
        self._vacuum.claimed(len(jobs))
        return jobs

    def end_probe(
        self, probe: Probe, well: bool | None, *, when: float | datetime | EllipsisType | None = ..., cause: str = "level",
        durations: Sequence[float], reason: str, set_by: str,
    ) -> Pausing | None:  # fmt: skip
        """Say how a probe went, see `Probes.end`."""
        return self._probes.end(probe, well, when=when, cause=cause, durations=durations, reason=reason, set_by=set_by)

    def prune(self, *, stop: Callable[[], bool] = lambda: False, orphans: bool = True) -> Pruned:
        """Remove what is older or more than the queues keep, see `Retention.prune`."""
        return self._retention.prune(stop=stop, orphans=orphans)

    def due_for(self, name: str, every: float) -> bool:
        """Tell whether a piece of maintenance is due and the caller's to do, see `Retention.due`."""
        return self._retention.due(name, every)

    def lock(self, name: str, *, lease: float = LEASE, wait: float = 0) -> AbstractContextManager[Lock]:
        """Hold a named lock for the time of a block, see `Locks.lock`."""
        return self.locks.lock(name, lease=lease, wait=wait)

    def now(self) -> datetime:
        """Return the database's time."""
        return self._views.now()

    def lane(self, lane: Lane) -> LaneView:
        """Return what is left in a lane."""
        return self._views.lane(lane)

    def busy_queues(self) -> list[str]:
        """Return the queues that have jobs in processing."""
        return self._views.busy()

    def queues(self) -> list[QueueView]:
        """Return the counts of every queue."""
        return self._views.queues()

    def jobs(
        self, *, queue: str | None = None, client: str | None = None, type: str | None = None, state: str | None = None,
        key: str | None = None, where: Mapping[str, str] | None = None, limit: int = 50,
    ) -> list[JobView]:  # fmt: skip
        """Return jobs, the newest first, see `Views.jobs` and `Filter`."""
        return self._views.jobs(Filter(queue, client, type, state, key, where or {}), limit=limit)

    def find(self, wanted: Filter, *, limit: int = 50) -> list[JobView]:
        """Return the jobs that fit, the newest first, see `Views.jobs`."""
        return self._views.jobs(wanted, limit=limit)

    def job(self, job_id: int) -> JobDetail:
        """Return one job with its attempts, see `Views.job`."""
        return self._views.job(job_id)

    def close(self) -> None:
        """Close the database's connections."""
        self._vacuum.close()
        self.db.close()
