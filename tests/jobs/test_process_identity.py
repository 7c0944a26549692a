"""jobs.process_identity: who holds a claim, and whether that process is known to be gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from jobs.process_identity import is_gone, this_worker
from tests.support.store_helpers import ELSEWHERE, environment


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a process that tells its worker name and waits."""
    script = "from jobs.process_identity import this_worker; print(this_worker(), flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_this_process_lives() -> None:
    """A process is not gone to itself, and its name is stable."""
    assert not is_gone(this_worker())
    assert this_worker() == this_worker()
    assert str(os.getpid()) in this_worker().split(":")


def test_a_live_process_is_not_gone(child: tuple[subprocess.Popen[str], str]) -> None:
    """Nor is a stopped one: it may wake."""
    process, name = child
    assert not is_gone(name)
    process.send_signal(signal.SIGSTOP)
    assert not is_gone(name)


def test_a_killed_process_is_gone_before_its_parent_reaps_it(child: tuple[subprocess.Popen[str], str]) -> None:
    """A zombie holds nothing any more; and so it stays when it is reaped."""
    process, name = child
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert is_gone(name)
    process.wait()
    assert is_gone(name)


def test_another_process_under_the_same_id_is_not_the_worker(child: tuple[subprocess.Popen[str], str]) -> None:
    """A reused process id has another start time."""
    _, name = child
    who, _, start = name.rpartition(":")
    assert is_gone(f"{who}:{int(start) - 1}")


@pytest.mark.parametrize("name", [ELSEWHERE, "", "a", "a:b", "::::", "elsewhere:x:y", "host:with:colons:1:2:3"])
def test_what_cannot_be_known_is_not_gone(name: str) -> None:
    """Another host, or a name that is none: there the lease decides."""
    assert not is_gone(name)


def test_another_pid_namespace_is_another_host(child: tuple[subprocess.Popen[str], str]) -> None:
    """A container of the same name numbers its processes by itself."""
    process, name = child
    process.kill()
    process.wait()
    parts = name.split(":")
    parts[-3] = "1"
    assert not is_gone(":".join(parts))
