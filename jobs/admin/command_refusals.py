"""Decides which states a command refuses, and defines the result of a command."""

from dataclasses import dataclass
from typing import NamedTuple

from jobs.schema.states import FAILURE, FINISHED, PROCESSING, STATES

LISTED = 1000
"""Refusals that are listed; further ones are only counted."""

UNKNOWN = "unknown"
"""The state in the refusal of a job that does not exist."""

_REFUSALS: dict[str, dict[str, str]] = {
    "retry": dict.fromkeys(set(STATES) - {FAILURE}, "only failed jobs can be retried"),
    "release": dict.fromkeys(set(STATES) - {PROCESSING}, "only jobs in processing can be released"),
    "cancel": dict.fromkeys(FINISHED, "it is finished"),
    "delete": {PROCESSING: "in processing; release or cancel it first"},
}


class Refused(NamedTuple):
    """A job that a command did not change."""

    id: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command."""

    #: Jobs that it changed.
    done: int
    #: The refusals, the first `LISTED` of them.
    refused: tuple[Refused, ...] = ()
    #: All refusals, counted: (state, reason, count).
    refusals: tuple[tuple[str, str, int], ...] = ()
    #: How many of the changed jobs were superseded by a queued job of the same fingerprint.
    superseded: int = 0

    @property
    def refused_count(self) -> int:
        """The number of all refusals."""
        return sum(count for *_, count in self.refusals)


def refusal(command: str, state: str) -> str | None:
    """Return why a command refuses a job in this state, or `None` if it does not.

    Args:
        command: retry, release, cancel or delete.
        state: of the job.
    """
    return _REFUSALS[command].get(state)
