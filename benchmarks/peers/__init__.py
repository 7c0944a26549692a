"""The queues that the store is held against, from PyPI, in an environment of their own. Knows how it is made, not what for."""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
REQUIREMENTS = FOLDER / "requirements.txt"
HOME = FOLDER.parents[1] / ".venv-peers"
PYTHON = HOME / "bin" / "python"
_STAMP = HOME / "requirements.txt"
_PATIENCE = 180.0
"""Seconds for an installation; with an index that answers it takes about fifteen."""


def missing() -> str | None:
    """Make the environment where there is none; say in one line why there is none if it cannot be made."""
    wanted = REQUIREMENTS.read_text()
    if PYTHON.exists() and _STAMP.exists() and _STAMP.read_text() == wanted:
        return None
    print("installing the peers into .venv-peers, once", file=sys.stderr, flush=True)
    shutil.rmtree(HOME, ignore_errors=True)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--only-binary", ":all:"]
    try:
        for command in ([sys.executable, "-m", "venv", str(HOME)], [*pip, "--requirement", str(REQUIREMENTS)]):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.CalledProcessError as error:
        return (error.stderr.strip().splitlines() or [f"pip ended with {error.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    _STAMP.write_text(wanted)
    return None
