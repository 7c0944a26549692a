"""`syncs runs`: the document, the names, and that it needs no Prefect."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project

RUN_KEYS = [
    "id", "sync", "state", "started_at", "ended_at", "seconds", "listed", "succeeded", "unchanged", "gone", "failed", "deleted",
    "message", "started_by",
]  # fmt: skip


@pytest.mark.rows("CR-04", "CR-06", "CR-08")
def test_runs_by_hand_are_in_the_history(petstore: Project, api: Api) -> None:
    """The keys of the contract, the newest first; a name that is unknown exits 2."""
    api.items = [{"id": f"p{number}"} for number in range(12)]
    assert petstore.run_here("runs").stderr == "syncs: no runs yet; `syncs run SYNC` makes one\n"
    assert petstore.run_here("run", "petstore.pets").returncode == 0
    api.refused["/pets"] = 500
    assert petstore.run_here("run", "petstore.pets", "--wait", "0").returncode == 1
    found = json.loads(petstore.run_here("runs", "petstore.pets", "--json").stdout)
    assert [key for key in RUN_KEYS if key not in found[0]] == []
    assert [(one["state"], one["started_by"], one["succeeded"]) for one in found] == [
        ("failed", "hand", 0),
        ("success", "hand", 12),
    ]
    assert found[1]["started_at"] <= found[1]["ended_at"] <= found[0]["started_at"]
    text = petstore.run_here("runs", "--limit", "1")
    assert text.stdout.splitlines()[0].split()[:4] == ["SYNC", "STATE", "STARTED", "TOOK"]
    assert len(text.stdout.splitlines()) == 2
    assert text.stderr == "syncs: the newest 1; --limit shows more\n"
    unknown = petstore.run_here("runs", "nix")
    assert (unknown.returncode, unknown.stdout, len(unknown.stderr.splitlines())) == (2, "", 1)


def test_the_morning_needs_no_prefect(petstore: Project) -> None:
    """What is asked in the morning loads no Prefect, so that it answers at once, and where no server runs."""
    questions = [["list"], ["list", "--json"], ["runs"], ["jobs"], ["jobs", "--since", "1h"], ["queues"], ["pauses"]]
    questions += [["list", "--late"], ["records", "petstore.pets"], ["records", "petstore.pets", "--failing", "--where", "id=1"]]
    script = f"""
import sys, flows.cli
for words in {questions!r}:
    try: flows.cli.main(words)
    except SystemExit: pass
print("prefect" in sys.modules)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], env=petstore.environment, cwd=petstore.folder, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "False"
