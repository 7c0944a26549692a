"""Processes in the background: starts them, recognises them later, ends them. Knows nothing of Prefect.

A process id alone proves nothing: after a crash or a reboot it can belong to a stranger. A process is known here by its id *and*
its start time, and no signal goes to one whose start time differs.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_POLL = 0.05

_spawned: list[subprocess.Popen[bytes]] = []
"""Kept so that Python does not complain of a child that was left running, which is what it was started for."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was seen alive: its id, and when it started, in the words of its system."""

    pid: int
    started: str

    def is_alive(self) -> bool:
        """Tell whether this very process still runs."""
        return start_of(self.pid) == self.started

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or to the group that it leads, if it still is the one that was meant."""
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
        """Wait until the process has ended, at most so many seconds; say whether it has."""
        deadline = time.monotonic() + seconds
        while self.is_alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        return True

    def end(self, *, grace: float) -> bool:
        """Ask the process to end, and kill it with its group after `grace` seconds.

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
    """Return when a process started, `None` if there is none. One that has ended and only waits for its parent is none."""
    if sys.platform.startswith("linux"):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            # The boot tells apart two processes with one id and one tick count before and after a reboot.
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        except OSError:
            return None
        # The program's name is in parentheses and may hold spaces: count from the last parenthesis.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else f"{boot}-{fields[19]}"
    found = _ps("-o", "stat=,lstart=", "-p", str(pid)).strip()
    return None if not found or found.startswith("Z") else " ".join(found.split()[1:])


def children_of(pid: int) -> list[Process]:
    """Return the living processes whose parent is this one."""
    found = [(child, start_of(child)) for child, parent in _parents() if parent == pid]
    return [Process(child, started) for child, started in found if started is not None]


def _parents() -> Iterator[tuple[int, int]]:
    if sys.platform.startswith("linux"):  # small images have no `ps`
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])
        return
    for line in _ps("-eo", "pid=,ppid=").splitlines():
        child, parent = line.split()
        yield int(child), int(parent)


def _ps(*arguments: str) -> str:
    return subprocess.run(["/bin/ps", *arguments], capture_output=True, text=True, check=False).stdout  # noqa: S603  # our words


def spawn(command: list[str], *, environment: Mapping[str, str], log: Path, directory: Path) -> Process:
    """Start a process that outlives this one: own session, no standard input, output appended to a log file.

    Args:
        command: the program and its arguments.
        environment: all of it.
        log: where its output goes; its folder is made.
        directory: its working directory.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        # A shell without job control starts `cmd &` with SIGINT ignored, children inherit that, and Prefect's SIGTERM handler
        # works by sending itself SIGINT: the server would never stop. Handlers, unlike "ignored", are reset by exec.
        before = signal.getsignal(signal.SIGINT)
        ignored = before is signal.SIG_IGN and threading.current_thread() is threading.main_thread()
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            child = subprocess.Popen(  # noqa: S603  # this interpreter, with our words
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
