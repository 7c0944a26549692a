"""The demo: keeps the 7,910 languages of ISO 639-3 in step with an API. Try `syncs run languages`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from pydantic_settings import BaseSettings

from clients import Entity, HttpClient, Listing, TotalPages
from flows import Client, Sync


class Settings(BaseSettings, env_prefix="LANGUAGES_"):
    """LANGUAGES_BASE_URL names a server; without one, each connection brings its own."""

    base_url: str = ""


@contextmanager
def connect(settings: Settings) -> Iterator[HttpClient]:
    """Open the API. A usual client needs no function here, only `lambda s: HttpClient(s.base_url)`."""
    if settings.base_url:
        with HttpClient(settings.base_url) as http:
            yield http
        return
    command = [sys.executable, str(Path(__file__).with_name("_languages_api.py"))]
    # It says where it listens, and ends with its standard input. In a session of its own, so that Ctrl-C is not for it.
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True, start_new_session=True) as server:
        assert server.stdout is not None
        with HttpClient(server.stdout.readline().strip()) as http:
            yield http


def fetch(http: HttpClient, entity: Entity) -> Any:
    """Get what is to be known of one language."""
    return http.get_json(f"languages/{entity.key}")


api = Client("languages", settings=Settings, connect=connect)

languages = Sync(
    "languages", api, fetch=fetch, delete_missing=True,
    listing=Listing("languages", TotalPages(path="pages"), items="data", key="alpha_3", version="rev", total="total"),
)  # fmt: skip
