"""Creates, upgrades and checks the tables. Alembic is imported only if the tables must change."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from jobs.db.database import Database
from jobs.errors import DatabaseUnavailable, SchemaError, SchemaMissing, SchemaOutdated, SchemaTooNew

HEAD = "0011"
"""The version that this code needs; a test compares it with the migrations."""

MIGRATIONS = Path(__file__).parents[1] / "migrations"
VERSIONS = tuple(sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))
VERSION_TABLE = "sync_clients_version"
_LOCK = 0x73796E63  # "sync": the advisory lock under which one process at a time migrates


def current_version(db: Database) -> str | None:
    """Return the version of the tables, `None` if there are none.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    try:
        with db.read() as connection:
            return _version(connection)
    except DBAPIError as error:
        raise DatabaseUnavailable(f"{db.name} cannot be read: {str(error.orig).strip().splitlines()[0]}") from error


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.execute(text("SELECT version_num FROM sync_clients_version")).scalar()
    return version


def check(db: Database) -> None:
    """Check that the tables have the version that this code needs.

    Raises:
        SchemaMissing, SchemaOutdated, SchemaTooNew: they have not.
        DatabaseUnavailable: the database does not answer.
    """
    _check_version(current_version(db), db.name)


def _check_version(version: str | None, where: str) -> None:
    if version is None:
        raise SchemaMissing(f"{where} has no tables yet; run `syncs setup`")
    if version == HEAD:
        return
    if version in VERSIONS:
        raise SchemaOutdated(f"{where} has tables of version {version}, this code needs {HEAD}; run `syncs db upgrade`")
    raise SchemaTooNew(f"{where} has tables of version {version}, newer than this code ({HEAD}); upgrade sync-clients")


def create_if_empty(db: Database) -> None:
    """Create the tables in an empty database; otherwise only check them.

    Raises:
        SchemaOutdated, SchemaTooNew: the tables have another version than this code needs.
        DatabaseUnavailable: the database does not answer.
    """
    version = current_version(db)
    if version is None:
        upgrade(db)
    else:
        _check_version(version, db.name)


def upgrade(db: Database) -> tuple[str | None, str]:
    """Upgrade the tables to the version that this code needs. Of two processes at the same time one does it.

    Returns:
        The versions before and after.

    Raises:
        SchemaTooNew: the tables are newer than this code.
        SchemaError: the database has other tables of the same names.
        DatabaseUnavailable: the database does not answer.
    """
    from alembic import command
    from alembic.config import Config

    with migration_lock(db) as connection:
        before = _version(connection)
        if before is not None and before not in VERSIONS:
            _check_version(before, db.name)
        if before is None:
            _refuse_foreign_tables(connection, db.name)
        if before != HEAD:
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, HEAD


def _refuse_foreign_tables(connection: Connection, where: str) -> None:
    from jobs.schema.job_tables import metadata

    taken = sorted(set(metadata.tables) & set(inspect(connection).get_table_names()))
    if taken:
        raise SchemaError(f"{where} already has tables named {', '.join(taken)}; give sync-clients a database of its own")


@contextmanager
def migration_lock(db: Database) -> Iterator[Connection]:
    """Open a transaction in which no other process makes or changes tables."""
    with db.write() as connection:  # on SQLite BEGIN IMMEDIATE is the lock
        if db.dialect == "postgresql":
            # Another process may migrate for long, and so may this one.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield connection
