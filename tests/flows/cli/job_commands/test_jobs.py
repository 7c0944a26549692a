"""`syncs jobs`: order, pages, times and payloads on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project


def test_orders_pages_times_and_payloads(petstore: Project, api: Api) -> None:
    """The next page follows the note of the one before; what cannot be understood is one line."""
    assert petstore.run_here("jobs").stderr == "syncs: no such jobs\n"
    api.items = [{"id": f"p{number}"} for number in range(7)]
    petstore.run_here("run", "petstore.pets")
    first = petstore.run_here("jobs", "--limit", "4")
    assert first.stderr == "syncs: the newest 4; --limit shows more, --after 4 the next ones\n"
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["ID", "7", "6", "5", "4"]
    rest = json.loads(petstore.run_here("jobs", "--after", "4", "--payload", "--json").stdout)
    assert [(one["id"], one["payload"]["data"]) for one in rest] == [(n, {"id": f"p{n - 1}"}) for n in (3, 2, 1)]
    assert '"id":"p6"' in petstore.run_here("jobs", "--payload", "--sort", "finished_at").stdout
    found = json.loads(petstore.run_here("jobs", "--sort", "key:asc", "--since", "1h", "--json").stdout)
    assert [one["key"] for one in found] == [one["id"] for one in api.items]
    assert json.loads(petstore.run_here("jobs", "--since", "2999-01-01T00:00Z", "--json").stdout) == []
    for words in ("--sort colour", "--since soon", "--sort attempts --after 99", "1 --payload"):
        refused = petstore.run_here("jobs", *words.split())
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1), words
