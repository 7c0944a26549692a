"""What the tests of the documentation share: its pages and code blocks, an empty project, and a Petstore on loopback."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
import pytest
from click.testing import CliRunner

import clients
import flows
import jobs
from flows.cli.program import program
from tests import ROOT
from tests.support.adapter_servers import _no_kept_wsdl, certificate, serve_ftp, serve_shop, shop  # noqa: F401 - fixtures

#: Pages whose Python blocks stand below each other in one file.
GROWING = ("docs/write-a-job-type.md",)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    language: str
    text: str

    @property
    def declares(self) -> bool:
        """Whether it is a file for `syncs/`, rather than a line of one."""
        return self.language == "python" and "from flows import" in self.text and self.page not in GROWING


@dataclass(frozen=True)
class Page:
    """A page of the documentation."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The path from the root of the project."""
        return str(self.path.relative_to(ROOT))

    @property
    def blocks(self) -> list[Block]:
        """Its code blocks, in order."""
        return [Block(self.name, language, text) for language, text in _BLOCK.findall(self.text)]

    @property
    def prose(self) -> str:
        """The page without its code blocks."""
        return _BLOCK.sub("", self.text)

    @property
    def is_one_file(self) -> bool:
        """Whether its Python blocks stand below each other in one file."""
        return self.name in GROWING

    @property
    def file(self) -> str:
        """The one file that its Python blocks make together."""
        return "\n\n".join(block.text for block in self.blocks if block.language == "python")

    def section(self, heading: str) -> str:
        """Return what stands below a heading, up to the next heading of its level or above."""
        rest = self.text.split(f"\n{heading}\n", maxsplit=1)[1]
        end = re.search(rf"^#{{1,{heading.index(' ')}}} ", rest, re.MULTILINE)
        return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """Return the rows of the tables in a text, without their heads."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if set(cells[0]) == {"-"}:
            found.pop()
        else:
            found.append(cells)
    return found


@pytest.fixture(scope="session")
def pages() -> dict[str, Page]:
    """Every page by its path: the README and `docs/`."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {str(path.relative_to(ROOT)): Page(path, path.read_text()) for path in paths}


@pytest.fixture(scope="session")
def reference(pages: dict[str, Page]) -> Page:
    """The reference."""
    return pages["docs/reference.md"]


@pytest.fixture(scope="session")
def table_rows() -> Any:
    """The function `rows`."""
    return rows


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which is the working directory; no settings and no Prefect server of this machine reach it."""
    for name in os.environ:
        if name.startswith(("SYNCS_", "PREFECT_", "PETSTORE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "syncs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Petstore:
    """The API of the examples: pets by cursor, one by one, for those who have the token."""

    pets: list[dict[str, Any]] = field(default_factory=list)
    #: Pets that are listed and answer 404.
    gone: set[int] = field(default_factory=set)
    url: str = ""

    def answer(self, path: str, cursor: int) -> tuple[int, Any]:
        """Return status and document."""
        if path == "/api/pets":
            more = cursor + 10 < len(self.pets)
            return 200, {"data": self.pets[cursor : cursor + 10], "next_cursor": cursor + 10 if more else None}
        found = [pet for pet in self.pets if path == f"/api/pets/{pet['id']}" and pet["id"] not in self.gone]
        return (200, found[0]) if found else (404, {})


@pytest.fixture
def petstore(monkeypatch: pytest.MonkeyPatch) -> Iterator[Petstore]:
    """A Petstore with 25 pets, whose address and token are in the environment."""
    store = Petstore([{"id": number, "name": f"pet {number}", "updated_at": "v1"} for number in range(1, 26)])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, document = store.answer(parts.path, int(parse_qs(parts.query).get("cursor", ["0"])[0]))
            if self.headers["Authorization"] != "Bearer t0p-secret":
                status, document = 401, {}
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    store.url = f"http://127.0.0.1:{server.server_address[1]}/api/"
    monkeypatch.setenv("PETSTORE_URL", store.url)
    monkeypatch.setenv("PETSTORE_TOKEN", "t0p-secret")
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def run() -> Any:
    """Run a sync as a process and return its document."""

    def run_it(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "flows", "run", *arguments, "--json"],
            text=True, capture_output=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    return run_it


@pytest.fixture
def run_here() -> Any:
    """Run a sync in this process, which is faster, and return its document; it must exit with the code given."""

    def run_it(*arguments: str, code: int = 0) -> dict[str, Any]:
        done = CliRunner().invoke(program, ["run", *arguments, "--json"])
        assert done.exit_code == code, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    return run_it


@pytest.fixture
def check_names() -> Any:
    """Assert that each call, parameter, command and option in a text exists, and return the names of the calls."""
    known = {name: getattr(package, name) for package in (clients, jobs, flows) for name in package.__all__}

    call = re.compile(r"(?<![.\w\\:>])([A-Za-z_]\w*)\(([^()]*(?:\([^()]*\)[^()]*)*)\)")

    def calls_in(text: str) -> list[tuple[str, str]]:
        """Return each call with its own arguments, and those in its arguments."""
        found = []
        for name, arguments in call.findall(text):
            found += [(name, re.sub(r"\([^()]*\)", "", arguments)), *calls_in(arguments)]
        return found

    def check(text: str) -> set[str]:
        calls = [one for span in re.findall(r"`([^`]+)`", text) for one in calls_in(span)]
        for name, arguments in calls:
            accepted = inspect.signature(known[name]).parameters
            assert set(re.findall(r"\b([a-z_]+)=", arguments)) <= set(accepted), (name, arguments)
        for words in re.findall(r"`syncs ([^`]+)`", text):
            command = program.get_command(click.Context(program), words.split()[0])
            assert command is not None, words
            options = {option for parameter in command.params for option in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", words)) <= options, words
        return {name for name, _ in calls}

    return check
