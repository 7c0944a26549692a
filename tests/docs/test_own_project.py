"""The README's way to a project of one's own: its commands, one after the other. The wheel itself is in `tests/e2e`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from flows.cli.program import program

if TYPE_CHECKING:
    from tests.docs.conftest import Page


def test_the_commands_of_the_readme(pages: dict[str, Page], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an empty folder to 118 records; the files are those that the README names; `up` is what the wheel's test calls."""
    section = pages["README.md"].section("## In a project of your own")
    (project / "new").mkdir()
    monkeypatch.chdir(project / "new")
    lines = [shlex.split(line, comments=True) for line in re.findall(r"^\$ syncs (.*)$", section, re.MULTILINE)]
    assert [line[0] for line in lines] == ["init", "run", "up"]
    done = [CliRunner().invoke(program, [*line, "--json"]) for line in lines[:2]]
    assert [each.exit_code for each in done] == [0, 0], [each.stderr for each in done]
    written, result = (json.loads(each.stdout) for each in done)
    assert {one["file"] for one in written["files"]} == set(re.findall(r"`([\w./]+\.\w+|\.\w+)`", section)) - {".env"}
    assert (result["state"], result["succeeded"]) == ("success", 118)
