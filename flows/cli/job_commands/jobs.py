"""`syncs jobs` and `syncs job`: lists jobs, and shows one with its payload and attempts. Only reads."""

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command
from flows.cli.job_commands.filter_options import filter_from, filter_options, is_filtered
from flows.cli.known_names import check_job_names
from flows.cli.output import CommandOutput, cell, table, to_json
from flows.errors import UsageError
from flows.time_text import relative_text

if TYPE_CHECKING:
    from jobs.admin.views import AttemptView, JobDetail

_JOB_KEYS = (
    "id",
    "queue",
    "client",
    "type",
    "key",
    "state",
    "attempts",
    "retries",
    "message",
    "created_at",
    "available_at",
    "finished_at",
)


@click.command("jobs", cls=Command, short_help="List jobs, or show one.")
@click.argument("job_id", required=False, type=int, metavar="[ID]")
@filter_options
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, the newest first.")
def jobs(job_id: int | None, limit: int, **options: Any) -> CommandOutput:
    """List jobs, the newest first; with an ID, show that one.

    \b
    Example:
      syncs jobs --type petstore.pets --state failure
      syncs jobs --where data.kind=dog --where data.age=3
      syncs jobs 42
    """
    from flows.project.settings import open_store

    if job_id is not None:
        if is_filtered(options):
            raise UsageError("an ID names one job; leave the filters out")
        return _one(job_id)
    wanted = filter_from(options)
    with closing(open_store()) as store:
        check_job_names(store, queue=wanted.queue, client=wanted.client, type_=wanted.type)
        found, now = store.views.jobs(wanted, limit=limit), store.views.now()
    rows = [
        (str(job.id), job.type, job.key, job.state, job.attempts, relative_text(job.available_at, now=now), job.message)
        for job in found
    ]
    notes = () if rows else ("no such jobs",)
    if len(found) == limit:
        notes = (f"the newest {limit:,}; --limit shows more",)
    text = table(("ID", "TYPE", "KEY", "STATE", "ATTEMPTS", "AVAILABLE AT", "MESSAGE"), rows) if rows else ""
    return CommandOutput([{key: getattr(job, key) for key in _JOB_KEYS} for job in found], text, notes)


@click.command("job", cls=Command, short_help="Show one job: payload, attempts, errors.")
@click.argument("job_id", type=int, metavar="ID")
def job(job_id: int) -> CommandOutput:
    """Show one job: payload, attempts, errors.

    \b
    Example:
      syncs job 42
    """
    return _one(job_id)


def _one(job_id: int) -> CommandOutput:
    from flows.project.settings import open_store

    with closing(open_store()) as store:
        return shown(store.views.job(job_id))


def shown(detail: "JobDetail") -> CommandOutput:
    """Return a job as document and text."""
    whole = asdict(detail)
    head = whole.pop("job")
    tries = whole.pop("attempts")
    # `attempts` stays the number that the list of jobs shows.
    document: dict[str, Any] = {**head, **whole, "tries": tries}
    width = max(map(len, document))
    lines = [
        f"{key.replace('_', ' '):<{width}}  {_line(key, value)}"
        for key, value in document.items()
        if key not in ("payload", "tries")
    ]
    lines += ["", "payload", to_json(detail.payload)]
    if detail.attempts:
        lines += ["", _attempts(detail.attempts)]
        exchanges = [line for one in detail.attempts for line in _exchanges(one)]
        if exchanges:
            lines += ["", table(("CLAIM", "REQUEST", "ANSWER"), exchanges)]
            lines += [line for one in detail.attempts for line in _refusals(one)]
        if trace := next((one.traceback for one in reversed(detail.attempts) if one.traceback), None):
            lines += ["", trace.rstrip()]
    return CommandOutput(document, "\n".join(lines))


def _line(key: str, value: Any) -> str:
    if key == "checkpoint_bytes" and value is not None:
        return f"{value:,} (saved by the job for its next attempt)"
    # Ids are copied, so they get no thousands separators.
    return str(value) if type(value) is int else cell(value)


def _attempts(tries: "list[AttemptView]") -> str:
    phased = any(one.phase for one in tries)
    headers = ("CLAIM", *(("PHASE",) if phased else ()), "STARTED AT", "ENDED AT", "OUTCOME", "WORKER", "ERROR")
    rows = [
        (one.claim_no, *((one.phase,) if phased else ()), one.started_at, one.ended_at, one.outcome, one.worker, one.error)
        for one in tries
    ]
    return table(headers, rows)


def _exchanges(one: "AttemptView") -> list[tuple[Any, Any, Any]]:
    return [(one.claim_no, each.get("request"), each.get("response")) for each in _recorded(one)]


def _refusals(one: "AttemptView") -> list[str]:
    """Return what the bodies of refusals say."""
    return [f"claim {one.claim_no} was answered: {each['body']}" for each in _recorded(one) if each.get("body")]


def _recorded(one: "AttemptView") -> list[dict[str, Any]]:
    return [each for each in one.exchanges if isinstance(each, dict)] if isinstance(one.exchanges, list) else []
