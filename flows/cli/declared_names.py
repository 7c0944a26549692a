"""Reads what the project declares, for the commands, and completes its names in a shell. Opens no database."""

import sys
from contextlib import redirect_stdout

import click
from click.shell_completion import CompletionItem

from flows.cli.command import note
from flows.declarations.job_type import JobType
from flows.declarations.sync import Sync
from flows.project.registry import Registry, load


def read_declarations() -> Registry:
    """Read what is declared. What the files print while they are read goes to stderr."""
    with redirect_stdout(sys.stderr):
        return load()


def warn_of_broken(registry: Registry) -> None:
    """Name the broken files on stderr; what is fine goes on."""
    for broken in registry.broken:
        note(f"skipping {broken}")


def complete_syncs(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a sync."""
    syncs = list(read_declarations().syncs.values())
    return [CompletionItem(sync.id, help=f"client {sync.client.id}") for sync in syncs if sync.id.startswith(incomplete)]


def complete_clients(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a client."""
    return [CompletionItem(name) for name in read_declarations().clients if name.startswith(incomplete)]


def complete_queues(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a queue that is declared, or that a sync or job type uses."""
    registry = read_declarations()
    uses: list[Sync | JobType] = [*registry.syncs.values(), *registry.job_types.values()]
    queues = sorted({one.queue_id for one in uses} | set(registry.queues))
    return [CompletionItem(name) for name in queues if name.startswith(incomplete)]


def complete_job_types(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a job type."""
    types = list(read_declarations().job_types.values())
    return [CompletionItem(one.id, help=f"client {one.client.id}") for one in types if one.id.startswith(incomplete)]


def complete_types(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete what stands as the type of a job: the id of a sync or a job type."""
    return [*complete_syncs(context, parameter, incomplete), *complete_job_types(context, parameter, incomplete)]
