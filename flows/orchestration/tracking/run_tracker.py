"""Shows a run in Prefect: a task run for each page, entity or batch, and a progress artifact.

A failure of Prefect (no server, an error, a timeout) does not affect the work: it runs exactly once, and its value is returned or
its exception raised. Only names, counts and messages are recorded: no parameters, no results, no payloads.
"""

import contextlib
import logging
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import SyncClientContext
from prefect.states import Completed, Failed

from flows.orchestration.tracking.current_run import current_flow_run
from flows.orchestration.tracking.progress_artifact import ProgressReport
from flows.orchestration.tracking.task_run_quota import TaskRunQuota
from flows.progress import Judged, Progress, label
from flows.project.redaction import printable_line

log = logging.getLogger(__name__)

T = TypeVar("T")

_MESSAGE_LENGTH = 1000
#: After so many failures of Prefect in a row, the rest of the run is not shown.
_MAX_FAILURES = 5


class _Step:
    """One piece of work: runs it once, keeps its value or exception, and makes the state of its task run."""

    def __init__(self, name: str, work: Callable[[], Any]) -> None:
        self.name = name
        self.begun = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._work = work

    def run(self) -> None:
        self.begun = True
        try:
            self.value = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again by `outcome`; if it passed through Prefect, its traceback would be recorded
            self.error = error

    def state(self) -> State[Any]:
        """Return the final state of the task run, from the value's `ok` and `message` if it has them."""
        if self.error is not None:
            return Failed(message=_short(f"{type(self.error).__name__}: {self.error}"))
        message = _short(str(getattr(self.value, "message", "") or "")) or None
        return Completed(message=message) if getattr(self.value, "ok", True) else Failed(message=message)

    def outcome(self) -> Any:
        """Return the value of the work, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self.value


_step: ContextVar[_Step] = ContextVar("step")


def _name() -> str:
    return _step.get().name


def _perform() -> State[Any]:
    step = _step.get()
    step.run()
    return step.state()


def _task(name: str) -> Any:
    # No tags: each costs 10 ms (3.9.1). No retries: the job is retried. No cache, no results, no parameters.
    made = task(name=name, task_run_name=_name, retries=0, cache_policy=NO_CACHE, persist_result=False, log_prints=False)
    return made(_perform)


_page, _entity, _batch = _task("page"), _task("entity"), _task("batch")


class _DropTaskEngineLines(logging.Filter):
    """Drops the lines that Prefect's task engine logs for each task run: they repeat the states, and each goes to the server."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.module != "task_engine"


class PrefectTracker:
    """Implements `flows.progress.Tracker` within a flow run, for an engine with threads of its own.

    Make and enter it in the flow, where it copies the flow run's context.

    Args:
        title: the sync's id, or `work`; the progress text starts with it.
        key: of the progress artifact.
        on_progress: is called with the numbers whenever the engine reports them, in the engine's thread.
    """

    def __init__(self, title: str, *, key: str, on_progress: Callable[[Progress], None] | None = None) -> None:
        self._report = ProgressReport(title, key=key)
        self._on_progress = on_progress
        self._quota = TaskRunQuota()
        self._failures = 0
        #: How often the server had come back when a step was last shown.
        self._returns = 0
        self._context = copy_context()
        self.flow_run = current_flow_run()
        self._log_filter = _DropTaskEngineLines()
        self._client = contextlib.ExitStack()

    def __enter__(self) -> Self:
        logging.getLogger("prefect.task_runs").addFilter(self._log_filter)
        try:
            # An async flow has no synchronous client. Without this one, each task run would open its own (3.9.1).
            self._context.run(self._client.enter_context, SyncClientContext())
        except Exception as error:  # noqa: BLE001 - a failure of Prefect must not end the run
            self._count_failure(error)
        self._report.start(self._context.copy())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._report.close()
        with contextlib.suppress(Exception):
            self._context.run(self._client.close)
        logging.getLogger("prefect.task_runs").removeFilter(self._log_filter)

    def page(self, number: int, work: Callable[[], T]) -> T:
        """Run the listing of one page, as task run `page 1`."""
        return self._track(_page, self._quota.page(number), work)

    @property
    def shows_entities(self) -> bool:
        """Whether entities get task runs of their own: yes."""
        return True

    def entity(self, key: str, work: Callable[[], Judged]) -> Judged:
        """Run one entity's job, as a task run named by its key."""
        return self._track(_entity, self._quota.entity(key), work)

    def batch(self, keys: list[str], work: Callable[[], Judged]) -> Judged:
        """Run one batch of jobs, as a task run named by its first and last key."""
        return self._track(_batch, self._quota.batch(label(keys)), work)

    def progress(self, progress: Progress) -> None:
        """Take over the numbers; a thread sends them."""
        self._report.update(progress)
        if self._on_progress is not None:
            self._on_progress(progress)

    @property
    def server_gone(self) -> bool:
        """Whether the Prefect server has stopped answering."""
        return self._report.server_gone

    def _track(self, shown: Any, name: str | None, work: Callable[[], T]) -> T:
        # Events for a server that is gone would pile up. When it answers again, the next step is shown again.
        if self._returns != self._report.returns:
            self._returns, self._failures = self._report.returns, 0
        if name is None or self._failures >= _MAX_FAILURES or self._report.server_gone:
            return work()
        step = _Step(name, work)
        try:
            # Each call in a copy of the context, which only one thread at a time can enter.
            self._context.copy().run(_call, shown, step)
            self._failures = 0
        except Exception as error:  # noqa: BLE001 - a failure of Prefect must not end the run; `work`'s own exceptions are kept in the step
            self._count_failure(error)
        if not step.begun:
            step.run()
        return cast(T, step.outcome())

    def _count_failure(self, error: Exception) -> None:
        self._failures += 1
        if self._failures in (1, _MAX_FAILURES):
            rest = "; the rest of this run is not shown there" if self._failures == _MAX_FAILURES else ""
            log.warning("Prefect does not record: %s%s", f"{type(error).__name__}: {error}", rest)


def _call(shown: Any, step: _Step) -> None:
    _step.set(step)
    # Without return_state, a Failed state would be raised here.
    shown(return_state=True)


def _short(text: str) -> str:
    return printable_line(text, limit=_MESSAGE_LENGTH)
