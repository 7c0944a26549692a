"""What processes know of paces, in both databases."""

from __future__ import annotations

import pytest

from jobs import JobStore
from jobs.pauses.paces import Pace
from tests.support.store_helpers import change


def test_each_process_has_its_own_row(store: JobStore) -> None:
    """Two processes and two origins: what the one says replaces nothing of the other."""
    store.paces.put([Pace("api", "http://a:80", "w1", 5.0, age=2000.0), Pace("api", "http://b:80", "w1")])
    store.paces.put([Pace("api", "http://a:80", "w2")])
    store.paces.put([Pace("api", "http://a:80", "w1", 6.0, age=1000.0), Pace("other", "http://a:80", "w1")])
    known = {one[:3]: one for one in store.paces.of(["api"])}

    assert {(origin, worker): one.rate for (_, origin, worker), one in known.items()} == {
        ("http://a:80", "w1"): 6.0,
        ("http://b:80", "w1"): None,
        ("http://a:80", "w2"): None,
    }

    assert known["api", "http://a:80", "w1"].age == pytest.approx(1000.0, abs=60)

    assert known["api", "http://a:80", "w1"].idle == pytest.approx(0.0, abs=60)


def test_who_ends_is_gone_and_its_pace_stays(store: JobStore) -> None:
    """A process that ends leaves what it has learned to the next one, and nothing else."""
    store.paces.put([Pace("api", "http://a:80", "w1", 5.0), Pace("api", "http://b:80", "w1"), Pace("api", "http://b:80", "w2")])
    store.paces.leave("w1")

    assert {one[1:3] for one in store.paces.of(["api"])} == {("http://a:80", "w1"), ("http://b:80", "w2")}


def test_old_paces_are_forgotten(store: JobStore) -> None:
    """A quarter of an hour after it was said for the last time, a pace is gone with the next one that is said."""
    store.paces.put([Pace("api", "http://a:80", "w1", 5.0), Pace("api", "http://a:80", "w2")])
    change(store, "UPDATE pace SET seen_at = '2000-01-01 00:00:00.000000' WHERE worker = 'w1'")
    store.paces.put([Pace("api", "http://a:80", "w3")])

    assert {one.worker for one in store.paces.of(["api"])} == {"w2", "w3"}
