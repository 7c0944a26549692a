"""A day of an API in trouble, on a clock that leaps from one event to the next: nothing is lost, and its pauses are kept.

Three workers as in production, each with threads of its own; only the time is not real. It stands still while anybody has
something in hand, and leaps to the next moment at which somebody wants to be woken.
"""

import random
import sqlite3
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clients import AuthRefusedError, RateLimitedError, ServerError, TransientError
from flows import Client, JobType, PausePolicy, Window
from flows.enqueue import enqueue_many, using
from flows.notices.collector import Collector
from flows.notices.decision import MAX_FLAPS, MAX_MESSAGES
from flows.worker import worker_loop as shift
from flows.worker.queue_processing import work
from jobs import Database, JobStore, Retry
from jobs.schema import upgrade as schema
from tests.support.fake_remote import System, connected, orders, pauses, query, registry, states

pytestmark = pytest.mark.slow

POLL = 300.0
START = datetime(2026, 3, 28, 12, tzinfo=UTC)
"""Clocks in Berlin go forward in the night that follows."""


@dataclass(eq=False)
class Day:
    """The clock."""

    now: datetime = START
    news: threading.Condition = field(default_factory=threading.Condition)
    sleepers: list["Sleeper"] = field(default_factory=list)

    def __call__(self) -> datetime:
        """Tell the time."""
        return self.now

    def moves_on(self, event: datetime | None, reading: sqlite3.Connection) -> bool:
        """Let it be the next moment at which something happens; not while anybody has something in hand."""
        # Whoever waits can only go on with this lock, so that nobody begins anything meanwhile.
        with self.news:
            if not all(one.sleeps for one in self.sleepers) or is_busy(reading):
                return False
            # What begins a probe, or says what came of a batch, is under way although the table does not show it yet.
            if any(thread.name in ("syncs-probe", "syncs-batch") for thread in threading.enumerate()):
                return False
            moments = [one.until for one in self.sleepers if one.until is not None]
            self.now = min([*moments, event] if event is not None else moments)
            self.news.notify_all()
            return True


class Sleeper:
    """How one worker waits: until it is woken, or until the clock says so. In the place of `ChangeListener`."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self.until: datetime | None = None
        self._woken = False
        day.sleepers.append(self)

    def wake(self) -> None:
        """Wake it."""
        with self.day.news:
            self._woken = True
            self.day.news.notify_all()

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait."""
        with self.day.news:
            self.until = self.day.now + timedelta(seconds=max(seconds, 0.001))
            while not (self._woken or stop.is_set() or self.day.now >= self.until):
                self.day.news.wait(1)
            hint, self._woken, self.until = self._woken, False, None
            return hint

    @property
    def sleeps(self) -> bool:
        """Whether it waits for nothing but the time."""
        return self.until is not None and not self._woken


@dataclass(frozen=True)
class Trouble:
    """What the API is ill of, from when to when."""

    begin: datetime
    end: datetime
    kind: str

    def error(self, now: datetime) -> Exception:
        """Answer as it does then."""
        match self.kind:
            case "slow":
                return TimeoutError("no answer")
            case "cut":
                return TransientError("the connection broke")
            case "401":
                return AuthRefusedError("401 Unauthorized", status=401)
            case "429":
                return RateLimitedError("429", status=429, retry_after=(self.end - now).total_seconds())
            case _:
                return ServerError("500 Internal Server Error", status=500)


def troubles_of(dice: random.Random, n: int) -> list[Trouble]:
    """Make troubles for a day, which do not overlap; a fifth of them is longer than the first two pauses."""
    begins = sorted(dice.sample(range(10, 1430), n))
    found = []
    for begin, following in zip(begins, [*begins[1:], 1440], strict=True):
        minutes = min(dice.choice([3, 5, 8, 15, 40]), max(following - begin - 0.5, 0.2))
        at = START + timedelta(minutes=begin, seconds=dice.randrange(30))
        found.append(Trouble(at, at + timedelta(minutes=minutes), dice.choice(["slow", "cut", "401", "429", "500"])))
    return found


