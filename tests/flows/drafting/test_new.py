"""`syncs new`, the command: what it writes and says, and that it writes nothing where there is nothing to draft from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
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
