"""The wheel, installed where there is no clone: a new project, its schedule on a worker, and runs from Python."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.support.prefect_project import HANG, Project, free_port, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROBE = """
import os
from clients import Entity, Page
from clients.demo_api import elements_api
from flows import Client, Every, Sync

probe = Client("probe", connect=lambda _: elements_api())


def listing(http, since):
    import flows
    yield Page([Entity(name, data={"value": value}) for name, value in (
        ("folder", os.getcwd()), ("env", os.environ["PROBE"]), ("flows", flows.__file__))])


where = Sync("probe.where", probe, listing=listing, schedule=Every(5))
"""

SCRIPT = """
import asyncio

from prefect import flow

import flows

{example}

@flow
async def later():
    return (await flows.arun("example.elements")).unchanged, flows.run("example.elements").unchanged


nightly()
print(asyncio.run(later()))
"""


@dataclass
class Installed(Project):
    """A project in a folder of its own, whose commands are those of a virtual environment."""

    venv: Path = Path()

    def start(self, *arguments: str, module: str = "") -> subprocess.Popen[str]:
        """Start `syncs`, or Python with these arguments."""
        program = [str(self.venv / "bin/python"), "-P"] if module == "python" else [str(self.venv / "bin/syncs")]
        return subprocess.Popen(
            [*program, *arguments], cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def said(self, *arguments: str, module: str = "") -> tuple[str, str]:
        """Run it to its end, successfully, and return what it said on stdout and stderr."""
        process = self.start(*arguments, module=module)
        out, err = process.communicate(timeout=HANG)
        assert process.returncode == 0, err
        return out, err

    def records(self) -> dict[str, str]:
        """Return the records of the probe."""
        query = "SELECT key, json_extract(data, '$.value') FROM record WHERE sync = 'probe.where'"
        with closing(sqlite3.connect(self.folder / "data/syncs.db")) as connection:
            return dict(connection.execute(query).fetchall())


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and beside it what it depends on, from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    quick = ["--quiet", "--no-deps"]
    subprocess.run([*pip, "wheel", *quick, "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True, timeout=HANG)
    (wheel,) = folder.glob("*.whl")
    made = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True, timeout=HANG)
    (site,) = made.glob("lib/python*/site-packages")
    subprocess.run([*pip, f"--python={made / 'bin/python'}", "install", *quick, wheel], check=True, timeout=HANG)
    # A line of a .pth file is a folder whose own .pth files are not read, so that the clone is not found by the one of its
    # editable installation.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return made


@pytest.fixture
def project(venv: Path, tmp_path: Path) -> Iterator[Installed]:
    """What `syncs init` makes, with a folder `jobs` of its own that is a package, a `.env`, and one sync more."""
    ours = ("PREFECT_", "SYNCS_", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    home = tmp_path / "my shop"
    found = Installed(tmp_path, environment | {"PREFECT_HOME": str(home / ".prefect")}, free_port(), venv=venv)
    found.said("init", str(home))
    found.folder = home
    (home / "jobs").mkdir()
    (home / "jobs/__init__.py").touch()
    (home / ".env").write_text("PROBE=one\n")
    (home / "syncs/probe.py").write_text(PROBE)
    yield found
    found.start("down").communicate(timeout=HANG)


def test_from_init_to_a_scheduled_run(project: Installed) -> None:
    """All commands of the README, in a folder with a `jobs/` of its own: no run crashes, and `.env` is read anew by each run."""
    out, err = project.said("list")
    assert "example.elements" in out
    assert err.count("jobs/ in this folder") == 1
    # It is installed, and the clone is nowhere.
    assert str(ROOT) not in project.said("-c", "import sys, flows; print(flows.__file__)", module="python")[0]
    first = project.syncs("run", "example.elements")
    assert (first["state"], first["succeeded"]) == ("success", 118)

    up = project.syncs("up", "--port", str(project.port))
    made = {each["name"] for each in up["applied"] if each["kind"] == "deployment"}
    own = {"sync/sync", "work/work", "maintain/maintain", "pause/pause", "resume/resume", "pauses/pauses"}
    assert made == own | {"sync/example.elements", "sync/probe.where"}
    found = until(project.records)
    assert found["folder"] == str(project.folder)
    assert found["env"] == "one"
    assert str(project.venv) in found["flows"]
    (project.folder / ".env").write_text("PROBE=two\n")
    until(lambda: project.records()["env"] == "two")

    assert project.syncs("run", "example.elements")["unchanged"] == 118
    assert project.newest_run("example.elements")["state_type"] == "COMPLETED"
    assert not project.find("flow_runs", flow_runs={"state": {"type": {"any_": ["CRASHED", "FAILED"]}}})
    assert {each["change"] for each in project.syncs("up")["applied"]} == {"unchanged"}


def test_from_python_within_flows(project: Installed) -> None:
    """The page's flow runs the sync as its subflow and dbt after it; so does a coroutine, and nothing is left un-awaited."""
    project.said("up", "--port", str(project.port))
    project.hold_schedules()
    guide = (ROOT / "docs/run-it.md").read_text()
    example = next(part for part in guide.split("```") if part.startswith("python") and "dbt" in part)
    (project.folder / "nightly.py").write_text(
        SCRIPT.replace("{example}", example.removeprefix("python").replace("petstore.pets", "example.elements"))
    )
    dbt = project.venv / "bin/dbt"
    dbt.write_text("#!/bin/sh\necho dbt $1\n")
    dbt.chmod(0o755)
    project.environment["PATH"] = f"{dbt.parent}{os.pathsep}{os.environ['PATH']}"
    out, err = project.said("-W", "error::RuntimeWarning", "nightly.py", module="python")
    assert out.splitlines()[-2:] == ["dbt build", "(118, 118)"]
    assert "never awaited" not in err
    runs = project.find("flow_runs", flow_runs={"name": {"any_": ["example.elements"]}})
    assert [(each["state_type"], bool(each["parent_task_run_id"])) for each in runs] == [("COMPLETED", True)] * 3


def test_types_of_what_init_writes(project: Installed) -> None:
    """mypy reads the installed packages' types, and finds nothing in strict mode."""
    (project.folder / "syncs/probe.py").unlink()
    mypy: list[Any] = [sys.executable, "-m", "mypy", "--python-executable", project.venv / "bin/python"]
    done = subprocess.run(
        mypy, cwd=project.folder, env=project.environment, text=True, capture_output=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
