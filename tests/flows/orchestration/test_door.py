"""A project in a folder of its own, in a shell with a proxy and an open umask, and a browser on the same machine."""

import http.server
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from tests import ROOT
from tests.support.chromium import browsing
from tests.support.prefect_project import HANG, Project, free_port, make_project, until

pytestmark = pytest.mark.slow

AUTOMATION = {
    "name": "of a web page",
    "trigger": {"type": "event", "posture": "Reactive", "expect": ["x"], "threshold": 1, "within": 0},
    "actions": [{"type": "run-deployment", "source": "inferred", "job_variables": {"command": "touch /tmp/x"}}],
}
READ = """
const asked = {method: "POST", headers: {"Content-Type": "application/json", ...more}, body: '{"include_secrets": true}'};
const answer = await fetch("/api/block_documents/filter", asked);
return answer.status + " " + (await answer.text()).slice(0, 60);
"""
READ_BLOCKS = f"(async () => {{ const more = {{}}; {READ} }})()"
READ_WITH_TOKEN = f"""(async () => {{
const client = "11111111-1111-4111-8111-111111111111";
const given = await fetch("/api/csrf-token?client=" + client);
const token = given.ok ? (await given.json()).token : "none";
const more = {{"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}}; {READ} }})()"""


@dataclass
class OwnProject(Project):
    """A project in its own folder, which is the working directory of its commands and holds the Prefect home."""

    @property
    def home(self) -> Path:
        """The default."""
        return self.folder / ".prefect"

    def ended(self, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=self.folder, env=self.environment, text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=HANG, check=False,
        )  # fmt: skip

    def command(self, module: str, *arguments: str) -> str:
        """Run a command to its end, successfully, and return what it said."""
        done = self.ended(module, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, api_url: str) -> Iterator[OwnProject]:
    """Start `syncs up` with a proxy that does not answer in the environment, and a umask that lets everybody write."""
    folder = tmp_path_factory.mktemp("own")
    made = make_project(folder, api_url)
    environment = {name: value for name, value in made.environment.items() if not name.lower().endswith("_proxy")}
    for name in ("PREFECT_HOME", "SYNCS_DATABASE_URL"):
        del environment[name]
    dead = f"http://127.0.0.1:{free_port()}"
    environment |= {"PYTHONPATH": str(ROOT), "http_proxy": dead, "https_proxy": dead, "all_proxy": dead}
    project = OwnProject(folder, environment)
    with _open_umask():
        try:
            project.command("flows", "up", "--port", str(project.port))
            project.hold_schedules()
            yield project
        finally:
            project.command("flows", "down")


def _modes(folder: Path) -> dict[str, int]:
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def test_commands_reach_it_past_the_proxy(own: OwnProject) -> None:
    """A run is a flow run of the server, and `syncs status` and `syncs setup` find it, whatever the environment names."""
    assert json.loads(own.command("flows", "status", "--json"))["answers"]
    run = json.loads(own.command("flows", "run", "tiny.good", "--json"))
    assert run["succeeded"] == 30
    assert own.newest_run("tiny.good")["state_type"] == "COMPLETED"
    applied = json.loads(own.command("flows", "setup", "--json"))["applied"]
    assert {each["change"] for each in applied} == {"unchanged"}


def test_prefect_command_finds_it(own: OwnProject) -> None:
    """In the project's folder, `prefect` needs no variable but that for its proxy: `prefect.toml` names home and profile."""
    proxied = own.ended("prefect", "work-pool", "ls")
    assert (proxied.returncode, "syncs" in proxied.stdout) == (1, False)
    direct = replace(own, environment={**own.environment, "NO_PROXY": "127.0.0.1"})
    assert "syncs" in direct.command("prefect", "work-pool", "ls")
    assert own.auth_string not in (own.folder / "prefect.toml").read_text()
    assert own.auth_string not in direct.command("prefect", "config", "view")


def test_prefect_command_signs_in_to_other_servers_too(own: OwnProject, httpserver: HTTPServer) -> None:
    """Where a variable names another one, Prefect sends the auth string of the profile, unless a variable names that too."""
    base = {**own.environment, "NO_PROXY": "localhost", "PREFECT_API_URL": httpserver.url_for("/api")}
    for more, sent in (({}, own.auth_string), ({"PREFECT_API_AUTH_STRING": "me:other"}, "me:other")):
        replace(own, environment={**base, **more}).ended("prefect", "work-pool", "ls")
        seen = [request.authorization for request, _ in httpserver.log]
        httpserver.clear_log()
        assert {f"{one.username}:{one.password}" for one in seen if one} == {sent}


