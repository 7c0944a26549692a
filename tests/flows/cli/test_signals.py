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
