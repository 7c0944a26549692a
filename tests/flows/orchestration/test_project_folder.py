"""In which folder a flow run of a declared deployment starts, and what it reads there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.errors import UsageError
from flows.orchestration.project_folder import enter_folder, find_folder


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders, `here` with a `.env`; the working directory is elsewhere, as that of a worker's flow run."""
    for name in ("here", "there", "worker"):
        (tmp_path / name).mkdir()
    (tmp_path / "here/.env").write_text("PROBE=here\n")
    monkeypatch.delenv("SYNCS_FOLDER", raising=False)
    monkeypatch.setenv("PROBE", "before")
    monkeypatch.delenv("PROBE")
    monkeypatch.chdir(tmp_path / "worker")
    return tmp_path


def test_the_folder_that_was_deployed_from(folders: Path) -> None:
    """The pull step changes no directory, which Prefect would put on Python's path; the module of the flow does."""
    assert find_folder(str(folders / "here")) == {}
    assert Path.cwd() == folders / "worker"
    enter_folder()
    assert (Path.cwd(), os.environ["PROBE"]) == (folders / "here", "here")
    enter_folder()
    assert Path.cwd() == folders / "here"


def test_another_folder_on_this_host(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SYNCS_FOLDER` wins; where neither is there, one line says what to set."""
    monkeypatch.setenv("SYNCS_FOLDER", str(folders / "there"))
    find_folder(str(folders / "gone"))
    enter_folder()
    assert Path.cwd() == folders / "there"
    monkeypatch.delenv("SYNCS_FOLDER")
    with pytest.raises(UsageError, match=r"no folder .*gone on this host; set SYNCS_FOLDER in the environment of its worker"):
        find_folder(str(folders / "gone"))
