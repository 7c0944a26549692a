"""jobs.locks: named locks with a lease and a fence, on both databases (LK-01 to LK-11)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from jobs import JobStore, LockHeld, LockLost, LostLease
from jobs.db.job_session import UnitOfWork, as_current_unit
from jobs.locks import stored_name
from jobs.process_identity import this_worker
from tests.support.store_helpers import ManualClock, change, done, enqueue, environment, query, take_one, wait_until

PAST = "2000-01-01 00:00:00.000000+00"


def run_out(store: JobStore, name: str) -> None:
    """Let the lease of a lock have ended long ago."""
    change(store, "UPDATE lock SET lease_until = :past WHERE name = :name", past=PAST, name=name)


@contextmanager
def at_work(store: JobStore) -> Iterator[UnitOfWork]:
    """Work at a job, which leaves nothing behind unless it commits."""
    enqueue(store, ["a"])
    unit = store.checkpoints.unit_of_work(take_one(store))
    try:
        with as_current_unit(unit):
            yield unit
    finally:
        unit.discard()


@pytest.mark.rows("LK-01", "LK-04", "LK-10", "E-75")
def test_one_holds_it_at_a_time(store: JobStore, open_store: Callable[[], JobStore]) -> None:
    """A second one is refused, in the same process too; what ends the block, also an error, releases the lock."""
    with store.locks.hold("import") as held:
        assert (held.name, held.token, held.is_held()) == ("import", 1, True)
        for other in (store, open_store()):
            with pytest.raises(LockHeld, match=f"'import' is held by {this_worker()}"), other.locks.hold("import"):
                pytest.fail("two have it")
        assert store.locks.release("import", owner="another") is False
        assert held.is_held()
    assert not held.is_held()
    with pytest.raises(ZeroDivisionError), store.locks.hold("import") as held:
        1 / 0  # noqa: B018
    assert (held.token, held.is_held()) == (2, False)
    with store.locks.hold("import") as held:
        assert held.token == 3


@pytest.mark.rows("LK-11")
def test_names_do_not_block_each_other(store: JobStore) -> None:
    """Two names, two locks."""
    with store.locks.hold("a"), store.locks.hold("b") as held:
        assert held.token == 1


@pytest.mark.rows("LK-08")
def test_names_of_any_kind(store: JobStore) -> None:
    """Long ones, Japanese ones, ones with control characters and halves of letters: each is a lock of its own."""
    names = ["n" * 300, "n" * 300 + "1", "n" * 255, "同期", "同步", "a\0b", "a\0c", "\ud800", "\udfff", "a b", "é", "e\u0301"]
    for name in names:
        assert store.locks.acquire(name, owner="me") is not None, name
    assert len({stored_name(name) for name in names}) == len(names) == len(store.locks.all())
    for name in names:
        assert store.locks.acquire(name, owner="other") is None, name
        assert store.locks.release(name, owner="me") is True
    assert max(len(found.name) for found in store.locks.all()) <= 255


@pytest.mark.rows("LK-01")
def test_what_cannot_be_a_lock(store: JobStore) -> None:
    """No name, no owner, and a lease of no time are errors."""
    with pytest.raises(ValueError, match="name and an owner"), store.locks.hold(""):
        pass
    with pytest.raises(ValueError, match="name and an owner"):
        store.locks.acquire("a", owner="")
    with pytest.raises(ValueError, match="too short"), store.locks.hold("a", lease=0):
        pass
    assert store.locks.all() == []


@pytest.mark.rows("LK-03", "E-74")
def test_a_lock_that_ran_out_goes_to_exactly_one(store: JobStore, open_store: Callable[[], JobStore]) -> None:
    """Ten that find it expired: one gets it, each round, and the token rises by one."""
    stores = [open_store() for _ in range(10)]
    barrier, got = threading.Barrier(10), list[int]()

    def grab(own: JobStore, name: str) -> None:
        barrier.wait()
        held = own.locks.acquire("x", owner=name)
        if held is not None:
            got.append(held.token)

    assert store.locks.acquire("x", owner="first") is not None
    for round_ in range(3):
        run_out(store, "x")
        got.clear()
        threads = [threading.Thread(target=grab, args=(own, f"{round_}/{n}")) for n, own in enumerate(stores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [round_ + 2]


@pytest.mark.rows("E-74", "LK-05")
def test_no_two_are_in_it_at_once(store: JobStore, open_store: Callable[[], JobStore]) -> None:
    """Six threads that wait for it in turn: never two inside, everybody comes in, the tokens rise."""
    inside, most, tokens = 0, 0, list[int]()
    guard = threading.Lock()

    def work(own: JobStore) -> None:
        nonlocal inside, most
        for _ in range(3):
            with own.locks.hold("x", wait=30) as held:
                with guard:
                    inside += 1
                    most = max(most, inside)
                    tokens.append(held.token)
                time.sleep(0.005)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work, args=(open_store(),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert tokens == list(range(1, 19))


@pytest.mark.rows("LK-05", "E-73")
def test_waiting_ends_with_the_release_or_the_time(store: JobStore) -> None:
    """Fractions of a second count; soon after the release the one that waits has it."""
    assert store.locks.acquire("x", owner="a") is not None
    began = time.monotonic()
    assert store.locks.acquire("x", owner="b", wait=0.3) is None
    assert 0.3 <= time.monotonic() - began < 20
    released = threading.Event()

    def release() -> None:
        time.sleep(0.2)
        released.set()
        store.locks.release("x", owner="a")

    thread = threading.Thread(target=release)
    thread.start()
    held = store.locks.acquire("x", owner="b", wait=600)
    assert released.is_set()
    thread.join()
    assert held is not None
    assert held.token == 2


@pytest.mark.rows("LK-02")
def test_an_owner_extends_its_own(store: JobStore) -> None:
    """Asked for again, or extended, it lasts longer under the same token; once it is another's, it is not one's own any more."""

    def until() -> Any:
        return store.locks.all()[0].lease_until

    first = store.locks.acquire("x", owner="a", lease=10)
    before = until()
    again = store.locks.acquire("x", owner="a", lease=100)
    assert first is not None
    assert again is not None
    assert (first.token, again.token) == (1, 1)
    assert until() > before
    assert store.locks.extend("x", owner="a", lease=1000) is True
    assert until() > before
    assert store.locks.extend("x", owner="b") is False
    run_out(store, "x")
    # Nobody has taken it in between.
    assert store.locks.extend("x", owner="a") is True
    assert first.is_held()
    run_out(store, "x")
    other = store.locks.acquire("x", owner="b")
    assert other is not None
    assert other.token == 2
    assert (store.locks.extend("x", owner="a"), store.locks.release("x", owner="a"), first.is_held()) == (False, False, False)
    assert store.locks.extend("never", owner="a") is False


@pytest.mark.rows("E-76")
def test_a_lock_is_renewed_while_it_is_held(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that takes several leases keeps the lock; nobody else gets it meanwhile."""
    extend, renewals = store.locks.extend, list[float]()

    def note(name: str, *, owner: str, lease: float) -> bool:
        # Longer than asked for, so that a machine that stalls does not lose it.
        found = extend(name, owner=owner, lease=lease + 600)
        renewals.append(lease)
        return found

    monkeypatch.setattr(store.locks, "extend", note)
    with store.locks.hold("x", lease=0.3) as held:
        for _ in range(3):
            run_out(store, "x")
            n = len(renewals)
            wait_until(lambda n=n: len(renewals) >= n + 2)  # type: ignore[misc]  # one may have been on its way
            assert store.locks.acquire("x", owner="other") is None
        assert held.is_held()
        assert held.token == 1
    assert set(renewals) == {0.3}


