"""jobs.reading.reader: what it opens, and what it leaves to `jobs.db.database`. On both databases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.project.database_reader import DEFAULT_URL
from flows.project.settings import Settings
from jobs import DatabaseUnavailable, JobStore
from jobs.reading.reader import is_missing, moment, open_reader
from jobs.schema.project_owner import claim
from tests.support.store_helpers import change, reading


def test_it_reads_what_the_store_has_written(store: JobStore, database_url: str) -> None:
    """With named parameters, `%` and casts; times are in UTC; nothing is written."""
    with reading(store) as reader:
        assert reader.select("SELECT :one AS a, 'a%:' AS b", one="x") == [("x", "a%:")]
        assert moment(reader.select("SELECT id, updated_at FROM queue UNION SELECT 'q', NULL")[0][1]) is None
        assert abs((reader.now() - store.views.now()).total_seconds()) < 60
        with pytest.raises(DatabaseUnavailable, match="cannot be read"):
            reader.select("SELECT nothing FROM nowhere")
    assert not is_missing(database_url)


def test_what_is_unusual_is_left(store: JobStore, database_url: str) -> None:
    """Tables of another version, another project's database, no tables."""
    claim(store.db, "mine")
    assert open_reader(database_url, project="other") is None
    found = open_reader(database_url, project="mine")
    assert found is not None
    found.close()
    change(store, "UPDATE sync_clients_version SET version_num = '0001'")
    assert open_reader(database_url, project="mine") is None


def test_urls_that_name_nothing(tmp_path: Path) -> None:
    """A file that does not exist is missing, and not made; what is no URL is somebody else's to refuse."""
    path = tmp_path / "none.db"
    assert is_missing(f"sqlite:///{path}")
    for url in (
        f"sqlite:///{path}",
        "sqlite://",
        "mysql://x/y",
        "postgresql://nobody@127.0.0.1:1/x",
        "postgresql://[",
        "nonsense",
    ):
        assert open_reader(url, project=None) is None
    assert not path.exists()
    assert Settings.model_fields["database_url"].default == DEFAULT_URL


def test_it_is_light() -> None:
    """Neither SQLAlchemy nor pydantic is loaded."""
    script = "import sys, flows.project.database_reader, jobs.reading.runs, jobs.reading.syncs\nprint(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"sqlalchemy", "sqlmodel", "pydantic", "prefect", "psycopg", "pendulum"} & set(found.stdout.split()) == set()
