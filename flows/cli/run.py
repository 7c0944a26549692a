"""`syncs run`: one sync here and now, through Prefect where a server answers, else straight through the engine."""

import os
import sys
from contextlib import closing

import click

from flows.cli.answer import Answer, one_line
from flows.cli.command import Command, json_wanted, note
from flows.cli.declared import complete_syncs, declared, warn_of_broken
from flows.cli.meter import meter
from flows.cli.route import find_route
from flows.cli.signals import end_at_once, listening
from flows.cli.verbose import verbose_option
from flows.result import RunResult

_SHOWN_FAILURES = 10


@click.command("run", cls=Command, short_help="Run a sync here and now.")
@click.argument("sync", metavar="SYNC", shell_complete=complete_syncs)
@click.option("--full", is_flag=True, help="List all, and work every listed entity, also those that did not change.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop listing after so many entities.")
@click.option(
    "--dry-run", is_flag=True, help="List and compare, say what would be created, changed and deleted, but store nothing."
)
@click.option("--allow-deletes", is_flag=True, help="Delete also more than the sync's max_delete_share, this time.")
@verbose_option
def run(sync: str, full: bool, limit: int | None, dry_run: bool, allow_deletes: bool, verbose: bool) -> Answer:
    """Run a sync here and now: list, queue what is new or changed, and work it.

    Goes through Prefect where a server is configured or up, else straight through the engine.
    Exits 1 when something needs a person.

    \b
    Example:
      syncs run petstore.pets
      syncs run petstore.pets --limit 20 --dry-run
      syncs run petstore.pets --json | jq .failed
    """
    from flows.settings import client_settings

    registry = declared()
    declaration = registry.sync(sync)
    warn_of_broken(registry)
    # Before anything is opened or written: a missing setting leaves no trace (issue 2, point 10).
    client_settings(declaration.client)
    route = find_route()
    if not route.through_prefect:
        note(f"{route.why_not}: running here, without Prefect")
    quiet = json_wanted() and not verbose
    with (
        listening(
            "stopping after the work in hand; once more ends at once",
            "ending now; the jobs in hand go back",
            then=end_at_once,
        ) as wishes,
        meter(sync, quiet=quiet) as tracker,
    ):
        if route.url is not None and route.through_prefect:
            from flows.orchestration.inprocess import run_sync

            result = run_sync(
                sync,
                full=full,
                limit=limit,
                dry_run=dry_run,
                allow_deletes=allow_deletes,
                on_progress=tracker.progress,
                stop=wishes.stop,
                url=route.url,
            )
        else:
            from flows import engine
            from flows.settings import open_store

            with closing(open_store()) as store:
                result = engine.run(
                    declaration, store, full=full, limit=limit, dry_run=dry_run, allow_deletes=allow_deletes, tracker=tracker,
                    stop=wishes.stop, queue=registry.queue(declaration.queue_id),
                    declared=declaration.queue_id in registry.queues,
                )  # fmt: skip
    text = summary(result, colour=_colour())
    if wishes.code is None:
        return Answer(result.as_json(), text, code=result.exit_code)
    return Answer(result.as_json(), f"{text}\nstopped as asked; `syncs run {sync}` goes on", code=wishes.code)


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def summary(result: RunResult, *, colour: bool = False) -> str:
    """Say what a run came to: the counts, up to ten failed entities, and what to look at next."""
    state = click.style(result.state, fg=_COLOURS.get(result.state), bold=True) if colour else result.state
    counts = [
        f"{getattr(result, name):,} {name}"
        for name in ("listed", "queued", "succeeded", "unchanged", "gone", "failed", "snoozed", "deleted")
        if getattr(result, name) or name in ("listed", "queued", "succeeded", "unchanged", "failed")
    ]
    stopped = _STOPPED.get(result.stopped, result.stopped)
    lines = [f"{result.sync}: {state}. {', '.join(counts)} in {result.seconds:,.1f} s; {stopped}."]
    for name, verb in _WOULD.items():
        count = getattr(result, name)
        if count:
            keys = result.examples.get(name, ())
            more = ", …" if count > len(keys) else ""
            lines.append(f"  {count:,} would be {verb}: {', '.join(map(one_line, keys))}{more}")
    if result.message:
        lines.append(one_line(result.message, limit=500))
    if result.pending:
        left = "1 job waits" if result.pending == 1 else f"{result.pending:,} jobs wait"
        lines.append(f"{left} for later; the next run or `syncs work` takes {'it' if result.pending == 1 else 'them'} up")
    for key, message in result.failures[:_SHOWN_FAILURES]:
        lines.append(f"  failed {one_line(key)}: {one_line(message)}")
    if result.failed > _SHOWN_FAILURES:
        lines.append(f"  and {result.failed - min(_SHOWN_FAILURES, len(result.failures)):,} more")
    if result.failed > result.flawed:
        lines.append(f"next: syncs jobs --type {result.sync} --state failure")
    return "\n".join(lines)


_WOULD = {
    "created": "created",
    "changed": "changed",
    "undecided": "fetched, to see whether they changed",
    "would_delete": "deleted",
}

_COLOURS = {"success": "green", "skipped": "yellow", "paused": "yellow", "partial": "yellow", "failed": "red"}

_STOPPED = {
    "end": "listing ended at the end",
    "limit": "listing ended at the limit",
    "loop": "listing stopped because a page came twice",
    "short": "listing ended short of the total it announced",
    "error": "listing ended with an error",
    "paused": "listing stopped because the client is paused",
    "stop": "listing was told to stop, and goes on with the next run",
    "running": "another process runs this sync",
}
