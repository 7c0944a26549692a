"""jobs.enqueueing.enqueue: jobs queued by hand, on both databases."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, select

from jobs import Database, DuplicateJob, Failure, JobsError, JobStore, NaiveTime, PayloadError, ScheduleError, Snooze
from jobs.db.change_listener import CHANNEL
from jobs.enqueueing.duplicates import NewJob, Policy
from jobs.enqueueing.payload import PAYLOAD_LIMIT
from jobs.fingerprint import fingerprint
from jobs.job import Lane
from jobs.schema.job_tables import job
from tests.support.store_helpers import (
    AT_ONCE,
    ELSEWHERE,
    LANE,
    OTHER,
    ManualClock,
    change,
    done,
    expire,
    finish,
    heard,
    query,
    row,
    states,
    take,
    take_one,
)


def new(payload: Any, identity: str | None = None, lane: Lane = LANE, **fields: Any) -> NewJob:
    """Make a new job."""
    return NewJob(lane, payload, identity, **fields)


def put(store: JobStore, *payloads: Any, policy: Policy = "allow", **fields: Any) -> list[int]:
    """Queue jobs of one content's identity; return their ids."""
    identity = None if policy == "allow" else "f"
    return [one.id for one in store.enqueue([new(payload, identity, **fields) for payload in payloads], policy)]


def available(store: JobStore, job_id: int) -> datetime:
    """Return the moment from which a job may be claimed."""
    with store.db.read() as connection:
        found: datetime = connection.execute(select(job.c.available_at).where(job.c.id == job_id)).scalar_one()
    return found


def merge(new: Any, old: Any) -> Any:
    """Keep both."""
    return {**old, **new}


# -- what is stored ------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-03", "AQ-04", "AQ-05")
def test_a_new_job_is_queued_and_nobody_s(store: JobStore) -> None:
    """Each job gets its own id, and nothing of an attempt."""
    a, b = put(store, {"n": 1}, {"n": 2}, priority=3, key="k", serial_key="s")
    assert b > a
    found = row(store, a)
    assert (found["state"], found["queue"], found["client"], found["type"]) == ("queued", "default", "api", "api.things")
    assert (found["priority"], found["key"], found["serial_key"], found["phase"]) == (3, "k", "s", "")
    assert (found["attempts"], found["claim_no"], found["retries"]) == (0, 0, 0)
    assert found["lease_until"] is None
    assert found["fingerprint"] is None
    claimed = take_one(store)
    assert (claimed.id, claimed.payload) == (a, {"n": 1})
    finish(store, done(claimed))
    assert row(store, a)["lease_until"] is None


