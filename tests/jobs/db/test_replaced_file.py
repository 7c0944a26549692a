"""A SQLite file that is removed or replaced under a process is noticed: nothing is written into a file that nobody sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import Database, JobStore
from jobs.db import sqlite_file
from jobs.enqueueing.duplicates import NewJob
from jobs.errors import DatabaseReplaced
from jobs.job import Lane
from jobs.schema import upgrade as schema
from tests.support.store_helpers import environment

LANE = Lane("default", "api", "api.things")


def opened(file: Path) -> JobStore:
    """Make a database."""
    db = Database(f"sqlite:///{file}")
    schema.create_if_empty(db)
    return JobStore(db)


@pytest.mark.parametrize("how", ["removed", "replaced", "folder moved"])
def test_a_write_is_refused(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next write says so, and each one after it; a store that is opened anew works on the file that is there."""
    monkeypatch.setattr(sqlite_file, "CHECK_EVERY", 0.0)
    file = tmp_path / "data" / "syncs.db"
    store = opened(file)
    store.enqueue([NewJob(LANE, {})])
    if how == "removed":
        file.unlink()
    elif how == "replaced":
        opened(tmp_path / "other.db").close()
        (tmp_path / "other.db").replace(file)
    else:
        shutil.move(file.parent, tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(DatabaseReplaced, match="was removed or replaced while it was open"):
            store.enqueue([NewJob(LANE, {})])
        # What was found once needs no second look after a time.
        monkeypatch.setattr(sqlite_file, "CHECK_EVERY", 3600.0)
    store.close()
    again = opened(file)
    again.enqueue([NewJob(LANE, {"its": "own"})])
    # A file that is put in place of an open one inherits the write-ahead log beside it: SQLite's own hazard.
    assert again.views.jobs()[0].id == (2 if how == "replaced" else 1)
    again.close()


def test_a_new_connection_makes_no_empty_file(tmp_path: Path) -> None:
    """A read that opens a connection finds it before the next look at the file is due, and leaves no file behind."""
    file = tmp_path / "syncs.db"
    store = opened(file)
    with store.db.read():
        file.unlink()
        # The connection above is in use, so this one is opened anew.
        with pytest.raises(DatabaseReplaced), store.db.read():
            pass
    assert not file.exists()
    store.close()


def test_a_copy_in_place_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backup tool does to the times of a file changes nothing."""
    monkeypatch.setattr(sqlite_file, "CHECK_EVERY", 0.0)
    file = tmp_path / "syncs.db"
    store = opened(file)
    os.utime(file, (0, 0))
    file.chmod(0o644)
    store.enqueue([NewJob(LANE, {})])
    assert len(store.views.jobs()) == 1
    store.close()


def test_a_worker_ends_with_one_line(tmp_path: Path) -> None:
    """An idle `syncs work` whose file is removed ends by itself, with exit code 1."""
    (tmp_path / "syncs").mkdir()
    (tmp_path / "syncs" / "shop.py").write_text(
        "from contextlib import nullcontext\nfrom flows import Client, JobType\n"
        "shop = Client('shop', connect=lambda _: nullcontext())\n"
        "orders = JobType('shop.order', shop, process=lambda job, connection: open('worked', 'w').close())\n"
    )
    known = {**environment(), "PREFECT_HOME": str(tmp_path / ".prefect")}
    command = [sys.executable, "-m", "flows"]
    subprocess.run([*command, "enqueue", "shop.order", "1"], cwd=tmp_path, env=known, check=True, timeout=60, capture_output=True)
    process = subprocess.Popen(
        [*command, "work"], cwd=tmp_path, env=known, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "worked").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        (tmp_path / "data" / "syncs.db").unlink()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1, out
    (line,) = [line for line in err.splitlines() if not line.startswith("work: ")]
    assert "was removed or replaced while it was open" in line
