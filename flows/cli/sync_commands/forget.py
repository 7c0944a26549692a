"""`syncs forget`: removes what is kept of something that is no longer declared. `jobs.admin.forget` does the work."""

import sys
from contextlib import closing

import click

from flows.cli.command import Command, user_name
from flows.cli.declared_names import read_declarations
from flows.cli.output import CommandOutput
from flows.cli.signals import stop_on_signals
from flows.declarations.job_type import JobType
from flows.declarations.sync import Sync
from flows.errors import UnknownName, UsageError
from flows.project.registry import Registry


@click.command("forget", cls=Command, short_help="Remove what is kept of something no longer declared.")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(name: str, yes: bool) -> CommandOutput:
    """Remove what is kept of a sync, a job type or a queue that no file declares any more: records, jobs, runs, notices.

    It says first what and how much that is, and asks. What is declared is refused, and so is every name while a file is broken,
    since that may declare it. Your own tables stay. Exits 1 when a worker still has jobs of it, or when it was stopped.

    \b
    Example:
      syncs forget petstore.old_pets
      syncs forget slow --yes
    """
    from flows.project.settings import open_store

    registry = read_declarations()
    _refuse_declared(registry, name)
    with (
        closing(open_store()) as store,
        stop_on_signals("stopping after this transaction", "stopping") as request,
    ):
        kinds = {is_queue: kept for is_queue in (False, True) if (kept := store.forgetting.kept(name, is_queue=is_queue)).total}
        if not kinds:
            raise UnknownName(f"nothing is kept of {name!r}")
        if True in kinds and (declared := [one for one in store.forgetting.types_in(name) if one in registry.types]):
            raise UsageError(
                f"queue {name!r} still has jobs of {', '.join(declared)}, which is declared; `syncs work` moves them"
            )
        what = "; ".join(f"{'of the queue ' if is_queue else ''}{kept}" for is_queue, kept in kinds.items())
        if not yes:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise UsageError(f"--yes is needed: this removes {what} of {name}, and there is no terminal to ask")
            click.confirm(f"This will remove {what} of {name}, for good. Go on?", abort=True, err=True)
        whole = all(
            store.forgetting.forget(name, is_queue=is_queue, by=user_name(), stop=request.stop.is_set) for is_queue in kinds
        )
    both = [kinds[key] for key in kinds]
    document = {
        "name": name,
        "records": sum(one.records for one in both),
        "jobs": sum(one.jobs for one in both),
        "runs": sum(one.runs for one in both),
        "others": sum(one.others for one in both),
        "whole": whole,
    }
    if whole:
        return CommandOutput(document, f"forgot {name}: {what}")
    why = "stopped as asked" if request.stop.is_set() else "a worker still has jobs of it"
    return CommandOutput(document, f"forgot a part of {name}: {why}; the same command goes on", code=1)


def _refuse_declared(registry: Registry, name: str) -> None:
    if registry.broken:
        raise UsageError(f"a broken file may declare {name!r}, so nothing is forgotten: {registry.broken[0]}")
    for kind, names in (("sync", registry.syncs), ("job type", registry.job_types), ("queue", registry.queues)):
        if name in names:
            raise UsageError(f"{name!r} is a {kind} that {registry.files[kind, name]} declares; take it out there first")
    uses: list[Sync | JobType] = [*registry.syncs.values(), *registry.job_types.values()]
    if name in {one.queue_id for one in uses}:
        raise UsageError(f"{name!r} is a queue that syncs or job types use")
    if name in registry.clients:
        raise UsageError(f"{name!r} is a client that {registry.files['client', name]} declares; forget its syncs and queues")
