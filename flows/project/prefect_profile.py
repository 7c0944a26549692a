"""Tells the `prefect` command where this project's server is and how to sign in, by a profile in the Prefect home.

In the project's folder, a file `prefect.toml` names that home. Prefect reads it from the working directory.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.project.prefect_address import UP_PROFILE
from flows.project.private_files import write_private

PROFILES_FILE, PROJECT_FILE = "profiles.toml", "prefect.toml"
_URL, _AUTH = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"
_FIRST_LINE = "# Written by `syncs up`, so that `prefect` finds this project's server. Not for version control."


def write_profile(home: Path, url: str, auth_string: str | None) -> str | None:
    """Put address and auth string into the profile; keep other profiles, and what was set in this one.

    Args:
        home: PREFECT_HOME.
        url: of the API.
        auth_string: of the server; without it, the profile has none afterwards.

    Returns:
        Why the `prefect` command does not use the profile; `None` if it does.
    """
    path = home / PROFILES_FILE
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        document = {}
    except (OSError, ValueError):
        return f"{path} cannot be read"
    profiles = _profiles(document)
    active = document.get("active") if document.get("active") in profiles else None
    own = {**profiles.get(UP_PROFILE, {}), _URL: url, _AUTH: auth_string}
    profiles[UP_PROFILE] = {name: value for name, value in own.items() if value is not None}
    text = _toml(active or UP_PROFILE, profiles)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text)
    return f"another profile is active in {path}: prefect profile use {UP_PROFILE}" if active not in (None, UP_PROFILE) else None


def write_project_file(folder: Path, home: Path) -> str | None:
    """Write `prefect.toml` into the project's folder, if the Prefect home lies in it; the file of a person is left as it is.

    Args:
        folder: the project's, the working directory.
        home: PREFECT_HOME. A home elsewhere was chosen by a variable, which the `prefect` command reads too.

    Returns:
        Why the `prefect` command does not find the home; `None` if it does.
    """
    path = folder / PROJECT_FILE
    if home.parent != folder:
        return None
    profiles = home / PROFILES_FILE
    text = f"{_FIRST_LINE}\nhome = {json.dumps(str(home))}\nprofiles_path = {json.dumps(str(profiles))}\n"
    try:
        known = path.read_text(encoding="utf-8") if path.exists() else None
        if known is not None and not known.startswith(_FIRST_LINE):
            named = tomllib.loads(known).get("profiles_path")
            return (
                None
                if named and (folder / named).resolve() == profiles.resolve()
                else f"{path} is yours: put {_lines(text)} into it"
            )
        if known != text:
            path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        return f"{path} cannot be used: {getattr(error, 'strerror', None) or type(error).__name__}"
    return None


def _lines(text: str) -> str:
    return " and ".join(f"`{line}`" for line in text.splitlines()[1:])


def _profiles(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = document.get("profiles")
    return {name: dict(values) for name, values in found.items() if isinstance(values, dict)} if isinstance(found, dict) else {}


def _toml(active: str, profiles: Mapping[str, Mapping[str, Any]]) -> str:
    # A string of JSON is one of TOML. The values of profiles are strings, numbers and booleans.
    lines = [f"active = {json.dumps(active)}"]
    for name, values in profiles.items():
        lines += ["", f"[profiles.{json.dumps(name)}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join([*lines, ""])