@pytest.mark.rows("E-76", "E-61")
def test_who_lost_it_is_told(store: JobStore) -> None:
    """A lock that was broken, and went to another, ends its block with an error, and the other keeps it; its token is higher."""
    locks, others = store.locks, []

    def lose() -> None:
        with store.locks.hold("x") as held:
            assert locks.break_lock("x") is True
            assert not held.is_held()
            others.append(locks.acquire("x", owner="other"))
            assert others[0].token > held.token

    with pytest.raises(LockLost, match="'x' went to somebody else"):
        lose()
    assert others[0].is_held()
    assert locks.release("x", owner="other")

    def lose_and_fail() -> None:
        with store.locks.hold("x"):
            locks.break_lock("x")
            raise ZeroDivisionError

    # What went wrong in the block is what counts.
    with pytest.raises(ZeroDivisionError):
        lose_and_fail()
    assert locks.break_lock("x") is False
    assert locks.break_lock("never") is False


@pytest.mark.rows("E-75", "E-76")
@pytest.mark.parametrize("first", ["lock", "write"])
@pytest.mark.parametrize("ends", ["discard", "rollback", "slip", "abandon"])
def test_a_lock_is_free_after_a_job_that_fails(store: JobStore, first: str, ends: str) -> None:
    """What the job wrote goes back, the release of its lock does not; nobody waits for the lease of a block that has ended."""
    with at_work(store) as unit:
        if first == "write":
            unit.session.connection().execute(text("UPDATE record SET version = '2'"))
        with suppress(LostLease), store.locks.hold("x"):
            unit.session.connection().execute(text("UPDATE record SET version = '2'"))
            if ends == "abandon":
                unit.abandon()
        if ends == "slip":
            unit.connection().rollback()
            unit.commit(lambda connection: connection.execute(text("UPDATE record SET version = '3'")))
        elif ends == "rollback":
            unit.session.rollback()
        else:
            unit.discard()
    assert store.locks.acquire("x", owner="next") is not None


