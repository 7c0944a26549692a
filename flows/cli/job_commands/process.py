"""`syncs process`: processes one job in this process and prints each step. `flows.worker.single_job` does the work."""

from contextlib import closing
from dataclasses import asdict

import click

from flows.cli.command import Command, json_wanted, note
from flows.cli.declared_names import read_declarations, warn_of_broken
from flows.cli.output import CommandOutput, echo, to_json
from flows.cli.signals import stop_on_signals


@click.command("process", cls=Command, short_help="Process one job here, verbosely.")
@click.argument("job_id", type=int, metavar="ID")
@click.option(
    "--force",
    is_flag=True,
    help="Also if its client is paused, its queue full, or an earlier job of its serial key queued.",
)
def process(job_id: int, force: bool) -> CommandOutput:
    """Process one queued job here and now, whether it is due or delayed, and show what it does.

    Exits 0 when it succeeded, 1 when it failed or cannot be claimed, 2 when there is no such job or no file declares its type.
    Ctrl-C puts it back.

    \b
    Example:
      syncs process 42
    """
    from flows.project.settings import open_store
    from flows.worker.single_job import process as work_off

    registry = read_declarations()
    warn_of_broken(registry)
    quiet = json_wanted()

    def say(text: str) -> None:
        if not quiet:
            echo(text)

    with closing(open_store()) as store, stop_on_signals("putting the job back", "once more ends the process") as request:
        found = store.views.job(job_id)
        if not quiet:
            say(f"job {job_id} of {found.job.type} in queue {found.job.queue}: {to_json(found.payload)}")
        came = work_off(store, registry, job_id, force=force, say=say, stop=request.stop)
    document = {
        **asdict(came),
        "type": found.job.type,
        "queue": found.job.queue,
        "client": found.job.client,
        "key": found.job.key,
    }
    if came.refused:
        note(f"job {job_id} was not processed: {came.refused}")
        return CommandOutput(document, "", code=1)
    text = f"{came.traceback.rstrip()}\n" if came.traceback else ""
    text += f"job {job_id}: {came.state} after {came.seconds:.2f} s" + (f": {came.message}" if came.message else "")
    return CommandOutput({**document, "seconds": round(came.seconds, 3)}, text, code=0 if came.state == "success" else 1)
