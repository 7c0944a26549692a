"""Reads the project's `.env` into the environment of this process; what the environment has already wins.

The file is found in the working directory. A worker of `syncs up` starts with the values of that moment; its flow runs read the
file again, so that a changed value needs no restart.
"""

import os
from io import StringIO
from pathlib import Path

from flows.errors import SettingsError

FILE = ".env"

FROM_FILE = "_SYNCS_ENV_FILE_NAMES"
"""The variable that tells processes started from this one which variables come from the file, so that they read them anew."""


def load_env_file(folder: Path | None = None) -> None:
    """Set the variables of the file that the environment does not have, and those that an earlier reading has set.

    Args:
        folder: the project's; by default the working directory.

    Raises:
        SettingsError: the file cannot be read. The message contains no value.
    """
    path = (folder or Path.cwd()) / FILE
    # A virtual environment may have this name.
    if not path.is_file():
        return
    # Only where there is a file: the import takes a while, and most commands shall be quick.
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsError(f"{path} cannot be read: {reason}") from error
    # Otherwise it would only be logged, and the variable would be missing.
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            raise SettingsError(f"{path}, line {binding.original.line}: this is not NAME=value")
    found = {name: value for name, value in dotenv_values(stream=StringIO(text)).items() if value is not None}
    before = {name for name in os.environ.get(FROM_FILE, "").split(",") if name}
    names = [name for name in found if name in before or name not in os.environ]
    for name in before - found.keys():
        os.environ.pop(name, None)
    os.environ.update({name: found[name] for name in names})
    if names or before:
        os.environ[FROM_FILE] = ",".join(names)
