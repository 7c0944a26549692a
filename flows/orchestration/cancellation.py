"""Stops the work of a flow run cleanly when it gets a signal or is cancelled."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event, *, active: bool = True) -> Iterator[None]:
    """While the block runs, the first SIGTERM or SIGINT sets `stop`; the second one gets the handler of before.

    Prefect's own handler raises in the middle of the running code (3.9.1); the running jobs would then wait for the end of their
    leases.

    Args:
        stop: the work checks it, and ends when it is set.
        active: with `False` nothing is changed, and neither in another thread than the main one.
    """
    if not active or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # A handler may interrupt its thread inside the lock of `stop`, so it may take none; `put` of a SimpleQueue is made for that.
    heard: SimpleQueue[bool] = SimpleQueue()
    listener = threading.Thread(target=_set_when_heard, args=(heard, stop), name="signals", daemon=True)
    listener.start()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def set_stop(*_: object) -> None:
        heard.put(True)
        restore()

    for number in _SIGNALS:
        signal.signal(number, set_stop)
    try:
        yield
    finally:
        restore()
        heard.put(False)
        listener.join(1)


def _set_when_heard(heard: SimpleQueue[bool], stop: threading.Event) -> None:
    if heard.get():
        stop.set()


async def in_thread(work: Callable[[], T], stop: threading.Event) -> T:
    """Run `work` in a thread, in a copy of this context. If the caller is cancelled, set `stop` and let the work end first."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(Exception):
            await running
        raise
