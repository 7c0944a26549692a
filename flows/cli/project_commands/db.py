"""`syncs db`: shows, checks and upgrades the version of the tables. `jobs.schema.upgrade` does the work."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from flows.cli.command import Group
from flows.cli.output import CommandOutput

if TYPE_CHECKING:
    from jobs.db.database import Database


@contextmanager
def open_database() -> "Iterator[Database]":
    """Open the database of the project without checking the version of its tables.

    Raises:
        ForeignDatabase: it belongs to another project.
    """
    from flows.project.settings import project_settings
    from jobs.db.database import Database
    from jobs.schema.project_owner import check

    settings = project_settings()
    with closing(Database(settings.database_url)) as database:
        check(database, settings.project_name)
        yield database


def upgrade_database(database: "Database") -> tuple[str | None, str]:
    """Upgrade the tables, and let the database belong to this project; return the versions before and after.

    Raises:
        ForeignDatabase: it belongs to another project.
        SchemaError: see `jobs.schema.upgrade.upgrade`.
    """
    from flows.project.settings import project_settings
    from jobs.schema.project_owner import claim
    from jobs.schema.upgrade import upgrade

    versions = upgrade(database)
    claim(database, project_settings().project_name)
    return versions


def name_of(db: "Database") -> str:
    """Return the database's URL without its password."""
    return db.name


@click.group("db", cls=Group, short_help="Upgrade or check the tables.")
def db() -> None:
    """Upgrade or check the tables of the database that SYNCS_DATABASE_URL names.

    \b
    Example:
      syncs db check || syncs db upgrade
    """


@db.command("upgrade", short_help="Upgrade the tables to the version of this code.")
def upgrade() -> CommandOutput:
    """Upgrade the tables to the version of this code. Does nothing if they have it.

    \b
    Example:
      syncs db upgrade
    """
    with open_database() as database:
        before, after = upgrade_database(database)
    done = "already has version" if before == after else f"upgraded from version {before} to" if before else "made with version"
    return CommandOutput(
        {"database": name_of(database), "before": before, "after": after}, f"{name_of(database)}: {done} {after}"
    )


@db.command("current", short_help="Show the version of the tables.")
def current() -> CommandOutput:
    """Show the version of the tables, and the version that this code needs.

    \b
    Example:
      syncs db current --json
    """
    from jobs.schema.upgrade import HEAD, current_version

    with open_database() as database:
        version = current_version(database)
    shown = f"version {version}" if version else "no tables yet"
    document = {"database": name_of(database), "version": version, "head": HEAD}
    return CommandOutput(document, f"{name_of(database)}: {shown}; this code works with {HEAD}")


@db.command("check", short_help="Check that the tables have the version of this code.")
def check() -> CommandOutput:
    """Check that the tables have the version of this code; exits 2 if not.

    \b
    Example:
      syncs db check && syncs work
    """
    from jobs.schema.upgrade import HEAD, check

    with open_database() as database:
        check(database)
    return CommandOutput(
        {"database": name_of(database), "version": HEAD, "ok": True}, f"{name_of(database)}: version {HEAD} fits"
    )
