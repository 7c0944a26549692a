"""`syncs retry`, `release`, `cancel` and `delete`: what people do to jobs, by id or by filter. The doing is in `jobs.command`."""

import getpass
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from flows.cli.answer import Answer
from flows.cli.command import Command
from flows.cli.filters import chosen, filter_options, is_filtered
from flows.errors import UsageError
from jobs import JobNotFound

if TYPE_CHECKING:
    from jobs.refusal import Commanded

_PAST = {"retry": "retried", "release": "released", "cancel": "cancelled", "delete": "deleted"}
_NAMED = 20
"""Refused jobs that are named for each reason; the others are counted."""

_ABOUT = {
    "retry": (
        "Queue failed jobs again.",
        """Only failed jobs are retried, at once and with their retries counted on. Where the same work is queued already, the
        failed job gives way to it.""",
        "--type petstore.pets --state failure",
    ),
    "release": (
        "Take jobs from their workers and queue them again.",
        """Only jobs in processing are released. What their worker still comes to is dropped; no attempt counts.""",
        "--queue petstore --state processing --yes",
    ),
    "cancel": (
        "End jobs that are queued or in processing.",
        """They stay in the list, as cancelled. What a worker still comes to is dropped.""",
        "--client petstore --state queued --where data.kind=dog",
    ),
    "delete": (
        "Delete jobs with their attempts.",
        """Whatever their state, but not in processing: release or cancel such a job first. `syncs delete --queue Q` empties a
        queue. What is known of the entities themselves stays.""",
        "--queue petstore --state success",
    ),
}


def _make(name: str) -> click.Command:
    short, about, example = _ABOUT[name]

    @click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
    @filter_options
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.option("--dry-run", is_flag=True, help="Say how many jobs it would be, and do nothing.")
    def run(ids: tuple[int, ...], yes: bool, dry_run: bool, **options: Any) -> Answer:
        return _run(name, ids, options, yes=yes, dry_run=dry_run)

    # Text for a person: Click breaks the lines anew, but keeps the spaces in them.
    about = " ".join(about.split())
    run.__doc__ = f"""{short} Name them by ID, or by filters, which must all be true.

    {about}

    Jobs that do not fit are left as they are, and named. With filters it asks first, unless there is --yes; where there is
    no terminal to ask, --yes is needed. Exits 1 when an ID that you named was refused, or when nothing was done and
    something was refused; 2 when none of the IDs is there.

    \b
    Example:
      syncs {name} 41 42
      syncs {name} {example}
    """
    return click.command(name, cls=Command, short_help=short)(run)


def _run(name: str, ids: Sequence[int], options: Mapping[str, Any], *, yes: bool, dry_run: bool) -> Answer:
    filtered = is_filtered(options)
    if ids and filtered:
        raise UsageError("name jobs by ID or by filters, not both")
    if not ids and not filtered:
        raise UsageError(f"which jobs? Name IDs, or filters such as --queue Q --state S; see `syncs {name} --help`")
    asks = filtered and not yes and not dry_run
    # Before the database is opened: bad usage writes nothing.
    if asks and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("--yes is needed: filters may mean many jobs, and there is no terminal to ask; --dry-run says how many")
    wanted = chosen(options) if filtered else None
    from flows.settings import open_store

    with closing(open_store()) as store:
        which = list(ids) if wanted is None else wanted
        if dry_run or asks:
            counts = store.commands.count(which)
            if dry_run:
                return _dry(name, counts)
            _ask(name, counts)
        done = getattr(store.commands, name)(which, by=_who())
    return _answer(name, done, by_id=bool(ids))


def _fitting(name: str, counts: Mapping[str, int]) -> tuple[dict[str, int], int]:
    from jobs.refusal import refusal

    fits = {state: count for state, count in sorted(counts.items()) if refusal(name, state) is None}
    return fits, sum(counts.values()) - sum(fits.values())


def _ask(name: str, counts: Mapping[str, int]) -> None:
    fits, refused = _fitting(name, counts)
    if fits:
        others = f", and refuse {refused:,}" if refused else ""
        click.confirm(f"This will {name} {_jobs(sum(fits.values()))}{others}. Go on?", abort=True, err=True)


def _dry(name: str, counts: Mapping[str, int]) -> Answer:
    fits, refused = _fitting(name, counts)
    states = ", ".join(f"{count:,} {state}" for state, count in fits.items())
    text = f"would {name} {_jobs(sum(fits.values()))}" + (f": {states}" if states else "")
    document = {
        "command": name,
        "dry_run": True,
        "done": 0,
        "would": sum(fits.values()),
        "states": fits,
        "refused_count": refused,
    }
    return Answer(document, f"{text}\nwould refuse {_jobs(refused)}" if refused else text)


def _answer(name: str, done: "Commanded", *, by_id: bool) -> Answer:
    from jobs.refusal import UNKNOWN

    unknown = [one.id for one in done.refused if one.state == UNKNOWN]
    if not done.done and unknown and len(unknown) == done.refused_count:
        raise JobNotFound(f"no job has the id {', '.join(map(str, unknown[:_NAMED]))}")
    lines = [f"{_PAST[name]} {_jobs(done.done)}"]
    if done.superseded:
        lines[0] += f"; {done.superseded:,} of them gave way to a queued one of the same content"
    for state, reason, count in done.refusals:
        ids = [str(one.id) for one in done.refused if (one.state, one.reason) == (state, reason)][:_NAMED]
        more = f" and {count - len(ids):,} more" if count > len(ids) else ""
        why = reason if state == UNKNOWN or state in reason else f"{state}; {reason}"
        lines.append(f"{count:,} refused: {', '.join(ids)}{more}: {why}")
    document = {
        "command": name, "done": done.done, "superseded": done.superseded, "refused_count": done.refused_count,
        "refused": [one._asdict() for one in done.refused],
    }  # fmt: skip
    needs_a_person = bool(done.refused_count) and (by_id or not done.done)
    return Answer(document, "\n".join(lines), code=1 if needs_a_person else 0)


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


retry, release, cancel, delete = map(_make, _PAST)
