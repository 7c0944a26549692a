"""The three strategies of the ancestors end in one data: the item is the record, one job per entity, fetch and save apart."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from clients import Cursor, Listing
from flows import JobType, Sync, enqueue, save_record
from flows.enqueue import using
from flows.project.registry import Registry
from flows.sync import run as engine
from flows.worker.queue_processing import work
from jobs import JobStore, Retry
from tests.support.fake_things_api import AT_ONCE, CLIENT, SYNC, Remote, declare, fetch, query, serving, states

COLUMNS = "key, version, content_hash, data, deleted_at"


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system whose listing shows whole things."""

    class Whole(Remote):
        def answer(self, path: str, query: Any, authorization: Any) -> Any:
            fault, document = super().answer(path, query, authorization)
            if "data" in document:
                document = {**document, "data": [self.things[item["id"]] for item in document["data"]]}
            return fault, document

    with serving(Whole()) as found:
        found.fill(25)
        yield found


def listing() -> Listing:
    """Return the listing of them all."""
    return Listing("things", Cursor("next"), items="data", key="id", version="v")


def item_is_record(remote: Remote, name: str = SYNC) -> tuple[Sync, list[JobType]]:
    """Strategy one: nothing is fetched."""
    return replace(declare(remote.url, listing=listing(), fetch=None, delete_missing=True), id=name), []


def one_job(remote: Remote, name: str = SYNC) -> tuple[Sync, list[JobType]]:
    """Strategy two: one job fetches and saves."""
    return replace(declare(remote.url, listing=listing(), delete_missing=True), id=name), []


def split(remote: Remote, name: str = SYNC) -> tuple[Sync, list[JobType]]:
    """Strategy three: the sync's jobs fetch, and hand over to jobs of another type that save."""

    def hand_over(session: Any, entity: Any, record: Any) -> None:
        enqueue("shop.save", {"key": entity.key, "record": record}, session=session)

    def save(job: Any, conn: Any) -> None:
        save_record(job.session, name, job.payload["key"], job.payload["record"])

    sync = replace(declare(remote.url, listing=listing(), fetch=fetch, save=hand_over, delete_missing=True), id=name)
    saving = JobType("shop.save", sync.client, process=save, queue="saves", retry=AT_ONCE)
    return sync, [saving]


def go(declared: tuple[Sync, list[JobType]], store: JobStore) -> None:
    """Run the sync, and work off what it has handed over."""
    sync, types = declared
    registry = Registry(clients={CLIENT: sync.client}, syncs={sync.id: sync}, job_types={one.id: one for one in types})
    with using(store, registry):
        assert engine.run(sync, store).state == "success"
        if types:
            work(store, registry, until_empty=True)


@pytest.mark.rows("SC-07", "SC-10")
def test_all_end_in_the_same_data(store: JobStore, remote: Remote) -> None:
    """New, changed, unchanged and deleted entities stand in the same rows, whichever way they came."""
    for turn in range(3):
        found = []
        for name, strategy in (("one", item_is_record), ("two", one_job), ("three", split)):
            go(strategy(remote, f"shop.{name}"), store)
            rows = query(store, f"SELECT {COLUMNS} FROM record WHERE sync = :sync ORDER BY key", sync=f"shop.{name}")
            found.append([{**row, "deleted_at": row["deleted_at"] is not None} for row in rows])
        assert set(states(store)) == {"success"}
        assert found[0] == found[1] == found[2]
        assert (len(found[0]), sum(row["deleted_at"] for row in found[0])) == [(25, 0), (27, 0), (27, 2)][turn]
        assert all(row["data"] is not None for row in found[0])
        if turn == 0:
            remote.fill(2, start=25)
            remote.change("k3")
        elif turn == 1:
            del remote.things["k1"], remote.things["k7"]


def test_what_fails_to_be_saved_waits(store: JobStore, remote: Remote) -> None:
    """The fetch is done, the save failed: that job has the record, and is tried again by itself, without another fetch."""
    sync, (saving,) = split(remote)
    broken = [True]
    process: Any = saving.process

    def fails(job: Any, conn: Any) -> None:
        if broken[0]:
            raise ValueError("no room")
        process(job, conn)

    saving = replace(saving, process=fails, retry=Retry(max_retries=0))
    go((sync, [saving]), store)
    assert states(store) == {"success": 25, "failure": 25}
    broken[0] = False
    remote.forget()
    from jobs.admin.filters import Filter

    store.commands.retry(Filter(type="shop.save"))
    go((sync, [saving]), store)
    assert not remote.details
    assert query(store, "SELECT count(*) AS n FROM record WHERE data IS NULL") == [{"n": 0}]


@pytest.mark.rows("DS-10")
def test_an_older_save_does_not_come_over_a_newer_one(store: JobStore, remote: Remote) -> None:
    """Two saves of one entity wait; in whatever order they come, the row gets the content that it stands for."""
    sync, (saving,) = split(remote)
    registry = Registry(clients={CLIENT: sync.client}, syncs={sync.id: sync}, job_types={saving.id: saving})
    with using(store, registry):
        engine.run(sync, store)
        remote.change("k0")
        engine.run(sync, store)
        with store.db.write() as connection:
            from sqlmodel import Session

            with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
                assert save_record(session, SYNC, "k0", remote.things["k0"]) is True
                assert save_record(session, SYNC, "k0", {"id": "k0", "v": 1, "name": "thing 0"}) is False
                session.commit()
        work(store, registry, until_empty=True)
    (row,) = query(store, "SELECT data, version FROM record WHERE key = 'k0'")
    assert (row["version"], "thing 0!" in str(row["data"])) == ("2", True)
