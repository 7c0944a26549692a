"""jobs.schema.upgrade and the migrations, on both databases."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from jobs import Database, DatabaseUnavailable, DatabaseUrlError, JobStore, SchemaError, SchemaMissing, SchemaTooNew
from jobs.schema import upgrade as schema
from jobs.schema.job_tables import metadata
from tests.support.store_helpers import change, copy_package, enqueue, environment, query, replace, run_python, take


@pytest.fixture
def empty(empty_database_url: str) -> Database:
    """Return a database without tables."""
    return Database(empty_database_url)


def tables(db: Database) -> set[str]:
    """Return the names of all tables."""
    with db.read() as connection:
        return set(inspect(connection).get_table_names())


def test_migrations_and_models_agree(store: JobStore) -> None:
    """What the migrations made is what the models say: tables, columns, types, indexes."""
    with store.db.read() as connection:
        # Alembic reads SQLite's DEFAULT '' as another text than the one that made it.
        options = {"compare_type": True, "compare_server_default": store.db.dialect == "postgresql"}
        context = MigrationContext.configure(connection, opts=options)
        found = compare_metadata(context, metadata)
    # Alembic cannot read the "priority DESC" of job_ready from SQLite; the next test can.
    assert [step for step in found if "sync_clients_version" not in str(step) and "job_ready" not in str(step)] == []


def definitions(db: Database) -> dict[str, str]:
    """Return what the database itself says of each index."""
    sqlite = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    postgresql = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    with db.read() as connection:
        found = connection.execute(text(sqlite if db.dialect == "sqlite" else postgresql))
        return {row[0]: " ".join(row[1].split()) for row in found if "sync_clients_version" not in row[0]}


def test_migrations_make_the_models_indexes(store: JobStore, empty: Database) -> None:
    """Alembic does not compare the conditions and orders of indexes; the databases' own words do."""
    with empty.write() as connection:
        metadata.create_all(connection)
    assert definitions(store.db) == definitions(empty)
    assert {"job_ready", "job_twin", "job_lease", "job_finished", "pause_open", "attempt_job"} <= set(definitions(empty))
    empty.close()


def test_head_is_the_last_migration() -> None:
    """The version that the code asks for is the one that the migrations lead to, on one line."""
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [schema.HEAD]
    assert tuple(sorted(script.revision for script in scripts.walk_revisions())) == schema.VERSIONS


def test_upgrade_makes_the_tables_once(empty: Database) -> None:
    """The first upgrade makes them, the second finds nothing to do, and what is in them stays."""
    assert schema.current_version(empty) is None
    assert schema.upgrade(empty) == (None, schema.HEAD)
    assert tables(empty) == set(metadata.tables) | {schema.VERSION_TABLE}
    store = JobStore(empty)
    enqueue(store, ["a"])
    assert schema.upgrade(empty) == (schema.HEAD, schema.HEAD)
    schema.check(empty)
    schema.create_if_empty(empty)
    assert [job.key for job in take(store)] == ["a"]
    empty.close()


def test_prepare_makes_tables_only_in_an_empty_database(empty: Database) -> None:
    """An empty database gets its tables; an old one is left to `syncs db upgrade`."""
    schema.create_if_empty(empty)
    schema.check(empty)
    empty.close()


def test_tables_that_are_missing(empty: Database) -> None:
    """No tables: the error names the command that makes them."""
    with pytest.raises(SchemaMissing, match="syncs setup"):
        schema.check(empty)
    assert tables(empty) == set()
    empty.close()


def test_tables_newer_than_the_code(store: JobStore) -> None:
    """A later version is not touched, by nothing."""
    change(store, "UPDATE sync_clients_version SET version_num = '9999'")
    for function in (schema.check, schema.create_if_empty, schema.upgrade):
        with pytest.raises(SchemaTooNew, match="upgrade sync-clients"):
            function(store.db)
    assert schema.current_version(store.db) == "9999"


def test_the_next_version(store: JobStore, database_url: str, tmp_path: Path) -> None:
    """A newer program refuses older tables until it is told to upgrade them; then the older one refuses (T21)."""
    newer = copy_package(tmp_path)
    following = f"{int(schema.HEAD) + 1:04}"
    replace(newer / "schema" / "upgrade.py", f'HEAD = "{schema.HEAD}"', f'HEAD = "{following}"')
    (newer / "migrations" / "versions" / f"{following}_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = '{following}', '{schema.HEAD}'\n"
        "def upgrade():\n    op.add_column('job', sa.Column('colour', sa.Text(), nullable=True))\n"
    )
    enqueue(store, ["a"])
    script = """
import sys
from jobs import Database, SchemaOutdated
from jobs.schema import upgrade as schema
db = Database(sys.argv[1])
for function in (schema.check, schema.create_if_empty):
    try:
        function(db)
    except SchemaOutdated as error:
        assert "syncs db upgrade" in str(error)
    else:
        raise AssertionError(function)
print(schema.upgrade(db))
schema.check(db)
"""
    found = run_python(script, database_url, PYTHONPATH=str(tmp_path))
    assert found.stdout.strip() == f"('{schema.HEAD}', '{following}')", found.stderr
    with pytest.raises(SchemaTooNew):
        schema.check(store.db)
    assert query(store, "SELECT key, colour FROM job") == [{"key": "a", "colour": None}]


