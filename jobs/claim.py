"""Claiming: which lanes give how many jobs, within the limits of their queues. Decides nothing about outcomes."""

import time
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection

from jobs.budget import NONE, Budget, Budgets, Limits
from jobs.contention import again
from jobs.database import Database
from jobs.heads import HIGHEST, LOWEST, Heads
from jobs.job import Job, Lane
from jobs.rescue import OnPoison, Rescues, tell
from jobs.take import By, Takes
from jobs.turns import AGED_SHARE, AGEING, Turns, aged

__all__ = ["AGEING", "LANES", "LOOK_EVERY", "RESCUE_EVERY", "Claims", "OnPoison"]

LOOK_EVERY = 1.0
"""Seconds between two looks of one process at a queue: for expired leases, changed limits, and who has waited too long."""

RESCUE_EVERY = LOOK_EVERY

LANES = 8
"""Lanes that share a claim at most; the others come first in the next one."""

ROUNDS = 16
"""Priorities that one claim goes down at most, where several lanes have many; the next claim goes on."""


class Claims:
    """Claims of one database. Any number of threads and processes may call it.

    Args:
        db: the database.
        rescues: what takes back the jobs of dead workers on the way.
        ageing: seconds of waiting that count as a step of priority.
        look_every: seconds between two looks at a queue.
        probing: pauses do not matter, for each claim has the right to take past them, see `may`.
    """

    def __init__(
        self, db: Database, rescues: Rescues, *, ageing: float = AGEING, look_every: float = LOOK_EVERY, probing: bool = False
    ) -> None:
        self._db = db
        self._rescues = rescues
        self._ageing = ageing
        self._look_every = look_every
        self._budgets = Budgets(db)
        self._heads = Heads(db, probing=probing)
        self._takes = Takes(db, probing=probing)
        self._turns = Turns()
        self._limits: dict[str, Limits] = {}
        self._looked_at: dict[str, float] = {}
        self._aged_at: dict[str, float] = {}

    def forget(self, queue: str) -> None:
        """Read the limits of a queue again before the next claim from it."""
        self._looked_at.pop(queue, None)

    def wait_hint(self, queues: Iterable[str]) -> float | None:
        """Say when a queue that has used up its rate may start something again, see `Budgets.wait_hint`."""
        return self._budgets.wait_hint(queues)

    @again
    def claim(
        self, lanes: Sequence[Lane], n: int, *, worker: str, lease: float, suspects: bool = False,
        on_poison: OnPoison | None = None, may: Callable[[Connection], bool] | None = None,
    ) -> list[Job]:  # fmt: skip
        """Take up to `n` jobs that are due, and rescue expired ones on the way (law 4).

        Among lanes the highest priority goes first, and no job of one lane before a more urgent one of another. Lanes of
        equal priority share the claim and take turns, clients first, so that a long lane does not hide a short one. Priority
        does not starve either: what has waited so long that its age outweighs its priority (`AGEING`) gets a fourth of the
        places, looked for once a second (M9). Jobs of a client that is paused, or waits for its probe, stay where they are
        (law 5). Jobs of one serial key are claimed one at a time, in the order of their ids; a delayed one holds back the
        later ones.

        A queue with limits gives no more than they leave, over all workers (`jobs.budget`): `[]` may mean that nothing is
        due or that nothing may start, see `wait_hint`. A limit holds from the commit that declares it; what was claimed
        before counts, and is not taken back.

        Args:
            lanes: what the caller can work.
            n: at most so many.
            worker: who takes them, see `jobs.worker`.
            lease: seconds until others may take them back, unless renewed.
            suspects: take the jobs that were in a dying worker's hands instead of the others. Worked one at a time,
                they show which of them kills its worker, and the rest of its batch is spared.
            on_poison: told of jobs that ended because they keep killing their workers, once that is committed.
            may: asked first, in the transaction of the claim; a no claims nothing.

        Returns:
            Claimed jobs. Those of one lane are in order: urgent first, then due first, then first come.
        """
        if n < 1 or not lanes:
            return []
        by = By(worker, lease, suspects)
        if may is None and len(lanes) == 1 and self._needs_no_look(lanes[0].queue, suspects):
            with self._db.write(single=True) as connection:
                jobs = self._takes.take(connection, lanes[0], n, by)
            self._turns.went(len(jobs))
            return jobs
        queues = sorted({lane.queue for lane in lanes})
        with self._db.write(prepared=True) as connection:
            if may is not None and not may(connection):
                return []
            due, ageing = self._due(queues, self._looked_at), self._due_for_ageing(queues, suspects)
            for queue in due:
                self._limits[queue] = self._budgets.look(connection, queue)
            limits = self._lock(connection, queues)
            _, poisoned = self._rescues.within(connection, due)
            budgets = [self._budgets.count(connection, queue, limit) for queue, limit in limits.items()]
            claiming = _Claiming(connection, self._takes, by, n, self._limits, budgets)
            claiming.fit(queues)
            if ageing:
                self._take_aged(claiming, [lane for lane in lanes if lane.queue in ageing])
            self._take_urgent(claiming, lanes)
            for budget in budgets:
                self._budgets.close(connection, budget, prune=budget.queue in due)
        tell(poisoned, on_poison)
        return claiming.jobs

    def _lock(self, connection: Connection, queues: Sequence[str]) -> dict[str, Limits]:
        """Lock the queues that have limits, in order, before any job is locked."""
        limits: dict[str, Limits] = {}
        for queue in queues:
            known = self._limits.get(queue, NONE)
            if known.are_limits:
                limits[queue] = self._budgets.lock(connection, queue)
                self._limits[queue] = limits[queue]._replace(has_serial=known.has_serial)
        return limits

    def _take_aged(self, claiming: "_Claiming", lanes: Sequence[Lane]) -> None:
        lanes = [lane for lane in lanes if claiming.room(lane) > 0]
        levels = self._heads.levels(claiming.connection, lanes) if lanes else []
        share = -(-claiming.left // AGED_SHARE)
        # The first ones may be out of turn by their serial keys.
        for level in aged(levels, self._ageing)[:3]:
            jobs = claiming.take(level.lane, share, level.priority, level.priority)
            if jobs:
                self._turns.went(0, aged=len(jobs))
                break

    def _take_urgent(self, claiming: "_Claiming", lanes: Sequence[Lane]) -> None:
        before = len(claiming.jobs)
        if len(lanes) == 1:
            claiming.take(lanes[0], claiming.left)
        else:
            self._take_by_priority(claiming, lanes)
            self._turns.served(dict.fromkeys(job.lane for job in claiming.jobs[before:]))
        self._turns.went(len(claiming.jobs) - before)

    def _take_by_priority(self, claiming: "_Claiming", lanes: Sequence[Lane]) -> None:
        suspects = claiming.by.suspects
        firsts = self._heads.firsts(claiming.connection, lanes, suspects=suspects) if claiming.left else {}
        for _ in range(ROUNDS):
            firsts = {lane: priority for lane, priority in firsts.items() if claiming.room(lane) > 0}
            if not firsts:
                return
            top = max(firsts.values())
            tier = self._turns.order(lane for lane, priority in firsts.items() if priority == top)
            lower = max((priority for priority in firsts.values() if priority < top), default=LOWEST - 1)
            # Alone, a lane may go down to where another one begins.
            at_least = top if len(tier) > 1 else lower + 1
            short = self._share(claiming, tier, at_least)
            if at_least > LOWEST and short and claiming.left:
                below = self._heads.firsts(claiming.connection, short, suspects=suspects, at_most=at_least - 1)
            else:
                below = {}
            firsts = {lane: priority for lane, priority in firsts.items() if lane not in tier} | below

    @staticmethod
    def _share(claiming: "_Claiming", tier: list[Lane], at_least: int) -> list[Lane]:
        """Take jobs of at least this priority from lanes in turn; return the lanes that have no more of them."""
        short: list[Lane] = []
        while tier and claiming.left:
            more: list[Lane] = []
            for position, lane in enumerate(tier):
                share = min(-(-claiming.left // min(len(tier) - position, LANES)), claiming.room(lane))
                if share > 0:
                    jobs = claiming.take(lane, share, at_least)
                    (short if len(jobs) < share else more).append(lane)
            tier = more
        return short

    def _needs_no_look(self, queue: str, suspects: bool) -> bool:
        """Tell whether a claim from this queue has nothing to do but to claim."""
        earliest = time.monotonic() - self._look_every
        if self._limits.get(queue) != NONE or self._looked_at.get(queue, earliest) <= earliest:
            return False
        return suspects or not self._turns.may_age or self._aged_at.get(queue, earliest) > earliest

    def _due(self, queues: Iterable[str], at: dict[str, float]) -> list[str]:
        now = time.monotonic()
        due = [queue for queue in queues if now - at.get(queue, -self._look_every) >= self._look_every]
        at.update(dict.fromkeys(due, now))
        return due

    def _due_for_ageing(self, queues: Iterable[str], suspects: bool) -> list[str]:
        # On a clock of its own: looks for suspects come once a second too, and would take every one of these.
        return [] if suspects or not self._turns.may_age else self._due(queues, self._aged_at)


class _Claiming:
    """One claim under way: what was taken, and how many more may be."""

    def __init__(
        self, connection: Connection, takes: Takes, by: By, n: int, limits: dict[str, Limits], budgets: Sequence[Budget]
    ) -> None:
        self.connection = connection
        self.by = by
        self.jobs: list[Job] = []
        self.left = n
        self._takes = takes
        self._limits = limits
        self._budgets = {budget.queue: budget for budget in budgets}

    def fit(self, queues: Sequence[str]) -> None:
        """Ask for no more than all queues together can give, so that lanes share that."""
        rooms = [budget.room for budget in self._budgets.values()]
        if len(rooms) == len(queues):
            known = [room for room in rooms if room is not None]
            if len(known) == len(rooms):
                self.left = min(self.left, sum(known))

    def room(self, lane: Lane) -> int:
        """How many jobs of this lane may be taken yet."""
        budget = self._budgets.get(lane.queue)
        room = None if budget is None else budget.room
        return self.left if room is None else min(self.left, room)

    def take(self, lane: Lane, n: int, at_least: int = LOWEST, at_most: int = HIGHEST) -> list[Job]:
        """Take jobs of these priorities from a lane."""
        n = min(n, self.room(lane))
        if n < 1:
            return []
        budget = self._budgets.get(lane.queue)
        has_serial = self._limits.get(lane.queue, NONE).has_serial
        if has_serial or (at_least, at_most) != (LOWEST, HIGHEST):
            jobs = self._takes.take_between(
                self.connection, lane, n, self.by,
                at_least=at_least, at_most=at_most, has_budget=budget is not None, has_serial=has_serial,
            )  # fmt: skip
        else:
            jobs = self._takes.take(self.connection, lane, n, self.by, has_budget=budget is not None)
        self.left -= len(jobs)
        if budget is not None:
            budget.taken += len(jobs)
        self.jobs += jobs
        return jobs
