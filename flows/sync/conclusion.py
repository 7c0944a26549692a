"""Makes the result of a run: its state, its numbers and its message."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from flows.declarations.sync import Sync
from flows.pauses.client_health import Health
from flows.progress import Progress
from flows.run_result import RunResult
from flows.sync.listing_end import Ended
from flows.sync.run_state import nothing_stored, run_state
from flows.time_text import clock_text, moment_text
from jobs.job import Lane
from jobs.listing.listing_claim import ListingBusy
from jobs.listing.sweep import SweepResult
from jobs.store import JobStore


@dataclass(frozen=True, slots=True)
class Conclusion:
    """Makes the result of one run.

    Args:
        sync: what was run.
        store: tells what is left.
        lane: of the run's jobs.
        progress: the run's numbers.
        allow_deletes: a person has confirmed that any number of entities may be gone.
    """

    sync: Sync
    store: JobStore
    lane: Lane
    progress: Progress
    allow_deletes: bool = False

    @property
    def pending(self) -> int:
        """Jobs of the sync that are not done."""
        left = self.store.views.lane(self.lane)
        return left.due + left.delayed + left.processing

    def of(self, ended: Ended | None, health: Health, *, swept: SweepResult, stopped: bool) -> RunResult:
        """Return the result of a run.

        Args:
            ended: why its listing ended; `None` if it did not begin.
            health: knows what paused the client, and what our own process lacks.
            swept: what was deleted, or why nothing was.
            stopped: whether it was asked to stop.
        """
        ended = ended or Ended("stop", "stopped")
        client = self.sync.client.id
        known = self.store.pauses.state(client)
        # A short pause may be over by now; it has ended this run all the same.
        pausing = known.pausing or known.reopening or health.pauses.in_force.get(client)
        pending = self.pending
        if ended.given_up or (ended.stopped == "end" and not pending):
            # Waiting would not help, or all is done.
            pausing = None
        lacking = (health.lacks.text(self.sync.id) or health.lacks.text(client)) if pending else ""
        progress = self.progress
        worked = progress.dealt_with
        nothing = "" if stopped else self._nothing_stored(waits=not lacking)
        state = run_state(
            failed=progress.failed,
            worked=worked,
            listing_failed=ended.stopped in ("error", "loop") or bool(nothing),
            paused=pausing is not None,
        )
        unfinished = stopped and (ended.stopped != "end" or self.store.views.lane(self.lane).due > 0)
        if (swept.refused or unfinished or lacking or ended.stopped == "short") and state == "success":
            state = "partial"
        until = None if pausing is None else pausing.until
        message = paused_text(until, pausing.reason) if pausing is not None else ended.message
        if progress.failed and (state == "partial" or not message):
            failed = f"{progress.failed} of {max(worked, progress.failed)} failed"
            message = f"{failed}; {message}" if ended.stopped == "short" else failed
        if unfinished and not message:
            message = f"{progress.succeeded} succeeded, {self.store.views.lane(self.lane).due} left for later"
        if lacking:
            left = f"{lacking}; {self.pending:,} jobs stay queued"
            message = f"{message}; {left}" if message else left
        if nothing and state == "failed":
            message = f"{message}; {nothing}" if message else nothing
        if swept.refused:
            message = f"{message}; {swept.refused}" if message else swept.refused
        elif ended.doubt and not message:
            message = f"{ended.doubt}; nothing was deleted"
        return self.result(state, stopped=ended.stopped, until=until, message=message, deleted=swept.deleted)

    def of_listing(self, ended: Ended | None, swept: SweepResult) -> RunResult:
        """Return the result of a listing whose jobs others work.

        Args:
            ended: why it ended; `None` if it did not begin.
            swept: what was deleted, or why nothing was.
        """
        ended = ended or Ended("stop", "stopped")
        state = {"error": "failed", "loop": "failed", "short": "partial", "paused": "paused"}.get(ended.stopped, "success")
        if swept.refused and state == "success":
            state = "partial"
        message = "; ".join(filter(None, (ended.message, swept.refused)))
        return self.result(state, stopped=ended.stopped, message=message, deleted=swept.deleted)

    def of_skipped(self, busy: ListingBusy | None) -> RunResult:
        """Return the result of a run that did not begin.

        Args:
            busy: the process that runs the sync; `None` if there is no listing to continue.
        """
        if busy is None:
            return self.result("skipped", stopped="end", message=f"{self.sync.id} has no listing to continue")
        since = moment_text(busy.since, seconds=True)
        message = f"{self.sync.id} is already being run by {busy.worker} since {since}; nothing to do"
        return self.result("skipped", stopped="running", message=message)

    def _nothing_stored(self, *, waits: bool) -> str:
        """Say why the run is no success although no entity need have failed; empty if it may be one.

        Args:
            waits: jobs that are left wait for something that is not our own process.
        """
        progress, retrying = self.progress, len(self.progress.retrying)
        good, listed = progress.succeeded + progress.unchanged, progress.listed - progress.repeated
        put_off = 0
        if waits and listed and not good:
            left = self.store.views.lane(self.lane)
            # Also what an earlier run has put off, where that is all that is listed. Other jobs that are due may be another's.
            waiting = left.delayed + (left.due if progress.snoozed else 0)
            if progress.snoozed or waiting >= listed:
                put_off = max(0, min(waiting, listed) - retrying)
        return nothing_stored(
            listed=max(listed, good + progress.gone + progress.failed),
            good=good,
            gone=progress.gone,
            retrying=retrying,
            put_off=put_off,
            max_gone_share=1 if self.allow_deletes else self.sync.max_delete_share,
        )

    def result(
        self, state: str, *, stopped: str, message: str = "", until: datetime | None = None, deleted: int = 0
    ) -> RunResult:
        """Return a result with this state and the numbers."""
        progress = self.progress
        if state == "paused" and stopped == "stop":
            stopped = "paused"
        return RunResult(
            sync=self.sync.id,
            client=self.sync.client.id,
            state=state,
            pages=progress.pages,
            listed=progress.listed,
            distinct=progress.listed - progress.repeated,
            queued=progress.queued,
            succeeded=progress.succeeded,
            unchanged=progress.unchanged,
            gone=progress.gone,
            failed=progress.failed,
            flawed=progress.flawed,
            retrying=len(progress.retrying),
            snoozed=progress.snoozed,
            pending=self.pending,
            deleted=deleted,
            stopped=stopped,
            paused_until=until,
            message=message,
            failures=tuple(progress.failures),
            retries=tuple(islice(progress.retrying.values(), progress.SHOWN)),
        )


def paused_text(until: datetime | None, reason: str) -> str:
    """Say in one line until when a client is paused, and why."""
    if until is None:
        when = "until a person resumes it"
    else:
        now = datetime.now(UTC)
        when = f"until {clock_text(until, now=now)}"
        if until <= now:
            when += ", and then until one request has tested it"
    return f"Paused {when}: {reason}" if reason else f"Paused {when}"
