"""`syncs run`: runs one sync now, through Prefect if a server answers, else directly in this process."""

import os
import sys
from contextlib import closing

import click

from flows.cli.command import Command, NumberRange, json_wanted, note, verbose_option
from flows.cli.declared_names import complete_syncs, read_declarations, warn_of_broken
from flows.cli.output import CommandOutput, first_line
from flows.cli.prefect_api import find_prefect_api
from flows.cli.progress_bar import show_progress
from flows.cli.signals import end_at_once, stop_on_signals
from flows.run_result import RunResult

_SHOWN_FAILURES = 10


@click.command("run", cls=Command, short_help="Run a sync here and now.")
@click.argument("sync", metavar="SYNC", shell_complete=complete_syncs)
@click.option("--full", is_flag=True, help="List everything, and process each listed entity, also if it did not change.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop listing after this number of entities.")
@click.option(
    "--dry-run", is_flag=True, help="List and compare; show what would be created, changed and deleted, but store nothing."
)
@click.option("--allow-deletes", is_flag=True, help="Let this run delete more than the max_delete_share of the sync.")
@click.option(
    "--wait",
    type=NumberRange(min=0),
    metavar="S",
    help="Wait for pauses and retries that end within S seconds (default 900), and for another run of the sync; 0 ends at once.",
)
@click.option("--new-pass", is_flag=True, help="Begin a new listing, also if there is an unfinished one.")
@verbose_option
def run(
    sync: str,
    full: bool,
    limit: int | None,
    dry_run: bool,
    allow_deletes: bool,
    wait: float | None,
    new_pass: bool,
    verbose: bool,
) -> CommandOutput:
    """Run a sync now: list, queue what is new or changed, and process it.

    A pause that the remote side asked for, or that errors led to, is waited for. A refused sign-in, a maintenance window and a
    person's pause end the run.

    Runs through Prefect if a server is configured or up, else directly in this process. Exits 1 when something needs a person.

    \b
    Example:
      syncs run petstore.pets
      syncs run petstore.pets --limit 20 --dry-run
      syncs run petstore.pets --json | jq .failed
    """
    from flows.project.env_values import env_values
    from flows.project.settings import client_settings

    registry = read_declarations()
    declaration = registry.sync(sync)
    warn_of_broken(registry)
    # Before anything is opened, so that a missing setting leaves no trace.
    env_values(declaration.client, declaration.listing)
    client_settings(declaration.client)
    prefect = find_prefect_api()
    if not prefect.answers:
        note(f"{prefect.problem}: running here, without Prefect")
    quiet = json_wanted() and not verbose
    with (
        stop_on_signals(
            "stopping after the running jobs; once more ends at once",
            "ending now; the running jobs are put back",
            on_second=end_at_once,
        ) as request,
        show_progress(sync, quiet=quiet) as tracker,
    ):
        if prefect.url is not None and prefect.answers:
            from flows.orchestration.in_process_run import run_sync

            result = run_sync(
                sync,
                full=full,
                limit=limit,
                dry_run=dry_run,
                allow_deletes=allow_deletes,
                wait=wait,
                new_pass=new_pass,
                on_progress=tracker.progress,
                stop=request.stop,
                url=prefect.url,
                started_by="hand",
            )
        else:
            from flows.project.settings import open_store
            from flows.sync import run as engine

            with closing(open_store()) as store:
                result = engine.run(
                    declaration,
                    store,
                    full=full,
                    limit=limit,
                    dry_run=dry_run,
                    allow_deletes=allow_deletes,
                    wait=wait,
                    new_pass=new_pass,
                    tracker=tracker,
                    stop=request.stop,
                    queue=registry.queue(declaration.queue_id),
                    declared=declaration.queue_id in registry.queues,
                    started_by="hand",
                )
    text = summary(result, colour=_colour())
    if request.code is None:
        return CommandOutput(result.as_json(), text, code=result.exit_code)
    return CommandOutput(result.as_json(), f"{text}\nstopped as asked; `syncs run {sync}` continues", code=request.code)


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def summary(result: RunResult, *, colour: bool = False) -> str:
    """Return the result of a run as text: the counts, up to ten failed entities, and the next command to type."""
    state = click.style(result.state, fg=_COLOURS.get(result.state), bold=True) if colour else result.state
    counts = [
        f"{getattr(result, name):,} {name}"
        for name in ("listed", "queued", "succeeded", "unchanged", "gone", "failed", "retrying", "snoozed", "deleted")
        if getattr(result, name) or name in ("listed", "queued", "succeeded", "unchanged", "failed")
    ]
    stopped = _STOPPED.get(result.stopped, result.stopped)
    waited = f", {result.waited:,.1f} of them in pauses" if result.waited >= 0.1 else ""
    lines = [f"{result.sync}: {state}. {', '.join(counts)} in {result.seconds:,.1f} s{waited}; {stopped}."]
    for name, verb in _WOULD.items():
        count = getattr(result, name)
        if count:
            keys = result.examples.get(name, ())
            more = ", …" if count > len(keys) else ""
            lines.append(f"  {count:,} would be {verb}: {', '.join(map(first_line, keys))}{more}")
    if result.message:
        lines.append(first_line(result.message, limit=500))
    if result.pending:
        left = "1 job waits" if result.pending == 1 else f"{result.pending:,} jobs wait"
        lines.append(f"{left} for later; the next run or `syncs work` takes {'it' if result.pending == 1 else 'them'} up")
    for key, message in result.retries[:_SHOWN_FAILURES]:
        lines.append(f"  failed, to be tried again: {first_line(key)}: {first_line(message)}")
    if result.retrying > _SHOWN_FAILURES:
        lines.append(f"  and {result.retrying - min(_SHOWN_FAILURES, len(result.retries)):,} more to be tried again")
    for key, message in result.failures[:_SHOWN_FAILURES]:
        lines.append(f"  failed {first_line(key)}: {first_line(message)}")
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
    "stop": "listing was stopped; the next run continues it",
    "running": "another process runs this sync",
}
