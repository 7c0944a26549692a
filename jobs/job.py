"""The values that pass between the job store and workers: lanes, claimed jobs and their results.

They are named tuples, because several are made for each job: creating a frozen dataclass of ten fields takes five times as long.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jobs.outcome import Outcome
from jobs.retry import Retry


class Lane(NamedTuple):
    """What a claim looks at: one type (and phase) of one client in one queue."""

    queue: str
    client: str
    type: str
    phase: str = ""

    def parameters(self) -> dict[str, str]:
        """Return the lane as bound parameters, named unlike any column."""
        return {"in_queue": self.queue, "of_client": self.client, "of_type": self.type, "of_phase": self.phase}


class Job(NamedTuple):
    """A claimed job. Its claim is valid as long as `claim_no` is that of the row."""

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
    #: The last checkpoint of an earlier attempt.
    checkpoint: Any = None
    #: Generation of the client when the job was claimed; see `jobs.pauses.pause`.
    client_generation: int = 0
    #: How often it was put back without using an attempt.
    snoozes: int = 0

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.attempts + 1


class Content(NamedTuple):
    """What a success writes to the `record` row of the entity.

    `data` is JSON text; `None` if the sync saves elsewhere and the row is only the ledger. `row_key` is JSON text, too: the
    primary keys of its rows in typed tables, where its own key does not tell them.
    """

    version: str | None
    content_hash: str | None
    data: str | None
    row_key: str | None = None


class StoredValidator(NamedTuple):
    """The validator of a response, with the request that it belongs to; see `clients.http.conditional`."""

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
    #: Of a pause: what came of the job if the client itself is well, so that the trouble is this job's alone.
    alone: Outcome | None = None
    #: Our own process, machine or database lacks something: the job goes back without using an attempt.
    ours: bool = False


class JobResult(NamedTuple):
    """A job that has been worked: what the store needs to finish it. `JobStore.finish` returns it with its new state.

    Args:
        job: the claim.
        verdict: what came of it.
        retry: the policy of its type.
        content: for entities: the new content of the ledger row.
        save: `(session) -> Verdict`, run inside the finish's transaction, only if the claim still holds and the
            content is new. It must not raise and must undo its own writes when it fails.
        rows: `jobs.typed_tables.table_writer.EntityRows`, written with those of the whole batch where `save` would be called.
        force: save also unchanged content.
        may_go: asked before a record that is there is marked as gone; a no keeps it, and fails the job.
        to_phase: on success the job is not done but goes back, for its next phase.
        exchanges: JSON text on the last requests and responses, without secrets; kept with the attempt.
        finish: finishes this job by itself, in place of the batch; a job whose session wrote has a transaction of its own.
        validators: what a success puts in place of the validators of the entity; `None` leaves them as they are.
        state: of the job after the finish, `lost` if another worker has the claim by then; empty before it.
        began: when its execution began, by `time.monotonic`; `None` takes the time of its claim.
    """

    job: Job
    verdict: Verdict
    retry: Retry
    content: Content | None = None
    save: Any = None
    rows: Any = None
    force: bool = False
    may_go: Callable[[], str | None] | None = None
    to_phase: str | None = None
    exchanges: str | None = None
    finish: "Callable[[JobResult], JobResult] | None" = None
    validators: Sequence[StoredValidator] | None = None
    state: str = ""
    began: float | None = None
