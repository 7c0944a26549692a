"""Works the jobs of a job type: runs their phases in the job's session and decides the outcome."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from clients import GoneError, UnknownOutcomeError
from clients.exchange_recorder import Exchange, recording
from clients.http.rate_limits.throttle import blocks_others
from flows import events
from flows.database_outage import is_outage
from flows.declarations.client import Client
from flows.declarations.job_type import JobType
from flows.execution.executor_protocol import ConnectionSource, JobControl
from flows.execution.failure_report import report_failure
from flows.execution.job_context import JobContext
from flows.execution.outcomes import (
    DOES_NOT_FIT,
    DOES_NOT_FIT_DELAY,
    OUTCOMES,
    UNKNOWN,
    bounded_wait,
    judge,
    masked_verdict_of,
    published,
    verdict_of,
)
from flows.project.redaction import Mask, masked_exchanges
from flows.user_code import attempt
from jobs import PayloadError
from jobs.db.conflicts import is_conflict
from jobs.db.job_session import UnitOfWork, as_current_unit
from jobs.job import Job, JobResult, Verdict
from jobs.outcome import Failure, Gone, Snooze, Success, Unchanged
from jobs.store import JobStore

T = TypeVar("T")


class _Claim:
    """A claim that a thread works. The watchdog's thread may give it up at any moment."""

    __slots__ = ("began", "context", "is_given_up")

    def __init__(self) -> None:
        #: When the present phase began, by `time.monotonic`.
        self.began = time.monotonic()
        self.context: JobContext | None = None
        self.is_given_up = False

    def begin(self, context: JobContext) -> None:
        """Begin a phase."""
        self.context = context
        self.began = time.monotonic()
        # Set first, then check; `give_up` does the same the other way round, so that one of the two threads sees both.
        if self.is_given_up:
            context.unit.abandon()

    def give_up(self) -> JobContext | None:
        """End it from another thread; return the phase that it was in."""
        self.is_given_up = True
        if self.context is not None:
            self.context.unit.abandon()
        return self.context