@pytest.mark.rows("AQ-04", "AQ-29")
def test_ids_ascend_in_the_order_of_the_call(store: JobStore) -> None:
    """Also over lanes and statements, with fingerprints and without; the answers stand where the jobs stood."""
    lanes = [LANE, OTHER, Lane("other", "api", "api.things", "first")]
    jobs = [new(n, None if n % 3 else f"f{n}", lanes[n // 700 % 3]) for n in range(6000)]
    found = store.enqueue(jobs, "discard")
    ids = [one.id for one in found]
    assert ids == sorted(set(ids))
    assert {one.duplicate_of for one in found} == {None}
    assert [entry["payload"] for entry in query(store, "SELECT payload FROM job ORDER BY id")] == list(range(6000))
    assert {(entry["type"], entry["phase"]) for entry in query(store, "SELECT DISTINCT type, phase FROM job")} == {
        ("api.things", ""), ("api.others", ""), ("api.things", "first"),
    }  # fmt: skip


def test_nothing_to_queue(store: JobStore) -> None:
    """No jobs, no rows, no error."""
    assert store.enqueue([]) == store.enqueue([], "reject") == []


PAYLOADS: dict[str, Any] = {
    "empty object": {},
    "nothing": None,
    "empty list": [],
    "empty text": "",
    "text": "text",
    "true": True,
    "zero": 0,
    "a number": -17,
    "64 bits": 2**63 - 1,
    "a decimal": 1.5,
    "a small decimal": 0.1,
    "a large decimal": 1e15,
    "nested": {"a": [1, {"b": None}], "ü": "€ 𝄞", "quote": "'\"\\"},
    "big number inside": {"n": 2**70, "m": [-(2**64)]},
    "floats inside": {"n": 1.2345678901234567e-292, "one": 1.0},
    "text like a number": "12",
    "null inside": {"a": None, "text": "null"},
    "NUL": {"a\0b": "c\0"},
    "bare NUL": "\0",
    "order": {"b": 1, "a": 2},
}


@pytest.mark.rows("QA-10", "E-17", "AQ-03")
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_payload_comes_back_as_it_was(store: JobStore, payload: Any) -> None:
    """Any JSON, empty too, of every number and letter; key order is kept."""
    ids = [*put(store, payload), *put(store, payload, policy="discard"), *put(store, "old", payload, policy="replace")]
    claimed = take(store)
    assert [one.id for one in claimed] == ids[:2] == [*ids[:1], ids[2]]
    assert [one.payload for one in claimed] == [payload, payload]
    assert repr(claimed[0].payload) == repr(payload) or isinstance(payload, float)


@pytest.mark.rows("QA-10", "AQ-29")
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"a": object()}, "not JSON"),
        ({1: 2}, "not JSON"),
        ({"a": {1}}, "not JSON"),
        ("\ud800", "not JSON"),
        ({"a": float("nan")}, "NaN or an infinite number"),
        ([float("inf")], "NaN or an infinite number"),
        (float("nan"), "NaN or an infinite number"),
        (2**64, "SQLite would round"),
        (0.0029830558082336372, "SQLite would round"),
        ("x" * PAYLOAD_LIMIT, "has 1,048,578 bytes of JSON, the limit is 1,048,576"),
    ],
    ids=["object", "number as key", "set", "surrogate", "NaN", "infinity", "bare NaN", "big", "long decimal", "large"],
)
def test_a_payload_that_cannot_be_kept(store: JobStore, payload: Any, text: str) -> None:
    """It is refused with its place in the call, and nothing of the call is stored."""
    jobs = [new({"n": 1}, "f1"), new({"n": 2}, "f2"), new(payload, "f3"), new({"n": 4}, "f4")]
    for policy in ("allow", "discard", merge):
        with pytest.raises(PayloadError, match=f"api.things: the payload of job 3 of 4 .*{text}"):
            store.enqueue(jobs, policy)
        with pytest.raises(PayloadError, match=r"api.things: the payload (is|has|holds)"):
            store.enqueue([new(payload, "f3")], policy)
    assert states(store) == {}


def test_a_payload_of_just_the_limit(store: JobStore) -> None:
    """A mebibyte of JSON fits, many of them in one call too."""
    text = "x" * (PAYLOAD_LIMIT - 2)
    assert len(put(store, *[text] * 20)) == 20
    assert take_one(store).payload == text


def test_a_merged_payload_that_cannot_be_kept(store: JobStore) -> None:
    """What the merge returns is looked at too, and nothing is stored."""
    (job_id,) = put(store, {"a": 1}, policy="discard")
    with pytest.raises(PayloadError, match="not JSON"):
        store.enqueue([new({}, "g"), new({}, "f")], lambda new, old: {1, 2})
    assert states(store) == {"queued": 1}
    assert take_one(store).id == job_id


# -- when --------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-28", "AQ-30", "E-26")
@pytest.mark.parametrize("seconds", [0.25, 60, 86400 * 10, 86400 * 3653], ids=["250 ms", "1 min", "10 days", "10 years"])
def test_a_delay_in_seconds_on_sqlite_s_clock(tmp_path: Any, seconds: float) -> None:
    """Not claimable just before it has passed, claimable when it has."""
    clock = ManualClock()
    store = JobStore.open(f"sqlite:///{tmp_path / 'a.db'}", clock=clock)
    put(store, "x", delay=seconds)
    clock.forward(seconds - 0.01)
    assert take(store) == []
    clock.forward(0.01)
    assert len(take(store)) == 1
    store.close()


