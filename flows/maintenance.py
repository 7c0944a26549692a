"""Keeps the tables in order: requeues the jobs of dead workers, sends due notices, removes old rows.

The command `syncs maintain`, the flow `maintain` and the workers call the same function.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.errors import SettingsError
from flows.project.registry import Registry, load

if TYPE_CHECKING:
    from jobs.admin.retention import Pruned
    from jobs.claiming.poison import PoisonJob
    from jobs.store import JobStore

log = logging.getLogger("syncs.maintain")

EVERY = 600.0
"""Seconds between two calls of `maintain` by workers, whatever their number."""

ORPHANS_EVERY = 86_400.0
"""Seconds between two looks for attempts without a job, which read all attempts."""


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done."""

    #: Jobs taken back from dead and silent workers, and of these the ones that ended as poison.
    rescued: int
    poisoned: int
    pruned: "Pruned"
    #: Queued jobs that went to where their types are declared now.
    moved: int = 0
    #: Notices that went out, counted by recipient.
    notices: int = 0
    #: Runs of syncs whose process has died, which are marked as interrupted.
    interrupted: int = 0

    def __str__(self) -> str:
        parts = []
        if self.rescued:
            ended = f", {self.poisoned:,} of them ended as poison" if self.poisoned else ""
            parts.append(f"{_jobs(self.rescued)} of dead workers taken back{ended}")
        if self.interrupted:
            parts.append(f"{self.interrupted:,} run{'' if self.interrupted == 1 else 's'} marked as interrupted")
        if self.moved:
            parts.append(f"{_jobs(self.moved)} moved to where they are declared now")
        if self.notices:
            parts.append(f"{self.notices:,} notice{'' if self.notices == 1 else 's'} sent")
        if self.pruned.total:
            states = ", ".join(f"{count:,} {state}" for state, count in self.pruned.jobs.items())
            parts.append(f"{_jobs(self.pruned.total)} removed ({states})")
        pruned = {"attempts": self.pruned.attempts, "old starts": self.pruned.starts, "old pauses": self.pruned.pauses}
        pruned["old runs"] = self.pruned.runs
        for name, count in pruned.items():
            if count:
                parts.append(f"{count:,} {name} removed")
        if self.pruned.stopped:
            parts.append("stopped before the end")
        return "; ".join(parts) or "nothing to do"


def maintain(
    store: "JobStore", registry: Registry | None = None, *, stop: Callable[[], bool] = lambda: False, orphans: bool = True
) -> Maintained:
    """Requeue the jobs of dead workers, move jobs whose declaration has moved, send due notices, and remove old rows.

    Args:
        store: whose.
        registry: its queues say how long rows are kept, and its types where their jobs belong; without it the queues count as
            workers last registered them, no job is moved and no notice sent.
        stop: called between two transactions; true ends it.
        orphans: look also for attempts without a job.

    Raises:
        JobsError, SQLAlchemyError: the database failed; what is done by then stays done.
    """
    for queue in () if registry is None else registry.queues.values():
        store.queues.register(queue, declared=True)
    poisoned: list[PoisonJob] = []
    rescued = store.rescues.run(store.views.busy_queues(), on_poison=poisoned.append)
    if poisoned:
        from flows.execution.failure_report import report_poisoned
    for one in poisoned:
        report_poisoned(one, (registry or load()).job_types.get(one.type))
    interrupted = store.runs.close_dead(stop=stop)
    # After the rescue, which puts jobs back to where they were claimed.
    moved = 0 if registry is None else store.relocations.apply(registry.locations())
    # A worker sends by itself, see `flows.notices.notifier`.
    sent = 0 if registry is None else _notify(store, registry, stop)
    pruned = store.retention.prune(stop=stop, orphans=orphans)
    store.outbox.prune()
    return Maintained(rescued, len(poisoned), pruned, moved, sent, interrupted)


def _notify(store: "JobStore", registry: Registry, stop: Callable[[], bool]) -> int:
    """Store notices of what was not reported yet, and send what is due; return the number of messages sent."""
    from flows.notices.collector import Collector
    from flows.notices.delivery import Deliverer
    from flows.notices.process_carrier import carrier

    try:
        Collector(store, registry, registry.clients).collect(gather=0)
        return Deliverer(store, registry.clients, carrier()).deliver(stop=stop).sent
    except SettingsError as error:
        # A recipient that cannot be reached must not prevent the rest.
        log.warning("notices wait: %s", error)
        return 0


def tidy(store: "JobStore", *, stop: Callable[[], bool] = lambda: False) -> Maintained | None:
    """Call `maintain` if it is due and no other process does it; workers call this now and then.

    Args:
        store: whose.
        stop: called between two transactions; true ends it.

    Returns:
        What was done, or `None` where nothing was due.

    Raises:
        JobsError, SQLAlchemyError: the database failed.
    """
    if not store.retention.is_due("tidy", EVERY):
        return None
    return maintain(store, stop=stop, orphans=store.retention.is_due("orphans", ORPHANS_EVERY))


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"
