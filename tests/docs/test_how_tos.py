"""The how-tos on databases and services: their statements, units and commands are run, against what they are about."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.config import main as alembic_main
from click.testing import CliRunner
from sqlalchemy import make_url, text

from flows.cli.program import program
from jobs import Database

if TYPE_CHECKING:
    from tests.conftest import Postgres
    from tests.docs.conftest import Page


def named_blocks(page: Page) -> dict[str, str]:
    """Return the blocks below a line that names a file, by the name of the file."""
    found = re.findall(r"^[^\n]*`([^`\n]+)`[^`\n]*:\n\n```\w+\n(.*?)^```$", page.text, re.MULTILINE | re.DOTALL)
    return {Path(name).name: body for name, body in found}


def test_the_database_of_the_page_is_set_up(
    pages: dict[str, Page], postgres: Postgres, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role and the database of the page take our tables, and its query finds the records that stand."""
    make, look = [block.text for block in pages["docs/postgresql.md"].blocks if block.language == "sql"]
    postgres.execute(*(one for one in make.split(";\n") if one.strip()))
    try:
        url = make_url(postgres.url("pets")).set(username="pets", password="change me")
        monkeypatch.setenv("SYNCS_DATABASE_URL", url.render_as_string(hide_password=False))
        for command in (["setup"], ["db", "check"]):
            done = CliRunner().invoke(program, command)
            assert done.exit_code == 0, done.output
        with closing(Database(os.environ["SYNCS_DATABASE_URL"])) as database, database.write() as connection:
            columns = "sync, key, data, generation, first_seen_at, changed_at, synced_at, is_poison"
            values = "'petstore.pets', '1', '{\"name\": \"Rex\"}', 1, now(), now(), now(), false"
            connection.execute(text(f"INSERT INTO record ({columns}) VALUES ({values})"))
            assert [row[:2] for row in connection.execute(text(look))] == [("1", "Rex")]
    finally:
        postgres.execute("DROP DATABASE pets WITH (FORCE)", "DROP ROLE pets")


def test_alembic_leaves_our_tables_alone(
    pages: dict[str, Page], project: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files of the page, Alembic proposes the user's table and nothing of ours, and applies it."""
    env, models = [block.text for block in pages["docs/alembic.md"].blocks if block.language == "python"]
    monkeypatch.setenv("SYNCS_DATABASE_URL", database_url)
    monkeypatch.syspath_prepend(project)
    monkeypatch.delitem(sys.modules, "models", raising=False)
    alembic = partial(alembic_main, prog="alembic")
    alembic(["init", "migrations"])
    (project / "migrations/env.py").write_text(env)
    (project / "models.py").write_text(models)
    template = project / "migrations/script.py.mako"
    template.write_text(template.read_text().replace("import sqlalchemy as sa", "import sqlalchemy as sa\nimport sqlmodel"))
    alembic(["revision", "--autogenerate", "--message", "pets"])
    (made,) = (project / "migrations/versions").glob("*.py")
    assert re.findall(r"op\.(\w+)\('(\w+)'", made.read_text()) == [("create_table", "pet"), ("drop_table", "pet")]
    alembic(["upgrade", "head"])
    with closing(Database(database_url)) as database, database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM pet")).scalar() == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_reads_the_units(pages: dict[str, Page], tmp_path: Path) -> None:
    """systemd finds nothing to complain about in the units of the page."""
    programs = tmp_path / "pets/.venv/bin"
    programs.mkdir(parents=True)
    for name in ("syncs", "prefect"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    units = {name: body for name, body in named_blocks(pages["docs/systemd.md"]).items() if "." in name and name != "pets.env"}
    assert sorted(units) == ["pets-prefect.service", "pets-sync@.service", "pets-sync@petstore.pets.timer", "pets-work.service"]
    for name, body in units.items():
        (tmp_path / name).write_text(body.replace("/srv/pets", str(tmp_path / "pets")))
    asked = [str(tmp_path / name.replace("@.service", "@petstore.pets.service")) for name in units]
    shutil.copy(tmp_path / "pets-sync@.service", tmp_path / "pets-sync@petstore.pets.service")
    done = subprocess.run(["systemd-analyze", "verify", *asked], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "pets-" not in done.stderr
