"""Entities that are refused for good: each fails by itself, and only what concerns the whole client pauses it (law 16)."""

from collections.abc import Iterator
from typing import Any

import pytest

from clients import AuthRefusedError, RateLimitedError
from flows import PausePolicy, Sync
from flows.execution.client_test import answers_well
from flows.pauses import self_tests
from flows.pauses.self_tests import SelfTests
from flows.project.registry import Registry
from flows.sync import run as engine
from flows.worker.queue_processing import work
from jobs import JobStore, Retry
from jobs.job import Verdict
from jobs.outcome import Pause, Success
from tests.support.fake_remote import System, client, drain, orders, queue, run_out
from tests.support.fake_things_api import CLIENT, Fault, Remote, declare, live, query, serving, states


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system with things."""
    with serving(Remote()) as found:
        found.fill(40)
        yield found


def drained(store: JobStore, sync: Sync) -> None:
    """Work what is due."""
    work(store, Registry(clients={CLIENT: sync.client}, syncs={sync.id: sync}), until_empty=True)


@pytest.mark.parametrize("status", [401, 403])
def test_one_refused_entity_fails_and_the_client_stays_open(store: JobStore, remote: Remote, status: int) -> None:
    """The client tests itself with a page of its listing; that is answered well."""
    remote.faults["k7"] = Fault(status)
    result = engine.run(declare(remote.url), store)
    assert (result.state, result.succeeded, result.failed) == ("partial", 39, 1)
    assert "the client itself answers well" in dict(result.failures)["k7"]
    assert query(store, "SELECT count(*) AS n FROM pause") == [{"n": 0}]
    # The listing, and one test.
    assert (remote.pages[0], remote.details["k7"]) == (2, 1)
    assert live(store) == {*remote.things} - {"k7"}


def test_a_check_that_is_wrong_itself_is_named(store: JobStore, remote: Remote) -> None:
    """It shows nothing of the client, which is paused as for the entity; the reason says that the test failed, and why."""
    remote.faults["k7"] = Fault(403)
    result = engine.run(declare(remote.url, client={"check": lambda http: {}["status"]}), store)
    assert (result.state, result.failed) == ("paused", 0)
    (pausing,) = store.pauses.in_force()
    assert pausing.cause == "enforced"
    assert pausing.reason.endswith("things/k7: 403 Forbidden; and the client's test: KeyError: 'status'")


def test_a_burst_of_refused_entities_is_not_a_burst_of_tests(
    store: JobStore, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All fail; the tests get rarer."""
    monkeypatch.setattr(self_tests, "LASTS", 3600.0)
    remote.faults["*"] = Fault(403)
    result = engine.run(declare(remote.url), store)
    assert (result.state, result.failed) == ("failed", 40)
    assert query(store, "SELECT count(*) AS n FROM pause") == [{"n": 0}]
    assert remote.pages[0] <= 1 + 8


def test_withdrawn_credentials_pause_the_client_and_fail_nothing(store: JobStore, remote: Remote) -> None:
    """The first entity that is refused is tested; so is the page, and the pause is as `enforced` says."""
    sync = declare(remote.url, concurrency=1, pause=PausePolicy(enforced={401: 77}))
    engine.run(sync, store, limit=3)
    remote.faults["*"] = Fault(401)
    remote.page_faults[0] = Fault(401)
    queued = engine.run(declare(remote.url, listing=lambda http, since: iter([])), store)
    assert queued.failed == 0
    with store.db.write() as connection:
        connection.exec_driver_sql("UPDATE job SET state = 'queued', finished_at = NULL")
    drained(store, sync)
    (pausing,) = store.pauses.in_force()
    assert (pausing.cause, round((pausing.until - pausing.started_at).total_seconds())) == ("enforced", 77)  # type: ignore[operator]
    assert states(store) == {"queued": 3}


def test_a_limited_entity_fails_by_itself(store: JobStore, remote: Remote) -> None:
    """429 for good: each time the client pauses, and when it opens others go first; then the job is tried alone, and fails."""
    remote.page_size = 40
    remote.faults["k7"] = Fault(429, headers={"Retry-After": "1"})
    remote.faults["k8"] = Fault(429, headers={"Retry-After": "1"})
    sync = declare(remote.url)
    engine.run(sync, store)
    for _ in range(8):
        assert [one.cause for one in store.pauses.in_force(run_out=True)] == ["asked"]
        run_out(store)
        drained(store, sync)
        if "queued" not in states(store):
            break
    assert states(store) == {"success": 38, "failure": 2}
    assert not store.pauses.in_force(run_out=True)
    (found,) = query(store, "SELECT message FROM job WHERE key = 'k7'")
    assert "429" in found["message"]
    assert "the client itself answers well" in found["message"]
    assert remote.details["k7"] <= 4


