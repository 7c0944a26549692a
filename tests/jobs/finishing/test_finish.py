"""jobs.finishing.finish and jobs.finishing.fence on both databases: saves, ledger and states in one fenced transaction."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from jobs import Failure, Gone, JobStore, Pause, Snooze, Success, Unchanged
from jobs.job import Job, JobResult, Verdict
from tests.support.store_helpers import (
    AT_ONCE,
    EVEN,
    LANE,
    bring_forward,
    change,
    content,
    done,
    enqueue,
    expire,
    finish,
    outcomes,
    query,
    record,
    row,
    states,
    take,
    take_one,
)


@pytest.fixture
def table(store: JobStore) -> str:
    """Make a table of the user's, for saves."""
    change(store, "CREATE TABLE thing (name TEXT PRIMARY KEY)")
    return "thing"


def saves(name: str, outcome: Any = None) -> Any:
    """Make a custom save that writes one row and ends as told."""

    def save(session: Any) -> Verdict:
        session.execute(text("INSERT INTO thing VALUES (:name)"), {"name": name})
        return Verdict(Success() if outcome is None else outcome)

    return save


def fails_in_sql(session: Any) -> Verdict:
    """Break a constraint, as a custom save may."""
    try:
        session.execute(text("INSERT INTO thing VALUES ('a')"))
        session.execute(text("INSERT INTO thing VALUES ('a')"))
    except Exception as error:  # noqa: BLE001  # as the engine does
        return Verdict(Failure(f"save: {type(error).__name__}", retry=False))
    raise AssertionError


PAST = "2000-01-01 00:00:00.000000+00"


def together(*times: Any) -> bool:
    """Tell whether these were written by one statement; SQLite's clock goes on within it, and a busy machine may stall there."""
    return max(times) - min(times) < timedelta(seconds=60)


def things(store: JobStore) -> list[str]:
    """Return what the user's table holds."""
    return [found["name"] for found in query(store, "SELECT name FROM thing ORDER BY name")]


def taken_over(store: JobStore, job: Job) -> Job:
    """Let another worker have the job."""
    expire(store, job)
    store.rescues.run(["default"])
    (new,) = take(store, suspects=True, worker="elsewhere:4712:1:1")
    assert new.id == job.id
    return new


@pytest.mark.parametrize(
    ("outcome", "state", "counts"),
    [
        (Success("12 rows"), "success", (1, 0, 0)),
        (Unchanged(), "success", (1, 0, 0)),
        (Gone(), "success", (1, 0, 0)),
        (Failure("no"), "queued", (1, 1, 0)),
        (Failure("no", retry=False), "failure", (1, 0, 0)),
        (Snooze(60, "later"), "queued", (0, 0, 1)),
        (Pause(60, "429"), "queued", (0, 0, 1)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple | str) else "",
)
def test_the_row_tells_what_became_of_the_job(store: JobStore, outcome: Any, state: str, counts: tuple[int, int, int]) -> None:
    """State, counters and times fit the outcome, and one attempt is written; snoozes use no attempt."""
    enqueue(store, ["a"])
    job = take_one(store)
    assert finish(store, done(job, outcome, traceback="Traceback…")) == [state]
    found = row(store, job.id)
    assert (found["attempts"], found["retries"], found["snoozes"], found["rescues"]) == (*counts, 0)
    assert (found["finished_at"] is not None) == (state != "queued")
    assert found["lease_until"] is None
    (attempt,) = store.views.job(job.id).attempts
    assert attempt.claim_no == 1
    assert attempt.started_at is not None
    assert attempt.started_at <= attempt.ended_at
    assert (attempt.error is None) == (state == "success")


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [(Failure("no"), 10), (Failure("no", delay=77), 77), (Snooze(5.5), 5.5), (Pause(600), 0), (Pause(None), 0)],
    ids=repr,
)
def test_a_job_that_goes_back_waits_as_told(store: JobStore, outcome: Any, seconds: float) -> None:
    """A retry waits by its policy, a snooze as it says, and a paused client's job is held by the pause alone."""
    enqueue(store, ["a"])
    before = store.views.now()
    job = take_one(store)
    finish(store, done(job, outcome))
    waits = (store.views.job(job.id).job.available_at - before).total_seconds()
    assert seconds <= waits < seconds + 5


def test_a_snooze_until_a_moment(store: JobStore) -> None:
    """A moment is kept to the microsecond."""
    enqueue(store, ["a"])
    moment = store.views.now() + timedelta(days=1, microseconds=1)
    job = take_one(store)
    finish(store, done(job, Snooze(moment)))
    assert store.views.job(job.id).job.available_at == moment


