"""Processes in the background: recognised by id and start time, ended by id, never mistaken for another."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from flows.project.processes import Process, children_of, spawn, start_of
from tests.support.prefect_project import ROOT, until

_SLEEP = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
_STUBBORN = [
    sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)",
]  # fmt: skip


def _spawn(command: list[str], folder: Path) -> Process:
    log = folder / "logs" / "it.log"
    process = spawn(command, environment=os.environ, log=log, directory=folder)
    until(lambda: log.read_text() == "begun\n")
    return process


def test_spawned_process_is_known_and_ended(tmp_path: Path) -> None:
    """It lives, leads a session of its own, is our child, and ends when asked."""
    process = _spawn(_SLEEP, tmp_path)
    assert process.is_alive()
    assert process in children_of(os.getpid())
    assert os.getsid(process.pid) == process.pid
    assert process.end(grace=60)
    assert not process.is_alive()


def test_stubborn_process_is_killed(tmp_path: Path) -> None:
    """One that ignores SIGTERM is killed after the grace."""
    process = _spawn(_STUBBORN, tmp_path)
    assert not process.end(grace=0.2)
    assert not process.is_alive()


def test_stranger_with_the_same_id_gets_no_signal(tmp_path: Path) -> None:
    """A process id that was given to another process is left alone."""
    process = _spawn(_SLEEP, tmp_path)
    stranger = Process(process.pid, "earlier")
    assert not stranger.is_alive()
    assert stranger.end(grace=0)
    stranger.signal(signal.SIGKILL)
    time.sleep(0.1)
    assert process.is_alive()
    process.end(grace=60)


def test_no_process_has_no_start() -> None:
    """A free id has no start time; a child that ended and was not waited for counts as gone."""
    assert start_of(2**22 + 1) is None
    child = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: start_of(child.pid) is None)
    child.wait()


def test_sigint_works_although_the_shell_ignores_it(tmp_path: Path) -> None:
    """`cmd &` in a script ignores SIGINT and children inherit that; Prefect could then not be stopped."""
    code = f"""
import os, pathlib
from flows.project.processes import spawn
folder = pathlib.Path({str(tmp_path)!r})
print(spawn({_SLEEP!r}, environment=os.environ, log=folder / "it.log", directory=folder).pid)
"""
    ignoring = f"trap '' INT; exec {sys.executable} -c \"$1\""
    done = subprocess.run(["/bin/sh", "-c", ignoring, "sh", code], cwd=ROOT, capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    started = start_of(pid)
    assert started is not None
    process = Process(pid, started)
    until(lambda: (tmp_path / "it.log").read_text() == "begun\n")
    process.signal(signal.SIGINT)
    assert process.wait(60)
