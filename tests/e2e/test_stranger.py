"""A file written only from contract.md, by somebody who never saw this project, against an API with cursors and Bearer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import JobStore
from jobs.admin.filters import Filter
from tests import ROOT
from tests.support.fake_things_api import Fault, Remote

FILE = '''
"""Keep our pet table in step with the Petstore API."""
from clients import Bearer, Cursor, HttpClient, Listing
from flows import Client, Notify, PausePolicy, Sync
from jobs import Retry
from pydantic import SecretStr
from pydantic_settings import BaseSettings

class Settings(BaseSettings, env_prefix="PETSTORE_"):
    base_url: str = "https://petstore.example/api/"
    token: SecretStr                       # PETSTORE_TOKEN, else the Prefect Secret block "petstore-token"

petstore = Client(
    "petstore",
    settings=Settings,
    connect=lambda s: HttpClient(s.base_url, auth=Bearer(s.token)),
    pause=PausePolicy(after=3, durations=(60, 300, 1800)),
    notify=Notify(error=["mailto:ops@example.org"], warning=["block:slack-data-team"]),
)

def fetch(http, entity):
    return http.get_json(f"things/{entity.key}")

pets = Sync(
    "petstore.pets", petstore,
    listing=Listing("things", Cursor("next"), items="data", key="id", version="v"),
    fetch=fetch, retry=Retry(max_retries=3), delete_missing=True,
)
'''

KEYS = {
    "sync", "client", "state", "pages", "listed", "queued", "succeeded", "unchanged", "gone", "failed", "snoozed", "pending",
    "deleted", "requests", "seconds", "stopped", "paused_until", "message",
}  # fmt: skip


@pytest.fixture
def syncs(remote: Remote, tmp_path: Path) -> Any:
    """Return a function that runs `syncs` with the stranger's file, in an empty folder."""
    file = tmp_path / "elsewhere" / "pets_of_mine.py"
    file.parent.mkdir()
    file.write_text(FILE)
    home = tmp_path / "home"
    home.mkdir()
    base = {name: value for name, value in os.environ.items() if not name.startswith(("SYNCS_", "PREFECT_", "PETSTORE_"))}
    base |= {
        "SYNCS_PATH": str(file), "PREFECT_HOME": str(home / ".prefect"), "PETSTORE_BASE_URL": remote.url,
        "PETSTORE_TOKEN": "t0p-s3cret", "PYTHONPATH": str(ROOT),
    }  # fmt: skip

    def call(*arguments: str, **environment: str | None) -> "subprocess.CompletedProcess[str]":
        variables = {name: value for name, value in {**base, **environment}.items() if value is not None}
        return subprocess.run(
            [sys.executable, "-m", "flows", *arguments], cwd=home, env=variables, text=True, capture_output=True, timeout=60,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return call


def document(done: "subprocess.CompletedProcess[str]", code: int = 0) -> dict[str, Any]:
    """Return the one JSON document on stdout."""
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) >= KEYS
    assert "t0p-s3cret" not in done.stdout + done.stderr
    return found


def test_first_and_second_run(syncs: Any, remote: Remote, tmp_path: Path) -> None:
    """The file runs as it is: everything arrives, the second run finds nothing new, a removed entity is swept."""
    remote.fill(35)
    first = document(syncs("run", "petstore.pets", "--json"))
    assert {name: first[name] for name in ("sync", "client", "state", "pages", "listed", "queued", "succeeded", "stopped")} == {
        "sync": "petstore.pets", "client": "petstore", "state": "success", "pages": 4, "listed": 35, "queued": 35,
        "succeeded": 35, "stopped": "end",
    }  # fmt: skip
    assert remote.authorizations == {"Bearer t0p-s3cret"}
    assert first["requests"] == remote.requests == 39
    del remote.things["k3"]
    remote.change("k4")
    second = document(syncs("run", "petstore.pets", "--json"))
    assert (second["state"], second["succeeded"], second["unchanged"], second["deleted"]) == ("success", 1, 33, 1)
    store = JobStore.open(f"sqlite:///{tmp_path / 'home' / 'data' / 'syncs.db'}")
    jobs = store.views.jobs(Filter(type="petstore.pets"), limit=100)
    store.close()
    assert len(jobs) == 36
    listed = json.loads(syncs("list", "--json").stdout)
    assert "petstore.pets" in json.dumps(listed)


def test_partial_and_paused(syncs: Any, remote: Remote) -> None:
    """A failed entity exits 1 with the state partial; a pause that lifts itself exits 0 and says until when."""
    remote.fill(35)
    remote.faults["k3"] = Fault(422)
    assert document(syncs("run", "petstore.pets", "--json"), code=1)["state"] == "partial"
    remote.faults["k3"] = Fault(429, headers={"Retry-After": "120"})
    found = document(syncs("run", "petstore.pets", "--wait", "60", "--json"))
    assert found["state"] == "paused"
    assert found["paused_until"]
    assert found["pending"] == 1


def test_missing_token(syncs: Any, remote: Remote, tmp_path: Path) -> None:
    """Without the token there is one line that names variable and block, exit code 2, no request, and nothing is written."""
    done = syncs("run", "petstore.pets", "--json", PETSTORE_TOKEN=None)
    assert done.returncode == 2
    assert "PETSTORE_TOKEN" in done.stderr
    assert "petstore-token" in done.stderr
    assert remote.requests == 0
    assert not (tmp_path / "home" / "data").exists()