@pytest.mark.rows("AQ-28", "AQ-30", "E-26")
@pytest.mark.parametrize("seconds", [0.25, 60, 86400 * 3653], ids=["250 ms", "1 min", "10 years"])
def test_a_delay_is_counted_from_the_database_s_now(store: JobStore, seconds: float) -> None:
    """PostgreSQL tells the time where it is the database."""
    delay, before = timedelta(seconds=seconds), store.views.now()
    (job_id,) = put(store, "x", delay=seconds)
    assert before + delay <= available(store, job_id) <= store.views.now() + delay


@pytest.mark.rows("AQ-28")
def test_a_sub_second_delay_passes(store: JobStore) -> None:
    """A job that is due in a quarter of a second is claimed then, and not before; one that is due in a minute is not."""
    put(store, "y", delay=60)
    (job_id,) = put(store, "x", delay=0.25)
    until = time.monotonic() + 60
    while not (jobs := take(store)):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert [job.id for job in jobs] == [job_id]
    (times,) = query(store, "SELECT started_at >= available_at AS is_later FROM job WHERE id = :id", id=job_id)
    assert times["is_later"]


@pytest.mark.rows("AQ-28", "AQ-30")
def test_a_moment_wins_over_a_delay(store: JobStore) -> None:
    """It is kept as it is, whatever its zone."""
    moment = datetime(2035, 6, 1, 8, 30, 0, 250000, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    (job_id,) = put(store, "x", delay=1, available_at=moment)
    assert available(store, job_id) == moment
    (past,) = put(store, "y", delay=86400, available_at=datetime(2001, 1, 1, tzinfo=UTC))
    assert [one.id for one in take(store)] == [past]


@pytest.mark.rows("AQ-28", "AQ-29")
@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"delay": -1}, ScheduleError, "from 0 to .* seconds .* got -1"),
        ({"delay": -0.001}, ScheduleError, "got -0.001"),
        ({"delay": float("nan")}, ScheduleError, "got nan"),
        ({"delay": float("inf")}, ScheduleError, "got inf"),
        ({"delay": 1e12}, ScheduleError, "100 years"),
        ({"delay": "5"}, ScheduleError, "delay must be seconds, got '5'"),
        ({"delay": True}, ScheduleError, "must be seconds"),
        ({"delay": timedelta(seconds=5)}, ScheduleError, "must be seconds"),
        ({"available_at": datetime(2030, 1, 1)}, NaiveTime, "has no zone"),  # noqa: DTZ001  # the test's point
        ({"available_at": "2030-01-01"}, ScheduleError, "must be a datetime"),
        ({"available_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))}, ScheduleError, "beyond the calendar"),
    ],
)
def test_times_that_cannot_be(store: JobStore, fields: dict[str, Any], error: type[JobsError], text: str) -> None:
    """They are refused, and nothing of the call is stored."""
    with pytest.raises(error, match=text):
        store.enqueue([new("a"), new("b", **fields)])
    assert states(store) == {}


