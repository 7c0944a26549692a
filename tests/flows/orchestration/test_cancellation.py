"""Signals ask a run to stop before they insist."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from flows.orchestration.cancellation import in_thread, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_asks_and_handlers_return(number: signal.Signals) -> None:
    """The first one sets the event; afterwards everything is as before, so that a second one insists."""
    before = signal.getsignal(number)
    stop = threading.Event()
    with stop_on_signals(stop):
        assert signal.getsignal(number) is not before
        os.kill(os.getpid(), number)
        assert stop.wait(60)
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_inactive_changes_nothing() -> None:
    """A caller with handlers of its own keeps them."""
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals(threading.Event(), active=False):
        assert signal.getsignal(signal.SIGINT) is before


def test_cancelled_caller_lets_the_work_end() -> None:
    """The work hears that it should stop, and is not left behind in its thread."""
    stop, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        stop.wait(60)
        ended.set()

    async def main() -> None:
        running = asyncio.ensure_future(in_thread(work, stop))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ended.is_set()

    asyncio.run(main())


LOCKED = """
    import os, signal, threading, time
    from flows.orchestration.cancellation import stop_on_signals

    stop = threading.Event()
    with stop_on_signals(stop):
        # A signal in the middle of the event's own lock.
        with stop._cond:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)
        stop.wait(30)
    raise SystemExit(0 if stop.is_set() else 1)
"""


def test_a_signal_inside_the_lock_of_the_event_is_heard() -> None:
    """A signal may come while the main thread holds the lock of the very event that it sets."""
    program = textwrap.dedent(LOCKED)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
