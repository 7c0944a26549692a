"""`Client`: the short form and the long one, and what is wrong with either."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from clients import Basic, Bearer, HttpClient, Listing, env
from flows import Client, DeclarationError, JobType, Sync
from flows.project.registry import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.flows.conftest import Api, Project

SHORT = """
from clients import {auth}, Listing, PageNumber, env
from flows import Client, Sync

petstore = Client("petstore", url=env("PETSTORE_URL"), auth={arguments}, headers={{"X-Tenant": env("PETSTORE_TENANT", "zoo")}},
                  timeout=20)
pets = Sync("petstore.pets", petstore, fetch="pets/{{key}}",
            listing=Listing("pets", PageNumber(), items="data", params={{"region": env("PETSTORE_REGION", "north")}}))
"""
URL: Any = "https://a.example/"


def connect(_: Any) -> Any:
    """Stand for a connection that is not opened."""
    raise AssertionError


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, 'it needs url="https://…", or connect=lambda settings: … for anything but HTTP'),
        ({"url": URL, "connect": connect}, "give url, or connect, not both"),
        ({"url": URL, "settings": dict}, "give url, or settings and connect, not both"),
        ({"url": "a.example"}, "the url is not an absolute http or https URL"),
        ({"url": 1}, "url must be text, or env(…), got int"),
        ({"url": URL, "auth": "secret"}, 'auth must be a sign-in such as Bearer(env("TOKEN")), got str'),
        ({"url": URL, "headers": ["a"]}, "headers must be a mapping, got list"),
        ({"url": URL, "headers": {"a b": "c"}}, "not a header name: 'a b'"),
        ({"url": URL, "timeout": 0}, "timeout must be a number of seconds above 0, got 0"),
        ({"connect": connect, "auth": Bearer("t")}, "auth goes with url; with connect, give it to the adapter"),
        ({"connect": "x"}, "connect must be callable, got str"),
        ({"connect": lambda: None}, "connect is called with (settings), and takes ()"),
    ],
)
def test_what_is_wrong_is_said_where_it_is_declared(arguments: dict[str, Any], reason: str) -> None:
    """One line names the client, the field and what to write."""
    with pytest.raises(DeclarationError) as caught:
        Client("petstore", **arguments)
    assert str(caught.value) == f"client 'petstore': {reason}"


SHOP = Client("shop", url="https://a.example/")


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (lambda: Client("shop", url=URL, check=lambda: 1), "client 'shop': check is called with (connection), and takes ()"),
        (
            lambda: Sync("shop.rows", SHOP, listing=lambda http: iter(())),
            "sync 'shop.rows': listing is called with (connection, since), and takes (http)",
        ),
        (
            lambda: Sync("shop.rows", SHOP, listing=Listing("rows"), fetch=lambda entity: entity),
            "sync 'shop.rows': fetch is called with (connection, entity), and takes (entity)",
        ),
        (
            lambda: Sync("shop.rows", SHOP, listing=Listing("rows"), save=lambda session, record, *, table: None),
            "sync 'shop.rows': save is called with (session, entity, record), and takes (session, record, *, table)",
        ),
        (
            lambda: JobType("shop.job", SHOP, process=lambda job: None),
            "job type 'shop.job': process is called with (job, connection), and takes (job)",
        ),
    ],
)
def test_a_function_that_cannot_be_called_is_refused(declare: Callable[[], Any], reason: str) -> None:
    """What a function is called with, and what it takes, is said where it is declared, and not at the first entity."""
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert str(caught.value) == reason
    Sync("shop.rows", SHOP, listing=Listing("rows"), fetch=lambda http, entity, settings: 1, save=lambda *_: None)


def test_a_client_with_a_url_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are read when it connects, also without settings; a changed copy of it is as good."""
    client = Client("petstore", url=env("PETSTORE_URL"), auth=Basic(env("PETSTORE_USER"), "x"), headers={"A": "b"})
    monkeypatch.setenv("PETSTORE_URL", "https://a.example/")
    monkeypatch.setenv("PETSTORE_USER", "ann")
    for one in (client, replace(client, queue="other")):
        with one.connect(None) as http:
            assert isinstance(http, HttpClient)
            assert repr(http) == "HttpClient('https://a.example/')"


