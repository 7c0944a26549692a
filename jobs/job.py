"""The values that travel between the tables and whoever works: lanes, claimed jobs, verdicts. Knows no query.

They are named tuples, because several of them are made for each job: a frozen dataclass of ten fields takes five times as long.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jobs.outcome import Outcome
from jobs.retry import Retry


class Lane(NamedTuple):
    """Jobs that wait for one another and for nobody else: one type (and phase) of one client in one queue."""

    queue: str
    client: str
    type: str
    phase: str = ""

    def parameters(self) -> dict[str, str]:
        """Return the lane as bound parameters, whose names no column has."""
        return {"in_queue": self.queue, "of_client": self.client, "of_type": self.type, "of_phase": self.phase}


class Job(NamedTuple):
    """A claimed job. Whoever holds it may finish it, as long as `claim_no` is still the row's."""

    id: int
    lane: Lane
    key: str | None
    fingerprint: str | None
    payload: Any
    generation: int | None
    claim_no: int
    attempts: int
    retries: int
    rescues: int
    #: What an earlier attempt noted.
    checkpoint: Any = None
    #: The client's, under which its requests begin; see `jobs.pause`.
    client_generation: int = 0

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.attempts + 1


class Move(NamedTuple):
    """What a finish or a rescue does to one row; see `jobs.settle`."""

    job_id: int
    claim_no: int
    fingerprint: str | None
    state: str
    #: Name of the attempt's outcome.
    outcome: str
    message: str = ""
    #: Seconds until a queued job may be claimed; ignored where `until` is set.
    delay: float = 0.0
    until: Any = None
    attempts: int = 0
    retries: int = 0
    snoozes: int = 0
    rescues: int = 0
    traceback: str | None = None
    #: The phase that this attempt was about.
    phase: str = ""
    #: The phase that the job goes on to, where it changes; its checkpoint ends with the old one.
    to_phase: str | None = None
    #: JSON text for the attempt's row.
    exchanges: str | None = None


class Content(NamedTuple):
    """What a success puts into the `record` row of the entity.

    `data` is JSON text; `None` where the sync saves elsewhere and the row is only the ledger.
    """

    version: str | None
    content_hash: str | None
    data: str | None


class Stored(NamedTuple):
    """The validator of an answer, with whose it is; see `clients.validators`."""

    identity: str
    method: str
    url: str
    etag: str | None
    modified: str | None


class Verdict(NamedTuple):
    """An outcome together with the traceback that led to it, if one did."""

    outcome: Outcome
    traceback: str | None = None
    #: Whether this was generic trouble with the remote side, which raises the client's error level.
    trouble: bool = False
    #: Of a pause: `asked` by the remote side or the job itself, or `enforced` by policy.
    cause: str = "asked"
    #: Of a failure: something was sent, and nobody knows whether it was done.
    unknown: bool = False


class Done(NamedTuple):
    """A job that has been worked, ready to be finished.

    Args:
        job: the claim.
        verdict: what came of it.
        retry: the policy of its type.
        content: for entities: the new content of the ledger row.
        save: `(session) -> Verdict`, run inside the finish's transaction, only if the claim still holds and the
            content is new. It must not raise and must undo its own writes when it fails.
        force: save also unchanged content.
        may_go: asked before a record that is there is marked as gone; a no keeps it, and fails the job.
        to_phase: on success the job is not done but goes back, for its next phase.
        exchanges: JSON text on the last requests and responses, without secrets; kept with the attempt.
        finish: finishes this job by itself, in place of the batch; a job whose session wrote has a transaction of its own.
        validators: what a success puts in place of the validators of the entity; `None` leaves them as they are.
    """

    job: Job
    verdict: Verdict
    retry: Retry
    content: Content | None = None
    save: Any = None
    force: bool = False
    may_go: Callable[[], str | None] | None = None
    to_phase: str | None = None
    exchanges: str | None = None
    finish: "Callable[[Done], Settled] | None" = None
    validators: Sequence[Stored] | None = None


class Settled(NamedTuple):
    """What the finish made of a job: its new state, or `lost` when the claim was another's by then."""

    job: Job
    state: str
    verdict: Verdict