def test_results_come_in_order(store: JobStore) -> None:
    """One answer for each job, in the order they were given."""
    enqueue(store, range(6))
    jobs = take(store)
    given = [Success(), Failure("no", retry=False), Snooze(5), Gone(), Failure("no"), Unchanged()]
    settled = store.finish([done(job, outcome) for job, outcome in zip(reversed(jobs), given, strict=True)])
    assert [one.job for one in settled] == jobs[::-1]
    assert [one.state for one in settled] == ["success", "failure", "queued", "success", "queued", "success"]
    assert store.finish([]) == []


def test_a_success_writes_the_ledger(store: JobStore) -> None:
    """The record holds data, version, hash and times of its last success."""
    enqueue(store, ["a"])
    finish(store, done(take_one(store), content=content({"b": 1, "a": [1.5, "ä\0", 2**70]}, "v1")))
    found = record(store, "a")
    assert found is not None
    is_jsonb = store.db.dialect == "postgresql"
    assert found["data"] == {"b": 1, "a": [1.5, "ä\ufffd" if is_jsonb else "ä\0", 2**70]}
    assert is_jsonb or list(found["data"]) == ["b", "a"]
    assert (found["version"], found["generation"], found["deleted_at"]) == ("v1", 1, None)
    assert together(found["first_seen_at"], found["changed_at"], found["synced_at"])


def test_unchanged_content_is_not_saved(store: JobStore, table: str) -> None:
    """Same content: the outcome is unchanged, the save is not called, the ledger only confirms."""
    enqueue(store, ["a"])
    finish(store, done(take_one(store), content=content({"x": 1}, "v1"), save=saves("first")))
    enqueue(store, ["a"])
    job = take_one(store)
    (settled,) = store.finish([done(job, content=content({"x": 1}, "v2"), save=saves("second"))])
    assert (settled.state, settled.verdict.outcome) == ("success", Unchanged())
    assert things(store) == ["first"]
    found = record(store, "a")
    assert found is not None
    assert (found["version"], found["generation"]) == ("v2", 2)
    assert found["changed_at"] < found["synced_at"]
    assert outcomes(store, job.id) == ["unchanged"]


def test_changed_content_is_saved_again(store: JobStore) -> None:
    """Other content moves changed_at, and keeps when the entity was first seen."""
    for number in (1, 2):
        change(store, "UPDATE record SET first_seen_at = :past, changed_at = :past, synced_at = :past", past=PAST)
        enqueue(store, ["a"])
        finish(store, done(take_one(store), content=content({"x": number})))
    found = record(store, "a")
    assert found is not None
    assert found["data"] == {"x": 2}
    assert str(found["first_seen_at"])[:10] == PAST[:10]
    assert together(found["changed_at"], found["synced_at"])


def test_gone_stamps_and_a_return_clears(store: JobStore) -> None:
    """A gone entity keeps its data and has deleted_at; the same content later is new again."""
    enqueue(store, ["a"])
    finish(store, done(take_one(store), content=content({"x": 1})))
    enqueue(store, ["a"])
    finish(store, done(take_one(store), Gone()))
    found = record(store, "a")
    assert found is not None
    assert found["deleted_at"] is not None
    assert found["data"] == {"x": 1}
    change(store, "UPDATE record SET first_seen_at = :past, changed_at = :past, synced_at = :past", past=PAST)
    enqueue(store, ["a"])
    (settled,) = store.finish([done(take_one(store), content=content({"x": 1}))])
    assert settled.verdict.outcome == Success()
    found = record(store, "a")
    assert found is not None
    assert found["deleted_at"] is None
    assert together(found["changed_at"], found["synced_at"])


def test_a_failure_is_noted_and_a_success_clears_it(store: JobStore) -> None:
    """The ledger answers why an entity is not in sync; the data of the last success stays."""
    enqueue(store, ["a"])
    finish(store, done(take_one(store), content=content({"x": 1})))
    enqueue(store, ["a"])
    finish(store, done(take_one(store), Failure("404\nnot found"), retry=AT_ONCE))
    found = record(store, "a")
    assert found is not None
    assert (found["last_error"], found["data"]) == ("404 not found", {"x": 1})
    assert found["last_error_at"] is not None
    finish(store, done(take_one(store), content=content({"x": 1})))
    found = record(store, "a")
    assert found is not None
    assert (found["last_error"], found["last_error_at"]) == (None, None)


