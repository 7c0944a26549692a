"""`syncs work --json`: what failed is named, as in a run; the flow `work` logs the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project


def test_work_names_what_failed(petstore: Project, api: Api) -> None:
    """Two of five: their keys and messages, beside the counts."""
    api.items = [{"id": f"p{number}"} for number in range(5)]
    api.refused |= {"/pets/p1": 422, "/pets/p3": 422}
    petstore.run_here("run", "petstore.pets")
    petstore.run_here("retry", "--state", "failure", "--yes")
    found = json.loads(petstore.run_here("work", "--until-empty", "--json").stdout)
    assert (found["processed"], found["succeeded"], found["failed"]) == (2, 0, 2)
    assert sorted(one["key"] for one in found["failures"]) == ["p1", "p3"]
    assert all("422" in one["message"] for one in found["failures"])
