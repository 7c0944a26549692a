"""The job store: the five calls that every job passes through, and the parts that do everything else."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from jobs.admin.claim_one import SingleJobs
from jobs.admin.commands import Commands
from jobs.admin.forget import Forgetting
from jobs.admin.retention import Retention
from jobs.admin.vacuum import Vacuum
from jobs.admin.views import Views
from jobs.claiming.claim import AGEING, CHECK_EVERY, Claims, OnPoison
from jobs.claiming.due_times import DueTimes
from jobs.claiming.leases import Leases
from jobs.claiming.limits import QueueLimits
from jobs.claiming.rescue import Rescues
from jobs.db.caller_session import connection_of_session
from jobs.db.clock import Clock, system_clock
from jobs.db.database import Database
from jobs.enqueueing.duplicates import Enqueued, NewJob, Policy
from jobs.enqueueing.enqueue import Enqueuer, SerialKeyOf
from jobs.enqueueing.moved_declarations import Relocations
from jobs.finishing.checkpoint import Checkpoints
from jobs.finishing.fence import FencedTransitions
from jobs.finishing.finish import Finishes
from jobs.job import Job, JobResult, Lane
from jobs.listing.etags import StoredValidators
from jobs.listing.failed_entities import FailedEntities
from jobs.listing.page_transaction import Pages
from jobs.listing.progress import Listings
from jobs.listing.renewals import Renewals
from jobs.listing.runs import Runs
from jobs.listing.sweep import Sweeps
from jobs.locks import Locks
from jobs.notices.notice import Notices
from jobs.notices.notice_views import NoticeViews
from jobs.notices.outbox import Outbox
from jobs.notices.unreported_failures import Unreported
from jobs.pauses.history import PauseHistory
from jobs.pauses.paces import Paces
from jobs.pauses.pause import Pauses
from jobs.pauses.probe import Probes
from jobs.pauses.suspects import Suspects


class JobStore:
    """Durable jobs in SQLite or PostgreSQL. Thread-safe; any number of processes may share the database.

    Args:
        db: the database, whose tables must exist (`jobs.schema.upgrade.create_if_empty`).
        max_rescues: the rescue that ends a job as poison.
        ageing: seconds of waiting that count as a step of priority.
        check_every: seconds between two checks of a queue by the claims, see `jobs.claiming.claim`.

    Parts without state are created when they are first used, because most processes need few of them.
    """

    def __init__(self, db: Database, *, max_rescues: int = 5, ageing: float = AGEING, check_every: float = CHECK_EVERY) -> None:
        self.db = db
        #: The queues that workers have declared, and their limits.
        self.queues = QueueLimits(db)
        #: Takes jobs back from workers that died or went silent.
        self.rescues = Rescues(db, self._transitions, max_rescues=max_rescues)
        self._ageing, self._check_every = ageing, check_every
        self._claims = Claims(db, self.rescues, self.queues, ageing=ageing, check_every=check_every)
        self._vacuum = Vacuum(db)

    def declare_types(self, types: Iterable[str]) -> None:
        """Say which types the project declares, all of them: jobs of any other type then hold back nobody by their serial key.

        Called before the first claim; a later call of another set makes the statements anew.
        """
        declared = f"|{'|'.join(sorted(types))}|"
        if declared == self.db.declared_types:
            return
        self.db.declared_types = declared
        self._claims = Claims(self.db, self.rescues, self.queues, ageing=self._ageing, check_every=self._check_every)
        for part in ("due_times", "probes", "single_jobs"):
            self.__dict__.pop(part, None)

    @cached_property
    def _transitions(self) -> FencedTransitions:
        return FencedTransitions(self.db)

    @cached_property
    def _enqueues(self) -> Enqueuer:
        return Enqueuer(self.db)

    @cached_property
    def _finishes(self) -> Finishes:
        return Finishes(self.db, self._transitions)

    @cached_property
    def _leases(self) -> Leases:
        return Leases(self.db, self._transitions)

    @cached_property
    def due_times(self) -> DueTimes:
        """When the next job may begin."""
        return DueTimes(self.db)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Checkpoints, phases and sessions of claimed jobs."""
        return Checkpoints(self.db, self._finishes)

    @cached_property
    def relocations(self) -> Relocations:
        """Queued jobs whose declaration names another queue, client or phase by now."""
        return Relocations(self.db)

    @cached_property
    def listings(self) -> Listings:
        """The right to run a sync, and how far its listing has come."""
        return Listings(self.db)

    @cached_property
    def runs(self) -> Runs:
        """The history of runs."""
        return Runs(self.db)

    @cached_property
    def renewals(self) -> Renewals:
        """Single entities that are queued by their keys."""
        return Renewals(self.db)

    @cached_property
    def pages(self) -> Pages:
        """Pages of listings: their jobs and the cursor, in one transaction each."""
        return Pages(self.db, self.listings)

    @cached_property
    def sweeps(self) -> Sweeps:
        """Deletes what a complete listing no longer contains."""
        return Sweeps(self.db)

    @cached_property
    def failed_entities(self) -> FailedEntities:
        """Entities whose last job failed."""
        return FailedEntities(self.db)

    @cached_property
    def etags(self) -> StoredValidators:
        """Validators of stored entities, for conditional requests."""
        return StoredValidators(self.db)

    @cached_property
    def pauses(self) -> Pauses:
        """Pauses of clients, and their error levels."""
        return Pauses(self.db)

    @cached_property
    def paces(self) -> Paces:
        """How fast clients let requests in, as the processes know that use them."""
        return Paces(self.db)

    @cached_property
    def probes(self) -> Probes:
        """The single tries that go first when a pause has run out."""
        return Probes(self.db, self.pauses, lambda: Claims(self.db, self.rescues, self.queues, check_every=0, probing=True))

    @cached_property
    def suspects(self) -> Suspects:
        """Jobs that paused their client again and again."""
        return Suspects(self.db)

    @cached_property
    def pause_history(self) -> PauseHistory:
        """Pauses of the past."""
        return PauseHistory(self.db)

    @cached_property
    def single_jobs(self) -> SingleJobs:
        """Claims of one job by its id."""
        return SingleJobs(self.db, self.probes, self.queues)

    @cached_property
    def commands(self) -> Commands:
        """What people do to jobs: retry, release, cancel, delete."""
        return Commands(self.db, self._transitions)

    @cached_property
    def forgetting(self) -> Forgetting:
        """Removes what is kept of something no longer declared."""
        return Forgetting(self.db, self.commands)

    @cached_property
    def views(self) -> Views:
        """What people and reports read: jobs, queues, lanes, the time."""
        return Views(self.db)

    @cached_property
    def retention(self) -> Retention:
        """Removes old jobs, attempts and pauses."""
        return Retention(self.db)

    @cached_property
    def notices(self) -> Notices:
        """Messages to people."""
        return Notices(self.db)

    @cached_property
    def outbox(self) -> Outbox:
        """Messages on their way to recipients."""
        return Outbox(self.db)

    @cached_property
    def unreported(self) -> Unreported:
        """Failures and pauses that no notice includes yet."""
        return Unreported(self.db)

    @cached_property
    def notice_views(self) -> NoticeViews:
        """Lists of notices and messages, for people."""
        return NoticeViews(self.db)

    @cached_property
    def locks(self) -> Locks:
        """Named locks, also those that outlive a process."""
        return Locks(self.db)

    @classmethod
    def open(cls, url: str, *, clock: Clock = system_clock) -> "JobStore":
        """Open a database by URL and make its tables where it is empty."""
        from jobs.schema import upgrade as schema

        db = Database(url, clock=clock)
        schema.create_if_empty(db)
        return cls(db)

    def close(self) -> None:
        """Close the database's connections."""
        self._vacuum.close()
        self.db.close()

    def enqueue(
        self, jobs: Sequence[NewJob], policy: Policy = "allow", *, serial: SerialKeyOf | None = None, session: Any = None
    ) -> list[Enqueued]:
        """Queue jobs, all or none, in the transaction of `session` if there is one; see `Enqueuer.enqueue`.

        Raises:
            ForeignSession: the session is on another database.
        """
        connection = None if session is None else connection_of_session(self.db, session)
        return self._enqueues.enqueue(jobs, policy, serial=serial, connection=connection)

    def claim(
        self,
        lanes: Sequence[Lane],
        n: int,
        *,
        worker: str,
        lease: float,
        suspects: bool = False,
        on_poison: OnPoison | None = None,
    ) -> list[Job]:
        """Take up to `n` due jobs, see `Claims.claim`."""
        jobs = self._claims.claim(lanes, n, worker=worker, lease=lease, suspects=suspects, on_poison=on_poison)
        self._vacuum.claimed(len(jobs))
        return jobs

    def finish(self, dones: Sequence[JobResult]) -> list[JobResult]:
        """Finish worked jobs in one fenced transaction, see `Finishes.finish`."""
        return self._finishes.finish(dones)

    def release(self, jobs: Sequence[Job], *, reason: str) -> int:
        """Put unworked jobs back, see `Leases.release`."""
        return self._leases.release(jobs, reason=reason)

    def renew(self, claims: Sequence[tuple[int, int]], *, lease: float) -> set[int]:
        """Extend leases, see `Leases.renew`."""
        return self._leases.renew(claims, lease=lease)
