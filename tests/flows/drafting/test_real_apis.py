"""`syncs new` on APIs as they are: each file that it drafts lists all rows as it is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flows import Sync
from flows.drafting.conversation import MAX_REQUESTS
from flows.drafting.draft import Draft
from flows.drafting.investigation import investigate
from flows.drafting.source import MAX_LINES, source_of
from flows.sync import run as engine
from jobs import JobStore
from tests import ROOT
from tests.support.draft_apis import APIS
from tests.support.draft_odd_apis import ODD_APIS
from tests.support.draft_server import served
from tests.support.store_helpers import query

ALL = {**APIS, **ODD_APIS}

#: name -> paginator, key, version, fetch, incremental; what was seen and what was not.
FOUND = {
    "github": ("LinkHeader()", "id", "updated_at", "issues/{key}", 'Since("updated_at", "since")'),
    "wordpress": ("LinkHeader()", "id", "modified_gmt", "posts/{key}", 'Since("modified_gmt", "modified_after", zone="UTC")'),
    "wordpress_without_link": (
        'TotalPages(header="x-wp-totalpages", size_param="per_page", size=100)', "id", None, None, None,
    ),
    "mediawiki": ("Continue()", "pageid", None, None, None),
    "registry": ("LinkHeader()", "@", None, None, None),
    "json_server": ("SinglePage()", "id", None, None, None),
    "redmine": ("Offset()", "id", "updated_on", None, None),
    "datasette": ('NextLink("next_url")', "id", None, None, None),
    "demo": ('TotalPages(path="pages")', "alpha_3", "rev", "languages/{key}", None),
    "stripe": ('Keyset("starting_after", "id")', "id", None, None, None),
    "odata": ("ODataLink()", "ProductID", "ModifiedDate", None, None),
    "json_api": ('NextLink("links.next")', "id", "attributes.updatedAt", None, None),
    "elastic": ('Offset("from", limit_param="size")', "_id", None, None, None),
    "notion": ('Cursor("has_more && next_cursor", "start_cursor")', "id", "last_edited_time", None, None),
    "spring_page": (
        'TotalPages(path="totalPages", start=0, size_param="size", size=100)', "id", None, None, None,
    ),
    "header_cursor": ('HeaderCursor("x-next-cursor")', "id", None, None, None),
    "fhir": ("NextLink(\"link[?relation=='next'].url | [0]\")", "resource.id", None, None, None),
    "german": ('NextLink("weiter")', "kennung", "geaendert", None, None),
}  # fmt: skip


@pytest.fixture(scope="module")
def served_apis() -> Iterator[tuple[str, list[str]]]:
    """All APIs on one server."""
    with served(ALL) as found:
        yield found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobStore]:
    """One database for all."""
    made = JobStore.open(f"sqlite:///{tmp_path_factory.mktemp('drafts')}/jobs.db")
    yield made
    made.close()


def drafted(name: str, base: str) -> Draft:
    """Draft the declaration of one API."""
    return investigate(name, f"{base}/{name}/{ALL[name].url}")


def declared(source: str, folder: Path) -> Sync:
    """Import a drafted file."""
    file = folder / "drafted.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(f"drafted_{folder.name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    items: Sync = module.items
    return items


@pytest.mark.parametrize("name", ALL)
def test_the_drafted_file_lists_all_rows(name: str, served_apis: tuple[str, list[str]], store: JobStore, tmp_path: Path) -> None:
    """At most 6 requests and 20 lines; a run lists each row once, and what the draft says is what the API is."""
    base, asked = served_apis
    asked.clear()
    draft = drafted(name, base)
    assert len(asked) == draft.requests <= MAX_REQUESTS
    source = source_of(draft)
    assert source.count("\n") <= MAX_LINES
    found = {one.what: one.value for one in draft.findings}
    if name in FOUND:
        assert tuple(found.get(what) for what in ("paging", "key", "version", "fetch", "incremental")) == FOUND[name]
    result = engine.run(declared(source, tmp_path), store)
    assert (result.state, result.stopped) == ("success", "end"), result.message
    keys = [row["key"] for row in query(store, "SELECT key FROM record WHERE sync = :sync", sync=f"{name}.items")]
    assert sorted(keys) == sorted(map(ALL[name].key, ALL[name].rows))


@pytest.mark.parametrize("width", [88, 130])
def test_ruff_finds_nothing_in_the_drafted_files(width: int, served_apis: tuple[str, list[str]], tmp_path: Path) -> None:
    """They are formatted for ruff's default, and for the longer lines of projects of `syncs init`."""
    for name in ("github", "elastic", "registry", "odata", "mediawiki", "fhir", "wordpress"):
        draft = drafted(name, served_apis[0])
        draft.auth, draft.names = 'ApiKey(env("A_VARIABLE_WITH_A_LONG_NAME"), header="X-Api-Key")', ("ApiKey", "env")
        (tmp_path / f"{name}.py").write_text(source_of(draft, width=width))
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--no-cache", "."], cwd=tmp_path, check=True, timeout=100)
    subprocess.run(
        [*ruff, "check", "--no-cache", "--config", str(ROOT / "pyproject.toml"), "."], cwd=tmp_path, check=True, timeout=100
    )
    command = [*ruff, "format", "--no-cache", f"--line-length={width}", "--diff", "."]
    done = subprocess.run(command, cwd=tmp_path, check=False, timeout=100, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [*APIS, "zendesk", "slack", "scim"])
def test_a_listing_that_fits_on_one_page(name: str, store: JobStore, tmp_path: Path) -> None:
    """All rows are listed, and nothing is said to be lacking; where the answer has a place for a next page, it is used."""
    few = replace(ALL[name], rows=ALL[name].rows[:4])
    with served({name: few}) as (base, _):
        draft = investigate(f"few.{name}", f"{base}/{name}/{few.url}")
        result = engine.run(declared(source_of(draft), tmp_path), store)
    assert (result.state, result.listed) == ("success", 4), result.message
    paging = next(one for one in draft.findings if one.what == "paging")
    assert paging.sure in ("certain", "guessed")
    places_for_more = {"drf": "NextLink()", "notion": 'Cursor("has_more && next_cursor")', "datasette": 'NextLink("next_url")'}
    assert paging.value == places_for_more.get(name, paging.value)
