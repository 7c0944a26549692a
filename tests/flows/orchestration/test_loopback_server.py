"""Who may use the server that `syncs up` starts, asked with the requests that web pages and other users can send."""

import base64
import json
import os
import socket
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from cryptography.fernet import Fernet
from prefect.blocks.system import Secret
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from flows.orchestration.prefect_client import open_client
from flows.project.secrets import read_secret_at
from tests.support.prefect_project import ALLOWED, HANG, TOKEN, Project, browser, until

AUTOMATION = {
    "name": "of a web page",
    "trigger": {"type": "event", "posture": "Reactive", "expect": ["x"], "threshold": 1, "within": 0},
    "actions": [{"type": "run-deployment", "source": "inferred", "job_variables": {"command": "touch /tmp/x"}}],
}
SECRETS = {"include_secrets": True}


@pytest.fixture
def page(project: Project) -> Iterator[httpx.Client]:
    """Return a client that sends what a page of another origin sends: its origin, and no credentials."""
    with browser(base_url=project.url, headers={"Origin": "http://evil.example"}) as client:
        yield client


def _names(project: Project) -> set[str]:
    return {each["name"] for each in project.find("automations")}


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:24811", "null", None])
def test_blind_request_of_a_page_makes_no_automation(project: Project, page: httpx.Client, origin: str | None) -> None:
    """A POST without Content-Type, which needs no preflight, is refused by its Origin, and without one by the lack of a token."""
    del page.headers["Origin"]
    if origin is not None:
        page.headers["Origin"] = origin
    for type_ in ({}, {"Content-Type": "text/plain"}):
        answer = page.post("/automations/", content=json.dumps(AUTOMATION), headers=type_)
        assert (answer.status_code, "Origin" in answer.text, "CSRF" in answer.text) == (403, origin is not None, origin is None)
    assert AUTOMATION["name"] not in _names(project)


def test_page_by_rebinding_reads_nothing(project: Project, page: httpx.Client) -> None:
    """A page whose name was made to resolve to loopback is same-origin with the server; its Host gives it away."""
    own = f"evil.example:{project.port}"
    page.headers.update({"Host": own, "Origin": f"http://{own}"})
    answers = [
        page.get("/health"),
        page.get("/csrf-token", params={"client": str(uuid4())}),
        page.post("/block_documents/filter", json=SECRETS),
        # With everything but the name.
        page.post("/block_documents/filter", json=SECRETS, auth=project.sign_in),
        page.get(f"http://127.0.0.1:{project.port}/ui-settings"),
    ]
    assert [answer.status_code for answer in answers] == [403] * 5
    assert {answer.text for answer in answers} == {"This Host is not allowed; if it is yours, name it in SYNCS_ALLOWED_HOSTS."}


def test_token_of_a_page_is_not_enough(project: Project) -> None:
    """Without the auth string there is no CSRF token; without a token nothing changes, also for who has the auth string."""
    with browser(base_url=project.url) as other_user:
        assert other_user.get("/csrf-token", params={"client": "me"}).status_code == 401
        user, _, password = project.auth_string.partition(":")
        assert other_user.get("/csrf-token", params={"client": "me"}, auth=(user, password[:-1])).status_code == 401
        for method, path in (
            ("POST", "automations/"), ("POST", "block_documents/filter"), ("PUT", f"automations/{uuid4()}"),
            ("PATCH", f"automations/{uuid4()}"), ("DELETE", f"automations/{uuid4()}"),
        ):  # fmt: skip
            answer = other_user.request(method, f"/{path}", json=AUTOMATION, auth=(user, password))
            assert (answer.status_code, "CSRF" in answer.text) == (403, True)
    assert AUTOMATION["name"] not in _names(project)


def test_another_user_sees_nothing(project: Project) -> None:
    """Without the auth string the server says only that it is there, and shows its empty pages."""
    root = project.url.removesuffix("/api")
    with browser() as client:
        for path in ("version", "admin/version", "admin/settings", "flow_runs/count", "automations/count"):
            assert client.get(f"{project.url}/{path}").status_code == 401
        for path in ("flow_runs/filter", "block_documents/filter", "logs/filter", "events/filter", "variables/filter"):
            # The check of tokens comes first where a token is needed.
            assert client.post(f"{project.url}/{path}", json=SECRETS).status_code in (401, 403)
        assert client.get(f"{project.url}/health").json() is True
        shown = client.get(f"{root}/ui-settings")
        assert (shown.json()["auth"], shown.json()["csrf_enabled"]) == ("BASIC", True)
        page = client.get(f"{root}/v2/", headers={"Accept": "text/html"})
        assert page.headers["x-frame-options"] == "SAMEORIGIN"
        assert project.auth_string.partition(":")[2] not in shown.text + page.text


