"""`run` and `arun` without a Prefect server: by id and by declaration, inside an event loop, stopped and cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from clients import Entity, Page
from flows import Client, SettingsError, Sync, UnknownName, UsageError, arun, run

if TYPE_CHECKING:
    from tests.flows.conftest import Project

FILE = """
from contextlib import nullcontext
from clients import Entity, Page
from flows import Client, Sync

pets = Client("pets", connect=lambda _: nullcontext())
all_pets = Sync("pets.all", pets, listing=lambda http, since: iter([Page([Entity("1", data={}), Entity("2", data={})])]))
"""


def pets_sync(**options: Any) -> Sync:
    """Return a sync of five pets that no file declares."""
    client = Client("pets", connect=lambda _: nullcontext())
    rows = [Entity(str(number), data={"number": number}) for number in range(5)]
    return Sync("pets.some", client, listing=lambda http, since: iter([Page(rows)]), **options)


def test_a_declaration_with_a_database_of_its_own(database_url: str, project: Project) -> None:
    """The result has the fields of --json; the second run finds nothing new; the project's database is not made."""
    sync = pets_sync()
    first, second = (run(sync, database=database_url) for _ in range(2))
    assert (first.sync, first.state, first.succeeded, first.as_json()["stopped"]) == ("pets.some", "success", 5, "end")
    assert (second.succeeded, second.unchanged) == (0, 5)
    assert run(sync, full=True, limit=2, database=database_url).succeeded == 2
    renewed = run(pets_sync(fetch=lambda http, entity: {"renewed": entity.key}), keys=["3"], database=database_url)
    assert (renewed.listed, renewed.succeeded) == (0, 1)
    with pytest.raises(UsageError, match="without a listing"):
        run(sync, keys=["3"], full=True, database=database_url)
    assert not (project.folder / "data").exists()


def test_by_id_in_the_project(project: Project) -> None:
    """As `syncs run`: declarations and `.env` of the folder, the project's database; within an event loop, too."""
    project.write("syncs/pets.py", FILE)
    database = f"sqlite:///{project.folder}/elsewhere.db"
    project.write(".env", f"SYNCS_DATABASE_URL={database}\n")
    before = dict(os.environ)
    try:
        assert run("pets.all").succeeded == 2

        async def both() -> tuple[int, int]:
            return (await arun("pets.all")).unchanged, run("pets.all", full=True).succeeded

        assert asyncio.run(both()) == (2, 2)
        with pytest.raises(UnknownName, match=r"pets\.al"):
            run("pets.al")
    finally:
        os.environ.clear()
        os.environ.update(before)
    with closing(sqlite3.connect(project.folder / "elsewhere.db")) as connection:
        assert connection.execute("SELECT count(*) FROM record").fetchall() == [(2,)]


def test_a_missing_setting_is_an_error_and_leaves_nothing(project: Project) -> None:
    """What `syncs run` says in one line is an exception here."""
    from pydantic_settings import BaseSettings

    class Settings(BaseSettings, env_prefix="PETS_"):
        token: str

    client = Client("pets", settings=Settings, connect=lambda _: nullcontext())
    with pytest.raises(SettingsError, match="PETS_TOKEN is not set"):
        run(Sync("pets.some", client, listing=lambda http, since: iter([Page(())])))
    assert not (project.folder / "data").exists()


def test_a_signal_lets_running_jobs_end(project: Project) -> None:
    """Ctrl-C comes while the first entity is fetched: that one is stored, `run` raises, and the next run does the rest."""
    begun, alarm, before = threading.Event(), threading.main_thread().ident, signal.getsignal(signal.SIGINT)

    def fetch(http: object, entity: Entity) -> object:
        if not begun.is_set():
            begun.set()
            assert alarm is not None
            signal.pthread_kill(alarm, signal.SIGINT)
        return {"key": entity.key}

    sync, database = pets_sync(fetch=fetch, concurrency=1, batch=1), f"sqlite:///{project.folder}/pets.db"
    with pytest.raises(KeyboardInterrupt):
        run(sync, database=database)
    assert signal.getsignal(signal.SIGINT) is before, "a job in a shell's background ignores it"
    rest = run(sync, database=database)
    assert (rest.state, rest.succeeded < 5) == ("success", True)


def test_cancelling_lets_running_jobs_end(project: Project) -> None:
    """The caller is cancelled while a fetch waits: what was fetched is stored before the cancellation arrives."""
    begun, go_on = threading.Event(), threading.Event()
    closed: list[bool] = []

    @contextmanager
    def connect(_: object) -> Iterator[None]:
        yield
        closed.append(go_on.is_set())

    def fetch(http: object, entity: Entity) -> object:
        begun.set()
        assert go_on.wait(60)
        return {}

    client = Client("pets", connect=connect)
    sync = Sync("pets.some", client, listing=lambda http, since: iter([Page([Entity("1", data={})])]), fetch=fetch)

    async def cancelled() -> None:
        running = asyncio.create_task(arun(sync, database=f"sqlite:///{project.folder}/pets.db"))
        await asyncio.to_thread(begun.wait, 60)
        running.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())
    assert closed
    assert all(closed)
    with closing(sqlite3.connect(project.folder / "pets.db")) as connection:
        assert connection.execute("SELECT key FROM record").fetchall() == [("1",)]
