"""jobs.admin.commands: retry, release, cancel and delete, on both databases; each refuses what does not fit the state."""

from __future__ import annotations

import json
import threading
from typing import Any

import psycopg
import pytest

from jobs import Failure, JobStore, LostLease, Snooze
from jobs.admin import commands as module
from jobs.admin.command_refusals import LISTED, Refused, refusal
from jobs.admin.filters import Filter
from jobs.errors import FilterError
from jobs.job import Job, Lane
from jobs.listing.page_plan import Item
from jobs.schema.states import STATES
from tests.support.store_helpers import (
    ELSEWHERE,
    LANE,
    OTHER,
    begin,
    change,
    done,
    enqueue,
    expire,
    finish,
    heard,
    outcomes,
    query,
    record,
    row,
    states,
    take,
    take_one,
)

NO = Failure("no", retry=False)


def fail(store: JobStore, key: Any, lane: Lane = LANE) -> Job:
    """Make a failed job."""
    enqueue(store, [key], lane)
    job = take_one(store, lane)
    assert finish(store, done(job, NO)) == ["failure"]
    return job


def one_of_each(store: JobStore) -> dict[str, int]:
    """Make a job in every state; return the ids."""
    ids = {"failure": fail(store, "f").id}
    enqueue(store, ["s"])
    won = take_one(store)
    finish(store, done(won))
    enqueue(store, ["p"])
    held = take_one(store)
    enqueue(store, ["c"])
    cancelled = store.views.jobs(Filter(key="c"))[0].id
    store.commands.cancel([cancelled])
    enqueue(store, ["t"])
    gave_way = take_one(store)
    enqueue(store, ["t"])
    assert store.release([gave_way], reason="stop") == 1
    enqueue(store, ["q"])
    ids |= {"success": won.id, "processing": held.id, "cancelled": cancelled, "superseded": gave_way.id}
    ids |= {"queued": store.views.jobs(Filter(key="q"))[0].id}
    for state, job_id in ids.items():
        assert row(store, job_id)["state"] == state
    assert set(ids) == set(STATES)
    return ids


@pytest.mark.rows("AQ-15", "AQ-16", "M19")
def test_retry_queues_a_failed_job_again(store: JobStore) -> None:
    """A failed job goes back: available now, one retry more, rescues from nothing, its message still there."""
    job = fail(store, "a")
    change(store, "UPDATE job SET rescues = 4, available_at = '2090-01-01 00:00:00.000000+00' WHERE id = :id", id=job.id)
    found = store.commands.retry([job.id], by="ada")
    assert (found.done, found.refused, found.superseded) == (1, (), 0)
    after = row(store, job.id)
    assert (after["state"], after["retries"], after["rescues"], after["message"]) == ("queued", 1, 0, "no")
    assert after["finished_at"] is None
    again = take_one(store)
    assert (again.id, again.claim_no, again.retries, again.attempts) == (job.id, 2, 1, 1)
    assert finish(store, done(again)) == ["success"]


@pytest.mark.rows("E-16", "E-43", "AQ-41", "AQ-62", "AQ-63")
@pytest.mark.parametrize("name", ["retry", "release", "cancel", "delete"])
def test_what_does_not_fit_is_refused_and_unchanged(store: JobStore, name: str) -> None:
    """Of a job in every state each command takes those that fit; the others stay as they are, and the reason is said."""
    ids = one_of_each(store)
    before = {state: row(store, job_id) for state, job_id in ids.items()}
    fits = {"retry": {"failure"}, "release": {"processing"}, "cancel": {"queued", "processing"}}
    expected = fits.get(name, set(STATES) - {"processing"})
    found = getattr(store.commands, name)([*ids.values(), 4711, 2**70, -1, 0])
    assert found.done == len(expected)
    reasons = {
        "retry": "only failed jobs can be retried",
        "release": "only jobs in processing can be released",
        "cancel": "it is finished",
        "delete": "in processing; release or cancel it first",
    }
    refused = {one.id: (one.state, one.reason) for one in found.refused}
    unknown = dict.fromkeys((4711, 2**70, -1, 0), ("unknown", "no such job"))
    assert refused == {ids[state]: (state, reasons[name]) for state in set(STATES) - expected} | unknown
    assert found.refused_count == len(refused)
    for state in set(STATES) - expected:
        assert row(store, ids[state]) == before[state]
    for state in expected:
        left = query(store, "SELECT state FROM job WHERE id = :id", id=ids[state])
        assert left == ([] if name == "delete" else [{"state": "cancelled" if name == "cancel" else "queued"}])


