"""Which state a command fits, and what a command came to. Pure."""

from dataclasses import dataclass
from typing import NamedTuple

from jobs.models import FAILURE, FINISHED, PROCESSING, STATES

LISTED = 1000
"""Refusals that are kept one by one; the others are counted."""

UNKNOWN = "unknown"
"""In place of a state, of a job that there is not."""

_REFUSALS: dict[str, dict[str, str]] = {
    "retry": dict.fromkeys(set(STATES) - {FAILURE}, "only failed jobs can be retried"),
    "release": dict.fromkeys(set(STATES) - {PROCESSING}, "only jobs in processing can be released"),
    "cancel": dict.fromkeys(FINISHED, "it is finished"),
    "delete": {PROCESSING: "in processing; release or cancel it first"},
}


class Refused(NamedTuple):
    """A job that a command left as it was."""

    id: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Commanded:
    """What a command did."""

    #: Jobs that it changed.
    done: int
    #: The refusals, the first `LISTED` of them.
    refused: tuple[Refused, ...] = ()
    #: All refusals, counted: (state, reason, count).
    refusals: tuple[tuple[str, str, int], ...] = ()
    #: Of those done, the ones that gave way to a queued twin (M2).
    superseded: int = 0

    @property
    def refused_count(self) -> int:
        """The number of all refusals."""
        return sum(count for *_, count in self.refusals)


def refusal(command: str, state: str) -> str | None:
    """Return why a command refuses a job in this state, or `None` where it fits (E-16, E-43, AQ-62).

    Args:
        command: retry, release, cancel or delete.
        state: of the job.
    """
    return _REFUSALS[command].get(state)