@pytest.mark.rows("E-75", "E-76")
@pytest.mark.parametrize("first", ["lock", "write"])
@pytest.mark.parametrize("by", ["session", "block"])
def test_a_rollback_inside_a_lock_loses_no_lock(store: JobStore, first: str, by: str) -> None:
    """A job that drops what it wrote has the lock as before, to the end of the block and no longer."""
    with at_work(store) as unit:
        if first == "write":
            unit.session.connection().execute(text("UPDATE record SET version = '2'"))
        with store.locks.hold("x") as held:
            unit.session.connection().execute(text("UPDATE record SET version = '2'"))
            if by == "session":
                unit.session.rollback()
                assert held.is_held()
                assert store.locks.acquire("x", owner="other") is None
            else:
                unit.session.get_transaction().rollback()  # type: ignore[union-attr]  # there is one
        unit.session.connection().execute(text("UPDATE record SET version = '3'"))
        unit.commit(lambda _connection: None)
    assert (held.token, held.is_held()) == (1, False)
    assert store.locks.acquire("x", owner="other") is not None


@pytest.mark.rows("E-75", "LK-04")
def test_a_lock_that_went_to_another_after_a_rollback(store: JobStore, open_store: Callable[[], JobStore]) -> None:
    """Who had it in between is not hidden, and our own claim to it does not stay."""

    def lose(unit: UnitOfWork) -> None:
        with store.locks.hold("x"):
            unit.session.rollback()
            other = open_store()
            other.locks.break_lock("x")
            assert other.locks.acquire("x", owner="other") is not None

    with at_work(store) as unit:
        unit.session.connection().execute(text("UPDATE record SET version = '2'"))
        with pytest.raises(LockLost):
            lose(unit)
        unit.discard()
    assert [(found.owner, found.held) for found in store.locks.all()] == [("other", True)]


@pytest.mark.rows("E-76")
def test_a_lock_inside_a_job_that_writes(store: JobStore) -> None:
    """A job whose session holds SQLite's one writer takes and releases a lock in that session: it does not wait for itself."""
    enqueue(store, ["a"])
    job = take_one(store)
    unit = store.checkpoints.unit_of_work(job)
    with as_current_unit(unit):
        with store.locks.hold("before", lease=0.6) as before:
            unit.session.connection().execute(text("UPDATE record SET version = '2'"))
            # It is renewed meanwhile.
            time.sleep(0.5)
            with store.locks.hold("inside", lease=0.6) as inside:
                assert inside.token == 1
        assert before.token == 1
        unit.session.connection().execute(text("UPDATE record SET version = '3'"))
        store.checkpoints.finish(done(job), unit)
    assert [(found.name, found.held) for found in store.locks.all()] == [("before", False), ("inside", False)]


