"""`syncs forget`: what is declared is refused, what is not goes after it was said how much that is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project


def test_forgetting(petstore: Project, api: Api) -> None:
    """One line for each refusal; afterwards neither records nor the queue are there."""
    api.items = [{"id": f"p{number}"} for number in range(4)]
    petstore.run_here("run", "petstore.pets")
    path = petstore.folder / "syncs/petstore.py"
    text = path.read_text()
    refusals = {"petstore.pets": "declares", "petstore": "queue", "nix": "nothing is kept"}
    for name, why in refusals.items():
        refused = petstore.run_here("forget", name, "--yes")
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
        assert why in refused.stderr
    path.write_text("import nosuch_module")
    assert "broken file" in petstore.run_here("forget", "petstore.pets", "--yes").stderr
    path.write_text(text.replace("petstore.pets", "petstore.others").replace('Client("petstore"', 'Client("shop"'))
    asked = petstore.run_here("forget", "petstore.pets")
    assert (asked.returncode, "--yes is needed: this removes 4 records" in asked.stderr) == (2, True)
    assert "nothing is kept of 'nix'" in petstore.run_here("forget", "nix").stderr
    found = json.loads(petstore.run_here("forget", "petstore.pets", "--yes", "--json").stdout)
    assert (found["records"], found["jobs"], found["runs"], found["whole"]) == (4, 4, 1, True)
    assert petstore.run_here("records", "petstore.pets").returncode == 2
    assert [one["queue"] for one in json.loads(petstore.run_here("queues", "--json").stdout)] == ["petstore"]
    assert petstore.run_here("forget", "petstore", "--yes").returncode == 0
    assert json.loads(petstore.run_here("queues", "--json").stdout) == []
