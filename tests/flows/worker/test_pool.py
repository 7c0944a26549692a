"""The pool: threads that take what is handed to them, and what becomes of an item that takes too long."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flows.worker import result_buffer
from flows.worker.pool import ThreadPool
from flows.worker.result_buffer import FLUSH, FLUSH_EVERY, ResultBuffer
from flows.worker.watchdog import TaskSpec
from jobs.job import Job, Lane
from tests import ROOT


class Told:
    """Collects what a pool tells."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, Any, BaseException | None]] = []
        self.threads: set[str] = set()
        self._news = threading.Condition()

    def __call__(self, item: Any, value: Any, error: BaseException | None) -> None:
        """Take an answer."""
        with self._news:
            self.answers.append((item, value, error))
            self.threads.add(threading.current_thread().name)
            self._news.notify_all()

    def wait(self, n: int, *, seconds: float = 60) -> list[Any]:
        """Wait for `n` answers; return their values."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.answers) >= n, seconds), f"only {self.answers}"
            return [value for _, value, _ in self.answers]


@pytest.fixture
def told() -> Told:
    """What the pool tells."""
    return Told()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hanging items wait for; opened at the end."""
    found = threading.Event()
    yield found
    found.set()


def eventually(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_each_item_once(told: Told) -> None:
    """Every item is worked once, by as many threads as the pool has, and is told with what came of it."""
    with ThreadPool(4) as pool:
        pool.submit(range(1000), TaskSpec(lambda n: n * 2, told))
        told.wait(1000)
        assert {item: value for item, value, _ in told.answers} == {n: n * 2 for n in range(1000)}
        assert len(told.answers) == 1000
        eventually(lambda: pool.in_hand == 0)
        assert (pool.free, pool.waiting, pool.ended, pool.abandoned) == (4, 0, 1000, 0)


def test_size(told: Told) -> None:
    """No more than so many run at once, and as many do."""
    running, most, lock = 0, 0, threading.Lock()
    all_there = threading.Event()

    def work(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if most == 5:
                all_there.set()
        assert all_there.wait(30)
        time.sleep(0.01)
        with lock:
            running -= 1

    with ThreadPool(5) as pool:
        pool.submit(range(100), TaskSpec(work, told))
        told.wait(100)
    assert most == 5


def test_two_handed_over_one_by_one_run_together(told: Told) -> None:
    """A thread that was woken and has not come yet is not counted on twice: the second item gets a thread of its own."""
    barrier = threading.Barrier(2, timeout=60)
    for _ in range(20):
        with ThreadPool(2) as pool:
            before = len(told.answers)
            pool.submit([0], TaskSpec(lambda n: n, told))
            told.wait(before + 1)
            time.sleep(0.01)
            for n in range(2):
                pool.submit([n], TaskSpec(lambda _: barrier.wait(), told))
            told.wait(before + 3)
    assert {error for _, _, error in told.answers} == {None}


def test_what_is_raised_is_told(told: Told) -> None:
    """Whatever an item raises is told, and the thread lives on."""

    def work(error: BaseException) -> None:
        raise error

    errors = [ValueError("x"), SystemExit(3), KeyboardInterrupt()]
    with ThreadPool(1) as pool:
        pool.submit(errors, TaskSpec(work, told))
        told.wait(3)
        assert [error for _, _, error in told.answers] == errors
        pool.submit([1], TaskSpec(lambda n: n, told))
        assert told.wait(4)[-1] == 1


@pytest.mark.rows("DS-07", "E-36")
def test_late_item_is_told_at_once(told: Told, gate: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    """An item that overruns its time is told in its place, a new thread works on, and the late answer is dropped."""

    def work(item: str) -> str:
        if item == "hangs":
            gate.wait(30)
        return f"{item} in time"

    order = TaskSpec(
        work, told, timeout=0.3, late=lambda item, seconds: f"{item} after {seconds} s", label=lambda item: f"item {item!r}"
    )
    with ThreadPool(1) as pool:
        began = time.monotonic()
        pool.submit(["hangs", "next"], order)
        assert set(told.wait(2)) == {"hangs after 0.3 s", "next in time"}
        assert 0.3 <= time.monotonic() - began < 25
        assert pool.abandoned == 1
        assert caplog.messages == ["item 'hangs' timed out after 0.3 s; its thread is left behind"]
        gate.set()
        eventually(lambda: pool.abandoned == 0)
        time.sleep(0.05)
        assert len(told.answers) == 2
        assert (pool.free, pool.in_hand) == (1, 0)


def test_time_counts_from_the_beginning(told: Told) -> None:
    """What waits for a thread is not late; what takes several turns is given its time in each."""

    def turns(_: int) -> str:
        for _turn in range(6):
            time.sleep(0.5)
            second.restart()
        return "done"

    # Each of the two takes 3 s, beside the other; no piece of it takes long, even on a machine that stands still meanwhile.
    with ThreadPool(1) as first, ThreadPool(1) as second:
        first.submit(range(6), TaskSpec(lambda _: time.sleep(0.5), told, timeout=2.5, late=lambda _, __: "late"))
        second.submit([1], TaskSpec(turns, told, timeout=2.5, late=lambda _, __: "late"))
        assert sorted(told.wait(7), key=str) == [None] * 6 + ["done"]


def test_different_times(told: Told, gate: threading.Event) -> None:
    """The watch wakes for the first deadline, also when a later one was there before."""
    with ThreadPool(3) as pool:
        for seconds in (120, 0.2):
            pool.submit([seconds], TaskSpec(lambda _: gate.wait(60), told, timeout=seconds, late=lambda item, _: item))
            time.sleep(0.05)
        assert told.wait(1) == [0.2]


def test_hundred_hang(told: Told, gate: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    """However many threads are left behind, the pool works on; at 10 and at 100 it warns of their number."""
    order = TaskSpec(lambda _: gate.wait(60), told, timeout=0.1, late=lambda _, __: "late")
    with ThreadPool(20) as pool:
        pool.submit(range(105), order)
        assert told.wait(105) == ["late"] * 105
        assert pool.abandoned == 105
        assert [int(text.split()[0]) for text in caplog.messages if "threads are left behind" in text] == [10, 100]
        pool.submit(range(20), TaskSpec(lambda n: n, told))
        assert sorted(told.wait(125)[105:]) == list(range(20))
        gate.set()
        eventually(lambda: pool.abandoned == 0)


def test_late_answer_that_raises(told: Told, gate: threading.Event) -> None:
    """When the answer for a late item cannot be made, the error is told and the watch goes on."""

    def late(item: int, _: float) -> str:
        if item == 0:
            raise ValueError("no")
        return "late"

    with ThreadPool(2) as pool:
        pool.submit([0], TaskSpec(lambda _: gate.wait(30), told, timeout=0.1, late=late))
        told.wait(1)
        pool.submit([1], TaskSpec(lambda _: gate.wait(30), told, timeout=0.1, late=late))
        assert told.wait(2) == [None, "late"]
        assert isinstance(told.answers[0][2], ValueError)


# -- taking back --------------------------------------------------------------------------------------------------------------


def test_withdraw(told: Told, gate: threading.Event) -> None:
    """What has not begun can be taken back, once; what has begun ends by itself."""
    with ThreadPool(2) as pool:
        tasks = pool.submit(range(10), TaskSpec(lambda n: (gate.wait(30), n)[1], told))
        eventually(lambda: pool.waiting == 8)
        assert [task.item for task in pool.withdraw(tasks)] == list(range(2, 10))
        assert pool.withdraw(tasks) == []
        gate.set()
        assert sorted(told.wait(2)) == [0, 1]
        time.sleep(0.05)
        assert len(told.answers) == 2


def test_abandon(told: Told, gate: threading.Event) -> None:
    """Everything that has not ended can be taken back, and nothing of it is told."""
    with ThreadPool(2) as pool:
        tasks = pool.submit(range(10), TaskSpec(lambda _: gate.wait(30), told))
        eventually(lambda: pool.waiting == 8)
        assert [task.item for task in pool.abandon(tasks)] == list(range(10))
        assert pool.abandon(tasks) == []
        assert (pool.in_hand, pool.abandoned) == (0, 2)
        pool.submit([1], TaskSpec(lambda n: n, told))
        assert told.wait(1) == [1]
        gate.set()
        eventually(lambda: pool.abandoned == 0)
    assert len(told.answers) == 1


def test_stalled(told: Told, gate: threading.Event) -> None:
    """A pool whose threads take nothing for a while, with something waiting, has stalled; an idle one has not."""
    with ThreadPool(1) as pool:
        time.sleep(0.3)
        assert not pool.has_stalled(0.2)
        pool.submit([1], TaskSpec(lambda _: gate.wait(30), told))
        time.sleep(0.3)
        assert not pool.has_stalled(0.2)
        pool.submit([2], TaskSpec(lambda _: None, told))
        assert pool.has_stalled(0.2)
        gate.set()
        told.wait(2)
        assert not pool.has_stalled(0.2)


# -- limits and turns ---------------------------------------------------------------------------------------------------------


@pytest.mark.rows("DS-12")
def test_limits(told: Told) -> None:
    """No more of a key run at once than its limit says, and as many do; others fill the other threads."""
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.Lock()

    def work(item: tuple[str, str]) -> None:
        keys = (item[0], ":".join(item))
        with lock:
            running.update(keys)
            for key in keys:
                most[key] = max(most[key], running[key])
        time.sleep(0.01)
        with lock:
            running.subtract(keys)

    with ThreadPool(8, limits={"a": 3, "a:x": 1, "b": 2}) as pool:
        for item in (("a", "x"), ("a", "y"), ("b", "x"), ("c", "x")):
            pool.submit([item] * 40, TaskSpec(work, told, group=item, keys=(item[0], ":".join(item))))
        assert pool.load("a") > 60
        told.wait(160)
        eventually(lambda: pool.in_hand == 0)
        assert [pool.load(key) for key in ("a", "a:x", "b")] == [0, 0, 0]
    assert (most["a"], most["a:x"], most["b"]) == (3, 1, 2)
    assert most["c"] >= 3


def test_late_item_frees_its_place(told: Told, gate: threading.Event) -> None:
    """A limit counts what the pool works, not the threads that were left behind."""
    with ThreadPool(4, limits={"a": 1}) as pool:
        order = TaskSpec(lambda n: gate.wait(30) if n == 0 else n, told, timeout=0.2, late=lambda _, __: "late", keys=("a",))
        pool.submit(range(4), order)
        assert sorted(map(str, told.wait(4))) == ["1", "2", "3", "late"]
        assert pool.load("a") == 0


def test_groups_take_turns(told: Told, gate: threading.Event) -> None:
    """A few items of one group do not wait behind a hundred of another; within a group they begin in order."""
    began: list[tuple[str, int]] = []

    def work(item: tuple[str, int]) -> None:
        gate.wait(30)
        began.append(item)

    with ThreadPool(1) as pool:
        pool.submit([("long", n) for n in range(100)], TaskSpec(work, told, group="long"))
        pool.submit([("short", n) for n in range(3)], TaskSpec(work, told, group="short"))
        gate.set()
        told.wait(103)
    assert [place for place, (group, _) in enumerate(began) if group == "short"] <= [2, 4, 6]
    for group in ("long", "short"):
        numbers = [n for one, n in began if one == group]
        assert numbers == sorted(numbers)


def test_reserved_thread_stays_free(told: Told, gate: threading.Event) -> None:
    """After `reserve` the next free thread takes nothing and says that it is free, until `release`."""
    free = threading.Event()
    with ThreadPool(1, on_idle=free.set) as pool:
        pool.submit([1], TaskSpec(lambda _: gate.wait(30), told))
        eventually(lambda: not pool.waiting)
        pool.submit([2], TaskSpec(lambda n: n, told))
        pool.reserve()
        gate.set()
        assert free.wait(60)
        told.wait(1)
        time.sleep(0.1)
        assert pool.waiting == 1
        pool.release()
        assert told.wait(2)[-1] == 2


# -- the end ------------------------------------------------------------------------------------------------------------------


def test_close_ends_the_threads(told: Told) -> None:
    """Nothing is left running by a pool that has ended."""
    before = threading.active_count()
    with ThreadPool(5) as pool:
        pool.submit(range(5), TaskSpec(lambda _: time.sleep(0.05), told, timeout=5))
        told.wait(5)
        assert threading.active_count() > before
    eventually(lambda: threading.active_count() == before)


@pytest.mark.rows("DS-07")
@pytest.mark.parametrize(
    "hang", ["time.sleep(60)", "socket.create_server(('127.0.0.1', 0)).accept()", "[None for _ in iter(int, 1)]"]
)
def test_process_ends_although_threads_hang(hang: str) -> None:
    """Threads that were left behind, asleep, in a system call or busy, do not keep the process from ending, with its code."""
    script = f"""
import socket, sys, time
from flows.worker.pool import ThreadPool
from flows.worker.watchdog import TaskSpec
done = []
pool = ThreadPool(3)
pool.submit(range(3), TaskSpec(lambda _: {hang}, lambda *a: done.append(a), timeout=0.2))
while len(done) < 3:
    time.sleep(0.01)
pool.close()
sys.exit(7)
"""
    began = time.monotonic()
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (found.returncode, "Fatal" in found.stderr) == (7, False), found.stderr
    assert time.monotonic() - began < 55


# -- answers ------------------------------------------------------------------------------------------------------------------


def job(n: int) -> Job:
    """Make a job."""
    return Job(n, Lane("q", "c", "t"), None, None, None, None, 1, 0, 0, 0)


def test_answers_wait_for_company_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough answers, or the last one, are handed on at once; fewer after a fifth of a second; a prompt one at once (M6)."""
    results = ResultBuffer(FLUSH + 3)
    monkeypatch.setattr(result_buffer, "FLUSH_EVERY", 600.0)
    for n in range(FLUSH):
        results.put(job(n), None, None)
    began = time.monotonic()
    assert len(results.take()) == FLUSH
    assert time.monotonic() - began < 60
    results.put(job(1), None, None)
    began = time.monotonic()
    monkeypatch.setattr(result_buffer, "FLUSH_EVERY", FLUSH_EVERY)
    assert len(results.take()) == 1
    assert time.monotonic() - began >= FLUSH_EVERY * 0.9
    monkeypatch.setattr(result_buffer, "FLUSH_EVERY", 600.0)
    results.put(job(2), None, None, flush=True)
    began = time.monotonic()
    assert len(results.take()) == 1
    results.put(job(3), None, None)
    assert len(results.take()) == 1
    assert time.monotonic() - began < 60


def test_answers_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken back is not waited for."""
    monkeypatch.setattr(result_buffer, "FLUSH_EVERY", 600.0)
    results = ResultBuffer(3)
    results.expect_less(2)
    results.put(job(1), None, None)
    began = time.monotonic()
    assert len(results.take()) == 1
    assert time.monotonic() - began < 60
