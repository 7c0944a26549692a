"""Writes the row of one run in the history of runs: when it begins, and when it ends."""

import logging
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from flows.declarations.sync import Sync
from flows.run_result import RunResult
from flows.worker.feed import DEFAULT_WAIT
from jobs import JobsError
from jobs.listing.runs import COUNTS
from jobs.outcome import one_line
from jobs.process_identity import this_worker
from jobs.store import JobStore

log = logging.getLogger("syncs.run")

HAND, PREFECT, WORK, PYTHON = "hand", "prefect", "work", "python"
"""What starts runs: a person at the command line, Prefect, a worker that continues a listing, a program."""


class RunHistory:
    """The row of one run. As a context manager it closes the row if the run ends with an exception.

    The history must not end a run: where it cannot be written at the end, others find the row later and close it.

    Args:
        sync: what runs.
        store: where the row is.
        started_by: `HAND`, `PREFECT`, `WORK` or `PYTHON`.
        flow_run: the id of the Prefect flow run that shows it.
        wait: seconds for which it waits for pauses, and for its turn.
        lease: seconds of the right to list.
    """

    def __init__(
        self, sync: Sync, store: JobStore, *, started_by: str, flow_run: str = "", wait: float | None = 0.0, lease: float
    ) -> None:
        self._sync, self._store = sync, store
        self._started_by, self._flow_run = started_by, flow_run
        # Each pause and the turn may take `wait`; a run that is closed too early stores its end all the same.
        self._patience = 2 * (DEFAULT_WAIT if wait is None else wait) + lease
        self._id: int | None = None
        self._is_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and not self._is_ended:
            said = str(error) if isinstance(error, JobsError) else ""
            message = one_line(f"{type(error).__name__}: {said}" if said else type(error).__name__)
            self.ended(RunResult(self._sync.id, self._sync.client.id, "failed", stopped="error", message=message))

    def begin(self) -> None:
        """Store that the run begins; does nothing if that is known."""
        if self._id is None:
            self._id = self._store.runs.begin(
                self._sync.id,
                self._sync.client.id,
                self._sync.queue_id,
                worker=this_worker(),
                started_by=self._started_by,
                flow_run=self._flow_run,
                patience=self._patience,
            )

    def claimed(self, claim_no: int) -> None:
        """Store that the run has the right to list."""
        self.begin()
        assert self._id is not None
        self._store.runs.claimed(self._id, self._sync.id, claim_no)

    def ended(self, result: RunResult) -> None:
        """Store how the run ended; does nothing if it did not begin."""
        if self._id is None:
            return
        values = {name: getattr(result, name) for name in ("state", "stopped", *COUNTS)}
        try:
            self._store.runs.end(self._id, {**values, "message": one_line(result.message)})
            self._is_ended = True
        except (SQLAlchemyError, JobsError) as error:
            log.warning("%s: the end of the run is not in `syncs runs`: %s", self._sync.id, type(error).__name__)
