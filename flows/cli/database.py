"""`syncs db`: the versions of the tables. The work is done in `jobs.schema`, imported only when it is needed."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from flows.cli.answer import Answer
from flows.cli.command import Group

if TYPE_CHECKING:
    from jobs.database import Database


@contextmanager
def open_database() -> "Iterator[Database]":
    """Open the project's database as it is, whatever tables it has."""
    from flows.settings import project_settings
    from jobs.database import Database

    with closing(Database(project_settings().database_url)) as database:
        yield database


def name_of(db: "Database") -> str:
    """Return the database's URL without its password."""
    return db.name


@click.group("db", cls=Group, short_help="Look after the tables: upgrade, current, check.")
def db() -> None:
    """Look after the tables of the database that SYNCS_DATABASE_URL names.

    \b
    Example:
      syncs db check || syncs db upgrade
    """


@db.command("upgrade", short_help="Bring the tables to this version.")
def upgrade() -> Answer:
    """Bring the tables to the version of this code. Does nothing where they are.

    \b
    Example:
      syncs db upgrade
    """
    from jobs.schema import upgrade

    with open_database() as database:
        before, after = upgrade(database)
    done = "already has version" if before == after else f"upgraded from version {before} to" if before else "made with version"
    return Answer({"database": name_of(database), "before": before, "after": after}, f"{name_of(database)}: {done} {after}")


@db.command("current", short_help="Show the version of the tables.")
def current() -> Answer:
    """Show the version of the tables, and the one this code works with.

    \b
    Example:
      syncs db current --json
    """
    from jobs.schema import HEAD, current

    with open_database() as database:
        version = current(database)
    shown = f"version {version}" if version else "no tables yet"
    document = {"database": name_of(database), "version": version, "head": HEAD}
    return Answer(document, f"{name_of(database)}: {shown}; this code works with {HEAD}")


@db.command("check", short_help="Make sure that tables and code fit.")
def check() -> Answer:
    """Make sure that tables and code fit; exits 2 where they do not.

    \b
    Example:
      syncs db check && syncs work
    """
    from jobs.schema import HEAD, check

    with open_database() as database:
        check(database)
    return Answer({"database": name_of(database), "version": HEAD, "ok": True}, f"{name_of(database)}: version {HEAD} fits")
