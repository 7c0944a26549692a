"""Ending a flow run cleanly: the first signal asks the work to stop, the second one insists. Knows no engine and no Prefect."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event, *, active: bool = True) -> Iterator[None]:
    """Within it, the first SIGTERM or SIGINT sets `stop`; the second one does what it did before.

    Prefect's own handler raises in the middle of whatever runs, and the jobs in hand would wait for the end of their leases.

    Args:
        stop: is set, and for the work to look at.
        active: `False` changes nothing, as does any thread but the main one.
    """
    if not active or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(*_: object) -> None:
        stop.set()
        restore()

    for number in _SIGNALS:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()


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
