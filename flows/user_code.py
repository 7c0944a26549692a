"""Calls other people's code and turns whatever it raises into a value.

Together with `flows.execution.outcomes` this is the only place that turns exceptions into outcomes.
"""

import threading
import time
import traceback
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

STOP_EVERY = 0.1
"""Seconds between two looks at whether to stop waiting for code that has a time limit."""


def attempt(work: Callable[[], T], judge: Callable[[Exception], R]) -> T | R:
    """Run `work`; return its value, or what `judge` makes of the exception that it raised.

    That includes what is no `Exception`, such as `asyncio.CancelledError` and the panics of extensions in Rust: the end of one
    job's code must not be the end of the worker. `judge` gets a `RuntimeError` in place of these. Signals come to the main
    thread; there, all but `SystemExit` is raised.

    Raises:
        BaseException: in the main thread, as Ctrl-C does.
    """
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        return judge(error)
    except SystemExit as error:
        return judge(_as_error(error, f"the code called sys.exit({error.code!r})"))
    except BaseException as error:
        if threading.current_thread() is threading.main_thread():
            raise
        return judge(_as_error(error, f"the code raised {describe(error)}"))


class NotEnded(Exception):
    """Code of other people that has a time limit is still running. Its thread is left behind; Python cannot end one."""


def within(seconds: float, work: Callable[[], T], *, what: str, stop: threading.Event | None = None) -> T:
    """Run `work` in a thread of its own; return its value, or raise what it raises.

    Args:
        seconds: for which it may run.
        work: is called once.
        what: it is, for the message.
        stop: ends the waiting.

    Raises:
        NotEnded: it runs for longer, or `stop` was set meanwhile.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="syncs-within", daemon=True)
    thread.start()
    ends = time.monotonic() + seconds
    while thread.is_alive() and (left := ends - time.monotonic()) > 0 and not (stop is not None and stop.is_set()):
        thread.join(left if stop is None else min(left, STOP_EVERY))
    if raised:
        raise raised[0]
    if not found:
        raise NotEnded(f"{what} has not ended after {seconds:g} s")
    return found[0]


def describe(error: BaseException) -> str:
    """Return the class and the text of an exception. The text may contain secrets."""
    # `format_exception_only` also copes with an exception whose `__str__` raises.
    _, colon, text = "".join(traceback.format_exception_only(error)).strip().partition(": ")
    return f"{type(error).__name__}: {text}" if colon else type(error).__name__


def place(error: BaseException) -> str:
    """Return the class of an exception and where it was raised, without its text, which may quote a secret."""
    frames = traceback.extract_tb(error.__traceback__, limit=-12)
    return "".join(f'  File "{one.filename}", line {one.lineno}, in {one.name}\n' for one in frames) + type(error).__name__


def trace(error: Exception, mask: Callable[[str], str]) -> str:
    """Return the end of an exception's traceback, with those of its causes, without the secrets that `mask` removes."""
    return mask("".join(traceback.format_exception(error, limit=-12)))[-8000:]


def _as_error(error: BaseException, text: str) -> Exception:
    return RuntimeError(text).with_traceback(error.__traceback__)
