"""`syncs runs`: the history of runs, whatever started them. Only reads."""

from datetime import UTC, datetime

import click

from flows.cli.command import Command
from flows.cli.declared_names import complete_syncs, read_declarations
from flows.cli.output import CommandOutput, table
from flows.time_text import duration_text, relative_text


@click.command("runs", cls=Command, short_help="Show when syncs ran, and how it ended.")
@click.argument("sync", required=False, metavar="[SYNC]", shell_complete=complete_syncs)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many, the newest first.")
def runs(sync: str | None, limit: int) -> CommandOutput:
    """Show the runs of all syncs or of one, the newest first: by hand, by Prefect, by `syncs work`, from Python.

    They are kept as long as the jobs of the sync's queue. A run whose process died is `interrupted`.

    \b
    Example:
      syncs runs
      syncs runs petstore.pets --limit 5
      syncs runs --json | jq '.[] | select(.state == "failed")'
    """
    from flows.project.database_reader import read_database
    from jobs.reading.runs import latest_runs

    found, now = [], datetime.now(UTC)
    if (reader := read_database()) is not None:
        with reader:
            found, now = latest_runs(reader, sync, limit=limit), reader.now()
    if sync is not None and not found:
        # One that is not declared any more may still have runs.
        read_declarations().sync(sync)
    rows = [
        (
            one.sync,
            one.state,
            relative_text(one.started_at, now=now),
            duration_text(one.seconds),
            *(getattr(one, name) for name in _COUNTS),
            one.started_by,
            one.message,
        )
        for one in found
    ]
    headers = ("SYNC", "STATE", "STARTED", "TOOK", *(name.upper() for name in _COUNTS), "BY", "MESSAGE")
    notes: tuple[str, ...] = () if rows else ("no runs yet; `syncs run SYNC` makes one",)
    if len(found) == limit:
        notes = (f"the newest {limit:,}; --limit shows more",)
    return CommandOutput(
        [{name: getattr(one, name) for name in RUN_KEYS} for one in found], table(headers, rows) if rows else "", notes
    )


_COUNTS = ("listed", "succeeded", "unchanged", "gone", "failed", "deleted")

RUN_KEYS = (
    "id", "sync", "client", "state", "started_at", "ended_at", "seconds", *_COUNTS, "pages", "queued", "stopped", "message",
    "started_by", "flow_run",
)  # fmt: skip