# -- duplicates ------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-19", "AQ-20", "E-11", "E-57")
@pytest.mark.parametrize(
    ("policy", "payloads"),
    [
        ("allow", [{"a": 1}, {"b": 2}]),
        ("reject", [{"a": 1}]),
        ("discard", [{"a": 1}]),
        ("replace", [{"b": 2}]),
        (merge, [{"a": 1, "b": 2}]),
    ],
    ids=["allow", "reject", "discard", "replace", "merge"],
)
def test_a_duplicate_of_a_queued_job(store: JobStore, policy: Policy, payloads: list[Any]) -> None:
    """Each policy leaves the jobs and payloads that it says, and the answer names the job that stands for the new one."""
    (first,) = put(store, {"a": 1}, policy=policy)
    if policy == "reject":
        with pytest.raises(DuplicateJob) as caught:
            put(store, {"b": 2}, policy=policy)
        assert caught.value.job.payload == {"b": 2}
        assert [(twin.id, twin.payload) for twin in caught.value.duplicates] == [(first, {"a": 1})]
    else:
        (answer,) = store.enqueue([new({"b": 2}, "f")], policy)
        assert answer == ((first + 1, None) if policy == "allow" else (first, first))
    assert [one.payload for one in take(store)] == payloads


@pytest.mark.rows("E-14", "AQ-29")
@pytest.mark.parametrize("policy", ["discard", "replace", merge])
def test_duplicates_within_one_call(store: JobStore, policy: Policy) -> None:
    """One row, and each answer names it."""
    found = store.enqueue([new({"a": 1}, "f"), new({"x": 0}, "g"), new({"b": 2}, "f")], policy)
    first, other = found[0].id, found[1].id
    assert found == [(first, None), (other, None), (first, first)]
    expected = {"discard": {"a": 1}, "replace": {"b": 2}}.get(str(policy), {"a": 1, "b": 2})
    assert {one.id: one.payload for one in take(store)} == {first: expected, other: {"x": 0}}


@pytest.mark.rows("E-14", "E-34", "AQ-29")
def test_reject_is_all_or_nothing(store: JobStore) -> None:
    """A duplicate within the call, or of a queued job, leaves nothing of the call."""
    with pytest.raises(DuplicateJob, match="same call"):
        store.enqueue([new(1, "a"), new(2, "b"), new(3, "a")], "reject")
    assert states(store) == {}
    store.enqueue([new(1, "b")], "reject")
    with pytest.raises(DuplicateJob, match="is queued"):
        store.enqueue([new(1, "a"), new(2, "b"), new(3, "c")], "reject")
    assert states(store) == {"queued": 1}


@pytest.mark.rows("AQ-17", "AQ-18", "E-12")
def test_other_queues_and_fingerprints_are_no_duplicates(store: JobStore) -> None:
    """The queue belongs to the identity; a fingerprint that was set is kept as it is."""
    ids = [one.id for one in store.enqueue([new(1, "a"), new(1, "b"), new(1, "a", Lane("other", "api", "t"))], "reject")]
    assert len(set(ids)) == 3
    assert [row(store, job_id)["fingerprint"] for job_id in ids] == ["a", "b", "a"]


@pytest.mark.rows("AQ-18", "E-14")
@pytest.mark.parametrize("policy", ["reject", "discard", "replace", merge])
def test_only_queued_jobs_are_twins(store: JobStore, policy: Policy) -> None:
    """One in processing gets exactly one queued follow-up (law 11); a finished one is no matter."""
    (first,) = put(store, {"n": 1}, policy=policy)
    running = take_one(store)
    (second,) = put(store, {"n": 2}, policy=policy)
    assert second != first
    if policy == "reject":
        with pytest.raises(DuplicateJob, match=f"job {second},"):
            put(store, {"n": 3}, policy=policy)
    else:
        assert put(store, {"n": 3}, policy=policy) == [second]
    assert finish(store, done(running)) == ["success"]
    follow_up = take_one(store)
    assert follow_up.id == second
    assert follow_up.payload == ({"n": 2} if policy in ("reject", "discard") else {"n": 3})
    assert finish(store, done(follow_up, Failure("no", retry=False))) == ["failure"]
    (third,) = put(store, {"n": 4}, policy=policy)
    assert third not in (first, second)


