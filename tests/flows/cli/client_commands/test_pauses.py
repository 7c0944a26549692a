"""`syncs pause | resume | pauses`: what they do, say and refuse without a Prefect server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from flows.cli.program import program
from jobs import JobStore

if TYPE_CHECKING:
    from tests.flows.conftest import Project

TWO = """
from flows import Client
petstore, shop = (Client(name, connect=lambda _: None) for name in ("petstore", "shop"))
"""


@pytest.fixture
def here(project: Project, database_url: str, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> JobStore:
    """Let the command line of a project with two clients work on the store, without a Prefect server."""
    project.write("syncs/two.py", TWO)
    monkeypatch.setenv("SYNCS_DATABASE_URL", database_url)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(project.folder / "prefect"))
    return store


def syncs(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return exit code, stdout and stderr."""
    found = CliRunner().invoke(program, arguments)
    return found.exit_code, found.stdout, found.stderr


def document(*arguments: str) -> Any:
    """Run a command with --json; return its document."""
    code, out, err = syncs(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.rows("SC-14", "AQ-25")
def test_a_client_is_held_until_then_or_until_resumed(here: JobStore) -> None:
    """The answer says until when, the table has it, and the other client is left alone."""
    assert document("pause", "petstore", "--reason", "they move house") == {
        "client": "petstore", "paused_until": None, "reason": "they move house",
    }  # fmt: skip
    assert here.pauses.current("shop") is None
    assert syncs("pause", "shop", "--for", "2h")[1].startswith("shop is paused until 20")
    held = here.pauses.current("shop")
    assert held is not None
    assert held.until is not None
    assert (held.until - held.started_at).total_seconds() == pytest.approx(7200, abs=60)
    assert document("resume", "petstore") == {"client": "petstore", "resumed": True}
    assert document("resume", "petstore") == {"client": "petstore", "resumed": False}
    assert syncs("resume", "petstore")[1] == "petstore was not paused\n"
    assert here.pauses.current("petstore") is None


def test_a_client_that_is_declared_no_more(here: JobStore) -> None:
    """It can be let go as long as it is paused; behind that nobody knows it."""
    here.pauses.open("ghost", None, cause="enforced", reason="401", set_by="a worker")
    assert document("resume", "ghost") == {"client": "ghost", "resumed": True}
    assert here.pauses.current("ghost") is None
    code, _, err = syncs("resume", "ghost")
    assert code == 2
    assert "ghost" in err
    here.pauses.open("ghost", None, cause="enforced", reason="401", set_by="a worker")
    assert syncs("resume", "ghost", "--all")[0] == 2
    assert here.pauses.current("ghost") is not None


def test_all_clients_at_once(here: JobStore) -> None:
    """`--all` is every client that is declared, and its document a list."""
    assert [each["client"] for each in document("pause", "--all", "--for", "1h")] == ["petstore", "shop"]
    assert {one.client for one in here.pauses.in_force()} == {"petstore", "shop"}
    assert document("resume", "--all") == [{"client": "petstore", "resumed": True}, {"client": "shop", "resumed": True}]
    assert here.pauses.in_force() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pause",), "name one client, or say --all"),
        (("pause", "shop", "--all"), "name one client, or say --all"),
        (("resume",), "name one client, or say --all"),
        (("pause", "shpo"), "'shpo'"),
        (("resume", "shpo"), "'shpo'"),
        (("pause", "shop", "--for", "soon"), "'soon' is not a duration"),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(here: JobStore, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, and what to write in its place."""
    code, out, err = syncs(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert here.pause_history.latest() == []


def test_list_shows_each_state(here: JobStore) -> None:
    """Paused with its end, reopening when that is over, probing while one tries, gone when that went well."""
    assert document("pauses") == []
    assert syncs("pauses") == (0, "", "syncs: no client is paused\n")
    here.pauses.open("shop", None, cause="enforced", reason="401 Unauthorized", set_by="w1")
    here.pauses.open("petstore", 0.01, cause="level", reason="timeout", set_by="w1")
    while here.pauses.current("petstore"):
        pass
    found = document("pauses")
    assert [(each["client"], each["state"], each["cause"], each["set_by"], each["probes"]) for each in found] == [
        ("petstore", "reopening", "level", "w1", 0), ("shop", "paused", "enforced", "w1", 0),
    ]  # fmt: skip
    assert [each["client"] for each in document("pauses", "shop")] == ["shop"]
    out = syncs("pauses")[1]
    assert "reopening" in out
    assert "until resumed" in out
    probe = here.probes.begin("petstore", worker="w2", lease=30)
    assert probe is not None
    assert [(each["state"], each["probes"]) for each in document("pauses", "petstore")] == [("probing", 1)]
    here.probes.end(probe, True, durations=(60,), reason="", set_by="w2")
    assert document("pauses", "petstore") == []
    assert syncs("pauses", "petstore") == (0, "", "syncs: petstore is not paused\n")


def test_history_says_who_and_how_it_ended(here: JobStore) -> None:
    """The newest first: cause, level, who, from, until, ended by whom, and how many probes."""
    here.pauses.open("shop", 3600, cause="enforced", reason="401 Unauthorized", set_by="w1")
    here.pauses.open("shop", None, cause="person", reason="by hand", set_by="anna")
    here.pauses.resume("shop", by="bert")
    assert document("pauses") == []
    found = document("pauses", "--history")
    assert found == document("pauses", "shop", "--all")
    told = [(each["cause"], each["state"], each["set_by"], each["ended_by"], each["probes"]) for each in found]
    assert told == [("person", "ended", "anna", "bert", 0), ("enforced", "ended", "w1", "anna", 0)]
    assert all(each["ended_at"] for each in found)
    header, first, _second = syncs("pauses", "--history")[1].splitlines()
    assert header.split() == [
        "CLIENT", "STATE", "CAUSE", "LEVEL", "BY", "FROM", "UNTIL", "ENDED", "ENDED", "BY", "PROBES", "REASON",
    ]  # fmt: skip
    assert "by hand" in first
    assert syncs("pauses", "petstore", "--history")[2] == "syncs: petstore is not paused, nor was it as far as is known\n"
