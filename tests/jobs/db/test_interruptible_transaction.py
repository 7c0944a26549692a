"""jobs.db.interruptible_transaction: long holders of SQLite's one writer are named in the log; those who wait get one error."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from jobs import JobsError, JobStore
from jobs.db import interruptible_transaction
from jobs.db.interruptible_transaction import InterruptibleTransaction
from jobs.errors import DatabaseBusy
from tests.support.store_helpers import wait_until

pytestmark = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said of those who hold on."""
    return [record.getMessage() for record in caplog.records if record.name == "jobs.db.interruptible_transaction"]


@pytest.mark.rows("DS-08")
def test_named_while_it_holds(store: JobStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, again and again, and not any more once it has ended."""
    for name, seconds in (("WARN_AFTER", 0.2), ("WARN_EVERY", 0.1), ("CHECK_EVERY", 0.02)):
        monkeypatch.setattr(f"jobs.db.interruptible_transaction.{name}", seconds)
    monkeypatch.setattr(interruptible_transaction, "_monitor", interruptible_transaction._Monitor())
    held = InterruptibleTransaction(store.db, "job 7 (shop.order)")
    wait_until(lambda: len(said(caplog)) >= 2)
    assert all("job 7 (shop.order) has held SQLite's one writer for" in line for line in said(caplog))
    held.rollback()
    caplog.clear()
    time.sleep(0.5)
    assert len(said(caplog)) <= 1, "one may have been on its way"


@pytest.mark.rows("T10")
@pytest.mark.parametrize("way", [{}, {"prepared": True}, {"single": True}, None], ids=["whole", "prepared", "single", "held"])
def test_a_writer_that_another_one_keeps(
    open_store: Callable[..., JobStore], monkeypatch: pytest.MonkeyPatch, way: dict[str, bool] | None
) -> None:
    """One line that says who may be in the way and what to do; SQLAlchemy's error all the same."""
    monkeypatch.setattr("jobs.db.database.BUSY_TIMEOUT", 0.05)
    store = open_store()
    stranger = sqlite3.connect(str(store.db.url.database), isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")

    def write() -> Any:
        if way is None:
            return InterruptibleTransaction(store.db, "job 7").rollback()
        with store.db.write(**way) as connection:
            return connection.exec_driver_sql("DELETE FROM lock")

    with pytest.raises(DatabaseBusy, match="another process, or a job in this one, holds SQLite's one writer") as caught:
        write()
    assert isinstance(caught.value, JobsError)
    assert isinstance(caught.value, OperationalError)
    assert "\n" not in str(caught.value)
    assert "SIGTERM twice" in str(caught.value)
    assert "DELETE" not in str(caught.value)
    stranger.execute("COMMIT")
    stranger.close()
    write()
