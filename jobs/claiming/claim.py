"""Claims due jobs: decides which lanes give how many, within the limits of their queues."""

import time
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection

from jobs.claiming.claim_statement import ANY, ClaimedBy, ClaimStatements
from jobs.claiming.fairness import AGED_SHARE, AGEING, Rotation, outranking
from jobs.claiming.limits import NO_LIMITS, Limits, QueueCapacity, QueueLimits
from jobs.claiming.priorities import HIGHEST, LOWEST, LanePriorities
from jobs.claiming.rescue import OnPoison, Rescues, report
from jobs.db.conflicts import retry_on_conflict
from jobs.db.database import Database
from jobs.job import Job, Lane

__all__ = ["AGEING", "CHECK_EVERY", "LANES", "RESCUE_EVERY", "Claims", "OnPoison"]

CHECK_EVERY = 1.0
"""Seconds between two checks of a queue by one process: for expired leases, changed limits and jobs that have waited long."""

RESCUE_EVERY = CHECK_EVERY

LANES = 8
"""Lanes that share one claim at most; the others come first in the next one."""

ROUNDS = 16
"""Priorities that one claim descends at most, where several lanes have many; the next claim continues."""


class Claims:
    """Claims of one database. Any number of threads and processes may call it.

    Args:
        db: the database.
        rescues: takes back jobs of dead workers; a claim does so once in `check_every` seconds.
        queues: the limits of the queues.
        ageing: seconds of waiting that count as a step of priority.
        check_every: seconds between two checks of a queue.
        probing: claims ignore pauses; each must prove its right to, see `may`.
    """

    def __init__(
        self,
        db: Database,
        rescues: Rescues,
        queues: QueueLimits,
        *,
        ageing: float = AGEING,
        check_every: float = CHECK_EVERY,
        probing: bool = False,
    ) -> None:
        self._db = db
        self._rescues = rescues
        self._ageing = ageing
        self._check_every = check_every
        self._queues = queues
        self._priorities = LanePriorities(db, probing=probing)
        self._statements = ClaimStatements(db, probing=probing)
        self._rotation = Rotation()
        self._limits: dict[str, Limits] = {}
        self._checked_at: dict[str, float] = {}
        self._registrations = 0
        self._aged_at: dict[str, float] = {}

    @retry_on_conflict
    def claim(
        self,
        lanes: Sequence[Lane],
        n: int,
        *,
        worker: str,
        lease: float,
        suspects: bool = False,
        on_poison: OnPoison | None = None,
        may: Callable[[Connection], bool] | None = None,
        least: int = 0,
        most: int = ANY,
    ) -> list[Job]:
        """Claim up to `n` jobs that are due, and rescue expired ones in the same transaction.

        Among lanes the highest priority goes first, and no job of one lane before a more urgent one of another. Lanes of
        equal priority share the claim in rotation, clients first, so that a long lane does not delay a short one. Low
        priorities do not starve: jobs that have waited so long that their age outweighs their priority (`AGEING`) get a
        fourth of the places; they are looked for once a second. Jobs of a client that is paused, or waits for its probe,
        are not claimed. Jobs of one serial key are claimed one at a time, in the order of their ids; a delayed one holds
        back the later ones.

        A queue with limits gives no more than they leave, over all workers (`jobs.claiming.limits`). `[]` may mean that
        nothing is due or that nothing may start, see `QueueLimits.wait_hint`. A limit applies from the commit that declares
        it; jobs claimed before count, and are not taken back.

        Args:
            lanes: what the caller can work.
            n: at most so many.
            worker: the name of the caller, see `jobs.process_identity`.
            lease: seconds until others may take the jobs back, unless renewed.
            suspects: claim jobs that have been rescued, in place of the others. Worked one at a time, they show which of
                them kills its worker, and the rest of its batch is spared.
            on_poison: called for each job that ended because it keeps killing its workers, after the commit.
            may: called first, in the transaction of the claim; where it returns false, nothing is claimed.
            least, most: with `probing`, only jobs that were put back at least so often, and put back or retried at most so often.

        Returns:
            Claimed jobs. Those of one lane are in order: by priority, then by due time, then by id.
        """
        if n < 1 or not lanes:
            return []
        by = ClaimedBy(worker, lease, suspects, least, most)
        if may is None and len(lanes) == 1 and self._may_skip_checks(lanes[0].queue, suspects):
            with self._db.write(single=True) as connection:
                jobs = self._statements.claim(connection, lanes[0], n, by)
            self._rotation.count(len(jobs))
            return jobs
        queues = sorted({lane.queue for lane in lanes})
        with self._db.write(prepared=True) as connection:
            if may is not None and not may(connection):
                return []
            if self._registrations != self._queues.registrations:
                self._registrations = self._queues.registrations
                self._checked_at.clear()
            due, ageing = self._due(queues, self._checked_at), self._due_for_ageing(queues, suspects)
            for queue in due:
                self._limits[queue] = self._queues.read(connection, queue)
            limits = self._lock(connection, queues)
            _, poisoned = self._rescues.run_in(connection, due)
            capacities = [self._queues.capacity(connection, queue, limit) for queue, limit in limits.items()]
            claiming = _ClaimInProgress(connection, self._statements, by, n, limits=self._limits, capacities=capacities)
            claiming.limit_to_capacity(queues)
            if ageing:
                self._claim_aged(claiming, [lane for lane in lanes if lane.queue in ageing])
            self._claim_urgent(claiming, lanes)
            for capacity in capacities:
                self._queues.record_starts(connection, capacity, prune=capacity.queue in due)
        report(poisoned, on_poison)
        return claiming.jobs

    def _lock(self, connection: Connection, queues: Sequence[str]) -> dict[str, Limits]:
        """Lock the rows of queues that have limits, in order, before any job is locked."""
        limits: dict[str, Limits] = {}
        for queue in queues:
            known = self._limits.get(queue, NO_LIMITS)
            if known.are_limits:
                limits[queue] = self._queues.lock(connection, queue)
                self._limits[queue] = limits[queue]._replace(has_serial=known.has_serial)
        return limits

    def _claim_aged(self, claiming: "_ClaimInProgress", lanes: Sequence[Lane]) -> None:
        lanes = [lane for lane in lanes if claiming.room(lane) > 0]
        levels = self._priorities.levels(claiming.connection, lanes) if lanes else []
        share = -(-claiming.left // AGED_SHARE)
        # The first of them may be waiting for an earlier job of their serial key.
        for level in outranking(levels, self._ageing)[:3]:
            jobs = claiming.claim(level.lane, share, level.priority, level.priority)
            if jobs:
                self._rotation.count(0, aged=len(jobs))
                break

    def _claim_urgent(self, claiming: "_ClaimInProgress", lanes: Sequence[Lane]) -> None:
        before = len(claiming.jobs)
        if len(lanes) == 1:
            claiming.claim(lanes[0], claiming.left)
        else:
            self._claim_by_priority(claiming, lanes)
            self._rotation.mark_served(dict.fromkeys(job.lane for job in claiming.jobs[before:]))
        self._rotation.count(len(claiming.jobs) - before)

    def _claim_by_priority(self, claiming: "_ClaimInProgress", lanes: Sequence[Lane]) -> None:
        suspects = claiming.by.suspects
        highest = self._priorities.highest(claiming.connection, lanes, suspects=suspects) if claiming.left else {}
        for _ in range(ROUNDS):
            highest = {lane: priority for lane, priority in highest.items() if claiming.room(lane) > 0}
            if not highest:
                return
            top = max(highest.values())
            tier = self._rotation.order(lane for lane, priority in highest.items() if priority == top)
            lower = max((priority for priority in highest.values() if priority < top), default=LOWEST - 1)
            # A lane that is alone at the top may go down to the priority of the next one.
            at_least = top if len(tier) > 1 else lower + 1
            short = self._share(claiming, tier, at_least)
            if at_least > LOWEST and short and claiming.left:
                below = self._priorities.highest(claiming.connection, short, suspects=suspects, at_most=at_least - 1)
            else:
                below = {}
            highest = {lane: priority for lane, priority in highest.items() if lane not in tier} | below

    @staticmethod
    def _share(claiming: "_ClaimInProgress", tier: list[Lane], at_least: int) -> list[Lane]:
        """Claim jobs of at least this priority from lanes in rotation; return the lanes that have no more of them."""
        short: list[Lane] = []
        while tier and claiming.left:
            more: list[Lane] = []
            for position, lane in enumerate(tier):
                share = min(-(-claiming.left // min(len(tier) - position, LANES)), claiming.room(lane))
                if share > 0:
                    jobs = claiming.claim(lane, share, at_least)
                    (short if len(jobs) < share else more).append(lane)
            tier = more
        return short

    def _may_skip_checks(self, queue: str, suspects: bool) -> bool:
        """Tell whether no check of this queue is due, so that one statement is enough."""
        if self._registrations != self._queues.registrations:
            return False
        earliest = time.monotonic() - self._check_every
        if self._limits.get(queue) != NO_LIMITS or self._checked_at.get(queue, earliest) <= earliest:
            return False
        return suspects or not self._rotation.may_age or self._aged_at.get(queue, earliest) > earliest

    def _due(self, queues: Iterable[str], at: dict[str, float]) -> list[str]:
        now = time.monotonic()
        due = [queue for queue in queues if now - at.get(queue, -self._check_every) >= self._check_every]
        at.update(dict.fromkeys(due, now))
        return due

    def _due_for_ageing(self, queues: Iterable[str], suspects: bool) -> list[str]:
        # With times of its own: claims of suspects come once a second too, and would use up every one of these checks.
        return [] if suspects or not self._rotation.may_age else self._due(queues, self._aged_at)


class _ClaimInProgress:
    """One claim under way: the jobs claimed so far, and how many more may be."""

    def __init__(
        self,
        connection: Connection,
        statements: ClaimStatements,
        by: ClaimedBy,
        n: int,
        limits: dict[str, Limits],
        capacities: Sequence[QueueCapacity],
    ) -> None:
        self.connection = connection
        self.by = by
        self.jobs: list[Job] = []
        self.left = n
        self._statements = statements
        self._limits = limits
        self._queues = {capacity.queue: capacity for capacity in capacities}

    def limit_to_capacity(self, queues: Sequence[str]) -> None:
        """Claim no more than all queues together can give, so that the lanes share that."""
        rooms = [capacity.room for capacity in self._queues.values()]
        if len(rooms) == len(queues):
            known = [room for room in rooms if room is not None]
            if len(known) == len(rooms):
                self.left = min(self.left, sum(known))

    def room(self, lane: Lane) -> int:
        """Return how many more jobs of this lane may be claimed."""
        capacity = self._queues.get(lane.queue)
        room = None if capacity is None else capacity.room
        return self.left if room is None else min(self.left, room)

    def claim(self, lane: Lane, n: int, at_least: int = LOWEST, at_most: int = HIGHEST) -> list[Job]:
        """Claim jobs of these priorities from a lane."""
        n = min(n, self.room(lane))
        if n < 1:
            return []
        capacity = self._queues.get(lane.queue)
        has_serial = self._limits.get(lane.queue, NO_LIMITS).has_serial
        if has_serial or (at_least, at_most) != (LOWEST, HIGHEST):
            jobs = self._statements.claim_between(
                self.connection,
                lane,
                n,
                self.by,
                at_least=at_least,
                at_most=at_most,
                keeps_limits=capacity is not None,
                has_serial=has_serial,
            )
        else:
            jobs = self._statements.claim(self.connection, lane, n, self.by, keeps_limits=capacity is not None)
        self.left -= len(jobs)
        if capacity is not None:
            capacity.taken += len(jobs)
        self.jobs += jobs
        return jobs
