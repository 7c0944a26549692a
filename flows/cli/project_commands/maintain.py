"""`syncs maintain`: rescues jobs, sends notices and removes old rows. `flows.maintenance` does the work."""

from contextlib import closing

import click

from flows.cli.command import Command
from flows.cli.declared_names import read_declarations, warn_of_broken
from flows.cli.output import CommandOutput
from flows.cli.signals import stop_on_signals


@click.command("maintain", cls=Command, short_help="Rescue jobs of dead workers, send due notices, remove old rows.")
def maintain() -> CommandOutput:
    """Rescue the jobs of dead and silent workers, send the notices that are due, and remove old rows.

    How long a queue keeps its jobs is declared by `keep=KeepPolicy(…)`: by default successes for 7 days and failures for 30. What
    is known of the entities themselves stays. Workers do the same from time to time; this does it now, for all queues. Ctrl-C
    ends it after the current transaction.

    \b
    Example:
      syncs maintain
    """
    from flows.maintenance import maintain as maintain_all
    from flows.orchestration.work_queues.updater import updating_work_queues
    from flows.project.settings import open_store

    registry = read_declarations()
    warn_of_broken(registry)
    with (
        stop_on_signals("stopping after this transaction", "stopping") as request,
        closing(open_store()) as store,
        updating_work_queues(store, registry.clients),
    ):
        done = maintain_all(store, registry, stop=request.stop.is_set)
    document = {
        "rescued": done.rescued,
        "poisoned": done.poisoned,
        "moved": done.moved,
        "pruned": done.pruned.jobs,
        "attempts": done.pruned.attempts,
        "starts": done.pruned.starts,
        "pauses": done.pruned.pauses,
        "runs": done.pruned.runs,
        "interrupted": done.interrupted,
        "stopped": done.pruned.stopped,
        "notices": done.notices,
    }
    return CommandOutput(document, str(done))
