"""The how-tos on databases and services: their statements, units and commands are run, against what they are about."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from alembic.config import main as alembic_main
from click.testing import CliRunner
from sqlalchemy import make_url, text

from flows.cli.program import program
from jobs import Database
from tests import ROOT

if TYPE_CHECKING:
    from tests.conftest import Postgres
    from tests.docs.conftest import Page, Petstore


def named_blocks(page: Page) -> dict[str, str]:
    """Return the blocks below a line that names a file, by the name of the file."""
    found = re.findall(r"^[^\n]*`([^`\n]+)`[^`\n]*:\n\n```\w+\n(.*?)^```$", page.text, re.MULTILINE | re.DOTALL)
    return {Path(name).name: body for name, body in found}


@pytest.fixture
def stored_pets(pages: dict[str, Page], project: Path, petstore: Petstore, run_here: Any) -> None:
    """A project whose sync `petstore.pets` has stored 25 pets."""
    (block,) = [one for one in pages["docs/coming-from-dlt.md"].blocks if one.language == "python"]
    (project / "syncs/petstore.py").write_text(block.text)
    assert run_here("petstore.pets")["succeeded"] == 25


def test_the_records_are_read_without_more(pages: dict[str, Page], stored_pets: None) -> None:
    """The last query of the page counts the pets, in SQLite."""
    query = [block.text for block in pages["docs/pandas-and-duckdb.md"].blocks if block.language == "sql"][-1]
    with closing(sqlite3.connect("data/syncs.db")) as connection:
        assert connection.execute(query).fetchall() == [("v1", 25)]


def test_pandas_and_duckdb_read_the_records(pages: dict[str, Page], stored_pets: None) -> None:
    """The Python of the page, as one program, shows the pets and counts them."""
    pytest.importorskip("pandas", reason="pandas is not installed, and nothing here needs it")
    pytest.importorskip("duckdb", reason="DuckDB is not installed, and nothing here needs it")
    page = pages["docs/pandas-and-duckdb.md"]
    (export,) = re.findall(r"^\$ syncs (records .*)$", page.text, re.MULTILINE)
    assert CliRunner().invoke(program, export.split()).exit_code == 0
    more = '\nprint(duckdb.sql("SELECT max(name) AS last FROM pets"))\n'
    done = subprocess.run([sys.executable, "-c", page.file + more], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "pet 10" in done.stdout
    assert re.search(r"v1\W+25\b", done.stdout)
    assert "pet 9" in done.stdout


@pytest.mark.slow
def test_dbt_comes_after_the_sync(
    pages: dict[str, Page], project: Path, petstore: Petstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow of the page calls dbt once when the pets are stored, and not when their listing fails."""
    page = pages["docs/dbt.md"]
    (block,) = [one for one in pages["docs/coming-from-dlt.md"].blocks if one.language == "python"]
    (project / "syncs/petstore.py").write_text(block.text)
    (project / "bin").mkdir()
    (project / "bin/dbt").write_text('#!/bin/sh\necho "$@" >> built\n')
    (project / "bin/dbt").chmod(0o755)
    monkeypatch.setenv("PATH", f"{project / 'bin'}:{os.environ['PATH']}")
    scope: dict[str, Any] = {"__name__": "nightly"}
    exec(compile(named_blocks(page)["nightly.py"], "nightly.py", "exec"), scope)
    # Its function, since the flow itself would start a server.
    scope["nightly"].fn()
    assert (project / "built").read_text() == "build\n"
    monkeypatch.setenv("PETSTORE_TOKEN", "wrong")
    with pytest.raises(RuntimeError, match=r"petstore\.pets: "):
        scope["nightly"].fn()
    assert (project / "built").read_text() == "build\n"
    (deployment,) = yaml.safe_load(named_blocks(page)["prefect.yaml"])["deployments"]
    assert deployment["entrypoint"] == "nightly.py:nightly"


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_the_model_reads_the_records(pages: dict[str, Page], database_url: str) -> None:
    """PostgreSQL understands the model of the page, with the table that its source names."""
    blocks = named_blocks(pages["docs/dbt.md"])
    (source,) = yaml.safe_load(blocks["sources.yml"])["sources"]
    table = f"{source['schema']}.{source['tables'][0]['name']}"
    model, count = re.subn(r"{{ source\('syncs', 'record'\) }}", table, blocks["pets.sql"])
    assert count == 1
    with closing(Database(database_url)) as database, database.read() as connection:
        assert list(connection.execute(text(model)).keys()) == ["id", "name", "updated_at", "is_deleted", "synced_at"]


def docker_answers() -> bool:
    """Return whether there is a Docker daemon."""
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


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


def test_the_image_is_right(pages: dict[str, Page]) -> None:
    """The Dockerfile and the compose file of the page are well-formed, and what their containers run are commands of ours."""
    page = pages["docs/docker.md"]
    blocks = named_blocks(page)
    instructions = [line.split(maxsplit=1) for line in blocks["Dockerfile"].splitlines() if line]
    assert {name for name, _ in instructions} <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "CMD"}
    known = {"requirements.txt", "pyproject.toml", "syncs"}
    assert {rest.split()[0] for name, rest in instructions if name == "COPY"} == known
    (command,) = [json.loads(rest) for name, rest in instructions if name == "CMD"]
    services = yaml.safe_load(blocks["compose.yaml"])["services"]
    assert f"@{next(iter(services))}/pets" in services["work"]["environment"]["SYNCS_DATABASE_URL"]
    run = re.findall(r"run --rm work (syncs .*)$", page.text, re.MULTILINE)
    assert len(run) >= 4
    for words in (command, *(line.split() for line in run)):
        # It ends after the words were understood.
        assert CliRunner().invoke(program, [*words[1:], "--help"]).exit_code == 0, words
    grace = int(command[command.index("--grace") + 1])
    assert grace < int(services["work"]["stop_grace_period"].removesuffix("s"))


@pytest.mark.slow
def test_the_image_builds(pages: dict[str, Page], tmp_path: Path) -> None:
    """Docker builds the image of the page, with this project in place of the published one, and it finds the syncs."""
    if not docker_answers():
        pytest.skip("no Docker daemon answers")
    (tmp_path / "Dockerfile").write_text(
        named_blocks(pages["docs/docker.md"])["Dockerfile"].replace("COPY requirements.txt ./", "COPY requirements.txt *.whl ./")
    )
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    (tmp_path / "requirements.txt").write_text(f"./{wheel.name}[postgres]\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "pets"\nversion = "1"\n')
    shutil.copytree(ROOT / "syncs", tmp_path / "syncs")
    tag = "sync-clients-how-to"
    subprocess.run(["docker", "build", "--tag", tag, str(tmp_path)], check=True, timeout=280)
    done = subprocess.run(["docker", "run", "--rm", tag, "syncs", "list"], check=True, capture_output=True, text=True, timeout=60)
    assert "languages" in done.stdout


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
