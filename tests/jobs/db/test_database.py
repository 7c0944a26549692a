"""The file of a SQLite database: who may read it."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.db.database import Database
from jobs.schema.upgrade import create_if_empty


@pytest.fixture(params=[0o000, 0o022], autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set the umask to one that lets others read, or write too."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}


def test_new_database_is_for_its_owner(tmp_path: Path) -> None:
    """Its folder is 0700 and its files are 0600, while it is open and afterwards."""
    folder = tmp_path / "data"
    with closing(Database(f"sqlite:///{folder / 'syncs.db'}")) as database:
        create_if_empty(database)
        private = {"syncs.db": 0o600, "syncs.db-wal": 0o600, "syncs.db-shm": 0o600}
        assert _modes(folder) == {"data": 0o700, **private}
    assert _modes(folder)["syncs.db"] == 0o600


def test_existing_database_keeps_its_mode(tmp_path: Path) -> None:
    """A file and folder that somebody shares with a group stay shared."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o770)
    path = folder / "syncs.db"
    path.touch()
    path.chmod(0o660)
    with closing(Database(f"sqlite:///{path}")) as database:
        create_if_empty(database)
        modes = _modes(folder)
    assert (modes["data"], modes["syncs.db"]) == (0o770, 0o660)
