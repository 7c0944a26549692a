"""The demo: keeps the 7,910 languages of ISO 639-3 in step with an API. Run it with `syncs run languages`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

from pydantic_settings import BaseSettings

from clients import HttpClient, Listing, TotalPages
from flows import Client, Sync


class Settings(BaseSettings, env_prefix="LANGUAGES_"):
    """LANGUAGES_BASE_URL is the server; without it, each connection starts a server of its own."""

    base_url: str = ""


@contextmanager
def connect(settings: Settings) -> Iterator[HttpClient]:
    """Connect to the API. Most clients need no such function and no settings, only `Client("languages", url="https://…")`."""
    if settings.base_url:
        with HttpClient(settings.base_url) as http:
            yield http
        return
    command = [sys.executable, str(Path(__file__).with_name("_languages_api.py"))]
    # It prints its base URL, and ends with its standard input. In a session of its own, so that Ctrl-C does not reach it.
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True, start_new_session=True) as server:
        assert server.stdout is not None
        with HttpClient(server.stdout.readline().strip()) as http:
            yield http


api = Client("languages", settings=Settings, connect=connect)

languages = Sync(
    "languages",
    api,
    fetch="languages/{key}",
    delete_missing=True,
    listing=Listing("languages", TotalPages(path="pages"), items="data", key="alpha_3", version="rev", total="total"),
)
