"""How a run is watched: the seam between the engine, which knows no Prefect, and whoever shows its progress."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Progress:
    """How far a run has come. One object per run, changed in place, read by trackers."""

    #: Failed entities that are named; the job table has them all.
    SHOWN: ClassVar[int] = 100

    pages: int = 0
    listed: int = 0
    #: Of the listed: those that an earlier page had, too.
    repeated: int = 0
    #: Entities known to need work: queued by this run, or found waiting.
    queued: int = 0
    succeeded: int = 0
    unchanged: int = 0
    gone: int = 0
    failed: int = 0
    snoozed: int = 0
    #: Listed items that could not become entities; they count as failed.
    flawed: int = 0
    #: Listed but left for a later run, such as files that are still being written.
    later: int = 0
    #: Failed attempts that get another try.
    retried: int = 0
    listing_ended: bool = False
    #: Up to `SHOWN` failed entities: (key, message).
    failures: list[tuple[str, str]] = field(default_factory=list)

    def fail(self, key: str, message: str) -> None:
        """Count a failed entity, and name it if there is room."""
        self.failed += 1
        if len(self.failures) < self.SHOWN:
            self.failures.append((key, message))

    def blame(self, errors: Iterable[str]) -> None:
        """Count the items of the page at hand that could not become entities."""
        for error in errors:
            self.flawed += 1
            self.fail(f"page {self.pages}", error)

    @property
    def worked(self) -> int:
        """Jobs that came to an end or went back."""
        return self.succeeded + self.gone + self.failed + self.snoozed


@dataclass(frozen=True, slots=True)
class Judged:
    """What an entity or a batch came to, for those who watch."""

    ok: bool
    message: str


class Tracker(Protocol):
    """Sees each step of a run. `page` and `batch` and `entity` run the work they are handed, exactly once, and return its value.

    They are called from several threads at once.
    """

    @property
    def shows_entities(self) -> bool:
        """Whether `entity` is worth its cost: each such job is then finished in a transaction of its own."""
        ...

    def page(self, number: int, work: Callable[[], T]) -> T:
        """Run the listing of one page, numbered from 1."""
        ...

    def entity(self, key: str, work: Callable[[], Judged]) -> Judged:
        """Run one entity's job. Called for the first entities of a run, up to the sync's `entity_task_runs`."""
        ...

    def batch(self, keys: list[str], work: Callable[[], Judged]) -> Judged:
        """Run one claimed batch of jobs."""
        ...

    def progress(self, progress: Progress) -> None:
        """Look at the numbers. Called often; it must be cheap."""
        ...


class SilentTracker:
    """Runs everything and shows nothing."""

    shows_entities = False

    def page(self, number: int, work: Callable[[], T]) -> T:
        """Run it."""
        return work()

    def entity(self, key: str, work: Callable[[], Judged]) -> Judged:
        """Run it."""
        return work()

    def batch(self, keys: list[str], work: Callable[[], Judged]) -> Judged:
        """Run it."""
        return work()

    def progress(self, progress: Progress) -> None:
        """Do nothing."""


class Waking:
    """A tracker that also wakes somebody after each page and each finish.

    Args:
        tracker: who watches.
        wake: called from the engine's threads; must be quick.
    """

    def __init__(self, tracker: Tracker, wake: Callable[[], None]) -> None:
        self._tracker = tracker
        self._wake = wake
        self.shows_entities = tracker.shows_entities
        self.page = tracker.page
        self.entity = tracker.entity
        self.batch = tracker.batch

    def progress(self, progress: Progress) -> None:
        """Wake, and pass the numbers on."""
        self._wake()
        self._tracker.progress(progress)


def label(keys: list[str]) -> str:
    """Name a batch by its first and last key: `100 entities, aaa … abz`."""
    if len(keys) == 1:
        return _short(keys[0])
    return f"{len(keys)} entities, {_short(keys[0])} … {_short(keys[-1])}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "…"
