"""Runs that save and delete in tables of one's own, and sweep what is no longer listed."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from clients import Entity
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import JobStore
from tests.support.fake_things_api import Fault, Remote, declare, live, query, serving


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system without things."""
    with serving(Remote()) as found:
        yield found


def run(store: JobStore, remote: Remote, *, options: dict[str, Any] | None = None, **fields: Any) -> RunResult:
    """Run the sync of this remote; `options` are the run's."""
    return engine.run(declare(remote.url, **fields), store, **(options or {}))


def counts(result: RunResult, names: str) -> tuple[Any, ...]:
    """Return several fields at once."""
    return tuple(getattr(result, name) for name in names.split())


def records(store: JobStore) -> dict[str, dict[str, Any]]:
    """Return the records by key."""
    return {row["key"]: row for row in query(store, "SELECT * FROM record")}


# -- save and delete of one's own -----------------------------------------------------------------------


def _own_table(store: JobStore) -> None:
    with store.db.write() as connection:
        connection.execute(text("CREATE TABLE thing (id TEXT PRIMARY KEY, name TEXT NOT NULL)"))


def save(session: Any, entity: Entity, record: Any) -> None:
    """Save into a table of one's own."""
    session.execute(
        text("INSERT INTO thing (id, name) VALUES (:id, :name) ON CONFLICT (id) DO UPDATE SET name = excluded.name"),
        {"id": record["id"], "name": record["name"]},
    )


def delete(session: Any, entity: Entity) -> None:
    """Delete from a table of one's own."""
    session.execute(text("DELETE FROM thing WHERE id = :id"), {"id": entity.key})


def test_own_save(store: JobStore, remote: Remote) -> None:
    """A `save` of one's own commits with the job; the ledger knows version and hash, and keeps no data."""
    _own_table(store)
    remote.fill(25)
    run(store, remote, save=save)
    assert {row["id"] for row in query(store, "SELECT id FROM thing")} == set(remote.things)
    assert all(row["data"] is None and row["content_hash"] for row in records(store).values())
    assert counts(run(store, remote, save=save), "succeeded unchanged") == (0, 25)


def test_own_save_that_raises(store: JobStore, remote: Remote) -> None:
    """A `save` that raises fails its entity, its own writes are undone, and the rest of the batch is saved."""
    _own_table(store)
    remote.fill(25)

    def bad(session: Any, entity: Entity, record: Any) -> None:
        save(session, entity, record)
        if entity.key == "k3":
            raise ValueError("will not take it")
        if entity.key == "k4":
            session.execute(text("INSERT INTO no_such_table VALUES (1)"))

    result = run(store, remote, save=bad)
    assert counts(result, "state succeeded failed message") == ("partial", 23, 2, "2 of 25 failed")
    assert {row["id"] for row in query(store, "SELECT id FROM thing")} == set(remote.things) - {"k3", "k4"}
    assert live(store) == set(remote.things) - {"k3", "k4"}
    assert dict(result.failures)["k3"] == "ValueError: will not take it"


def test_own_save_that_pauses(store: JobStore, remote: Remote) -> None:
    """A `save` that meets a sign-in refusal pauses the client as a `fetch` does; the job waits."""
    from clients import AuthRefusedError

    remote.fill(3)

    def bad(session: Any, entity: Entity, record: Any) -> None:
        raise AuthRefusedError("401 Unauthorized", status=401)

    result = run(store, remote, save=bad)
    assert counts(result, "state succeeded failed pending") == ("paused", 0, 0, 3)


def test_own_save_of_objects(store: JobStore, remote: Remote) -> None:
    """A `fetch` with a `save` beside it may return what is not JSON."""
    _own_table(store)
    remote.fill(3)

    class Thing:
        def __init__(self, data: dict[str, Any]) -> None:
            self.data = data

    result = run(
        store, remote,
        fetch=lambda http, entity: Thing(http.get_json(f"things/{entity.key}")),
        save=lambda session, entity, record: save(session, entity, record.data),
    )  # fmt: skip
    assert counts(result, "state succeeded") == ("success", 3)
    assert len(query(store, "SELECT id FROM thing")) == 3


def test_record_that_is_not_json(store: JobStore, remote: Remote) -> None:
    """Without a `save`, a record that is not JSON fails its entity and no other."""
    remote.fill(20)
    odd = {"fetch": lambda http, entity: object() if entity.key == "k3" else {"id": entity.key}}
    result = run(store, remote, **odd)
    assert counts(result, "state succeeded failed") == ("partial", 19, 1)
    assert "not JSON" in dict(result.failures)["k3"]


