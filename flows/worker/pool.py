"""A pool of threads that work submitted items; several groups of items take turns. All threads are daemons."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from flows.worker.watchdog import Task, TaskSpec, Watchdog
from jobs.db.sqlite_writer import suspend_clock_while_waiting

CLOSING = 5.0
"""Seconds that `close` waits for threads between two tasks; those inside a task are not waited for."""


class ThreadPool:
    """A fixed number of threads. Items of one group begin in order; groups take turns.

    Args:
        size: threads, started when they are first needed.
        limits: at most so many tasks at once, by the keys of a `TaskSpec`.
        name: of the threads.
        on_idle: called when a thread finds nothing to do; must be quick.
    """

    def __init__(
        self,
        size: int,
        *,
        limits: Mapping[str, int] | None = None,
        name: str = "syncs-fetch",
        on_idle: Callable[[], None] | None = None,
    ) -> None:
        self.size = size
        self._limits = dict(limits or {})
        self._name = name
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: dict[Any, deque[Task]] = {}
        #: The groups that have something waiting, the next one first.
        self._turns: deque[Any] = deque()
        self._running: dict[threading.Thread, Task] = {}
        #: Running, and all in hand, by the keys of the limits.
        self._running_by_key: dict[str, int] = dict.fromkeys(self._limits, 0)
        self._load: dict[str, int] = dict.fromkeys(self._limits, 0)
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._reserved = False
        self._queued = 0
        self._abandoned = 0
        self._closed = False
        self._watchdog = Watchdog(f"{name}-watchdog", lock=self._lock, running=self._running, abandon=self._abandon_overdue)
        #: When a task last began; by `time.monotonic`.
        self.began_at = time.monotonic()
        #: Tasks that began, and that ended, so far.
        self.begun = self.ended = 0
        #: Gives the calling thread's task its full time again.
        self.restart = self._watchdog.restart

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def in_hand(self) -> int:
        """Tasks that wait or run."""
        return self._queued + len(self._running)

    @property
    def waiting(self) -> int:
        """Tasks that have not begun."""
        return self._queued

    @property
    def free(self) -> int:
        """Threads that could begin a task at once; with a reservation, also before those that wait."""
        return max(0, self.size - len(self._running) - (0 if self._reserved else self._queued))

    @property
    def abandoned(self) -> int:
        """Threads that were given up and still run."""
        return self._abandoned

    def submit(self, items: Iterable[Any], spec: TaskSpec) -> list[Task]:
        """Queue items; return the task of each."""
        if spec.keys and not self._limits.keys() >= set(spec.keys):
            spec = replace(spec, keys=tuple(key for key in spec.keys if key in self._limits))
        tasks = [Task(item, spec) for item in items]
        with self._lock:
            waiting = self._waiting.get(spec.group)
            if waiting is None:
                waiting = self._waiting[spec.group] = deque()
            if not waiting and tasks:
                (self._turns.appendleft if spec.first else self._turns.append)(spec.group)
            if not self._queued and not self._running:
                # Nothing could begin while there was nothing.
                self.began_at = time.monotonic()
            waiting.extend(tasks)
            self._queued += len(tasks)
            for key in spec.keys:
                self._load[key] += len(tasks)
            self._wake_threads()
        return tasks

    def withdraw(self, tasks: Iterable[Task]) -> list[Task]:
        """Take back those that have not begun; they never will, and their `done` is not called."""
        with self._lock:
            return [task for task in tasks if not (task.began or task.ended) and self._take_back(task)]

    def abandon(self, tasks: Iterable[Task]) -> list[Task]:
        """Take back all that have not ended, whether they have begun or not; their `done` is not called."""
        with self._lock:
            return [task for task in tasks if not task.ended and self._take_back(task)]

    def load(self, key: str) -> int:
        """Items in hand that count for a limit."""
        return self._load.get(key, 0)

    def reserve(self) -> None:
        """Keep the next thread that gets free idle until `release`, for a task that must begin as soon as it is there."""
        with self._lock:
            self._reserved = True

    def release(self) -> None:
        """Undo `reserve`."""
        with self._lock:
            if self._reserved:
                self._reserved = False
                self._changed.notify()

    def has_stalled(self, seconds: float) -> bool:
        """Tell whether something waits and nothing has begun for so long."""
        return self._queued > 0 and time.monotonic() - self.began_at > seconds

    def close(self) -> None:
        """End the threads, but not those that are inside a task."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            self._watchdog.stop()
            busy = bool(self._running)
            threads = list(self._threads)
        end = time.monotonic() + CLOSING
        if not busy:
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
        self._watchdog.join(end - time.monotonic())

    # -- under the lock --------------------------------------------------------------------------------------------------------

    def _wake_threads(self) -> None:
        """See to it that enough threads take what waits."""
        if self._idle:
            self._changed.notify(self._queued)
        # A thread that was notified and has not woken up yet still counts as idle: two tasks need two of them.
        missing = 0 if self._closed else min(self._queued - self._idle, self.size - len(self._threads))
        for _ in range(missing):
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _take_back(self, task: Task) -> bool:
        task.ended = True
        self.ended += 1
        if task.began:
            self._abandon_thread(task)
            return True
        waiting = self._waiting[task.spec.group]
        waiting.remove(task)
        self._queued -= 1
        for key in task.spec.keys:
            self._load[key] -= 1
        if not waiting:
            self._turns.remove(task.spec.group)
        return True

    def _abandon_overdue(self, task: Task) -> int:
        task.ended = True
        self.ended += 1
        self._abandon_thread(task)
        return self._abandoned

    def _abandon_thread(self, task: Task) -> None:
        """Leave the thread of a running task behind; the next task that waits gets a new one."""
        assert task.thread is not None
        self._threads.discard(task.thread)
        self._abandoned += 1
        del self._running[task.thread]
        self._leave_limits(task)
        if self._queued:
            self._wake_threads()

    def _leave_limits(self, task: Task) -> None:
        for key in task.spec.keys:
            self._running_by_key[key] -= 1
            self._load[key] -= 1

    def _begin_next(self, thread: threading.Thread) -> Task | None:
        """Begin the next task that may, the groups in turn."""
        for _ in range(len(self._turns)):
            group = self._turns.popleft()
            waiting = self._waiting[group]
            if not self._has_room(waiting[0]):
                self._turns.append(group)
                continue
            task = waiting.popleft()
            if waiting:
                self._turns.append(group)
            break
        else:
            return None
        task.began = True
        task.thread = thread
        self.begun += 1
        self._queued -= 1
        self._running[thread] = task
        for key in task.spec.keys:
            self._running_by_key[key] += 1
        self.began_at = time.monotonic()
        if task.spec.timeout is not None:
            self._watchdog.begin(task, task.spec.timeout)
        if self._queued and self._limits:
            # The end of the last task may have made room for several.
            self._changed.notify()
        return task

    def _has_room(self, task: Task) -> bool:
        keys = task.spec.keys
        return not keys or all(self._running_by_key[key] < self._limits[key] for key in keys)

    # -- threads ---------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        thread = threading.current_thread()
        suspend_clock_while_waiting(self._watchdog.clock_stopped)
        while True:
            with self._lock:
                if self._closed:
                    self._threads.discard(thread)
                    return
                task = None if self._reserved else self._begin_next(thread)
                if task is None:
                    self._idle += 1
                    if self._on_idle is None:
                        self._changed.wait()
                        self._idle -= 1
            if task is None:
                if self._on_idle is not None:
                    self._wait_idle(self._on_idle)
                continue
            value: Any = None
            raised: BaseException | None = None
            try:
                value = task.spec.call(task.item)
            except BaseException as error:  # noqa: BLE001 - handed to `done`: the pool's thread must survive whatever a task does
                raised = error
            with self._lock:
                if task.ended:
                    # Given up: another thread is in this one's place, and nobody waits for the result.
                    self._abandoned -= 1
                    return
                task.ended = True
                self.ended += 1
                del self._running[thread]
                if task.spec.keys:
                    self._leave_limits(task)
            task.spec.done(task.item, value, raised)
            # The next task may be long in coming, and this one may hold much.
            del task, value, raised

    def _wait_idle(self, on_idle: Callable[[], None]) -> None:
        # Outside the lock: it may ask the pool.
        on_idle()
        with self._lock:
            if not self._closed and (self._reserved or not self._can_begin()):
                self._changed.wait()
            self._idle -= 1

    def _can_begin(self) -> bool:
        return any(self._has_room(self._waiting[group][0]) for group in self._turns)
