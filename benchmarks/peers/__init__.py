"""Creates the virtual environment of the programs from PyPI that the store and the engine are compared with."""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
REQUIREMENTS = FOLDER / "requirements.txt"
HOME = FOLDER.parents[1] / ".venv-peers"
PYTHON = HOME / "bin" / "python"
_STAMP = HOME / "requirements.txt"
_TIMEOUT = 180.0
"""Seconds for the installation, which normally takes about fifteen."""


def missing() -> str | None:
    """Create the environment if it does not exist; return in one line why that failed, or `None`."""
    wanted = REQUIREMENTS.read_text()
    if PYTHON.exists() and _STAMP.exists() and _STAMP.read_text() == wanted:
        return None
    print("installing the peers into .venv-peers, once", file=sys.stderr, flush=True)
    shutil.rmtree(HOME, ignore_errors=True)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--only-binary", ":all:"]
    try:
        for command in ([sys.executable, "-m", "venv", str(HOME)], [*pip, "--requirement", str(REQUIREMENTS)]):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.CalledProcessError as error:
        return (error.stderr.strip().splitlines() or [f"pip ended with {error.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    _STAMP.write_text(wanted)
    return None
