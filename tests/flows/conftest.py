"""What the tests of `flows` share: a project folder of its own, the command `syncs` as a real process, and an API on loopback."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from flows.cli.program import program
from flows.enqueue import _process
from tests import ROOT

PETSTORE = """
from clients import Bearer, HttpClient, Listing, PageNumber
from flows.declarations.client import Client
from flows.declarations.sync import Sync
from pydantic import SecretStr
from pydantic_settings import BaseSettings

class Settings(BaseSettings, env_prefix="PETSTORE_"):
    base_url: str
    token: SecretStr

petstore = Client("petstore", settings=Settings, connect=lambda s: HttpClient(s.base_url, auth=Bearer(s.token)))
pets = Sync("petstore.pets", petstore, listing=Listing("pets", PageNumber(), items="data"),
            fetch=lambda http, entity: http.get_json(f"pets/{entity.key}"))
"""


@dataclass
class Project:
    """A folder with `syncs/`, and the environment in which its commands run."""

    folder: Path
    environment: dict[str, str]

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start `syncs` and leave it running."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments], cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def syncs(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `syncs` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "flows", *arguments], cwd=self.folder, env={**self.environment, **environment},
            text=True, capture_output=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run_here(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `syncs` to its end in this process: without the imports it takes a tenth of the time."""
        found = CliRunner().invoke(program, list(arguments), env={**self.environment, **environment})
        # As a process that begins.
        _process.close()
        _process.registry = None
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return subprocess.CompletedProcess(arguments, found.exit_code, found.stdout, found.stderr)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, which is the working directory; no settings and no Prefect server of this machine reach it."""
    for name in os.environ:
        if name.startswith(("SYNCS_", "PREFECT_", "PETSTORE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "syncs").mkdir()
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, dict(os.environ))


@dataclass
class Api:
    """A paged API with items, which records what it was asked."""

    items: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 10
    url: str = ""
    #: Paths that get this status instead of an answer.
    refused: dict[str, int] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    #: Answers to paths besides the listing.
    documents: dict[str, Any] = field(default_factory=dict)
    #: Each request for one item waits for this.
    gate: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        """Return status and document."""
        if path in self.refused:
            return self.refused[path], {"error": "refused"}
        if path in self.documents:
            return 200, self.documents[path]
        if path == "/pets":
            first = (int(query.get("page", ["1"])[0]) - 1) * self.page_size
            return 200, {"data": self.items[first : first + self.page_size]}
        self.gate.wait(60)
        found = [item for item in self.items if path == f"/pets/{item['id']}"]
        return (200, found[0]) if found else (404, {"error": "not found"})


@pytest.fixture
def api() -> Iterator[Api]:
    """The API of the file PETSTORE, on loopback."""
    found = Api()
    found.gate.set()
    with _serving(found) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        try:
            yield found
        finally:
            found.gate.set()
            server.shutdown()


def _serving(api: Api) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet; in two, the second waits 40 ms for an acknowledgement.
        wbufsize = -1

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            api.paths.append(self.path)
            api.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, document = api.answer(parts.path, parse_qs(parts.query))
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Kept-alive connections would hold their threads, and server_close would wait for them.
    server.daemon_threads = True
    return server


@pytest.fixture
def petstore(project: Project, api: Api) -> Project:
    """A project with one client, one sync, and all its settings."""
    project.write("syncs/petstore.py", PETSTORE)
    project.environment |= {"PETSTORE_BASE_URL": api.url, "PETSTORE_TOKEN": "t0p-secret"}
    return project
