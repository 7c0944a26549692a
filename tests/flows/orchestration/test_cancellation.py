"""Signals ask a run to stop before they insist."""

import asyncio
import os
import signal
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
