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
@click.option("--time-limit", type=click.FloatRange(min=0), metavar="S", help="Begin no further job after S seconds; 0 is none.")
@click.option("--max-jobs", type=click.IntRange(min=1), metavar="N", help="Take at most N jobs.")
@click.option("--until-empty", is_flag=True, help="End when no job is due.")
@click.option("--phase", "phases", multiple=True, metavar="P", help="Only this phase of job types; may be repeated.")
@click.option("--type", "types", multiple=True, metavar="T", help="Only this sync or job type; may be repeated.")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs at once, in place of what is declared.")
@click.option(
    "--at-once", multiple=True, callback=_read_at_once, metavar="NAME=N", help="At most N at once of a type or TYPE:PHASE."
)
@click.option("--grace", type=click.FloatRange(min=0), metavar="S", help="S seconds after a stop, put the jobs in hand back.")
@click.option("--memory-limit", type=click.FloatRange(min=1), metavar="MB", help="End when larger, to be started anew.")
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
) -> Answer:
    """Process all queues, or those named, until told to stop.

    SIGTERM or Ctrl-C finishes the jobs in hand and exits 0; a second one puts them back, as does the end of --grace.

    \b
    Example:
      syncs work --until-empty
      syncs work petstore --time-limit 300 --concurrency 4
      syncs work --phase fetch --at-once petstore.order:fetch=2
    """
    from flows.duty import duty
    from flows.settings import open_store

    registry = declared()
    # Before the database is opened: an unknown name writes nothing (issue 2, point 10).
    duty(registry, queues=queues, types=types, phases=phases, concurrency=concurrency, at_once=at_once)
    warn_of_broken(registry)
    with listening("finishing the jobs in hand; once more puts them back", "putting the jobs in hand back") as wishes:
        from flows.orchestration.watch import mirrored
        from flows.work import work

        with (
            closing(open_store()) as store,
            # Without a first look: that would cost each worker the time and the memory that Prefect takes.
            mirrored(store, registry.clients, begin=False),
            meter("work", quiet=json_wanted() and not verbose) as tracker,
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
                stop=wishes.stop,
                now=wishes.now,
            )
    document = {**asdict(result), "seconds": round(result.seconds, 3)}
    of = f" from the {queues[0]} queue" if len(queues) == 1 else ""
    return Answer(document, f"Processed {result.processed:,} jobs{of} in {result.seconds:.2f} seconds.")
