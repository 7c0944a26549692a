"""The Lock API as programs use it: `from flows import lock`. The lock itself is proved in tests/jobs/test_locks.py."""

import threading
import time

import pytest

from flows import lock
from flows.enqueue import using
from jobs import JobStore, LockHeld
from tests.support.seed_helpers import Project, together


@pytest.mark.rows("LK-01", "LK-04", "LK-11", "E-62")
def test_the_same_import_is_refused_and_another_is_not(store: JobStore) -> None:
    """Two imports run side by side; the second start of one is refused, with a line that says who has it."""
    with using(store), lock("import news"):
        with lock("import blogs") as other:
            assert other.is_held()
        with pytest.raises(LockHeld, match="'import news' is held by"), lock("import news"):
            raise AssertionError("two are in it")
    with using(store), lock("import news") as again:
        assert again.is_held()


@pytest.mark.rows("LK-05", "E-74")
def test_waiting_is_acquiring(store: JobStore) -> None:
    """`wait=` returns after the release, and with the lock; without a release it ends at its time."""
    taken, leave, freed = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with lock("import"):
            taken.set()
            leave.wait(60)
            freed.set()

    def second() -> None:
        assert taken.wait(60)
        began = time.monotonic()
        with pytest.raises(LockHeld), lock("import", wait=0.3):
            raise AssertionError("two are in it")
        assert 0.3 <= time.monotonic() - began < 60
        threading.Timer(0.2, leave.set).start()
        with lock("import", wait=600) as held:
            assert held.is_held()
            assert freed.is_set()

    with using(store):
        together(first, second)


@pytest.mark.rows("LK-09", "LK-10")
def test_a_test_locks_a_file_of_its_own(project: Project) -> None:
    """A test needs no lock that is always free: in an empty folder the first one makes its database."""
    with lock("import") as held:
        assert held.is_held()
    assert (project.folder / "data" / "syncs.db").is_file()