@pytest.mark.rows("AQ-18", "E-13")
@pytest.mark.parametrize("back", ["retry", "snooze", "rescue"])
def test_a_job_that_waits_for_its_next_try_is_a_twin(store: JobStore, back: str) -> None:
    """Queued is queued, whatever for; the row keeps its attempts and what they cost."""
    (first,) = put(store, {"n": 1}, policy="discard")
    running = take_one(store)
    if back == "rescue":
        expire(store)
        assert store.rescues.run(["default"]) == 1
    else:
        finish(store, done(running, Failure("no") if back == "retry" else Snooze(30, "wait"), retry=AT_ONCE))
    before = row(store, first)
    assert put(store, {"n": 2}, policy="discard") == [first]
    assert row(store, first) == before
    assert put(store, {"n": 3}, policy="replace") == [first]
    after = row(store, first)
    assert (after["attempts"], after["claim_no"], after["available_at"]) == (
        before["attempts"], before["claim_no"], before["available_at"],
    )  # fmt: skip


@pytest.mark.rows("AQ-19")
@pytest.mark.parametrize("policy", ["replace", merge])
def test_what_a_replaced_job_keeps(store: JobStore, policy: Policy) -> None:
    """It keeps its id and, without a delay, its time; payload, priority and serial key are the new ones, and it begins anew."""
    moment = datetime(2035, 1, 1, tzinfo=UTC)
    (first,) = put(store, {"n": 1}, policy=policy, available_at=moment, priority=1, serial_key="a")
    change(store, "UPDATE job SET checkpoint = '[5]', phase = 'second' WHERE id = :id", id=first)
    assert put(store, {"m": 2}, policy=policy, priority=9, serial_key="b") == [first]
    found = row(store, first)
    assert (found["priority"], found["serial_key"], found["phase"], found["checkpoint"]) == (9, "b", "", None)
    assert available(store, first) == moment
    assert put(store, {"m": 3}, policy=policy, available_at=moment + timedelta(days=1)) == [first]
    assert available(store, first) == moment + timedelta(days=1)
    assert put(store, {"m": 4}, policy=policy, delay=0) == [first]
    expected = {"m": 4} if policy == "replace" else {"n": 1, "m": 4}
    assert take_one(store).payload == expected


@pytest.mark.rows("AQ-19")
@pytest.mark.parametrize("policy", ["replace", merge])
@pytest.mark.parametrize(("payload", "rescues"), [({"n": 1}, 2), ({"n": 2}, 0)], ids=["same", "another"])
def test_a_replaced_job_has_all_its_retries(store: JobStore, policy: Policy, payload: Any, rescues: int) -> None:
    """What failed was the old payload; who killed its workers is a suspect only as long as it is the same."""
    (first,) = put(store, {"n": 1}, policy=policy)
    assert finish(store, done(take_one(store), Failure("no"), retry=AT_ONCE)) == ["queued"]
    change(store, "UPDATE job SET rescues = 2 WHERE id = :id", id=first)
    assert put(store, payload, policy=policy) == [first]
    found = row(store, first)
    assert (found["retries"], found["attempts"], found["claim_no"], found["rescues"]) == (0, 1, 1, rescues)


def test_a_merge_sees_each_payload_as_it_was(store: JobStore) -> None:
    """A payload that is nothing but a number or text reaches the merge as that."""
    for number, (old, new_) in enumerate([(1, 2), (1.5, 0.25), ("a", "b"), (None, True), ([1], [2]), ({"b\0": 1}, {})]):
        seen: list[Any] = []

        def note(new: Any, old: Any, seen: list[Any] = seen) -> Any:
            seen.append((new, old))
            return new

        store.enqueue([new(old, f"f{number}")], note)
        store.enqueue([new(new_, f"f{number}")], note)
        assert seen == [(new_, old)]
    assert [one.payload for one in take(store)] == [2, 0.25, "b", True, [2], {}]


def test_an_error_in_a_merge_leaves_nothing(store: JobStore) -> None:
    """It comes out as it is, and the call is undone."""
    put(store, {"n": 1}, policy="discard")

    def broken(new: Any, old: Any) -> Any:
        raise KeyError("no")

    with pytest.raises(KeyError):
        store.enqueue([new(1, "g"), new(2, "f")], broken)
    assert [one.payload for one in take(store)] == [{"n": 1}]
    assert len(put(store, 1)) == 1, "the store goes on"


