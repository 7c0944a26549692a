"""What keeps the tables in order: jobs of dead workers go back, due notices go out, old rows go. One function for the command,
the flow and the workers. Knows no Prefect.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.errors import SettingsError
from flows.home import homes
from flows.registry import Registry, load

if TYPE_CHECKING:
    from jobs.poison import Poisoned
    from jobs.retention import Pruned
    from jobs.store import JobStore

log = logging.getLogger("syncs.maintain")

EVERY = 600.0
"""Seconds between two tidyings, whatever the number of workers."""

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

    def __str__(self) -> str:
        parts = []
        if self.rescued:
            ended = f", {self.poisoned:,} of them ended as poison" if self.poisoned else ""
            parts.append(f"{_jobs(self.rescued)} of dead workers taken back{ended}")
        if self.moved:
            parts.append(f"{_jobs(self.moved)} moved to where they are declared now")
        if self.notices:
            parts.append(f"{self.notices:,} notice{'' if self.notices == 1 else 's'} sent")
        if self.pruned.total:
            states = ", ".join(f"{count:,} {state}" for state, count in self.pruned.jobs.items())
            parts.append(f"{_jobs(self.pruned.total)} removed ({states})")
        for count, name in (
            (self.pruned.attempts, "attempts"), (self.pruned.starts, "old starts"), (self.pruned.pauses, "old pauses")
        ):  # fmt: skip
            if count:
                parts.append(f"{count:,} {name} removed")
        if self.pruned.stopped:
            parts.append("stopped before the end")
        return "; ".join(parts) or "nothing to do"


def maintain(
    store: "JobStore", registry: Registry | None = None, *, stop: Callable[[], bool] = lambda: False, orphans: bool = True
) -> Maintained:
    """Take back the jobs of dead workers, bring those home whose declaration has changed, send the notices that are due, and
    remove what is kept no longer.

    Args:
        store: whose.
        registry: whose declared queues say what they keep, and whose types where their jobs belong; without it counts what
            workers last said, no job is moved and no notice sent.
        stop: asked between two transactions.
        orphans: look also for attempts without a job.

    Raises:
        JobsError, SQLAlchemyError: the database failed; what is done by then stays done.
    """
    for queue in () if registry is None else registry.queues.values():
        store.serve(queue, declared=True)
    poisoned: list[Poisoned] = []
    rescued = store.rescue(store.busy_queues(), on_poison=poisoned.append)
    if poisoned:
        from flows.job_work import tell_poisoned
    for one in poisoned:
        tell_poisoned(one, (registry or load()).job_types.get(one.type))
    # After the rescue: what goes back goes to where it was claimed.
    moved = 0 if registry is None else store.bring_home(homes([*registry.syncs.values(), *registry.job_types.values()]))
    # A worker sends by itself, see `flows.told`.
    sent = 0 if registry is None else _notify(store, registry, stop)
    pruned = store.prune(stop=stop, orphans=orphans)
    store.letters.prune()
    return Maintained(rescued, len(poisoned), pruned, moved, sent)


def _notify(store: "JobStore", registry: Registry, stop: Callable[[], bool]) -> int:
    """Write what nobody was told of, and send what is due; return the number of messages sent."""
    from flows.desk import Desk
    from flows.postman import Postman
    from flows.told import carrier

    try:
        Desk(store, registry, registry.clients).look(gather=0)
        return Postman(store, registry.clients, carrier()).deliver(stop=stop).sent
    except SettingsError as error:
        # Whoever cannot be told keeps nobody from tidying up.
        log.warning("notices wait: %s", error)
        return 0


def tidy(store: "JobStore", *, stop: Callable[[], bool] = lambda: False) -> Maintained | None:
    """Do the same if it is due and nobody else does it; workers call it now and then (M14).

    Args:
        store: whose.
        stop: asked between two transactions.

    Returns:
        What was done, or `None` where nothing was due.

    Raises:
        JobsError, SQLAlchemyError: the database failed.
    """
    if not store.due_for("tidy", EVERY):
        return None
    return maintain(store, stop=stop, orphans=store.due_for("orphans", ORPHANS_EVERY))


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"
