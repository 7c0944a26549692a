"""Files and folders for their owner alone, whatever the umask is."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.project import private_files
from flows.project.prefect_address import UpState, write_state
from flows.project.private_files import make_private, make_private_folder, write_private
from flows.project.processes import Process


@pytest.fixture(params=[0o000, 0o022], autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set the umask to one that lets others read, or write too."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.lstat().st_mode)


def test_folder_is_created_for_its_owner(tmp_path: Path) -> None:
    """The folder is private; those above it are as the umask says."""
    make_private_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700
    assert mode(tmp_path / "a") & 0o055


def test_existing_folder_and_file_become_private(tmp_path: Path) -> None:
    """What an earlier version left readable is readable no longer; a link is not followed."""
    folder, file, target = tmp_path / "home", tmp_path / "home" / "prefect.db", tmp_path / "target"
    folder.mkdir(mode=0o755)
    file.write_text("x")
    target.write_text("x")
    target.chmod(0o644)
    (folder / "link").symlink_to(target)
    make_private_folder(folder)
    make_private(file)
    make_private(folder / "link")
    make_private(folder / "missing")
    assert (mode(folder), mode(file), mode(target)) == (0o700, 0o600, 0o644)


def test_folder_of_others_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PREFECT_HOME that is the user's home, the working directory or a `/tmp` does not lock others out of it."""
    folders = [tmp_path / name for name in ("home", "work", "tmp")]
    for folder in folders:
        folder.mkdir()
        folder.chmod(0o755)
    folders[2].chmod(0o1777)
    monkeypatch.setenv("HOME", str(folders[0]))
    monkeypatch.chdir(folders[1])
    for folder in folders:
        make_private_folder(folder)
    assert [mode(folder) for folder in folders] == [0o755, 0o755, 0o1777]


def test_written_file_is_private_and_replaced(tmp_path: Path) -> None:
    """A file is replaced as a whole, and no earlier mode or forgotten draft stays."""
    path = tmp_path / "it"
    path.write_text("old")
    path.chmod(0o644)
    draft = tmp_path / f"it.{os.getpid()}"
    draft.write_text("forgotten")
    draft.chmod(0o666)
    write_private(path, "new")
    assert (path.read_text(), mode(path), [each.name for each in tmp_path.iterdir()]) == ("new", private_files.FILE_MODE, ["it"])


def test_state_file_is_private(tmp_path: Path) -> None:
    """The state file of `syncs up` is for its owner."""
    write_state(tmp_path, UpState(1, "http://127.0.0.1:1/api", "now", Process(1, "x")))
    assert mode(tmp_path / "syncs-up.json") == 0o600
