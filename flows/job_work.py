"""Working one job of a job type: its phases, its session, its outcome, and who hears of its end. Knows no batch and no thread."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from clients import GoneError, UnknownOutcomeError
from clients.exchange import Exchange, recording
from flows import events
from flows.declaration import Client
from flows.evidence import evidence
from flows.handed import FailedJob, HandedJob
from flows.job_type import JobType
from flows.mask import Mask
from flows.patience import is_outage
from flows.verdict import OUTCOMES, UNKNOWN, attempt, judge, masked, place, trace, verdict_of
from jobs import PayloadError
from jobs.contention import is_contention
from jobs.job import Done, Job, Settled, Verdict
from jobs.outcome import Failure, Gone, Success, Unchanged
from jobs.poison import Poisoned
from jobs.session import working
from jobs.store import JobStore
from jobs.transition import one_line

log = logging.getLogger("syncs.job")

T = TypeVar("T")


def _never(_: Job) -> bool:
    return False


def _always(_: Job) -> bool:
    return True


def _nothing() -> None:
    return None


class _Claim:
    """A claim in hand; strictly private. The watchdog's thread may give it up while its own is anywhere."""

    __slots__ = ("handed", "is_given_up")

    def __init__(self) -> None:
        self.handed: HandedJob | None = None
        self.is_given_up = False

    def hand(self, handed: HandedJob) -> None:
        """Begin a phase."""
        self.handed = handed
        # In this order, and in the other one below: one of the two threads sees what the other did.
        if self.is_given_up:
            handed.unit.abandon()

    def give_up(self) -> HandedJob | None:
        """End it from outside; return what it was about."""
        self.is_given_up = True
        if self.handed is not None:
            self.handed.unit.abandon()
        return self.handed


