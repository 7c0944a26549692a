"""`syncs retry`, `release`, `cancel` and `delete`: jobs by id or by filter. `jobs.admin.commands` does the work."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command, user_name
from flows.cli.job_commands.filter_options import filter_from, filter_options, is_filtered
from flows.cli.known_names import check_job_names
from flows.cli.output import CommandOutput
from flows.errors import UsageError
from jobs import JobNotFound

if TYPE_CHECKING:
    from jobs import JobStore
    from jobs.admin.command_refusals import CommandResult

_DONE = {"retry": "retried", "release": "released", "cancel": "cancelled", "delete": "deleted"}
_SHOWN_IDS = 20
"""At most this number of refused jobs is named for each reason; the others are counted."""

_HELP = {
    "retry": (
        "Queue failed jobs again.",
        """Only failed jobs are retried; they are due at once, and their retries are counted on. If a job with the same content
        is queued already, the failed job is superseded by it.""",
        "--type petstore.pets --state failure",
    ),
    "release": (
        "Take jobs from their workers and queue them again.",
        """Only jobs in processing are released. No attempt is used, and the result of the old worker is dropped.""",
        "--queue petstore --state processing --yes",
    ),
    "cancel": (
        "End jobs that are queued or in processing.",
        """They stay in the list as cancelled. The result of a worker that still processes one is dropped.""",
        "--client petstore --state queued --where data.kind=dog",
    ),
    "delete": (
        "Delete jobs with their attempts.",
        """In every state but processing: release or cancel such a job first. `syncs delete --queue Q` empties a queue. What is
        known of the entities themselves stays.""",
        "--queue petstore --state success",
    ),
}


def _command(name: str) -> click.Command:
    short, about, example = _HELP[name]

    @click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
    @filter_options
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.option("--dry-run", is_flag=True, help="Count the jobs, and change nothing.")
    def run(ids: tuple[int, ...], yes: bool, dry_run: bool, **options: Any) -> CommandOutput:
        return _run(name, ids, options, yes=yes, dry_run=dry_run)

    # Click wraps the lines again, but keeps the spaces within them.
    about = " ".join(about.split())
    run.__doc__ = f"""{short} Choose them by ID, or by filters, which must all match.

    {about}

    Jobs in another state are refused and named. With filters the command asks first; --yes answers it, and is needed where
    there is no terminal. Exits 1 when an ID was refused, or when all chosen jobs were refused; 2 when none of the IDs exists.

    \b
    Example:
      syncs {name} 41 42
      syncs {name} {example}
    """
    return click.command(name, cls=Command, short_help=short)(run)


def _run(name: str, ids: Sequence[int], options: Mapping[str, Any], *, yes: bool, dry_run: bool) -> CommandOutput:
    filtered = is_filtered(options)
    if ids and filtered:
        raise UsageError("name jobs by ID or by filters, not both")
    if not ids and not filtered:
        raise UsageError(f"which jobs? Name IDs, or filters such as --queue Q --state S; see `syncs {name} --help`")
    asks = filtered and not yes and not dry_run
    # Before the database is opened: bad usage writes nothing.
    if asks and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("--yes is needed: filters may mean many jobs, and there is no terminal to ask; --dry-run says how many")
    wanted = filter_from(options) if filtered else None
    from flows.project.settings import open_store

    with closing(open_store()) as store:
        which = list(ids) if wanted is None else wanted
        if wanted is not None:
            check_job_names(partial(_has_jobs, store), queue=wanted.queue, client=wanted.client, type_=wanted.type)
        if dry_run or asks:
            counts = store.commands.count(which)
            if dry_run:
                return _dry_run(name, counts)
            _ask(name, counts)
        done = getattr(store.commands, name)(which, by=user_name())
    return _result(name, done, by_id=bool(ids))


def _has_jobs(store: "JobStore", column: str, value: str) -> bool:
    from jobs.admin.filters import Filter

    names: dict[str, Any] = {column: value}
    return bool(store.commands.count(Filter(**names)))


def _allowed(name: str, counts: Mapping[str, int]) -> tuple[dict[str, int], int]:
    from jobs.admin.command_refusals import refusal

    allowed = {state: count for state, count in sorted(counts.items()) if refusal(name, state) is None}
    return allowed, sum(counts.values()) - sum(allowed.values())


def _ask(name: str, counts: Mapping[str, int]) -> None:
    allowed, refused = _allowed(name, counts)
    if allowed:
        others = f", and refuse {refused:,}" if refused else ""
        click.confirm(f"This will {name} {_jobs(sum(allowed.values()))}{others}. Go on?", abort=True, err=True)


def _dry_run(name: str, counts: Mapping[str, int]) -> CommandOutput:
    allowed, refused = _allowed(name, counts)
    states = ", ".join(f"{count:,} {state}" for state, count in allowed.items())
    text = f"would {name} {_jobs(sum(allowed.values()))}" + (f": {states}" if states else "")
    document = {
        "command": name,
        "dry_run": True,
        "done": 0,
        "would": sum(allowed.values()),
        "states": allowed,
        "refused_count": refused,
    }
    return CommandOutput(document, f"{text}\nwould refuse {_jobs(refused)}" if refused else text)


def _result(name: str, done: "CommandResult", *, by_id: bool) -> CommandOutput:
    from jobs.admin.command_refusals import UNKNOWN

    unknown = [one.id for one in done.refused if one.state == UNKNOWN]
    if not done.done and unknown and len(unknown) == done.refused_count:
        raise JobNotFound(f"no job has the id {', '.join(map(str, unknown[:_SHOWN_IDS]))}")
    lines = [f"{_DONE[name]} {_jobs(done.done)}"]
    if done.superseded:
        lines[0] += f"; {done.superseded:,} superseded by a queued job with the same content"
    for state, reason, count in done.refusals:
        ids = [str(one.id) for one in done.refused if (one.state, one.reason) == (state, reason)][:_SHOWN_IDS]
        more = f" and {count - len(ids):,} more" if count > len(ids) else ""
        why = reason if state == UNKNOWN or state in reason else f"{state}; {reason}"
        lines.append(f"{count:,} refused: {', '.join(ids)}{more}: {why}")
    document = {
        "command": name,
        "done": done.done,
        "superseded": done.superseded,
        "refused_count": done.refused_count,
        "refused": [one._asdict() for one in done.refused],
    }
    needs_a_person = bool(done.refused_count) and (by_id or not done.done)
    return CommandOutput(document, "\n".join(lines), code=1 if needs_a_person else 0)


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"


retry, release, cancel, delete = map(_command, _DONE)