class Api(System):
    """The API, on that clock."""

    def __init__(self, day: Day, troubles: list[Trouble]) -> None:
        super().__init__()
        self.day = day
        self.troubles = troubles
        self._begins = [one.begin for one in troubles]
        #: When, which job, and whether it went well.
        self.log: list[tuple[datetime, int, bool]] = []

    def trouble_at(self, now: datetime) -> Trouble | None:
        """What it is ill of."""
        at = bisect_right(self._begins, now) - 1
        return self.troubles[at] if at >= 0 and now < self.troubles[at].end else None

    def ask(self, what: Any) -> None:
        """Send a request."""
        now = self.day.now
        trouble = self.trouble_at(now)
        self.log.append((now, what["n"], trouble is None))
        if trouble is not None:
            raise trouble.error(now)


def is_busy(reading: sqlite3.Connection) -> bool:
    """Tell whether anybody has a job in hand, or a probe."""
    busy = "SELECT 1 FROM job WHERE state = 'processing'"
    probing = "SELECT 1 FROM pause WHERE ended_at IS NULL AND probe_by IS NOT NULL"
    return bool(reading.execute(f"SELECT EXISTS ({busy}) OR EXISTS ({probing})").fetchone()[0])


@pytest.mark.rows("T15", "SC-20", "SC-16")
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
@pytest.mark.timeout(900)
def test_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chaos: Any, seed: int) -> None:
    """Twenty troubles in 24 hours, three workers and a declared window: no job lost, no request in a pause, no probe wasted.

    Each trouble is one notice and one recovery, but for what comes so often that it is told in a digest.
    """
    if seed > 1 and not chaos.is_long:
        pytest.skip("one day is enough without --long")
    monkeypatch.setattr(shift, "POLL", POLL)
    dice, day, began = random.Random(seed), Day(), time.monotonic()
    path = tmp_path / "day.db"
    database = Database(f"sqlite:///{path}", clock=day)
    schema.upgrade(database)
    api = Api(day, troubles_of(dice, 20))
    windows = (Window("01:30", "03:30", zone="Europe/Berlin"),)
    client = Client("shop", connect=lambda _: connected(api), pause=PausePolicy(windows=windows))
    kind = orders(client, concurrency=2, retry=Retry(max_retries=20, delay=10, jitter=False))
    # Whoever wants something of the API: now one job, now thirty.
    arrivals = [(START + timedelta(minutes=at), dice.choice([1, 1, 1, 1, 2, 9])) for at in sorted(dice.sample(range(1440), 500))]
    wanted = sum(n for _, n in arrivals)
    producer = JobStore(database)
    with at_work([JobStore(Database(f"sqlite:///{path}", clock=day)) for _ in range(3)], kind, day) as errors:
        live_through(day, path, arrivals, producer, kind, wanted, errors)
    check(producer, api, wanted)
    letters = check_notices(producer, kind)
    what = f"a simulated day, seed {seed}: {len(pauses(producer))} pauses, {len(api.log)} requests, {letters} letters"
    chaos.tell(what, jobs=wanted, trouble=len(api.troubles), seconds=time.monotonic() - began)
    producer.close()


@contextmanager
def at_work(stores: list[JobStore], kind: JobType, day: Day) -> Iterator[list[BaseException]]:
    """Have a worker on each store until the block ends."""
    stop, errors = threading.Event(), list[BaseException]()

    def run(store: JobStore, sleeper: Any) -> None:
        try:
            work(store, registry(kind), stop=stop, wakes=sleeper)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(store, Sleeper(day))) for store in stores]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        stop.set()
        for sleeper in day.sleepers:
            sleeper.wake()
        for thread in threads:
            thread.join()
        for store in stores:
            store.close()
    if errors:
        raise errors[0]


def live_through(
    day: Day, path: Path, arrivals: list[tuple[datetime, int]], producer: JobStore, kind: JobType, wanted: int,
    errors: list[BaseException],
) -> None:  # fmt: skip
    """Let the time leap on until everything that was wanted is done."""
    reading = sqlite3.connect(path, isolation_level=None)
    queued = 0
    while not errors and (arrivals or states(producer) != {"success": wanted}):
        assert day.now < START + timedelta(days=3), states(producer)
        if not day.moves_on(arrivals[0][0] if arrivals else None, reading):
            time.sleep(0.0005)
        elif arrivals and arrivals[0][0] <= day.now:
            _, n = arrivals.pop(0)
            with using(producer, registry(kind)):
                enqueue_many(kind, [{"n": number} for number in range(queued, queued + n)])
            queued += n
            for sleeper in day.sleepers:
                sleeper.wake()
    reading.close()


