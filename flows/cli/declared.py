"""`syncs list`, the registry as commands read it, and the names a shell can complete. Opens no database."""

import sys
from contextlib import redirect_stdout

import click
from click.shell_completion import CompletionItem

from flows.cli.answer import Answer, table
from flows.cli.command import Command, note
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
    """Complete the id of a queue that a sync uses."""
    queues = sorted({sync.queue_id for sync in declared().syncs.values()})
    return [CompletionItem(name) for name in queues if name.startswith(incomplete)]


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
    syncs = [
        {"sync": sync.id, "client": sync.client.id, "queue": sync.queue_id, "file": registry.files["sync", sync.id]}
        for sync in registry.syncs.values()
    ]
    clients = [
        {"client": client.id, "queue": client.queue or client.id, "file": registry.files["client", client.id]}
        for client in registry.clients.values()
    ]
    idle = [(None, *client.values()) for client in clients if not registry.of_client(client["client"])]
    rows = [*(tuple(sync.values()) for sync in syncs), *idle]
    text = table(("SYNC", "CLIENT", "QUEUE", "FILE"), rows) if rows else ""
    notes = tuple(map(str, registry.broken))
    if not rows and not registry.broken:
        notes = ("nothing is declared; write a file in syncs/, or name files and folders in SYNCS_PATH",)
    document = {"syncs": syncs, "clients": clients, "broken": registry.broken}
    return Answer(document, text, notes, code=2 if registry.broken else 0)
