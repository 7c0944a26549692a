"""Deployments from declarations, on the real server: what a person switched stays, what is no longer declared goes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows.orchestration.deploy.declared_deployments import apply_declared, deployment_name
from flows.orchestration.prefect_client import open_client
from flows.orchestration.project_folder import PULL_STEP
from flows.project import registry
from tests import ROOT
from tests.support.prefect_project import HANG, Project, ask, until

FILE = """
from clients import HttpClient, Listing
from flows import Client, Cron, Every, Sync

nightly = Client("nightly", connect=lambda _: HttpClient("https://nightly.example/"))
syncs = [Sync(name, nightly, listing=Listing(name), schedule=schedule) for name, schedule in {schedules}.items()]
"""


@dataclass
class Nightly:
    """A project with one client more than that of the shared server."""

    project: Project
    file: Path
    known: list[Path] = field(default_factory=list)

    def deploy(self, schedules: str | None, *in_file: str) -> dict[str, str]:
        """Declare syncs with these schedules and apply them; return what was done to their deployments, by name."""
        if schedules is not None:
            self.file.write_text(FILE.replace("{schedules}", schedules))
        declared = registry.load([*self.known, *([self.file] if self.file.exists() else [])])
        with open_client(self.project.url, timeout=HANG, retries=20) as client:
            applied = apply_declared(client, declared, ROOT, skipped={"sync/languages", *in_file})
        changes = {each.name.partition("/")[2]: each.change for each in applied}
        assert {change for name, change in changes.items() if not name.startswith("nightly.")} == {"unchanged"}
        return {name: change for name, change in changes.items() if name.startswith("nightly.")}

    def deployment(self, name: str) -> dict[str, Any] | None:
        """Return a deployment as the server has it."""
        return next(iter(self.project.find("deployments", deployments={"name": {"any_": [name]}})), None)

    def schedules(self, name: str) -> list[tuple[str | None, bool, Any]]:
        """Return the schedules of a deployment: slug, whether it is on, cron text or seconds."""
        found = self.deployment(name)
        assert found is not None
        each = [(one["slug"], one["active"], one["schedule"]) for one in found["schedules"]]
        return [(slug, active, what.get("cron") or what["interval"]) for slug, active, what in each]

    def change(self, method: str, path: str, body: Any) -> None:
        """Do what the UI does; the server's own database may be locked for a moment."""
        url = f"{self.project.url}/deployments/{path}"
        until(lambda: ask(method, url, json=body, auth=self.project.sign_in).is_success)


@pytest.fixture
def nightly(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nightly]:
    """The shared server, on which nothing of this is left in the end."""
    monkeypatch.setenv("PREFECT_HOME", str(project.home))  # where this process finds the auth string
    monkeypatch.chdir(ROOT)
    # Python takes a file that was written again in the same second, with the same length, for the one that it has compiled.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = Nightly(project, tmp_path / "nightly.py", [ROOT / "syncs", Path(project.environment["SYNCS_PATH"])])
    yield found
    found.file.unlink(missing_ok=True)
    found.deploy(None)


def test_a_schedule_from_its_declaration_to_its_end(nightly: Nightly) -> None:
    """Made, switched off in the UI, changed, still off; removed with its declaration, while a person's own one stays."""
    both = '{"nightly.a": Cron("0 3 * * *", zone="Europe/Berlin"), "nightly.b": None}'
    assert nightly.deploy(both) == {"nightly.a": "created", "nightly.b": "created"}
    made = nightly.deployment("nightly.a")
    assert made is not None
    assert (made["work_pool_name"], made["work_queue_name"]) == ("syncs", "nightly")
    assert made["pull_steps"] == [{PULL_STEP: {"directory": str(ROOT)}}]
    assert made["global_concurrency_limit"]["limit"] == 1
    assert made["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"
    assert nightly.schedules("nightly.b") == []

    nightly.change("PATCH", f"{made['id']}/schedules/{made['schedules'][0]['id']}", {"active": False})
    nightly.change("POST", f"{made['id']}/schedules", [{"schedule": {"interval": 7200}, "active": True}])
    assert nightly.deploy(both) == {"nightly.a": "unchanged", "nightly.b": "unchanged"}
    assert nightly.deploy(both.replace("0 3", "0 4")) == {"nightly.a": "updated", "nightly.b": "unchanged"}
    assert sorted(nightly.schedules("nightly.a"), key=str) == [("declared", False, "0 4 * * *"), (None, True, 7200.0)]

    assert nightly.deploy('{"nightly.a": None, "nightly.b": Every(600)}') == {"nightly.a": "updated", "nightly.b": "updated"}
    assert nightly.schedules("nightly.a") == [(None, True, 7200.0)]
    assert nightly.schedules("nightly.b") == [("declared", True, 600.0)]


def test_what_is_no_longer_declared_is_deleted_unless_a_file_is_broken(nightly: Nightly) -> None:
    """While a file cannot be read, nobody knows what it declares. An id may have letters that Prefect does not take."""
    made = nightly.deploy('{"nightly.c": "@daily", "nightly.c&d": None}')
    assert made == {"nightly.c": "created", (other := deployment_name("nightly.c&d")): "created"}
    nightly.file.write_text("import no_such_module")
    assert nightly.deploy(None) == {}
    assert nightly.schedules("nightly.c") == [("declared", True, "0 0 * * *")]
    assert nightly.deploy("{}", "sync/nightly.c", f"sync/{other}") == {}
    assert nightly.deploy("{}") == {"nightly.c": "deleted", other: "deleted"}
    assert nightly.deployment("nightly.c") is None
