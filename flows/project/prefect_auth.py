"""Makes and finds the auth string of the Prefect server that `syncs up` starts. It allows everything on that server."""

import secrets
from pathlib import Path
from urllib.parse import urlsplit

from flows.project.prefect_address import UpState, prefect_home, read_state
from flows.project.private_files import make_private, write_private

AUTH_FILE = "auth-string"
_USER = "syncs"


def make_auth_string(home: Path) -> str:
    """Return the auth string of a Prefect home; the first time, make one and store it in a file of mode 0600.

    Args:
        home: PREFECT_HOME.

    Raises:
        OSError: the file cannot be written.
    """
    found = read_auth_string(home)
    if found is None:
        found = f"{_USER}:{secrets.token_urlsafe(24)}"
        write_private(home / AUTH_FILE, found + "\n")
    make_private(home / AUTH_FILE)
    return found


def read_auth_string(home: Path) -> str | None:
    """Return the auth string of a Prefect home, `None` if it has none."""
    try:
        found = (home / AUTH_FILE).read_text().strip()
    except (OSError, ValueError):
        return None
    return found if ":" in found and found.isascii() and found.isprintable() else None


def auth_string_for(url: str | None) -> str | None:
    """Return the auth string for an API, if it is that of this project's server and the server runs.

    Another program may listen on the port when the server has ended, and gets nothing.

    Args:
        url: of the API.
    """
    home = prefect_home()
    state = None if url is None else read_state(home)
    if url is None or state is None or not _is_same(url, state) or not state.server.is_alive():
        return None
    return read_auth_string(home)


def _is_same(url: str, state: UpState) -> bool:
    try:
        parts = urlsplit(url)
        # `localhost` may resolve to ::1, where anybody else may listen.
        found = f"{parts.scheme}://{parts.hostname}:{parts.port}"
    except ValueError:
        return False
    return found == state.url.removesuffix("/api")