# -- speed ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("AQ-29")
def test_ten_thousand_in_one_call(store: JobStore) -> None:
    """A bulk is a handful of statements, whatever its size, and takes well under a second."""
    jobs = [new({"n": n}, fingerprint("t", n)) for n in range(10_000)]
    statements: list[str] = []
    event.listen(store.db.engine, "before_cursor_execute", lambda *found: statements.append(found[2]))
    started = time.process_time()
    found = store.enqueue(jobs, "discard")
    assert time.process_time() - started < 3, "seconds of this process, so that a busy machine does not count"
    assert len(found) == 10_000
    assert len([text for text in statements if "job" in text]) <= 5
    assert store.enqueue(jobs, "discard") == [(one.id, one.id) for one in found]


def test_the_look_for_twins_uses_their_index(store: JobStore) -> None:
    """Also before the database has statistics: it must not read a whole queue to find one job."""
    store.enqueue([new(n, f"f{n}") for n in range(5000)], "discard")
    looks: list[tuple[str, Any]] = []
    event.listen(
        store.db.engine,
        "before_cursor_execute",
        lambda *found: looks.append((found[2], found[3])) if "SELECT job.id" in found[2][:20] else None,
    )
    store.enqueue([new(0, "f17")], "discard")
    ((sql, parameters),) = looks
    explain = "EXPLAIN QUERY PLAN " if store.db.dialect == "sqlite" else "EXPLAIN "
    with store.db.read() as connection:
        plan = "\n".join(str(line) for line in connection.exec_driver_sql(explain + sql, parameters))
    assert "job_twin" in plan, plan


# -- workers are told ------------------------------------------------------------------------------------------------------------


def test_postgresql_tells_who_listens(store: JobStore, database_url: str) -> None:
    """Once per queue and transaction, when it commits, and only of what may be claimed."""
    if store.db.dialect == "sqlite":
        pytest.skip("SQLite has nobody to tell; workers look")
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")

        store.enqueue([new(n, f"f{n}") for n in range(6000)] + [new(1, None, Lane("other", "api", "t"))], "discard")
        assert sorted(heard(listener)) == ["default", "other"]
        put(store, "later", delay=60)
        put(store, "again", policy="discard")
        assert heard(listener) == ["default"]
        put(store, "again", policy="discard")
        assert heard(listener) == []
        with store.db.engine.connect() as connection:
            store.enqueue([new("x")], session=connection)
            connection.rollback()
        assert heard(listener) == []


# -- several stores --------------------------------------------------------------------------------------------------------------


@pytest.mark.rows("E-13", "AQ-18")
@pytest.mark.parametrize("policy", ["discard", "replace", merge])
def test_a_claimed_twin_is_not_waited_for(store: JobStore, open_store: Callable[..., JobStore], policy: Policy) -> None:
    """Between two processes too: a twin that the other one took is in processing, and the new job is its follow-up."""
    other = open_store()
    (first,) = put(store, {"n": 1}, policy=policy)
    assert [one.id for one in other.claim([LANE], 1, worker=ELSEWHERE, lease=60)] == [first]
    (second,) = put(store, {"n": 2}, policy=policy)
    assert states(store) == {"processing": 1, "queued": 1}
    assert put(other, {"n": 3}, policy=policy) == [second]


def test_database_is_the_only_state(open_store: Callable[..., JobStore], database_url: str) -> None:
    """A store that was opened later knows the twins of one that is closed."""
    first = JobStore(Database(database_url))
    (job_id,) = put(first, {"n": 1}, policy="reject")
    first.close()
    with pytest.raises(DuplicateJob, match=f"job {job_id},"):
        put(open_store(), {"n": 2}, policy="reject")
