"""The examples of README and `docs/`: every one is read as a file, the main ones are run against a real API."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

import clients
import jobs
from flows.project import registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.conftest import Block, Page, Petstore

PAGINATORS = (
    "Continue", "Cursor", "HeaderCursor", "Keyset", "LinkHeader", "NextLink", "ODataLink", "Offset", "PageNumber", "RelayCursor",
    "SinglePage", "TotalPages",
)  # fmt: skip


#: Their code needs files and programs that a test of their own makes, see `test_how_tos` and `test_tutorial`.
TESTED_APART = ("docs/alembic.md", "docs/dbt.md", "docs/pandas-and-duckdb.md", "docs/tutorial.md")


def files(pages: dict[str, Page]) -> list[Block]:
    """Return the blocks that are whole files."""
    return [block for page in pages.values() for block in page.blocks if block.declares]


def example(pages: dict[str, Page], page: str, words: str) -> str:
    """Return the file of a page that holds these words."""
    return next(block.text for block in files(pages) if block.page == page and words in block.text)


def records(query: str) -> list[tuple[Any, ...]]:
    """Ask the project's database."""
    with closing(sqlite3.connect("data/syncs.db")) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.rows("SC-05")
def test_every_file_is_read(pages: dict[str, Page], project: Path) -> None:
    """Each block that imports from `flows` declares a client and a sync or job type, also when one process reads it twice."""
    found = files(pages)
    for number, block in enumerate(found):
        path = project / f"example_{number}.py"
        path.write_text(block.text)
        for _ in range(2):
            loaded = registry.load([path])
            assert loaded.broken == (), f"{block.page}: {loaded.broken}"
            assert loaded.clients
            assert loaded.syncs or loaded.job_types
    assert len(found) >= 5


def test_every_line_works(pages: dict[str, Page]) -> None:
    """Each Python block that is no file is code that runs with the public names."""
    blocks = [block for page in pages.values() if not page.is_one_file and page.name not in TESTED_APART for block in page.blocks]
    lines = [block for block in blocks if block.language == "python" and not block.declares]
    names = {name: getattr(package, name) for package in (clients, jobs) for name in package.__all__}
    for block in lines:
        exec(compile(block.text, block.page, "exec"), dict(names))
    assert lines


@pytest.mark.rows("SC-11")
@pytest.mark.parametrize("name", PAGINATORS)
def test_each_paginator_pages_as_its_sample_says(pages: dict[str, Page], name: str) -> None:
    """The line for an API, run against the sample answers above it, sends the requests that stand there and ends."""
    guide = pages["docs/write-a-sync.md"]
    heading = next(line for line in guide.text.splitlines() if line.startswith(f"### {name}: "))
    section = guide.section(heading)
    sample, code = re.findall(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {one: getattr(clients, one) for one in clients.__all__}
    exec(compile(code, heading, "exec"), scope)
    exchanges = re.findall(r"^(?:GET|POST) (\S+)\n((?:[A-Z][\w-]+: .*\n)*)(.*)\n", sample, re.MULTILINE)
    answers = iter(exchanges)
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, sorted(parse_qsl(request.url.query.decode()))))
        _, headers, body = next(answers)
        pairs = dict(line.split(": ", 1) for line in headers.splitlines())
        return httpx.Response(200, headers=pairs, json=json.loads(body))

    with clients.HttpClient("https://api.example/", transport=httpx.MockTransport(answer)) as http:
        keys = [entity.key for page in scope["listing"](http) for entity in page.items]
    wanted = [(urlsplit(url).path, sorted(parse_qsl(urlsplit(url).query))) for url, _, _ in exchanges]
    assert wanted == asked
    assert keys in (["1"], ["1", "2"])


def test_every_paginator_has_a_sample() -> None:
    """The samples above are those of all paginators there are."""
    known = [name for name in clients.__all__ if hasattr(getattr(clients, name), "first")]
    assert sorted(PAGINATORS) == sorted(set(known) - {"Paginator"})


