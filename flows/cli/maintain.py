"""`syncs maintain`: keeps the tables in order. The doing is in `flows.maintain`."""

from contextlib import closing

import click

from flows.cli.answer import Answer
from flows.cli.command import Command
from flows.cli.declared import declared, warn_of_broken
from flows.cli.signals import listening


@click.command("maintain", cls=Command, short_help="Take back jobs of dead workers, send due notices, remove old rows.")
def maintain() -> Answer:
    """Take back the jobs of dead and silent workers, send the notices that are due, and remove what is kept no longer.

    A queue keeps what its `keep=KeepPolicy(…)` says: by default successes for 7 days and failures for 30. What is known of
    the entities themselves stays. Workers do the same now and then; this does it now, for all queues. Ctrl-C ends it
    between two transactions.

    \b
    Example:
      syncs maintain
    """
    from flows.maintain import maintain as maintain_all
    from flows.orchestration.watch import mirrored
    from flows.settings import open_store

    registry = declared()
    warn_of_broken(registry)
    with (
        listening("stopping after this transaction", "stopping") as wishes,
        closing(open_store()) as store,
        mirrored(store, registry.clients),
    ):
        done = maintain_all(store, registry, stop=wishes.stop.is_set)
    document = {
        "rescued": done.rescued, "poisoned": done.poisoned, "moved": done.moved, "pruned": done.pruned.jobs,
        "attempts": done.pruned.attempts, "starts": done.pruned.starts, "pauses": done.pruned.pauses,
        "stopped": done.pruned.stopped, "notices": done.notices,
    }  # fmt: skip
    return Answer(document, str(done))