def test_a_limit_of_the_whole_client_fails_nothing(store: JobStore, remote: Remote) -> None:
    """However often: everybody is refused, the test as well."""
    remote.page_size = 40
    sync = declare(remote.url)
    remote.faults["*"] = Fault(429, headers={"Retry-After": "60"})
    engine.run(sync, store)
    remote.page_faults[0] = Fault(429, headers={"Retry-After": "60"})
    for _ in range(6):
        run_out(store)
        drained(store, sync)
    assert states(store) == {"queued": 40}
    remote.faults.clear()
    remote.page_faults.clear()
    run_out(store)
    drained(store, sync)
    assert states(store) == {"success": 40}


@pytest.mark.parametrize(
    "refusal", [RateLimitedError("429", status=429, retry_after=60.0), AuthRefusedError("403", status=403)], ids=["429", "403"]
)
def test_without_a_test_the_others_tell(store: JobStore, refusal: Exception) -> None:
    """A client of job types alone: three times refused, while others succeed in between, a job has failed."""
    system = System()
    asked: list[int] = []

    def process(job: Any, found: System) -> None:
        asked.append(job.id)
        if job.id == bad:
            raise refusal

    kind = orders(client(system), process=process, concurrency=1)
    (bad,) = queue(store, kind, 1)
    for _ in range(6):
        drain(store, kind)
        run_out(store)
        queue(store, kind, 1)
    view = store.views.job(bad)
    assert (view.job.state, view.job.attempts) == ("failure", 1)
    assert "others succeed" in view.job.message
    assert asked.count(bad) <= 4


def test_a_job_that_is_alone_uses_its_attempts_in_the_end(store: JobStore) -> None:
    """Nothing else is there to ask: after five probes it counts, and its retries are an end."""
    system = System(lambda: RateLimitedError("429", status=429, retry_after=60.0))
    kind = orders(client(system))
    (only,) = queue(store, kind, 1)
    for _ in range(80):
        drain(store, kind)
        run_out(store)
        if store.views.job(only).job.state == "failure":
            break
    view = store.views.job(only)
    assert view.job.state == "failure"
    assert "ended 5 probes before" in view.job.message


def test_errors_of_single_entities_do_not_pause_the_client(store: JobStore, remote: Remote) -> None:
    """500 for good, and at last only these are left: they use up their retries, and the client stays open."""
    remote.faults.update({f"k{n}": Fault(500) for n in range(5)})
    sync = declare(remote.url)
    engine.run(sync, store)
    drained(store, sync)
    assert states(store) == {"success": 35, "failure": 5}
    assert query(store, "SELECT count(*) AS n FROM pause") == [{"n": 0}]
    assert {remote.details[f"k{n}"] for n in range(5)} == {4}
    assert query(store, "SELECT level FROM client WHERE level > 0") == []


def test_a_probe_that_fails_by_itself_opens_the_client(store: JobStore, remote: Remote) -> None:
    """After a pause for another reason an entity that is 500 for good happens to be the probe: the test tells."""
    sync = declare(remote.url, retry=Retry(max_retries=1, delay=3600), concurrency=1)
    store.pauses.open(CLIENT, 60, cause="person", reason="", set_by="anna")
    remote.page_size = 40
    remote.faults["*"] = Fault(500)
    run_out(store)
    executor_pages = remote.pages[0]
    engine.run(sync, store, limit=1)
    work(store, Registry(clients={CLIENT: sync.client}, syncs={sync.id: sync}), max_jobs=1, until_empty=True)
    assert remote.pages[0] > executor_pages
    assert not store.pauses.in_force(run_out=True)
    assert query(store, "SELECT state, retries FROM job") == [{"state": "queued", "retries": 1}]


def test_a_test_is_shared_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One good answer excuses one job, then two, then four, while none succeeds."""
    monkeypatch.setattr(self_tests, "LASTS", 3600.0)
    asked: list[str] = []
    answers: list[Verdict] = [Verdict(Success())] * 4 + [Verdict(Pause(9, "401"), cause="enforced")]

    def test() -> Verdict:
        asked.append("")
        return answers.pop(0)

    tests = SelfTests({"shop": test})
    assert tests.ask("other") is None
    seen = []
    for _ in range(6):
        # Not `:=` within the assertion, which pytest before 9.2 evaluates twice.
        found = tests.ask("shop")
        assert found is not None
        assert answers_well(found)
        seen.append(len(asked))
    assert seen == [1, 1, 2, 2, 2, 3]
    tests.succeeded("shop")
    assert tests.ask("shop", fresh=True) == Verdict(Success())
    assert tests.ask("shop") == Verdict(Success())
    assert tests.ask("shop") == Verdict(Pause(9, "401"), cause="enforced")
