"""`syncs init`: what it writes runs as it is, and what is there stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flows.cli.program import program
from flows.orchestration.deploy.deployments import deployments_in_file
from flows.project import registry
from flows.project.settings import project_settings
from tests import ROOT

FILES = ["syncs/example.py", "prefect.yaml", ".env.example", ".gitignore", "pyproject.toml"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory; no server and no settings of this machine reach it."""
    for name in [name for name in os.environ if name.startswith(("SYNCS_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def syncs(*arguments: str, code: int = 0) -> Any:
    """Run a command here and return its document."""
    done = CliRunner().invoke(program, [*arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else done.stderr


def test_a_new_project_runs_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example lists 118 elements and finds nothing to do the second time; files and declarations are well-formed."""
    written = syncs("init", "my pets")
    assert written["files"] == [{"file": name, "change": "created"} for name in FILES]
    monkeypatch.chdir(folder / "my pets")
    assert project_settings().project_name == "my-pets"
    assert str(registry.load().sync("example.elements").schedule) == "*/5 * * * * UTC"
    first, second = (syncs("run", "example.elements") for _ in range(2))
    assert [first[name] for name in ("state", "listed", "succeeded", "stopped")] == ["success", 118, 118, "end"]
    assert [second[name] for name in ("state", "queued", "unchanged")] == ["success", 0, 118]
    assert deployments_in_file(Path.cwd()) == frozenset()


def test_what_it_writes_is_well_formed(folder: Path) -> None:
    """ruff finds nothing, also with this repository's rules; what is commented out is right, too."""
    syncs("init")
    for options in ([], ["--config", str(ROOT / "pyproject.toml")]):
        subprocess.run([sys.executable, "-m", "ruff", "check", *options, "."], check=True, timeout=100)
        subprocess.run([sys.executable, "-m", "ruff", "format", *options, "--check", "."], check=True, timeout=100)
    path = folder / "prefect.yaml"
    text = path.read_text().replace("deployments: []", "deployments:")
    path.write_text("\n".join(line.removeprefix("#") if line.startswith("#  ") else line for line in text.splitlines()))
    assert deployments_in_file(folder) == {"sync/everything-on-sundays"}
    (deployment,) = yaml.safe_load(path.read_text())["deployments"]
    assert (deployment["work_pool"]["name"], deployment["work_pool"]["work_queue_name"]) == ("syncs", "example")
    lines = [line.removeprefix("#") for line in (folder / ".env.example").read_text().splitlines() if line.startswith("#S")]
    (folder / ".env").write_text("\n".join(line for line in lines if "DATABASE" not in line))
    known = dict(os.environ)
    try:
        assert syncs("list")["syncs"][0]["sync"] == "example.elements"
        assert project_settings().notify_error == ["mailto:ops@example.org"]
    finally:
        os.environ.clear()
        os.environ.update(known)


def test_nothing_is_overwritten(folder: Path) -> None:
    """A file that is there is kept; with a sync of one's own there is no example; a place that cannot be used is one line."""
    (folder / "syncs").mkdir()
    (folder / "syncs/pets.py").touch()
    (folder / ".gitignore").write_text("mine")
    found = {one["file"]: one["change"] for one in syncs("init")["files"]}
    assert found == dict.fromkeys(FILES[1:], "created") | {".gitignore": "kept"}
    assert (folder / ".gitignore").read_text() == "mine"
    assert {one["change"] for one in syncs("init")["files"]} == {"kept"}
    (folder / "other").mkdir()
    (folder / "other/syncs").touch()
    assert syncs("init", "other", code=2).count("\n") == 1
