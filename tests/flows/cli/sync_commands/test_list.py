"""`syncs list`: how syncs stand, `--late` for a monitor, and what is shown when the database cannot be read."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Sync
from flows.errors import DeclarationError
from tests.support.fake_things_api import declare

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project


def listed(project: Project, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the syncs."""
    found = project.run_here("list", *words, "--json")
    return found.returncode, json.loads(found.stdout)["syncs"]


def test_how_a_sync_stands(petstore: Project, api: Api) -> None:
    """Before its first run, and after one in which an entity failed."""
    code, (before,) = listed(petstore)
    assert code == 0
    unknown = ("schedule", "last_run_at", "last_state", "last_success_at", "lag_seconds", "paused_until")
    assert [before[name] for name in unknown] == [None] * 6
    assert (before["records"], before["failing"], before["late"]) == (0, 0, False)
    assert not (petstore.folder / "data").exists()
    api.items = [{"id": f"p{number}"} for number in range(20)]
    petstore.run_here("run", "petstore.pets")
    api.refused["/pets/p7"] = 422
    petstore.run_here("run", "petstore.pets", "--full")
    _, (after,) = listed(petstore)
    assert (after["last_state"], after["records"], after["failing"]) == ("partial", 20, 1)
    assert after["last_success_at"] < after["last_run_at"]
    assert after["lag_seconds"] >= 0
    text = petstore.run_here("list").stdout.splitlines()[1]
    assert "partial" in text
    assert " ago" in text
    petstore.run_here("pause", "petstore", "--for", "1h")
    assert listed(petstore)[1][0]["paused_until"] is not None


@pytest.mark.rows("CR-11")
def test_a_monitor_asks_what_is_late(petstore: Project, api: Api) -> None:
    """Exit 1 while there was no success for so long, also when there never was one; 0 after a success."""
    text = (petstore.folder / "syncs/petstore.py").read_text()
    petstore.write("syncs/petstore.py", text.replace("petstore, listing", 'petstore, late_after="26h", listing'))
    api.items = [{"id": "p1"}]
    code, (late,) = listed(petstore, "--late")
    assert (code, late["sync"], late["late"], late["late_after"]) == (1, "petstore.pets", True, 93_600)
    assert "(late)" in petstore.run_here("list", "--late").stdout
    petstore.run_here("run", "petstore.pets", "--limit", "1")
    assert listed(petstore, "--late")[0] == 1
    petstore.run_here("run", "petstore.pets")
    assert listed(petstore, "--late") == (0, [])
    assert petstore.run_here("list", "--late").stdout == ""
    with sqlite3.connect(petstore.folder / "data/syncs.db") as connection:
        connection.execute("UPDATE run SET ended_at = '2000-01-01 00:00:00.000000'")
    code, (late,) = listed(petstore, "--late")
    assert code == 1
    assert late["lag_seconds"] > 93_600


def test_a_database_that_cannot_be_read(petstore: Project) -> None:
    """What is declared is shown, with a note; but it is an error, also for a monitor."""
    petstore.write("data/syncs.db", "no database")
    found = petstore.run_here("list", "--json")
    assert found.returncode == 2
    (one,) = json.loads(found.stdout)["syncs"]
    assert (one["last_state"], one["records"], one["late"]) == (None, None, False)
    assert "how the syncs stand is not known" in found.stderr
    assert petstore.run_here("list", "--late").returncode == 2


@pytest.mark.parametrize(
    ("given", "seconds"), [("26h", 93_600.0), (90, 90.0), (timedelta(days=1), 86_400.0), ("PT2H", 7200.0), (None, None)]
)
def test_late_after_is_a_duration(given: Any, seconds: float | None) -> None:
    """Text, seconds or a timedelta."""
    sync = declare("http://x/", late_after=given)
    assert sync.late_after == seconds
    assert sync.is_late(None) is (seconds is not None)


@pytest.mark.parametrize("given", ["soon", 0, -1, True, [1], "0h", float("inf")])
def test_what_is_no_duration_is_refused(given: Any) -> None:
    """With the sync and what to write."""
    with pytest.raises(DeclarationError, match="late_after"):
        Sync("x", declare("http://x/").client, listing=lambda conn, since: iter(()), late_after=given)