@pytest.mark.parametrize("outcome", [Success(), Failure("no"), Failure("no", retry=False), Snooze(5), Pause(5), Gone()], ids=repr)
def test_a_stale_finish_is_lost(store: JobStore, table: str, outcome: Any) -> None:
    """After a rescue the old claim writes nothing: no state, no attempt, no ledger row, no save (law 3)."""
    enqueue(store, ["a"])
    finish(store, done(take_one(store), content=content({"x": 0})))
    enqueue(store, ["a"])
    stale = take_one(store)
    new = taken_over(store, stale)
    before = (row(store, stale.id), record(store, "a"), query(store, "SELECT * FROM attempt"))
    assert finish(store, done(stale, outcome, content=content({"x": "stale"}), save=saves("stale"))) == ["lost"]
    assert finish(store, done(stale, outcome, content=content({"x": "stale"}))) == ["lost"]
    assert before == (row(store, stale.id), record(store, "a"), query(store, "SELECT * FROM attempt"))
    assert things(store) == []
    assert finish(store, done(new, content=content({"x": "new"}), save=saves("new"))) == ["success"]
    assert finish(store, done(new, content=content({"x": "again"}), save=saves("again"))) == ["lost"]
    assert things(store) == ["new"]
    found = record(store, "a")
    assert found is not None
    assert found["data"] == {"x": "new"}


def test_a_stale_finish_does_not_hurt_its_batch(store: JobStore, table: str) -> None:
    """One lost claim among others: the others are finished."""
    enqueue(store, range(3))
    jobs = take(store)
    taken_over(store, jobs[1])
    assert finish(store, *(done(job, content=content({}), save=saves(str(job.key))) for job in jobs)) == [
        "success",
        "lost",
        "success",
    ]
    assert things(store) == ["0", "2"]
    assert record(store, "1") is None


def test_a_failing_save_undoes_only_its_own_writes(store: JobStore, table: str) -> None:
    """A save that fails is that job's failure: its writes are gone, its neighbours' are not, and no ledger row says success."""
    enqueue(store, range(4))
    jobs = take(store)
    batch = [
        done(jobs[0], content=content({}), save=saves("0")),
        done(jobs[1], content=content({}), save=saves("1", Failure("no", retry=False))),
        done(jobs[2], content=content({}), save=fails_in_sql),
        done(jobs[3], content=content({}), save=saves("3")),
    ]
    settled = store.finish(batch)
    assert [one.state for one in settled] == ["success", "failure", "failure", "success"]
    assert settled[2].verdict.outcome == Failure("save: IntegrityError", retry=False)
    assert things(store) == ["0", "3"]
    assert [record(store, str(key)) is not None for key in range(4)] == [True, False, False, True]


def test_a_save_that_raises_takes_the_whole_batch_back(store: JobStore, table: str) -> None:
    """A bug in the caller: nothing of the batch is written, and every claim still holds."""
    enqueue(store, ["a", "b"])
    one, other = take(store)

    def bug(_session: Any) -> Verdict:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        store.finish([done(one, save=saves("a")), done(other, save=bug)])
    assert things(store) == []
    assert states(store) == {"processing": 2}
    assert finish(store, done(one), done(other)) == ["success", "success"]


def test_a_gone_entity_is_told_to_the_save(store: JobStore, table: str) -> None:
    """The user's own table can follow a deletion in the same transaction."""
    enqueue(store, ["a"])
    assert finish(store, done(take_one(store), Gone(), save=saves("deleted", Gone()))) == ["success"]
    assert things(store) == ["deleted"]


def test_a_job_that_goes_back_meets_its_queued_twin(store: JobStore) -> None:
    """The newer information wins: the older job ends as superseded and names its twin (M2)."""
    enqueue(store, ["a"])
    old = take_one(store)
    enqueue(store, ["a"])
    (twin,) = query(store, "SELECT id FROM job WHERE state = 'queued'")
    assert finish(store, done(old, Failure("no"))) == ["superseded"]
    found = row(store, old.id)
    assert (found["superseded_by"], found["attempts"]) == (twin["id"], 1)
    assert found["finished_at"] is not None
    assert outcomes(store, old.id) == ["retry"]
    assert [job.id for job in take(store)] == [twin["id"]]


@pytest.mark.parametrize("way", ["finish", "release", "rescue"])
def test_two_twins_that_go_back_together(store: JobStore, way: str) -> None:
    """Of two in one batch the newest goes back; the unique index never fires."""
    enqueue(store, ["a", "b"])
    first = take(store)
    enqueue(store, ["a"])
    second = take(store)
    jobs = [*second, *first]
    if way == "finish":
        assert finish(store, *(done(job, Failure("no")) for job in jobs)) == ["queued", "superseded", "queued"]
    elif way == "release":
        assert store.release(jobs, reason="stop") == 3
    else:
        expire(store)
        assert store.rescues.run(["default"]) == 3
    old, new = first[0], second[0]
    assert (row(store, old.id)["state"], row(store, old.id)["superseded_by"]) == ("superseded", new.id)
    assert states(store) == {"superseded": 1, "queued": 2}


def test_two_twins_that_go_back_and_a_third_waits(store: JobStore) -> None:
    """The one that waits is the newest: both give way to it, and name it."""
    jobs = []
    for _ in range(2):
        enqueue(store, ["a"])
        jobs.append(take_one(store))
    enqueue(store, ["a"])
    assert finish(store, *(done(job, Failure("no")) for job in jobs)) == ["superseded", "superseded"]
    (third,) = query(store, "SELECT id FROM job WHERE state = 'queued'")
    assert [row(store, job.id)["superseded_by"] for job in jobs] == [third["id"], third["id"]]


