"""What a client's notices depend on besides its trouble: declarations, recipients and the run that has just ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flows.notices.causes import Cause
from flows.run_result import RunResult
from jobs.notices.notice import RecipientRef
from jobs.notices.unreported_failures import UnreportedFailure


@dataclass(frozen=True, slots=True)
class NoticeContext:
    """What decides about a client's notices besides its trouble.

    Args:
        syncs, job_types: the ids that the client has.
        recipients: returns those of a level.
        window: seconds in which one cause is reported once.
        waiting: queued jobs of the client.
        failures: causes by sync or job type.
        listings: by sync, listings that failed in a run that died.
        late: by sync, since when none of its runs has succeeded, in words.
        ended: the run that has just ended.
        link, run: where people find it, and the id of its flow run.
        all_declared: all files with declarations could be read.
    """

    syncs: tuple[str, ...]
    job_types: tuple[str, ...]
    recipients: Callable[[str], Sequence[RecipientRef]]
    window: float
    waiting: int = 0
    failures: Mapping[str, Sequence[Cause]] = field(default_factory=dict)
    listings: Mapping[str, UnreportedFailure] = field(default_factory=dict)
    late: Mapping[str, str] = field(default_factory=dict)
    ended: RunResult | None = None
    link: str = ""
    run: str = ""
    all_declared: bool = True