@pytest.mark.slow
def test_nothing_else_answers_without_the_auth_string(project: Project) -> None:
    """Each path of Prefect's own list, and those that every server of its kind has."""
    with browser(base_url=f"http://127.0.0.1:{project.port}") as other_user:
        known = other_user.get("/openapi.json").json()["paths"]
        assert len(known) > 100
        asked = [(method.upper(), f"/api{path}") for path, methods in known.items() for method in methods]
        others = ("/api/docs", "/api/openapi.json", "/api/redoc", "/api/metrics", "/api/static/x", "/metrics")
        asked += [("GET", path) for path in others]
        answers = {(method, path): other_user.request(method, path).status_code for method, path in asked}
        shut = {one for one, code in answers.items() if code in (401, 403)}
        # A path without a file is the page that says so itself.
        assert other_user.get("/metrics").text == other_user.get("/no-such-page").text
        assert set(answers) - shut == {("GET", "/api/health"), ("GET", "/api/ready"), ("GET", "/metrics")}
        # What Prefect can be asked for at all, which everybody may know.
        assert [other_user.get(path).status_code for path in ("/docs", "/redoc", "/ui-settings")] == [200] * 3


def test_a_forwarded_name_needs_the_auth_string_too(project: Project) -> None:
    """A name of `SYNCS_ALLOWED_HOSTS` is let through, with and without a port; Prefect itself looks at none."""
    for host in (ALLOWED, f"{ALLOWED}:8443"):
        forwarded = {"Host": host, "Origin": f"https://{host}"}
        with browser(base_url=project.url, headers=forwarded) as client:
            assert client.get("/health").json() is True
            assert client.get("/admin/version").status_code == 401
            assert client.get("/admin/version", auth=project.sign_in).status_code == 200


def test_the_server_alone_listens(project: Project, both_ups: list[dict[str, Any]]) -> None:
    """On one port; the worker on none."""
    server, worker = (psutil.Process(both_ups[0][name]) for name in ("server_pid", "worker_pid"))
    heard = [
        (each.laddr.ip, each.laddr.port, process.pid)
        for process in (server, *server.children(recursive=True), worker, *worker.children(recursive=True))
        for each in process.net_connections("inet")
        if each.status == "LISTEN"
    ]
    assert heard == [("127.0.0.1", project.port, server.pid)]


def test_settings_of_clients_are_in_private_environments(project: Project, both_ups: list[dict[str, Any]]) -> None:
    """Server and worker have what the shell had; only the user and root may read it."""
    for name in ("server_pid", "worker_pid"):
        of_it = Path(f"/proc/{both_ups[0][name]}/environ")
        if of_it.exists():
            assert f"TINY_TOKEN={TOKEN}".encode() in of_it.read_bytes().split(b"\0")
            assert stat.S_IMODE(of_it.stat().st_mode) == 0o400


def _socket(project: Project, path: str, *, host: str = "127.0.0.1", origin: str | None = None) -> ClientConnection:
    address = f"ws://{host}:{project.port}/api/{path}"
    connection = socket.create_connection(("127.0.0.1", project.port))
    return connect(address, sock=connection, origin=origin, subprotocols=["prefect"], proxy=None)  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled"])
def test_sockets_are_shut_too(project: Project, path: str) -> None:
    """Pages may open sockets to any address; ours refuse a foreign Host or Origin at once, and others without the auth string."""
    own = f"http://evil.example:{project.port}"
    for host, origin in (("evil.example", own), ("evil.example", None), ("127.0.0.1", "http://evil.example")):
        with pytest.raises(InvalidStatus, match="HTTP 403"):
            _socket(project, path, host=host, origin=origin)
    with _socket(project, path) as shut:
        shut.send(json.dumps({"type": "auth", "token": "syncs:wrong"}))
        with pytest.raises(ConnectionClosed):
            shut.recv(timeout=HANG)
    with _socket(project, path, origin=f"http://127.0.0.1:{project.port}") as opened:
        opened.send(json.dumps({"type": "auth", "token": project.auth_string}))
        assert json.loads(opened.recv(timeout=HANG)) == {"type": "auth_success"}


def test_files_are_for_their_owner(project: Project) -> None:
    """No file or folder of the Prefect home can be read by others."""
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (project.home, *project.home.rglob("*"))}
    assert {path.name for path in found} >= {"prefect.db", "server.log", "worker.log", "auth-string", "profiles.toml"}
    assert {path: mode for path, mode in found.items() if mode & 0o077} == {}


