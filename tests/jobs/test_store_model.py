"""T13: whatever is done to jobs, in any order, the tables say what a plain Python model says, on both databases."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from jobs import DuplicateJob, Failure, JobStore, KeepPolicy, Queue, Retry, Snooze, Success
from jobs.admin.command_refusals import refusal
from jobs.admin.filters import Filter
from jobs.enqueueing.duplicates import NewJob
from jobs.job import Job, Lane
from jobs.schema.states import FINISHED, STATES
from tests.support.store_helpers import ELSEWHERE, LANE, bring_forward, change, done, query

OTHER = Lane(LANE.queue, "other-api", "other.things")
LANES = (LANE, OTHER)
MAX_RESCUES, MAX_RETRIES, DAY = 3, 2, 86400.0
UNKNOWN = 10**9

OUTCOMES: dict[str, Any] = {
    "success": Success(),
    "failure": Failure("no", retry=False),
    "retry": Failure("no", delay=0),
    "retry later": Failure("no", delay=DAY),
    "snooze": Snooze(0),
    "snooze later": Snooze(DAY),
}


@dataclass
class Known:
    """What the model knows of one job."""

    id: int
    lane: Lane
    fingerprint: str | None
    is_due: bool
    state: str = "queued"
    claim_no: int = 0
    attempts: int = 0
    retries: int = 0
    snoozes: int = 0
    rescues: int = 0
    outcomes: list[str] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """The store beside the model; every rule does the same to both, and after each they are compared."""

    store: JobStore

    def __init__(self) -> None:
        super().__init__()
        for table in ("job", "attempt", "record", "pause", "client", "queue", "start"):
            change(self.store, f"DELETE FROM {table}")
        self.store.queues.register(Queue(LANE.queue))
        self.jobs: dict[int, Known] = {}
        self.paused: set[str] = set()
        #: All that was ever claimed, so that a worker may come back with what it lost long ago.
        self.claims: list[Job] = []
        self.enqueued = 0
        self.removed = 0

    # -- the model -------------------------------------------------------------------------------------------------------------

    def twin(self, one: Known) -> Known | None:
        """Return the queued job of the same content."""
        for other in self.jobs.values():
            if other.state == "queued" and other is not one and one.fingerprint and other.fingerprint == one.fingerprint:
                return other
        return None

    def go_back(self, ones: list[Known], *, is_due: bool = True) -> None:
        """Queue jobs again: the newest first, and whoever finds its twin there gives way to it."""
        for one in sorted(ones, key=lambda known: -known.id):
            one.is_due = is_due
            one.state = "superseded" if self.twin(one) else "queued"

    def claimable(self, lanes: tuple[Lane, ...], suspects: bool) -> set[int]:
        """Return the jobs that a claim may take."""
        return {
            one.id
            for one in self.jobs.values()
            if one.state == "queued" and one.is_due and one.lane in lanes and one.lane.client not in self.paused
            and (one.rescues > 0) == suspects
        }  # fmt: skip

    def current(self, claim: Job) -> Known | None:
        """Return the job of a claim that still holds."""
        one = self.jobs.get(claim.id)
        return one if one is not None and one.state == "processing" and one.claim_no == claim.claim_no else None

    # -- what may happen -------------------------------------------------------------------------------------------------------

    @rule(
        lane=st.sampled_from(LANES), content=st.sampled_from([None, "x", "y"]), n=st.integers(1, 3), later=st.booleans(),
        policy=st.sampled_from(["allow", "reject", "discard", "replace"]), priority=st.integers(-1, 1),
    )  # fmt: skip
    def enqueue(self, lane: Lane, content: str | None, n: int, later: bool, policy: str, priority: int) -> None:
        """Queue jobs under each policy; of one content at most one row is new."""
        fingerprint = None if content is None else f"{lane.type}/{content}"
        new = [NewJob(lane, {"content": content}, fingerprint, priority, DAY if later else None) for _ in range(n)]
        is_unique = policy != "allow" and fingerprint is not None
        twin = self.twin(Known(0, lane, fingerprint, is_due=True)) if is_unique else None
        if policy == "reject" and is_unique and (twin or n > 1):
            with pytest.raises(DuplicateJob):
                self.store.enqueue(new, policy)
            return
        answers = self.store.enqueue(new, policy)
        fresh = [answer.id for answer in answers if answer.duplicate_of is None]
        if not is_unique:
            assert len(fresh) == n
        elif twin is None:
            assert len(fresh) == 1
        else:
            assert [answer.id for answer in answers] == [twin.id] * n
            assert fresh == []
            if policy == "replace" and later:
                twin.is_due = False
        for job_id in fresh:
            self.jobs[job_id] = Known(job_id, lane, fingerprint if is_unique else None, is_due=not later)
        self.enqueued += len(fresh)

    @rule(lanes=st.sampled_from([(LANE,), (OTHER,), LANES]), n=st.integers(1, 4), suspects=st.booleans())
    def claim(self, lanes: tuple[Lane, ...], n: int, suspects: bool) -> None:
        """Claim: as many as asked, of those that may be; never one that is in hand or held back."""
        may = self.claimable(lanes, suspects)
        found = self.store.claim(lanes, n, worker=ELSEWHERE, lease=600, suspects=suspects)
        assert len(found) == min(n, len(may))
        assert {job.id for job in found} <= may
        for job in found:
            one = self.jobs[job.id]
            one.state, one.claim_no = "processing", one.claim_no + 1
            assert (job.claim_no, job.attempts, job.retries, job.rescues) == (
                one.claim_no,
                one.attempts,
                one.retries,
                one.rescues,
            )
        self.claims += found

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), n=st.integers(1, 3), outcome=st.sampled_from(sorted(OUTCOMES)))
    def finish(self, data: st.DataObject, n: int, outcome: str) -> None:
        """Finish claims, also some that were lost long ago; those change nothing."""
        chosen = self.some_claims(data, n)
        retry = Retry(max_retries=MAX_RETRIES, jitter=False)
        settled = self.store.finish([done(job, OUTCOMES[outcome], retry=retry) for job in chosen])
        held = [one for job in chosen if (one := self.current(job)) is not None]
        back = []
        for one in held:
            kind = outcome.removesuffix(" later")
            if kind == "retry" and one.retries >= MAX_RETRIES:
                kind = "failure"
            one.outcomes.append(kind)
            one.snoozes += kind == "snooze"
            one.attempts += kind != "snooze"
            one.retries += kind == "retry"
            if kind in ("success", "failure"):
                one.state = kind
            else:
                back.append(one)
        self.go_back(back, is_due="later" not in outcome)
        states = [one.state if (one := self.jobs.get(job.id)) in held and one is not None else "lost" for job in chosen]
        assert [one.state for one in settled] == states

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), n=st.integers(1, 3))
    def worker_releases(self, data: st.DataObject, n: int) -> None:
        """A worker that stops puts its jobs back."""
        chosen = self.some_claims(data, n)
        held = [one for job in chosen if (one := self.current(job)) is not None]
        assert self.store.release(chosen, reason="stop") == len(held)
        for one in held:
            one.outcomes.append("released")
        self.go_back(held)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), n=st.integers(1, 3))
    def worker_renews(self, data: st.DataObject, n: int) -> None:
        """A renewal finds exactly the claims that still hold."""
        chosen = self.some_claims(data, n)
        found = self.store.renew([(job.id, job.claim_no) for job in chosen], lease=600)
        assert found == {job.id for job in chosen if self.current(job) is not None}

    def some_claims(self, data: st.DataObject, n: int) -> list[Job]:
        """Choose claims, of each job at most one."""
        chosen = data.draw(st.lists(st.sampled_from(self.claims), min_size=1, max_size=n, unique_by=lambda job: job.id))
        return sorted(chosen, key=lambda job: job.id)

    @precondition(lambda self: any(one.state == "processing" for one in self.jobs.values()))
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        """Leases end, and the jobs are taken back; who dies too often is poison, and its queued twin with it."""
        working = sorted(one.id for one in self.jobs.values() if one.state == "processing")
        chosen = data.draw(st.lists(st.sampled_from(working), min_size=1, unique=True))
        for job_id in chosen:
            change(self.store, "UPDATE job SET lease_until = '2000-01-01 00:00:00.000000+00' WHERE id = :id", id=job_id)
        assert self.store.rescues.run([LANE.queue]) == len(chosen)
        ones = [self.jobs[job_id] for job_id in chosen]
        poisoned = [one for one in ones if one.rescues + 1 >= MAX_RESCUES]
        for one in ones:
            one.rescues += 1
            one.outcomes.append("rescued")
        for one in poisoned:
            one.state = "failure"
        back = [one for one in ones if one not in poisoned]
        self.go_back(back)
        for one in sorted(back, key=lambda known: -known.id):
            twin = self.twin(one) if one.state == "superseded" else None
            if twin is not None:
                twin.rescues = max(twin.rescues, one.rescues)
        for one in poisoned:
            twin = self.twin(one)
            if twin is not None:
                twin.state = "failure"

    @rule(
        data=st.data(), name=st.sampled_from(["retry", "release", "cancel", "delete"]),
        by=st.sampled_from(["ids", "state", "type"]),
    )  # fmt: skip
    def command(self, data: st.DataObject, name: str, by: str) -> None:
        """A person's command, by ids of which some may not be there, or by a filter."""
        which: Any
        unknown = 0
        if by == "ids":
            which = data.draw(st.lists(st.sampled_from([*sorted(self.jobs), UNKNOWN]), max_size=4, unique=True))
            ones, unknown = [self.jobs[job_id] for job_id in which if job_id != UNKNOWN], which.count(UNKNOWN)
        elif by == "state":
            which = Filter(state=data.draw(st.sampled_from(STATES)))
            ones = [one for one in self.jobs.values() if one.state == which.state]
        else:
            which = Filter(type=data.draw(st.sampled_from(LANES)).type)
            ones = [one for one in self.jobs.values() if one.lane.type == which.type]
        fits = [one for one in ones if refusal(name, one.state) is None]
        found = getattr(self.store.commands, name)(which)
        assert (found.done, found.refused_count) == (len(fits), len(ones) - len(fits) + unknown)
        getattr(self, f"_{name}")(fits)
        if name in ("retry", "release"):
            assert found.superseded == sum(one.state == "superseded" for one in fits)

    def _retry(self, ones: list[Known]) -> None:
        self.go_back(ones)
        for one in ones:
            one.rescues = 0
            one.retries += one.state == "queued"

    def _release(self, ones: list[Known]) -> None:
        for one in ones:
            one.outcomes.append("released")
            one.claim_no += 1
        self.go_back(ones)

    def _cancel(self, ones: list[Known]) -> None:
        for one in ones:
            if one.state == "processing":
                one.outcomes.append("cancelled")
            one.state, one.claim_no = "cancelled", one.claim_no + 1

    def _delete(self, ones: list[Known]) -> None:
        for one in ones:
            del self.jobs[one.id]
        self.removed += len(ones)

    @rule(lane=st.sampled_from(LANES), on=st.booleans())
    def pause(self, lane: Lane, on: bool) -> None:
        """A client is paused until resumed, or resumed."""
        if on:
            self.store.pauses.open(lane.client, None, cause="person", reason="", set_by="me")
            self.paused.add(lane.client)
        else:
            assert self.store.pauses.resume(lane.client, by="me") is (lane.client in self.paused)
            self.paused.discard(lane.client)

    @rule(success=st.booleans(), failure=st.booleans())
    def prune(self, success: bool, failure: bool) -> None:
        """Retention removes what is finished, of the states that the queue keeps no longer."""
        keep = KeepPolicy(0 if success else None, 0 if failure else None)
        self.store.queues.register(Queue(LANE.queue, keep=keep))
        gone = [
            one
            for one in self.jobs.values()
            if one.state in FINISHED and (failure if one.state == "failure" else success)
        ]  # fmt: skip
        assert self.store.retention.prune().jobs == dict(Counter(one.state for one in gone))
        self._delete(gone)

    @rule()
    def time_passes(self) -> None:
        """Everything that was delayed is due."""
        bring_forward(self.store)
        for one in self.jobs.values():
            one.is_due = True

    # -- what must hold --------------------------------------------------------------------------------------------------------

    @invariant()
    def the_tables_say_the_same(self) -> None:
        """Each row is as the model has it (I1 to I5); of each content at most one is queued (I7)."""
        rows = query(
            self.store,
            "SELECT id, state, fingerprint, claim_no, attempts, retries, snoozes, rescues, superseded_by, finished_at, "
            "lease_until FROM job ORDER BY id",
        )
        assert [row["id"] for row in rows] == sorted(self.jobs), "I1: jobs that are lost, or were never asked for"
        assert len(rows) == self.enqueued - self.removed
        for row in rows:
            one = self.jobs[row["id"]]
            for name in ("state", "fingerprint", "claim_no", "attempts", "retries", "snoozes", "rescues"):
                assert row[name] == getattr(one, name), f"{name} of {row}"
            assert (row["finished_at"] is not None) == (row["state"] in FINISHED), row
            assert (row["lease_until"] is not None) == (row["state"] == "processing"), row
            assert (row["superseded_by"] is not None) == (row["state"] == "superseded"), row
        queued = Counter(row["fingerprint"] for row in rows if row["state"] == "queued" and row["fingerprint"])
        assert all(n == 1 for n in queued.values()), "I7"
        tries: dict[int, list[str]] = {job_id: [] for job_id in self.jobs}
        for attempt in query(self.store, "SELECT job_id, outcome FROM attempt ORDER BY id"):
            tries[attempt["job_id"]].append(attempt["outcome"])
        for job_id, one in self.jobs.items():
            assert tries[job_id] == one.outcomes, "I3: attempts"
            assert one.outcomes.count("success") <= 1, "I2"

    @invariant()
    def the_views_say_the_same(self) -> None:
        """Counts that people see are the counts in the table (I10)."""
        (view,) = self.store.views.queues()
        count = Counter(one.state for one in self.jobs.values())
        due = sum(one.state == "queued" and one.is_due for one in self.jobs.values())
        assert (view.queued, view.delayed) == (due, count["queued"] - due)
        assert (view.processing, view.success, view.failure) == (count["processing"], count["success"], count["failure"])
        assert self.store.commands.count(Filter(queue=LANE.queue)) == {state: n for state, n in count.items() if n}


@pytest.mark.rows("T13", "I1", "I2", "I3", "I7", "I10", "E-14", "AQ-19")
def test_any_order_of_events(open_store: Any) -> None:
    """Enqueue, claim, finish, die, retry, release, cancel, delete, pause, prune in any order: tables and model agree."""

    class OnStore(Machine):
        store = open_store(max_rescues=MAX_RESCUES)

    run_state_machine_as_test(
        OnStore,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        ),
    )
