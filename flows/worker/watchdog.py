"""Ends tasks that overrun their time-out.

Python cannot end a thread. The thread of an overdue task is abandoned: whatever it still returns is dropped, and the pool starts
another one in its place.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

log = logging.getLogger("syncs.pool")

WARN_AT = (10, 100, 1000)
"""Numbers of abandoned threads still running at once that are worth a warning of their own."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What is done with the items of a task, and how.

    Args:
        call: the work; takes the item.
        done: called once for each item, with the item, what `call` returned and what it raised, in the thread that worked or in
            the watchdog's. Must not raise.
        timeout: seconds from the beginning of an item; `None` for no limit.
        late: called with the item and `timeout` when that has passed; what it returns goes to `done` in place of `call`'s value.
        group: items of one group begin in order.
        keys: names of the limits that count for it.
        first: put its group at the front of the queue.
        label: names an item in a warning.
    """

    call: Callable[[Any], Any]
    done: Callable[[Any, Any, BaseException | None], None]
    timeout: float | None = None
    late: Callable[[Any, float], Any] | None = None
    group: Any = None
    keys: tuple[str, ...] = ()
    first: bool = False
    label: Callable[[Any], str] = str


class Task:
    """One item in the pool. It ends once: by its own thread, by the watchdog, or by being taken back."""

    __slots__ = ("began", "deadline", "ended", "item", "spec", "thread")

    def __init__(self, item: Any, spec: TaskSpec) -> None:
        self.item = item
        self.spec = spec
        self.began = False
        self.ended = False
        #: By `time.monotonic`.
        self.deadline = inf
        self.thread: threading.Thread | None = None


class Watchdog:
    """Watches the running tasks of one pool that have a time-out.

    Args:
        name: of its thread, which starts with the first such task.
        lock: the pool's; it guards the tasks.
        running: the pool's running tasks by thread.
        abandon: called under the lock with an overdue task; returns the number of abandoned threads.
    """

    def __init__(
        self,
        name: str,
        *,
        lock: threading.Lock,
        running: Mapping[threading.Thread, Task],
        abandon: Callable[[Task], int],
    ) -> None:
        self._name = name
        self._lock = lock
        self._running = running
        self._abandon = abandon
        self._changed = threading.Condition(lock)
        self._thread: threading.Thread | None = None
        #: The deadline that its thread waits for.
        self._alarm = inf
        self._closed = False

    def begin(self, task: Task, timeout: float) -> None:
        """Watch a task that begins now. Call it under the lock."""
        task.deadline = time.monotonic() + timeout
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name=self._name, daemon=True)
            self._thread.start()
        elif task.deadline < self._alarm:
            self._changed.notify()

    def restart(self) -> None:
        """Give the calling thread's task its full time again, as for a job that begins its next phase."""
        with self._lock:
            task = self._running.get(threading.current_thread())
            if task is not None and task.spec.timeout is not None:
                task.deadline = time.monotonic() + task.spec.timeout

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Do not count the time in the block for the calling thread's task: it waits for another job's transaction."""
        left = 0.0
        with self._lock:
            task = self._running.get(threading.current_thread())
            if task is not None and task.deadline < inf:
                left, task.deadline = task.deadline - time.monotonic(), inf
            else:
                task = None
        try:
            yield
        finally:
            if task is not None:
                with self._lock:
                    task.deadline = time.monotonic() + left
                    if task.deadline < self._alarm:
                        self._changed.notify()

    def stop(self) -> None:
        """End the thread. Call it under the lock."""
        self._closed = True
        self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the thread, at most so long."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, seconds))

    def _watch(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                now = time.monotonic()
                overdue = [(task, self._abandon(task)) for task in list(self._running.values()) if task.deadline <= now]
                if not overdue:
                    self._alarm = min((task.deadline for task in self._running.values()), default=inf)
                    self._changed.wait(None if self._alarm == inf else self._alarm - now)
                    continue
            for task, abandoned in overdue:
                _report(task, abandoned)


def _report(task: Task, abandoned: int) -> None:
    spec = task.spec
    assert spec.timeout is not None
    log.warning("%s timed out after %g s; its thread is left behind", spec.label(task.item), spec.timeout)
    if abandoned in WARN_AT:
        log.warning("%d threads are left behind and still run; what they wait for never answers", abandoned)
    value: Any = None
    raised: BaseException | None = None
    try:
        value = None if spec.late is None else spec.late(task.item, spec.timeout)
    except BaseException as error:  # noqa: BLE001 - handed to `done`; the watchdog must survive whatever a task does
        raised = error
    spec.done(task.item, value, raised)
