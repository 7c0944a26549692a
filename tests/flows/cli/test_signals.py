"""How `syncs` ends while a thread is still at something that nobody waits for."""

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import atexit, sys, threading, time
    from flows.cli import main

    class Torn:
        def __del__(self):
            sys.stderr.write("torn down\\n")

    torn = Torn()
    atexit.register(lambda: sys.stderr.write("registered\\n"))
    threading.Thread(target=lambda: (time.sleep(0.3), sys.stderr.write("waited for\\n")), name="other").start()
    threading.Thread(target=time.sleep, args=(60,), name={name!r}, daemon=True).start()
    main({arguments!r})
"""


@pytest.mark.parametrize(("name", "torn"), [("syncs-work-queues", False), ("somebody's", True)])
@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["pause", "nothing"], 2)])
def test_an_end_with_a_thread_left(name: str, torn: bool, arguments: list[str], code: int) -> None:
    """Exit code, output, other threads and what was registered are as ever; only the teardown is left out, and only for ours."""
    program = textwrap.dedent(PROGRAM).format(name=name, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert bool(done.stdout) == (code == 0)
    lines = done.stderr.splitlines()
    assert "waited for" in lines
    assert lines[-2:] == ["registered", "torn down"] if torn else lines[-1:] == ["registered"]


HANGS = """
    import os, signal, sys, threading, time
    from flows.cli import signals

    signals.END_WITHIN = 1.0
    stuck = threading.Event()
    with signals.stop_on_signals("first", "second") as request:
        os.kill(os.getpid(), signal.SIGTERM)
        request.stop.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)
        request.now.wait(60)
        while {hangs!r}:
            time.sleep(0.01)
    sys.exit(0)
"""


@pytest.mark.rows("T18", "M18")
@pytest.mark.parametrize(("hangs", "code", "said"), [(True, 143, "not ended within 1 s"), (False, 0, "second")])
def test_the_second_signal_has_a_bound(hangs: bool, code: int, said: str) -> None:
    """A process that hangs in a statement ends all the same, with the code of the signal; any other keeps its own."""
    program = textwrap.dedent(HANGS).format(hangs=hangs)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, said in done.stderr.splitlines()[-1]) == (code, True), done.stderr


LOCKED = """
    import os, signal, sys, threading, time
    from flows.cli import signals

    class Torn(threading.Event):
        def is_set(self):
            # A signal in the middle of an event's own lock.
            with self._cond:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0)
            return super().is_set()

    request = signals.StopRequest(stop=Torn())
    signals.StopRequest = lambda: request
    with signals.stop_on_signals("first", "second"):
        request.stop.is_set()
        request.stop.wait(60)
    sys.exit(0 if threading.Event.is_set(request.stop) else 1)
"""


@pytest.mark.rows("T18", "M18")
def test_a_signal_inside_a_lock_is_heard() -> None:
    """A signal may come while the main thread holds the lock of the very event that it sets."""
    program = textwrap.dedent(LOCKED)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "first" in done.stderr
