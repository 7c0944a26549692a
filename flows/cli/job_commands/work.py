"""`syncs work`: processes queues until it is stopped. `flows.worker.queue_processing` does the work."""

from contextlib import closing
from dataclasses import asdict

import click

from flows.cli.command import Command, NumberRange, json_wanted, verbose_option
from flows.cli.declared_names import complete_queues, read_declarations, warn_of_broken
from flows.cli.output import CommandOutput
from flows.cli.progress_bar import show_progress
from flows.cli.signals import stop_on_signals


def _read_at_once(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    read = {}
    for value in values:
        name, _equals, number = value.rpartition("=")
        if not name or not number.isdecimal() or int(number) < 1:
            raise click.BadParameter(f"{value!r} is not NAME=N with N at least 1")
        read[name] = int(number)
    return read


@click.command("work", cls=Command, short_help="Process queues.")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=complete_queues)
@click.option("--time-limit", type=NumberRange(min=0), metavar="S", help="Start no job after S seconds; 0 is no limit.")
@click.option("--max-jobs", type=click.IntRange(min=1), metavar="N", help="Take at most N jobs.")
@click.option("--until-empty", is_flag=True, help="End when no job is due.")
@click.option("--phase", "phases", multiple=True, metavar="P", help="Only this phase of job types; may be repeated.")
@click.option("--type", "types", multiple=True, metavar="T", help="Only this sync or job type; may be repeated.")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs at a time, instead of what is declared.")
@click.option(
    "--at-once",
    multiple=True,
    callback=_read_at_once,
    metavar="NAME=N",
    help="At most N at a time of a type or of TYPE:PHASE.",
)
@click.option("--grace", type=NumberRange(min=0), metavar="S", help="S seconds after a stop, put running jobs back.")
@click.option(
    "--memory-limit",
    type=NumberRange(min=1),
    metavar="MB",
    help="End when larger, to be started again.",
)
@verbose_option
def work(
    queues: tuple[str, ...],
    time_limit: float | None,
    max_jobs: int | None,
    until_empty: bool,
    phases: tuple[str, ...],
    types: tuple[str, ...],
    concurrency: int | None,
    at_once: dict[str, int],
    grace: float | None,
    memory_limit: float | None,
    verbose: bool,
) -> CommandOutput:
    """Process all queues, or those named, until stopped; also continue listings that were interrupted.

    Exits 1 if this process itself lacks what jobs take, such as a usable proxy; they stay queued.
    SIGTERM or Ctrl-C finishes the running jobs and exits 0; a second one puts them back, and so does the end of --grace.

    \b
    Example:
      syncs work --until-empty
      syncs work petstore --time-limit 300 --concurrency 4
      syncs work --phase fetch --at-once petstore.order:fetch=2
    """
    from flows.project.settings import open_store
    from flows.worker.worker_config import choose

    registry = read_declarations()
    # Before the database is opened, so that an unknown name writes nothing.
    choose(registry, queues=queues, types=types, phases=phases, concurrency=concurrency, at_once=at_once)
    warn_of_broken(registry)
    with stop_on_signals("finishing the running jobs; once more puts them back", "putting the running jobs back") as request:
        from flows.orchestration.work_queues.updater import updating_work_queues
        from flows.sync.unfinished_listings import UnfinishedListings
        from flows.worker.queue_processing import work

        with (
            closing(open_store()) as store,
            # reconcile_first=False: it would import Prefect into each worker, which costs time and memory.
            updating_work_queues(store, registry.clients, reconcile_first=False),
            show_progress("work", quiet=json_wanted() and not verbose) as tracker,
        ):
            result = work(
                store,
                registry,
                queues=queues,
                types=types,
                phases=phases,
                time_limit=time_limit,
                max_jobs=max_jobs,
                until_empty=until_empty,
                concurrency=concurrency,
                at_once=at_once,
                grace=grace,
                memory_limit=memory_limit,
                tracker=tracker,
                stop=request.stop,
                now=request.now,
                listings=lambda syncs, halt: UnfinishedListings(store, registry, syncs, stop=halt),
            )
    failures = [{"key": key, "message": message} for key, message in result.failures]
    document = {**asdict(result), "seconds": round(result.seconds, 3), "failures": failures}
    of = f" from the {queues[0]} queue" if len(queues) == 1 else ""
    outcomes = f"{result.succeeded:,} succeeded, {result.failed:,} failed"
    if result.processed > result.succeeded + result.failed:
        outcomes += f", {result.processed - result.succeeded - result.failed:,} put back for later"
    text = f"Processed {result.processed:,} jobs{of} in {result.seconds:.2f} seconds: {outcomes}."
    # Jobs that this process cannot work need a person, but for one who has stopped it.
    code = 1 if result.lacking and not request.stop.is_set() else 0
    return CommandOutput(document, text if result.processed else text.partition(":")[0] + ".", code=code)
