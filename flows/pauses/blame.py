"""Decides whether a job is alone in trouble, or its client is: trouble stays with the smallest thing that it proves."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flows.execution.client_test import answers_well
from flows.pauses.error_streak import Claim, ErrorStreaks
from flows.pauses.self_tests import SelfTests
from jobs.job import Job, JobResult, Verdict
from jobs.outcome import Failure, Outcome, Pause, Snooze
from jobs.pauses.probe import Probe
from jobs.pauses.suspects import AS_PROBE, TIMES, Refusals
from jobs.store import JobStore

SPARED = 5
"""Times that a job may be the probe of a client in trouble without using an attempt; then the trouble could be its own."""

_WELL = "the client itself answers well"
_OTHERS = "others succeed"


class Blame:
    """Decides for the clients of one process (docs/architecture.md, law 16). Thread-safe.

    Args:
        store: the history of jobs that paused their client.
        tests: of the clients that can be tested.
        streaks: of errors.
        retry_database: does database work, again while the database is away.
        forget_pace: called with a client whose refusals were those of one job; what they taught about its pace is forgotten.
    """

    def __init__(
        self,
        store: JobStore,
        tests: SelfTests,
        streaks: ErrorStreaks,
        *,
        retry_database: Callable[[Callable[[], Any]], Any],
        forget_pace: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._tests = tests
        #: Of the clients that were tested. Where there is none, a success changes nothing.
        self.tested = tests.tested
        self._streaks = streaks
        self._retry_database = retry_database
        self._forget_pace = forget_pace
        #: Claims of suspects that are worked while nothing else is sent.
        self._alone: set[Claim] = set()
        #: Clients whose errors in a row were excused since their last success.
        self._excused: set[str] = set()

    def of_refusal(self, done: JobResult, *, is_probe: bool) -> JobResult:
        """Return the result of a job that asks for a pause: its failure, if it is alone with that.

        A refused sign-in (401, 403) makes the client test itself at once. A rate limit always pauses; only a job that has been
        refused before, and is refused again as the first request after the wait, or after that, is alone with it.
        """
        job, verdict = done.job, done.verdict
        client = job.lane.client
        is_enforced, can_test = verdict.cause == "enforced", self._tests.has(client)
        if verdict.alone is None:
            return done
        if not (is_enforced and can_test):
            is_first = is_probe or self.is_alone(job)
            if not (is_enforced or is_first or job.snoozes >= TIMES - 1):
                return done
            before: Refusals = self._retry_database(partial(self._store.suspects.of, job.id, client))
            if before.answered >= TIMES - 1 and (before.is_proven or ((is_enforced or is_first) and not can_test)):
                return self._failed(done, _OTHERS)
            if not (is_first and can_test and before.number >= TIMES - 1):
                return done
        tested = self._tests.ask(client, began=done.began, fresh=not is_enforced)
        if tested is None or answers_well(tested):
            return self._failed(done, _WELL)
        if tested.ours:
            return done._replace(verdict=tested)
        if isinstance(tested.outcome, Pause):
            return done._replace(verdict=verdict._replace(outcome=tested.outcome, cause=tested.cause))
        if isinstance(verdict.outcome, Pause) and isinstance(tested.outcome, Failure):
            # A check that is wrong itself must be named, or the job looks like the one to blame.
            reason = f"{verdict.outcome.reason}; and the client's test: {tested.outcome.message}"
            return done._replace(verdict=verdict._replace(outcome=replace(verdict.outcome, reason=reason)))
        return done

    def excuse(self, client: str, generation: int) -> Verdict | None:
        """Excuse errors in a row that would pause a client which has answered others and answers its test well.

        Jobs that failed before may use up their retries that way. Others are excused once between two successes: a test that
        is answered well, by a cache perhaps, must not hide that everything else fails.

        Returns:
            What the test says; `None` without one.
        """
        if not self._tests.has(client):
            return None
        is_new = self._streaks.has_new(client)
        if is_new and (client in self._excused or not self._streaks.has_succeeded(client, generation)):
            return None
        tested = self._tests.ask(client)
        if tested is not None and answers_well(tested):
            if is_new:
                self._excused.add(client)
            self._streaks.excuse(client, generation)
        return tested

    def is_well(self, client: str) -> bool:
        """Tell whether a client answers its test well, now."""
        tested = self._tests.ask(client, fresh=True)
        return tested is not None and answers_well(tested)

    def is_own_trouble(self, probe: Probe) -> bool:
        """Tell whether a probe's job met trouble of its own: its client was not paused for such, and answers its test well."""
        reopening = self._retry_database(partial(self._store.pauses.state, probe.client)).reopening
        return reopening is not None and reopening.cause != "level" and self.is_well(probe.client)

    def succeeded(self, client: str) -> None:
        """Take note that a job of the client has succeeded."""
        self._tests.succeeded(client)
        if self._excused:
            self._excused.discard(client)

    def spared(self, done: JobResult) -> JobResult:
        """Put a probe's job back that met trouble, without using an attempt.

        It waits as for its first retry; the next probe takes another job, if there is one. A job whose request may have been
        carried out is not repeated, and a job that has been spared `SPARED` times uses its attempts.
        """
        verdict, outcome = done.verdict, done.verdict.outcome
        is_spared = isinstance(outcome, Failure) and verdict.trouble and not verdict.unknown and outcome.retry
        if not is_spared and not isinstance(outcome, Pause):
            return done
        tries = self._retry_database(partial(self._store.views.job, done.job.id)).attempts
        is_over = sum((one.error or "").startswith(AS_PROBE) for one in tries) >= SPARED
        if isinstance(outcome, Pause):
            spared: Outcome = replace(outcome, reason=AS_PROBE + outcome.reason)
            if is_over:
                spared = Failure(f"{outcome.reason}; so it ended {SPARED} probes before")
            return done._replace(verdict=verdict._replace(outcome=spared))
        if is_over:
            return done
        assert isinstance(outcome, Failure)
        snooze = Snooze(min(done.retry.delay, done.retry.max_delay), AS_PROBE + outcome.message)
        return done._replace(verdict=verdict._replace(outcome=snooze))

    def may_be_tried_alone(self, job: Job) -> bool:
        """Tell whether to work a job as the first one after a pause: it was refused before, and not just now in the same way."""
        before: Refusals = self._retry_database(partial(self._store.suspects.of, job.id, job.lane.client))
        return before.number >= TIMES - 1 and not before.is_last_probe

    def is_alone(self, job: Job) -> bool:
        """Tell whether a job is worked while nothing else is sent to its client."""
        return bool(self._alone) and (job.id, job.claim_no) in self._alone

    def expect_alone(self, jobs: Sequence[Job]) -> None:
        """Take note that these jobs are worked while nothing else is sent to their client."""
        self._alone.update((job.id, job.claim_no) for job in jobs)

    def settled_alone(self, jobs: Sequence[Job]) -> None:
        """Take note that they are done."""
        self._alone.difference_update((job.id, job.claim_no) for job in jobs)

    def _failed(self, done: JobResult, why: str) -> JobResult:
        alone = done.verdict.alone
        assert isinstance(alone, Failure)
        if done.verdict.cause == "asked":
            self._forget_pace(done.job.lane.client)
        failure = replace(alone, message=f"{alone.message}; {why}")
        return done._replace(verdict=Verdict(failure, done.verdict.traceback))
