"""Where this project's Prefect server is. Knows files, the environment and one HTTP request.

Does not import Prefect, which takes a second: the command line asks here first.
"""

import json
import os
import tomllib
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.orchestration.processes import Process

STATE_FILE = "syncs-up.json"


@dataclass(frozen=True, slots=True)
class UpState:
    """What `syncs up` started and left running: the content of the state file."""

    port: int
    #: The API's, as PREFECT_API_URL has it.
    url: str
    #: When the server was started, ISO 8601 in UTC.
    since: str
    server: Process
    worker: Process | None = None


def prefect_home() -> Path:
    """Return the folder of Prefect's own state: PREFECT_HOME, else `.prefect` in the working directory."""
    found = os.environ.get("PREFECT_HOME")
    return Path(found).expanduser().absolute() if found else Path.cwd() / ".prefect"


def read_state(home: Path) -> UpState | None:
    """Return what the state file says, `None` without one or with one that cannot be read."""
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
    """Replace the state file in one step; `None` removes it."""
    path = home / STATE_FILE
    if state is None:
        path.unlink(missing_ok=True)
        return
    draft = path.with_name(f"{STATE_FILE}.{os.getpid()}")
    draft.write_text(json.dumps(asdict(state), indent=2) + "\n")
    draft.replace(path)


def api_url() -> str | None:
    """Return the URL of the Prefect API that this project should use.

    PREFECT_API_URL wins, then a server that `syncs up` started and that still runs, then the active profile.
    `None` when no server is configured; whether one answers is for `is_there` to say.
    """
    if found := os.environ.get("PREFECT_API_URL"):
        return found
    state = read_state(prefect_home())
    if state is not None and state.server.is_alive():
        return state.url
    return _profile_url()


def _profile_url() -> str | None:
    # Without PREFECT_HOME, Prefect itself looks into the user's home, and so must we.
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return None
    active = os.environ.get("PREFECT_PROFILE") or document.get("active")
    profile = document.get("profiles", {}).get(active, {})
    found = profile.get("PREFECT_API_URL") if isinstance(profile, dict) else None
    return found if isinstance(found, str) and found else None


def is_there(url: str, timeout: float = 1.0) -> bool:
    """Tell whether a Prefect API answers at this URL within so many seconds. It asks `/health`, which needs no sign-in."""
    if not url.startswith(("http://", "https://")):
        return False
    # A proxy from the environment would be asked for a server on loopback.
    proxies = [urllib.request.ProxyHandler({})] if _is_loopback(url) else []
    opener = urllib.request.build_opener(*proxies)
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=timeout) as response:
            return bool(response.status == 200 and response.read(16).strip() == b"true")
    except (OSError, ValueError, urllib.error.URLError):
        return False


def _is_loopback(url: str) -> bool:
    host = url.split("://", 1)[1].split("/", 1)[0]
    return host.startswith(("127.", "localhost", "[::1]"))