@pytest.mark.rows("SC-35")
@pytest.mark.parametrize(
    ("auth", "arguments", "header"),
    [
        ("Bearer", 'Bearer(env("PETSTORE_TOKEN"))', ("authorization", "Bearer t0p-secret")),
        ("ApiKey", 'ApiKey(env("PETSTORE_TOKEN"), header="X-Key")', ("x-key", "t0p-secret")),
    ],
)
def test_the_short_form_runs(project: Project, api: Api, auth: str, arguments: str, header: tuple[str, str]) -> None:
    """A file of the short form syncs; what it declares is sent, and no secret comes out."""
    project.write("syncs/petstore.py", SHORT.format(auth=auth, arguments=arguments))
    api.items = [{"id": number} for number in range(12)]
    api.documents["/pets/3"] = None
    api.refused["/pets/4"] = 422
    done = project.run_here(
        "run", "petstore.pets", "--wait", "0", PETSTORE_URL=api.url, PETSTORE_TOKEN="t0p-secret", PETSTORE_REGION="t0p-region"
    )
    assert "12 listed" in done.stdout
    assert {found[header[0]] for found in api.headers} == {header[1]}
    assert {found["x-tenant"] for found in api.headers} == {"zoo"}
    assert api.paths[0] == "/pets?region=t0p-region&page=1"
    assert "t0p" not in done.stdout + done.stderr + (project.folder / "data/syncs.db").read_bytes().decode("latin-1")


def test_what_is_missing_is_told_before_anything_opens(project: Project, api: Api) -> None:
    """`check` and `run` name all missing variables and the client, make no database and ask nobody; so for a wrong value."""
    text = SHORT.format(auth="Bearer", arguments='Bearer(env("PETSTORE_TOKEN"))').replace(', "north")', ")")
    project.write("syncs/petstore.py", text)
    lines = "; ".join(
        f'{name} is not set (environment, file .env, or Prefect Secret block "{name.lower().replace("_", "-")}")'
        for name in ("PETSTORE_TOKEN", "PETSTORE_REGION")
    )
    run = project.run_here("run", "petstore.pets", PETSTORE_URL=api.url)
    assert (run.returncode, run.stderr) == (2, f"syncs: client petstore: {lines}\n")
    check = project.run_here("check", PETSTORE_URL=api.url)
    assert check.returncode == 1
    assert f"client petstore: {lines}" in check.stdout + check.stderr
    wrong = {"PETSTORE_URL": "t0p.example", "PETSTORE_TOKEN": "x", "PETSTORE_REGION": "x"}
    run = project.run_here("run", "petstore.pets", **wrong)
    assert run.stderr == "syncs: client petstore: PETSTORE_URL is wrong: not an absolute http or https URL\n"
    run = project.run_here("run", "petstore.pets", **wrong | {"PETSTORE_URL": api.url, "PETSTORE_TOKEN": "t0p\n"})
    assert run.stderr == "syncs: client petstore: the token is empty or has white space around it\n"
    assert (api.paths, (project.folder / "data").exists()) == ([], False)


@pytest.mark.rows("SC-04")
def test_a_queue_may_stand_for_its_id(project: Project) -> None:
    """`queue=` takes the `Queue` itself, which counts as declared wherever it stands; anything else is one line."""
    text = (
        "from flows import Client, JobType, Sync\nfrom jobs import Queue\n"
        'shop = Client("shop", url="https://a.example/", queue=Queue("slow", concurrency=2))\n'
        'rows = Sync("shop.rows", shop, listing=lambda c, s: iter(()), queue=Queue("rows", concurrency=3))\n'
        'book = JobType("shop.book", shop, process=print)\n'
    )
    registry = load([project.write("shop.py", text)])
    assert registry.broken == ()
    assert {name: queue.concurrency for name, queue in registry.queues.items()} == {"slow": 2, "rows": 3}
    assert (registry.syncs["shop.rows"].queue_id, registry.job_types["shop.book"].queue_id) == ("rows", "slow")
    twice = text + 'other = JobType("shop.other", shop, process=print, queue=Queue("slow", concurrency=9))\n'
    assert "queue 'slow' is declared in" in str(load([project.write("shop.py", twice)]).broken)
    with pytest.raises(DeclarationError, match="client 'shop': queue must be an id or a Queue, got int"):
        Client("shop", url=URL, queue=3)  # type: ignore[arg-type]
