"""Ctrl-C and SIGTERM as two wishes: stop soon, and stop now. Knows no command."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

IMPATIENT = 2.0
"""Seconds after the second signal in which further ones change nothing: supervisors like to send several (T18)."""


@dataclass(slots=True)
class Wishes:
    """What the person or the system asked for so far."""

    #: Finish what is in hand, take nothing new.
    stop: threading.Event = field(default_factory=threading.Event)
    #: Put back what is in hand.
    now: threading.Event = field(default_factory=threading.Event)
    #: The first signal that came.
    signal: int | None = None

    @property
    def code(self) -> int | None:
        """The exit code that shells expect after that signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return None if self.signal is None else 128 + self.signal


@contextmanager
def listening(first: str, second: str, *, then: Callable[[int], None] | None = None) -> Iterator[Wishes]:
    """Turn SIGINT and SIGTERM into wishes while the block runs. Only the main thread can.

    Args:
        first: what to say on stderr when the first one comes.
        second: what to say when the second one comes; one that comes `IMPATIENT` seconds later ends the process.
        then: what to do at the second one besides.
    """
    wishes = Wishes()
    insisted = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield wishes
        return

    def hear(number: int, _: FrameType | None) -> None:
        nonlocal insisted
        if wishes.signal is None:
            wishes.signal = number
            wishes.stop.set()
            _say(first)
        elif not wishes.now.is_set():
            wishes.now.set()
            insisted = time.monotonic()
            _say(second)
            if then is not None:
                then(number)
        elif time.monotonic() - insisted >= IMPATIENT:
            os._exit(128 + number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            # Who has been asked to stop is about to end; one more signal on the way out must not spoil the exit code.
            signal.signal(number, handler if wishes.signal is None else signal.SIG_IGN)


def end_at_once(number: int) -> None:
    """End the process without waiting for threads; its jobs go back because it is known to be gone (`jobs.worker`)."""
    os._exit(128 + number)


def _say(text: str) -> None:
    # Not through sys.stderr: the signal may have come in the middle of a write to it, and Python refuses a second one.
    with suppress(OSError):
        os.write(2, f"\nsyncs: {text}\n".encode())
