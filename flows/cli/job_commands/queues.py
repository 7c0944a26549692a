"""`syncs queues`: counts the jobs of each queue by state. Only reads."""

from contextlib import closing

import click

from flows.cli.command import Command
from flows.cli.declared_names import read_declarations
from flows.cli.output import CommandOutput, table
from flows.time_text import duration_text, relative_text

_QUEUE_KEYS = (
    "queue",
    "clients",
    "queued",
    "delayed",
    "processing",
    "success",
    "failure",
    "paused_until",
    "oldest_seconds",
)


@click.command("queues", cls=Command, short_help="Count jobs by queue and state.")
def queues() -> CommandOutput:
    """Count the jobs of each queue by state; show pauses, and how long the oldest due job has waited.

    \b
    Example:
      syncs queues
      syncs queues --json
    """
    from flows.project.settings import open_store

    with closing(open_store()) as store:
        views, now = store.views.queues(), store.views.now()
        undeclared = read_declarations().undeclared(store.relocations.lanes())
    document = [{key: getattr(view, key) for key in (*_QUEUE_KEYS, "paused")} for view in views]
    rows = []
    for view in views:
        paused = relative_text(view.paused_until, now=now) if view.paused_until or not view.paused else "until resumed"
        oldest = None if view.oldest_seconds is None else duration_text(view.oldest_seconds)
        counts = (view.queued, view.delayed, view.processing, view.success, view.failure)
        rows.append((view.queue, view.clients, *counts, paused, oldest))
    headers = ("QUEUE", "CLIENTS", "QUEUED", "DELAYED", "PROCESSING", "SUCCESS", "FAILURE", "PAUSED UNTIL", "OLDEST")
    notes = tuple(undeclared) if rows else ("no jobs yet; `syncs run SYNC` makes some",)
    return CommandOutput(document, table(headers, rows) if rows else "", notes)
