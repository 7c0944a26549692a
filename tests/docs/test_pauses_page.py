"""The examples of `docs/pauses.md`: its file is run in trouble, tested by its check, and held to its windows."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from flows import PausePolicy
from flows.cli.program import program
from flows.declarations.window import Window
from flows.pauses.blame import SPARED

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.docs.conftest import Page, Petstore

PAGE = "docs/pauses.md"


def declare(page: Page, folder: Path, *windows: Window) -> None:
    """Write the page's file, with these windows in place of its own: it may be Sunday."""
    (text,) = [block.text for block in page.blocks if block.declares and "Sync(" in block.text]
    found = re.sub(r"windows=\(.*?\n        \),", f"windows={windows!r},", text, flags=re.DOTALL)
    assert found != text
    (folder / "syncs/petstore.py").write_text(found)


def syncs(*words: str) -> Any:
    """Run a command in this process; return its document."""
    done = CliRunner().invoke(program, [*words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def run_out() -> None:
    """Let the clock end the pause."""
    with closing(sqlite3.connect("data/syncs.db")) as connection, connection:
        connection.execute("UPDATE pause SET until = '2000-01-01 00:00:00.000000' WHERE ended_at IS NULL")


def test_trouble_and_recovery(
    pages: dict[str, Page], project: Path, petstore: Petstore, run_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three runs into nothing pause the client; the check keeps it shut while the trouble lasts, and opens it afterwards."""
    declare(pages[PAGE], project)
    monkeypatch.setenv("PETSTORE_URL", "http://127.0.0.1:1/")
    at_once = ("petstore.pets", "--wait", "0")
    assert [run_here(*at_once, code=code)["state"] for code in (1, 1, 0)] == ["failed", "failed", "paused"]
    run_out()
    assert run_here(*at_once)["state"] == "paused"
    (found,) = syncs("pauses")
    assert (found["cause"], found["level"], found["state"]) == ("level", 2, "paused")
    run_out()
    monkeypatch.setenv("PETSTORE_URL", petstore.url)
    assert run_here("petstore.pets")["succeeded"] == 25
    told = [(one["cause"], one["level"], one["probes"], one["ended_by"]) for one in syncs("pauses", "--history")]
    assert told == [("level", 2, 1, "probe"), ("level", 1, 1, "level")]


def test_a_window(pages: dict[str, Page], project: Path, petstore: Petstore, run_here: Any) -> None:
    """A run in a window sends nothing; a person who resumes the client ends it for this time."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    window = Window(f"{now - timedelta(minutes=2):%H:%M}", f"{now + timedelta(minutes=9):%H:%M}")
    declare(pages[PAGE], project, window)
    found = run_here("petstore.pets")
    assert (found["state"], found["requests"]) == ("paused", 0)
    assert f"declared window {window}" in found["message"]
    syncs("resume", "petstore")
    assert run_here("petstore.pets")["state"] == "success"


def test_the_commands(pages: dict[str, Page], project: Path, petstore: Petstore) -> None:
    """The commands of the page do as they say, one after the other."""
    declare(pages[PAGE], project)
    lines = [line for block in pages[PAGE].blocks if block.language == "console" for line in block.text.splitlines()]
    documents = [syncs(*shlex.split(line.removeprefix("$ syncs "))) for line in lines]
    assert documents[0]["reason"] == "they move house"
    assert [one["state"] for one in documents[1]] == ["paused"]
    assert documents[2]["resumed"]
    assert [one["state"] for one in documents[3]] == ["ended"]


def test_the_windows_of_the_page(pages: dict[str, Page], project: Path) -> None:
    """The page's own windows fit into a policy, and its numbers are the code's."""
    windows = re.findall(r'Window\("[^)]*\)', pages[PAGE].text)
    assert len(windows) == 4
    PausePolicy(windows=tuple(eval(one) for one in windows))
    assert SPARED == 5
