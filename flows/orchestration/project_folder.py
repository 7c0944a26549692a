"""Starts flow runs in the project's folder: a process worker starts them in a temporary one (3.9.1).

Prefect itself would put the folder at the head of Python's path, where a user's `jobs/` or `clients/` would hide ours. So the
pull step only says which folder it is, and the module of the flow goes there.
"""

import os
from pathlib import Path

from flows.errors import UsageError
from flows.project.env_file import load_env_file

VARIABLE = "SYNCS_FOLDER"
"""The folder on this host, where it is not the one that was deployed from."""

PULL_STEP = f"{__name__}.find_folder"
"""The name of the pull step in deployments. Those that have it were made from declarations."""

_OF_THIS_RUN = "_SYNCS_FOLDER_OF_THIS_RUN"


def find_folder(directory: str) -> dict[str, str]:
    """Pull step of deployments: find the project's folder for the flow run that begins.

    Args:
        directory: the folder that was deployed from. `SYNCS_FOLDER` in the worker's environment says otherwise.

    Raises:
        UsageError: there is no such folder on this host.
    """
    folder = Path(os.environ.get(VARIABLE) or directory).expanduser().absolute()
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder} on this host; set {VARIABLE} in the environment of its worker")
    os.environ[_OF_THIS_RUN] = str(folder)
    return {}


def enter_folder() -> None:
    """Go to the folder that the pull step has found, and read its `.env`. Without a pull step, stay in this folder.

    Raises:
        SettingsError: the `.env` cannot be read.
    """
    if folder := os.environ.pop(_OF_THIS_RUN, None):
        os.chdir(folder)
    load_env_file()
