"""Tables and their versions: made, upgraded, checked. Alembic is imported only where something must change."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from jobs.database import Database
from jobs.errors import DatabaseUnavailable, SchemaError, SchemaMissing, SchemaOutdated, SchemaTooNew

HEAD = "0004"
"""The version this code works with; tests/jobs/test_schema.py holds it against the migrations."""

MIGRATIONS = Path(__file__).parent / "migrations"
VERSIONS = tuple(sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))
VERSION_TABLE = "sync_clients_version"
_LOCK = 0x73796E63  # "sync": the advisory lock under which one process at a time migrates


def current(db: Database) -> str | None:
    """Return the version of the tables, `None` where there are none.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    try:
        with db.read() as connection:
            return _version(connection)
    except DBAPIError as error:
        raise DatabaseUnavailable(f"{_where(db)} cannot be read: {str(error.orig).strip().splitlines()[0]}") from error


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.execute(text("SELECT version_num FROM sync_clients_version")).scalar()
    return version


def check(db: Database) -> None:
    """Make sure that tables and code fit.

    Raises:
        SchemaMissing, SchemaOutdated, SchemaTooNew: they do not.
        DatabaseUnavailable: the database does not answer.
    """
    _judge(current(db), _where(db))


def _judge(version: str | None, where: str) -> None:
    if version is None:
        raise SchemaMissing(f"{where} has no tables yet; run `syncs setup`")
    if version == HEAD:
        return
    if version in VERSIONS:
        raise SchemaOutdated(f"{where} has tables of version {version}, this code needs {HEAD}; run `syncs db upgrade`")
    raise SchemaTooNew(f"{where} has tables of version {version}, newer than this code ({HEAD}); upgrade sync-clients")


def prepare(db: Database) -> None:
    """Make the tables in an empty database; otherwise only check them.

    Raises:
        SchemaOutdated, SchemaTooNew: tables and code do not fit.
        DatabaseUnavailable: the database does not answer.
    """
    version = current(db)
    if version is None:
        upgrade(db)
    else:
        _judge(version, _where(db))


def upgrade(db: Database) -> tuple[str | None, str]:
    """Bring the tables to this code's version. Two processes at once do it once.

    Returns:
        The versions before and after.

    Raises:
        SchemaTooNew: the tables are newer than this code.
        SchemaError: somebody else's tables have the names of ours.
        DatabaseUnavailable: the database does not answer.
    """
    from alembic import command
    from alembic.config import Config

    with _alone(db) as connection:
        before = _version(connection)
        if before is not None and before not in VERSIONS:
            _judge(before, _where(db))
        if before is None:
            _refuse_strangers(connection, _where(db))
        if before != HEAD:
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, HEAD


def _refuse_strangers(connection: Connection, where: str) -> None:
    from jobs.models import metadata

    taken = sorted(set(metadata.tables) & set(inspect(connection).get_table_names()))
    if taken:
        raise SchemaError(f"{where} already has tables named {', '.join(taken)}; give sync-clients a database of its own")


@contextmanager
def _alone(db: Database) -> Iterator[Connection]:
    with db.write() as connection:  # on SQLite BEGIN IMMEDIATE is the lock
        if db.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield connection


def _where(db: Database) -> str:
    return db.name
