"""Threads that work jobs, and the watch that ends a job which takes too long. Knows no store and no outcome.

Python cannot end a thread. A job that overruns its time is therefore given up: its thread is left behind, whatever it still comes
to is dropped, and a new thread takes its place. All threads are daemons, so that none of them keeps the process from ending.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from types import TracebackType
from typing import Any, Self

from flows.task import Order, Task
from jobs.waiting import tell

log = logging.getLogger("syncs.crew")

MARKS = (10, 100, 1000)
"""So many threads left behind at once are worth a warning of their own."""

CLOSING = 5.0
"""Seconds that the end waits for threads between two jobs; those inside one are not waited for."""


class Crew:
    """So many threads that take what is handed to them; each group in order, and the groups in turn.

    Args:
        size: threads, started when they are first needed.
        limits: at most so many tasks at once, by the keys of an `Order`.
        name: of the threads.
        on_free: called when a thread finds nothing to do; must be quick.
    """

    def __init__(
        self,
        size: int,
        *,
        limits: Mapping[str, int] | None = None,
        name: str = "syncs-fetch",
        on_free: Callable[[], None] | None = None,
    ) -> None:
        self.size = size
        self._limits = dict(limits or {})
        self._name = name
        self._on_free = on_free
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._watching = threading.Condition(self._lock)
        self._waiting: dict[Any, deque[Task]] = {}
        #: The groups that have something waiting, the next one first.
        self._turns: deque[Any] = deque()
        self._running: set[Task] = set()
        #: Running, and all in hand, by the keys of the limits.
        self._by_key: dict[str, int] = dict.fromkeys(self._limits, 0)
        self._load: dict[str, int] = dict.fromkeys(self._limits, 0)
        self._threads: set[threading.Thread] = set()
        self._free = 0
        self._reserved = 0
        self._queued = 0
        self._left_behind = 0
        self._watch: threading.Thread | None = None
        self._alarm = inf
        self._closed = False
        #: When a task last began; by `time.monotonic`.
        self.began_at = time.monotonic()
        #: Tasks that began, and that ended, so far.
        self.begun = self.ended = 0

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
    def left_behind(self) -> int:
        """Threads that were given up and still run."""
        return self._left_behind

    def submit(self, items: Iterable[Any], order: Order) -> list[Task]:
        """Hand items over; return the task of each."""
        if order.keys and not self._limits.keys() >= set(order.keys):
            order = replace(order, keys=tuple(key for key in order.keys if key in self._limits))
        tasks = [Task(item, order) for item in items]
        with self._lock:
            waiting = self._waiting.get(order.group)
            if waiting is None:
                waiting = self._waiting[order.group] = deque()
            if not waiting and tasks:
                (self._turns.appendleft if order.first else self._turns.append)(order.group)
            if not self._queued and not self._running:
                # Nothing could begin while there was nothing.
                self.began_at = time.monotonic()
            waiting.extend(tasks)
            self._queued += len(tasks)
            for key in order.keys:
                self._load[key] += len(tasks)
            self._staff()
        return tasks

    def withdraw(self, tasks: Iterable[Task]) -> list[Task]:
        """Take back those that have not begun; they never will, and their `done` is not called."""
        with self._lock:
            return [task for task in tasks if not (task.began or task.ended) and self._take_back(task)]

    def abandon(self, tasks: Iterable[Task]) -> list[Task]:
        """Take back all that have not ended, whether they have begun or not; their `done` is not called."""
        with self._lock:
            return [task for task in tasks if not task.ended and self._take_back(task)]

    def restart(self) -> None:
        """Let the time of the calling thread's task count anew, as for a job that begins its next phase."""
        me = threading.current_thread()
        with self._lock:
            for task in self._running:
                if task.thread is me and task.order.timeout is not None:
                    task.deadline = time.monotonic() + task.order.timeout

    def load(self, key: str) -> int:
        """Items in hand that count for a limit."""
        return self._load.get(key, 0)

    def reserve(self) -> None:
        """Keep the next thread that gets free idle until `release`, for a task that must begin as soon as it is there."""
        with self._lock:
            self._reserved = 1

    def release(self) -> None:
        """Undo `reserve`."""
        with self._lock:
            if self._reserved:
                self._reserved = 0
                self._news.notify()

    def has_stalled(self, seconds: float) -> bool:
        """Tell whether something waits and nothing has begun for so long."""
        return self._queued > 0 and time.monotonic() - self.began_at > seconds

    def close(self) -> None:
        """End the threads. Those that are inside a task are left to themselves."""
        with self._lock:
            self._closed = True
            self._news.notify_all()
            self._watching.notify_all()
            busy = bool(self._running)
            threads = list(self._threads)
        end = time.monotonic() + CLOSING
        if not busy:
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
        if self._watch is not None and self._watch is not threading.current_thread():
            self._watch.join(max(0.0, end - time.monotonic()))

    # -- under the lock --------------------------------------------------------------------------------------------------------

    def _staff(self) -> None:
        """See to it that somebody takes what waits."""
        if self._free:
            self._news.notify(self._queued)
        # A thread that was told and has not woken up yet still counts as free: two tasks need two of them.
        hire = 0 if self._closed else min(self._queued - self._free, self.size - len(self._threads))
        for _ in range(hire):
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _take_back(self, task: Task) -> bool:
        task.ended = True
        self.ended += 1
        if task.began:
            self._give_up(task)
            return True
        waiting = self._waiting[task.order.group]
        waiting.remove(task)
        self._queued -= 1
        for key in task.order.keys:
            self._load[key] -= 1
        if not waiting:
            self._turns.remove(task.order.group)
        return True

    def _give_up(self, task: Task) -> None:
        """Leave the thread of a running task behind; the next task that waits gets a new one."""
        assert task.thread is not None
        self._threads.discard(task.thread)
        self._left_behind += 1
        self._let_go(task)
        if self._queued:
            self._staff()

    def _let_go(self, task: Task) -> None:
        self._running.discard(task)
        for key in task.order.keys:
            self._by_key[key] -= 1
            self._load[key] -= 1

    def _next(self) -> Task | None:
        """Return the next task that may begin, the groups in turn."""
        for _ in range(len(self._turns)):
            group = self._turns.popleft()
            waiting = self._waiting[group]
            if any(self._by_key[key] >= self._limits[key] for key in waiting[0].order.keys):
                self._turns.append(group)
                continue
            task = waiting.popleft()
            if waiting:
                self._turns.append(group)
            return task
        return None

    def _begin(self, task: Task) -> None:
        task.began = True
        self.begun += 1
        task.thread = threading.current_thread()
        self._queued -= 1
        self._running.add(task)
        for key in task.order.keys:
            self._by_key[key] += 1
        self.began_at = time.monotonic()
        if task.order.timeout is not None:
            task.deadline = self.began_at + task.order.timeout
            if self._watch is None:
                self._watch = threading.Thread(target=self._watch_over, name=f"{self._name}-watch", daemon=True)
                self._watch.start()
            elif task.deadline < self._alarm:
                self._watching.notify()

    # -- threads ---------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        me = threading.current_thread()
        tell(self._standing_still)
        while True:
            task = self._wait(me)
            if task is None:
                return
            value: Any = None
            raised: BaseException | None = None
            try:
                value = task.order.call(task.item)
            except BaseException as error:  # noqa: BLE001 - handed on: the crew's thread must outlive whatever a task does
                raised = error
            with self._lock:
                if task.ended:
                    # Given up: another thread is in this one's place, and nobody waits for the answer.
                    self._left_behind -= 1
                    return
                task.ended = True
                self.ended += 1
                self._let_go(task)
            task.order.done(task.item, value, raised)
            # The next task may be long in coming, and this one may hold much.
            del task, value, raised

    @contextmanager
    def _standing_still(self) -> Iterator[None]:
        """Stop the clock of the calling thread's task: it waits for another one's transaction, which is not its fault."""
        me = threading.current_thread()
        left = 0.0
        with self._lock:
            task = next((one for one in self._running if one.thread is me and one.deadline < inf), None)
            if task is not None:
                left, task.deadline = task.deadline - time.monotonic(), inf
        try:
            yield
        finally:
            if task is not None:
                with self._lock:
                    task.deadline = time.monotonic() + left
                    if task.deadline < self._alarm:
                        self._watching.notify()

    def _wait(self, me: threading.Thread) -> Task | None:
        while True:
            with self._lock:
                task = None if self._reserved or self._closed else self._next()
                if task is not None:
                    self._begin(task)
                    if self._queued and self._by_key:
                        # The end of the last one may have made room for several.
                        self._news.notify()
                    return task
                if self._closed:
                    self._threads.discard(me)
                    return None
                told, self._free = self._on_free, self._free + 1
                if told is None:
                    self._news.wait()
                    self._free -= 1
                    continue
            # Outside the lock: whoever is told may ask the crew.
            told()
            with self._lock:
                if not self._closed and (self._reserved or not self._can_begin()):
                    self._news.wait()
                self._free -= 1

    def _can_begin(self) -> bool:
        return any(
            all(self._by_key[key] < self._limits[key] for key in self._waiting[group][0].order.keys) for group in self._turns
        )

    def _watch_over(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                now = time.monotonic()
                late: list[tuple[Task, int]] = []
                for task in [task for task in self._running if task.deadline <= now]:
                    task.ended = True
                    self.ended += 1
                    self._give_up(task)
                    late.append((task, self._left_behind))
                if not late:
                    self._alarm = min((task.deadline for task in self._running), default=inf)
                    self._watching.wait(None if self._alarm == inf else self._alarm - now)
                    continue
            for task, left in late:
                self._end_late(task, left)

    def _end_late(self, task: Task, left: int) -> None:
        order = task.order
        assert order.timeout is not None
        log.warning("%s timed out after %g s; its thread is left behind", order.label(task.item), order.timeout)
        if left in MARKS:
            log.warning("%d threads are left behind and still run; what they wait for never answers", left)
        value: Any = None
        raised: BaseException | None = None
        try:
            value = None if order.late is None else order.late(task.item, order.timeout)
        except BaseException as error:  # noqa: BLE001 - as in `_work`
            raised = error
        order.done(task.item, value, raised)