def test_a_twin_that_lost_its_claim_takes_nobody_along(store: JobStore) -> None:
    """Two twins in one batch, the newer one another worker's by now: no job of the entity is lost."""
    enqueue(store, ["a"])
    old = take_one(store)
    enqueue(store, ["a"])
    newer = take_one(store)
    new = taken_over(store, newer)
    finish(store, done(old, Failure("no"), retry=AT_ONCE), done(newer, Failure("no"), retry=AT_ONCE))
    assert finish(store, done(new)) == ["success"]
    assert states(store).get("processing", 0) == 0
    while jobs := take(store):
        finish(store, *(done(job) for job in jobs))
    assert set(states(store)) <= {"success", "superseded"}


def test_jobs_of_one_entity_in_one_batch(store: JobStore) -> None:
    """Two jobs of one entity finish together; the ledger has the later word."""
    jobs = []
    for _ in range(2):
        enqueue(store, ["a"])
        jobs.append(take_one(store))
    assert finish(store, *(done(job, content=content({"n": n})) for n, job in enumerate(jobs))) == ["success", "success"]
    found = record(store, "a")
    assert found is not None
    assert found["data"] == {"n": 1}


@pytest.mark.parametrize("wait", [0, 1e15, 1e300])
def test_any_wait_that_a_server_asks_for(store: JobStore, wait: float) -> None:
    """No wait, however long, fails the batch."""
    enqueue(store, ["a", "b"])
    one, other = take(store)
    assert finish(store, done(one, Snooze(wait)), done(other, Failure("no", delay=wait))) == ["queued", "queued"]


@pytest.mark.parametrize(
    "message", ["NUL \0 inside", "half a pair \udcff", "x" * 100_000, "ä\u2028\n\n"], ids=["nul", "half", "long", "lines"]
)
def test_any_message_can_be_kept(store: JobStore, message: str) -> None:
    """What an exception says may be any text; it never keeps a batch from being finished."""
    enqueue(store, ["a", "b"])
    finish(store, *(done(job, content=content({})) for job in take(store)))
    enqueue(store, ["a", "b"], full=True)
    one, other = take(store)
    batch = [done(one, Failure(message, retry=False), traceback=message), done(other, Success(message))]
    assert finish(store, *batch) == ["failure", "success"]
    assert row(store, one.id)["message"]
    assert len(row(store, one.id)["message"]) <= 500


def test_times_are_never_naive(store: JobStore) -> None:
    """Every time that leaves the store has a zone."""
    from datetime import datetime

    enqueue(store, ["a", "b"])
    finish(store, done(take_one(store), content=content({})))
    job = take_one(store)
    store.pauses.open("api", 60, cause="asked", reason="", set_by="me")
    found: list[Any] = [
        store.views.now(),
        *vars_of(store.views.job(job.id)),
        *vars_of(store.views.jobs()[0]),
        *vars_of(store.views.job(job.id).job),
    ]
    finish(store, done(job, Failure("no"), retry=EVEN))
    detail = store.views.job(job.id)
    found += [
        *vars_of(detail),
        *vars_of(detail.attempts[0]),
        *vars_of(store.pauses.in_force()[0]),
        *vars_of(store.views.queues()[0]),
    ]
    found += [value for one in (record(store, "a") or {}).values() for value in [one]]
    times = [value for value in found if isinstance(value, datetime)]
    assert len(times) > 10
    assert all(value.utcoffset() == timedelta(0) for value in times)


def vars_of(value: Any) -> list[Any]:
    """Return the fields of a dataclass with slots."""
    from dataclasses import fields

    return [getattr(value, field.name) for field in fields(value)]


def test_a_job_without_key_touches_no_ledger(store: JobStore) -> None:
    """The ledger is about entities."""
    enqueue(store, ["a"])
    change(store, "UPDATE job SET key = NULL, fingerprint = NULL, payload = :big", big='{"big": 1180591620717411303424}')
    job = take_one(store)
    assert (job.key, job.fingerprint, job.payload) == (None, None, {"big": 2**70})
    assert finish(store, JobResult(job, Verdict(Success()), EVEN, content({}))) == ["success"]
    assert query(store, "SELECT * FROM record") == []


def test_bringing_forward_is_all_a_retry_needs(store: JobStore) -> None:
    """A delayed retry is claimed in its own time, with its attempt counted."""
    enqueue(store, ["a"])
    finish(store, done(take_one(store), Failure("no")))
    assert take(store, 1, LANE) == []
    bring_forward(store)
    assert take_one(store).attempts == 1
