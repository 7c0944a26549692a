"""What finished jobs come to: counted, and said in one line. Pure."""

from collections.abc import Sequence

from flows.tracker import Judged, Progress
from jobs.job import Job, Settled
from jobs.outcome import Failure, Gone, Pause, Snooze, Unchanged


def name_of(job: Job) -> str:
    """Return how people know a job: by its entity's key, or by its number."""
    return job.key if job.key is not None else f"job {job.id}"


def label_of(job: Job) -> str:
    """Return how a log names a job: by number, type and key."""
    phase = f" in phase {job.lane.phase}" if job.lane.phase else ""
    key = f", {job.key}" if job.key is not None else ""
    return f"job {job.id} ({job.lane.type}{phase}{key})"


def reason_of(one: Settled) -> str:
    """Return what a failure says."""
    outcome = one.verdict.outcome
    return outcome.message if isinstance(outcome, Failure) else ""


def count(progress: Progress, settled: Sequence[Settled]) -> None:
    """Add finished jobs to the numbers."""
    for one in settled:
        outcome = one.verdict.outcome
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
            progress.snoozed += isinstance(outcome, Snooze | Pause)
            progress.retried += isinstance(outcome, Failure)


def sum_up(settled: Sequence[Settled]) -> Judged:
    """Say in one line what a batch or an entity came to."""
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
