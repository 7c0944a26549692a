"""What our own process, machine or database lacks fails no job: one clear line, and the jobs stay queued (law 16)."""

import errno
import imaplib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from clients import Entity, GoneError, HttpClient, LocalError, Page, TransientError
from flows import Client, JobType, PausePolicy, Sync
from flows.enqueue import enqueue, using
from flows.execution.connections import Connections
from flows.execution.outcomes import judge
from flows.project.redaction import Mask
from flows.sync import run as engine
from flows.user_code import attempt
from jobs import Failure, JobStore, Retry
from jobs.errors import DatabaseUnavailable
from jobs.job import Verdict
from tests.support.fake_remote import (
    System,
    client,
    drain,
    orders,
    pauses,
    query,
    queue,
    registry,
    run_out,
    states,
    until,
    working,
)


def wrapped() -> Exception:
    """An adapter's error that a lack of file descriptors has caused."""
    error = TransientError("no connection")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    return error


LACKS: list[Callable[[], Exception]] = [
    lambda: LocalError("the trusted certificates cannot be loaded"),
    lambda: ModuleNotFoundError("SoapClient needs zeep", name="zeep"),
    lambda: OSError(errno.ENOSPC, "No space left on device"),
    lambda: RuntimeError("can't start new thread"),
    wrapped,
    lambda: DatabaseUnavailable("the database does not answer"),
    lambda: OperationalError("SELECT 1", {}, Exception("connection refused")),
]


@pytest.mark.parametrize("lack", LACKS, ids=lambda lack: type(lack()).__name__)
def test_what_we_lack_fails_no_job(store: JobStore, caplog: pytest.LogCaptureFixture, lack: Callable[[], Exception]) -> None:
    """A worker that is to end does so soon; it has tried a few jobs and used no attempt of any, and another client goes on."""
    ill, well = System(lack), System()
    kind, other = orders(client(ill)), orders(client(well, "sound"))
    queue(store, kind, 100)
    queue(store, other, 10)
    with caplog.at_level(logging.ERROR, logger="syncs"):
        drain(store, kind, other)
    found = query(store, "SELECT client, state, attempts, count(*) AS n FROM job GROUP BY 1, 2, 3 ORDER BY client")
    assert [tuple(one.values()) for one in found] == [("shop", "queued", 0, 100), ("sound", "success", 1, 10)]
    assert not store.pauses.in_force(run_out=True)
    assert len(ill.requests) <= 8
    assert len([one for one in caplog.records if "its jobs stay queued" in one.getMessage()]) == 1


def test_a_type_that_lacks_something_does_not_hold_back_another_one(store: JobStore) -> None:
    """Trouble stays with the smallest thing: the other type of the same client needs no such package."""
    shop = client(System())

    def broken(job: Any, _: System) -> None:
        raise ModuleNotFoundError("No module named 'openpyxl'")

    kind, other = orders(shop, process=broken), JobType("shop.other", shop, process=lambda job, system: None)
    queue(store, kind, 20)
    queue(store, other, 20)
    drain(store, kind, other)
    found = query(store, "SELECT type, state, count(*) AS n FROM job GROUP BY 1, 2 ORDER BY 1")
    assert [tuple(one.values()) for one in found] == [("shop.order", "queued", 20), ("shop.other", "success", 20)]


def test_a_probe_that_cannot_be_sent_has_no_result(store: JobStore) -> None:
    """The client stays as it is for the others, and is not probed from here all the time."""
    system = System(lambda: LocalError("no proxy"))
    kind = orders(client(system))
    queue(store, kind, 5)
    store.pauses.open("shop", 60, cause="person", reason="", set_by="anna")
    run_out(store)
    drain(store, kind)
    assert pauses(store)[-1][3] is None
    assert len(system.requests) <= 2
    assert states(store) == {"queued": 5}


def test_a_run_says_what_it_left_for_that(store: JobStore) -> None:
    """The disk is full in the middle of a run: what was stored stands, nothing has failed, and the result is no success."""
    fetched: list[str] = []

    def fetch(_: Any, entity: Entity) -> dict[str, str]:
        fetched.append(entity.key)
        if len(fetched) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return {"id": entity.key}

    shop = Client("shop", connect=lambda _: HttpClient("http://127.0.0.1:1/"))
    pages = [Page([Entity(str(n)) for n in range(40)])]
    sync = Sync("shop.things", shop, listing=lambda _, since: iter(pages), fetch=fetch)
    result = engine.run(sync, store)
    assert (result.state, result.succeeded, result.failed, result.pending) == ("partial", 5, 0, 35)
    assert "No space left" in result.message


def test_what_save_lacks_fails_no_entity(store: JobStore) -> None:
    """A package that only `save` needs: the entities stay queued, and no attempt is used."""

    def save(session: Any, entity: Entity, record: Any) -> None:
        raise ModuleNotFoundError("No module named 'geoalchemy2'")

    shop = Client("shop", connect=lambda _: HttpClient("http://127.0.0.1:1/"))
    pages = [Page([Entity(str(n)) for n in range(40)])]
    sync = Sync("shop.things", shop, listing=lambda _, since: iter(pages), fetch=lambda _, entity: {"id": 1}, save=save)
    result = engine.run(sync, store)
    assert (result.succeeded, result.failed, result.pending) == (0, 0, 40)
    assert result.state != "success"
    assert "geoalchemy2" in result.message
    assert query(store, "SELECT DISTINCT state, attempts FROM job") == [{"state": "queued", "attempts": 0}]


