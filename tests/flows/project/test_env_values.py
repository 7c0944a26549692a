"""The variables of a client: Secret blocks in place of the environment, and which values are masked."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from clients import Basic, Bearer, Listing, env
from flows import Client
from flows.project.env_values import env_values
from flows.project.redaction import Mask
from flows.project.settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.flows.conftest import Project


@pytest.fixture
def blocks(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Secret blocks of a server that answers as Prefect does."""
    found: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            body = json.dumps({"data": {"value": found.get(name)}}).encode()
            self.send_response(200 if name in found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_address[1]}/api")
        yield found
        server.shutdown()


def test_a_block_stands_for_a_variable(blocks: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of the name in kebab case is read where the variable is not set, before the default; the variable wins."""
    blocks |= {"petstore-token": "of the block", "petstore-url": "https://block.example/"}
    client = Client("petstore", url=env("PETSTORE_URL", "https://a.example/"), auth=Bearer(env("PETSTORE_TOKEN")))
    assert dict(client_settings(client)) == {"PETSTORE_URL": "https://block.example/", "PETSTORE_TOKEN": "of the block"}
    monkeypatch.setenv("PETSTORE_TOKEN", "of the variable")
    assert client_settings(client)["PETSTORE_TOKEN"] == "of the variable"
    with client.connect(client_settings(client)) as http:
        assert repr(http) == "HttpClient('https://block.example/')"


def test_secrets_are_masked_and_names_are_not(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords, headers and parameters are masked as those of settings are; URLs, users and defaults can be read."""
    for name, value in {
        "PETSTORE_URL": "https://ann:pa55word@a.example/",
        "PETSTORE_USER": "annabel",
        "PETSTORE_PASS": "t0p-secret",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PETSTORE_KEY", "k3y-secret")
    client = Client(
        "petstore", url=env("PETSTORE_URL"), auth=Basic(env("PETSTORE_USER"), env("PETSTORE_PASS")),
        headers={"X-Region": env("PETSTORE_REGION", "northern")},
    )  # fmt: skip
    values = env_values(client, Listing("pets", params={"key": env("PETSTORE_KEY")}))
    mask = Mask((client_settings(client), values))
    text = "https://a.example/ annabel northern t0p-secret k3y-secret pa55word YW5uYWJlbDp0MHAtc2VjcmV0"
    assert mask(text) == "https://a.example/ annabel northern *** *** *** ***"