def test_the_readme_runs(pages: dict[str, Page], project: Path, petstore: Petstore, run: Any, run_here: Any) -> None:
    """The README's file stores 25 pets, then finds nothing to do, then takes up a change and deletes what is gone."""
    (project / "syncs/petstore.py").write_text(example(pages, "README.md", "petstore.pets"))
    first, second = run("petstore.pets"), run_here("petstore.pets")
    assert (first["state"], first["listed"], first["succeeded"]) == ("success", 25, 25)
    assert (second["state"], second["queued"], second["unchanged"]) == ("success", 0, 25)
    petstore.pets[0] |= {"name": "another", "updated_at": "v2"}
    del petstore.pets[-1]
    third = run_here("petstore.pets")
    assert (third["state"], third["succeeded"], third["deleted"]) == ("success", 1, 1)
    assert records("SELECT json_extract(data, '$.name') FROM record WHERE key = '1'") == [("another",)]
    assert records("SELECT key FROM record WHERE deleted_at IS NOT NULL") == [("25",)]


def test_the_first_step_runs(pages: dict[str, Page], project: Path, petstore: Petstore, run_here: Any) -> None:
    """The file of the how-to's first step stores what it lists, and the commands of its last step do as they say."""
    (project / "syncs/petstore.py").write_text(example(pages, "docs/write-a-sync.md", 'fetch="pets/{key}"'))
    dry = run_here("petstore.pets", "--limit", "20", "--dry-run")
    assert (dry["state"], dry["queued"], dry["stopped"]) == ("success", 20, "limit")
    assert records("SELECT count(*) FROM job") == [(0,)]
    assert run_here("petstore.pets", "--limit", "20")["succeeded"] == 20
    assert run_here("petstore.pets")["succeeded"] == 5
    assert run_here("petstore.pets", "--full")["queued"] == 25


def test_a_table_of_your_own(pages: dict[str, Page], project: Path, petstore: Petstore, run: Any, run_here: Any) -> None:
    """The how-to's main example makes its table, saves into it, and deletes from it what answers 404."""
    path = project / "syncs/petstore.py"
    path.write_text(example(pages, "docs/write-a-sync.md", "def save("))
    subprocess.run([sys.executable, str(path)], check=True, timeout=100)
    assert run("petstore.pets")["succeeded"] == 25
    assert records("SELECT count(*), max(name) FROM pet") == [(25, "pet 9")]
    petstore.gone = {9}
    assert tuple(run_here("petstore.pets", "--full")[key] for key in ("succeeded", "gone")) == (24, 1)
    assert records("SELECT count(*), max(name) FROM pet") == [(24, "pet 8")]


def test_typed_tables(pages: dict[str, Page], project: Path, petstore: Petstore, run_here: Any) -> None:
    """The example with `into` makes its tables, fills them, and deletes what is gone, child rows too."""
    (project / "syncs/petstore.py").write_text(example(pages, "docs/write-a-sync.md", "into=["))
    for pet in petstore.pets:
        pet |= {"price": "12.50", "updated_at": "2026-01-01T00:00:00Z", "tags": [{"name": "a"}, {"name": "b"}]}
    assert run_here("petstore.pets")["succeeded"] == 25
    assert records("SELECT count(*), max(price), max(updated_at) FROM pet") == [(25, 12.5, "2026-01-01 00:00:00.000000")]
    del petstore.pets[-1]
    petstore.pets[0]["price"] = "1.234"
    result = run_here("petstore.pets", "--full", code=1)
    assert (result["deleted"], result["failed"]) == (1, 1)
    assert records("SELECT count(*) FROM pet UNION ALL SELECT count(*) FROM tag") == [(24,), (48,)]
    text = "Pet.price: Decimal input should have no more than 2 decimal places, got '1.234'"
    assert text in pages["docs/write-a-sync.md"].text
    assert records("SELECT message FROM job WHERE state = 'failure'") == [(text,)]


def test_resuming_a_client(pages: dict[str, Page], project: Path, petstore: Petstore, run_here: Any) -> None:
    """The command of `run-it.md` ends a pause."""
    (project / "syncs/petstore.py").write_text(example(pages, "README.md", "petstore.pets"))
    subprocess.run([sys.executable, "-m", "flows", "pause", "petstore"], check=True, timeout=100)
    assert run_here("petstore.pets", code=1)["state"] == "paused"
    line = next(line for line in pages["docs/run-it.md"].text.splitlines() if line.startswith("$ syncs resume "))
    subprocess.run([sys.executable, "-m", "flows", *line.split()[2:]], check=True, timeout=100)
    assert run_here("petstore.pets")["state"] == "success"
