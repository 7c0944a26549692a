"""Identifies processes across restarts and hosts, so that a claim of a process that has ended can be taken over at once.

A process id alone proves nothing: after a crash or a reboot it may belong to another process. So an identity also holds the start
time of the process and, for claims, the host, its boot and its PID namespace.
"""

import os
import socket
import sys
from functools import cache
from pathlib import Path

import psutil

UNKNOWN = "-"
"""In place of a start time or of a boot that this system does not reveal."""


def start_of(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot, `UNKNOWN` if it cannot be read, `None` if it has ended.

    A zombie has ended: it holds nothing any more, and only waits for its parent to notice. On systems other than Linux psutil
    derives the start time from the wall clock, which may be set, so there it proves nothing and is `UNKNOWN`.
    """
    try:
        while True:
            process = psutil.Process(pid)
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return None
            if not sys.platform.startswith("linux"):
                return UNKNOWN
            # psutil adds the time of the boot, which changes when the clock is set between the two calls.
            booted = psutil.boot_time()
            ticks = round((process.create_time() - booted) * os.sysconf("SC_CLK_TCK"))
            if booted == psutil.boot_time():
                return str(ticks)
    except psutil.NoSuchProcess:
        # If /proc hides the processes of other users (hidepid), psutil does not find them either.
        return UNKNOWN if _has_pid(pid) else None
    except psutil.AccessDenied:
        return UNKNOWN


def _has_pid(pid: int) -> bool:
    if sys.platform == "win32":  # where os.kill(pid, 0) ends the process
        return psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@cache
def boot_id() -> str:
    """Return an id of the host's present boot, `UNKNOWN` on systems other than Linux."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return UNKNOWN


@cache
def _host() -> str:
    """Return the name of the space in which a process id is unique: host, boot and PID namespace."""
    try:
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return f"{socket.gethostname()}:{UNKNOWN}:{UNKNOWN}"
    # The boot, because copies of one machine have the same name, and the same number for their first PID namespace.
    return f"{socket.gethostname()}:{boot_id()}:{namespace}"


def this_worker() -> str:
    """Return the identity of this process: host, boot, PID namespace, process id and start time, separated by colons."""
    return _own_identity(os.getpid())


@cache  # psutil takes 0.7 ms
def _own_identity(pid: int) -> str:
    return f"{_host()}:{pid}:{start_of(pid)}"


def is_gone(worker: str) -> bool:
    """Tell whether a process is known to have ended.

    Args:
        worker: its identity, from `this_worker`.

    Returns:
        `False` also if it cannot be known, on another host or in another PID namespace; then the lease decides.
    """
    host_and_pid, _, start = worker.rpartition(":")
    host, _, pid = host_and_pid.rpartition(":")
    if host != _host() or not pid.isdigit():
        return False
    found = start_of(int(pid))
    if found is None:
        return True
    return UNKNOWN not in (found, start) and found != start
