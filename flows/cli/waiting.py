"""`syncs queues`, `jobs` and `job`: what waits, what was done, and one job with all its attempts. Only reads."""

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from flows.cli.answer import Answer, cell, table, to_json
from flows.cli.command import Command
from flows.cli.declared import complete_clients, complete_syncs
from flows.errors import UsageError

if TYPE_CHECKING:
    from jobs.view import JobDetail

# As in jobs.models, which would bring SQLAlchemy along; a test holds the two together.
STATES = ("queued", "processing", "success", "failure", "superseded", "cancelled")

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
@click.option("--queue", help="Only jobs of this queue.")
@click.option("--client", help="Only jobs of this client.", shell_complete=complete_clients)
@click.option("--type", "type_", help="Only jobs of this sync or job type.", shell_complete=complete_syncs)
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, the newest first.")
def jobs(job_id: int | None, queue: str | None, client: str | None, type_: str | None, state: str | None, limit: int) -> Answer:
    """List jobs, the newest first; with an ID, show that one.

    \b
    Example:
      syncs jobs --type petstore.pets --state failure
      syncs jobs 42
    """
    from flows.settings import open_store

    if job_id is not None:
        if any((queue, client, type_, state)):
            raise UsageError("an ID names one job; leave the filters out")
        return _one(job_id)
    with closing(open_store()) as store:
        found = store.jobs(queue=queue, client=client, type=type_, state=state, limit=limit)
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
        return _shown(store.job(job_id))


def _shown(detail: "JobDetail") -> Answer:
    whole = asdict(detail)
    head = whole.pop("job")
    tries = whole.pop("attempts")
    # `attempts` is a number in the list of jobs, and the same number here.
    document: dict[str, Any] = {**head, **whole, "tries": tries}
    width = max(map(len, document))
    lines = [
        # An id is a name, to be copied: no thousands separators.
        f"{key.replace('_', ' '):<{width}}  {value if type(value) is int else cell(value)}"
        for key, value in document.items()
        if key not in ("payload", "tries")
    ]
    lines += ["", "payload", to_json(detail.payload)]
    if detail.attempts:
        rows = [(one.claim_no, one.started_at, one.ended_at, one.outcome, one.worker, one.error) for one in detail.attempts]
        lines += ["", table(("CLAIM", "STARTED AT", "ENDED AT", "OUTCOME", "WORKER", "ERROR"), rows)]
        if trace := next((one.traceback for one in reversed(detail.attempts) if one.traceback), None):
            lines += ["", trace.rstrip()]
    return Answer(document, "\n".join(lines))
