"""`syncs jobs` and `syncs job`: lists jobs, and shows one with its payload and attempts. Only reads."""

from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command
from flows.cli.job_commands.filter_options import filter_options, is_filtered, where_from
from flows.cli.known_names import check_job_names
from flows.cli.output import CommandOutput, cell, table, to_json
from flows.errors import UsageError
from flows.time_text import parse_duration, parse_moment, relative_text
from jobs.db.json_codec import encode
from jobs.reading.jobs import SORTS, JobQuery, job_list

if TYPE_CHECKING:
    from jobs.admin.views import AttemptView, JobDetail
    from jobs.reading.reader import Reader


@click.command("jobs", cls=Command, short_help="List jobs, or show one.")
@click.argument("job_id", required=False, type=int, metavar="[ID]")
@filter_options
@click.option("--since", metavar="WHEN", help="Only jobs queued or finished since: a moment, or so long ago as 12h.")
@click.option(
    "--sort",
    default="id",
    metavar="COLUMN",
    help=f"By {', '.join(SORTS)}; the highest or newest first, COLUMN:asc the other way.",
)
@click.option("--after", type=int, metavar="ID", help="Only those behind this job in the order: the next page.")
@click.option("--payload", is_flag=True, help="With their payloads.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, the newest first.")
def jobs(
    job_id: int | None, since: str | None, sort: str, after: int | None, payload: bool, limit: int, **options: Any
) -> CommandOutput:
    """List jobs, the newest first; with an ID, show that one.

    \b
    Example:
      syncs jobs --type petstore.pets --state failure --since 12h
      syncs jobs --where data.kind=dog --where data.age=3 --payload
      syncs jobs --sort attempts --limit 20
      syncs jobs --after 4711
      syncs jobs 42
    """
    column, _, direction = sort.partition(":")
    if column not in SORTS or direction not in ("", "asc", "desc"):
        raise UsageError(f"--sort {sort!r}: write one of {', '.join(SORTS)}, or that and :asc")
    if job_id is not None:
        if is_filtered(options) or since or after or payload or sort != "id":
            raise UsageError("an ID names one job; leave the filters out")
        return _one(job_id)
    from flows.project.database_reader import read_database

    wanted = JobQuery(
        queue=options["queue"],
        client=options["client"],
        type=options["type_"],
        state=options["state"],
        key=options["key"],
        where=where_from(options["where"]),
        since=None if since is None else _moment(since),
        sort=column,
        ascending=direction == "asc",
        after=after,
        payload=payload,
        limit=limit,
    )
    found: list[dict[str, Any]] = []
    now = datetime.now(UTC)
    if (reader := read_database()) is not None:
        with reader:
            found, now = job_list(reader, wanted), reader.now()
            if not found:
                check_job_names(partial(_has_jobs, reader), queue=wanted.queue, client=wanted.client, type_=wanted.type)
    else:
        check_job_names(lambda *_: False, queue=wanted.queue, client=wanted.client, type_=wanted.type)
    rows = [
        (
            str(one["id"]), one["type"], one["key"], one["state"], one["attempts"],
            *((relative_text(one["finished_at"], now=now),) if column == "finished_at" else ()),
            relative_text(one["available_at"], now=now), one["message"],
            *((encode(one["payload"]).decode(),) if payload else ()),
        )
        for one in found
    ]  # fmt: skip
    headers = (
        "ID", "TYPE", "KEY", "STATE", "ATTEMPTS", *(("FINISHED AT",) if column == "finished_at" else ()), "AVAILABLE AT",
        "MESSAGE",
        *(("PAYLOAD",) if payload else ()),
    )  # fmt: skip
    notes = () if rows else ("no such jobs",)
    if len(found) == limit:
        first = "newest" if sort == "id" else "first"
        notes = (f"the {first} {limit:,}; --limit shows more, --after {found[-1]['id']} the next ones",)
    return CommandOutput(found, table(headers, rows) if rows else "", notes)


def _has_jobs(reader: "Reader", column: str, value: str) -> bool:
    names: dict[str, Any] = {column: value}
    return bool(job_list(reader, JobQuery(**names, limit=1)))


def _moment(text: str) -> datetime:
    """Return the moment that was typed, or so long ago."""
    now = datetime.now(UTC)
    try:
        return now - timedelta(seconds=parse_duration(text))
    except UsageError:
        return parse_moment(text, now=now)


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
