"""A job type that is gone blocks nobody, and somebody is told (after a deploy without it)."""

import logging
from dataclasses import replace

import pytest

from flows.enqueue import enqueue, using
from flows.project.discovery import Broken
from flows.worker.queue_processing import work
from jobs import JobStore
from tests.support.fake_remote import System, client, orders, query, registry


def test_a_type_that_is_gone_does_not_hold_its_serial_key(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    """Its job waits, first of its key; those of the types that are left go on, in their order, and a line says so once."""
    asked: list[int] = []
    shop = client(System())
    old = replace(orders(shop, serial=lambda payload: "k"), id="shop.gone")
    kept = orders(shop, serial=lambda payload: "k", process=lambda job, system: asked.append(job.payload["n"]))
    with using(store, registry(old, kept)):
        enqueue(old, {"n": 0})
        for number in range(1, 5):
            enqueue(kept, {"n": number})
    with caplog.at_level(logging.WARNING, logger="syncs"):
        work(store, registry(kept), until_empty=True)
    assert asked == [1, 2, 3, 4]
    assert query(store, "SELECT type, state FROM job WHERE state = 'queued'") == [{"type": "shop.gone", "state": "queued"}]
    lines = [one.getMessage() for one in caplog.records if "shop.gone" in one.getMessage()]
    assert lines == ["jobs of shop.gone wait in queue shop, but nothing declares it; they hold nobody back"]
    # It is back: its job is worked.
    work(store, registry(old, kept), until_empty=True)
    assert query(store, "SELECT DISTINCT state FROM job") == [{"state": "success"}]


def test_a_type_that_another_worker_serves_keeps_its_key(store: JobStore) -> None:
    """It is declared: who does not serve it waits for it."""
    asked: list[int] = []
    shop = client(System())
    other = replace(orders(shop, serial=lambda payload: "k"), id="shop.other")
    kind = orders(shop, serial=lambda payload: "k", process=lambda job, system: asked.append(job.payload["n"]))
    with using(store, registry(other, kind)):
        enqueue(other, {"n": 0})
        enqueue(kind, {"n": 1})
    work(store, registry(other, kind), types=[kind.id], until_empty=True)
    assert asked == []


def test_a_broken_file_makes_no_type_gone(store: JobStore) -> None:
    """Nobody knows what it declares."""
    declared = registry(orders(client(System())))
    assert declared.types == {"shop.order"}
    assert replace(declared, broken=(Broken("syncs/x.py", "it cannot be read"),)).types == frozenset()