def test_up_shows_the_sign_in_on_a_terminal_only(own: OwnProject) -> None:
    """A log gets the name of the file, a person what stands in it."""
    command = [sys.executable, "-m", "flows", "up"]
    of_it: dict[str, Any] = {"cwd": own.folder, "env": own.environment, "stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=HANG, check=True, **of_it).stdout
    assert (own.auth_string in said, str(own.home / "auth-string") in said) == (False, True)
    ours, terminal = os.openpty()
    with subprocess.Popen(command, stdout=terminal, **of_it):
        os.close(terminal)
        shown = b""
        # Linux says EIO when the last one has closed the terminal.
        with suppress(OSError):
            while some := os.read(ours, 4096):
                shown += some
    os.close(ours)
    assert own.auth_string in shown.decode()


def test_files_are_for_their_owner_in_spite_of_the_umask(own: OwnProject) -> None:
    """Prefect home, logs and database are; a file that a command of the user's writes is as the umask says."""
    own.command("flows", "run", "tiny.good")
    found = {**_modes(own.home), **_modes(own.folder / "data")}
    # What the `prefect` command keeps there is its own, in a folder that is shut.
    found = {path: mode for path, mode in found.items() if ".sdk_telemetry" not in path}
    assert found[str(own.home)] == 0o700
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}
    assert any(path.endswith("syncs.db") for path in found)
    # The worker and its runs have the umask of the shell: what they export is not ours to shut.
    worker = json.loads(own.command("flows", "status", "--json"))["worker_pid"]
    status = Path(f"/proc/{worker}/status")
    if status.exists():
        assert "Umask:\t0000" in status.read_text()


class _Page(http.server.BaseHTTPRequestHandler):
    """An empty page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return None


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """Serve the page of another origin, and return its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_pages_of_others_come_to_nothing(own: OwnProject, elsewhere: str, tmp_path: Path) -> None:
    """In a real browser: a blind POST of another page, and a page by DNS rebinding, without and with a token that it asks for."""
    body = json.dumps(json.dumps(AUTOMATION))
    request = f'{{method: "POST", mode: "no-cors", body: new Blob([{body}])}}'
    blind = f'fetch("{own.url}/automations/", {request}).then(a => a.type, e => "" + e)'
    with browsing(tmp_path, "--host-resolver-rules=MAP evil.example 127.0.0.1") as tab:
        tab.open(elsewhere)
        # The page is not told what became of it.
        assert tab.run(blind) == "opaque"
        tab.open(f"http://evil.example:{own.port}/api/health")
        assert tab.run("location.host") == f"evil.example:{own.port}"
        for script in (READ_BLOCKS, READ_WITH_TOKEN):
            assert tab.run(script).startswith("403 This Host is not allowed")
        # Nor by its right name, without the auth string.
        tab.open(f"http://127.0.0.1:{own.port}/api/health")
        for script in (READ_BLOCKS, READ_WITH_TOKEN):
            assert tab.run(script).startswith("403 ")
            assert "CSRF token" in tab.run(script)
    assert AUTOMATION["name"] not in {each["name"] for each in own.find("automations")}


def test_pages_of_prefect_work_after_sign_in(own: OwnProject, tmp_path: Path) -> None:
    """In a real browser: the auth string opens Prefect's pages, and a switch in them reaches the server."""

    def off() -> list[str]:
        return [each["name"] for each in own.find("automations") if not each["enabled"]]

    assert off() == []
    with browsing(tmp_path) as tab:
        tab.open(own.url.removesuffix("/api"))
        tab.until("document.querySelector('input[type=password]') !== null")
        tab.run("document.querySelector('input[type=password]').focus()")
        tab.type(own.auth_string)
        tab.until("location.pathname.includes('dashboard')")
        tab.open(f"http://127.0.0.1:{own.port}/v2/automations")
        tab.until("document.querySelector('button[role=switch]') !== null")
        tab.run("document.querySelector('button[role=switch]').click()")
        until(lambda: len(off()) == 1)


def test_down_works_past_the_proxy_and_takes_the_sign_in_with_it(own: OwnProject) -> None:
    """Worker and server end; the profile holds the auth string no longer, since another program may listen there then."""
    assert json.loads(own.command("flows", "down", "--json"))["stopped"] == ["worker", "server"]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", own.port)) != 0
    assert own.auth_string not in (own.home / "profiles.toml").read_text()
