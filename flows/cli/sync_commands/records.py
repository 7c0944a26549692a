"""`syncs records`: the data of a sync, which entities fail now, and exports. Only reads, without SQLAlchemy or Prefect."""

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command, json_wanted, note
from flows.cli.declared_names import complete_syncs, read_declarations
from flows.cli.output import CommandOutput, cell, table, to_json
from flows.errors import UnknownName, UsageError
from flows.project.database_reader import read_database
from flows.time_text import relative_text

if TYPE_CHECKING:
    from jobs.reading.reader import Reader
    from jobs.reading.records import RecordFilter, RecordView

_SHOWN = 50
_PROGRESS_SECONDS = 2.0


@click.command("records", cls=Command, short_help="Show or export the data of a sync.")
@click.argument("sync", metavar="SYNC", shell_complete=complete_syncs)
@click.argument("key", required=False, metavar="[KEY]")
@click.option("--failing", is_flag=True, help="Only entities whose last attempt failed, also those that were never stored.")
@click.option(
    "--where",
    multiple=True,
    metavar="PATH=VALUE",
    help="Only records whose data has this value at this path: name=Rex, tags.0=red. Several must all match.",
)
@click.option("--deleted", is_flag=True, help="Also records that are marked as deleted.")
@click.option("--limit", type=click.IntRange(min=1), help=f"At most so many; {_SHOWN} by default, and all with --to.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to this file: .csv, .jsonl or .parquet. A file that is there is replaced when the new one is whole.",
)
@click.option("--raw", is_flag=True, help="CSV without the apostrophe before texts that a spreadsheet would run as formulas.")
def records(
    sync: str,
    key: str | None,
    failing: bool,
    where: tuple[str, ...],
    deleted: bool,
    limit: int | None,
    to: Path | None,
    raw: bool,
) -> CommandOutput:
    """Show the records of a sync in the order of their keys, one of them, or which entities fail now; or export them.

    What a sync stores with `save` or `into` is in your own tables; here are its keys, versions and errors.

    \b
    Example:
      syncs records petstore.pets
      syncs records petstore.pets 42
      syncs records petstore.pets --failing
      syncs records petstore.pets --where kind=dog --to dogs.csv
    """
    from flows.cli.job_commands.filter_options import where_from
    from jobs.reading.records import RecordFilter

    if key is not None and (failing or where or limit or to):
        raise UsageError("a KEY names one record; leave the options out")
    if raw and (to is None or to.suffix.lower() != ".csv"):
        raise UsageError("--raw is for --to FILE.csv")
    wanted = RecordFilter(sync, failing=failing, deleted=deleted, where=where_from(where))
    if to is not None:
        from flows.cli.record_export.export import check_target

        check_target(to)
    reader = read_database()
    if reader is None:
        read_declarations().sync(sync)
        raise UsageError("nothing has run yet, so there are no records; `syncs run` makes some")
    with reader:
        _check_name(reader, sync)
        if key is not None:
            return _one(reader, sync, key)
        if to is not None:
            return _export(reader, wanted, to, limit=limit, raw=raw)
        return _list(reader, wanted, limit=limit or _SHOWN)


def _check_name(reader: "Reader", sync: str) -> None:
    """Refuse a name that is neither declared nor known from earlier."""
    from jobs.reading.records import has_records

    if not has_records(reader, sync):
        read_declarations().sync(sync)


def _one(reader: "Reader", sync: str, key: str) -> CommandOutput:
    from jobs.reading.records import find_record

    found = find_record(reader, sync, key)
    if found is None:
        raise UnknownName(f"{sync} has no entity {key!r}; `syncs records {sync}` lists them")
    document = asdict(found)
    names = [name for name in document if name != "data"]
    lines = [f"{name.replace('_', ' '):<14} {cell(document[name])}" for name in names]
    if found.data is not None:
        lines += ["", to_json(found.data)]
    return CommandOutput(document, "\n".join(lines))


def _list(reader: "Reader", wanted: "RecordFilter", *, limit: int) -> CommandOutput:
    from jobs.reading.records import all_records

    found = [one for page in all_records(reader, wanted, limit=limit) for one in page]
    now = reader.now()
    if wanted.failing:
        headers: tuple[str, ...] = ("KEY", "VERSION", "FAILED", "STORED", "ERROR")
        rows = [
            (one.key, one.version, relative_text(one.last_error_at, now=now), _ago(one.synced_at, now), one.last_error)
            for one in found
        ]
    else:
        headers = ("KEY", "VERSION", "CHANGED", "STORED", *(("DELETED",) if wanted.deleted else ()), "DATA")
        rows = [_row(one, now, deleted=wanted.deleted) for one in found]
    notes: tuple[str, ...] = () if rows else ("no such records",)
    if len(found) == limit:
        notes = (f"the first {limit:,} by key; --limit shows more, --to FILE.csv writes all",)
    if not wanted.failing:
        notes += _elsewhere(wanted.sync)
    return CommandOutput([asdict(one) for one in found], table(headers, rows) if rows else "", notes)


def _row(one: "RecordView", now: datetime, *, deleted: bool) -> tuple[Any, ...]:
    from flows.cli.record_export.columns import json_text

    data = None if one.data is None else json_text(one.data)
    gone = (relative_text(one.deleted_at, now=now),) if deleted else ()
    return (one.key, one.version, _ago(one.changed_at, now), _ago(one.synced_at, now), *gone, data and data[:100])


def _ago(when: datetime | None, now: datetime) -> str:
    return relative_text(when, now=now)


def _export(reader: "Reader", wanted: "RecordFilter", to: Path, *, limit: int | None, raw: bool) -> CommandOutput:
    from flows.cli.record_export.export import export

    began, replaced = time.monotonic(), to.exists()
    count = export(reader, wanted, to, limit=limit, is_raw=raw, on_progress=_progress(wanted.sync, quiet=json_wanted()))
    seconds = round(time.monotonic() - began, 3)
    document = {"sync": wanted.sync, "file": str(to), "records": count, "replaced": replaced, "seconds": seconds}
    name = "record" if count == 1 else "records"
    notes = _elsewhere(wanted.sync)
    return CommandOutput(document, f"{'replaced' if replaced else 'wrote'} {to}: {count:,} {name} in {seconds:,.1f} s", notes)


def _elsewhere(name: str) -> tuple[str, ...]:
    """Say where the data of a sync is that stores them with `into` or `save`: the table of records has none then."""
    sync = read_declarations().syncs.get(name)
    if sync is None or (sync.into is None and sync.save is None):
        return ()
    by = "save" if sync.into is None else "into"
    return (f"{name} stores its data in a table of your own (`{by}=`); here are only its keys, versions and errors",)


def _progress(sync: str, *, quiet: bool) -> Callable[[str, int], None]:
    """Return a function that says on stderr how far it is, every two seconds."""
    following = [time.monotonic() + _PROGRESS_SECONDS]

    def say(what: str, count: int) -> None:
        if not quiet and time.monotonic() >= following[0]:
            following[0] = time.monotonic() + _PROGRESS_SECONDS
            note(f"{sync}: {count:,} {what}")

    return say
