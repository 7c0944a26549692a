"""`syncs process`: works one job here, and tells each step. The working itself is in `flows.process`."""

from contextlib import closing
from dataclasses import asdict

import click

from flows.cli.answer import Answer, to_json
from flows.cli.command import Command, json_wanted, note
from flows.cli.declared import declared, warn_of_broken
from flows.cli.signals import listening


@click.command("process", cls=Command, short_help="Process one job here, verbosely.")
@click.argument("job_id", type=int, metavar="ID")
@click.option(
    "--force", is_flag=True, help="Also while its client is paused, its queue is full, or an earlier job of its serial key waits."
)
def process(job_id: int, force: bool) -> Answer:
    """Process one queued job here and now, whether it is due or delayed, and show what it does.

    Exits 0 when it succeeded, 1 when it did not, or cannot be taken, 2 when there is no such job, or nothing declares its
    type. Ctrl-C puts it back.

    \b
    Example:
      syncs process 42
    """
    from flows.process import process as work_off
    from flows.settings import open_store

    registry = declared()
    warn_of_broken(registry)
    quiet = json_wanted()

    def say(text: str) -> None:
        if not quiet:
            click.echo(text)

    with closing(open_store()) as store, listening("putting the job back", "once more ends the process") as wishes:
        found = store.job(job_id)
        if not quiet:
            say(f"job {job_id} of {found.job.type} in queue {found.job.queue}: {to_json(found.payload)}")
        came = work_off(store, registry, job_id, force=force, say=say, stop=wishes.stop)
    document = {
        **asdict(came),
        "type": found.job.type,
        "queue": found.job.queue,
        "client": found.job.client,
        "key": found.job.key,
    }
    if came.refused:
        note(f"job {job_id} was not processed: {came.refused}")
        return Answer(document, "", code=1)
    text = f"{came.traceback.rstrip()}\n" if came.traceback else ""
    text += f"job {job_id}: {came.state} after {came.seconds:.2f} s" + (f": {came.message}" if came.message else "")
    return Answer({**document, "seconds": round(came.seconds, 3)}, text, code=0 if came.state == "success" else 1)
