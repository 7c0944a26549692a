"""Shows a run in Prefect: a task run for each page, entity or batch, and a progress artifact that moves. Decides nothing.

Law 14: Prefect is not trusted. Whatever it does (server gone, error, timeout), the work that is handed in runs exactly once,
and its value or exception comes back. Nothing but names, counts and messages is recorded: no parameters, no results, no payloads.
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

from flows.orchestration.budget import Budget
from flows.orchestration.progress import ProgressReport
from flows.tracker import Judged, Progress, label

log = logging.getLogger(__name__)

T = TypeVar("T")

_MESSAGE_LENGTH = 1000
#: So many failures of Prefect in a row, and the rest of the run goes without it.
_PATIENCE = 5


class _Step:
    """One piece of work: runs it once, keeps its value or exception, and knows the state that shows it."""

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
        except BaseException as error:  # noqa: BLE001 - handed on by `outcome`; here Prefect would record its traceback
            self.error = error

    def state(self) -> State[Any]:
        """Return the final state of the task run, by the value's `ok` and `message` where it has them."""
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
    # No tags: each costs 10 ms. No retries (law 7), no cache, no results, no parameters.
    made = task(name=name, task_run_name=_name, retries=0, cache_policy=NO_CACHE, persist_result=False, log_prints=False)
    return made(_perform)


_page, _entity, _batch = _task("page"), _task("entity"), _task("batch")


class _EngineSilence(logging.Filter):
    """Drops what Prefect's task engine says of each task run: the states say it already, and each line goes to the server."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.module != "task_engine"


class PrefectTracker:
    """Implements `flows.tracker.Tracker` within a flow run, for an engine with threads of its own.

    Make and enter it in the flow: it takes the flow run's context there.

    Args:
        title: what is run, e.g. the sync's id; heads the progress.
        key: of the progress artifact.
        on_progress: is called with the numbers whenever the engine reports them, in the engine's thread.
    """

    def __init__(self, title: str, *, key: str, on_progress: Callable[[Progress], None] | None = None) -> None:
        self._report = ProgressReport(title, key=key)
        self._on_progress = on_progress
        self._budget = Budget()
        self._failures = 0
        self._context = copy_context()
        self._silence = _EngineSilence()
        self._client = contextlib.ExitStack()

    def __enter__(self) -> Self:
        logging.getLogger("prefect.task_runs").addFilter(self._silence)
        try:
            # An async flow has no synchronous client; without this one, every task run would open its own.
            self._context.run(self._client.enter_context, SyncClientContext())
        except Exception as error:  # noqa: BLE001 - law 14
            self._complain(error)
        self._report.start(self._context.copy())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._report.close()
        with contextlib.suppress(Exception):
            self._context.run(self._client.close)
        logging.getLogger("prefect.task_runs").removeFilter(self._silence)

    def page(self, number: int, work: Callable[[], T]) -> T:
        """Run the listing of one page, as task run `page 1`."""
        return self._track(_page, self._budget.page(number), work)

    @property
    def shows_entities(self) -> bool:
        """Whether entities get task runs of their own: yes."""
        return True

    def entity(self, key: str, work: Callable[[], Judged]) -> Judged:
        """Run one entity's job, as a task run named by its key."""
        return self._track(_entity, self._budget.entity(key), work)

    def batch(self, keys: list[str], work: Callable[[], Judged]) -> Judged:
        """Run one batch of jobs, as a task run named by its first and last key."""
        return self._track(_batch, self._budget.batch(label(keys)), work)

    def progress(self, progress: Progress) -> None:
        """Look at the numbers; a thread sends them."""
        self._report.look(progress)
        if self._on_progress is not None:
            self._on_progress(progress)

    @property
    def server_gone(self) -> bool:
        """Whether the Prefect server has stopped answering."""
        return self._report.server_gone

    def _track(self, shown: Any, name: str | None, work: Callable[[], T]) -> T:
        # Events for a server that is gone would pile up; when it is back, the next step is shown again.
        if name is None or self._failures >= _PATIENCE or self._report.server_gone:
            return work()
        step = _Step(name, work)
        try:
            # Each call in a copy: a context can be entered by one thread at a time, and the engine has many.
            self._context.copy().run(_call, shown, step)
            self._failures = 0
        except Exception as error:  # noqa: BLE001 - law 14; `work`'s own exceptions never get here
            self._complain(error)
        if not step.begun:
            step.run()
        return cast(T, step.outcome())

    def _complain(self, error: Exception) -> None:
        self._failures += 1
        if self._failures in (1, _PATIENCE):
            rest = "; the rest of this run is not shown there" if self._failures == _PATIENCE else ""
            log.warning("Prefect does not record: %s%s", f"{type(error).__name__}: {error}", rest)


def _call(shown: Any, step: _Step) -> None:
    _step.set(step)
    # Without return_state, a Failed state would be raised here.
    shown(return_state=True)


def _short(text: str) -> str:
    return text if len(text) <= _MESSAGE_LENGTH else text[: _MESSAGE_LENGTH - 1] + "…"
