"""What the tests of the ancestors' features share: a project folder of its own, and the command line on either database."""

import os
from pathlib import Path

import pytest

from jobs import JobStore
from tests import ROOT
from tests.support.seed_helpers import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, which is the working directory; no settings and no Prefect server of this machine reach it."""
    for name in os.environ:
        if name.startswith(("SYNCS_", "PREFECT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "syncs").mkdir()
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def here(project: Project, database_url: str, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The same project on a database with tables, for each database there is."""
    monkeypatch.setenv("SYNCS_DATABASE_URL", database_url)
    project.store = store
    return project