def test_two_processes_migrate_at_once(empty_database_url: str) -> None:
    """Both come back, one has done it (T21)."""
    script = (
        "import sys; from jobs import Database; from jobs.schema import upgrade as schema; "
        "db = Database(sys.argv[1]); print(schema.upgrade(db)); db.close()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, empty_database_url], env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert [process.returncode for process in processes] == [0, 0, 0]
    done, first = f"('{schema.HEAD}', '{schema.HEAD}')", f"(None, '{schema.HEAD}')"
    assert answers == sorted([done, done, first])


def test_a_migration_that_is_cut_off_leaves_nothing(empty_database_url: str, tmp_path: Path) -> None:
    """Killed in the middle, the upgrade has made no table; the next one makes them all (T3, T21)."""
    script = """
import os, signal, sys
from sqlalchemy import event
from jobs import Database
from jobs.schema import upgrade as schema
db = Database(sys.argv[1])
@event.listens_for(db.engine, "before_cursor_execute")
def cut(connection, cursor, statement, *rest):
    if "CREATE TABLE notice" in statement:
        os.kill(os.getpid(), signal.SIGKILL)
schema.upgrade(db)
"""
    found = subprocess.run([sys.executable, "-c", script, empty_database_url], env=environment(), check=False)
    assert found.returncode == -9
    db = Database(empty_database_url)
    assert tables(db) == set()
    assert schema.upgrade(db) == (None, schema.HEAD)
    db.close()


def test_other_peoples_tables_are_left_alone(empty: Database) -> None:
    """A database may hold more than ours."""
    with empty.write() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
        connection.execute(text("CREATE TABLE invoice (id INTEGER PRIMARY KEY, total INTEGER)"))
        connection.execute(text("INSERT INTO invoice VALUES (1, 100)"))
    schema.upgrade(empty)
    store = JobStore(empty)
    assert query(store, "SELECT * FROM invoice") == [{"id": 1, "total": 100}]
    assert query(store, "SELECT * FROM alembic_version") == [{"version_num": "theirs"}]
    assert tables(empty) == set(metadata.tables) | {schema.VERSION_TABLE, "invoice", "alembic_version"}
    empty.close()


def test_a_strangers_table_of_our_name_is_refused(empty: Database) -> None:
    """Where a name is taken, nothing is made, and the error says which."""
    with empty.write() as connection:
        connection.execute(text("CREATE TABLE job (id INTEGER)"))
        connection.execute(text("CREATE TABLE record (id INTEGER)"))
    with pytest.raises(SchemaError, match="job, record"):
        schema.upgrade(empty)
    assert tables(empty) == {"job", "record"}
    empty.close()


@pytest.mark.parametrize("url", ["postgresql://nobody:secret@127.0.0.1:1/none", "postgresql:///x?host=/nowhere"])
def test_a_database_that_does_not_answer(url: str) -> None:
    """One error, without the password."""
    db = Database(url)
    for function in (schema.current_version, schema.check, schema.upgrade):
        with pytest.raises(DatabaseUnavailable) as caught:
            function(db)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
    db.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """A file of another kind is an error of ours, and stays as it is."""
    path = tmp_path / "letter.db"
    path.write_text("Dear reader, " * 1000)
    db = Database(f"sqlite:///{path}")
    with pytest.raises(DatabaseUnavailable, match="not a database"):
        schema.check(db)
    assert path.read_text().startswith("Dear reader")
    db.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "not a database URL"),
        ("nonsense", "not a database URL"),
        ("mysql://a:secret@b/c", "mysql"),
        ("oracle://a:secret@b/c", "oracle"),
        ("nosuch://a:secret@b/c", "nosuch"),
        ("sqlite://", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in-memory"),
        ("sqlite:////", "folder"),
        ("sqlite:////dev/null/x/y.db", "cannot be made"),
    ],
)
def test_urls_that_cannot_work(url: str, message: str) -> None:
    """Each is one clear line that repeats no password."""
    with pytest.raises(DatabaseUrlError, match=message) as caught:
        Database(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_every_spelling_of_postgresql_gets_our_driver(scheme: str) -> None:
    """People write the scheme that their other tools want."""
    db = Database(f"{scheme}://me@host/name")
    assert (db.dialect, db.url.drivername) == ("postgresql", "postgresql+psycopg")
    db.close()


def test_folders_are_made(tmp_path: Path) -> None:
    """SQLite's folder need not exist."""
    store = JobStore.open(f"sqlite:///{tmp_path}/a/b/c.db")
    assert store.views.queues() == []
    store.close()
