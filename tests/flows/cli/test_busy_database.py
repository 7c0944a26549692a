"""A command that meets a database which another process keeps locked."""

import sqlite3
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli.program import program
from jobs import JobStore


@pytest.mark.rows("T10")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_it_says_so_in_one_line(store: JobStore, database_url: str, monkeypatch: Any, project: Any) -> None:
    """Exit 1: it is no mistake of the command's."""
    monkeypatch.setenv("SYNCS_DATABASE_URL", database_url)
    monkeypatch.setattr("jobs.db.database.BUSY_TIMEOUT", 0.05)
    stranger = sqlite3.connect(str(store.db.url.database), isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    found = CliRunner().invoke(program, ["cancel", "7"])
    stranger.close()
    assert (found.exit_code, found.stdout, len(found.stderr.splitlines())) == (1, "", 1)
    assert found.stderr.startswith("syncs: the database is locked: another process, or a job in this one, holds")
