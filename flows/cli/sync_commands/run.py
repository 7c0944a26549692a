"""`syncs run`: runs syncs now, through Prefect if a server answers, else directly in this process."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command, NumberRange, json_wanted, note, verbose_option
from flows.cli.declared_names import complete_syncs, read_declarations, warn_of_broken
from flows.cli.output import CommandOutput
from flows.cli.prefect_api import find_prefect_api
from flows.cli.progress_bar import show_progress
from flows.cli.signals import end_at_once, stop_on_signals
from flows.cli.sync_commands.run_summary import summary
from flows.declarations.sync import Sync
from flows.errors import FlowsError, UsageError
from flows.progress import SilentTracker
from flows.project.registry import Registry
from flows.run_result import RunResult

if TYPE_CHECKING:
    from flows.cli.signals import StopRequest


@click.command("run", cls=Command, short_help="Run syncs here and now.")
@click.argument("syncs", nargs=-1, metavar="[SYNC]...", shell_complete=complete_syncs)
@click.option("--all", "all_", is_flag=True, help="All syncs that are declared, one after the other.")
@click.option("--key", "keys", multiple=True, metavar="K", help="Only this entity, without a listing; may be repeated.")
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
def run(syncs: tuple[str, ...], all_: bool, keys: tuple[str, ...], verbose: bool, **how: Any) -> CommandOutput:
    """Run syncs now, one after the other: list, queue what is new or changed, and process it.

    A pause that the remote side asked for, or that errors led to, is waited for. A refused sign-in, a maintenance window and a
    person's pause end the run. With --key, known entities are fetched and stored again, without a listing and without Prefect.

    Runs through Prefect if a server is configured or up, else directly in this process. Exits 1 when something needs a person;
    of several syncs the worst code counts, and --json prints a list.

    \b
    Example:
      syncs run petstore.pets
      syncs run petstore.pets --limit 20 --dry-run
      syncs run petstore.pets --key 42 --key 43
      syncs run --all --json | jq '.[] | select(.state != "success")'
    """
    if all_ == bool(syncs):
        raise UsageError("name syncs or give --all, not both" if syncs else "which sync? Name one or more, or give --all")
    if keys and (len(syncs) != 1 or any(how[name] for name in ("full", "limit", "dry_run", "allow_deletes", "new_pass"))):
        raise UsageError("--key renews entities of one sync without a listing; leave --all and the options of listings out")
    registry = read_declarations()
    chosen = list(registry.syncs.values()) if all_ else [registry.sync(name) for name in dict.fromkeys(syncs)]
    warn_of_broken(registry)
    several = all_ or len(chosen) > 1
    call = _Call(registry, how, keys, quiet=json_wanted() and not verbose)
    if not several:
        # Before anything is opened, so that a missing setting leaves no trace.
        _check_settings(chosen[0])
        return call.run(chosen)[0]
    return _joined(call.run(chosen), broken=all_ and bool(registry.broken))


@dataclass(frozen=True)
class _Call:
    """One call of the command: what is the same for all of its syncs.

    Args:
        registry: what is declared.
        how: the options of the engine.
        keys: of the entities that are renewed; none runs the whole sync.
        quiet: show no progress unless stderr is a terminal.
    """

    registry: Registry
    how: dict[str, Any]
    keys: Sequence[str]
    quiet: bool

    def run(self, syncs: Sequence[Sync]) -> list[CommandOutput]:
        """Run syncs one after the other; a stop leaves the rest. With several, one that cannot begin holds up no other."""
        prefect = None if self.keys else find_prefect_api()
        if prefect is not None and not prefect.answers:
            note(f"{prefect.problem}: running here, without Prefect")
        url = prefect.url if prefect is not None and prefect.answers else None
        outputs: list[CommandOutput] = []
        with stop_on_signals(
            "stopping after the running jobs; once more ends at once",
            "ending now; the running jobs are put back",
            on_second=end_at_once,
        ) as request:
            for sync in syncs:
                if request.stop.is_set():
                    break
                try:
                    if len(syncs) > 1:
                        _check_settings(sync)
                    with show_progress(sync.id, quiet=self.quiet) as tracker:
                        result = self._result(sync, tracker, request, url)
                except FlowsError as error:
                    if len(syncs) == 1:
                        raise
                    failed = RunResult(sync.id, sync.client.id, "failed", stopped="error", message=str(error))
                    outputs.append(CommandOutput(failed.as_json(), summary(failed, colour=_colour()), code=2))
                    continue
                outputs.append(_output(result, request.code))
        return outputs

    def _result(self, sync: Sync, tracker: SilentTracker, request: "StopRequest", url: str | None) -> RunResult:
        if url is not None:
            from flows.orchestration.in_process_run import run_sync

            return run_sync(sync.id, **self.how, on_progress=tracker.progress, stop=request.stop, url=url, started_by="hand")
        from flows.project.settings import open_store

        with closing(open_store()) as store:
            if self.keys:
                from flows.sync.renewal.renew import renew

                return renew(sync, self.keys, store, self.registry, tracker=tracker, stop=request.stop, started_by="hand")
            from flows.sync import run as engine

            return engine.run(
                sync,
                store,
                **self.how,
                tracker=tracker,
                stop=request.stop,
                queue=self.registry.queue(sync.queue_id),
                declared=sync.queue_id in self.registry.queues,
                started_by="hand",
            )


def _check_settings(sync: Sync) -> None:
    from flows.project.env_values import env_values
    from flows.project.settings import client_settings

    env_values(sync.client, sync.listing)
    client_settings(sync.client)


def _output(result: RunResult, stopped: int | None) -> CommandOutput:
    text = summary(result, colour=_colour())
    if stopped is None:
        return CommandOutput(result.as_json(), text, code=result.exit_code)
    return CommandOutput(result.as_json(), f"{text}\nstopped as asked; `syncs run {result.sync}` continues", code=stopped)


def _joined(outputs: Sequence[CommandOutput], *, broken: bool) -> CommandOutput:
    """Return what several runs came to; a broken file is worse than all, where all were asked for."""
    text = "\n\n".join(one.text for one in outputs)
    code = max([*(one.code for one in outputs), 2 if broken else 0])
    notes = (
        ()
        if outputs
        else ("nothing is declared; `syncs init` writes an example into syncs/; or name files and folders in SYNCS_PATH",)
    )
    return CommandOutput([one.document for one in outputs], text, notes, code=code)


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
