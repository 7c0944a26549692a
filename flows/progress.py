"""The progress of a run, and the protocol of trackers that show it: a progress bar, Prefect."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Progress:
    """The numbers of a run. One object per run, changed in place, read by trackers."""

    #: Failed entities that are named; the job table has them all.
    SHOWN: ClassVar[int] = 100

    pages: int = 0
    listed: int = 0
    #: Of the listed: those that an earlier page had shown already.
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
    #: Entities whose last attempt failed and that get another one: (key, message) by the id of the job.
    retrying: dict[int, tuple[str, str]] = field(default_factory=dict)
    #: Ids of jobs that were put back without an attempt and wait since then; `snoozed` counts how often that happened.
    put_off: set[int] = field(default_factory=set)
    listing_ended: bool = False
    #: What the run waits for at present, for people; empty while it works.
    waiting: str = ""
    #: Up to `SHOWN` failed entities: (key, message).
    failures: list[tuple[str, str]] = field(default_factory=list)
    #: All keys that have failed, and those of `fail_before` of which no job of this run has failed since.
    _failed: set[str] = field(default_factory=set)
    _before: set[str] = field(default_factory=set)

    def fail(self, key: str, message: str) -> None:
        """Count a failed entity, and name it if there is room."""
        self._failed.add(key)
        if key in self._before:
            # A page has shown this failure before its job was counted.
            self._before.discard(key)
            return
        self.failed += 1
        if len(self.failures) < self.SHOWN:
            self.failures.append((key, message))

    def fail_before(self, key: str, message: str) -> None:
        """Count an entity whose job a page has found failed, unless it is counted: this run may have worked that job."""
        if key not in self._failed:
            self.fail(key, message)
            self._before.add(key)

    def blame(self, errors: Iterable[str]) -> None:
        """Count the items of the present page that could not become entities."""
        for error in errors:
            self.flawed += 1
            self.fail(f"page {self.pages}", error)

    @property
    def worked(self) -> int:
        """Jobs that came to an end. One that went back, however often, did not."""
        return self.succeeded + self.gone + self.failed

    @property
    def dealt_with(self) -> int:
        """Different entities that this run dealt with: those that came to an end, the unchanged, and those that wait."""
        return self.worked + self.unchanged + len(self.retrying) + len(self.put_off)


@dataclass(frozen=True, slots=True)
class Judged:
    """The result of an entity or a batch, for trackers."""

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

    @property
    def flow_run(self) -> tuple[str, str]:
        """The link and the id of the Prefect flow run that shows this run; empty texts without one."""
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
    flow_run = ("", "")

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


class WakingTracker:
    """A tracker that also calls `wake` after each page and each finish.

    Args:
        tracker: gets all calls.
        wake: called from the worker's threads; must be quick.
    """

    def __init__(self, tracker: Tracker, wake: Callable[[], None]) -> None:
        self._tracker = tracker
        self._wake = wake
        self.shows_entities, self.flow_run = tracker.shows_entities, tracker.flow_run
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
