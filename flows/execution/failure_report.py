"""Reports jobs that failed for good: to the log, to subscribers and to `on_failure` of their job type."""

import logging

from flows import events
from flows.declarations.job_type import JobType
from flows.execution.job_context import FailedJob
from flows.project.redaction import Mask
from flows.user_code import attempt, place, trace
from jobs.claiming.poison import PoisonJob
from jobs.job import JobResult, Verdict
from jobs.outcome import Failure, one_line

log = logging.getLogger("syncs.job")


def report_failure(settled: JobResult, job_type: JobType, mask: Mask) -> None:
    """Report a failure that was committed, but not to subscribers. Never raises."""
    outcome = settled.verdict.outcome
    if not isinstance(outcome, Failure):
        return
    job, lane, message = settled.job, settled.job.lane, one_line(outcome.message)
    log.error("job %d (%s) failed: %s%s", job.id, lane.type, message, _indented(settled.verdict.traceback))
    failed = FailedJob(
        id=job.id,
        type=lane.type,
        client=lane.client,
        queue=lane.queue,
        key=job.key,
        payload=job.payload,
        attempt=job.attempt,
        retries=job.retries,
        phase=lane.phase or None,
        checkpoint=job.checkpoint,
        message=message,
    )
    _call_on_failure(job_type, failed, mask)


def report_poisoned(one: PoisonJob, job_type: JobType | None) -> None:
    """Report a job that failed because it keeps killing its workers. Never raises.

    Args:
        one: the job.
        job_type: its declaration; `None` for a sync's job, and where it is not known.
    """
    log.error("job %d (%s) failed: %s", one.id, one.type, one.message)
    if job_type is not None:
        failed = FailedJob(
            id=one.id,
            type=one.type,
            client=one.client,
            queue=one.queue,
            key=one.key,
            payload=one.payload,
            attempt=one.attempts + 1,
            retries=0,
            phase=one.phase or None,
            checkpoint=None,
            message=one.message,
        )
        _call_on_failure(job_type, failed)
    events.poisoned(one)


def _call_on_failure(job_type: JobType, failed: FailedJob, mask: Mask | None = None) -> None:
    on_failure = job_type.on_failure
    if on_failure is None:
        return

    def complain(error: Exception) -> Verdict:
        # Without a mask for the client's secrets the error's text stays out of the log.
        where = place(error) if mask is None else trace(error, mask)
        log.error("on_failure of job %d (%s) raised%s", failed.id, failed.type, _indented(where))
        return Verdict(Failure(type(error).__name__))

    attempt(lambda: on_failure(failed), complain)


def _indented(text: str | None) -> str:
    return f"\n{text.rstrip()}" if text else ""
