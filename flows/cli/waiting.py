"""`syncs queues`, `jobs` and `job`: what waits, what was done, and one job with all its attempts. Only reads."""

from contextlib import closing
from typing import Any

import click

from flows.cli.answer import Answer, cell, table
from flows.cli.command import Command
from flows.cli.detail import shown
from flows.cli.filters import chosen, filter_options, is_filtered
from flows.errors import UsageError

_JOB_KEYS = (
    "id", "queue", "client", "type", "key", "state", "attempts", "retries", "message",
    "created_at", "available_at", "finished_at",
)  # fmt: skip
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
def queues() -> Answer:
    """Count the jobs of each queue by state, with pauses and the age of the oldest due job.

    \b
    Example:
      syncs queues
      syncs queues --json
    """
    from flows.settings import open_store

    with closing(open_store()) as store:
        views = store.queues()
    document = [{key: getattr(view, key) for key in (*_QUEUE_KEYS, "paused")} for view in views]
    rows = []
    for view in views:
        paused = cell(view.paused_until) if view.paused_until or not view.paused else "until resumed"
        oldest = None if view.oldest_seconds is None else f"{view.oldest_seconds:,.0f} s"
        counts = (view.queued, view.delayed, view.processing, view.success, view.failure)
        rows.append((view.queue, view.clients, *counts, paused, oldest))
    headers = ("QUEUE", "CLIENTS", "QUEUED", "DELAYED", "PROCESSING", "SUCCESS", "FAILURE", "PAUSED UNTIL", "OLDEST")
    notes = () if rows else ("no jobs yet; `syncs run SYNC` makes some",)
    return Answer(document, table(headers, rows) if rows else "", notes)


@click.command("jobs", cls=Command, short_help="List jobs, or show one.")
@click.argument("job_id", required=False, type=int, metavar="[ID]")
@filter_options
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, the newest first.")
def jobs(job_id: int | None, limit: int, **options: Any) -> Answer:
    """List jobs, the newest first; with an ID, show that one.

    \b
    Example:
      syncs jobs --type petstore.pets --state failure
      syncs jobs --where data.kind=dog --where data.age=3
      syncs jobs 42
    """
    from flows.settings import open_store

    if job_id is not None:
        if is_filtered(options):
            raise UsageError("an ID names one job; leave the filters out")
        return _one(job_id)
    wanted = chosen(options)
    with closing(open_store()) as store:
        found = store.find(wanted, limit=limit)
    rows = [(str(job.id), job.type, job.key, job.state, job.attempts, job.available_at, job.message) for job in found]
    notes = () if rows else ("no such jobs",)
    if len(found) == limit:
        notes = (f"the newest {limit:,}; --limit shows more",)
    text = table(("ID", "TYPE", "KEY", "STATE", "ATTEMPTS", "AVAILABLE AT", "MESSAGE"), rows) if rows else ""
    return Answer([{key: getattr(job, key) for key in _JOB_KEYS} for job in found], text, notes)


@click.command("job", cls=Command, short_help="Show one job: payload, attempts, errors.")
@click.argument("job_id", type=int, metavar="ID")
def job(job_id: int) -> Answer:
    """Show one job: payload, attempts, errors.

    \b
    Example:
      syncs job 42
    """
    return _one(job_id)


def _one(job_id: int) -> Answer:
    from flows.settings import open_store

    with closing(open_store()) as store:
        return shown(store.job(job_id))
