"""The project's `.env`: what it sets, what it leaves alone, and how processes started later see its changes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli.program import program
from flows.errors import SettingsError
from flows.project.env_file import load_env_file
from tests import ROOT

LIST = 'import os\nfrom flows import Client\nclient = Client(os.environ["PETS"], connect=print)\n'
READ = "import os, flows.project.env_file as e; e.load_env_file(); print(*map(os.environ.get, ('PETS', 'MINE', 'GONE')))"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project, which is the working directory; the environment is put back afterwards."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    os.environ.pop("PETS", None)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def test_the_environment_wins_and_a_change_reaches_later_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of the file are taken where nothing is set; a process started from here takes the file's value of its own time."""
    (folder / ".env").write_text("# comment\nPETS='cats dogs'\nexport HOUSE=\"${PETS} and more\"\nMINE=file\nGONE=soon\n")
    monkeypatch.setenv("MINE", "environment")
    load_env_file()
    assert [os.environ[name] for name in ("PETS", "HOUSE", "MINE")] == ["cats dogs", "cats dogs and more", "environment"]
    (folder / ".env").write_text("PETS=birds\nMINE=file\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", READ], env=environment, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["birds", "environment", "None"]


def test_commands_read_it(folder: Path) -> None:
    """A file in `syncs/` finds the variables; without the file, the command says what is missing."""
    (folder / "syncs").mkdir()
    (folder / "syncs/pets.py").write_text(LIST)
    assert CliRunner().invoke(program, ["list"]).exit_code == 2
    (folder / ".env").write_text("PETS=lots\n")
    done = CliRunner().invoke(program, ["list"])
    assert (done.exit_code, "lots" in done.stdout) == (0, True), done.output


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"A=1\nTOKEN t0p-secret\n", "line 2: this is not NAME=value"), (b"A=\xff\n", "cannot be read: it is not UTF-8")],
)
def test_a_file_that_cannot_be_used_is_one_line(folder: Path, content: bytes, said: str) -> None:
    """A line that is no variable is named by its number; its content may be a secret."""
    (folder / ".env").write_bytes(content)
    with pytest.raises(SettingsError, match=said) as caught:
        load_env_file()
    assert "t0p-secret" not in str(caught.value)
    done = CliRunner().invoke(program, ["list"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


def test_a_virtual_environment_of_that_name_is_no_file(folder: Path) -> None:
    """A folder `.env` is left alone."""
    (folder / ".env").mkdir()
    load_env_file()
