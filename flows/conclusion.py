"""What a run came to: its state and what to say of it. Reads counts; knows no thread and no claim."""

from dataclasses import dataclass
from datetime import UTC, datetime

from flows.declaration import Sync
from flows.lister import Ended
from flows.result import RunResult, run_state
from flows.tracker import Progress
from jobs.job import Lane
from jobs.pause import Pausing
from jobs.store import JobStore
from jobs.sweep import SweepResult


@dataclass(frozen=True, slots=True)
class Conclusion:
    """Makes the result of one run.

    Args:
        sync: what was run.
        store: knows what is left.
        lane: of the run's jobs.
        progress: the run's numbers.
    """

    sync: Sync
    store: JobStore
    lane: Lane
    progress: Progress

    def of(self, ended: Ended, *, pausing: Pausing | None, swept: SweepResult, stopped: bool) -> RunResult:
        """Judge a run.

        Args:
            ended: why its listing ended.
            pausing: what paused the client, before or during the run.
            swept: what was deleted, or why nothing was.
            stopped: somebody asked it to stop.
        """
        progress = self.progress
        worked = progress.worked + progress.unchanged
        state = run_state(
            failed=progress.failed,
            worked=worked,
            listing_failed=ended.stopped in ("error", "loop"),
            paused=pausing is not None,
        )
        unfinished = stopped and (ended.stopped != "end" or self.store.lane(self.lane).due > 0)
        if (swept.refused or unfinished or ended.stopped == "short") and state == "success":
            state = "partial"
        until = None if pausing is None else pausing.until
        message = paused_text(until, pausing.reason) if pausing is not None else ended.message
        if progress.failed and (state == "partial" or not message):
            failed = f"{progress.failed} of {max(worked, progress.failed)} failed"
            message = f"{failed}; {message}" if ended.stopped == "short" else failed
        if unfinished and not message:
            message = f"{progress.succeeded} succeeded, {self.store.lane(self.lane).due} left for later"
        if swept.refused:
            message = f"{message}; {swept.refused}" if message else swept.refused
        return self.result(state, stopped=ended.stopped, until=until, message=message, deleted=swept.deleted)

    def result(
        self, state: str, *, stopped: str, message: str = "", until: datetime | None = None, deleted: int = 0
    ) -> RunResult:
        """Put the numbers to a state."""
        progress = self.progress
        left = self.store.lane(self.lane)
        if state == "paused" and stopped == "stop":
            stopped = "paused"
        return RunResult(
            sync=self.sync.id, client=self.sync.client.id, state=state, pages=progress.pages, listed=progress.listed,
            distinct=progress.listed - progress.repeated,
            queued=progress.queued, succeeded=progress.succeeded, unchanged=progress.unchanged, gone=progress.gone,
            failed=progress.failed, flawed=progress.flawed, snoozed=progress.snoozed,
            pending=left.due + left.delayed + left.processing, deleted=deleted,
            stopped=stopped, paused_until=until, message=message, failures=tuple(progress.failures),
        )  # fmt: skip


def paused_text(until: datetime | None, reason: str) -> str:
    """Say in one line until when a client is paused, and why."""
    if until is None:
        when = "until a person resumes it"
    else:
        clock = "%H:%M" if until.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M"
        when = f"until {until:{clock}} UTC"
        if until <= datetime.now(UTC):
            when += ", and then until one request has tested it"
    return f"Paused {when}: {reason}" if reason else f"Paused {when}"