@dataclass(frozen=True, slots=True)
class JobWork:
    """How the jobs of one type are worked.

    Args:
        job_type: the declaration.
        connect: gives the calling thread a connection.
        mask: takes secrets out of what is kept.
        drop: gives the thread's connection up after trouble with it.
        store: where the jobs are.
        phases: those that this worker serves; `None` means all.
        is_lost: tells whether a claim is another's by now.
        goes_on: asked before a further phase is begun under the same claim; a no puts the job back for it.
        restart: called when a further phase begins, whose time counts anew.
    """

    job_type: JobType
    connect: Callable[[], Any]
    mask: Mask
    drop: Callable[[], None]
    store: JobStore
    phases: Collection[str] | None = None
    is_lost: Callable[[Job], bool] = _never
    goes_on: Callable[[Job], bool] = _always
    restart: Callable[[], None] = _nothing
    #: What is in hand, by claim.
    _claims: dict[tuple[int, int], "_Claim"] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        """The remote side."""
        return self.job_type.client

    @property
    def timeout(self) -> float | None:
        """Seconds for one phase of one job."""
        return self.job_type.timeout

    def work(self, job: Job) -> Done:
        """Work one job, as many phases as this worker serves. Never raises: whatever happens is this job's own outcome."""
        key = (job.id, job.claim_no)
        claim = self._claims[key] = _Claim()
        try:
            while True:
                came = self._phase(job, claim)
                if isinstance(came, Done):
                    return came
                job = came
                self.restart()
                if claim.is_given_up:
                    # Between two phases: the next one is the next attempt's to begin, and nobody waits for this answer.
                    return self._done(job, Verdict(Failure("given up")))
        finally:
            self._claims.pop(key, None)

    def timed_out(self, job: Job, seconds: float) -> Done:
        """Give a job up whose thread hangs: what it wrote is rolled back, what its thread still does comes to nothing (DS-07).

        Args:
            job: the claim.
            seconds: how long its phase was given; 0 where it is put back for another reason.
        """
        claim = self._claims.get((job.id, job.claim_no))
        handed = None if claim is None else claim.give_up()
        phase = (job if handed is None else handed.claim).lane.phase
        message = f"timed out after {seconds:g} s" + (f" in phase {phase}" if phase else "")
        if handed is None:
            return self._done(job, Verdict(Failure(message)))
        pending = next((one for one in handed.recorder.exchanges[-1:] if one.status is None and one.error is None), None)
        if pending is not None:
            message += f", waiting for {pending.request.partition('?')[0]}"
        # Whoever hangs on the remote side speaks of trouble there.
        verdict = Verdict(Failure(self.mask(message)), trouble=pending is not None)
        if self.job_type.verify is not None or self._is_unsafe(handed, pending):
            outcome = Failure(f"{UNKNOWN}: {self.mask(message)}", retry=self.job_type.verify is not None)
            verdict = verdict._replace(outcome=outcome, unknown=True)
        if seconds > 0:
            verdict = masked(events.after(handed.claim, verdict), self.mask)
        return self._done(handed.claim, verdict, evidence(handed.recorder, self.mask))

    def settled(self, settled: Settled) -> None:
        """Tell subscribers what was committed, and `on_failure` of a job that has failed for good. Never raises."""
        outcome = settled.verdict.outcome
        if settled.state == "failure" and isinstance(outcome, Failure):
            job, lane = settled.job, settled.job.lane
            message = one_line(outcome.message)
            log.error("job %d (%s) failed: %s%s", job.id, lane.type, message, _below(settled.verdict.traceback))
            _tell_failed(
                self.job_type,
                FailedJob(
                    job.id, lane.type, lane.client, lane.queue, job.key, job.payload, job.attempt, job.retries,
                    lane.phase or None, job.checkpoint, message,
                ),
                self.mask,
            )  # fmt: skip
        events.settled(settled)

    def poisoned(self, poisoned: Poisoned) -> None:
        """Take note of a job that ended because it keeps killing its workers. Never raises."""
        tell_poisoned(poisoned, self.job_type)

    def judge(self, error: Exception) -> Verdict:
        """Judge an exception by the client and the retry policy of this type."""
        verdict = judge(error, policy=self.client.pause, retry_on=self.job_type.retry.on, mask=self.mask)
        outcome = verdict.outcome
        if isinstance(error, DBAPIError) and isinstance(outcome, Failure) and (is_outage(error) or is_contention(error)):
            # Our own database was away, or another transaction in the way; the job did nothing wrong.
            return verdict._replace(outcome=Failure(outcome.message))
        if isinstance(error, UnknownOutcomeError) and isinstance(outcome, Failure) and self.job_type.verify is not None:
            # Its next attempt looks first.
            return verdict._replace(outcome=Failure(outcome.message))
        return verdict

    def _refuse(self, error: Exception) -> Verdict:
        if isinstance(error, PayloadError):
            return Verdict(Failure(self.mask(str(error)), retry=False))
        return self.judge(error)

    # -- one phase -------------------------------------------------------------------------------------------------------------

    def _phase(self, job: Job, claim: _Claim) -> Done | Job:
        """Work one phase; return the job in its next one, or what came of it."""
        events.before(job)
        # Now as well: the schema may have changed since, and others may write rows (AQ-66).
        payload = attempt(lambda: self.job_type.validated(job.payload), self._refuse)
        if isinstance(payload, Verdict):
            return self._done(job, masked(events.after(job, payload), self.mask))
        with recording() as recorder:
            handed = HandedJob(job, self.job_type, self.store, self.is_lost, payload, recorder)
            claim.hand(handed)
            if claim.is_given_up:
                return self._done(job, Verdict(Failure("given up")))
            try:
                with working(handed.unit):
                    verdict = self._outcome(handed)
                return self._conclude(handed, claim, verdict, evidence(recorder, self.mask))
            except BaseException:
                handed.unit.discard()
                raise

    def _outcome(self, handed: HandedJob) -> Verdict:
        verdict = masked(verdict_of(attempt(lambda: self._process(handed), self.judge)), self.mask)
        if verdict.trouble:
            self.drop()
        if not _is_success(verdict):
            # Before anybody else needs the database: on SQLite this may hold its one writer (DS-08).
            handed.unit.discard()
        return masked(events.after(handed.claim, verdict), self.mask)

    def _process(self, handed: HandedJob) -> Any:
        process, connection = self.job_type.process_of(handed.phase or ""), self.connect()
        found = self._verified(handed, connection)
        if found is None:
            found = process(handed, connection)
            if found is False or (isinstance(found, type) and found in OUTCOMES):
                # A slip. Any other value, such as a lambda's, says nothing: what it came from is done, and may not be undone.
                return Verdict(Failure(_no_outcome(found), retry=False))
        if _is_success(verdict_of(found)):
            # Here, so that what the database refuses is an outcome of the job like any other.
            handed.unit.flush()
        return found

    def _verified(self, handed: HandedJob, connection: Any) -> Any:
        """Look whether the remote side has what an earlier attempt may have sent; `None` where it has not, or none may have."""
        verify = self.job_type.verify
        if verify is None or not self.store.in_doubt(handed.claim):
            return None
        try:
            found = verify(handed, connection)
        except GoneError:
            return None
        if found is not None and not isinstance(found, OUTCOMES):
            # An empty list would be taken for a success.
            raise TypeError(f"verify must return an outcome, or None for 'not there', got {type(found).__name__}")
        return found

    @staticmethod
    def _is_unsafe(handed: HandedJob, pending: Exchange | None) -> bool:
        """Tell whether what hangs there must not be sent again blindly (RFC 9110, section 9.2.2)."""
        return pending is not None and pending.is_unsafe and not handed.is_keyed

    def _conclude(self, handed: HandedJob, claim: _Claim, verdict: Verdict, exchanges: str | None) -> Done | Job:
        job, unit = handed.claim, handed.unit
        done = self._done(job, verdict, exchanges)
        if not _is_success(verdict):
            unit.discard()
            return done
        # What is gone has no next phase.
        following = None if isinstance(verdict.outcome, Gone) else self.job_type.next_phase(job.lane.phase)
        if following is not None and not claim.is_given_up and self._serves(following, job):
            return self._committed(lambda: self.store.advance(job, following, unit, exchanges), done)
        done = done._replace(to_phase=following)
        if not unit.is_open:
            return done
        found = self._committed(lambda: self.store.finish_unit(done, unit), done)
        # At once, by this thread: on SQLite the other jobs of a batch may be waiting for the writer that this one holds.
        return done._replace(finish=lambda _: found) if isinstance(found, Settled) else found

    def _committed(self, commit: Callable[[], T], done: Done) -> T | Done:
        found = attempt(commit, self.judge)
        return done._replace(verdict=masked(found, self.mask), to_phase=None) if isinstance(found, Verdict) else found

    def _serves(self, phase: str, job: Job) -> bool:
        return (self.phases is None or phase in self.phases) and not self.is_lost(job) and self.goes_on(job)

    def _done(self, job: Job, verdict: Verdict, exchanges: str | None = None) -> Done:
        return Done(job, verdict, self.job_type.retry, exchanges=exchanges)


