"""The history of runs as the engine writes it: what started a run, how it ended, and what leaves no row."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from clients import Cursor, Listing
from flows import PausePolicy
from flows.maintenance import maintain
from flows.project.registry import Registry
from flows.sync import run as engine
from flows.sync.unfinished_listings import UnfinishedListings
from flows.worker.queue_processing import work
from jobs import JobStore
from jobs.reading.runs import RunView
from tests.support.fake_things_api import CLIENT, SYNC, Fault, Remote, declare, serving
from tests.support.store_helpers import runs

LISTING = Listing("things", Cursor("next"), items="data", key="id")
CALM = PausePolicy(after=1000)


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system with thirty things in three pages."""
    with serving(Remote()) as found:
        found.fill(30)
        yield found


def last(store: JobStore) -> RunView:
    """Return the newest run."""
    return runs(store, limit=1)[0]


def test_each_run_leaves_a_row(store: JobStore, remote: Remote) -> None:
    """With the numbers of its result, whatever its state; a dry run leaves none."""
    sync = declare(remote.url, listing=LISTING, delete_missing=True)
    engine.run(sync, store, dry_run=True)
    assert runs(store) == []
    result = engine.run(sync, store, started_by="hand")
    one = last(store)
    assert (one.sync, one.client, one.state, one.stopped) == (SYNC, CLIENT, "success", "end")
    assert (one.started_by, one.flow_run) == ("hand", None)
    assert (one.listed, one.succeeded, one.pages, one.queued) == (30, 30, result.pages, 30)
    assert one.ended_at is not None
    del remote.things["k29"]
    engine.run(sync, store)
    assert (last(store).unchanged, last(store).deleted, last(store).started_by) == (29, 1, "python")
    assert len(runs(store)) == 2


def test_an_exception_closes_the_row(store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row says what ended the run."""
    monkeypatch.setattr(engine, "sweep", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.run(declare(remote.url, listing=LISTING), store)
    assert (last(store).state, last(store).message) == ("failed", "ZeroDivisionError")


def test_a_continued_listing_is_a_run_of_the_worker(store: JobStore, remote: Remote) -> None:
    """A listing that `work` continues is a row; a look that finds nothing to continue is none."""
    fields: dict[str, Any] = {"pause": CALM, "listing": LISTING}
    sync = declare(remote.url, **fields)
    remote.page_faults[20] = Fault(500, times=1)
    assert engine.run(sync, store).pages == 2
    registry = Registry(clients={CLIENT: sync.client}, syncs={SYNC: sync})
    for _ in range(2):
        work(
            store,
            registry,
            until_empty=True,
            listings=lambda syncs, halt: UnfinishedListings(store, registry, syncs, stop=halt),
        )
    assert (last(store).started_by, last(store).state) == ("work", "success")
    assert len(runs(store)) == 2


def test_a_killed_run_is_closed_by_maintain(store: JobStore, remote: Remote, database_url: str) -> None:
    """The process is killed while it runs; the next `maintain` of anybody says so."""
    store.close()
    if not (pid := os.fork()):
        try:
            own = JobStore.open(database_url)
            sync = declare(remote.url, listing=LISTING, save=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            engine.run(sync, own)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    other = JobStore.open(database_url)
    assert last(other).state == "interrupted"
    done = maintain(other, Registry())
    assert done.interrupted == 1
    assert "1 run marked as interrupted" in str(done)
    assert last(other).ended_at is not None
    other.close()
