"""`syncs new`, the command: what it writes and says, and that it writes nothing where there is nothing to draft from."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flows.cli.program import program
from tests.support.draft_apis import github
from tests.support.draft_server import DATED, Api, Ask, Told, made, served

TOKEN = "s3cret-t0ken-of-the-shop"


def signed(ask: Ask, rows: Any) -> Told:
    """Answer who has the token."""
    return github(ask, rows) if ask.headers.get("authorization") == f"Bearer {TOKEN}" else Told({}, status=401)


def counted(ask: Ask, rows: Any) -> Told:
    """Say that there is more, and no way to it."""
    return Told({"items": rows[:20], "total": len(rows)})


def always(body: Any, **headers: str) -> Callable[[Ask, Any], Told]:
    """Answer the same to everything."""
    return lambda _ask, _rows: Told(body, {name.replace("_", "-"): value for name, value in headers.items()})


APIS = {
    "shop": Api("v1/products", made(45, **DATED), signed, detail="text", since="since"),
    "more": Api("v1/things", made(45), counted),
    "html": Api("v1/things", [], always(b"<!DOCTYPE html><html><body>Sign in</body></html>", Content_Type="text/html")),
    "broken": Api("v1/things", [], always(b'{"items": [')),
    "empty": Api("v1/things", [], always({"items": [], "total": 0})),
    "single": Api("v1/things", [], always({"name": "one", "price": 3})),
    "keyless": Api("v1/things", [], always([{"price": 1.5}, {"price": 2.5}])),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory; no server and no settings of this machine reach it."""
    for name in [name for name in os.environ if name.startswith(("SYNCS_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The APIs."""
    with served(APIS) as (base, _):
        yield base


def syncs(*arguments: str, code: int = 0) -> Any:
    """Run a command here and return its document, or what it says on stderr."""
    done = CliRunner().invoke(program, [*arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code < 2 else done.stderr


def test_from_a_url_to_records(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file runs as it is; the token is in the environment alone."""
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    new = syncs("new", "shop", f"{url}/shop/v1/products", "--auth", "bearer:SHOP_TOKEN")
    text = Path(new["file"]).read_text()
    assert (new["file"], new["client"], new["sync"], new["source"]) == ("syncs/shop.py", "shop", "shop.items", text)
    assert 'auth=Bearer(env("SHOP_TOKEN"))' in text
    assert TOKEN not in json.dumps(new)
    found = {one["what"]: (one["value"], one["sure"]) for one in new["findings"]}
    assert found["fetch"] == ("products/{key}", "certain")
    assert found["rate"] == ("42/60", "certain")
    result = syncs("run", "shop.items")
    assert (result["state"], result["succeeded"], result["stopped"]) == ("success", 45, "end")
    before = text
    assert "syncs/shop.py is there" in syncs("new", "shop", f"{url}/more/v1/things", code=2)
    assert Path("syncs/shop.py").read_text() == before


def test_people_get_a_table(url: str) -> None:
    """It says what is certain, what is guessed and what to look at; without a way to further pages it exits 1."""
    done = CliRunner().invoke(program, ["new", "more", f"{url}/more/v1/things"])
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["WHAT", "FOUND", "HOW", "SURE", "WHY"]
    assert next(line for line in lines if line.startswith("paging")).split()[1:3] == ["SinglePage()", "open"]
    assert any(line.startswith("look at: there are further pages") for line in lines)
    assert lines[-1].startswith("syncs/more.py written after ")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shop", "401"),
        ("html", "that is a page for people"),
        ("broken", "JSON"),
        ("empty", "the list at 'items' is empty"),
        ("single", "the answer has no list of rows, but 'name', 'price'"),
        ("keyless", "a sync needs a key"),
        ("nowhere", "404"),
    ],
)
def test_where_there_is_nothing_to_draft_from(url: str, name: str, says: str) -> None:
    """One line says why, and nothing is written."""
    said = syncs("new", name, f"{url}/{name}/{APIS[name].url if name in APIS else 'v1/x'}", code=2)
    assert says in said
    assert "Nothing was written" in said
    assert len(said.splitlines()) == 1
    assert not Path("syncs").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x", "https://no-such-host.invalid/things"], "no-such-host.invalid"),
        (["x", "ftp://files.example/"], "not an absolute http or https URL"),
        (["x/y", "https://h.example/"], "NAME is letters"),
        (["x", "https://me:pw@h.example/"], "--auth basic:USERVAR:PASSVAR"),
        (["x", "https://h.example/?api_key=abc"], "--auth query:api_key:VAR"),
        (["x", "https://h.example/", "--auth", "bearer:NO_SUCH_TOKEN"], "NO_SUCH_TOKEN is not set"),
        (["x", "https://h.example/", "--auth", "token"], "--auth is bearer:VAR"),
        (["x", "https://h.example/", "--auth", "header:X-Key:a-secret!"], "names variables"),
    ],
)
def test_what_it_refuses(arguments: list[str], says: str) -> None:
    """Bad words and secrets in the URL are one line, which does not repeat them."""
    said = syncs("new", *arguments, code=2)
    assert says in said
    assert len(said.splitlines()) == 1
    assert not {"pw", "abc", "a-secret!"} & set(said.replace("=", " ").replace("@", " ").split())
    assert not Path("syncs").exists()


def test_a_table_class(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--table` writes a class that takes the records as they are, with the types that were seen."""
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    new = syncs("new", "shop", f"{url}/shop/v1/products", "--auth", "bearer:SHOP_TOKEN", "--table")
    columns = re.findall(r"^    (\w+: .+)$", new["source"].partition("class ShopProduct(SQLModel, table=True):")[2], re.MULTILINE)
    assert columns == [
        "id: int = Field(primary_key=True)",
        "name: str | None = None",
        "created_at: datetime | None = None",
        "updated_at: datetime | None = None",
        "text: dict[str, Any] | None = Field(default=None, sa_type=JSON)",
    ]
    assert "into=ShopProduct" in new["source"]
    subprocess.run([sys.executable, "-m", "ruff", "format", "--no-cache", "--check", "syncs"], check=True, timeout=100)
    assert syncs("run", "shop.items")["succeeded"] == 45
    with closing(sqlite3.connect("data/syncs.db")) as connection:
        found = connection.execute("SELECT id, name, updated_at, text FROM shopproduct ORDER BY id LIMIT 1").fetchone()
    assert (*found[:2], found[2][:10], json.loads(found[3])) == (1, "Row 1", "2025-01-01", {"more": 1, "and": 2})


DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "security": [{"token": []}],
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "parameters": {"size": {"name": "per_page", "in": "query", "schema": {"type": "integer", "maximum": 50}}},
        "schemas": {
            "Thing": {"allOf": [{"$ref": "#/components/schemas/Base"}, {"properties": {"name": {"type": ["string", "null"]}}}]},
            "Base": {"properties": {"id": {"type": "integer"}, "updated_at": {"type": "string", "format": "date-time"}}},
            "Page": {"properties": {
                "items": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}, "total": {"type": "integer"},
            }},
        },
    },
    "paths": {
        "/v1/things": {
            "parameters": [{"$ref": "#/components/parameters/size"}],
            "get": {
                "parameters": [{"name": "page", "in": "query", "schema": {"type": "integer"}}],
                "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Page"}}}}},
            },
        },
        "/v1/things/{thing}": {"get": {"responses": {"200": {}}}},
        "/v1/events": {
            "get": {
                "parameters": [{"name": "cursor", "in": "query", "schema": {"type": "string"}}],
                "responses": {"200": {"content": {"application/json": {"schema": {"properties": {
                    "data": {"type": "array", "items": {"properties": {"uuid": {"type": "string"}}}},
                    "meta": {"properties": {"next_cursor": {"type": "string"}}},
                }}}}}},
            }
        },
        "/v1/health": {"get": {"responses": {"200": {"content": {"application/json": {"schema": {"type": "object"}}}}}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("form", ["json", "yaml", "url"])
def test_from_a_description(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--openapi` asks the API nothing: paths, parameters, shapes and sign-in are those of the description."""
    with served({"spec": Api("v1/openapi.json", [], always(DESCRIPTION))}) as (base, asked):
        place = f"{base}/spec/v1/openapi.json" if form == "url" else f"spec.{form}"
        Path("spec.json").write_text(json.dumps(DESCRIPTION))
        Path("spec.yaml").write_text(yaml.safe_dump(DESCRIPTION))
        new = syncs("new", "shop", "https://api.example/v1/things", "--openapi", place)
        assert len(asked) == (1 if form == "url" else 0)
    found = {one["what"]: one["value"] for one in new["findings"]}
    assert found == {
        "rows": "items", "key": "id", "version": "updated_at", "total": "total", "fetch": "v1/things/{key}",
        "paging": 'PageNumber(size_param="per_page", size=50)', "page size": "per_page=50",
    }  # fmt: skip
    assert 'Client("shop", url="https://api.example/", auth=Bearer(env("SHOP_TOKEN")))' in new["source"]
    assert [one["sync"] for one in syncs("list")["syncs"]] == ["shop.items"]


def test_the_listing_of_a_description_is_chosen() -> None:
    """By `--path`, where the URL does not say it; one line lists the choices."""
    Path("spec.json").write_text(json.dumps(DESCRIPTION))
    options = ("https://api.example", "--openapi", "spec.json")
    assert "--path says which listing; its listings are /v1/things, /v1/events" in syncs("new", "shop", *options, code=2)
    assert "--path /v1/health: not a listing" in syncs("new", "shop", *options, "--path", "/v1/health", code=2)
    new = syncs("new", "shop", *options, "--path", "/v1/events", "--auth", "header:X-Key:KEY")
    found = {one["what"]: one["value"] for one in new["findings"]}
    assert (found["paging"], found["key"]) == ('Cursor("meta.next_cursor")', "uuid")
    assert 'ApiKey(env("KEY"), header="X-Key")' in new["source"]