@pytest.mark.rows("AQ-41", "M1", "M18")
def test_release_takes_a_job_from_its_worker(store: JobStore) -> None:
    """A released job is claimable at once, has used no attempt, says who released it, and the old worker's finish is lost."""
    enqueue(store, ["a"])
    job = take_one(store)
    assert store.commands.release([job.id], by="ada").done == 1
    after = row(store, job.id)
    assert (after["state"], after["claim_no"], after["attempts"], after["lease_until"]) == ("queued", 2, 0, None)
    (tried,) = store.views.job(job.id).attempts
    assert (tried.claim_no, tried.outcome, tried.error, tried.worker) == (1, "released", "released by ada", ELSEWHERE)
    assert store.renew([(job.id, job.claim_no)], lease=60) == set()
    assert finish(store, done(job)) == ["lost"]
    again = take_one(store)
    assert (again.id, again.claim_no, again.attempt) == (job.id, 3, 1)
    # The old claim is as lost beside the new one.
    assert finish(store, done(job)) == ["lost"]
    assert finish(store, done(again)) == ["success"]


@pytest.mark.rows("M1", "E-38")
def test_cancel_ends_waiting_jobs_and_those_in_hand(store: JobStore) -> None:
    """Both end as cancelled; only the claimed one has an attempt, and what its worker comes to is lost."""
    enqueue(store, ["a", "b"])
    held = take_one(store)
    waiting = store.views.jobs(Filter(state="queued"))[0].id
    assert store.commands.cancel([held.id, waiting], by="ada").done == 2
    for job_id in (held.id, waiting):
        after = row(store, job_id)
        assert (after["state"], after["message"], after["attempts"]) == ("cancelled", "cancelled by ada", 0)
        assert after["finished_at"] is not None
        assert after["lease_until"] is None
    assert (row(store, held.id)["claim_no"], row(store, waiting)["claim_no"]) == (2, 1)
    assert (outcomes(store, held.id), outcomes(store, waiting)) == (["cancelled"], [])
    assert finish(store, done(held)) == ["lost"]
    assert take(store) == []
    # Its content may come again.
    assert enqueue(store, ["a"]).queued == 1
    assert len(take(store)) == 1


@pytest.mark.rows("AQ-42")
def test_delete_takes_attempts_along_and_leaves_the_ledger(store: JobStore) -> None:
    """A deleted job is gone with its attempts; the record keeps its last error; deleting again is a refusal, not a crash."""
    enqueue(store, ["a"])
    finish(store, done(take_one(store)))
    change(
        store,
        "INSERT INTO record (sync, key, generation, first_seen_at) VALUES (:sync, 'a', 1, '2020-01-01 00:00:00+00')",
        sync=LANE.type,
    )
    job = fail(store, "a")
    assert outcomes(store, job.id) == ["failure"]
    assert store.commands.delete([job.id]).done == 1
    assert query(store, "SELECT 1 FROM attempt WHERE job_id = :id", id=job.id) == []
    assert record(store, "a")["last_error"] == "no"  # type: ignore[index]
    found = store.commands.delete([job.id])
    assert (found.done, found.refused) == (0, (Refused(job.id, "unknown", "no such job"),))


