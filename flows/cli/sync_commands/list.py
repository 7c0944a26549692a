"""`syncs list`: what is declared, and in which file. Opens no database."""

from collections.abc import Sequence
from typing import Any

import click

from flows.cli.command import Command
from flows.cli.declared_names import read_declarations
from flows.cli.output import CommandOutput, table


@click.command("list", cls=Command, short_help="Show what is declared, and in which file.")
def list_() -> CommandOutput:
    """Show what is declared, and in which file.

    Exits 2 when a file is broken; the others are shown all the same.

    \b
    Example:
      syncs list
      SYNCS_PATH=~/my-syncs syncs list --json
    """
    registry = read_declarations()
    files = registry.files
    syncs = [
        {"sync": sync.id, "client": sync.client.id, "queue": sync.queue_id, "file": files["sync", sync.id]}
        for sync in registry.syncs.values()
    ]
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
    return CommandOutput(document, text, notes, code=2 if registry.broken else 0)
