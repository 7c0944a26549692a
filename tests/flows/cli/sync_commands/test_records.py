"""`syncs records`: lists, one record, entities that fail, an export, and names that nobody knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project


def test_the_data_and_what_fails(petstore: Project, api: Api) -> None:
    """Before a run there is nothing, in one line; afterwards the records, each with its data."""
    before = petstore.run_here("records", "petstore.pets")
    assert (before.returncode, len(before.stderr.splitlines())) == (2, 1)
    api.items = [{"id": f"p{number}", "kind": "dog" if number % 2 else "cat"} for number in range(6)]
    api.refused["/pets/p3"] = 422
    petstore.run_here("run", "petstore.pets")
    found = json.loads(petstore.run_here("records", "petstore.pets", "--json").stdout)
    assert [one["data"] for one in found] == [one for one in api.items if one["id"] != "p3"]
    (failing,) = json.loads(petstore.run_here("records", "petstore.pets", "--failing", "--json").stdout)
    assert (failing["key"], failing["data"]) == ("p3", None)
    assert "422" in failing["last_error"]
    assert "422" in petstore.run_here("records", "petstore.pets", "--failing").stdout
    one = petstore.run_here("records", "petstore.pets", "p1")
    assert '"kind": "dog"' in one.stdout
    assert json.loads(petstore.run_here("records", "petstore.pets", "p1", "--json").stdout)["data"] == api.items[1]
    listed = petstore.run_here("records", "petstore.pets", "--where", "kind=dog", "--limit", "1")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["KEY", "p1"]
    assert "--limit shows more" in listed.stderr
    out = json.loads(petstore.run_here("records", "petstore.pets", "--where", "kind=cat", "--to", "cats.jsonl", "--json").stdout)
    assert (out["records"], out["replaced"]) == (3, False)
    assert len((petstore.folder / "cats.jsonl").read_text().splitlines()) == 3
    assert petstore.run_here("records", "petstore.pets", "--to", "cats.jsonl").stdout.startswith("replaced cats.jsonl: 5 records")
    for words in (["nix"], ["petstore.pets", "nix"], ["petstore.pets", "--to", "x.txt"], ["petstore.pets", "p1", "--failing"]):
        refused = petstore.run_here("records", *words)
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1), words
