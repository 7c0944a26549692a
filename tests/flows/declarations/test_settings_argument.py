"""Functions that have a parameter `settings` get those of their client, by any command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from flows import Client, JobType, Sync
from flows.declarations.settings_argument import WithSettings, bound, with_settings
from flows.sync.listing_digest import listing_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.flows.conftest import Api, Project

FILE = """
from clients import Entity, HttpClient, Page, env
from flows import Client, JobType, Sync
from pydantic_settings import BaseSettings

class Settings(BaseSettings, env_prefix="PETSTORE_"):
    url: str
    region: str

def note(text):
    with open("saved", "a") as file:
        file.write(text)

def pages(http, since, settings):
    yield Page([Entity("1", None, None)])

def fetch(http, entity, *, settings):
    return {"at": settings.region}

def save(session, entity, record, settings):
    note(f"{settings.region} {record['at']} ")

def work(job, http, settings):
    note(f"job {settings['PETSTORE_REGION']} ")

long = Client("long", settings=Settings, connect=lambda s: HttpClient(s.url))
short = Client("short", url=env("PETSTORE_URL"), headers={"X-Region": env("PETSTORE_REGION")})
pets = Sync("long.pets", long, listing=pages, fetch=fetch, save=save)
job = JobType("short.job", short, process=work)
"""


def test_each_function_gets_the_settings(project: Project, api: Api) -> None:
    """Listing, fetch and save get the settings object of a client, and a job the variables of one with `url`."""
    project.write("syncs/petstore.py", FILE)
    project.environment |= {"PETSTORE_URL": api.url, "PETSTORE_REGION": "north"}
    assert project.run_here("check", "long").returncode == 0
    assert json.loads(project.run_here("run", "long.pets", "--dry-run", "--json").stdout)["state"] == "success"
    done = project.run_here("run", "long.pets", "--json")
    assert json.loads(done.stdout)["succeeded"] == 1, done.stdout
    project.run_here("enqueue", "short.job", "{}")
    assert project.run_here("work", "--until-empty").returncode == 0
    assert (project.folder / "saved").read_text() == "north north job north "


def _with(settings: Any) -> Any:
    return settings


def _keyword(job: Any, connection: Any, *, settings: Any) -> Any:
    return settings


def _without(job: Any, connection: Any, **more: Any) -> Any:
    return more


@pytest.mark.parametrize(
    ("function", "takes"), [(_with, True), (_keyword, True), (_without, False), (print, False), (max, False)]
)
def test_only_a_parameter_of_that_name_counts(function: Callable[..., Any], takes: bool) -> None:
    """`**kwargs` is no wish, and what says nothing about its parameters is called as ever."""
    assert isinstance(with_settings(function, 1), WithSettings) is takes


def test_a_declaration_keeps_all_else() -> None:
    """Phases get the settings one by one, a listing's digest stays, and what takes none is the same object."""
    client = Client("shop", url="https://a.example/")

    class Pages:
        def __call__(self, connection: Any, since: Any, settings: Any) -> Any:
            return settings

        def pages(self, connection: Any, *, cursor: Any, settings: Any) -> Any:
            return cursor, settings

    sync = Sync("shop.rows", client, listing=Pages())
    given = bound(sync, "s")
    listing: Any = given.listing
    assert (listing(None, None), listing.pages(None, cursor=1)) == ("s", (1, "s"))
    assert listing_digest(given) == listing_digest(sync)
    phased = JobType("shop.job", client, phases=("a", "b"), process={"a": _keyword, "b": _without})
    assert bound(phased, "s").process_of("a")(None, None) == "s"
    assert bound(phased, "s").process_of("b") is _without
    plain = JobType("shop.job", client, process=_without)
    assert bound(plain, "s") is plain
