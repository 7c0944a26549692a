"""jobs.claiming.poison: what becomes of the queued twin of a job that keeps killing its workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs import JobStore
from jobs.claiming.poison import PoisonJob
from jobs.enqueueing.duplicates import NewJob
from jobs.listing.page_plan import Item
from tests.support.store_helpers import LANE, change, enqueue, expire, query, record, row, take


def put(store: JobStore, payload: Any, **fields: Any) -> int:
    """Queue a job whose identity is the same, whatever its payload."""
    return store.enqueue([NewJob(LANE, payload, "f", **fields)], "discard")[0].id


def rescued(store: JobStore) -> list[PoisonJob]:
    """Let all leases have ended, rescue, and return what was told."""
    told: list[PoisonJob] = []
    expire(store)
    store.rescues.run(["default"], on_poison=told.append)
    return told


def on_the_brink(store: JobStore, job_id: int) -> None:
    """Let a job's next rescue be its last, with this job in hand."""
    change(store, "UPDATE job SET rescues = 4 WHERE id = :id", id=job_id)
    assert [one.id for one in take(store, suspects=True)] == [job_id]


@pytest.mark.rows("AQ-39", "E-04")
def test_a_corrected_payload_is_not_its_predecessor_s_poison(store: JobStore) -> None:
    """A twin of a chosen identity with another payload stays queued, and starts clean."""
    on_the_brink(store, first := put(store, {"order": 1, "note": "kills"}))
    twin = put(store, {"order": 1, "note": "corrected"})
    assert [one.id for one in rescued(store)] == [first]
    found = row(store, twin)
    assert (found["state"], found["rescues"], found["message"]) == ("queued", 0, "")
    assert [one.id for one in take(store)] == [twin]


@pytest.mark.rows("AQ-39", "E-04")
@pytest.mark.parametrize(
    "payload", [{"order": 1}, 5, None, {"nul": "\0"}, {"big": 2**70}], ids=["object", "number", "null", "nul", "big"]
)
def test_the_same_payload_again_is_a_suspect(store: JobStore, payload: Any) -> None:
    """It is worked once more, alone, and ends with the next worker that it takes along."""
    on_the_brink(store, first := put(store, payload))
    twin = put(store, payload)
    assert [one.id for one in rescued(store)] == [first]
    assert (row(store, twin)["state"], row(store, twin)["rescues"]) == ("queued", 5)
    assert take(store) == []
    assert [one.id for one in take(store, suspects=True)] == [twin]
    assert [one.id for one in rescued(store)] == [twin]
    assert row(store, twin)["state"] == "failure"


@pytest.mark.rows("AQ-39", "E-04")
def test_the_twin_of_an_entity_ends_and_is_told_of(store: JobStore) -> None:
    """The content of a sync's job is the entity: the twin ends with it, also of another version, and under its own id."""
    enqueue(store, [Item("a", "1")])
    (first,) = (one["id"] for one in query(store, "SELECT id FROM job"))
    on_the_brink(store, first)
    enqueue(store, [Item("a", "2"), Item("b", "1")])
    (twin,) = (one["id"] for one in query(store, "SELECT id FROM job WHERE state = 'queued' AND key = 'a'"))
    told = rescued(store)
    assert [(one.id, one.key, one.version, one.type, one.client) for one in told] == [
        (first, "a", "1", LANE.type, LANE.client),
        (twin, "a", "2", LANE.type, LANE.client),
    ]
    assert told[0].message == told[1].message == row(store, twin)["message"]
    assert (row(store, twin)["state"], row(store, twin)["finished_at"] is not None) == ("failure", True)
    news = store.unreported.failures(LANE.client)
    assert [(one.job_id, one.key, one.message) for one in news] == [(one.id, "a", one.message) for one in told]
    found = record(store, "a")
    assert found is not None
    assert (bool(found["is_poison"]), found["poison_version"]) == (True, "1")
    assert [one.key for one in take(store)] == ["b"]


@pytest.mark.rows("AQ-39")
@pytest.mark.parametrize(("payload", "rescues"), [({"n": 1}, 2), ({"n": 2}, 0)], ids=["same", "another"])
def test_who_gives_way_hands_its_rescues_on_to_the_same_payload(store: JobStore, payload: Any, rescues: int) -> None:
    """A rescued job that meets its twin: the count goes on where the content is the same."""
    first = put(store, {"n": 1})
    change(store, "UPDATE job SET rescues = 1 WHERE id = :id", id=first)
    assert [one.id for one in take(store, suspects=True)] == [first]
    twin = put(store, payload)
    assert rescued(store) == []
    assert (row(store, first)["state"], row(store, first)["superseded_by"]) == ("superseded", twin)
    assert row(store, twin)["rescues"] == rescues


@pytest.mark.rows("AQ-39")
def test_who_gives_way_hands_its_rescues_on_to_its_entity(store: JobStore) -> None:
    """Of an entity the count goes on whatever its version: it is listed anew each time that it changes."""
    enqueue(store, [Item("a", "1")])
    (first,) = take(store)
    enqueue(store, [Item("a", "2")])
    assert rescued(store) == []
    assert row(store, first.id)["state"] == "superseded"
    assert query(store, "SELECT rescues FROM job WHERE state = 'queued'") == [{"rescues": 1}]


@pytest.mark.rows("AQ-39", "E-04")
def test_a_claim_that_rescues_tells_of_twins_too(open_store: Callable[..., JobStore]) -> None:
    """Rescue is part of claiming, and so is telling."""
    store = open_store()
    enqueue(store, [Item("a", "1")])
    (first,) = query(store, "SELECT id FROM job")
    on_the_brink(store, first["id"])
    enqueue(store, [Item("a", "2")])
    expire(store)
    told: list[PoisonJob] = []
    other = open_store()
    assert other.claim((LANE,), 10, worker="elsewhere:4712:1:1", lease=60, on_poison=told.append) == []
    assert [one.version for one in told] == ["1", "2"]
