"""A project on a file system that cannot be written: each command says so in one line, and what needs no file works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.support.store_helpers import environment

pytestmark = pytest.mark.slow

SYNC = """
from clients import HttpClient, Listing
from flows import Client, Sync

zoo = Client("zoo", connect=lambda _: HttpClient("http://127.0.0.1:1/"))
pets = Sync("zoo.pets", zoo, listing=Listing("pets"))
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """Make a project that cannot be written."""
    folder = tmp_path / "project"
    folder.mkdir()
    is_root = os.getuid() == 0
    if is_root:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs a file system of its own: {done.stderr.strip()}")
    try:
        (folder / "syncs").mkdir()
        (folder / "syncs" / "zoo.py").write_text(SYNC)
        if is_root:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        else:
            folder.chmod(0o555)
        yield folder
    finally:
        if is_root:
            subprocess.run(["umount", folder], check=True)
        else:
            folder.chmod(0o755)


def syncs(project: Path, *args: str, **more: str) -> tuple[int, str, list[str]]:
    """Run a command in it, with a home in it; return exit code, output and the lines on stderr."""
    known: dict[str, Any] = {**environment(), "HOME": str(project), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    known.pop("PREFECT_HOME", None)
    found = subprocess.run(
        [sys.executable, "-m", "flows", *args], cwd=project, env={**known, **more}, text=True, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip
    return found.returncode, found.stdout, found.stderr.splitlines()


def test_each_command_says_so(project: Path) -> None:
    """What needs a file names it; what only reads needs none: without a database there are no jobs."""
    for command in ("list", "jobs", "runs"):
        assert syncs(project, command)[0] == 0
    for command in (["run", "zoo.pets"], ["work", "--until-empty"], ["setup"]):
        code, out, (*_, line) = syncs(project, *command)
        assert (code, out) == (2, "")
        assert line == "syncs: SYNCS_DATABASE_URL needs the folder data, which cannot be made: Read-only file system" or (
            "Permission denied" in line
        )
    code, out, (*_, line) = syncs(project, "up")
    assert (code, out) == (2, "")
    assert ".prefect cannot be used: " in line


def test_with_its_database_elsewhere_it_runs(project: Path, tmp_path: Path) -> None:
    """Nothing of a run needs the project's own folder."""
    url = f"sqlite:///{tmp_path / 'data' / 'syncs.db'}"
    code, out, _ = syncs(project, "run", "zoo.pets", "--wait", "0", "--json", SYNCS_DATABASE_URL=url)
    assert code == 1
    assert "no connection" in out
    assert (tmp_path / "data" / "syncs.db").exists()


def test_a_database_that_cannot_be_written(project: Path, tmp_path: Path) -> None:
    """It is there, and the commands say that it does not answer."""
    made = tmp_path / "made"
    shutil.copytree(project, made)
    assert syncs(made, "setup")[0] == 0
    if os.getuid() != 0:
        pytest.skip("needs root, to write into the project once more")
    subprocess.run(["mount", "-o", "remount,rw", project], check=True)
    shutil.copytree(made / "data", project / "data")
    subprocess.run(["mount", "-o", "remount,ro", project], check=True)
    for command in (["run", "zoo.pets"], ["jobs"]):
        code, out, (*_, line) = syncs(project, *command)
        assert (code, out) == (2, "")
        assert line.startswith("syncs: sqlite:///data/syncs.db does not answer: ")
