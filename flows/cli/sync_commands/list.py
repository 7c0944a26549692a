"""`syncs list`: what is declared, in which file, and how each sync stands. Imports neither SQLAlchemy nor Prefect."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from flows.cli.command import Command
from flows.cli.declared_names import read_declarations
from flows.cli.output import CommandOutput, table
from flows.declarations.schedule import Every
from flows.declarations.sync import Sync
from flows.errors import FlowsError
from flows.project.registry import Registry
from flows.time_text import duration_text, relative_text
from jobs import JobsError

if TYPE_CHECKING:
    from jobs.reading.syncs import SyncState

_TABLES = (("JOB TYPE", "CLIENT", "QUEUE", "FILE", "PHASES"), ("QUEUE", "FILE"))
_HEADERS = (
    "SYNC",
    "CLIENT",
    "QUEUE",
    "STATE",
    "LAST RUN",
    "LAST SUCCESS",
    "RECORDS",
    "FAILING",
    "SCHEDULE",
    "PAUSED UNTIL",
    "FILE",
)


@click.command("list", cls=Command, short_help="Show what is declared, and how each sync stands.")
@click.option("--late", is_flag=True, help="Only the syncs that are late by their late_after; exits 1 if there is one.")
def list_(late: bool) -> CommandOutput:
    """Show what is declared and in which file, when each sync ran last, how that ended, and how many entities fail now.

    Exits 2 when a file is broken or the database cannot be read; the rest is shown all the same. With --late, for a monitor, it
    exits 1 when a sync had no success for longer than its `late_after`. The database is only read, and Prefect is not asked.

    \b
    Example:
      syncs list
      syncs list --late || echo "something is late"
      SYNCS_PATH=~/my-syncs syncs list --json
    """
    registry = read_declarations()
    files = registry.files
    notes = list(map(str, registry.broken))
    now, is_known = datetime.now(UTC), True
    try:
        states, paused, now = _read(list(registry.syncs), now)
    except (FlowsError, JobsError) as error:
        if late:
            raise
        # What is declared can be seen all the same.
        states, paused, is_known = {}, {}, False
        notes.append(f"how the syncs stand is not known: {error}")
    syncs = [
        {
            "sync": sync.id, "client": sync.client.id, "queue": sync.queue_id, "file": files["sync", sync.id],
            **_standing(sync, states.get(sync.id), paused, now),
        }
        for sync in registry.syncs.values()
    ]  # fmt: skip
    if late:
        syncs = [one for one in syncs if one["late"]]
        return CommandOutput(
            {**_others(registry), "syncs": syncs}, _table(syncs, [], now), tuple(notes), code=_code(registry, syncs)
        )
    others = _others(registry)
    idle = [
        client for client in others["clients"]
        if not registry.of_client(client["client"]) and not registry.job_types_of(client["client"])
    ]  # fmt: skip
    texts = [_table(syncs, idle, now)]
    for headers, rows in zip(_TABLES, (others["job_types"], others["queues"]), strict=True):
        texts.append(table(headers, [tuple(one.values()) for one in rows]) if rows else "")
    text = "\n\n".join(filter(None, texts))
    if not text and not registry.broken:
        notes = ["nothing is declared; `syncs init` writes an example into syncs/; or name files and folders in SYNCS_PATH"]
    return CommandOutput({"syncs": syncs, **others}, text, tuple(notes), code=2 if registry.broken or not is_known else 0)


def _read(syncs: Sequence[str], now: datetime) -> "tuple[dict[str, SyncState], dict[str, datetime | None], datetime]":
    """Return the state of each sync, the clients that are paused and until when, and the database's time."""
    if not syncs:
        return {}, {}, now
    from flows.project.database_reader import read_database
    from jobs.reading.syncs import SyncState, paused_clients, sync_states

    if (reader := read_database()) is None:
        return dict.fromkeys(syncs, SyncState()), {}, now
    with reader:
        return sync_states(reader, syncs), paused_clients(reader), reader.now()


def _standing(sync: Sync, state: "SyncState | None", paused: dict[str, datetime | None], now: datetime) -> dict[str, Any]:
    """Return how a sync stands; without a `state` it is not known."""
    schedule = sync.schedule
    success = None if state is None else state.last_success_at
    lag = None if success is None else max(0.0, round((now - success).total_seconds(), 3))
    return {
        "schedule": None if schedule is None else str(schedule).removesuffix(" UTC"),
        "next_run_at": _next_run(schedule, now),
        "last_run_at": None if state is None else state.last_run_at,
        "last_state": None if state is None else state.last_state,
        "last_success_at": success,
        "lag_seconds": lag,
        "late_after": sync.late_after,
        "late": state is not None and sync.is_late(lag),
        "records": None if state is None else state.records,
        "failing": None if state is None else state.failing,
        "paused": sync.client.id in paused,
        "paused_until": paused.get(sync.client.id),
    }


def _next_run(schedule: Any, now: datetime) -> datetime | None:
    """Return when a schedule is due next, by its declaration."""
    if isinstance(schedule, Every):
        return schedule.next_after(now)
    text, zone = getattr(schedule, "text", None), getattr(schedule, "zone", "UTC")
    if text is None:
        return None
    # Imported here: 20 ms, and many projects have no schedule.
    from zoneinfo import ZoneInfo

    from cronsim import CronSim, CronSimError

    try:
        return next(CronSim(text, now.astimezone(ZoneInfo(zone)))).astimezone(UTC)
    except (CronSimError, StopIteration):  # such as the 30th of February
        return None


def _others(registry: Registry) -> dict[str, Any]:
    """Return what is declared besides syncs."""
    files = registry.files
    job_types = [
        {
            "job_type": one.id,
            "client": one.client.id,
            "queue": one.queue_id,
            "file": files["job type", one.id],
            "phases": one.phases,
        }
        for one in registry.job_types.values()
    ]
    clients = [
        {"client": client.id, "queue": client.queue_id, "file": files["client", client.id]}
        for client in registry.clients.values()
    ]
    queues = [{"queue": queue.id, "file": files["queue", queue.id]} for queue in registry.queues.values()]
    return {"clients": clients, "broken": registry.broken, "job_types": job_types, "queues": queues}


def _code(registry: Registry, late: list[dict[str, Any]]) -> int:
    return 2 if registry.broken else 1 if late else 0


def _table(syncs: list[dict[str, Any]], idle: list[dict[str, Any]], now: datetime) -> str:
    rows: list[tuple[Any, ...]] = [
        (
            one["sync"], one["client"], one["queue"], f"{one['last_state'] or ''}{' (late)' if one['late'] else ''}",
            relative_text(one["last_run_at"], now=now), _ago(one["lag_seconds"]), one["records"], one["failing"],
            one["schedule"], "until resumed" if one["paused"] and one["paused_until"] is None else one["paused_until"],
            one["file"],
        )
        for one in syncs
    ]  # fmt: skip
    rows += [(None, one["client"], one["queue"], *[None] * 7, one["file"]) for one in idle]
    return table(_HEADERS, rows) if rows else ""


def _ago(seconds: float | None) -> str | None:
    return None if seconds is None else f"{duration_text(seconds)} ago"