@dataclass(frozen=True, slots=True)
class JobExecutor:
    """Works the jobs of one job type; an `Executor`.

    Args:
        job_type: the declaration.
        connections: to its client.
        mask: removes secrets from what is kept.
        store: where the jobs are.
        phases: those that this worker serves; `None` means all.
        control: what it may ask its worker.
    """

    job_type: JobType
    connections: ConnectionSource
    mask: Mask
    store: JobStore
    phases: Collection[str] | None = None
    control: JobControl = JobControl()  # noqa: RUF009 - immutable
    #: The claims that are being worked.
    _claims: dict[tuple[int, int], _Claim] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        """The remote side."""
        return self.job_type.client

    @property
    def timeout(self) -> float | None:
        """Seconds for one phase of one job."""
        return self.job_type.timeout

    @property
    def sends_requests(self) -> bool:
        """Whether its jobs send requests: that is unknown, so yes."""
        return True

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Do nothing: these jobs need nothing from the database beforehand."""

    def execute(self, job: Job) -> JobResult:
        """Work one job, as many phases as this worker serves. Never raises: whatever happens is this job's own outcome."""
        key = (job.id, job.claim_no)
        claim = self._claims[key] = _Claim()
        try:
            while True:
                following = self._phase(job, claim)
                if isinstance(following, JobResult):
                    return following
                job = following
                self.control.restart_timeout()
                if claim.is_given_up:
                    # Between two phases: the next attempt begins the next one, and nobody waits for this result.
                    return self._done(job, Verdict(Failure("given up")))
        finally:
            self._claims.pop(key, None)

    def timed_out(self, job: Job, seconds: float) -> JobResult:
        """Give a job up whose thread hangs: what it wrote is rolled back, and what its thread still does has no effect.

        Args:
            job: the claim.
            seconds: how long its phase was given; 0 where it is put back for another reason.
        """
        claim = self._claims.get((job.id, job.claim_no))
        context = None if claim is None else claim.give_up()
        phase = (job if context is None else context.claim).lane.phase
        message = f"timed out after {seconds:g} s" + (f" in phase {phase}" if phase else "")
        if context is None:
            return self._done(job, Verdict(Failure(message)))
        pending = next((one for one in context.recorder.exchanges[-1:] if one.status is None and one.error is None), None)
        if pending is not None:
            message += f", waiting for {pending.request.partition('?')[0]}"
        message = self.mask(message)
        # A job that hangs on a request means trouble with the remote side.
        verdict = Verdict(Failure(message), trouble=pending is not None)
        if self.job_type.verify is not None or self._is_unsafe(context, pending):
            outcome = Failure(f"{UNKNOWN}: {message}", retry=self.job_type.verify is not None)
            verdict = verdict._replace(outcome=outcome, unknown=True)
        if seconds > 0:
            verdict = published(context.claim, verdict, self.mask)
        return self._done(context.claim, verdict, masked_exchanges(context.recorder, self.mask))

    def on_settled(self, settled: Sequence[JobResult]) -> None:
        """Report failures, and inform subscribers of all finishes. Never raises."""
        for one in settled:
            if one.state == "failure":
                report_failure(one, self.job_type, self.mask)
            events.settled(one)

    def judge(self, error: Exception) -> Verdict:
        """Decide what an exception means, by the client and the retry policy of this type."""
        verdict = judge(error, policy=self.client.pause, retry_on=self.job_type.retry.on, mask=self.mask)
        outcome = verdict.outcome
        if verdict.ours:
            return verdict
        if isinstance(error, DBAPIError) and isinstance(outcome, Failure) and (is_outage(error) or is_conflict(error)):
            # Our own database was away, or another transaction in the way; the job did nothing wrong.
            return verdict._replace(outcome=Failure(outcome.message))
        if isinstance(error, UnknownOutcomeError) and isinstance(outcome, Failure) and self.job_type.verify is not None:
            # The next attempt calls `verify` first.
            return verdict._replace(outcome=Failure(outcome.message))
        return verdict

    def _refuse(self, error: Exception) -> Verdict:
        if isinstance(error, PayloadError):
            # Older than the schema, mostly: a release with another one may be on its way.
            outcome = Snooze(DOES_NOT_FIT_DELAY, f"waits for a release that it fits: {self.mask(str(error))}")
            return Verdict(outcome, cause=DOES_NOT_FIT)
        return self.judge(error)

    # -- one phase -------------------------------------------------------------------------------------------------------------

    def _phase(self, job: Job, claim: _Claim) -> JobResult | Job:
        """Work one phase; return the job in its next phase, or the result."""
        events.before(job)
        # Validated again: the schema may have changed since the job was queued, and others may write rows.
        payload = attempt(lambda: self.job_type.validated(job.payload), self._refuse)
        if isinstance(payload, Verdict):
            return self._done(job, published(job, bounded_wait(job, payload), self.mask))
        with recording() as recorder:
            context = JobContext(
                job, self.job_type, store=self.store, is_lost=self.control.is_lost, payload=payload, recorder=recorder
            )
            claim.begin(context)
            if claim.is_given_up:
                return self._done(job, Verdict(Failure("given up")))
            try:
                with as_current_unit(context.unit), _short_waits(context.unit):
                    verdict = self._outcome(context)
                return self._conclude(context, claim, verdict, masked_exchanges(recorder, self.mask))
            except BaseException:
                context.unit.discard()
                raise

    def _outcome(self, context: JobContext) -> Verdict:
        found = attempt(lambda: self._process(context), self.judge)
        verdict = bounded_wait(context.claim, masked_verdict_of(found, self.mask))
        if verdict.trouble:
            self.connections.drop()
        if not _is_success(verdict):
            # At once: on SQLite its session may hold the one writer that all others wait for.
            context.unit.discard()
        return published(context.claim, verdict, self.mask)

    def _process(self, context: JobContext) -> Any:
        process, connection = self.job_type.process_of(context.phase or ""), self.connections.get()
        found = self._verified(context, connection)
        if found is None:
            found = process(context, connection)
            if found is False or (isinstance(found, type) and found in OUTCOMES):
                # A programming error. Any other value means success: what `process` did is done, and must not be repeated.
                return Verdict(Failure(_no_outcome(found), retry=False))
        if _is_success(verdict_of(found)):
            # Inside `attempt`, so that what the database refuses is an outcome of the job like any other.
            context.unit.flush()
        return found

    def _verified(self, context: JobContext, connection: Any) -> Any:
        """Return what `verify` finds of an earlier attempt that may have been sent; `None` if there is nothing."""
        verify = self.job_type.verify
        if verify is None or not self.store.checkpoints.has_unknown_outcome(context.claim):
            return None
        try:
            found = verify(context, connection)
        except GoneError:
            return None
        if found is not None and not isinstance(found, OUTCOMES):
            # Else an empty list would count as a success.
            raise TypeError(f"verify must return an outcome, or None for 'not there', got {type(found).__name__}")
        return found

    @staticmethod
    def _is_unsafe(context: JobContext, pending: Exchange | None) -> bool:
        """Tell whether the pending request must not be sent again blindly (RFC 9110, section 9.2.2)."""
        return pending is not None and pending.is_unsafe and not context.is_keyed

    def _conclude(self, context: JobContext, claim: _Claim, verdict: Verdict, exchanges: str | None) -> JobResult | Job:
        job, unit = context.claim, context.unit
        done = self._done(job, verdict, exchanges)._replace(began=claim.began)
        if not _is_success(verdict):
            unit.discard()
            return done
        # An entity that is gone has no next phase.
        following = None if isinstance(verdict.outcome, Gone) else self.job_type.next_phase(job.lane.phase)
        if following is not None and not claim.is_given_up and self._serves(following, job):
            advance = partial(self.store.checkpoints.advance, job, following, unit, exchanges, began=claim.began)
            return self._committed(advance, done)
        done = done._replace(to_phase=following)
        if not unit.is_open:
            return done
        settled = self._committed(lambda: self.store.checkpoints.finish(done, unit), done)
        # Committed here, not with the batch: on SQLite its other jobs may be waiting for the writer that this one holds.
        return done._replace(finish=lambda _: settled) if settled.state else settled

    def _committed(self, commit: Callable[[], T], done: JobResult) -> T | JobResult:
        found = attempt(commit, self.judge)
        return done._replace(verdict=found, to_phase=None) if isinstance(found, Verdict) else found

    def _serves(self, phase: str, job: Job) -> bool:
        # A phase with a limit of its own ends with its claim: the job would keep its place while it works the next one.
        return (
            (self.phases is None or {job.lane.phase, phase} <= {*self.phases})
            and not self.control.is_lost(job)
            and self.control.may_continue(job)
        )

    def _done(self, job: Job, verdict: Verdict, exchanges: str | None = None) -> JobResult:
        return JobResult(job, verdict, self.job_type.retry, exchanges=exchanges)


@contextmanager
def _short_waits(unit: UnitOfWork) -> Iterator[None]:
    """Let no request wait long for a rate limit while its job holds the one writer of SQLite."""
    token = blocks_others.set(lambda: unit.writes_sqlite)
    try:
        yield
    finally:
        blocks_others.reset(token)


def _no_outcome(found: Any) -> str:
    if found is False:
        return "process returned False; return Failure(…)"
    return f"process returned the class {found.__name__}; return {found.__name__}(…)"


def _is_success(verdict: Verdict) -> bool:
    return isinstance(verdict.outcome, Success | Unchanged | Gone)