@pytest.mark.rows("LK-07")
def test_a_lock_outlives_its_process(store: JobStore, database_url: str) -> None:
    """Taken in one process under a name, extended and released in another."""
    script = (
        "import sys; from jobs import JobStore\n"
        "store = JobStore.open(sys.argv[1])\n"
        "print(store.locks.acquire('nightly', owner='import', lease=600).token)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, database_url], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == "1\n"
    assert store.locks.acquire("nightly", owner="other") is None
    assert store.locks.extend("nightly", owner="import", lease=600) is True
    assert store.locks.release("nightly", owner="import") is True
    assert store.locks.acquire("nightly", owner="other") is not None


@pytest.mark.rows("LK-06", "E-61")
def test_a_dead_process_holds_nothing(store: JobStore, database_url: str) -> None:
    """A process killed with the lock in hand: on this host the next one has it at once, long before the lease ends."""
    script = (
        "import sys, time; from jobs import JobStore\n"
        "with JobStore.open(sys.argv[1]).locks.hold('x', lease=3600) as held:\n"
        "    print(held.token, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, database_url], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        with pytest.raises(LockHeld), store.locks.hold("x"):
            pytest.fail("two have it")
        process.kill()
        process.wait()
        with store.locks.hold("x") as held:
            assert held.token == 2


@pytest.mark.rows("LK-06")
def test_a_process_that_ends_leaves_it_free(store: JobStore, database_url: str) -> None:
    """A process that ends in the middle of its block, by sys.exit, has released it."""
    script = (
        "import sys; from jobs import JobStore\n"
        "with JobStore.open(sys.argv[1]).locks.hold('x', lease=3600): sys.exit(0)"
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", script, database_url], env=environment(), check=True, timeout=60)
    (found,) = store.locks.all()
    assert (found.held, found.lease_until) == (False, None)


@pytest.mark.rows("LK-10", "E-61")
def test_locks_are_listed(store: JobStore) -> None:
    """Who has what, since when, until when; what was released stays in the list, not held."""
    store.locks.acquire("b", owner="me", lease=60)
    store.locks.acquire("a", owner="you", lease=60)
    store.locks.release("a", owner="you")
    a, b = store.locks.all()
    assert (a.name, a.owner, a.held, a.lease_until) == ("a", "you", False, None)
    assert (b.name, b.owner, b.held, b.token) == ("b", "me", True, 1)
    assert b.lease_until is not None
    assert round((b.lease_until - b.acquired_at).total_seconds()) == 60


@pytest.mark.rows("E-77")
@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_lease_is_counted_on_one_clock(open_store: Callable[..., JobStore]) -> None:
    """On SQLite the host's clock, which tests can set: at the end of the lease, and not before."""
    clock = ManualClock()
    store = open_store(clock=clock)
    assert store.locks.acquire("x", owner="a", lease=30) is not None
    clock.forward(29.999)
    assert store.locks.acquire("x", owner="b") is None
    clock.forward(0.002)
    assert store.locks.acquire("x", owner="b") is not None


@pytest.mark.rows("E-77")
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_wrong_host_clock_changes_nothing(open_store: Callable[..., JobStore]) -> None:
    """On PostgreSQL only the server's clock counts: a host that is years ahead takes no lock that is held."""
    store = open_store(clock=ManualClock())
    assert store.locks.acquire("x", owner="a", lease=30) is not None
    assert open_store().locks.acquire("x", owner="b") is None
    assert store.locks.acquire("x", owner="b") is None
    assert query(store, "SELECT 1 FROM lock WHERE lease_until > now() + interval '31 seconds'") == []


def test_a_database_that_fails_meanwhile(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal that fails is tried again; the lock stays, as long as its lease does."""
    failures: list[int] = []
    extend = store.locks.extend

    def fail(*args: Any, **options: Any) -> bool:
        failures.append(1)
        if len(failures) < 4:
            raise OperationalError("UPDATE", {}, Exception("gone away"))
        return extend(*args, **options)

    monkeypatch.setattr(store.locks, "extend", fail)
    with store.locks.hold("x", lease=0.3) as held:
        wait_until(lambda: len(failures) >= 5)
    assert not held.is_held()