def tell_poisoned(one: Poisoned, job_type: JobType | None) -> None:
    """Tell of a job that ended because it keeps killing its workers, whoever found it. Never raises.

    Args:
        one: the job.
        job_type: its declaration; `None` for a sync's job, and where nobody knows it.
    """
    log.error("job %d (%s) failed: %s", one.id, one.type, one.message)
    if job_type is not None:
        _tell_failed(
            job_type,
            FailedJob(
                one.id, one.type, one.client, one.queue, one.key, one.payload, one.attempts + 1, 0, one.phase or None, None,
                one.message,
            ),
        )  # fmt: skip
    events.poisoned(one)


def _tell_failed(job_type: JobType, failed: FailedJob, mask: Mask | None = None) -> None:
    on_failure = job_type.on_failure
    if on_failure is None:
        return

    def complain(error: Exception) -> Verdict:
        # Without the client's secrets at hand its text stays out of the log (law 9).
        where = place(error) if mask is None else trace(error, mask)
        log.error("on_failure of job %d (%s) raised%s", failed.id, failed.type, _below(where))
        return Verdict(Failure(type(error).__name__))

    attempt(lambda: on_failure(failed), complain)


def _no_outcome(found: Any) -> str:
    if found is False:
        return "process returned False; return Failure(…)"
    return f"process returned the class {found.__name__}; return {found.__name__}(…)"


def _is_success(verdict: Verdict) -> bool:
    return isinstance(verdict.outcome, Success | Unchanged | Gone)


def _below(trace: str | None) -> str:
    return f"\n{trace.rstrip()}" if trace else ""
