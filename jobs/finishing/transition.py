"""Decides the next state of a job from the outcome of an attempt. Pure functions."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from jobs.db.clock import bounded
from jobs.job import Job, JobResult, Verdict
from jobs.outcome import Failure, Gone, Pause, Snooze, Success, Unchanged, one_line
from jobs.retry import FREE_SNOOZES, LEAST_SNOOZE, Retry
from jobs.schema.states import FAILURE, QUEUED, SUCCESS, SUPERSEDED

OURS_DELAY = 2.0
"""Seconds until a job may be claimed again that its own worker could not save."""


class Transition(NamedTuple):
    """The new state of one claimed job, and what is written with it; `jobs.finishing.fence` carries it out."""

    job_id: int
    claim_no: int
    fingerprint: str | None
    state: str
    #: Name of the attempt's outcome.
    outcome: str
    message: str = ""
    #: Seconds until a queued job may be claimed; the later one of this and `until` counts.
    delay: float = 0.0
    until: Any = None
    attempts: int = 0
    retries: int = 0
    snoozes: int = 0
    rescues: int = 0
    traceback: str | None = None
    #: The phase that this attempt was about.
    phase: str = ""
    #: The phase that the job goes on to, where it changes; its checkpoint ends with the old one.
    to_phase: str | None = None
    #: JSON text for the attempt's row.
    exchanges: str | None = None
    #: When the attempt began, by `time.monotonic`; `None`: at the claim.
    began: float | None = None


def transitions_of(dones: Iterable[JobResult]) -> list[Transition]:
    """Decide the transitions of worked jobs."""
    return [_of(done) for done in dones]


def _of(done: JobResult) -> Transition:
    change = finished(done.job, done.verdict, done.retry, to_phase=done.to_phase, exchanges=done.exchanges)
    return change if done.began is None else change._replace(began=done.began)


def finished(
    job: Job,
    verdict: Verdict,
    retry: Retry,
    *,
    dice: float | None = None,
    to_phase: str | None = None,
    exchanges: str | None = None,
) -> Transition:
    """Decide the transition of a job that was worked.

    Args:
        job: the claim.
        verdict: its result.
        retry: the policy of its type.
        dice: a number from 0 to 1 in place of the random one that spreads retries.
        to_phase: where a success leads, if the job has a further phase.
        exchanges: for the attempt's row.
    """
    change = _finished(job, verdict, retry, dice)
    if verdict.unknown and change.outcome in ("retry", "failure"):
        change = change._replace(outcome="unknown")
    if to_phase is not None and change.state == SUCCESS:
        change = change._replace(state=QUEUED, outcome="phase", to_phase=to_phase, attempts=0)
    return change._replace(phase=job.lane.phase, exchanges=exchanges) if job.lane.phase or exchanges else change


def _finished(job: Job, verdict: Verdict, retry: Retry, dice: float | None) -> Transition:
    job_id, claim_no, print_, trace = job.id, job.claim_no, job.fingerprint, verdict.traceback
    if verdict.ours and isinstance(verdict.outcome, Failure):
        line = one_line(f"put back by a worker that could not work it: {verdict.outcome.message}")
        return Transition(job_id, claim_no, print_, QUEUED, "released", message=line, delay=OURS_DELAY, traceback=trace)
    match verdict.outcome:
        case Success(message):
            return Transition(
                job_id, claim_no, print_, SUCCESS, "success", message=one_line(message) if message else "", attempts=1
            )
        case Unchanged():
            return Transition(job_id, claim_no, print_, SUCCESS, "unchanged", message="unchanged", attempts=1)
        case Gone():
            return Transition(job_id, claim_no, print_, SUCCESS, "gone", message="gone", attempts=1)
        case Failure(message, again, delay):
            line = one_line(message)
            wait = retry.wait(job.retries, dice=dice) if again else None
            if wait is None:
                return Transition(job_id, claim_no, print_, FAILURE, "failure", message=line, attempts=1, traceback=trace)
            wait = bounded(wait if delay is None else delay)
            return Transition(
                job_id, claim_no, print_, QUEUED, "retry", message=line, delay=wait, attempts=1, retries=1, traceback=trace
            )
        case (Snooze() | Pause()) as outcome if job.snoozes >= retry.max_snoozes:
            line = one_line(f"put back {job.snoozes} times without an end; the last time: {outcome.reason or 'no reason given'}")
            return Transition(job_id, claim_no, print_, FAILURE, "failure", message=line, attempts=1, traceback=trace)
        case Snooze(when, reason):
            least = LEAST_SNOOZE if job.snoozes >= FREE_SNOOZES else 0.0
            delay, until = (least, when) if isinstance(when, datetime) else (max(least, bounded(when)), None)
            return Transition(
                job_id,
                claim_no,
                print_,
                QUEUED,
                "snooze",
                message=one_line(reason),
                delay=delay,
                until=until,
                snoozes=1,
                traceback=trace,
            )
        case Pause(_, reason):
            # Available at once: the pause keeps claims away, and after a resume by hand the job can be claimed at once.
            return Transition(job_id, claim_no, print_, QUEUED, "pause", message=one_line(reason), snoozes=1, traceback=trace)


def overtaken(job: Job) -> Transition:
    """End a job whose entity a later job has written meanwhile: its content is older than the record."""
    message = "a later job of this entity was finished first"
    return Transition(
        job.id, job.claim_no, job.fingerprint, SUPERSEDED, "superseded", message=message, attempts=1, phase=job.lane.phase
    )


def rescued(
    job_id: int, claim_no: int, fingerprint: str | None, rescues: int, *, worker: str, max_rescues: int, phase: str = ""
) -> Transition:
    """Decide what becomes of a job whose worker died or went silent.

    Args:
        rescues: how often that has happened to this job before.
        worker: its name.
        max_rescues: the rescue that ends it as poison .
        phase: its current phase.
    """
    if rescues + 1 >= max_rescues:
        message = f"poison: {rescues + 1} workers died or went silent with this job in hand, the last one {worker}"
        return Transition(job_id, claim_no, fingerprint, FAILURE, "rescued", message=message, rescues=1, phase=phase)
    return Transition(job_id, claim_no, fingerprint, QUEUED, "rescued", message=f"rescued from {worker}", rescues=1, phase=phase)
