"""Whom and what a client's notices are about, besides its trouble: declarations, recipients, the run that has just ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flows.cause import Cause
from flows.result import RunResult
from jobs.notice import Addressee, News


@dataclass(frozen=True, slots=True)
class House:
    """What there is to know besides the trouble itself.

    Args:
        syncs, job_types: of the client.
        to: the recipients by level.
        window: seconds in which one cause is told once.
        waiting: jobs of the client that are queued.
        failures: by sync or job type.
        listings: those that failed in a run which died, by sync.
        ended: the run that has just ended.
        link, run: where people find it, and the id of its flow run.
        is_whole: all declarations could be read.
    """

    syncs: tuple[str, ...]
    job_types: tuple[str, ...]
    to: Callable[[str], Sequence[Addressee]]
    window: float
    waiting: int = 0
    failures: Mapping[str, Sequence[Cause]] = field(default_factory=dict)
    listings: Mapping[str, News] = field(default_factory=dict)
    ended: RunResult | None = None
    link: str = ""
    run: str = ""
    is_whole: bool = True
