"""Packages of a project that have the names of ours: one line says so, and nothing fails that need not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sync_clients import in_the_way
from tests import ROOT

SYNCS = "from sync_clients import main; main()"  # what the program `syncs` does


def call(folder: Path, *arguments: str, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    """Start Python in a folder, without the folder at the head of its path unless it is in `path`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SYNCS_")} | {"PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, text=True, capture_output=True, timeout=100, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a package `jobs`, a module `clients`, and a folder `flows` that is no package and hides nothing."""
    for name in ("jobs", "flows", "syncs"):
        (tmp_path / name).mkdir()
    (tmp_path / "jobs/__init__.py").touch()
    (tmp_path / "clients.py").touch()
    (tmp_path / "syncs/one.py").write_text("from flows import Client\none = Client('one', connect=print)\n")
    return tmp_path


def test_commands_work_and_say_it_in_one_line(folder: Path) -> None:
    """The program does not look into the working directory for packages."""
    done = call(folder, "-P", "-c", SYNCS, "list")
    assert done.returncode == 0, done.stderr
    assert "one" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("syncs: clients.py and jobs/ in this folder: that is the name of a package of sync-clients")


@pytest.mark.parametrize("how", [("-P", "-c", SYNCS), ("-m", "flows")])
def test_what_hides_ours_is_one_line(folder: Path, how: tuple[str, ...]) -> None:
    """With the folder on Python's path, nothing of ours can be imported that needs what is hidden."""
    done = call(folder, *how, "list", path=os.pathsep.join([str(folder), str(ROOT)]))
    assert (done.returncode, done.stdout) == (2, "")
    line = f"{folder / 'clients.py'} hides the package 'clients' of sync-clients: rename it, or take {folder} off Python's path"
    assert done.stderr == f"syncs: {line}\n"


def test_the_repository_itself_is_not_in_the_way(folder: Path) -> None:
    """Its packages are ours."""
    assert in_the_way(ROOT) is None
