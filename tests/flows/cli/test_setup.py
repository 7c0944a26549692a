"""`syncs setup` and `syncs run` with typed tables: what is made, and what is one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.flows.conftest import Api, Project

FILE = """
from clients import Listing, SinglePage
from flows import Client, Sync
from sqlmodel import Field, SQLModel

class Pet(SQLModel, table=True):
    id: str = Field(primary_key=True)
    kind: str
    {more}

pets = Sync("shop.pets", Client("shop", url="{url}"), listing=Listing("pets", SinglePage(), items="items"), into=Pet)
"""


def test_tables_of_into(project: Project, api: Api) -> None:
    """They are made once and grow by what may be empty; what differs is one line, and ends a run before it lists."""
    api.documents["/pets"] = {"items": [{"id": "1", "kind": "cat", "colour": "red"}]}

    def applied(more: str) -> list[list[str]]:
        project.write("syncs/shop.py", FILE.format(url=api.url, more=more))
        done = project.run_here("setup", "--json")
        return [[one["name"], one["change"]] for one in json.loads(done.stdout)["applied"] if one["kind"] == "table"]

    assert applied("") == [["pet", "made"]]
    assert applied("") == []
    assert project.run_here("run", "shop.pets").returncode == 0
    for words in ([], ["--to", "pets.csv"]):  # the data is in the table, and a file without it says so
        assert "stores its data in a table of your own (`into=`)" in project.run_here("records", "shop.pets", *words).stderr
    assert applied("colour: str | None = None") == [["pet", "column colour added"]]
    asked = len(api.paths)
    project.write("syncs/shop.py", FILE.format(url=api.url, more="age: int"))
    for command in (["setup"], ["run", "shop.pets"]):
        refused = project.run_here(*command)
        assert refused.returncode == 2
        (line,) = [line for line in refused.stderr.splitlines() if "no Prefect server" not in line]
        assert "the table pet has no column age, and the class does not let it be empty: let the field be `… | None" in line
    assert len(api.paths) == asked
