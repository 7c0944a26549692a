"""Reads the name of the project from its `pyproject.toml`."""

import tomllib
from pathlib import Path

from flows.errors import SettingsError


def name_in(file: Path) -> str | None:
    """Return the name that a `pyproject.toml` says; `None` where there is no such file or it says none.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        found = tomllib.loads(file.read_text("utf-8")).get("project", {}).get("name")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise SettingsError(f"{file.absolute()} cannot be read; set SYNCS_PROJECT, or mend it") from error
    return found if isinstance(found, str) and found else None
