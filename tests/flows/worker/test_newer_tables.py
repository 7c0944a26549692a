"""A running worker that meets tables of a newer version ends, and leaves its jobs to one of that version."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from flows.worker import limits
from flows.worker.queue_processing import work
from jobs import JobStore
from jobs.errors import SchemaTooNew
from jobs.schema.upgrade import VERSION_TABLE
from tests.support.fake_remote import System, client, orders, queue, registry, states


@pytest.mark.parametrize("how", ["looked at", "met"])
def test_a_worker_ends(store: JobStore, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """It looks at intervals, and at once when a statement is refused; what it had in hand goes back."""
    monkeypatch.setattr(limits, "TABLES_EVERY", 0.05 if how == "looked at" else 3600)
    asked, goes_on = threading.Event(), threading.Event()

    class Slow(System):
        def ask(self, what: object) -> None:
            asked.set()
            assert goes_on.wait(60)
            super().ask(what)

    of = orders(client(Slow()), concurrency=1)
    queue(store, of, 3)

    errors: list[BaseException] = []

    def run() -> None:
        try:
            work(store, registry(of))
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert asked.wait(60)
    with store.db.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        if how == "met":
            connection.execute(text("ALTER TABLE job RENAME COLUMN rescues TO saves"))
    goes_on.set()
    thread.join(60)
    assert not thread.is_alive()
    (error,) = errors
    assert isinstance(error, SchemaTooNew)
    assert "newer than this code" in str(error)
    if how == "looked at":
        assert states(store).keys() <= {"queued", "success"}
