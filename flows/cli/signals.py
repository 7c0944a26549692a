"""Turns Ctrl-C and SIGTERM into requests to stop, and ends the process."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn

REPEATS_IGNORED = 2.0
"""Seconds after the second signal during which further ones are ignored: supervisors often send several in a row."""

END_WITHIN = 30.0
"""Seconds after the second signal until the process is ended, whatever it waits for: a statement, a socket, a disk."""

#: Seconds of one wait for a further signal; and what is heard instead of a signal when there is nothing to listen to any more.
_WAIT, _OVER = 0.1, 0


@dataclass(slots=True)
class StopRequest:
    """What the signals so far ask for."""

    #: Set by the first signal: finish what has begun, begin nothing new.
    stop: threading.Event = field(default_factory=threading.Event)
    #: Set by the second signal: put back what has begun.
    now: threading.Event = field(default_factory=threading.Event)
    #: The first signal that came.
    signal: int | None = None

    @property
    def code(self) -> int | None:
        """The exit code that shells expect after that signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return None if self.signal is None else 128 + self.signal


@contextmanager
def stop_on_signals(first: str, second: str, *, on_second: Callable[[int], None] | None = None) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a `StopRequest` while the block runs; in another thread than the main one it stays empty.

    Args:
        first: the message on stderr at the first signal.
        second: the message at the second signal. A further one, `REPEATS_IGNORED` seconds later, ends the process; so do
            `END_WITHIN` seconds after the second one, in which the process did not end.
        on_second: called with the number of the second signal, in a thread of its own.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    # A handler may interrupt its thread inside a lock, so it may take none; `put` of a SimpleQueue is made for that.
    heard: SimpleQueue[int] = SimpleQueue()

    def handle(number: int, _: FrameType | None) -> None:
        if request.signal is None:
            request.signal = number
        heard.put(number)

    listener = threading.Thread(target=_listen, args=(heard, request, first, second, on_second), name="signals", daemon=True)
    listener.start()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            # After a request to stop the process is about to end: one more signal must not change its exit code.
            signal.signal(number, handler if request.signal is None else signal.SIG_IGN)
        heard.put(_OVER)
        listener.join(1)


def _listen(
    heard: SimpleQueue[int], request: StopRequest, first: str, second: str, on_second: Callable[[int], None] | None
) -> None:
    """Do what the signals ask for, until `_OVER` comes."""
    if (number := heard.get()) == _OVER:
        return
    _say(first)
    request.stop.set()
    if (number := heard.get()) == _OVER:
        return
    _say(second)
    request.now.set()
    if on_second is not None:
        on_second(number)
    # Counted in short waits, because a stop of the whole machine counts as one of them only.
    waits = 0
    while waits * _WAIT < END_WITHIN:
        try:
            again = heard.get(timeout=_WAIT)
        except Empty:
            waits += 1
            continue
        if again == _OVER:
            return
        if waits * _WAIT >= REPEATS_IGNORED:
            os._exit(128 + again)
    _say(f"not ended within {END_WITHIN:g} s, ending now; other workers take the jobs back")
    os._exit(128 + number)


def end_at_once(number: int) -> None:
    """End the process without waiting for threads. Others put its jobs back, for they see that the process is gone."""
    os._exit(128 + number)


def end_process(code: int) -> NoReturn:
    """End the process, without the interpreter's teardown while a background thread of ours still runs.

    Such a thread (it updates a work queue, or sends a notice) has had some seconds to finish. The teardown would kill it, and
    killing a thread in compiled code, for instance while it imports Prefect, aborts the process: 5 of 130 `syncs maintain` on a
    busy machine ended with "FATAL: exception not rethrown" and SIGABRT.

    Args:
        code: the exit code.
    """
    if not any(thread.daemon and thread.name.startswith("syncs-") for thread in threading.enumerate()):
        sys.exit(code)
    # As `sys.exit`, but for the teardown: wait for the other threads, and call what was registered with atexit.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)


def _say(text: str) -> None:
    # Not through sys.stderr: the signal may interrupt a write to it, and Python refuses a nested write.
    with suppress(OSError):
        os.write(2, f"\nsyncs: {text}\n".encode())
