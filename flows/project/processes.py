"""Starts background processes, recognises them later and ends them.

A process id alone proves nothing: after a crash or a reboot it can belong to another process. Here a process is identified by its
id and its start time, and no signal is sent if the start time differs.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.project.private_files import make_private, make_private_folder, private_opener
from jobs import process_identity

_POLL = 0.05

_spawned: list[subprocess.Popen[bytes]] = []
"""Kept so that Python does not warn that a child is still running when its `Popen` is deleted: it is meant to keep running."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was seen alive: its id and what `start_of` returned for it."""

    pid: int
    started: str

    def is_alive(self) -> bool:
        """Tell whether this process still runs, and the id does not belong to another one."""
        return start_of(self.pid) == self.started

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or to the process group that it leads, unless the process has ended."""
        if not self.is_alive():
            return
        try:
            if group and os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def wait(self, seconds: float) -> bool:
        """Wait until the process has ended, at most so many seconds, and return whether it has."""
        # Not psutil's `wait`, for which a zombie still runs: flow runs stay zombies while their worker is stopped.
        deadline = time.monotonic() + seconds
        while self.is_alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        return True

    def end(self, *, grace: float) -> bool:
        """Send SIGTERM, and after `grace` seconds SIGKILL to the process and its group.

        Returns:
            Whether it ended by itself.
        """
        self.signal(signal.SIGTERM)
        if self.wait(grace):
            return True
        self.signal(signal.SIGKILL, group=True)
        self.wait(5)
        return False


def start_of(pid: int) -> str | None:
    """Return a text that tells a process from others with the same id: boot and start time. `None` if it has ended."""
    started = process_identity.start_of(pid)
    if started == process_identity.UNKNOWN:
        # On macOS the kernel has kept the time; if the clock is set, it stays what it was.
        with contextlib.suppress(psutil.Error):
            return f"{psutil.Process(pid).create_time():.0f}"
    return None if started is None else f"{process_identity.boot_id()}-{started}"


def children_of(pid: int) -> list[Process]:
    """Return the living processes whose parent is this one."""
    try:
        children = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []
    found = [(child.pid, start_of(child.pid)) for child in children]
    return [Process(child, started) for child, started in found if started is not None]


def spawn(command: list[str], *, environment: Mapping[str, str], log: Path, directory: Path) -> Process:
    """Start a process that outlives this one: in a session of its own, without standard input, its output appended to a log file.

    Args:
        command: the program and its arguments.
        environment: its whole environment.
        log: the file for its output; it and its folder are created for their owner alone.
        directory: its working directory.
    """
    make_private_folder(log.parent)
    make_private(log)
    with open(log, "ab", opener=private_opener) as output:
        # A shell without job control starts `cmd &` with SIGINT ignored, and children inherit that. Prefect's SIGTERM handler
        # sends itself SIGINT (3.9.1), so the server would never stop. exec resets handlers, but not ignored signals.
        before = signal.getsignal(signal.SIGINT)
        ignored = before is signal.SIG_IGN and threading.current_thread() is threading.main_thread()
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            child = subprocess.Popen(  # noqa: S603 - this interpreter with our own arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
            )
        finally:
            if ignored:
                signal.signal(signal.SIGINT, before)
    _spawned.append(child)
    started = start_of(child.pid)
    return Process(child.pid, started or "gone")
