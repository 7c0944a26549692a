"""`syncs list`, the registry as commands read it, and the names a shell can complete. Opens no database."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import click
from click.shell_completion import CompletionItem

from flows.cli.answer import Answer, table
from flows.cli.command import Command, note
from flows.declaration import Sync
from flows.job_type import JobType
from flows.registry import Registry, load


def declared() -> Registry:
    """Read what is declared. What the files print while they are read goes to stderr."""
    with redirect_stdout(sys.stderr):
        return load()


def warn_of_broken(registry: Registry) -> None:
    """Name the broken files on stderr; what is fine goes on."""
    for broken in registry.broken:
        note(f"skipping {broken}")


def complete_syncs(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a sync."""
    syncs = list(declared().syncs.values())
    return [CompletionItem(sync.id, help=f"client {sync.client.id}") for sync in syncs if sync.id.startswith(incomplete)]


def complete_clients(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a client."""
    return [CompletionItem(name) for name in declared().clients if name.startswith(incomplete)]


def complete_queues(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a queue that is declared, or that a sync or job type uses."""
    registry = declared()
    uses: list[Sync | JobType] = [*registry.syncs.values(), *registry.job_types.values()]
    queues = sorted({one.queue_id for one in uses} | set(registry.queues))
    return [CompletionItem(name) for name in queues if name.startswith(incomplete)]


def complete_job_types(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a job type."""
    types = list(declared().job_types.values())
    return [CompletionItem(one.id, help=f"client {one.client.id}") for one in types if one.id.startswith(incomplete)]


def complete_types(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete what stands as the type of a job: the id of a sync or a job type."""
    return [*complete_syncs(context, parameter, incomplete), *complete_job_types(context, parameter, incomplete)]


@click.command("list", cls=Command, short_help="Show what is declared, and in which file.")
def list_() -> Answer:
    """Show what is declared, and in which file.

    Exits 2 when a file is broken; the others are shown all the same.

    \b
    Example:
      syncs list
      SYNCS_PATH=~/my-syncs syncs list --json
    """
    registry = declared()
    files = registry.files
    syncs = [
        {"sync": sync.id, "client": sync.client.id, "queue": sync.queue_id, "file": files["sync", sync.id]}
        for sync in registry.syncs.values()
    ]
    job_types = [
        {
            "job_type": one.id, "client": one.client.id, "queue": one.queue_id, "file": files["job type", one.id],
            "phases": one.phases,
        }
        for one in registry.job_types.values()
    ]  # fmt: skip
    clients = [
        {"client": client.id, "queue": client.queue or client.id, "file": files["client", client.id]}
        for client in registry.clients.values()
    ]
    queues = [{"queue": queue.id, "file": files["queue", queue.id]} for queue in registry.queues.values()]
    idle = [
        (None, *client.values())
        for client in clients
        if not registry.of_client(client["client"]) and not registry.job_types_of(client["client"])
    ]
    tables: list[tuple[Sequence[str], list[tuple[Any, ...]]]] = [
        (("SYNC", "CLIENT", "QUEUE", "FILE"), [*(tuple(sync.values()) for sync in syncs), *idle]),
        (("JOB TYPE", "CLIENT", "QUEUE", "FILE", "PHASES"), [tuple(one.values()) for one in job_types]),
        (("QUEUE", "FILE"), [tuple(queue.values()) for queue in queues]),
    ]
    text = "\n\n".join(table(headers, rows) for headers, rows in tables if rows)
    notes = tuple(map(str, registry.broken))
    if not text and not registry.broken:
        notes = ("nothing is declared; write a file in syncs/, or name files and folders in SYNCS_PATH",)
    document = {"syncs": syncs, "clients": clients, "broken": registry.broken, "job_types": job_types, "queues": queues}
    return Answer(document, text, notes, code=2 if registry.broken else 0)