def test_auth_string_is_nowhere_else(project: Project, both_ups: list[dict[str, Any]]) -> None:
    """It stands in two private files, and in no argument, log, answer, event, or other row of Prefect's database."""
    password = project.auth_string.partition(":")[2]
    encoded = base64.b64encode(project.auth_string.encode()).decode().rstrip("=")
    files = [path for path in project.home.rglob("*") if path.is_file()]
    holding = {path.name for path in files if any(text.encode() in path.read_bytes() for text in (password, encoded))}
    assert holding == {"auth-string", "profiles.toml"}
    pids = [both_ups[0]["server_pid"], both_ups[0]["worker_pid"]]
    processes = [process for pid in pids for process in (psutil.Process(pid), *psutil.Process(pid).children())]
    shown = [project.find(what) for what in ("work_pools", "deployments", "automations", "work_queues", "variables")]
    assert password not in json.dumps([[process.cmdline() for process in processes], shown, both_ups, project.syncs("status")])
    assert all(said["auth_file"] == str(project.home / "auth-string") for said in both_ups)


def test_flow_run_signs_in(project: Project, both_ups: list[dict[str, Any]]) -> None:
    """The worker's runs come through the door, and leave nothing of the auth string behind."""
    run_id = project.deploy_run("maintain/maintain")
    until(lambda: project.run(run_id)["state_type"] == "COMPLETED")
    test_auth_string_is_nowhere_else(project, both_ups)


def test_automations_do_what_they_say(project: Project) -> None:
    """An automation of a person's pauses another one; Prefect's client for that signs in only here."""
    with browser(base_url=project.url, auth=project.sign_in) as ui:

        def make(name: str, event: str, action: dict[str, Any]) -> str:
            trigger = {"type": "event", "posture": "Reactive", "expect": [event], "threshold": 1, "within": 0}
            body = {"name": name, "trigger": trigger, "actions": [action]}
            made: str = until(lambda: (answer := ui.post("/automations/", json=body)).is_success and answer.json()["id"])
            return made

        other = make("other", f"never-{uuid4()}", {"type": "do-nothing"})
        event = f"test-{uuid4()}"
        one = make("one", event, {"type": "pause-automation", "source": "selected", "automation_id": other})
        asked = {
            "id": str(uuid4()),
            "occurred": "2026-01-01T00:00:00Z",
            "event": event,
            "resource": {"prefect.resource.id": "me"},
        }
        try:
            # The server takes up a new automation some moments after it was made.
            until(
                lambda: (
                    ui.post("/events", json=[{**asked, "id": str(uuid4())}]).is_success
                    and not ui.get(f"/automations/{other}").json()["enabled"]
                )
            )
        finally:
            for each in (one, other):
                ui.delete(f"/automations/{each}")


def test_secret_block_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Secret block is saved by Prefect's client and read by ours, both signed in by the file; other projects are not."""
    monkeypatch.setenv("PREFECT_HOME", str(project.home))
    with open_client(project.url):
        until(lambda: Secret(value="s-1").save("door-secret", overwrite=True))
    assert read_secret_at(project.url, "door-secret") == "s-1"
    # Its file does not show it, and holds the key that opens it.
    with closing(sqlite3.connect(f"file:{project.home}/prefect.db?mode=ro", uri=True)) as connection:
        [(sealed,)] = connection.execute("SELECT data FROM block_document WHERE name = 'door-secret'").fetchall()
        [(key,)] = connection.execute("SELECT value FROM configuration WHERE key = 'ENCRYPTION_KEY'").fetchall()
    assert "s-1" not in sealed
    assert json.loads(Fernet(json.loads(key)["fernet_key"]).decrypt(json.loads(sealed))) == {"value": "s-1"}
    monkeypatch.setenv("PREFECT_HOME", str(project.folder / "elsewhere"))
    assert read_secret_at(project.url, "door-secret") is None


@pytest.mark.slow
def test_who_has_the_auth_string_runs_commands(project: Project, tmp_path: Path) -> None:
    """A deployment names the command that the worker runs, as the user whose worker it is."""
    [known] = [each for each in project.find("deployments") if each["name"] == "maintain"]
    made = tmp_path / "made"
    with browser(base_url=project.url, auth=project.sign_in) as who:
        asked = {
            "name": "of somebody", "flow_id": known["flow_id"], "work_pool_name": "syncs", "entrypoint": known["entrypoint"],
            "job_variables": {"command": f"touch {made}"},
        }  # fmt: skip
        deployment = who.post("/deployments/", json=asked).raise_for_status().json()["id"]
        try:
            who.post(f"/deployments/{deployment}/create_flow_run", json={"state": {"type": "SCHEDULED"}}).raise_for_status()
            until(made.exists)
        finally:
            who.delete(f"/deployments/{deployment}")
    assert made.stat().st_uid == os.getuid()