def check(store: JobStore, api: Api, wanted: int) -> None:
    """Hold the day against what it must be."""
    # Nothing lost, nothing done twice.
    assert sorted(number for _, number, well in api.log if well) == list(range(wanted))
    assert states(store) == {"success": wanted}
    history = list(reversed(store.pause_history.latest(limit=1000)))
    assert {one.cause for one in history} >= {"level", "window"}
    assert store.pauses.state("shop").pausing is None
    asked = sorted(api.log)
    moments = [at for at, _, _ in asked]
    probes_that_failed = 0
    for one in history:
        assert one.until is not None
        assert one.ended_at is not None
        # Nobody asks in a pause; what was under way in the moment of its begin is part of its cause.
        inside = [at for at in moments if one.started_at < at < min(one.until, one.ended_at)]
        assert inside == [], (one, inside)
        if one.probes:
            # One asks first, and its answer decides.
            tries = [entry for entry in asked if one.until <= entry[0] <= one.ended_at]
            assert one.probes == 1
            assert tries
            if one.ended_by != "probe":
                probes_that_failed += 1
                assert len(tries) == 1
                assert not tries[0][2]
            else:
                assert tries[0][2]
            # Something was due all the time, if only what led to the pause: the first try comes within a poll.
            first = tries[0][0]
            if one.cause != "window":
                assert first - one.until <= timedelta(seconds=POLL), one
    # In trouble: what it takes to notice it, once for each time that it was well, and one for each pause after that.
    failed = [entry for entry in asked if not entry[2]]
    noticing = sum(1 for one in history if one.cause != "window") - probes_that_failed
    in_hand = 3 * 2
    assert len(failed) <= probes_that_failed + (noticing + len(api.troubles)) * (3 + in_hand)
    assert query(store, "SELECT errors, level FROM client")[0]["errors"] <= 2


def check_notices(store: JobStore, kind: JobType) -> int:
    """Hold what was told against the pauses of the day; return how many letters that took."""
    Collector(store, registry(kind), {"shop": kind.client}).collect(gather=0.0)
    history = list(reversed(store.pause_history.latest(limit=1000)))
    # A pause in place of the one before, because its probe failed, is the same trouble.
    troubles: list[list[Any]] = []
    for one in history:
        before = troubles[-1][-1] if troubles else None
        goes_on = before is not None and before.ended_by == one.cause and one.started_at - before.ended_at <= timedelta(seconds=1)
        if goes_on:
            troubles[-1].append(one)
        else:
            troubles.append([one])
    assert any(len(chain) > 1 for chain in troubles), "no probe failed; a longer trouble is wanted"
    loud = [chain for chain in troubles if any(is_loud(one) for one in chain)]
    assert loud
    notices = query(store, "SELECT id, subject, count, told_count, closed_at, is_muted FROM notice ORDER BY id")
    assert all(one["subject"] == "" and one["closed_at"] is not None for one in notices)
    letters = query(store, "SELECT notice, what FROM letter ORDER BY id")
    told = Counter((one["notice"], one["what"]) for one in letters)
    for notice in notices:
        assert (told[notice["id"], "opened"], told[notice["id"], "recovered"]) == (1, 1), notice
    # What is not told by a pair of its own has come behind a fifth one within an hour.
    untold = len(loud) - len(notices)
    begins = [next(one for one in chain if is_loud(one)).started_at for chain in loud]
    often = sum(1 for at in begins if sum(at - timedelta(hours=1) < other < at for other in begins) >= MAX_FLAPS)
    assert 0 <= untold <= often, (untold, often)
    # Causes that differ within one trouble are a letter each, four at most: so no trouble is a storm.
    assert all(told[notice["id"], "more"] < MAX_MESSAGES for notice in notices)
    return len(letters)


def is_loud(one: Any) -> bool:
    """An API that asks for ten minutes or less is no news."""
    return one.cause != "asked" or (one.until - one.started_at) > timedelta(seconds=601)
