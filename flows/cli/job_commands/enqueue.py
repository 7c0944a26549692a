"""`syncs enqueue`: queues jobs of a job type from the command line."""

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from flows.cli.command import Command
from flows.cli.declared_names import complete_job_types, read_declarations, warn_of_broken
from flows.cli.output import CommandOutput
from flows.errors import UsageError
from flows.time_text import moment_text, parse_duration, parse_moment
from jobs import DuplicateJob
from jobs.db.json_codec import decimal_number, whole_number


@click.command("enqueue", cls=Command, short_help="Queue a job by hand.")
@click.argument("type_", metavar="TYPE", shell_complete=complete_job_types)
@click.argument("payload", metavar="JSON")
@click.option("--delay", metavar="TIME", help="Wait so long: 90s, 15m, 2h, '1 day'.")
@click.option(
    "--at",
    "moment",
    metavar="TIME",
    help="Not before this moment: 2030-01-31T08:00+01:00, 'tomorrow 08:00 Europe/Berlin', 'in 2h'.",
)
@click.option("--priority", type=int, help="Higher goes first. By default that of the job type.")
@click.option("--many", is_flag=True, help="JSON is a list: one job for each of its items, all or none.")
def enqueue(type_: str, payload: str, delay: str | None, moment: str | None, priority: int | None, many: bool) -> CommandOutput:
    """Queue a job of a job type. JSON is its payload; `-` reads it from stdin, `@FILE` from a file.

    Exits 1 when the job type rejects it as a duplicate.

    \b
    Example:
      syncs enqueue petstore.order '{"pet": 17}'
      syncs enqueue petstore.order '{"pet": 17}' --delay 15m
      jq -c .pets export.json | syncs enqueue petstore.order - --many
    """
    from flows.enqueue import enqueue_many

    registry = read_declarations()
    job_type = registry.job_type(type_)
    warn_of_broken(registry)
    value = _read(payload)
    if many and not isinstance(value, list):
        raise UsageError("--many needs a JSON list, one item for each job")
    wait = None if delay is None else parse_duration(delay)
    at = None if moment is None else parse_moment(moment, now=datetime.now(UTC))
    try:
        found = enqueue_many(job_type, value if many else [value], delay=wait, available_at=at, priority=priority)
    except DuplicateJob as error:
        twin = error.duplicates[0].id
        refused = {"type": job_type.id, "queue": job_type.queue_id, "id": None, "duplicate_of": twin, "message": str(error)}
        return CommandOutput([refused] if many else refused, "", (f"nothing is queued: {error}",), code=1)
    documents = [
        {"type": job_type.id, "queue": job_type.queue_id, "id": one.id, "duplicate_of": one.duplicate_of} for one in found
    ]
    due = "" if at is None else f", due {moment_text(at)}"
    if not many:
        (one,) = found
        text = f"queued as job {one.id}{due}" if one.duplicate_of is None else f"not queued: a duplicate of job {one.id}"
        return CommandOutput(documents[0], text)
    new = [one.id for one in found if one.duplicate_of is None]
    text = f"queued {len(new):,} jobs" + (f", {new[0]} to {new[-1]}{due}" if new else "")
    if len(new) < len(found):
        text += f"; {len(found) - len(new):,} were duplicates"
    return CommandOutput(documents, text)


def _read(text: str) -> Any:
    """Return the value of the JSON argument.

    Raises:
        UsageError: it is not JSON, or cannot be read.
    """
    what = "the argument"
    try:
        if text == "-":
            what = "stdin"
            text = sys.stdin.read()
        elif text.startswith("@"):
            what = text[1:]
            text = Path(what).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_decimal, parse_int=whole_number)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = (
            f"{error.msg}, line {error.lineno} column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
        )
        raise UsageError(f"{what} is not JSON: {reason}; quote it for the shell: '{{\"pet\": 17}}'") from error


def _decimal(digits: str) -> float:
    number = decimal_number(digits)
    # What a person types as a number beyond all floats is a mistake.
    return number if math.isfinite(number) else float(number)


def _refuse(constant: str) -> Any:
    raise UsageError(f"{constant} is not JSON")