@pytest.mark.rows("E-14", "T13")
@pytest.mark.parametrize("name", ["retry", "release"])
def test_a_queued_twin_goes_first(store: JobStore, name: str) -> None:
    """A job that would go back while its twin is queued gives way to it, in the same statement (M2)."""
    enqueue(store, ["a"])
    old = take_one(store)
    if name == "retry":
        finish(store, done(old, NO))
    enqueue(store, ["a"])
    twin = store.views.jobs(Filter(state="queued"))[0].id
    found = getattr(store.commands, name)([old.id])
    assert (found.done, found.superseded) == (1, 1)
    after = row(store, old.id)
    assert (after["state"], after["superseded_by"], after["retries"]) == ("superseded", twin, 0)
    assert after["finished_at"] is not None
    assert states(store) == {"queued": 1, "superseded": 1}
    assert store.views.job(old.id).twin == twin


@pytest.mark.rows("E-14")
@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_of_failed_twins_the_newest_goes_back(store: JobStore, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three failed jobs of one content: one goes back, the newest, whatever batches they fall into (River's rule)."""
    monkeypatch.setattr(module, "BATCH", batch)
    failed = [fail(store, "a").id for _ in range(3)]
    others = [fail(store, "b").id, fail(store, "c").id]
    found = store.commands.retry(Filter(state="failure"))
    assert (found.done, found.superseded) == (5, 2)
    assert [row(store, one)["state"] for one in failed] == ["superseded", "superseded", "queued"]
    assert [row(store, one)["superseded_by"] for one in failed] == [failed[2], failed[2], None]
    assert [row(store, one)["state"] for one in others] == ["queued", "queued"]


@pytest.mark.rows("E-14")
def test_twins_in_hand_are_released_to_one(store: JobStore) -> None:
    """Two claims of one content released at once leave one queued job."""
    enqueue(store, ["a"])
    first = take_one(store)
    enqueue(store, ["a"])
    second = take_one(store)
    assert store.commands.release(Filter(client=LANE.client)).superseded == 1
    assert (row(store, first.id)["superseded_by"], row(store, second.id)["state"]) == (second.id, "queued")


@pytest.mark.rows("T13", "M2")
@pytest.mark.parametrize("way", ["retry", "snooze", "release"])
def test_a_cancelled_twin_takes_nobody_along(store: JobStore, way: str) -> None:
    """A worker has two claims of one content, and the newer one was cancelled: the older one goes back, and is not lost."""
    enqueue(store, ["a"])
    older = take_one(store)
    enqueue(store, ["a"])
    newer = take_one(store)
    assert store.commands.cancel([newer.id]).done == 1
    if way == "release":
        assert store.release([older, newer], reason="stop") == 1
    else:
        outcome = Snooze(0) if way == "snooze" else Failure("busy", delay=0)
        assert finish(store, done(older, outcome), done(newer, outcome)) == ["queued", "lost"]
    assert (row(store, older.id)["state"], row(store, newer.id)["state"]) == ("queued", "cancelled")
    assert [job.id for job in take(store)] == [older.id]


@pytest.mark.rows("T17")
def test_retry_forgives_a_poisonous_entity(open_store: Any) -> None:
    """An entity whose job killed its workers is not queued by a listing, until a person retries its job."""
    store = open_store(max_rescues=1)
    enqueue(store, [Item("a", "1")])
    job = take_one(store)
    expire(store)
    assert store.rescues.run([LANE.queue]) == 1
    assert row(store, job.id)["message"].startswith("poison")
    assert enqueue(store, [Item("a", "1")]).poisonous
    assert store.commands.retry([job.id]).done == 1
    assert record(store, "a")["is_poison"] in (False, 0)  # type: ignore[index]
    assert [one.rescues for one in take(store)] == [0]
    assert enqueue(store, [Item("a", "1")]).poisonous == ()


@pytest.mark.rows("AQ-63", "M19")
def test_a_filter_takes_what_it_names_in_batches(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """By filter in bounded transactions: every job that fits, no other, and one that came to another state meanwhile stays."""
    monkeypatch.setattr(module, "BATCH", 7)
    enqueue(store, range(30))
    enqueue(store, range(5), OTHER)
    jobs = take(store, 40, LANE)
    finish(store, *(done(job, NO) for job in jobs[:20]))
    sizes = []
    settled = store.commands._batch

    def watch(command: str, wanted: Filter, ids: list[int], *rest: Any) -> Any:
        sizes.append(len(ids))
        if len(sizes) == 2:  # between the look and the transaction
            change(store, "UPDATE job SET state = 'success' WHERE id = :id", id=ids[0])
        return settled(command, wanted, ids, *rest)

    monkeypatch.setattr(store.commands, "_batch", watch)
    found = store.commands.delete(Filter(type=LANE.type, state="failure"))
    assert sizes == [7, 7, 6]
    assert found.done == 19
    assert [(one.state, one.reason) for one in found.refused] == [("success", "no longer failure")]
    assert states(store) == {"success": 1, "processing": 10, "queued": 5}


@pytest.mark.rows("AQ-26", "AQ-27", "AQ-58", "E-23", "DR-05", "DR-04")
def test_a_queue_is_emptied(store: JobStore) -> None:
    """All jobs of a queue go, of one state or of all, but for those in hand; those of other queues stay."""
    there = Lane("second", "api", "api.things")
    enqueue(store, range(6))
    enqueue(store, range(4), there)
    jobs = take(store, 3)
    finish(store, done(jobs[0]), done(jobs[1], NO))
    assert store.commands.delete(Filter(queue=LANE.queue, state="queued")).done == 3
    found = store.commands.delete(Filter(queue=LANE.queue))
    assert (found.done, [one.id for one in found.refused]) == (2, [jobs[2].id])
    assert states(store) == {"processing": 1, "queued": 4}
    assert len(take(store, 10, there)) == 4
    orphans = query(store, "SELECT 1 FROM attempt WHERE job_id NOT IN (SELECT id FROM job)")
    assert orphans == []


def test_a_filter_beside_ids(store: JobStore) -> None:
    """Ids and a filter together mean both; a list of nothing does nothing."""
    enqueue(store, range(4))
    ids = tuple(job.id for job in store.views.jobs())
    assert store.commands.count(Filter(ids=ids[:2])) == {"queued": 2}
    assert store.commands.count(Filter(ids=ids, key="1")) == {"queued": 1}
    assert store.commands.cancel(Filter(ids=ids[:3], key="1")).done == 1
    assert store.commands.count(Filter(queue=LANE.queue)) == {"queued": 3, "cancelled": 1}
    assert (store.commands.cancel([]).done, store.commands.cancel(Filter(key="none")).refused) == (0, ())


def test_refusals_beyond_some_are_counted(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that fits far more jobs than a person reads: the first refusals by name, all of them counted."""
    enqueue(store, range(LISTED + 50))
    found = store.commands.retry(Filter(queue=LANE.queue))
    assert (found.done, len(found.refused), found.refused_count) == (0, LISTED, LISTED + 50)
    assert found.refusals == (("queued", "only failed jobs can be retried", LISTED + 50),)


PAYLOADS: list[Any] = [
    {"name": "x", "n": 5, "deep": {"a": [{"b": "y"}, {"b": True}]}, "0": "zero"},
    {"name": "5", "n": "5", "big": 12345678901234567890123},
    {"name": None, "n": 5.5, "ok": False, "big": 12345678901234567890124},
    {"name": "null", "ok": "false", "nul": "a\0b", "n": 50},
    {"name": "ü €", "price": 1e3, "n": -5},
    [1, "x"],
    "x",
    42,
    None,
    {},
]


@pytest.mark.rows("E-18", "SC-33")
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"name": "x"}, [0]), ({"n": "5"}, [0, 1]), ({"n": "5.0"}, [0]), ({"n": "5.5"}, [2]), ({"n": "-5"}, [4]),
        ({"name": "5"}, [1]), ({"name": "null"}, [2, 3]), ({"ok": "false"}, [2, 3]), ({"deep.a.0.b": "y"}, [0]),
        ({"deep.a.1.b": "true"}, [0]), ({"0": "zero"}, [0]), ({"0": "1"}, [5]), ({"1": "x"}, [5]), ({"price": "1000"}, [4]),
        ({"price": "1e3"}, [4]), ({"name": "ü €"}, [4]), ({"nope": "null"}, []), ({"nope": ""}, []), ({"name": "X"}, []),
        ({"big": "12345678901234567890123"}, [1]), ({"big": "12345678901234567890124"}, [2]), ({"n": "50"}, [3]),
        ({"n": "5", "name": "x"}, [0]), ({"n": "5", "name": "y"}, []), ({"name": "'; DROP TABLE job; --"}, []),
        ({"n": "1" * 400}, []), ({"n": "1e999"}, []), ({"n": "05"}, []), ({"nul": "a"}, []),
    ],
    ids=str,
)  # fmt: skip
def test_payloads_are_compared_at_a_path(store: JobStore, where: dict[str, str], expected: list[int]) -> None:
    """A path into the payload and its value as text; numbers by value, JSON's own words, several together; alike on both."""
    for n, payload in enumerate(PAYLOADS):
        change(
            store,
            "INSERT INTO job (queue, client, type, key, state, available_at, created_at, payload) VALUES "
            "('q', 'c', 't', :key, 'queued', '2020-01-01 00:00:00+00', '2020-01-01 00:00:00+00', :payload)",
            key=str(n), payload=None if payload is None else json.dumps(payload),
        )  # fmt: skip
    found = sorted(int(job.key or "") for job in store.views.jobs(Filter(where=where)))
    assert found == expected
    assert store.commands.cancel(Filter(where=where)).done == len(expected)


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", 'a"b', "a\0b", "1.2.3.4.5"])
def test_a_path_that_cannot_be_is_refused(path: str) -> None:
    """A path that no payload has is an error, not an empty answer."""
    with pytest.raises(FilterError, match="no path"):
        Filter(where={path: "x"})


def test_a_state_that_there_is_not_is_refused() -> None:
    """So is a state."""
    with pytest.raises(FilterError, match="lost"):
        Filter(state="lost")


def test_every_state_has_its_commands() -> None:
    """Whatever its state, something can be done to a job; nothing that is finished is released or cancelled."""
    for state in STATES:
        assert any(refusal(name, state) is None for name in ("retry", "release", "cancel", "delete"))


@pytest.mark.rows("T8", "E-08")
def test_commands_race_with_workers(store: JobStore, open_store: Any) -> None:
    """While workers claim and finish, releases, cancels and retries come in between: nothing deadlocks, nothing is lost."""
    enqueue(store, range(200))
    total = {found["id"] for found in query(store, "SELECT id FROM job")}
    errors: list[Exception] = []
    stop = threading.Event()

    def work(own: JobStore) -> None:
        try:
            while not stop.is_set():
                jobs = own.claim([LANE], 10, worker="elsewhere:1:1:1", lease=60)
                own.finish([done(job, NO if job.id % 3 == 0 else None) for job in jobs])
        except Exception as error:  # noqa: BLE001  # shown below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(open_store(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        store.commands.release(Filter(state="processing"))
        store.commands.retry(Filter(state="failure"))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    store.commands.release(Filter(state="processing"))
    assert {found["id"] for found in query(store, "SELECT id FROM job")} == total
    wins = query(store, "SELECT job_id FROM attempt WHERE outcome = 'success' GROUP BY job_id HAVING count(*) > 1")
    assert wins == []


@pytest.mark.rows("M13")
@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_workers_are_woken_once_for_each_queue(store: JobStore, database_url: str) -> None:
    """What makes jobs available tells those who wait, once for each queue."""
    second = Lane("second", "api", "api.things")
    for key in range(3):
        fail(store, key)
        fail(store, key, second)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"LISTEN {module.CHANNEL}")
        store.commands.retry(Filter(state="failure"))
        assert sorted(heard(connection)) == ["default", "second"]
        store.commands.cancel(Filter(state="queued"))
        assert heard(connection) == []


def test_a_listing_is_no_job(store: JobStore) -> None:
    """A claim of a listing is untouched by commands on its jobs."""
    claim = begin(store)
    store.pages.enqueue(claim, LANE, [Item("a")], cursor=1)
    store.commands.delete(Filter(type=LANE.type))
    try:
        store.pages.enqueue(claim, LANE, [Item("b")], cursor=2)
    except LostLease:
        pytest.fail("the listing lost its lease")
