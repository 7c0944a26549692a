"""Counts finished jobs and sums them up in one line."""

import logging
from collections.abc import Sequence

from flows.progress import Judged, Progress
from jobs.job import Job, JobResult
from jobs.outcome import Failure, Gone, Pause, Snooze, Unchanged

log = logging.getLogger("syncs.worker")


def name_of(job: Job) -> str:
    """Return the name of a job for people: its entity's key, or its number."""
    return job.key if job.key is not None else f"job {job.id}"


def label_of(job: Job) -> str:
    """Return how a log names a job: by number, type and key."""
    phase = f" in phase {job.lane.phase}" if job.lane.phase else ""
    key = f", {job.key}" if job.key is not None else ""
    return f"job {job.id} ({job.lane.type}{phase}{key})"


def reason_of(one: JobResult) -> str:
    """Return the message of a failure, else an empty text."""
    outcome = one.verdict.outcome
    return outcome.message if isinstance(outcome, Failure) else ""


def count(progress: Progress, settled: Sequence[JobResult]) -> None:
    """Add finished jobs to the numbers."""
    for one in settled:
        outcome = one.verdict.outcome
        progress.retrying.pop(one.job.id, None)
        progress.put_off.discard(one.job.id)
        if one.state == "success":
            if isinstance(outcome, Unchanged):
                progress.unchanged += 1
            elif isinstance(outcome, Gone):
                progress.gone += 1
            else:
                progress.succeeded += 1
        elif one.state == "failure":
            progress.fail(name_of(one.job), reason_of(one))
        elif one.state == "queued":
            if isinstance(outcome, Snooze | Pause):
                progress.snoozed += 1
                progress.put_off.add(one.job.id)
            # What our own process could not work is no retry: it was not tried.
            if isinstance(outcome, Failure) and not one.verdict.ours:
                progress.retried += 1
                progress.retrying[one.job.id] = (name_of(one.job), outcome.message)


def log_each(settled: Sequence[JobResult]) -> None:
    """Log one line for each finished job, where somebody wants it (`-v`)."""
    if log.isEnabledFor(logging.INFO):
        for one in settled:
            log.info("%s: %s", label_of(one.job), sum_up([one]).message)


def sum_up(settled: Sequence[JobResult]) -> Judged:
    """Sum up a batch or an entity in one line."""
    if len(settled) == 1:
        one = settled[0]
        outcome = one.verdict.outcome
        name = type(outcome).__name__.lower()
        text = getattr(outcome, "message", "") or getattr(outcome, "reason", "")
        return Judged(one.state != "failure", f"{name}: {text}" if text else name)
    counted = Progress()
    count(counted, settled)
    parts = [
        f"{number} {word}"
        for number, word in (
            (counted.succeeded, "succeeded"),
            (counted.unchanged, "unchanged"),
            (counted.gone, "gone"),
            (counted.failed, "failed"),
            (counted.retried, "to be retried"),
            (counted.snoozed, "snoozed"),
        )
        if number
    ]
    return Judged(counted.failed == 0, ", ".join(parts) or "released")
