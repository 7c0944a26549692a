"""`syncs setup`: makes the tables, work pool, deployments and automations that are missing."""

from collections.abc import Iterable, Iterator
from dataclasses import astuple
from typing import TYPE_CHECKING

import click

from flows.cli.command import Command
from flows.cli.declared_names import read_declarations, warn_of_broken
from flows.cli.output import CommandOutput, table
from flows.cli.prefect_api import find_prefect_api
from flows.cli.project_commands.db import name_of, open_database, upgrade_database
from flows.orchestration.server_names import Applied

if TYPE_CHECKING:
    from jobs.db.database import Database


@click.command("setup", cls=Command, short_help="Make tables, deployments and automations.")
def setup() -> CommandOutput:
    """Make the tables, also those into which syncs write, and on a Prefect server the work pool, deployments and automations.

    Changes nothing that is up to date.

    \b
    Example:
      SYNCS_DATABASE_URL=postgresql://me@db/syncs PREFECT_API_URL=http://prefect:4200/api syncs setup
    """
    with open_database() as database:
        before, after = upgrade_database(database)
        done = [Applied("tables", name_of(database), "unchanged" if before == after else f"version {after}")]
        done += _typed_tables(database)
    prefect = find_prefect_api()
    notes: list[str] = []
    if prefect.url is not None and prefect.answers:
        from flows.orchestration.prefect_setup import setup

        done += setup(prefect.url, warn=notes.append)
    else:
        notes.append(f"{prefect.problem}: deployments and automations were left out")
    return CommandOutput(
        {"database": name_of(database), "before": before, "after": after, "applied": done}, changes_table(done), tuple(notes)
    )


def _typed_tables(database: "Database") -> Iterator[Applied]:
    """Make the tables into which syncs write.

    Raises:
        TableMismatch: one of them does not fit its class.
    """
    registry = read_declarations()
    warn_of_broken(registry)
    for sync in registry.syncs.values():
        if sync.into is not None:
            from flows.worker.executor_factory import make_tables_of

            yield from (Applied("table", table, change) for table, change in make_tables_of(sync, database))


def changes_table(entries: Iterable[Applied]) -> str:
    """Return what was made or changed, as a table."""
    return table(("KIND", "NAME", "CHANGE"), map(astuple, entries))
