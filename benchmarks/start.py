"""Measures the seconds from the start of a command of `syncs` to its end."""

import os
import subprocess
import sys
import time
from pathlib import Path

_EMPTY = '''
"""A sync whose listing is empty."""
from contextlib import nullcontext
from clients import Page
from flows import Client, Sync

empty = Sync("empty", Client("empty", connect=lambda settings: nullcontext()), listing=lambda conn, since: iter([Page([])]))
'''

#: The console script; at its end it prints whether Prefect was imported.
_PROGRAM = """
import atexit, sys
atexit.register(lambda: print("prefect" in sys.modules, file=sys.stderr))
from flows.cli import main
sys.exit(main())
"""


def _command(*words: str) -> tuple[float, bool]:
    """Run `syncs` with these words; return its seconds and whether it imported Prefect."""
    environment = {**os.environ, "SYNCS_PATH": str(Path("empty.py").absolute())}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *words], env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    return seconds, done.stderr.splitlines()[-1] == "True"


def commands() -> dict[str, float]:
    """Return the seconds of `syncs list`, and of two `syncs run` of an empty listing; the first creates the tables."""
    Path("empty.py").write_text(_EMPTY)
    listed, with_prefect = _command("list")
    first, _ = _command("run", "empty", "--json")
    run, _ = _command("run", "empty", "--json")
    return {"list": listed, "list_imports_prefect": float(with_prefect), "first_run": first, "run": run}
