"""`syncs work`: processes queues until told to stop. The working itself is in `flows.work`."""

from contextlib import closing
from dataclasses import asdict

import click

from flows.cli.answer import Answer
from flows.cli.command import Command, json_wanted
from flows.cli.declared import complete_queues, declared, warn_of_broken
from flows.cli.meter import meter
from flows.cli.signals import listening
from flows.cli.verbose import verbose_option
from flows.errors import UnknownName


@click.command("work", cls=Command, short_help="Process queues.")
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=complete_queues)
@click.option("--time-limit", type=click.FloatRange(min=0), help="Take no further job after so many seconds.")
@click.option("--max-jobs", type=click.IntRange(min=1), help="Take at most so many jobs.")
@click.option("--until-empty", is_flag=True, help="End when no job is due.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Jobs at once, in place of what the syncs say.")
@verbose_option
def work(
    queues: tuple[str, ...],
    time_limit: float | None,
    max_jobs: int | None,
    until_empty: bool,
    concurrency: int | None,
    verbose: bool,
) -> Answer:
    """Process all queues, or those named, until told to stop.

    SIGTERM or Ctrl-C finishes the jobs in hand and exits 0; a second one puts them back.

    \b
    Example:
      syncs work --until-empty
      syncs work petstore --time-limit 300 --concurrency 4
    """
    from flows.settings import open_store

    registry = declared()
    known = {sync.queue_id for sync in registry.syncs.values()}
    # Before the database is opened: an unknown name writes nothing (issue 2, point 10).
    for queue in queues:
        if queue not in known:
            raise UnknownName(f"no queue is called {queue!r}; declared are: {', '.join(sorted(known)) or 'none'}")
    warn_of_broken(registry)
    with listening("finishing the jobs in hand; once more puts them back", "putting the jobs in hand back") as wishes:
        from flows.work import work

        with closing(open_store()) as store, meter("work", quiet=json_wanted() and not verbose) as tracker:
            result = work(
                store,
                registry,
                queues=queues,
                time_limit=time_limit,
                max_jobs=max_jobs,
                until_empty=until_empty,
                concurrency=concurrency,
                tracker=tracker,
                stop=wishes.stop,
                now=wishes.now,
            )
    document = {**asdict(result), "seconds": round(result.seconds, 3)}
    return Answer(document, f"Processed {result.processed:,} jobs in {result.seconds:.2f} seconds.")