def test_a_job_that_alone_fills_the_disk_fails_in_the_end(store: JobStore) -> None:
    """Others are worked in between, again and again: that one uses up its attempts, and no longer holds back its type."""

    def process(job: Any, _: System) -> None:
        if job.payload["n"] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    kind = orders(client(System()), process=process, concurrency=1, retry=Retry(max_retries=1, delay=0))
    queue(store, kind, 1)
    (bad,) = (row["id"] for row in query(store, "SELECT id FROM job"))

    def mend() -> None:
        """Let the time pass that a job waits which could not be worked."""
        with store.db.write() as connection:
            connection.exec_driver_sql("UPDATE job SET available_at = created_at WHERE state = 'queued'")

    with working(store, kind):
        for number in range(1, 5):
            with using(store, registry(kind)):
                enqueue(kind, {"n": number})
            until(lambda number=number: states(store).get("success", 0) == number)
            mend()
        until(lambda: mend() or store.views.job(bad).job.state == "failure")


def test_a_connection_that_cannot_be_set_up_fails_no_job(store: JobStore) -> None:
    """A variable that is missing, a path that is wrong: `connect` raises, and no job can do anything about it."""

    def connect(_: Any) -> Any:
        raise KeyError("SHOP_TOKEN")

    kind = orders(Client("shop", connect=connect))
    (job_id, *_) = queue(store, kind, 5)
    drain(store, kind)
    assert states(store) == {"queued": 5}
    assert "SHOP_TOKEN" in store.views.job(job_id).job.message


def refused(error: Exception) -> Callable[[Any], Any]:
    """Make a `connect` that raises."""

    def connect(_: Any) -> Any:
        raise error

    return connect


OURS = [
    KeyError("SHOP_TOKEN"),
    FileNotFoundError("key.pem"),
    PermissionError("key.pem"),
    TypeError("no port"),
    ValueError("port"),
]
OURS += [ModuleNotFoundError("No module named 'paramiko'"), OSError(errno.EMFILE, "Too many open files")]


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_what_is_surely_local_is_ours(error: Exception) -> None:
    """A path, a variable, an argument, a package: the process lacks it."""
    with Connections(Client("shop", connect=refused(error)), None) as connections:
        verdict = attempt(connections.get, lambda error: judge(error, policy=PausePolicy(), mask=Mask(None)))
    assert isinstance(verdict, Verdict)
    assert verdict.ours


class Refused(ValueError):
    """A library's own error."""


REMOTE = [imaplib.IMAP4.error("LOGIN failed"), Refused("sign-in refused"), OSError(errno.EHOSTUNREACH, "no route")]
REMOTE += [
    RuntimeError("SOAP fault"),
    json.JSONDecodeError("no JSON", "<html>", 0),
    ConnectionRefusedError("no"),
    OSError("away"),
]
REMOTE += [GoneError("404", status=404)]


@pytest.mark.parametrize("error", REMOTE, ids=lambda error: type(error).__name__)
def test_what_the_remote_side_refuses_is_its_trouble(error: Exception) -> None:
    """The job is retried, and several in a row pause the client; nothing is taken for gone."""
    with Connections(Client("shop", connect=refused(error)), None) as connections:
        verdict = attempt(connections.get, lambda error: judge(error, policy=PausePolicy(), mask=Mask(None)))
    assert isinstance(verdict, Verdict)
    assert isinstance(verdict.outcome, Failure)
    assert (verdict.ours, verdict.trouble, verdict.outcome.retry) == (False, True, True)


def test_a_sign_in_that_is_refused_has_a_bound(store: JobStore) -> None:
    """A library of its own refuses: the client pauses, and no job is tried without end."""
    kind = orders(Client("shop", connect=refused(imaplib.IMAP4.error("LOGIN failed"))))
    queue(store, kind, 20)
    drain(store, kind)
    assert [cause for cause, *_ in pauses(store)] == ["level"]


def test_the_jobs_go_on_when_it_is_mended(store: JobStore) -> None:
    """The waiting worker tries again by itself, not all the time."""
    gone = [OSError(errno.EMFILE, "Too many open files")]
    connected: list[bool] = []

    @contextmanager
    def connect(_: Any) -> Iterator[System]:
        connected.append(not gone)
        if gone:
            raise gone[0]
        yield System()

    kind = orders(Client("shop", connect=connect))
    queue(store, kind, 20)
    with working(store, kind):
        until(lambda: len(connected) >= 2)
        gone.clear()
        until(lambda: states(store) == {"success": 20})
    assert connected.count(False) <= 12
    assert query(store, "SELECT DISTINCT attempts FROM job") == [{"attempts": 1}]
