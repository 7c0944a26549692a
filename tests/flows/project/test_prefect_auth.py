"""The auth string of the server that `syncs up` starts: made once, private, and for that server alone."""

import os
import stat
from pathlib import Path

import pytest

from flows.project.prefect_address import UpState, write_state
from flows.project.prefect_auth import auth_string_for, make_auth_string, read_auth_string
from flows.project.processes import Process, start_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty PREFECT_HOME."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


def test_it_is_made_once_and_private(home: Path) -> None:
    """The string is long, a user and a password, the same the next time, and in a file of mode 0600 even after a chmod."""
    assert read_auth_string(home) is None
    found = make_auth_string(home)
    (home / "auth-string").chmod(0o644)
    assert make_auth_string(home) == read_auth_string(home) == found
    user, _, password = found.partition(":")
    assert (user, len(password)) == ("syncs", 32)
    assert stat.S_IMODE((home / "auth-string").stat().st_mode) == 0o600


def test_homes_have_different_ones(home: Path) -> None:
    """No two projects share one."""
    other = home / "other"
    other.mkdir()
    found = make_auth_string(home)
    assert make_auth_string(other) != found
    # And who deletes it gets a new one.
    (home / "auth-string").unlink()
    assert make_auth_string(home) != found


@pytest.mark.parametrize("text", ["", "no-colon", "a:b\nc:d", "syncs:\xff"])
def test_broken_file_is_replaced(home: Path, text: str) -> None:
    """What a crash left half written is no auth string."""
    (home / "auth-string").write_text(text, encoding="latin-1")
    assert read_auth_string(home) is None
    assert make_auth_string(home).startswith("syncs:")


def _started(home: Path, process: Process) -> None:
    write_state(home, UpState(port=4200, url="http://127.0.0.1:4200/api", since="now", server=process))


@pytest.mark.parametrize(
    "url",
    [
        None, "", "http://127.0.0.1:4201/api", "https://127.0.0.1:4200/api", "http://127.0.0.1/api", "http://evil.example:4200/api",
        "http://127.0.0.1:4200@evil.example/api", "http://127.0.0.1.evil.example:4200/api", "http://localhost:4200/api",
        "http://127.0.0.2:4200/api", "http://[::1]:4200/api", "http://[", "http://127.0.0.1:x/api",
    ],
)  # fmt: skip
def test_no_other_server_gets_it(home: Path, url: str | None) -> None:
    """Another host, port or scheme, and what only looks like ours, gets nothing."""
    make_auth_string(home)
    _started(home, Process(os.getpid(), start_of(os.getpid()) or ""))
    assert auth_string_for(url) is None


def test_the_server_gets_it_while_it_runs(home: Path) -> None:
    """It is for the server's address; once the server has ended, another program may listen there."""
    found = make_auth_string(home)
    assert auth_string_for("http://127.0.0.1:4200/api") is None
    _started(home, Process(os.getpid(), start_of(os.getpid()) or ""))
    assert auth_string_for("http://127.0.0.1:4200/api") == auth_string_for("http://127.0.0.1:4200/api/") == found
    _started(home, Process(os.getpid(), "another-boot"))
    assert auth_string_for("http://127.0.0.1:4200/api") is None
