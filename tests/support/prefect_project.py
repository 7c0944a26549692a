"""A project whose server and worker come from `syncs up`, and the API on loopback that it syncs."""

import base64
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import httpx

from tests import ROOT

TOKEN = "tok-9d1f-must-not-show"
"""The credential of the tests' clients; it may stand in nothing that Prefect keeps."""

NO_TLS = False
"""The server speaks plain HTTP; to read the certificates of all authorities for each question takes longer than the question."""

NO_KEEP = httpx.Limits(max_keepalive_connections=0)
"""Uvicorn closes a connection that was idle for five seconds: who sends on it in that moment, after a stall, gets no answer."""

HANG = 240.0
"""Seconds after which something that a test waits for hangs; what it waits for comes within few, but on a busy machine."""

ALLOWED = "tunnel.example"
"""A name under which the server of the tests may be asked besides; nothing else tells Prefect of it."""

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


class ApiServer(ThreadingHTTPServer):
    """Pages of ten entities below each of some names, which say how it behaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ApiHandler)
        self._changed = threading.Condition()
        self._pages = 14
        self._lead = 0
        self._is_endless = False
        #: Set by the first request for an entity of `slow` while its listing has no end.
        self.fetching = threading.Event()
        #: When the last entity of `slow` was answered, by `time.monotonic`.
        self.last_at = 0.0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}/"

    @contextlib.contextmanager
    def endless(self) -> Iterator[None]:
        """Let the listing of `slow` have no end, so that no run of it can be over before a test has done something to it."""
        with self._changed:
            self._is_endless, self._lead = True, 0
            self.fetching.clear()
        try:
            yield
        finally:
            with self._changed:
                self._is_endless = False
                self._changed.notify_all()

    def page_of_slow(self, page: int) -> int:
        """Return how many pages there are, when one is asked for."""
        with self._changed:
            if self._is_endless:
                self._pages = max(self._pages, page + 1)
                self._lead += 10
                self._changed.notify_all()
            behind_the_start = page > 14 and self._is_endless
        if behind_the_start:
            time.sleep(0.25)
        return self._pages

    def entity_of_slow(self) -> None:
        """Take a while; while the listing has no end, also wait until it is far ahead, so that a run always leaves jobs."""
        time.sleep(0.25)
        with self._changed:
            if self._is_endless:
                self.fetching.set()
                self._changed.wait_for(lambda: self._lead > 40 or not self._is_endless, timeout=2)
                self._lead -= 1
            self.last_at = time.monotonic()


class _ApiHandler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        _, name, *rest = parts.path.split("/")
        if name == "closed":
            self._answer(401, {"error": f"no entry with {self.headers['Authorization']}"})
        elif name == "broken":
            self._answer(400, {"error": "no such listing"})
        elif rest == ["entities"]:
            page = int(parse_qs(parts.query).get("page", ["1"])[0])
            pages = self.server.page_of_slow(page) if name == "slow" else 3
            # A request beyond the last page finds nothing there.
            data = [{"id": f"{name}-{10 * page + i}", "rev": 1, "note": PAYLOAD} for i in range(10 if page <= pages else 0)]
            self._answer(200, {"pages": pages, "data": data})
        elif name == "faulty" and rest[1] in ("faulty-17", "faulty-23"):
            self._answer(422, {"error": "cannot be read <b>at all</b>"})
        else:
            if name == "slow":
                self.server.entity_of_slow()
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
        return None


def free_port() -> int:
    """Return a port of loopback that nobody listens on, and that the system gives to nobody who asks for any."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def browser(**options: Any) -> httpx.Client:
    """Return a client for a server on loopback, with time enough for a busy machine."""
    return httpx.Client(verify=NO_TLS, limits=NO_KEEP, timeout=60, **options)


def ask(method: str, url: str, **options: Any) -> httpx.Response:
    """Send one request."""
    with browser() as client:
        return client.request(method, url, **options)


class SignIn(httpx.Auth):
    """Signs in to a project's server as Prefect's own clients do: by auth string, and by CSRF token where something changes."""

    requires_response_body = True

    def __init__(self, project: "Project") -> None:
        self._project = project
        self._token = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the headers; ask for a token first where there is none."""
        basic = "Basic " + base64.b64encode(self._project.auth_string.encode()).decode()
        request.headers["Authorization"] = basic
        if request.method not in ("GET", "HEAD"):
            url = f"{self._project.url}/csrf-token?client=tests"
            while not self._token:
                answer = yield httpx.Request("GET", url, headers={"Authorization": basic})
                # The server's own database may be locked for a moment.
                if answer.status_code != 503:
                    self._token = answer.raise_for_status().json()["token"]
            request.headers.update({"Prefect-Csrf-Token": self._token, "Prefect-Csrf-Client": "tests"})
        yield request


@dataclass
class Project:
    """The repository as a project whose database, Prefect home and syncs are in a folder of the test's."""

    folder: Path
    environment: dict[str, str]
    port: int = field(default_factory=free_port)
    sign_in: SignIn = field(init=False, compare=False)

    def __post_init__(self) -> None:
        self.sign_in = SignIn(self)

    @property
    def auth_string(self) -> str:
        """The auth string of the server."""
        return (self.home / "auth-string").read_text().strip()

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
        out, err = process.communicate(timeout=HANG)
        assert out, err
        return json.loads(out)

    def prefect(self, *arguments: str) -> str:
        """Run `prefect …` to its end, successfully, and return what it said."""
        # By a variable, since the `prefect.toml` of a demo in the repository would name others.
        environment = {**self.environment, "PREFECT_PROFILES_PATH": str(self.home / "profiles.toml")}
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments], cwd=ROOT, env=environment, text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=HANG, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def find(self, what: str, **body: Any) -> list[dict[str, Any]]:
        """Ask the server's `/{what}/filter`."""
        response = ask("POST", f"{self.url}/{what}/filter", json=body, auth=self.sign_in)
        response.raise_for_status()
        found: list[dict[str, Any]] = response.json()
        return found

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a flow run."""
        found: dict[str, Any] = ask("GET", f"{self.url}/flow_runs/{run_id}", auth=self.sign_in).json()
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

    def hold_schedules(self) -> None:
        """Let nothing start by the clock: a run of `work` at each fifth minute would take what a test has left for later."""
        for each in self.find("deployments"):
            if each["schedules"]:
                self.set_schedules(each["id"], "pause")

    def set_schedules(self, deployment: str, to: Literal["pause", "resume"]) -> None:
        """Hold the schedules of a deployment, or let them run; the server's own database may be locked for a moment."""
        url = f"{self.url}/deployments/{deployment}/{to}_deployment"
        until(lambda: ask("POST", url, auth=self.sign_in).is_success)

    def deploy_run(self, deployment: str, *arguments: str) -> str:
        """Start a flow run through `prefect deployment run` and return its id."""
        said = self.prefect("deployment", "run", deployment, *arguments)
        return said.split("UUID:")[1].split()[0]


def until(found: Callable[[], Any], *, seconds: float = HANG) -> Any:
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