def test_gone(store: JobStore, remote: Remote) -> None:
    """A detail that answers 404 stamps the record as deleted; the run is a success."""
    remote.fill(12)
    run(store, remote)
    remote.change("k3")
    remote.faults["k3"] = Fault(404)
    result = run(store, remote)
    assert counts(result, "state gone failed unchanged") == ("success", 1, 0, 11)
    assert live(store) == set(remote.things) - {"k3"}
    # It comes back when the detail does.
    remote.faults.clear()
    assert counts(run(store, remote), "succeeded unchanged") == (1, 11)
    assert live(store) == set(remote.things)


def test_own_delete(store: JobStore, remote: Remote) -> None:
    """A `delete` of one's own runs for what is gone, in the job's transaction."""
    _own_table(store)
    remote.fill(12)
    run(store, remote, save=save, delete=delete)
    remote.change("k3")
    remote.faults["k3"] = Fault(410)
    run(store, remote, save=save, delete=delete)
    assert {row["id"] for row in query(store, "SELECT id FROM thing")} == set(remote.things) - {"k3"}


# -- the sweep ------------------------------------------------------------------------------------------


@pytest.mark.rows("E-78", "BA-20")
def test_sweep(store: JobStore, remote: Remote) -> None:
    """After a complete listing, what it no longer has is stamped as deleted; nothing is removed."""
    remote.fill(20)
    run(store, remote, delete_missing=True)
    del remote.things["k3"], remote.things["k4"]
    result = run(store, remote, delete_missing=True)
    assert counts(result, "state deleted") == ("success", 2)
    assert live(store) == set(remote.things)
    assert len(records(store)) == 20
    assert counts(run(store, remote, delete_missing=True), "state deleted") == ("success", 0)


def test_sweep_calls_the_delete_of_ones_own(store: JobStore, remote: Remote) -> None:
    """What a complete listing no longer has is deleted by the sync's own `delete`."""
    _own_table(store)
    remote.fill(20)
    run(store, remote, save=save, delete=delete, delete_missing=True)
    del remote.things["k3"]
    assert run(store, remote, save=save, delete=delete, delete_missing=True).deleted == 1
    assert {row["id"] for row in query(store, "SELECT id FROM thing")} == set(remote.things)


def test_no_sweep_unless_asked(store: JobStore, remote: Remote) -> None:
    """Without `delete_missing` nothing is deleted."""
    remote.fill(20)
    run(store, remote)
    del remote.things["k3"]
    assert counts(run(store, remote), "state deleted") == ("success", 0)
    assert "k3" in live(store)


@pytest.mark.rows("E-78")
def test_sweep_above_the_share_is_refused(store: JobStore, remote: Remote) -> None:
    """More missing than the allowed share: nothing is deleted, and a person is told."""
    remote.fill(20)
    run(store, remote, delete_missing=True)
    for number in range(5):
        del remote.things[f"k{number}"]
    result = run(store, remote, delete_missing=True)
    assert counts(result, "state deleted exit_code") == ("partial", 0, 1)
    assert "5 of 20" in result.message
    assert len(live(store)) == 20


@pytest.mark.rows("E-78", "BA-20")
def test_empty_listing_sweeps_nothing(store: JobStore, remote: Remote) -> None:
    """A listing that suddenly comes back empty deletes nothing."""
    remote.fill(20)
    run(store, remote, delete_missing=True, max_delete_share=1.0)
    remote.things.clear()
    result = run(store, remote, delete_missing=True, max_delete_share=1.0)
    assert counts(result, "state deleted") == ("partial", 0)
    assert "empty" in result.message
    assert len(live(store)) == 20


@pytest.mark.rows("E-78", "BA-20")
@pytest.mark.parametrize("fault", [Fault(500), Fault(401), Fault(200, b"<html>")], ids=["500", "401", "html"])
def test_incomplete_listing_sweeps_nothing(store: JobStore, remote: Remote, fault: Fault) -> None:
    """A listing that breaks off deletes nothing, nor does one that stops at a limit."""
    remote.fill(20)
    run(store, remote, delete_missing=True)
    del remote.things["k15"]
    assert run(store, remote, delete_missing=True, options={"limit": 5}).deleted == 0
    remote.page_faults[10] = fault
    result = run(store, remote, delete_missing=True)
    assert result.deleted == 0
    assert len(live(store)) == 20


def test_failed_entities_are_not_swept(store: JobStore, remote: Remote) -> None:
    """An entity that is listed and fails is not missing."""
    remote.fill(20)
    run(store, remote, delete_missing=True)
    remote.change("k3")
    remote.faults["k3"] = Fault(422)
    assert counts(run(store, remote, delete_missing=True), "state failed deleted") == ("partial", 1, 0)
    assert len(live(store)) == 20
