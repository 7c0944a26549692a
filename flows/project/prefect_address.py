"""Finds this project's Prefect server: from the environment, the state file of `syncs up`, or the active Prefect profile.

Does not import Prefect, which takes a second.
"""

import json
import os
import tomllib
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.project.loopback import is_loopback
from flows.project.private_files import write_private
from flows.project.processes import Process

STATE_FILE = "syncs-up.json"

UP_PROFILE = "syncs"
"""The Prefect profile that `syncs up` writes."""

OPEN_SERVER = "this Prefect server asks nobody to sign in: who reaches it can run commands on its workers"
"""What is said of a server that is open."""


@dataclass(frozen=True, slots=True)
class UpState:
    """The server and worker that `syncs up` started: the content of the state file."""

    port: int
    #: Of the API, as in PREFECT_API_URL.
    url: str
    #: When the server was started, ISO 8601 in UTC.
    since: str
    server: Process
    worker: Process | None = None


def prefect_home() -> Path:
    """Return the folder of Prefect's state: PREFECT_HOME, or `.prefect` in the working directory."""
    found = os.environ.get("PREFECT_HOME")
    return Path(found).expanduser().absolute() if found else Path.cwd() / ".prefect"


def read_state(home: Path) -> UpState | None:
    """Return the content of the state file, `None` if there is none or it cannot be read."""
    try:
        document: dict[str, Any] = json.loads((home / STATE_FILE).read_text())
        worker = document["worker"]
        return UpState(
            port=int(document["port"]),
            url=str(document["url"]),
            since=str(document["since"]),
            server=Process(**document["server"]),
            worker=None if worker is None else Process(**worker),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(home: Path, state: UpState | None) -> None:
    """Replace the state file atomically; `None` removes it."""
    path = home / STATE_FILE
    if state is None:
        path.unlink(missing_ok=True)
        return
    write_private(path, json.dumps(asdict(state), indent=2) + "\n")


def api_url() -> str | None:
    """Return the URL of the Prefect API that this project should use.

    PREFECT_API_URL comes first, then a running server that `syncs up` started, then the active profile. `None` if no server is
    configured. `is_reachable` tells whether one answers.
    """
    if found := os.environ.get("PREFECT_API_URL"):
        return found
    state = read_state(prefect_home())
    if state is not None and state.server.is_alive():
        return state.url
    return _profile_url()


def _profile_url() -> str | None:
    # Without PREFECT_HOME, Prefect reads the profiles in the user's home.
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return None
    active = os.environ.get("PREFECT_PROFILE") or document.get("active")
    # That of `syncs up` names a server of which the state file tells whether it runs.
    profile = {} if active == UP_PROFILE else document.get("profiles", {}).get(active, {})
    found = profile.get("PREFECT_API_URL") if isinstance(profile, dict) else None
    return found if isinstance(found, str) and found else None


def is_reachable(url: str, timeout: float = 5.0) -> bool:
    """Tell whether a Prefect API answers at this URL within so many seconds. Requests `/health`, which needs no sign-in.

    One that is gone refuses the connection at once; the seconds are for one that is busy.
    """
    return _read(f"{url.rstrip('/')}/health", timeout) == b"true"


def is_open(url: str, timeout: float = 5.0) -> bool:
    """Tell whether a Prefect API answers at this URL who has not signed in."""
    return _read(f"{url.rstrip('/')}/version", timeout) is not None


def _read(url: str, timeout: float) -> bytes | None:
    """Return the beginning of a good answer to a request without credentials, `None` where there is none."""
    if not url.startswith(("http://", "https://")):
        return None
    # A proxy from the environment cannot reach this machine's loopback.
    proxies = [urllib.request.ProxyHandler({})] if is_loopback(url) else []
    opener = urllib.request.build_opener(*proxies)
    try:
        with opener.open(url, timeout=timeout) as response:
            return bytes(response.read(16).strip()) if response.status == 200 else None
    except (OSError, ValueError, urllib.error.URLError):
        return None
