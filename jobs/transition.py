"""From outcome to the row's next state. Pure."""

from datetime import datetime

from jobs import models
from jobs.job import Job, Move, Verdict
from jobs.outcome import Failure, Gone, Pause, Snooze, Success, Unchanged
from jobs.retry import Retry

MESSAGE_LIMIT = 500
"""Characters of a message that stay on the job; the traceback has the rest."""

LONGEST_WAIT = 10 * 366 * 86400.0
"""Seconds. A server may ask for any wait; one that no clock can hold would fail the whole batch."""


def finished(
    job: Job,
    verdict: Verdict,
    retry: Retry,
    *,
    dice: float | None = None,
    to_phase: str | None = None,
    exchanges: str | None = None,
) -> Move:
    """Decide what becomes of a job that was worked.

    Args:
        job: the claim.
        verdict: what came of it.
        retry: the policy of its type.
        dice: a number from 0 to 1 in place of the random one that spreads retries.
        to_phase: where a success leads, if the job has a further phase.
        exchanges: for the attempt's row.
    """
    move = _finished(job, verdict, retry, dice)
    if verdict.unknown and move.outcome in ("retry", "failure"):
        move = move._replace(outcome="unknown")
    if to_phase is not None and move.state == models.SUCCESS:
        move = move._replace(state=models.QUEUED, outcome="phase", to_phase=to_phase, attempts=0)
    return move._replace(phase=job.lane.phase, exchanges=exchanges) if job.lane.phase or exchanges else move


def _finished(job: Job, verdict: Verdict, retry: Retry, dice: float | None) -> Move:
    job_id, claim_no, print_, trace = job.id, job.claim_no, job.fingerprint, verdict.traceback
    match verdict.outcome:
        case Success(message):
            return Move(job_id, claim_no, print_, models.SUCCESS, "success", one_line(message), attempts=1)
        case Unchanged():
            return Move(job_id, claim_no, print_, models.SUCCESS, "unchanged", "unchanged", attempts=1)
        case Gone():
            return Move(job_id, claim_no, print_, models.SUCCESS, "gone", "gone", attempts=1)
        case Failure(message, again, delay):
            line = one_line(message)
            wait = retry.wait(job.retries, dice=dice) if again else None
            if wait is None:
                return Move(job_id, claim_no, print_, models.FAILURE, "failure", line, attempts=1, traceback=trace)
            wait = bounded(wait if delay is None else delay)
            return Move(
                job_id, claim_no, print_, models.QUEUED, "retry", line, delay=wait, attempts=1, retries=1, traceback=trace
            )
        case Snooze(when, reason):
            delay, until = (0.0, when) if isinstance(when, datetime) else (bounded(when), None)
            return Move(
                job_id, claim_no, print_, models.QUEUED, "snooze", one_line(reason), delay, until, snoozes=1, traceback=trace
            )
        case Pause(_, reason):
            # Available at once: the pause itself keeps the claim away, and a resume by hand then frees the job too.
            return Move(job_id, claim_no, print_, models.QUEUED, "pause", one_line(reason), snoozes=1, traceback=trace)


def overtaken(job: Job) -> Move:
    """End a job whose entity a later job has finished in the meantime: what it brings is older than what is there."""
    message = "a later job of this entity was finished first"
    return Move(job.id, job.claim_no, job.fingerprint, models.SUPERSEDED, "superseded", message, attempts=1, phase=job.lane.phase)


def rescued(
    job_id: int, claim_no: int, fingerprint: str | None, rescues: int, *, worker: str, max_rescues: int, phase: str = ""
) -> Move:
    """Decide what becomes of a job whose worker died or went silent.

    Args:
        rescues: how often that has happened to this job before.
        worker: who had it.
        max_rescues: the rescue that ends it as poison (M4).
        phase: the one it had reached.
    """
    if rescues + 1 >= max_rescues:
        message = f"poison: {rescues + 1} workers died or went silent with this job in hand, the last one {worker}"
        return Move(job_id, claim_no, fingerprint, models.FAILURE, "rescued", message, rescues=1, phase=phase)
    return Move(job_id, claim_no, fingerprint, models.QUEUED, "rescued", f"rescued from {worker}", rescues=1, phase=phase)


def bounded(seconds: float) -> float:
    """Return a wait that every clock can hold."""
    return float(min(seconds, LONGEST_WAIT))


def one_line(text: str) -> str:
    """Return the text on one line, cut to `MESSAGE_LIMIT`."""
    if not text:
        return ""
    line = " ".join(str(text).split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"
