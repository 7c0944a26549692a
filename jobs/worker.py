"""Who holds a claim. Knows how to name this process, and how to tell that a named one is gone."""

import os
import socket
import sys
from functools import cache
from pathlib import Path


def _start_of(pid: int) -> str | None:
    """Return the start time of a process in ticks since boot, "-" where this system does not say, `None` if it is gone."""
    if not sys.platform.startswith("linux"):
        return "-"
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        # Where /proc hides the processes of others (hidepid), this is no proof.
        return "-" if _exists(pid) else None
    # The second field is the program's name in parentheses and may hold spaces: count from the last parenthesis.
    fields = stat.rpartition(")")[2].split()
    # A zombie was killed and only waits for its parent to notice; it holds nothing any more.
    return None if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@cache
def _host() -> str:
    """Name the space in which a process id means one process: the host, and on Linux its boot and the PID namespace."""
    try:
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
        # Copies of one machine share its name, and their first PID namespaces have one number.
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        space = boot = "-"
    return f"{socket.gethostname()}:{boot}:{space}"


def this_worker() -> str:
    """Return the name of this process: host, boot, PID namespace, process id and start time, with colons between."""
    pid = os.getpid()
    return f"{_host()}:{pid}:{_start_of(pid)}"


def is_gone(worker: str) -> bool:
    """Tell whether the process is known to have ended.

    `False` also where nothing can be known: another host, another PID namespace. There the lease decides.
    """
    host, _, process = worker.rpartition(":")[0].rpartition(":")
    start = worker.rpartition(":")[2]
    if host != _host() or not process.isdigit():
        return False
    if sys.platform == "win32":  # os.kill(pid, 0) ends a process there
        return False
    found = _start_of(int(process))
    if found == "-":
        return not _exists(int(process))
    return found != start
