"""A database belongs to the project that has opened it first, and to no other by mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from jobs import Database, JobStore
from jobs.errors import ForeignDatabase
from jobs.schema import project_owner, upgrade
from jobs.schema.job_tables import project
from tests.support.store_helpers import environment, query


def test_the_first_project_with_a_name_has_it(database_url: str) -> None:
    """One without a name may use a database of nobody, and not one of somebody."""
    db = Database(database_url)
    project_owner.claim(db, None)
    assert project_owner.owner(db) is None
    project_owner.claim(db, "zoo")
    project_owner.claim(db, "zoo")
    assert project_owner.owner(db) == "zoo"
    for other in (None, "farm"):
        for ask in (project_owner.check, project_owner.claim):
            with pytest.raises(ForeignDatabase, match=r"belongs to the project 'zoo'.*SYNCS_PROJECT=zoo to share"):
                ask(db, other)
    db.close()


def test_two_at_once(database_url: str) -> None:
    """One of them gets it, and the other is told so."""
    stores = [JobStore(Database(database_url)) for _ in range(6)]
    barrier, refused = threading.Barrier(6), []

    def claim(number: int) -> None:
        barrier.wait(30)
        try:
            project_owner.claim(stores[number].db, f"project {number % 2}")
        except ForeignDatabase as error:
            refused.append(str(error))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (row,) = query(stores[0], f"SELECT name FROM {project.name}")
    assert len(refused) == 3
    assert all(repr(row["name"]) in one for one in refused)
    for store in stores:
        store.close()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_tables_of_another_project_are_not_upgraded(empty_database_url: str, tmp_path: Path) -> None:
    """`syncs setup`, `db upgrade` and `work` stop with one line, and have changed nothing."""
    db = Database(empty_database_url)
    upgrade.upgrade(db)
    project_owner.claim(db, "zoo")
    with db.write() as connection:
        connection.exec_driver_sql(f"UPDATE {upgrade.VERSION_TABLE} SET version_num = '0006'")
    db.close()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "farm"\n')
    known = {**environment(), "SYNCS_DATABASE_URL": empty_database_url, "PREFECT_HOME": str(tmp_path / ".prefect")}

    def syncs(*args: str, **more: str) -> Any:
        command = [sys.executable, "-m", "flows", *args]
        return subprocess.run(
            command, check=False, cwd=tmp_path, env={**known, **more}, text=True, capture_output=True, timeout=120
        )

    for command in (["setup"], ["db", "upgrade"], ["work", "--until-empty"]):
        found = syncs(*command)
        assert (found.returncode, found.stdout) == (2, "")
        (line,) = found.stderr.splitlines()
        assert "belongs to the project 'zoo', and this one is 'farm'" in line
    shared = syncs("db", "current", "--json", SYNCS_PROJECT="zoo")
    assert json.loads(shared.stdout)["version"] == "0006", shared.stderr


def test_the_name_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting, else the pyproject's, and never the folder's."""
    from flows.errors import SettingsError
    from flows.project.settings import project_settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNCS_PROJECT", raising=False)
    assert project_settings().project_name is None
    file = tmp_path / "pyproject.toml"
    for text, name in (("", None), ("[project]\n", None), ('[project]\nname = "zoo"\n', "zoo"), ("[tool.x]\n", None)):
        file.write_text(text)
        assert project_settings().project_name == name
    monkeypatch.setitem(os.environ, "SYNCS_PROJECT", " farm ")
    assert project_settings().project_name == "farm"
    monkeypatch.delenv("SYNCS_PROJECT")
    file.write_text("[project\n")
    with pytest.raises(SettingsError, match=r"pyproject.toml cannot be read; set SYNCS_PROJECT"):
        assert project_settings().project_name
