"""What the tests of the Prefect half share: an API on loopback, a project, and one real server and worker from `syncs up`."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

ROOT = Path(__file__).parents[2]

TOKEN = "tok-9d1f-must-not-show"
"""The credential of the tests' clients; it may stand in nothing that Prefect keeps."""

PAYLOAD = "payload-71ac-must-not-show"
"""Stands in every record that the API serves."""

SYNCS = '''
"""Syncs of the tests."""
import os
from clients import Bearer, HttpClient, Listing, TotalPages
from flows import Client, JobType, Sync
from pydantic import SecretStr
from pydantic_settings import BaseSettings

class Settings(BaseSettings, env_prefix="TINY_"):
    base_url: str
    token: SecretStr

def fetch(http, entity):
    return http.get_json(f"entities/{entity.key}")

def client(name):
    return Client(name, settings=Settings, connect=lambda s: HttpClient(f"{s.base_url}{name}/", auth=Bearer(s.token)))

def listing():
    return Listing("entities", TotalPages(path="pages"), items="data", key="id", version="rev")

tiny = client("tiny")
good = Sync("tiny.good", tiny, listing=listing(), fetch=fetch)
faulty, slow, closed, broken = (client(name) for name in ("faulty", "slow", "closed", "broken"))
syncs = [
    Sync("faulty.things", faulty, listing=listing(), fetch=fetch),
    Sync("slow.things", slow, listing=listing(), fetch=fetch, concurrency=4),
    Sync("closed.things", closed, listing=listing(), fetch=fetch),
    Sync("broken.things", broken, listing=listing(), fetch=fetch),
]
call = JobType("closed.call", closed, process=lambda job, http: http.get_json("call"))
'''


class _Api(BaseHTTPRequestHandler):
    """Three pages of ten entities below each of some names, which say how it behaves."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        _, name, *rest = parts.path.split("/")
        if name == "closed":
            self._answer(401, {"error": f"no entry with {self.headers['Authorization']}"})
        elif name == "broken":
            self._answer(400, {"error": "no such listing"})
        elif rest == ["entities"]:
            page, pages = int(parse_qs(parts.query).get("page", ["1"])[0]), 14 if name == "slow" else 3
            # Whoever looks behind the last page finds nothing there.
            data = [{"id": f"{name}-{10 * page + i}", "rev": 1, "note": PAYLOAD} for i in range(10 if page <= pages else 0)]
            self._answer(200, {"pages": pages, "data": data})
        elif name == "faulty" and rest[1] in ("faulty-17", "faulty-23"):
            self._answer(422, {"error": "cannot be read <b>at all</b>"})
        else:
            if name == "slow":
                time.sleep(0.25)
            self._answer(200, {"id": rest[1], "note": PAYLOAD})

    def _answer(self, status: int, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def api_url() -> Iterator[str]:
    """Serve the API on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Project:
    """The repository as a project whose database, Prefect home and syncs are in a folder of the test's."""

    folder: Path
    environment: dict[str, str]
    port: int = field(default_factory=free_port)

    @property
    def home(self) -> Path:
        """PREFECT_HOME."""
        return Path(self.environment["PREFECT_HOME"])

    @property
    def url(self) -> str:
        """The API's URL."""
        return f"http://127.0.0.1:{self.port}/api"

    def start(self, *arguments: str, module: str = "flows") -> "subprocess.Popen[str]":
        """Start `syncs`, or another module, and leave it running."""
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=ROOT, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def syncs(self, *arguments: str) -> Any:
        """Run `syncs … --json` to its end and return its document."""
        process = self.start(*arguments, "--json")
        out, err = process.communicate(timeout=90)
        assert out, err
        return json.loads(out)

    def prefect(self, *arguments: str) -> str:
        """Run `prefect …` to its end, successfully, and return what it said."""
        environment = {**self.environment, "PREFECT_API_URL": self.url}
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments], cwd=ROOT, env=environment, text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def find(self, what: str, **body: Any) -> list[dict[str, Any]]:
        """Ask the server's `/{what}/filter`."""
        response = httpx.post(f"{self.url}/{what}/filter", json=body)
        response.raise_for_status()
        found: list[dict[str, Any]] = response.json()
        return found

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a flow run."""
        found: dict[str, Any] = httpx.get(f"{self.url}/flow_runs/{run_id}").json()
        return found

    def newest_run(self, name: str) -> dict[str, Any]:
        """Return the newest flow run of this name."""
        return self.find("flow_runs", flow_runs={"name": {"any_": [name]}}, sort="START_TIME_DESC", limit=1)[0]

    def runs_here(self, name: str) -> bool:
        """Tell whether a flow run of this name runs that no deployment started."""
        state = {"type": {"any_": ["RUNNING"]}}
        found = self.find("flow_runs", flow_runs={"name": {"any_": [name]}, "state": state})
        return any(each["deployment_id"] is None for each in found)

    def task_runs(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task runs of a flow run by name."""
        found = self.find("task_runs", flow_runs={"id": {"any_": [run_id]}}, limit=200)
        return {each["name"]: each for each in found}

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the artifacts of a flow run by key."""
        return {each["key"]: each for each in self.find("artifacts", flow_runs={"id": {"any_": [run_id]}})}

    def deploy_run(self, deployment: str, *arguments: str) -> str:
        """Start a flow run through `prefect deployment run` and return its id."""
        said = self.prefect("deployment", "run", deployment, *arguments)
        return said.split("UUID:")[1].split()[0]


def until(found: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Wait until `found` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.1)
    return value


def make_project(folder: Path, api: str) -> Project:
    """Make a project in a folder."""
    (folder / "tiny.py").write_text(SYNCS)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "SYNCS_", "TINY_"))}
    environment |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "SYNCS_DATABASE_URL": f"sqlite:///{folder / 'syncs.db'}",
        "SYNCS_PATH": str(folder / "tiny.py"),
        "TINY_BASE_URL": api,
        "TINY_TOKEN": TOKEN,
    }
    return Project(folder, environment)


@pytest.fixture(scope="session")
def _both_ups(tmp_path_factory: pytest.TempPathFactory, api_url: str) -> Iterator[tuple[Project, list[dict[str, Any]]]]:
    """Start `syncs up` twice at the same moment; yield what both said, and stop everything in the end."""
    project = make_project(tmp_path_factory.mktemp("project"), api_url)
    ups = [project.start("up", "--port", str(project.port), "--json") for _ in range(2)]
    try:
        said = [up.communicate(timeout=90) for up in ups]
        assert [up.returncode for up in ups] == [0, 0], said
        yield project, [json.loads(out) for out, _ in said]
    finally:
        project.start("down").communicate(timeout=60)


@pytest.fixture(scope="session")
def both_ups(_both_ups: tuple[Project, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return what two `syncs up` at the same moment said."""
    return _both_ups[1]


@pytest.fixture(scope="session")
def project(_both_ups: tuple[Project, list[dict[str, Any]]]) -> Project:
    """Return a project whose server and worker run."""
    return _both_ups[0]
