"""Finding the Prefect server without importing Prefect."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from flows.project.prefect_address import UpState, api_url, is_open, is_reachable, prefect_home, read_state, write_state
from flows.project.processes import Process, start_of
from tests.support.prefect_project import ROOT


def _this_process() -> Process:
    started = start_of(os.getpid())
    assert started is not None
    return Process(os.getpid(), started)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty PREFECT_HOME, with nothing else that names a server."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


def test_nothing_configured_is_no_server(home: Path) -> None:
    """Without variable, state file and profile there is no URL."""
    assert prefect_home() == home
    assert api_url() is None


def test_variable_then_up_then_profile(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest wins: PREFECT_API_URL, what `syncs up` started, the active profile."""
    (home / "profiles.toml").write_text('active = "there"\n[profiles.there]\nPREFECT_API_URL = "http://profile/api"\n')
    assert api_url() == "http://profile/api"
    write_state(home, UpState(port=1, url="http://up/api", since="now", server=_this_process()))
    assert api_url() == "http://up/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://variable/api")
    assert api_url() == "http://variable/api"


def test_state_of_a_stranger_counts_for_nothing(home: Path) -> None:
    """After a reboot the process id belongs to somebody else: another start time, another process."""
    write_state(home, UpState(port=1, url="http://up/api", since="now", server=Process(os.getpid(), "another-boot")))
    assert read_state(home) is not None
    assert api_url() is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"port": 1}', '{"port": "x", "url": "", "since": "", "server": {}, "worker": null}']
)
def test_broken_state_file_is_none(home: Path, text: str) -> None:
    """A file that a crash or a person left half written does not stop anything."""
    (home / "syncs-up.json").write_text(text)
    assert read_state(home) is None
    assert api_url() is None


def test_state_is_read_back(home: Path) -> None:
    """What is written is what is read, and `None` removes it."""
    state = UpState(port=4200, url="http://x/api", since="now", server=_this_process(), worker=Process(1, "a"))
    write_state(home, state)
    assert read_state(home) == state
    write_state(home, None)
    assert list(home.iterdir()) == []


def test_nobody_there_is_said_at_once() -> None:
    """A closed port and a URL that is none are simply not there."""
    assert not is_reachable("http://127.0.0.1:1/api")
    assert not is_reachable("ftp://127.0.0.1/api")
    assert not is_reachable("nonsense")


def test_asking_does_not_import_prefect() -> None:
    """The command line asks here first, and Prefect takes a second to import."""
    code = (
        "import sys; from flows.orchestration import in_process_run, server, server_names; "
        "from flows.project import prefect_address;"
        "prefect_address.api_url(); print('prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(("status", "expected"), [(200, True), (401, False), (403, False), (404, False), (500, False)])
def test_open_server_is_told_by_its_version(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, expected: bool
) -> None:
    """A server is open if it tells its version to who has not signed in; no credentials of the environment go there."""
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:pass")
    httpserver.expect_request("/api/version").respond_with_json("3.9.1", status=status)
    assert is_open(httpserver.url_for("/api")) is expected
    assert all("Authorization" not in request.headers for request, _ in httpserver.log)
    assert not is_open("http://127.0.0.1:1/api")
