"""The end of a listing: why it came, whether all was shown, and what a verdict means for it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clients import IncompleteError, Page
from flows.progress import Progress
from flows.user_code import attempt
from jobs.job import Verdict
from jobs.outcome import Failure, Pause, Snooze


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a listing ended: `end`, `short`, `limit`, `loop`, `error`, `paused` or `stop`, and what to say about it.

    Args:
        doubt: why an `end` may not be the real end.
        again: seconds after which the page may be asked for again, where it was not ready.
        ours: our own process could not ask: that says nothing of the listing, and another process may go on with it.
    """

    stopped: str
    message: str = ""
    pause: Pause | None = None
    cause: str = ""
    trouble: bool = False
    doubt: str = ""
    again: float | None = None
    ours: bool = False
    #: One part of the listing failed, and the rest was answered: it says nothing of the client.
    of_part: bool = False
    #: Nothing is left to try: nobody continues this listing.
    given_up: bool = False

    @property
    def is_resumable(self) -> bool:
        """Whether the same page may come later."""
        return self.trouble or self.again is not None


def ended_by(verdict: Verdict) -> Ended:
    """Return why a listing ended that ran into this verdict."""
    match verdict.outcome:
        case Pause() as pause:
            return Ended("paused", pause.reason, pause, verdict.cause)
        case Failure(message):
            return Ended("error", f"listing: {message}", trouble=verdict.trouble, ours=verdict.ours)
        case Snooze(float() | int() as seconds, reason):
            return Ended("error", f"listing: {reason}", again=seconds)
        case other:
            return Ended("error", f"listing: {other}")


def is_stale_cursor(verdict: Verdict) -> bool:
    """Tell whether a refusal of the very first resumed page may be the cursor's fault: cursors expire.

    Also 401 and 403: that is how an expired signed link answers, and a link to another host after `base_url` was changed. If our
    sign-in is at fault, the first page is refused, too.
    """
    if verdict.ours:
        return False
    if isinstance(verdict.outcome, Pause):
        return verdict.cause == "enforced"
    return isinstance(verdict.outcome, Failure) and not verdict.trouble


@dataclass(slots=True)
class Completeness:
    """What is known of the completeness of one listing.

    Args:
        progress: the run's numbers.
        seen: entities that an interrupted run had seen in the same pass.
    """

    progress: Progress
    seen: int = 0
    #: Those of them that this run is not shown again, because it goes on behind them.
    shown_before: int = 0
    #: The number of entities that the last page announced.
    announced: int | None = None
    #: Why pages may not have been whole, if the listing said so.
    doubt: str = ""

    def add_page(self, page: Page) -> None:
        """Take note of what a page says of the whole listing."""
        if page.total is not None:
            self.announced = page.total
        self.doubt = self.doubt or page.doubt

    def missing(self, more: int = 0) -> int:
        """Count the entities that the listing announced and has not shown.

        Args:
            more: entities that the present page shows, and that are not counted yet.
        """
        progress = self.progress
        shown = self.shown_before + progress.listed - progress.repeated + progress.flawed + more
        # A listing that starts over and comes back empty proves nothing, whatever the earlier run saw.
        return max(0, (self.announced or 0) - shown) if shown else max(self.announced or 0, self.seen)

    def text(self, missing: int) -> str:
        """Say that so many are missing."""
        if self.announced:
            return f"the listing announced {self.announced} entities and did not show {missing} of them"
        return f"the listing came back empty, where an interrupted run had seen {missing} entities"


class FailedPage(Exception):
    """Carries a verdict out of a page through the tracker, which then shows the page as failed."""

    def __init__(self, verdict: Verdict) -> None:
        outcome = verdict.outcome
        super().__init__(getattr(outcome, "message", "") or getattr(outcome, "reason", "") or type(outcome).__name__)
        self.verdict = verdict


def confirm_end(pages: Iterator[Page], judge: Callable[[Exception], Verdict]) -> IncompleteError | None:
    """Ask a listing whether its last page was all; return why it is not complete, if it says so.

    Raises:
        FailedPage: it raised something else, or there is another page.
    """
    try:
        more = attempt(lambda: next(pages, None), judge)
    except IncompleteError as error:
        return error
    if isinstance(more, Verdict):
        raise FailedPage(more)
    if more is not None:
        # Without a cursor, a crash after this page could not be resumed, and the page would count as the end.
        raise FailedPage(Verdict(Failure("a page that is not the last one has no cursor", retry=False)))
    return None
